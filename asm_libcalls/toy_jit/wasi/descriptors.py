"""Descriptors of a guest, files and folders of the host among them, and their table."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import stat

from asm_libcalls.toy_jit.wasi import abi, nonblocking
from asm_libcalls.toy_jit.wasi.abi import FdFlag, FileType, Right
from asm_libcalls.toy_jit.wasi.errors import Errno, WasiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any, Protocol

    class Waiter(Protocol):
        """The call that uses a descriptor."""

        def check(self) -> None:
            """Raise Interrupt if the calling instance must trap, or its time limit has expired."""

        def wait(self, interests: Mapping[int, int], seconds: float | None) -> dict[int, int]:
            """Wait until a file descriptor of the host is ready, or the time is up."""


MAXIMUM = 512
"""Maximum number of descriptors of a guest, so that it does not use up those of the process."""

PIPE_BUF = select.PIPE_BUF
"""Bytes that a pipe which is ready for writing takes without blocking."""

_PAUSE = 0.001
"""Seconds before another attempt to write to a descriptor that is ready and takes nothing."""

_WHENCE = (os.SEEK_SET, os.SEEK_CUR, os.SEEK_END)


class Descriptor:
    """A descriptor of the guest."""

    host = -1  # the host's file descriptor, or -1
    preopened: bytes | None = None  # the guest's name of a preopened folder

    def __init__(self, filetype: int, natural: int, inheriting: int = 0, flags: int = 0) -> None:
        self.filetype = filetype  # a value of abi.FileType
        self.natural = natural  # the rights that make sense for its type
        # `rights`, `inheriting`: its rights, and those of descriptors that are opened through it
        self.rights, self.inheriting = natural, inheriting
        self.flags = flags  # bits of abi.FdFlag
        self.listing: list[tuple[bytes, int, int]] = []

    def need(self, rights: int) -> None:
        """Check that it has all of `rights`."""
        if self.rights & rights == rights:
            return
        if self.natural & rights == rights:
            raise WasiError(Errno.NOTCAPABLE)  # dropped by fd_fdstat_set_rights, or never inherited
        is_directory = self.filetype == FileType.DIRECTORY
        if rights & (Right.FD_SEEK | Right.FD_TELL) and not is_directory:
            raise WasiError(Errno.SPIPE)
        raise WasiError(Errno.BADF)

    def read(self, call: Waiter, buffers: Sequence[memoryview], offset: int | None = None) -> int:
        """Read into `buffers`, and return the number of bytes; 0 at the end."""
        raise NotImplementedError

    def write(self, call: Waiter, buffers: Sequence[memoryview], offset: int | None = None) -> int:
        """Write `buffers`, and return the number of bytes."""
        raise NotImplementedError

    def status(self) -> os.stat_result | None:
        """Return the host's status of the file, or None if it has none."""
        return None

    def sync(self) -> None:
        """Write data to the medium; a no-op in this class."""

    def set_flags(self, flags: int) -> None:
        """Change the flags; only NONBLOCK may change in this class."""
        if (flags ^ self.flags) & ~FdFlag.NONBLOCK:
            raise WasiError(Errno.NOTSUP)
        self.flags = flags

    def close(self) -> None:
        """Release what it holds; twice is a no-op."""


class HostDescriptor(Descriptor):
    """A file descriptor of the host.

    It is closed with this object if it is `owned`; else `keeps`, its owner, is kept alive.
    `readable` and `writable` are the access that it was opened with.
    """

    def __init__(
        self,
        host: int,
        *,
        owned: bool,
        readable: bool = True,
        writable: bool = True,
        inheriting: int = 0,
        flags: int = 0,
        keeps: object = None,
    ) -> None:
        mode = os.fstat(host).st_mode
        filetype = abi.filetype_of(mode)
        self._pollable = not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISBLK(mode))
        if filetype == FileType.DIRECTORY:
            natural = abi.DIRECTORY_RIGHTS
        else:
            natural = abi.FILE_RIGHTS if _is_seekable(host) else abi.STREAM_RIGHTS
            natural &= ~(0 if readable else Right.FD_READ)
            natural &= ~(0 if writable else Right.FD_WRITE)
        super().__init__(filetype, natural, inheriting, flags)
        self.host = host
        self._owned = owned
        self._keeps = keeps

    def read(self, call: Waiter, buffers: Sequence[memoryview], offset: int | None = None) -> int:
        """Read; without data, wait until there is some, or the guest's time limit expires."""
        if offset is not None:
            return os.preadv(self.host, buffers, offset)
        if not any(map(len, buffers)):
            return 0
        while True:
            self._wait(call, select.POLLIN)
            try:
                if self._owned or not self._pollable:
                    return os.readv(self.host, buffers)
                return nonblocking.read(self.host, buffers)
            except BlockingIOError:  # another reader was faster, or the guest does not block
                if self.flags & FdFlag.NONBLOCK:
                    raise
                call.check()

    def write(self, call: Waiter, buffers: Sequence[memoryview], offset: int | None = None) -> int:
        """Write; wait for a reader until the guest's time limit expires."""
        if offset is not None:
            return os.pwritev(self.host, buffers, offset)
        if not self._pollable:
            return os.writev(self.host, buffers)
        written = 0
        for chunk in _chunks(buffers):
            try:
                written += self._write_all(call, chunk)
            except OSError:
                if not written:
                    raise
                break
        return written

    def _write_all(self, call: Waiter, chunk: memoryview) -> int:
        written = 0
        while written < len(chunk):
            try:
                self._wait(call, select.POLLOUT)
                if self._owned:
                    written += os.write(self.host, chunk[written:])
                else:
                    written += nonblocking.write(self.host, chunk[written:], call.check)
            except BlockingIOError:
                if self.flags & FdFlag.NONBLOCK:
                    if written:
                        break
                    raise
                call.check()  # it may be ready, and yet take nothing
                call.wait({}, _PAUSE)
        return written

    def _wait(self, call: Waiter, events: int) -> None:
        if not self._pollable:
            return
        if self.flags & FdFlag.NONBLOCK:
            # A descriptor of path_open does not block in the host either.
            if not self._owned and not call.wait({self.host: events}, 0):
                raise BlockingIOError(errno.EAGAIN, "not ready")
        else:
            call.wait({self.host: events}, None)

    def seek(self, offset: int, whence: int) -> int:
        """Move, and return the new position in bytes."""
        if whence >= len(_WHENCE):
            raise WasiError(Errno.INVAL)
        return os.lseek(self.host, offset, _WHENCE[whence])

    def status(self) -> os.stat_result:
        """Return the host's status of the file."""
        return os.fstat(self.host)

    def sync(self) -> None:
        """Make the host write the file to its medium, if it has one."""
        if not self._pollable:
            os.fsync(self.host)

    def set_flags(self, flags: int) -> None:
        """Change the flags for appending and blocking."""
        changed = flags ^ self.flags
        if changed & FdFlag.APPEND and self._owned:
            now = fcntl.fcntl(self.host, fcntl.F_GETFL) & ~os.O_APPEND
            append = os.O_APPEND if flags & FdFlag.APPEND else 0
            fcntl.fcntl(self.host, fcntl.F_SETFL, now | append)
            self.flags ^= FdFlag.APPEND
        super().set_flags(flags)

    def close(self) -> None:
        """Close the host's descriptor if it is owned."""
        host, self.host = self.host, -1
        if host >= 0 and self._owned:
            os.close(host)

    def __del__(self) -> None:
        if getattr(self, "host", -1) >= 0 and os is not None:
            self.close()


def _is_seekable(host: int) -> bool:
    if os.isatty(host):
        return False
    try:
        os.lseek(host, 0, os.SEEK_CUR)
    except OSError:
        return False
    return True


def _chunks(buffers: Sequence[memoryview]) -> Iterator[memoryview]:
    """Cut data into pieces that a ready pipe takes without blocking."""
    if sum(map(len, buffers)) <= PIPE_BUF:
        buffers = [memoryview(b"".join(buffers))]  # in one piece: others may write there too
    for buffer in buffers:
        for start in range(0, len(buffer), PIPE_BUF):
            yield buffer[start : start + PIPE_BUF]


class DescriptorTable:
    """The guest's descriptors, by number."""

    def __init__(self) -> None:
        self._entries: dict[int, Descriptor] = {}

    def __getitem__(self, fd: int) -> Descriptor:
        """Return a descriptor; WasiError(BADF) if there is none."""
        descriptor = self._entries.get(fd)
        if descriptor is None:
            raise WasiError(Errno.BADF)
        return descriptor

    def get(self, fd: int, rights: int) -> Descriptor:
        """Return a descriptor that has `rights`."""
        descriptor = self[fd]
        descriptor.need(rights)
        return descriptor

    def file(self, fd: int, rights: int) -> HostDescriptor:
        """Return a file of the host that has `rights`."""
        descriptor = self.get(fd, rights)
        if not isinstance(descriptor, HostDescriptor):
            raise WasiError(Errno.NOTSUP)
        return descriptor

    def folder(self, fd: int, rights: int) -> HostDescriptor:
        """Return a folder that has `rights`."""
        descriptor = self[fd]
        if descriptor.filetype != FileType.DIRECTORY:
            raise WasiError(Errno.NOTDIR)
        descriptor.need(rights)
        assert isinstance(descriptor, HostDescriptor)
        return descriptor

    def add(self, descriptor: Descriptor) -> int:
        """Give a descriptor the lowest free number, and return that."""
        if len(self._entries) >= MAXIMUM:
            descriptor.close()
            raise WasiError(Errno.MFILE)
        number = next(i for i in range(MAXIMUM + 1) if i not in self._entries)
        self._entries[number] = descriptor
        return number

    def close(self, fd: int) -> None:
        """Close a descriptor."""
        descriptor = self[fd]
        del self._entries[fd]
        descriptor.close()

    def renumber(self, source: int, target: int) -> None:
        """Give a descriptor the number of another one, which is closed."""
        moved, replaced = self[source], self[target]
        if moved is replaced:
            return
        self._entries[target] = moved
        del self._entries[source]
        replaced.close()

    def close_all(self) -> None:
        """Close all."""
        entries: list[Any] = list(self._entries.values())
        self._entries.clear()
        for descriptor in entries:
            descriptor.close()
