"""``catch_traps``: makes a Python callable of a C address, which raises the native code's traps."""

from __future__ import annotations

from functools import partial

from asm_libcalls.emitter.code_address import CodeAddress
from asm_libcalls.native import process
from asm_libcalls.native.call_slot import FUNCTION, answer_calls, callable_class
from asm_libcalls.native.native_function import native_function
from asm_libcalls.owned import refuse_again
from asm_libcalls.signatures import MEMORY_POINTERS, VALUE_TYPES, Callee, Signature

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self

__all__ = ["CatchTraps", "catch_traps"]


class CatchTraps:
    """A C function as a Python callable; what :func:`catch_traps` returns."""

    __slots__ = ("_call", "_callee", "_function", "address", "signature")

    def __new__(cls, address: int, signature: str) -> Self:
        """Make one that calls can reach through machine code."""
        return object.__new__(callable_class(cls))

    def __init__(self, address: int, signature: str) -> None:
        if hasattr(self, "signature"):
            refuse_again(self)
        entry = process.interface.entry or process.interface.entry_holding_gil()  # or raises
        self._call = entry.call
        self.address = VALUE_TYPES["pointer"].to_bits(address, "catch_traps(): address")
        if not self.address:
            raise ValueError("catch_traps(): address must not be null")
        if isinstance(address, CodeAddress):
            address.check_open("catch_traps()")
            self.address = address  # and not only the number: it keeps the code
        self.signature: Signature = Signature(signature)
        where = (f"argument {i + 1} of {self!r}" for i in range(len(self.signature.parameters)))
        self._callee = Callee(repr(self), tuple(where))

    def __repr__(self) -> str:
        return f"<native function {self.signature} at {self.address:#x}, traps caught>"

    def __native_address__(self, kind: str) -> Any:
        return self.address if kind in MEMORY_POINTERS else NotImplemented

    def __call__(self, *arguments: Any) -> Any:
        """Call with Python numbers, and with objects for pointers: see :class:`Signature`."""
        function = getattr(self, FUNCTION, None)  # called as `self.__call__`, it is there already
        if function is not None:
            return function(*arguments)
        # From now on a builtin takes numbers; _call_objects takes all other arguments.
        builtin = native_function(
            self.address,
            self.signature,
            name="native_function",
            slow=partial(_call_objects, self._call, self.address, self.signature, self._callee),
            release_gil=True,
        )
        answer_calls(self, builtin)
        return builtin(*arguments)

    def call_bits(self, *patterns: int) -> int:
        """Call with bit patterns, unsigned; return the result's, 0 where there is no result."""
        if isinstance(self.address, CodeAddress):
            self.address.check_open(repr(self))
        checked = self.signature.check_patterns(patterns, self._callee)
        return self._call(self.address, self.signature, checked)


def _call_objects(
    call: Callable[..., int], address: int, signature: Signature, callee: Callee, *arguments: Any
) -> Any:
    """Call with arguments that machine code does not convert, or of the wrong count."""
    return signature.call(partial(call, address, signature), arguments, callee)


def catch_traps(address: int, signature: str) -> CatchTraps:
    """Make a Python callable that enters native code without the GIL, and raises its traps.

    A call costs some 5 ns above :func:`native_function` with ``release_gil=True``.

    Parameters
    ----------
    address : int
        A C function that follows the platform's ABI. An address of a :class:`Code` keeps the code.
        Nothing is checked: any other address is undefined behaviour, as in C.
    signature : str
        Its signature, for example ``"(vmctx, i32, i32) -> i32"``.

    Returns
    -------
    CatchTraps
        Called with Python numbers, it returns one; ``call_bits`` takes and returns bit patterns. It
        raises :class:`Trap` if native code calls ``asm_libcalls_raise_trap``, and the Python
        exception of a host function, unchanged. Native frames are unwound up to the innermost
        entry. Without machine code they cannot be unwound: the trap is raised when they have
        returned.

    Examples
    --------
    >>> import asm_libcalls
    >>> sdiv = asm_libcalls.LIBCALLS["i64_sdiv"]
    >>> catch_traps(sdiv.address, sdiv.signature)(7, -2)
    -3
    """
    return CatchTraps(address, signature)
