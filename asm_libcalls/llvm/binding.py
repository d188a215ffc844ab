"""Binds the second table: its rows, and its machine code, which the first table's entry calls."""

from __future__ import annotations

from asm_libcalls.binding import IN_PYTHON, BackendUnavailable, Binding, default_binding
from asm_libcalls.libcall import Libcall
from asm_libcalls.llvm.libcalls import DECLARATIONS
from asm_libcalls.signatures import c_types
from asm_libcalls.signatures.pointers import address_in_ctypes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from asm_libcalls.emitter.pages import LoadedImage
    from asm_libcalls.libcalls import Declaration
    from asm_libcalls.x86_64.backend import Backend


class LlvmBinding(Binding):
    """The libcalls of the second table, bound to what can serve them.

    A parameter that is a pointer takes a writable buffer: a :class:`bytearray`, an object of
    :mod:`ctypes`, an array. None is null where the libcall takes that. An address, also one in
    a pointer of ctypes, is refused, because it cannot be checked. `base`, the binding of the first
    table, has the entry to native code, and the CPU's features.
    """

    module = "asm_libcalls.llvm"
    unboxes = False  # machine code cannot unbox most types here
    loaded: LoadedImage | None  # the machine code, if it is loaded

    def __init__(self, base: Binding) -> None:
        self.requested = base.requested
        self.x86_64 = base.x86_64
        self.x86_64_reason = self.reason = base.x86_64_reason  # why it is not
        self.interface = base.interface
        self.loaded = None
        self._functions = {}
        if base.x86_64 is not None:
            self._load_image(base.x86_64)
        self.libcalls = {name: Libcall(row, self) for name, row in DECLARATIONS.items()}

    def _load_image(self, backend: Backend) -> None:
        from asm_libcalls.emitter.availability import Unavailable
        from asm_libcalls.x86_64 import code_cache

        try:
            loaded = code_cache.load("llvm", backend.cpu.features)
        except (Unavailable, OSError) as refusal:
            self.reason = f"LLVM's libcalls: {refusal}"
            if self.requested == "x86_64":
                raise BackendUnavailable(self.reason) from refusal
            return
        for name in loaded.image.slots:
            loaded.set_slot(name, backend.loaded.routine(name))
        self.loaded = loaded
        loaded.keep()

    def backend_of(self, declaration: Declaration) -> tuple[str, str]:
        """Return which backend serves a libcall, and why."""
        if self.loaded is None:
            return "fallback", self.reason
        if declaration.symbol not in self.loaded.image.routines:
            return "fallback", IN_PYTHON
        return "x86_64", self.loaded.origin.partition(" (")[0]

    def address_of(self, libcall: Libcall) -> int:
        """Return the C address of a libcall; for the fallback, of a new host function."""
        if libcall.backend == "x86_64":
            assert self.loaded is not None
            return self.loaded.routine(libcall.symbol)
        return super().address_of(libcall)

    def with_addresses(
        self, libcall: Libcall, arguments: Sequence[Any]
    ) -> tuple[Sequence[Any], list[object]]:
        """Replace buffers by their addresses; return also the buffers, to keep them alive."""
        given = list(arguments)
        kept: list[object] = []
        for i, value_type in enumerate(libcall.signature.parameters):
            if value_type.kind == "pointer":
                size, is_nullable = _STORED[libcall.declaration.parameters[i]]
                buffer = _buffer(arguments[i], size, is_nullable, libcall.callee.where[i])
                kept.append(buffer)
                given[i] = 0 if buffer is None else c_types.addressof(buffer)
        return given, kept

    def symbols(self) -> dict[str, int]:
        """Return the C symbol and address of every libcall that has an address here."""
        found = {}
        for libcall in self.libcalls.values():
            try:
                found[libcall.symbol] = libcall.address
            except RuntimeError:  # ctypes, without machine code, lacks some types
                continue
        return found


_STORED = {"remainder": (16, True), "overflow": (4, False)}
"""By the name of a pointer parameter: the bytes stored there, and whether null is allowed."""


def _buffer(argument: Any, size: int, is_nullable: bool, where: str) -> Any:
    if argument is None and is_nullable:
        return None
    import ctypes

    try:
        if address_in_ctypes(argument) is not None:
            raise TypeError  # its own bytes are an address, and what is there cannot be checked
        return (ctypes.c_char * size).from_buffer(argument)
    except TypeError:
        expected = f"a writable buffer of {size} bytes" + (" or None" if is_nullable else "")
        got = type(argument).__name__
        raise TypeError(f"{where} must be {expected} (pointer), got {got}") from None
    except ValueError:
        got = f"{memoryview(argument).nbytes} bytes"
        raise ValueError(f"{where} must have at least {size} bytes, got {got}") from None


_default: list[LlvmBinding] = []


def default_llvm_binding() -> LlvmBinding:
    """Return the process's binding of the second table, made when first called."""
    if not _default:
        _default.append(LlvmBinding(default_binding()))
    return _default[0]
