"""``poll_oneoff``: wait for clocks and descriptors, until the guest's time limit expires."""

from __future__ import annotations

import array
import fcntl
import select
import stat
import termios
from struct import Struct

from asm_libcalls.toy_jit.wasi.abi import EVENT, Right
from asm_libcalls.toy_jit.wasi.errors import Errno, WasiError
from asm_libcalls.toy_jit.wasi.nonblocking import SLICE
from asm_libcalls.toy_jit.wasi.process_calls import now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asm_libcalls.toy_jit.wasi.call import Call, CallTable
    from asm_libcalls.toy_jit.wasi.descriptors import Descriptor

_HEAD = Struct("<QB7x")  # user data, kind
_CLOCK = Struct("<I4xQQH6x")  # clock, time, precision, flags
_FD = Struct("<I")
_SUBSCRIPTION_SIZE = 48

_KIND_CLOCK, _KIND_READ, _KIND_WRITE = range(3)
_ABSOLUTE = 1
_HANGUP = 1
_MAXIMUM = 4096
"""Maximum number of subscriptions of one call."""


class _Subscription:
    """A subscription of the guest, and its result."""

    def __init__(self, call: Call, address: int) -> None:
        memory = call.memory
        self.user_data, self.kind = memory.read(_HEAD, address)
        self.error = Errno.SUCCESS
        self.descriptor: Descriptor | None = None
        self.clock = self.time = 0
        self.is_ready = False
        try:
            self._read(call, address + _HEAD.size)
        except WasiError as error:
            if error.number == Errno.FAULT:
                raise
            self.error, self.is_ready = error.number, True

    def _read(self, call: Call, address: int) -> None:
        if self.kind == _KIND_CLOCK:
            self.clock, self.time, _, flags = call.memory.read(_CLOCK, address)
            current = now(self.clock)
            if flags & ~_ABSOLUTE:
                raise WasiError(Errno.INVAL)
            if not flags & _ABSOLUTE:
                self.time += current
        elif self.kind in (_KIND_READ, _KIND_WRITE):
            fd = call.memory.read(_FD, address)[0]
            right = Right.FD_READ if self.kind == _KIND_READ else Right.FD_WRITE
            self.descriptor = call.descriptors.get(fd, Right.POLL_FD_READWRITE)
            self.descriptor.need(right)
            self.is_ready = self.host < 0 or not self._waits()
        else:
            raise WasiError(Errno.INVAL)

    @property
    def host(self) -> int:
        """The host's file descriptor, or -1."""
        return -1 if self.descriptor is None else self.descriptor.host

    def _waits(self) -> bool:
        assert self.descriptor is not None
        status = self.descriptor.status()
        return status is not None and not stat.S_ISREG(status.st_mode)

    @property
    def events(self) -> int:
        """The events to poll the host for."""
        return select.POLLIN if self.kind == _KIND_READ else select.POLLOUT

    def event(self, ready: dict[int, int]) -> tuple[int, ...]:
        """Return the fields of its event structure."""
        available = flags = 0
        if self.descriptor is not None and not self.error:
            found = ready.get(self.host, 0)
            flags = _HANGUP if found & select.POLLHUP else 0
            if self.kind == _KIND_READ:
                available = self._available()
        return self.user_data, int(self.error), self.kind, available, flags

    def _available(self) -> int:
        status = None if self.descriptor is None else self.descriptor.status()
        if status is None:
            return 1
        if not self._waits():
            from os import SEEK_CUR, lseek

            return max(0, status.st_size - lseek(self.host, 0, SEEK_CUR))
        count = array.array("i", [0])
        try:
            fcntl.ioctl(self.host, termios.FIONREAD, count)
        except OSError:
            return 1
        return count[0]


def _poll_oneoff(call: Call, subscriptions: int, events: int, count: int, result: int) -> None:
    if count == 0 or count > _MAXIMUM:
        raise WasiError(Errno.INVAL)
    call.memory.range(subscriptions, count * _SUBSCRIPTION_SIZE)
    call.memory.range(events, count * EVENT.size)
    call.memory.range(result, 4)
    waiting = [_Subscription(call, subscriptions + i * _SUBSCRIPTION_SIZE) for i in range(count)]
    ready = _wait(call, waiting)
    happened = [each for each in waiting if each.is_ready]
    for i, each in enumerate(happened):
        call.memory.write(EVENT, events + i * EVENT.size, *each.event(ready))
    call.memory.write_u32(result, len(happened))


def _wait(call: Call, waiting: list[_Subscription]) -> dict[int, int]:
    """Wait until one is ready, mark all that are, and return the host's events."""
    interests: dict[int, int] = {}
    for each in waiting:
        if each.descriptor is not None and not each.is_ready:
            interests[each.host] = interests.get(each.host, 0) | each.events
    clocks = [each for each in waiting if each.kind == _KIND_CLOCK and not each.error]
    while True:
        left = min((each.time - now(each.clock) for each in clocks), default=1 << 62) / 1e9
        is_over = left <= 0 or any(each.is_ready for each in waiting)
        ready = call.wait(interests, 0 if is_over else min(left, SLICE))
        for each in waiting:
            found = ready.get(each.host, 0) if each.descriptor is not None else 0
            if found & (each.events | select.POLLERR | select.POLLHUP | select.POLLNVAL):
                each.is_ready = True
        for each in clocks:
            each.is_ready = each.time <= now(each.clock)
        if any(each.is_ready for each in waiting):
            return ready
        call.check()


CALLS: CallTable = {"poll_oneoff": (_poll_oneoff, "iiii")}
