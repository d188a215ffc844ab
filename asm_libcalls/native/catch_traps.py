"""``catch_traps``: makes a Python callable of a C address, which raises the native code's traps."""

from __future__ import annotations

from asm_libcalls.emitter.code_address import CodeAddress
from asm_libcalls.native import process
from asm_libcalls.native.call_slot import FUNCTION, answer_calls, callable_class
from asm_libcalls.native.native_function import native_functions
from asm_libcalls.native.specification import Specification, check_parameter_names, checked_name
from asm_libcalls.owned import refuse_again
from asm_libcalls.signatures import MEMORY_POINTERS, Callee, Signature

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Self


class CatchTraps:
    """A C function as a Python callable; what :func:`catch_traps` returns."""

    __slots__ = ("_call", "_function", "_name", "_specification", "address", "signature")

    def __new__(cls, *arguments: Any, **names: Any) -> Self:
        """Make one that calls can reach through machine code."""
        return object.__new__(callable_class(cls))

    def __init__(
        self,
        address: int,
        signature: str,
        *,
        name: str | None = None,
        parameters: Sequence[str] | None = None,
    ) -> None:
        refuse_again(self, "signature")
        entry = process.interface.entry or process.interface.entry_holding_gil()  # or raises
        self._call = entry.call
        specification = Specification(
            address,
            signature,
            name=None if name is None else checked_name(name, "catch_traps(): name"),
            parameters=parameters,
            release_gil=True,
            caller="catch_traps()",
        )
        owner = specification.owner
        self.address = specification.address if owner is None else owner  # the owner keeps the code
        self.signature: Signature = specification.signature
        self._name = name or ""
        if parameters is not None:
            check_parameter_names(specification.parameters, "catch_traps()")
        if name is None:
            names: Any = range(1, len(specification.parameters) + 1)
            if parameters is not None:
                names = map(repr, specification.parameters)
            where = tuple([f"argument {each} of {self!r}" for each in names])
            specification.names_in_errors = Callee(repr(self), where)
        self._specification = specification

    def __repr__(self) -> str:
        return f"<native function {self._name}{self.signature} at {self.address:#x}, traps caught>"

    _readable_member = ("pointer", "address")

    def __native_address__(self, kind: str) -> Any:
        return self.address if kind in MEMORY_POINTERS else NotImplemented

    def __call__(self, *arguments: Any) -> Any:
        """Call with Python numbers, and with objects for pointers: see :class:`Signature`."""
        function = getattr(self, FUNCTION, None)  # called as `self.__call__`, it is there already
        if function is not None:
            return function(*arguments)
        builtin = native_functions([self._specification])[0]
        answer_calls(self, builtin)
        return builtin(*arguments)

    def call_bits(self, *patterns: int) -> int:
        """Call with bit patterns, unsigned; return the result's, 0 where there is no result."""
        if isinstance(self.address, CodeAddress):
            self.address.check_open(self._specification.callee().title)
        checked = self.signature.check_patterns(patterns, self._specification.callee())
        return self._call(self.address, self.signature, checked)


def catch_traps(
    address: int,
    signature: str,
    *,
    name: str | None = None,
    parameters: Sequence[str] | None = None,
) -> CatchTraps:
    """Make a Python callable that enters native code without the GIL, and raises its traps.

    A call costs some 5 ns above :func:`native_function` with ``release_gil=True``.

    Parameters
    ----------
    address : int
        A C function that follows the platform's ABI. An address of a :class:`Code` keeps the code.
        Nothing is checked: any other address is undefined behaviour, as in C.
    signature : str
        Its signature, for example ``"(vmctx, i32, i32) -> i32"``.
    name : str, optional
        The function's name, for errors and ``repr``.
    parameters : sequence of str, optional
        The parameters' names, for errors.

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
    return CatchTraps(address, signature, name=name, parameters=parameters)
