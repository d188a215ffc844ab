"""Access to the guest's memory, which checks each pointer and length before it reads or writes."""

from __future__ import annotations

from asm_libcalls.toy_jit.wasi.abi import IOVEC, U32, U64
from asm_libcalls.toy_jit.wasi.errors import Errno, WasiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from struct import Struct
    from typing import Any

    from asm_libcalls.runtime.memory import Memory

MAXIMUM_BUFFERS = 1024
"""Maximum number in one read or write (Linux's IOV_MAX); the guest asks again for the rest."""

MAXIMUM_PATH = 4096
"""Maximum length of a path in bytes: Linux's PATH_MAX."""


class GuestMemory:
    """The memory of the calling instance, for one call; without a memory, each access fails."""

    __slots__ = ("_view",)

    def __init__(self, memory: Memory | None) -> None:
        try:
            self._view = memoryview(b"") if memory is None else memoryview(memory)
        except ValueError:  # it is closed
            self._view = memoryview(b"")

    def range(self, address: int, length: int) -> memoryview:
        """Return a view of a range; WasiError(FAULT) if it is not within the memory."""
        end = address + length
        if end > len(self._view):
            raise WasiError(Errno.FAULT)
        return self._view[address:end]

    def read(self, structure: Struct, address: int) -> tuple[Any, ...]:
        """Read a structure."""
        return structure.unpack(self.range(address, structure.size))

    def write(self, structure: Struct, address: int, *values: int) -> None:
        """Write a structure."""
        structure.pack_into(self.range(address, structure.size), 0, *values)

    def write_u32(self, address: int, value: int) -> None:
        """Write 32 bits."""
        self.write(U32, address, value)

    def write_u64(self, address: int, value: int) -> None:
        """Write 64 bits; a negative value as two's complement."""
        self.write(U64, address, value & 0xFFFF_FFFF_FFFF_FFFF)

    def path(self, address: int, length: int) -> bytes:
        """Read a path: UTF-8 without a NUL."""
        if length >= MAXIMUM_PATH:
            self.range(address, length)
            raise WasiError(Errno.NAMETOOLONG)
        path = bytes(self.range(address, length))
        if 0 in path:
            raise WasiError(Errno.INVAL)
        try:
            path.decode()
        except UnicodeDecodeError:
            raise WasiError(Errno.ILSEQ) from None
        return path

    def buffers(self, address: int, count: int) -> list[memoryview]:
        """Return views of the buffers that an array of (pointer, length) names.

        At most 2 GiB less a page in all: Linux reads or writes no more at once.
        """
        array = self.range(address, count * IOVEC.size)[: MAXIMUM_BUFFERS * IOVEC.size]
        views = []
        left = 0x7FFF_F000
        for start, length in IOVEC.iter_unpack(array):
            view = self.range(start, length)[:left]
            left -= len(view)
            views.append(view)
        return views
