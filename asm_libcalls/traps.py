"""Trap codes, and the exceptions for them in Python.

Native code raises a trap by its :class:`TrapCode`. The Python call that entered the native code
(:func:`asm_libcalls.catch_traps`) raises it as a :class:`Trap`. The messages are those of the
WebAssembly spec tests.
"""

from __future__ import annotations

from enum import IntEnum

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "BadConversionToInteger",
    "BadSignature",
    "HeapOutOfBounds",
    "IndirectCallToNull",
    "IntegerDivisionByZero",
    "IntegerOverflow",
    "Interrupt",
    "StackOverflow",
    "TableOutOfBounds",
    "Trap",
    "TrapCode",
    "UndefinedElement",
    "UnreachableCodeReached",
]


class TrapCode(IntEnum):
    """Why native code trapped: Cranelift's trap codes, and one more for ``call_indirect``.

    The numbers are this library's, and stable; ``asm_libcalls_raise_trap`` takes them.
    """

    STACK_OVERFLOW = 1
    HEAP_OUT_OF_BOUNDS = 2
    TABLE_OUT_OF_BOUNDS = 3
    INDIRECT_CALL_TO_NULL = 4
    BAD_SIGNATURE = 5
    INTEGER_OVERFLOW = 6
    INTEGER_DIVISION_BY_ZERO = 7
    BAD_CONVERSION_TO_INTEGER = 8
    UNREACHABLE_CODE_REACHED = 9
    INTERRUPT = 10
    UNDEFINED_ELEMENT = 11
    """``call_indirect`` past the end of the table, for which spec tests have their own message."""


_MESSAGES: dict[int, str] = {
    TrapCode.STACK_OVERFLOW: "call stack exhausted",
    TrapCode.HEAP_OUT_OF_BOUNDS: "out of bounds memory access",
    TrapCode.TABLE_OUT_OF_BOUNDS: "out of bounds table access",
    TrapCode.INDIRECT_CALL_TO_NULL: "uninitialized element",
    TrapCode.BAD_SIGNATURE: "indirect call type mismatch",
    TrapCode.INTEGER_OVERFLOW: "integer overflow",
    TrapCode.INTEGER_DIVISION_BY_ZERO: "integer divide by zero",
    TrapCode.BAD_CONVERSION_TO_INTEGER: "invalid conversion to integer",
    TrapCode.UNREACHABLE_CODE_REACHED: "unreachable",
    TrapCode.INTERRUPT: "interrupt",
    TrapCode.UNDEFINED_ELEMENT: "undefined element",
}

_BUILT_IN = frozenset(_MESSAGES)

_SUBCLASSES: dict[int, type[Trap]] = {}


def _trap_code(code: object) -> int:
    if not isinstance(code, int):
        raise TypeError(f"a trap code must be an int, got {type(code).__name__}")
    if not 0 <= code < 1 << 32:
        raise ValueError(f"a trap code must be in 0 .. 2**32-1, got {code:#x}")
    return int(code)


def _full_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


class Trap(Exception):
    """WebAssembly execution was aborted.

    ``Trap(code)`` makes the subclass of the code, so ``except ZeroDivisionError`` and
    ``except IntegerDivisionByZero`` both catch a division by zero.

    Parameters
    ----------
    code : int
        A :class:`TrapCode`, or any other number of 32 bits that a JIT gave to
        ``asm_libcalls_raise_trap``.

    Attributes
    ----------
    code : TrapCode or int
    trace : tuple of int
        The return addresses of the native frames that it unwound, innermost first, at most 64;
        empty where none were unwound. Each has attributes ``function`` and ``offset``, None where
        ``load_code`` got no name for the code there. A note has the named ones.
    wasm_backtrace : tuple of asm_libcalls.toy_jit.backtrace.WasmFrame
        The WebAssembly frames among them, of code that toy_jit compiled.

    Notes
    -----
    A JIT gives one of its own codes an exception class and a message by a subclass.

    Examples
    --------
    >>> raise Trap(TrapCode.INTEGER_DIVISION_BY_ZERO)
    Traceback (most recent call last):
    asm_libcalls.traps.IntegerDivisionByZero: integer divide by zero
    >>> class StackUnderflow(Trap, IndexError, code=1001, message="the stack is empty"):
    ...     pass
    >>> raise Trap(1001)
    Traceback (most recent call last):
    StackUnderflow: the stack is empty
    """

    code: int
    trace: tuple[int, ...] = ()
    wasm_backtrace: tuple[Any, ...] = ()

    def __new__(cls, code: int | None = None) -> Trap:
        """Make the subclass of `code`."""
        if cls is Trap:
            if code is None:
                raise TypeError("Trap() needs a trap code")
            return super().__new__(_SUBCLASSES.get(_trap_code(code), cls))
        return super().__new__(cls)

    def __init__(self, code: int | None = None) -> None:
        own = getattr(type(self), "_own_code", None)
        if code is None:
            code = own
        elif own is not None and code != own:
            raise ValueError(f"{type(self).__name__} has the code {own!r}, not {code!r}")
        if code is None:
            raise TypeError(f"{type(self).__name__}() needs a trap code")
        number = _trap_code(code)
        if number == own:
            self.code = own
        else:
            try:
                self.code = TrapCode(number)
            except ValueError:
                self.code = number
        super().__init__(_MESSAGES.get(number, f"trap code {number}"))

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (int(self.code),), {**self.__dict__, "args": self.args})

    def __init_subclass__(
        cls, code: int | None = None, message: str | None = None, **kwargs: Any
    ) -> None:
        """Make this the class of a code, with the message of its exceptions.

        A JIT gives its own codes their exceptions so, for the whole process. A class of the same
        module and name replaces the one before, as when a module is reloaded.

        Raises
        ------
        TypeError, ValueError
            `code` or `message` is not as described, or the code is another class's.
        """
        super().__init_subclass__(**kwargs)
        if code is None:
            if message is not None:
                raise TypeError(f"{cls.__name__}: a message needs a code")
            return
        number = _trap_code(code)
        if message is not None and not isinstance(message, str):
            raise TypeError(f"{cls.__name__}: message must be a str, got {type(message).__name__}")
        other = _SUBCLASSES.get(number)
        if other is not None and _full_name(other) != _full_name(cls):
            raise ValueError(f"{cls.__name__}: the trap code {number} is {_full_name(other)}'s")
        if number not in _BUILT_IN:
            _MESSAGES[number] = message or f"trap code {number}"
        cls._own_code = code  # type: ignore[attr-defined]
        _SUBCLASSES[number] = cls


class StackOverflow(Trap, RecursionError, code=TrapCode.STACK_OVERFLOW):
    """The call stack is exhausted."""


class HeapOutOfBounds(Trap, IndexError, code=TrapCode.HEAP_OUT_OF_BOUNDS):
    """An access outside a linear memory or a data segment."""


class TableOutOfBounds(Trap, IndexError, code=TrapCode.TABLE_OUT_OF_BOUNDS):
    """An access outside a table or an element segment."""


class IndirectCallToNull(Trap, code=TrapCode.INDIRECT_CALL_TO_NULL):
    """``call_indirect`` found a null reference."""


class BadSignature(Trap, TypeError, code=TrapCode.BAD_SIGNATURE):
    """``call_indirect`` found a function of another type."""


class IntegerOverflow(Trap, OverflowError, code=TrapCode.INTEGER_OVERFLOW):
    """An integer result has no representation: ``MIN / -1``, or a float too large to truncate."""


class IntegerDivisionByZero(Trap, ZeroDivisionError, code=TrapCode.INTEGER_DIVISION_BY_ZERO):
    """An integer division or remainder by zero."""


class BadConversionToInteger(Trap, ValueError, code=TrapCode.BAD_CONVERSION_TO_INTEGER):
    """A NaN was truncated to an integer."""


class UnreachableCodeReached(Trap, code=TrapCode.UNREACHABLE_CODE_REACHED):
    """The ``unreachable`` instruction was executed."""


class Interrupt(Trap, code=TrapCode.INTERRUPT):
    """Execution was stopped from outside."""


class UndefinedElement(Trap, IndexError, code=TrapCode.UNDEFINED_ELEMENT):
    """``call_indirect`` named an element past the end of its table."""
