"""Reads and writes that do not block, of descriptors that others share.

``O_NONBLOCK`` is a flag of the open file, which other processes may use too, so it must not change.
And a descriptor that is ready for writing may take less than it is given: ``write`` then blocks
until a terminal or TCP socket has taken all. So this module asks the kernel for one call that does
not block, opens a terminal once more, or writes in another thread.

Source: Linux manual pages preadv2(2) (``RWF_NOWAIT``), ioctl_tty(2) (``TIOCGPTN``) and poll(2).
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from _thread import allocate_lock, start_new_thread
from functools import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

SLICE = 0.05
"""Seconds that a call waits before it checks for interrupts."""

_NOWAIT = 0x8  # RWF_NOWAIT
_HERE = -1  # the offset that is the file's position
_UNSUPPORTED = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ESPIPE}
_TIOCGPTN = 0x80045430
_AGAIN = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def read(descriptor: int, buffers: Sequence[memoryview]) -> int:
    """Read from a descriptor that is ready.

    Raise BlockingIOError if another reader was faster, where the system can tell (pipes and sockets
    of Linux 6).
    """
    try:
        return os.preadv(descriptor, buffers, _HERE, _NOWAIT)
    except (OSError, NotImplementedError) as error:
        _require_unsupported(error)
        return os.readv(descriptor, buffers)


def write(descriptor: int, data: memoryview, check: Callable[[], None]) -> int:
    """Write what a descriptor takes without blocking, and return the number of bytes.

    Raise BlockingIOError if it takes nothing. Where only a call that may block can tell, another
    thread makes it; meanwhile `check` is called regularly, and may raise. That thread goes on until
    the call ends.
    """
    try:
        return os.pwritev(descriptor, [data], _HERE, _NOWAIT)
    except (OSError, NotImplementedError) as error:
        _require_unsupported(error)
    again = _open_again(descriptor)
    if again is None:
        copied = bytes(data)  # the guest's memory may be gone when the thread writes
        return _in_another_thread(partial(os.write, descriptor, copied), check)
    try:
        return os.write(again, data)
    finally:
        os.close(again)


def _require_unsupported(error: Exception) -> None:
    """Raise an error again, unless the system does not have such calls for the descriptor."""
    if isinstance(error, OSError) and error.errno not in _UNSUPPORTED:
        raise error


def _open_again(descriptor: int) -> int | None:
    """Open a pipe or terminal once more, for writing without blocking; None if not possible."""
    if os.isatty(descriptor):
        try:
            fcntl.ioctl(descriptor, _TIOCGPTN, bytes(4))
        except OSError:
            pass
        else:
            return None  # the master of a pseudoterminal: opening it would make a new one
    elif not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        return None
    try:
        return os.open(f"/proc/self/fd/{descriptor}", _AGAIN)
    except OSError:
        return None


def _in_another_thread(function: Callable[[], int], check: Callable[[], None]) -> int:
    """Call a function in another thread, and return its result; call `check` while waiting."""
    ended = allocate_lock()
    ended.acquire()
    outcome: list[Any] = []

    def work() -> None:
        try:
            outcome.append(function())
        except BaseException as error:
            outcome.append(error)
        finally:
            ended.release()

    start_new_thread(work, ())
    while not ended.acquire(timeout=SLICE):
        check()
    (result,) = outcome
    if isinstance(result, BaseException):
        raise result
    return int(result)
