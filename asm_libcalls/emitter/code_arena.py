"""Executable memory that is freed and used again. Several pieces share a page.

A *region* is a memfd that is mapped once, read and execute. Code is written to it by ``pwrite``, so
no mapping is ever writable. Unused space and freed pieces are filled with ``int3``. Where the
system refuses a memfd, each piece has pages of its own (``pages.py``), which are unmapped when it
is freed. If names for perf are wanted, each piece has pages of its own too, because perf names code
in anonymous memory only.

A mapping of a memfd is shared with the children of a fork, so a write in one process is seen in the
other. A region that existed at a fork is therefore *retired* in both processes: nothing is written
to it any more, neither code nor ``int3``. It is unmapped when all of its pieces are freed. Forks of
libraries count too: the C library calls a handler of this package before each of them.

No lock is held, because collections and signal handlers may run anywhere, and allocate and free. A
region is in a list, or one thread has taken it out and holds it. A piece that is freed meanwhile
waits in the region's :attr:`~_Region.freed`. Signal handlers may raise after any call, so a region
moves between two lists in one call of C code.

Source: ``memfd_create(2)``, ``pthread_atfork(3)``; glibc's ``register-atfork.c``.
"""

from __future__ import annotations

import bisect
import contextlib
import ctypes
import os
import struct
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import starmap

from asm_libcalls.emitter import code_names, libc, pages
from asm_libcalls.emitter.image import Routine, link
from asm_libcalls.emitter.pages import LoadedImage
from asm_libcalls.owned.objects import Resource

ALIGNMENT = 64
"""Pieces begin at a multiple of this: a cache line, so no line has the code of two pieces."""

_INT3 = b"\xcc"
_SMALLEST, _LARGEST = 1 << 16, 1 << 20  # sizes of regions that several pieces share, in bytes


class _Region(Resource):
    """A memfd and its mapping; only the holder changes it, except :attr:`freed`."""

    __slots__ = (
        "_file", "_forks", "_mapping", "address", "free", "freed", "largest", "live", "size",
    )  # fmt: skip

    def __init__(self, size: int) -> None:
        self._mapping: list[tuple[int, int]] = []
        super().__init__(partial(libc.munmap, self._mapping))
        self._forks = _forks()
        self._file = pages.memfd(_INT3 * size)
        self.address = libc.mmap(
            size,
            libc.PROT_READ | libc.PROT_EXEC,
            flags=libc.MAP_SHARED,
            file=self.file,
            into=self._mapping,
        )
        self.size = size
        self.free = [(0, size)]  # start and end of each unused range, sorted, as offsets
        self.largest = size  # no unused range is larger
        self.live = 0  # the number of pieces
        # offset and size of each freed piece that is still counted in live
        self.freed: deque[tuple[int, int]] = deque()

    @property
    def file(self) -> int:
        """The memfd's descriptor; -1 if the region is retired."""
        return self._file.number

    def settle(self) -> None:
        """Take back what was freed, and retire after a fork."""
        if self.file >= 0 and self._forks != _forks():
            self._retire()
        while self.freed:
            at, size = self.freed[0]
            if self.file >= 0 and self._write(at, _INT3 * size):
                free, largest = self._free_with(at, at + size)
            else:
                free, largest = self.free, self.largest
            # No call from here on.
            self.free, self.largest = free, largest
            self.live -= 1
            del self.freed[0]

    def place(self, content: bytes, piece: list[tuple[int, int]]) -> bool:
        """Write code of whole cache lines to unused space; return whether there is some.

        Its offset and size are the item of `piece`, from before it is written.
        """
        size = len(content)
        if size > self.largest:
            return False
        for i, (at, end) in enumerate(self.free):
            if end - at >= size:
                rest = [(at + size, end)] if end - at > size else []
                free = [*self.free[:i], *rest, *self.free[i + 1 :]]
                # No call from here on.
                piece += ((at, size),)
                self.free = free
                self.live += 1
                break
        else:
            self.largest = size - ALIGNMENT
            return False
        if self._write(at, content):
            return True
        # It is retired.
        del piece[0]
        self.live -= 1
        return False

    @property
    def needed(self) -> bool:
        """Whether it has pieces, or is the only one with space for small ones."""
        if self.live:
            return True
        is_spare = self.file >= 0 and self.size <= _LARGEST
        return is_spare and all(other.live or other is self for other in [*_regions])

    def unmap(self) -> None:
        """Release it. It has no pieces. Twice is a no-op."""
        self._retire()
        libc.munmap(self._mapping)

    def _free_with(self, at: int, end: int) -> tuple[list[tuple[int, int]], int]:
        """Return the unused ranges with one more, and the size of the largest."""
        i = bisect.bisect(self.free, (at, at))
        first, last = i, i
        if i and self.free[i - 1][1] == at:
            first, at = i - 1, self.free[i - 1][0]
        if i < len(self.free) and self.free[i][0] == end:
            last, end = i + 1, self.free[i][1]
        free = [*self.free[:first], (at, end), *self.free[last:]]
        return free, max(self.largest, end - at)

    def _write(self, at: int, content: bytes) -> bool:
        """Write to the memfd; retire the region if that fails."""
        try:
            self._file.check()
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
        self.free = []
        self.largest = 0
        self._file.close()


_regions: list[_Region] = []
"""Those that no thread holds."""


class Piece(Resource):
    """Executable memory with code; used again when nothing refers to this object.

    Then nothing may return into the code or call it any more. Raise OSError if the system refuses
    executable memory.
    """

    __slots__ = ("address", "undo")

    def __init__(self, content: bytes) -> None:
        self.undo: list[Callable[[], object]] = []
        """Functions to call before the memory is used again."""
        memory: list[_Region | LoadedImage] = []
        place: list[tuple[int, int]] = []
        super().__init__(partial(_release, self.undo, memory, place))
        self.address = _allocate(content, memory, place)  # of the first byte


def _allocate(
    content: bytes, memory: list[_Region | LoadedImage], place: list[tuple[int, int]]
) -> int:
    """Put code on executable memory, which `memory` and `place` own then; return its address."""
    if code_names.perf_is_wanted():
        return _on_own_pages(content, memory)
    content = content.ljust(-(-len(content) // ALIGNMENT) * ALIGNMENT, _INT3)
    held: list[_Region] = []
    try:
        is_new = False
        while not is_new:
            try:
                held.extend(map(_regions.pop, (-1,)))
            except IndexError:
                try:
                    held.append(_Region(_region_size(len(content), held)))
                except OSError:
                    break
                is_new = True
            region = held[-1]
            memory[:] = (region,)
            region.settle()
            if region.place(content, place):
                return region.address + place[0][0]
        return _on_own_pages(content, memory)
    finally:
        _regions.extend(held)
        for region in held:
            with contextlib.suppress(OSError):  # of munmap: it stays mapped, and unused
                _settle(region)


def _region_size(needed: int, others: list[_Region]) -> int:
    """Return the size of a new region: half of what there is, within limits."""
    shared = min(max(_SMALLEST, sum(region.size for region in others) // 2), _LARGEST)
    return -(-max(needed, shared) // libc.PAGE_SIZE) * libc.PAGE_SIZE


def _release(
    undo: list[Callable[[], object]],
    memory: list[_Region | LoadedImage],
    place: list[tuple[int, int]],
) -> None:
    # First: other code may get the same address as soon as it is free.
    while undo:
        undo.pop()()
    for each in memory:
        if isinstance(each, LoadedImage):
            pages.unload(each)
        else:
            if place:
                code_names.withdraw(each.address + place[0][0])
            _free(each, place)


def _free(region: _Region, place: list[tuple[int, int]]) -> None:
    with contextlib.suppress(IndexError):  # an exception ended the call before, which did this
        region.freed.extend(map(place.pop, (0,)))  # one call of C code
    _settle(region)


def _settle(region: _Region) -> None:
    """Take back what was freed of a region, and unmap it if it is not needed."""
    while region.freed or not region.needed:
        removed: list[None] = []
        try:
            removed.extend(map(_regions.remove, (region,)))  # one thread gets it
            region.settle()
            if not region.needed:
                region.unmap()
                removed.clear()
                return
        except ValueError:
            return  # its holder does this
        finally:
            if removed:
                _regions.append(region)


def _on_own_pages(content: bytes, memory: list[_Region | LoadedImage]) -> int:
    loaded = pages.load(link([Routine("code", content, len(content))]), announced=False, owned=True)
    memory[:] = (loaded,)
    loaded.keep()  # the Piece owns it
    return loaded.address


_counters: list[tuple[int, ctypes.c_uint64, LoadedImage | None]] = []
"""The status of the registration, 0 for success; the number of forks; the handler. The first one
that is registered counts."""


def _forks() -> int:
    """Return the number of forks since this was first called."""
    while True:
        for status, number, _ in _counters:
            if status == 0:
                return number.value
        _count_forks()


def _count_forks() -> None:
    """Let the C library increase a number before each fork."""
    counter = libc.malloc(bytes(8))  # for ever: handlers cannot be removed
    number = ctypes.c_uint64.from_address(counter)
    # movabs rax, counter; lock inc qword ptr [rax]; ret
    code = b"\x48\xb8" + struct.pack("<Q", counter) + bytes.fromhex("f048ff00 c3")
    loaded = pages.load(link([Routine("code", code, len(code))]), announced=False, owned=True)
    handler = loaded.address
    # glibc exports its name for pthread_atfork, musl has pthread_atfork itself.
    for name, arguments in (
        ("__register_atfork", (handler, None, None, None)),
        ("pthread_atfork", (handler, None, None)),
    ):
        try:
            register = libc.prototype(name, ctypes.c_int, *[ctypes.c_void_p] * len(arguments))
        except AttributeError:
            continue
        # One call of C code, so what is registered is never unmapped.
        made = zip(starmap(register, (arguments,)), (number,), (loaded,), strict=True)
        _counters.extend(made)
        if _counters[-1][0] == 0:
            loaded.keep()
            return

    def note() -> None:
        number.value += 1

    os.register_at_fork(before=note)
    _counters.append((0, number, None))
