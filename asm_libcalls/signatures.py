"""Value types and signatures: ``"(vmctx, i32, i32) -> i32"`` to and from C, ctypes and bits.

A :class:`Signature` is a string in one canonical spelling, so it prints, compares and pickles
like one; what the spelling means is in its attributes. Only C types appear (the first rule of a
libcall): integers of 32, 64 and 128 bits, floats of 16, 32 and 64 bits, and pointers. ``u32``,
``u64`` and ``u128`` are i32, i64 and i128 whose *results* are read as unsigned; an argument may
always be given in either reading.

Nothing of the runtime is known here. An object that stands for an address in native code passes
itself, by a method ``__native_address__(kind)``: given the name of the value type (``"vmctx"``,
``"externref"``, ``"anyfunc"`` or ``"reference"``) it returns the address, or NotImplemented where
it is of another kind, and raises ValueError where it is closed. The caller keeps the object alive
while native code runs.
"""

from __future__ import annotations

import operator
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

__all__ = ["VALUE_TYPES", "WASM_NUMBERS", "Callee", "Signature", "ValueType"]

POINTER_BITS = struct.calcsize("P") * 8
_F16 = struct.Struct("<e")
_F32 = struct.Struct("<f")
_F64 = struct.Struct("<d")
_U16 = struct.Struct("<H")
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


class ValueType:
    """One type of the C boundary.

    Attributes
    ----------
    name : str
        Its spelling in a signature.
    bits : int
        Its width.
    kind : {"integer", "float", "vector", "pointer"}
        What it is to Python.
    classes : tuple of str
        How it is passed, an ABI class for each eightbyte: INTEGER, or SSE (and SSEUP for the upper
        half of a vector). What takes several registers is never split between them and the stack.
    alignment : int
        Its alignment on the stack, in bytes.
    signed : bool
        Whether Python reads a result of it as signed.
    c_name : str
        Its spelling in C.
    ctypes_name : str
        The name of its type in :mod:`ctypes`, for arguments and results alike; "" if it has none.
    is_runtime : bool
        Whether it points to something of an instance: a vmctx or a reference.
    """

    __slots__ = (
        "alignment",
        "bits",
        "c_name",
        "classes",
        "ctypes_name",
        "is_runtime",
        "kind",
        "mask",
        "name",
        "signed",
    )

    def __init__(
        self, name: str, bits: int, kind: str, signed: bool, c_name: str, ctypes_name: str
    ) -> None:
        self.name = name
        self.bits = bits
        self.kind = kind
        self.signed = signed
        self.c_name = c_name
        self.ctypes_name = ctypes_name
        self.is_runtime = kind == "pointer" and name != "pointer"
        self.mask = (1 << bits) - 1
        # System V ABI for AMD64, 3.2.3, "Classification", and 3.1.2 for the alignments.
        eightbytes = (bits + 63) // 64
        if kind in ("float", "vector"):
            self.classes = ("SSE",) + ("SSEUP",) * (eightbytes - 1)
        else:
            self.classes = ("INTEGER",) * eightbytes
        self.alignment = 8 * eightbytes

    def __repr__(self) -> str:
        return f"<ValueType {self.name}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return (_known_type, (self.name,))

    def to_bits(self, value: Any, where: str) -> int:
        """Return the bit pattern of a Python value, an unsigned integer.

        Parameters
        ----------
        value : int or float
            An integer in the signed or the unsigned range of the type; for a float anything
            that :func:`float` takes as a number (what is shorter than an f64 is rounded to nearest,
            ties to even, beyond its range to infinity, as Wasm's ``f32.demote_f64`` does); for a
            pointer an address, or None for null.
        where : str
            What to call the argument in an error, for example ``"i64_sdiv(): dividend"``.

        Raises
        ------
        TypeError
            The value is not a number of this kind.
        OverflowError
            The integer has no representation in the type.
        """
        if self.kind == "float":
            return self._float_to_bits(value, where)
        if type(value) is int and 0 <= value <= self.mask:
            return value
        if value is None and self.kind == "pointer":
            return 0
        try:
            integer = operator.index(value)
        except TypeError:
            if hasattr(type(value), "__index__"):
                raise  # its own error
            expected = "an address (int) or None" if self.kind == "pointer" else "an integer"
            raise TypeError(
                f"{where} must be {expected} ({self.name}), got {_describe(value)}"
            ) from None
        lowest = 0 if self.kind == "pointer" else -(1 << (self.bits - 1))
        if not lowest <= integer <= self.mask:
            low = "0" if lowest == 0 else f"-2**{self.bits - 1}"
            raise OverflowError(
                f"{where} must be in {low} .. 2**{self.bits}-1 ({self.name}), got {_short(integer)}"
            )
        return integer & self.mask

    def _float_to_bits(self, value: Any, where: str) -> int:
        # float() would parse text and every buffer; NumPy's str_ and bytes_ claim a __float__.
        type_ = type(value)
        if isinstance(value, (str, bytes)) or not (
            hasattr(type_, "__float__") or hasattr(type_, "__index__")
        ):
            raise TypeError(f"{where} must be a real number ({self.name}), got {_describe(value)}")
        try:
            number = float(value)
        except TypeError as error:
            raise TypeError(
                f"{where} must be a real number ({self.name}), got {_describe(value)}"
            ) from error
        except OverflowError:
            raise OverflowError(
                f"{where} must be a real number ({self.name}), "
                f"got {type_.__name__} beyond its range"
            ) from None
        if self.bits == 64:
            return int(_U64.unpack(_F64.pack(number))[0])
        if self.bits == 16:
            return _narrow(int(_U64.unpack(_F64.pack(number))[0]), *_SHORT_FLOATS[self.name])
        try:
            return int(_U32.unpack(_F32.pack(number))[0])
        except OverflowError:  # finite, but rounds beyond the largest f32
            return 0x7F800000 if number > 0 else 0xFF800000

    def from_bits(self, pattern: int) -> Any:
        """Return the Python value of a bit pattern: an int, or a float for a float.

        A signalling NaN of less than 64 bits becomes quiet on the way into a Python float (C's
        conversion does that); compare patterns where it matters.
        """
        if self.kind == "float":
            if self.bits == 64:
                return _F64.unpack(_U64.pack(pattern))[0]
            if self.name == "bf16":
                pattern <<= 16  # it is the upper half of an f32
            elif self.bits == 16:
                return _from_half(pattern)
            return _F32.unpack(_U32.pack(pattern))[0]
        if self.signed and pattern >> (self.bits - 1):
            return pattern - (1 << self.bits)
        return pattern

    def check_pattern(self, pattern: Any, where: str) -> int:
        """Return `pattern` if it is an unsigned integer of this width, or raise as `to_bits`."""
        try:
            integer = operator.index(pattern)
        except TypeError:
            raise TypeError(
                f"{where} must be a bit pattern (int of {self.bits} bits), got {_describe(pattern)}"
            ) from None
        if not 0 <= integer <= self.mask:
            raise OverflowError(
                f"{where} must be a bit pattern in 0 .. 2**{self.bits}-1, got {_short(integer)}"
            )
        return integer


class Callee:
    """What error messages call a function and its arguments.

    Attributes
    ----------
    title : str
        The function, for example ``"i64_sdiv()"``.
    where : tuple of str
        Each argument, for example ``"i64_sdiv(): argument 'dividend'"``.
    listed : str
        The parameters, as they follow their count; or "".
    """

    __slots__ = ("listed", "title", "where")

    def __init__(self, title: str, where: tuple[str, ...], listed: str = "") -> None:
        self.title = title
        self.where = where
        self.listed = listed

    @classmethod
    def named(cls, name: str, parameters: tuple[str, ...]) -> Callee:
        """Return the callee of a function whose parameters have names."""
        where = tuple([f"{name}(): argument {parameter!r}" for parameter in parameters])
        return cls(f"{name}()", where, f" ({', '.join(parameters)})" if parameters else "")

    def check_count(self, count: int) -> None:
        """Raise TypeError unless there are as many arguments as parameters."""
        expected = len(self.where)
        if count != expected:
            plural = "argument" if expected == 1 else "arguments"
            raise TypeError(f"{self.title} takes {expected} {plural}{self.listed}, got {count}")


_SHORT_FLOATS = {"f16": (10, 15), "bf16": (7, 127)}
"""Bits of the fraction and the exponent's bias of the floats of 16 bits."""


def _narrow(pattern: int, fraction: int, bias: int) -> int:
    """Return the 16 bits of the float nearest to an f64, ties to even; a NaN becomes quiet."""
    sign, magnitude = pattern >> 63 << 15, pattern & ((1 << 63) - 1)
    dropped = 52 - fraction
    infinity = (2 * bias + 1) << fraction
    exponent, rest = divmod(magnitude, 1 << 52)
    if exponent == 0x7FF:
        quiet = 1 << (fraction - 1)
        return sign | infinity | (rest >> dropped | quiet if rest else 0)
    lowest = 1023 - bias + 1  # the field of the least normal number
    if exponent < lowest:  # subnormal: the fewer bits, the smaller
        dropped += min(lowest - exponent, 64)
        magnitude = rest | 1 << 52
    else:
        magnitude -= (lowest - 1) << 52
    half = 1 << (dropped - 1)
    kept, rest = divmod(magnitude, 1 << dropped)
    return sign | min(kept + (rest > half or (rest == half and kept & 1)), infinity)


def _from_half(pattern: int) -> float:
    if pattern & 0x7FFF <= 0x7C00:
        return float(_F16.unpack(_U16.pack(pattern))[0])
    wide = (pattern & 0x8000) << 48 | 0x7FF << 52 | (pattern & 0x3FF | 0x200) << 42
    return float(_F64.unpack(_U64.pack(wide))[0])


def _describe(value: object) -> str:
    try:
        text = repr(value)
    except Exception:  # also an integer of more than 4300 digits somewhere inside
        return type(value).__name__
    if len(text) > 60:
        text = text[:57] + "..."
    return f"{type(value).__name__} {text}"


def _short(integer: int) -> str:
    # Python refuses to print integers of more than 4300 digits, and nobody reads them.
    if integer.bit_length() > 256:
        return f"an integer of {integer.bit_length()} bits"
    return str(integer)


VALUE_TYPES = {
    value_type.name: value_type
    for value_type in (
        ValueType("i32", 32, "integer", True, "int32_t", "c_int32"),
        ValueType("u32", 32, "integer", False, "uint32_t", "c_uint32"),
        ValueType("i64", 64, "integer", True, "int64_t", "c_int64"),
        ValueType("u64", 64, "integer", False, "uint64_t", "c_uint64"),
        ValueType("i128", 128, "integer", True, "__int128", ""),
        ValueType("u128", 128, "integer", False, "unsigned __int128", ""),
        ValueType("f16", 16, "float", True, "_Float16", ""),
        ValueType("bf16", 16, "float", True, "__bf16", ""),
        ValueType("f32", 32, "float", True, "float", "c_float"),
        ValueType("f64", 64, "float", True, "double", "c_double"),
        ValueType("pointer", POINTER_BITS, "pointer", False, "void *", "c_size_t"),
        ValueType("vmctx", POINTER_BITS, "pointer", False, "VMContext *", "c_size_t"),
        ValueType(
            "anyfunc", POINTER_BITS, "pointer", False, "VMCallerCheckedAnyfunc *", "c_size_t"
        ),
        ValueType("externref", POINTER_BITS, "pointer", False, "VMExternData *", "c_size_t"),
        ValueType("reference", POINTER_BITS, "pointer", False, "void *", "c_size_t"),
    )
}
"""Every value type by name. The pointer types differ in what they point to, not in the ABI."""


WASM_NUMBERS = {
    **{name: VALUE_TYPES[name] for name in ("i32", "i64", "f32", "f64")},
    "v128": ValueType("v128", 128, "vector", False, "", ""),
}
"""The number types of WebAssembly and its vector type, which in Python is an unsigned int."""


def _known_type(name: str) -> ValueType:
    return VALUE_TYPES.get(name) or WASM_NUMBERS[name]


class Signature(str):
    """A C signature in its canonical spelling, for example ``"(vmctx, u32, u32) -> u32"``.

    Parameters
    ----------
    text : str
        Parameter types in parentheses, then ``-> type`` unless there is no result. Spaces are
        free; the types are those of :data:`VALUE_TYPES`.

    Attributes
    ----------
    parameters : tuple of ValueType
    result : ValueType or None

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
            raise TypeError(f"a signature must be a str, got {_describe(text)}")
        parameters_text, arrow, result_text = text.partition("->")
        parameters_text = parameters_text.strip()
        if not (parameters_text.startswith("(") and parameters_text.endswith(")")):
            raise ValueError(
                f"signature {text!r}: expected parameter types in parentheses, "
                'for example "(i64, i64) -> i64"'
            )
        inner = parameters_text[1:-1].strip()
        names = [name.strip() for name in inner.split(",")] if inner else []
        parameters = tuple(_value_type(name, text) for name in names)
        result = _value_type(result_text.strip(), text) if arrow else None
        canonical = "(" + ", ".join(t.name for t in parameters) + ")"
        if result is not None:
            canonical += f" -> {result.name}"
        self = super().__new__(cls, canonical)
        self.parameters = parameters
        self.result = result
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return (Signature, (str(self),))

    def to_patterns(self, arguments: Sequence[Any], callee: Callee) -> list[int]:
        """Check the arguments of a call and return their bit patterns.

        Parameters
        ----------
        arguments : sequence of object
            Python numbers; addresses, and objects that have one in native code (see the module).
            The caller keeps them alive while native code has their addresses.
        callee : Callee

        Raises
        ------
        TypeError
            The wrong count, or an argument of the wrong type.
        OverflowError
            An integer that its type cannot hold.
        ValueError
            An object that is closed.
        """
        callee.check_count(len(arguments))
        return [
            _address_of(value_type, argument, where)
            if value_type.is_runtime
            else value_type.to_bits(argument, where)
            for value_type, argument, where in zip(
                self.parameters, arguments, callee.where, strict=True
            )
        ]

    def check_patterns(self, patterns: Sequence[Any], callee: Callee) -> list[int]:
        """Return the bit patterns of a call, if they are as many and as wide as they should be."""
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
        """Return the ``CFUNCTYPE`` class of this signature, always the same one.

        It is a ``PYFUNCTYPE`` where the GIL is to be held.

        Raises
        ------
        RuntimeError
            ctypes has no type for one of the value types.
        """
        import ctypes

        for value_type in (*self.parameters, self.result):
            if value_type is not None and not value_type.ctypes_name:
                raise RuntimeError(f"ctypes has no type for the {value_type.name} of {self}")

        key = (str(self), release_gil)
        if key not in _prototypes:
            make = ctypes.CFUNCTYPE if release_gil else ctypes.PYFUNCTYPE
            result = None if self.result is None else getattr(ctypes, self.result.ctypes_name)
            parameters = (getattr(ctypes, t.ctypes_name) for t in self.parameters)
            _prototypes[key] = make(result, *parameters)
        return _prototypes[key]


def _address_of(value_type: ValueType, argument: Any, where: str) -> int:
    pass_itself = getattr(type(argument), "__native_address__", None)
    if pass_itself is not None:
        try:
            address = pass_itself(argument, value_type.name)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        if address is not NotImplemented:
            return int(address)
    return value_type.to_bits(argument, where)


_prototypes: dict[tuple[str, bool], Any] = {}


def _value_type(name: str, text: str) -> ValueType:
    try:
        return VALUE_TYPES[name]
    except KeyError:
        raise ValueError(
            f"signature {text!r}: unknown type {name!r}, expected one of {', '.join(VALUE_TYPES)}"
        ) from None
