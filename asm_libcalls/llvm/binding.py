"""Binds the second table: its rows, and its machine code, which the first table's entry calls."""

from __future__ import annotations

from asm_libcalls.binding import (
    IN_PYTHON,
    BackendUnavailable,
    Binding,
    FallbackFunction,
    Libcall,
    default_binding,
)
from asm_libcalls.llvm.libcalls import DECLARATIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from asm_libcalls.emitter.pages import LoadedImage
    from asm_libcalls.libcalls import Declaration
    from asm_libcalls.x86_64.backend import Backend

__all__ = ["LlvmBinding", "LlvmLibcall", "default_llvm_binding"]


class LlvmLibcall(Libcall):
    """A bound libcall of the second table.

    A parameter that is a pointer takes a writable buffer: a :class:`bytearray`, an object of
    :mod:`ctypes`, an array. None is null where the libcall takes that. An address is refused,
    because it cannot be checked.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return (_served_here, (self.name,))

    @property
    def fallback(self) -> FallbackFunction:
        """The same libcall in plain Python."""
        if self._fallback is None:
            self._fallback = LlvmFallbackFunction(self)
        return self._fallback

    def call_bits(self, *patterns: Any) -> int:
        """Call it with bit patterns, and a buffer for a pointer; return the result's pattern."""
        self._callee.check_count(len(patterns))
        given, _kept = self._with_addresses(patterns)
        return self._invoke(self.signature.check_patterns(given, self._callee))

    def _patterns(self, arguments: tuple[Any, ...]) -> tuple[list[int], list[object]]:
        self._callee.check_count(len(arguments))
        given, kept = self._with_addresses(arguments)
        return self.signature.to_patterns(given, self._callee), kept

    def _with_addresses(self, arguments: tuple[Any, ...]) -> tuple[list[Any], list[object]]:
        """Replace buffers by their addresses; return also the buffers, to keep them alive."""
        given = list(arguments)
        kept: list[object] = []
        for i, value_type in enumerate(self.signature.parameters):
            if value_type.kind == "pointer":
                size, is_nullable = _STORED[self.declaration.parameters[i]]
                buffer = _buffer(arguments[i], size, is_nullable, self._callee.where[i])
                kept.append(buffer)
                given[i] = 0 if buffer is None else _address(buffer)
        return given, kept


class LlvmFallbackFunction(LlvmLibcall, FallbackFunction):
    """A libcall of the second table in plain Python, also where machine code serves it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (_fallback_here, (self.name,))


_STORED = {"remainder": (16, True), "overflow": (4, False)}
"""By the name of a pointer parameter: the bytes stored there, and whether null is allowed."""


def _buffer(argument: Any, size: int, is_nullable: bool, where: str) -> Any:
    if argument is None and is_nullable:
        return None
    import ctypes

    try:
        return (ctypes.c_char * size).from_buffer(argument)
    except TypeError:
        expected = f"a writable buffer of {size} bytes" + (" or None" if is_nullable else "")
        got = type(argument).__name__
        raise TypeError(f"{where} must be {expected} (pointer), got {got}") from None
    except ValueError:
        got = f"{memoryview(argument).nbytes} bytes"
        raise ValueError(f"{where} must have at least {size} bytes, got {got}") from None


def _address(buffer: Any) -> int:
    import ctypes

    return ctypes.addressof(buffer)


def _served_here(name: str) -> Libcall:
    return default_llvm_binding().libcalls[name]


def _fallback_here(name: str) -> FallbackFunction:
    return default_llvm_binding().libcalls[name].fallback


class LlvmBinding(Binding):
    """The libcalls of the second table, bound to what can serve them.

    Parameters
    ----------
    base : Binding
        Of the first table. It has the entry to native code, and the CPU's features.

    Attributes
    ----------
    loaded : LoadedImage or None
        The machine code, if it is loaded.
    reason : str
        Why it is not.
    """

    loaded: LoadedImage | None

    def __init__(self, base: Binding) -> None:
        self.requested = base.requested
        self.x86_64 = base.x86_64
        self.x86_64_reason = self.reason = base.x86_64_reason
        self.interface = base.interface
        self.loaded = None
        self._functions = {}
        if base.x86_64 is not None:
            self._load_image(base.x86_64)
        self.libcalls = {name: LlvmLibcall(row, self) for name, row in DECLARATIONS.items()}

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

    def _make_functions(self, like: str) -> dict[str, Any]:
        from asm_libcalls.llvm.functions import make_functions

        return make_functions(self)

    def symbols(self) -> dict[str, int]:
        """Return the C symbol and address of every libcall that has an address here."""
        found = {}
        for libcall in self.libcalls.values():
            try:
                found[libcall.symbol] = libcall.address
            except RuntimeError:  # ctypes, without machine code, lacks some types
                continue
        return found


_default: list[LlvmBinding] = []


def default_llvm_binding() -> LlvmBinding:
    """Return the process's binding of the second table, made when first called."""
    if not _default:
        _default.append(LlvmBinding(default_binding()))
    return _default[0]
