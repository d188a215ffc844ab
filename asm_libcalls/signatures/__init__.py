"""Signatures such as ``"(vmctx, i32, i32) -> i32"``: parsed, and converted to C and ctypes.

A :class:`Signature` is a string in canonical spelling, so it prints, compares and pickles as one;
its attributes are the value types. Only C types appear (the first rule of a libcall): bools,
integers of 8 to 128 bits, floats of 16, 32 and 64 bits, and pointers. A ``u`` type is the ``i``
type of its width whose *results* are read as unsigned. An argument may be given in either reading.
``size_t`` is another spelling of ``usize``.

This package does not import the runtime: ``pointers.py`` describes how an object passes itself as a
pointer, and is imported when the first one does.
"""

from __future__ import annotations

from asm_libcalls.signatures.arguments import counted, describe, shown
from asm_libcalls.signatures.value_types import (
    MEMORY_POINTERS,
    VALUE_TYPES,
    WASM_NUMBERS,
    ValueType,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

__all__ = ["MEMORY_POINTERS", "VALUE_TYPES", "WASM_NUMBERS", "Callee", "Signature", "ValueType"]


class Callee:
    """The names of a function and its arguments in error messages."""

    __slots__ = ("listed", "title", "where")

    def __init__(self, title: str, where: tuple[str, ...], listed: str = "") -> None:
        self.title = title  # the function, for example `"i64_sdiv()"`
        self.where = where  # each argument, for example `"i64_sdiv(): argument 'dividend'"`
        self.listed = listed  # the parameters in the message about a wrong count; or ""

    @classmethod
    def named(cls, name: str, parameters: tuple[str, ...]) -> Callee:
        """Return the callee of a function whose parameters have names."""
        where = tuple([f"{name}(): argument {parameter!r}" for parameter in parameters])
        return cls(f"{name}()", where, f" ({', '.join(parameters)})" if parameters else "")

    def check_count(self, count: int) -> None:
        """Raise TypeError unless there are as many arguments as parameters."""
        expected = len(self.where)
        if count != expected:
            taken = counted(expected, "argument")
            raise TypeError(f"{self.title} takes {taken}{self.listed}, got {count}")


class Signature(str):
    """A C signature in its canonical spelling, for example ``"(vmctx, u32, u32) -> u32"``.

    Parameters
    ----------
    text : str
        Parameter types in parentheses, then ``-> type`` if it has a result. Spaces are optional;
        the types are those of :data:`VALUE_TYPES`.

    Attributes
    ----------
    parameters : tuple of ValueType
    result : ValueType or None

    Notes
    -----
    A ``pointer`` may be given as an int; as None for null; as an object with a writable buffer
    (bytearray, memoryview, array, a NumPy array, an array or structure of :mod:`ctypes`); as a
    pointer of ctypes (``c_void_p``, ``POINTER``, ``byref``), a function of ctypes, a HostFunction
    or a toy_jit Func. A ``const pointer`` takes read-only buffers and bytes as well. The memory
    must be contiguous, in the order of C or Fortran. It is held during the call, so its object
    refuses to move it, and is released however the call ends.

    A ``vmctx`` may be given as an Instance, an ``externref`` as a VMExternRef, which is kept during
    the call, and an ``anyfunc`` as a FuncRef.

    Raises
    ------
    ValueError
        The text is not a signature; the message says where.

    Examples
    --------
    >>> Signature("( i64,i64 )->i64")
    '(i64, i64) -> i64'
    >>> Signature("(f32)").result is None
    True
    """

    __slots__ = ("parameters", "result")

    parameters: tuple[ValueType, ...]
    result: ValueType | None

    def __new__(cls, text: str) -> Signature:
        """Parse `text`; a Signature is returned as it is."""
        if isinstance(text, Signature):
            return text
        if not isinstance(text, str):
            raise TypeError(f"a signature must be a str, got {describe(text)}")
        parameters_text, arrow, result_text = text.partition("->")
        parameters_text = parameters_text.strip()
        if not (parameters_text.startswith("(") and parameters_text.endswith(")")):
            raise ValueError(
                f"signature {shown(text)}: expected parameter types in parentheses, "
                'for example "(i64, i64) -> i64"'
            )
        inner = parameters_text[1:-1].strip()
        names = [name.strip() for name in inner.split(",")] if inner else []
        parameters = tuple([_value_type(name, text, False) for name in names])
        result = _value_type(result_text, text, True) if arrow else None
        canonical = "(" + ", ".join([t.name for t in parameters]) + ")"
        if result is not None:
            canonical += f" -> {result.name}"
        self = super().__new__(cls, canonical)
        self.parameters = parameters
        self.result = result
        return self

    @classmethod
    def of(cls, text: str, where: str) -> Signature:
        """Return the signature of an argument, whose name is in the TypeError."""
        if not isinstance(text, str):
            raise TypeError(f"{where} must be a str, got {describe(text)}")
        return cls(text)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Signature, (str(self),))

    def call(
        self, native: Callable[[list[int]], int], arguments: Sequence[Any], callee: Callee
    ) -> Any:
        """Call a function of bit patterns with Python arguments; return the result's value.

        The buffers of arguments are held during the call, whatever ends it.
        """
        held: list[Any] = []
        try:
            return self.from_pattern(native(self.to_patterns(arguments, callee, held)))
        finally:
            if held:
                from asm_libcalls.signatures import pointers

                pointers.release(held)

    def to_patterns(self, arguments: Sequence[Any], callee: Callee, held: list[Any]) -> list[int]:
        """Check the arguments of a call and return their bit patterns.

        They are Python numbers, and for pointers the objects that ``pointers.py`` takes. The caller
        keeps them alive while native code has their addresses. Objects to hold until the call has
        ended are appended to `held`; ``pointers.release`` then releases them.

        Raise TypeError for a wrong count or type, OverflowError for an integer that its type cannot
        hold, and ValueError for an object that is closed.
        """
        exact = self.to_exact(arguments, callee, held)
        return [
            value_type.to_bits(value, where)
            for value_type, value, where in zip(self.parameters, exact, callee.where, strict=True)
        ]

    def to_exact(self, arguments: Sequence[Any], callee: Callee, held: list[Any]) -> list[Any]:
        """Convert the arguments of a call to exact ints, floats and Nones.

        As :meth:`to_patterns`, but an int that was given as such may be out of range.
        """
        callee.check_count(len(arguments))
        exact: list[Any] = list(arguments)
        owners = []
        for i, argument in enumerate(arguments):
            value_type = self.parameters[i]
            type_ = type(argument)
            if type_ is value_type.exact_type:
                continue
            if value_type.kind != "pointer":
                exact[i] = value_type.to_exact(argument, callee.where[i])
            elif argument is None:
                pass
            elif hasattr(type_, "__native_address__"):
                owners.append(i)
            else:
                from asm_libcalls.signatures import pointers

                where = callee.where[i]
                exact[i] = pointers.address_of_argument(value_type, argument, where, held)
        # Last, because a conversion before may have run code that closes an owner.
        for i in owners:
            from asm_libcalls.signatures import pointers

            value_type, argument, where = self.parameters[i], arguments[i], callee.where[i]
            address = pointers.address_of_owner(value_type, argument, where, held)
            if address is NotImplemented:
                address = pointers.address_of_argument(value_type, argument, where, held)
            exact[i] = address
        return exact

    def check_patterns(self, patterns: Sequence[Any], callee: Callee) -> list[int]:
        """Return the bit patterns of a call, if their count and widths are right."""
        callee.check_count(len(patterns))
        return [
            value_type.check_pattern(pattern, where)
            for value_type, pattern, where in zip(
                self.parameters, patterns, callee.where, strict=True
            )
        ]

    def from_pattern(self, pattern: int) -> Any:
        """Return the Python value of a result's bit pattern; None where there is no result."""
        return None if self.result is None else self.result.from_bits(pattern)

    def c_declaration(self, symbol: str, parameter_names: tuple[str, ...]) -> str:
        """Return the C prototype, for example ``int64_t wasmtime_i64_ishl(int64_t x, ...);``."""
        result = "void" if self.result is None else self.result.c_name
        parts = [
            t.c_name + ("" if t.c_name.endswith("*") else " ") + name
            for t, name in zip(self.parameters, parameter_names, strict=True)
        ]
        space = "" if result.endswith("*") else " "
        return f"{result}{space}{symbol}({', '.join(parts) or 'void'});"

    def ctypes_prototype(self, release_gil: bool = True) -> Any:
        """Return the ``CFUNCTYPE`` class of this signature, or ``PYFUNCTYPE`` to hold the GIL.

        It is cached. Raise RuntimeError if ctypes has no type for one of the value types.
        """
        import ctypes

        for value_type in (*self.parameters, self.result):
            if value_type is not None and not value_type.ctypes_name:
                raise RuntimeError(
                    f"a function of {self} needs machine code, which does not serve here: "
                    f"ctypes has no type for {value_type.name}"
                )
        key = (str(self), release_gil)
        if key not in _prototypes:
            make = ctypes.CFUNCTYPE if release_gil else ctypes.PYFUNCTYPE
            result = None if self.result is None else getattr(ctypes, self.result.ctypes_name)
            parameters = (getattr(ctypes, t.ctypes_name) for t in self.parameters)
            _prototypes[key] = make(result, *parameters)
        return _prototypes[key]


_prototypes: dict[tuple[str, bool], Any] = {}

_SYNONYMS = {"size_t": "usize"}


def _value_type(name: str, text: str, is_result: bool) -> ValueType:
    name = " ".join(name.split())
    found = VALUE_TYPES.get(_SYNONYMS.get(name, name))
    if found is None:
        from asm_libcalls.signatures.hints import what_is_wrong

        raise ValueError(f"signature {shown(text)}: {what_is_wrong(name, text, is_result)}")
    return found
