"""Executable memory that is freed and used again. Several pieces share a page.

A *region* is a memfd that is mapped once, read and execute. Code is written to it by ``pwrite``, so
no mapping is ever writable. Unused space and freed pieces are filled with ``int3``. Where the
system refuses a memfd, each piece has pages of its own (``pages.py``), which are unmapped when it
is freed. So it is if names for perf are wanted, because perf names code in anonymous memory only.

A mapping of a memfd is shared with the children of a fork, so a write in one process is seen in the
other. A region that existed at a fork is therefore *retired* in both processes: nothing is written
to it any more, neither code nor ``int3``. It is unmapped when all of its pieces are freed. Forks of
libraries count too: the C library calls a handler of ours before each of them.

No lock is held, because collections and signal handlers may run anywhere, and allocate and free. A
region is in a list, or in the hands of one thread, which took it out. A piece that is freed
meanwhile waits in the region's :attr:`~_Region.freed`.

Source: ``memfd_create(2)``, ``pthread_atfork(3)``; glibc's ``register-atfork.c``.
"""

from __future__ import annotations

import bisect
import ctypes
import os
import struct
from functools import partial

from asm_libcalls.emitter import code_names, libc, pages
from asm_libcalls.emitter.image import Routine, link

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ALIGNMENT", "allocate"]

ALIGNMENT = 64
"""Pieces begin at a multiple of this: a cache line, so no line has the code of two pieces."""

_INT3 = b"\xcc"
_SMALLEST, _LARGEST = 1 << 16, 1 << 20  # sizes of regions that several pieces share, in bytes


class _Region:
    """A memfd and its mapping; only the holder changes it, except :attr:`freed`.

    Attributes
    ----------
    address, size : int
    file : int
        The memfd's descriptor; -1 if the region is retired.
    free : list of (int, int)
        Start and end of each unused range, sorted, as offsets.
    largest : int
        No unused range is larger.
    live : int
        The number of pieces.
    freed : list of (int, int)
        Offset and size of each freed piece that is still counted in :attr:`live`.
    home : list of _Region
        The list where it is while no thread holds it.
    """

    __slots__ = (
        "_forks", "_identity", "address", "file", "free", "freed", "home", "largest", "live",
        "size",
    )  # fmt: skip

    def __init__(self, size: int) -> None:
        self._forks = _forks()
        self.file = pages.memfd(_INT3 * size)
        try:
            self._identity = _identity(self.file)
            self.address = libc.mmap(
                size, libc.PROT_READ | libc.PROT_EXEC, flags=libc.MAP_SHARED, file=self.file
            )
        except OSError:
            os.close(self.file)
            raise
        self.size = size
        self.free = [(0, size)]
        self.largest = size
        self.live = 0
        self.freed: list[tuple[int, int]] = []
        self.home = _regions

    def settle(self) -> None:
        """Take back what was freed, and retire after a fork."""
        if self.file >= 0 and self._forks != _forks():
            self._retire()
        while self.freed:
            at, size = self.freed.pop()
            self.live -= 1
            if self.file >= 0 and self._write(at, _INT3 * size):
                self._add(at, at + size)

    def place(self, content: bytes) -> int:
        """Write code of whole cache lines to unused space; return its offset, or -1."""
        size = len(content)
        if size > self.largest:
            return -1
        for i, (at, end) in enumerate(self.free):
            if end - at >= size:
                self.free[i : i + 1] = [(at + size, end)] if end - at > size else []
                if not self._write(at, content):
                    return -1
                self.live += 1
                return at
        self.largest = size - ALIGNMENT
        return -1

    def unmap(self) -> None:
        """Release it. It has no pieces."""
        self._retire()
        libc.munmap(self.address, self.size)

    def _add(self, at: int, end: int) -> None:
        i = bisect.bisect(self.free, (at, at))
        first, last = i, i
        if i and self.free[i - 1][1] == at:
            first, at = i - 1, self.free[i - 1][0]
        if i < len(self.free) and self.free[i][0] == end:
            last, end = i + 1, self.free[i][1]
        self.free[first:last] = [(at, end)]
        self.largest = max(self.largest, end - at)

    def _write(self, at: int, content: bytes) -> bool:
        """Write to the memfd; retire the region if that fails."""
        try:
            # Programs that become daemons close all descriptors, and open other files.
            if _identity(self.file) != self._identity:
                raise OSError("the descriptor is another file's")
            written = 0
            while written < len(content):
                written += os.pwrite(self.file, content[written:], at + written)
        except OSError:
            pass
        else:
            if ctypes.string_at(self.address + at, len(content)) == content:
                return True
        self._retire()
        return False

    def _retire(self) -> None:
        file, self.file = self.file, -1
        self.free.clear()
        self.largest = 0
        self.home = _retired
        try:
            if file >= 0 and _identity(file) == self._identity:
                os.close(file)
        except OSError:
            pass  # it was closed by others


_regions: list[_Region] = []
_retired: list[_Region] = []


def allocate(content: bytes) -> tuple[int, Callable[[], None]]:
    """Put code on executable memory; return its address, and what frees it.

    The caller frees it once, when nothing can return into the code or call it any more.

    Raises
    ------
    OSError
        The system refuses executable memory.
    """
    if code_names.perf_is_wanted():
        return _on_own_pages(content)
    content = content.ljust(-(-len(content) // ALIGNMENT) * ALIGNMENT, _INT3)
    held: list[_Region] = []
    try:
        while True:
            try:
                region = _regions.pop()
            except IndexError:
                try:
                    region = _Region(_region_size(len(content), held))
                except OSError:
                    return _on_own_pages(content)
                held.append(region)
                at = region.place(content)
                if at < 0:
                    return _on_own_pages(content)
            else:
                held.append(region)
                region.settle()
                at = region.place(content)
            if at >= 0:
                return region.address + at, partial(_free, region, at, len(content))
    finally:
        while held:
            region = held.pop()
            try:
                _put_back(region)
                _settle(region)
            except OSError:
                pass  # a region that cannot be unmapped stays mapped, and unused


def _region_size(needed: int, others: list[_Region]) -> int:
    """Return the size of a new region: half of what there is, within limits."""
    shared = min(max(_SMALLEST, sum(region.size for region in others) // 2), _LARGEST)
    return -(-max(needed, shared) // libc.PAGE_SIZE) * libc.PAGE_SIZE


def _free(region: _Region, at: int, size: int) -> None:
    region.freed.append((at, size))
    _settle(region)


def _settle(region: _Region) -> None:
    while region.freed:
        try:
            region.home.remove(region)  # one operation: one thread gets it
        except ValueError:
            return  # who holds it does this
        try:
            region.settle()
        finally:
            _put_back(region)


def _put_back(region: _Region) -> None:
    """Let other threads take a region, or unmap it if it is not needed."""
    is_spare = region.file >= 0 and region.size <= _LARGEST
    if region.live or (is_spare and all(other.live for other in _regions)):
        region.home.append(region)
    else:
        region.unmap()


def _on_own_pages(content: bytes) -> tuple[int, Callable[[], None]]:
    loaded = pages.load(link([Routine("code", content, len(content))]), announced=False)
    return loaded.address, partial(pages.unload, loaded)


def _identity(file: int) -> tuple[int, int]:
    status = os.fstat(file)
    return status.st_dev, status.st_ino


_counters: list[ctypes.c_uint64] = []  # of forks; the first one counts


def _forks() -> int:
    """Return the number of forks since this was first called."""
    if not _counters:
        _counters.append(_fork_counter())
    return _counters[0].value


def _fork_counter() -> ctypes.c_uint64:
    """Return a number that the C library increases before each fork."""
    counter = libc.malloc(bytes(8))  # for ever: handlers cannot be removed
    # movabs rax, counter; lock inc qword ptr [rax]; ret
    code = b"\x48\xb8" + struct.pack("<Q", counter) + bytes.fromhex("f048ff00 c3")
    handler, _ = _on_own_pages(code)
    number = ctypes.c_uint64.from_address(counter)
    # glibc exports its name for pthread_atfork, musl has pthread_atfork itself.
    for name, arguments in (
        ("__register_atfork", (handler, None, None, None)),
        ("pthread_atfork", (handler, None, None)),
    ):
        try:
            register = libc.prototype(name, ctypes.c_int, *[ctypes.c_void_p] * len(arguments))
        except AttributeError:
            continue
        if register(*arguments) == 0:
            return number

    def note() -> None:
        number.value += 1

    os.register_at_fork(before=note)
    return number
