"""``catch_traps``: a C address as a Python callable that raises the traps of its native code."""

from __future__ import annotations

from asm_libcalls.native import process
from asm_libcalls.signatures import VALUE_TYPES, Signature

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["CatchTraps", "catch_traps"]


class CatchTraps:
    """A C function as a Python callable; what :func:`catch_traps` returns."""

    __slots__ = ("_call", "address", "signature")

    def __init__(self, address: int, signature: str) -> None:
        if process.interface is None or process.interface.entry is None:
            raise RuntimeError("native code cannot be called: ctypes cannot be imported here")
        self._call = process.interface.entry.call
        self.address = VALUE_TYPES["pointer"].to_bits(address, "catch_traps(): address")
        if not self.address:
            raise ValueError("catch_traps(): address must not be null")
        self.signature: Signature = Signature(signature)

    def __repr__(self) -> str:
        return f"<native function {self.signature} at {self.address:#x}, traps caught>"

    def __call__(self, *arguments: Any) -> Any:
        """Call with Python numbers."""
        self._check_count(arguments)
        patterns = [
            value_type.to_bits(argument, f"argument {i + 1} of {self!r}")
            for i, (value_type, argument) in enumerate(
                zip(self.signature.parameters, arguments, strict=True)
            )
        ]
        result = self.signature.result
        pattern = self._call(self.address, self.signature, patterns)
        return None if result is None else result.from_bits(pattern)

    def call_bits(self, *patterns: int) -> int:
        """Call with bit patterns, unsigned; return the result's, 0 where there is no result."""
        self._check_count(patterns)
        checked = [
            value_type.check_pattern(pattern, f"argument {i + 1} of {self!r}")
            for i, (value_type, pattern) in enumerate(
                zip(self.signature.parameters, patterns, strict=True)
            )
        ]
        return self._call(self.address, self.signature, checked)

    def _check_count(self, arguments: tuple[Any, ...]) -> None:
        expected = len(self.signature.parameters)
        if len(arguments) != expected:
            plural = "argument" if expected == 1 else "arguments"
            raise TypeError(f"{self!r} takes {expected} {plural}, got {len(arguments)}")


def catch_traps(address: int, signature: str) -> CatchTraps:
    """Make a Python callable that enters native code and raises its traps.

    Parameters
    ----------
    address : int
        A C function that follows the platform's ABI. What is not such a function is not checked:
        calling it is as undefined as in C.
    signature : str
        Its signature, for example ``"(vmctx, i32, i32) -> i32"``.

    Returns
    -------
    CatchTraps
        Called with Python numbers, it returns one; ``call_bits`` takes and returns bit patterns.
        It raises :class:`Trap` where native code called ``asm_libcalls_raise_trap``, and whatever
        Python exception a callback of ours raised, unchanged. Native frames are unwound up to the
        innermost entry, and nothing of them is run again. Where no machine code serves, they
        can not be unwound: the trap is raised when they have returned.

    Examples
    --------
    >>> import asm_libcalls
    >>> sdiv = asm_libcalls.LIBCALLS["i64_sdiv"]
    >>> catch_traps(sdiv.address, sdiv.signature)(7, -2)
    -3
    """
    return CatchTraps(address, signature)
