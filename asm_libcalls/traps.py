"""The exceptions for traps.

Native code raises a trap by its :class:`~asm_libcalls.trap_codes.TrapCode`. The Python call that
entered the native code (:func:`asm_libcalls.catch_traps`) raises it as a :class:`Trap`. The
messages are those of the WebAssembly spec tests.
"""

from __future__ import annotations

from asm_libcalls.signatures.arguments import integer, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
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
    "UndefinedElement",
    "UnreachableCodeReached",
]


_MESSAGES: dict[int, str] = {}
_BUILT_IN: frozenset[int] = frozenset()

_SUBCLASSES: dict[int, type[Trap]] = {}


def _trap_code(code: object) -> int:
    return integer(code, "a trap code", "an int", 0, (1 << 32) - 1)


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

    _own_code: int | None = None
    _describe: tuple[Callable[[Trap], object], ...] = ()
    """Functions that add the trace, the backtrace and the notes, called at their first use."""

    def __new__(cls, code: int | None = None) -> Trap:
        """Make the subclass of `code`."""
        if cls is Trap:
            if code is None:
                raise TypeError("Trap() needs a trap code")
            return super().__new__(_SUBCLASSES.get(_trap_code(code), cls))
        return super().__new__(cls)

    def __init__(self, code: int | None = None) -> None:
        own = self._own_code
        if code is None:
            code = own
        elif own is not None and code != own:
            raise ValueError(f"{type(self).__name__} has the code {own!r}, not {shown(code)}")
        if code is None:
            raise TypeError(f"{type(self).__name__}() needs a trap code")
        number = _trap_code(code)
        self._code = own if number == own else number
        super().__init__(_MESSAGES.get(number, f"trap code {number}"))

    @property
    def code(self) -> int:
        """The number, by name: a :class:`TrapCode`, or a subclass's own code as it was given."""
        if self._code not in _BUILT_IN:
            return self._code
        from asm_libcalls.trap_codes import TrapCode

        return TrapCode(self._code)

    def _described(self) -> dict[str, Any]:
        """Return the object's attributes, after the functions in `_describe` have added theirs."""
        attributes = self.__dict__
        # Removed before they are called: each reads the attributes itself.
        for add in attributes.pop("_describe", ()):
            add(self)
        return attributes

    @property
    def trace(self) -> tuple[int, ...]:
        """The return addresses of the native frames that it unwound."""
        found: tuple[int, ...] = self._described().get("trace", ())
        return found

    @trace.setter
    def trace(self, frames: tuple[int, ...]) -> None:
        self.__dict__["trace"] = frames

    @property
    def wasm_backtrace(self) -> tuple[Any, ...]:
        """The WebAssembly frames among them."""
        found: tuple[Any, ...] = self._described().get("wasm_backtrace", ())
        return found

    @wasm_backtrace.setter
    def wasm_backtrace(self, frames: tuple[Any, ...]) -> None:
        self.__dict__["wasm_backtrace"] = frames

    @property
    def __notes__(self) -> list[str]:
        """The notes, which Python adds to the printed traceback."""
        try:
            notes: list[str] = self._described()["__notes__"]
        except KeyError:
            raise self._without_notes() from None
        return notes

    @__notes__.setter
    def __notes__(self, notes: list[str]) -> None:
        self._described()["__notes__"] = notes

    @__notes__.deleter
    def __notes__(self) -> None:
        if self._described().pop("__notes__", None) is None:
            raise self._without_notes()

    def _without_notes(self) -> AttributeError:
        return AttributeError(f"{type(self).__name__!r} object has no attribute '__notes__'")

    def __reduce__(self) -> tuple[Any, ...]:
        self._described()
        return (type(self), (int(self._code),), {**self.__dict__, "args": self.args})

    def __init_subclass__(
        cls, code: int | None = None, message: str | None = None, **kwargs: Any
    ) -> None:
        """Make this the class of a code, with the message of its exceptions.

        So a JIT gives exceptions to its own codes, for the whole process. A class of the same
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
        cls._own_code = code
        _SUBCLASSES[number] = cls


def trap_of(number: int) -> Trap:
    """Return ``Trap(number)``, of a number of 32 bits."""
    cls = _SUBCLASSES.get(number)
    if cls is None:
        return Trap(number)
    if cls.__init__ is not Trap.__init__ or cls.__new__ is not Trap.__new__:
        return cls(cls._own_code)
    trap: Trap = Exception.__new__(cls, _MESSAGES[number])  # as both would do
    trap._code = number if cls._own_code is None else cls._own_code
    return trap


# The codes are those of TrapCode.


class StackOverflow(Trap, RecursionError, code=1, message="call stack exhausted"):
    """The call stack is exhausted."""


class HeapOutOfBounds(Trap, IndexError, code=2, message="out of bounds memory access"):
    """An access outside a linear memory or a data segment."""


class TableOutOfBounds(Trap, IndexError, code=3, message="out of bounds table access"):
    """An access outside a table or an element segment."""


class IndirectCallToNull(Trap, code=4, message="uninitialized element"):
    """``call_indirect`` found a null reference."""


class BadSignature(Trap, TypeError, code=5, message="indirect call type mismatch"):
    """``call_indirect`` found a function of another type."""


class IntegerOverflow(Trap, OverflowError, code=6, message="integer overflow"):
    """An integer result has no representation: ``MIN / -1``, or a float too large to truncate."""


class IntegerDivisionByZero(Trap, ZeroDivisionError, code=7, message="integer divide by zero"):
    """An integer division or remainder by zero."""


class BadConversionToInteger(Trap, ValueError, code=8, message="invalid conversion to integer"):
    """A NaN was truncated to an integer."""


class UnreachableCodeReached(Trap, code=9, message="unreachable"):
    """The ``unreachable`` instruction was executed."""


class Interrupt(Trap, code=10, message="interrupt"):
    """Execution was stopped from outside."""


class UndefinedElement(Trap, IndexError, code=11, message="undefined element"):
    """``call_indirect`` named an element past the end of its table."""


_BUILT_IN = frozenset(_MESSAGES)
