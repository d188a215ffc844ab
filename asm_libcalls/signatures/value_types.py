"""Value types: the C types of libcalls, and the conversion between Python numbers and bit patterns.

A pattern is the bits of a value as an unsigned integer of its width, so NaNs keep their bits.
"""

from __future__ import annotations

from _operator import index as _index  # importing operator takes longer, and struct
from _struct import Struct

from asm_libcalls.signatures.arguments import describe, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

CONST_POINTER = "const pointer"
"""The pointer through which native code only reads."""

MEMORY_POINTERS = ("pointer", CONST_POINTER)
"""The pointers to memory of any kind; the others point to parts of an instance."""

learners: list[Callable[[type], object]] = []
"""Functions to call with the type of a converted object, which machine code may learn to read."""

POINTER_BITS = Struct("P").size * 8
_F16 = Struct("<e")
_F32 = Struct("<f")
_F64 = Struct("<d")
_U16 = Struct("<H")
_U32 = Struct("<I")
_U64 = Struct("<Q")


class ValueType:
    """One C type of arguments and results."""

    __slots__ = (
        "alignment", "bits", "c_name", "classes", "ctypes_name", "exact_type", "is_runtime", "kind",
        "mask", "name", "signed",
    )  # fmt: skip

    def __init__(
        self, name: str, bits: int, kind: str, signed: bool, c_name: str, ctypes_name: str
    ) -> None:
        self.name = name  # its spelling in a signature
        self.bits = bits  # its width
        self.kind = kind  # its kind in Python
        self.signed = signed  # whether a result is read as signed
        self.c_name = c_name  # its spelling in C
        # the name of its type in ctypes, for arguments and results alike; "" if it has none
        self.ctypes_name = ctypes_name
        # int or float: its objects are values of the type, if they are in its range
        self.exact_type: type = float if kind == "float" else int
        # whether it is a pointer to a part of an instance: a vmctx or a reference
        self.is_runtime = kind == "pointer" and name not in MEMORY_POINTERS
        self.mask = (1 << bits) - 1
        # System V ABI for AMD64, 3.2.3, "Classification", and 3.1.2 for the alignments.
        eightbytes = (bits + 63) // 64
        if kind in ("float", "vector"):
            # Its ABI class for each eightbyte: INTEGER, or SSE (and SSEUP for the upper half of a
            # vector). A value of several eightbytes is never split between registers and the stack.
            self.classes = ("SSE",) + ("SSEUP",) * (eightbytes - 1)
        else:
            self.classes = ("INTEGER",) * eightbytes
        self.alignment = 8 * eightbytes  # its alignment on the stack, in bytes

    def __repr__(self) -> str:
        return f"<ValueType {self.name}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return (known_type, (self.name,))

    def to_bits(self, value: Any, where: str) -> int:
        """Return the bit pattern of a Python value, an unsigned integer.

        An integer type takes an integer in its signed or its unsigned range, a bool True, False, 1
        or 0, a float any number that :func:`float` takes, a pointer an address or None for null. A
        float of less than 64 bits is rounded to nearest, ties to even, and to infinity beyond its
        range, as by Wasm's ``f32.demote_f64``.

        Raise TypeError if the value is not a number of this kind, and OverflowError for an integer
        that the type cannot represent. `where` names the argument, as ``"i64_sdiv(): dividend"``.
        """
        if self.kind == "float":
            return self._float_to_bits(value, where)
        if self.name == "bool":
            return _bool_to_bits(value, where)
        if type(value) is int and 0 <= value <= self.mask:
            return value
        if value is None and self.kind == "pointer":
            return 0
        _learn(type(value))
        try:
            integer = _index(value)
        except TypeError:
            if self.kind == "integer" and _is_numpy(
                type(value), "bool", "bool_"
            ):  # numba's bool is both
                return 1 if value else 0
            # An array has an __index__ whose error names no argument.
            if hasattr(type(value), "__index__") and not _is_numpy(type(value), "ndarray"):
                raise  # its own error
            expected = "an address (int) or None" if self.kind == "pointer" else "an integer"
            raise TypeError(
                f"{where} must be {expected} ({self.name}), got {describe(value)}"
            ) from None
        lowest = 0 if self.kind == "pointer" else -(1 << (self.bits - 1))
        if not lowest <= integer <= self.mask:
            low = "0" if lowest == 0 else f"-2**{self.bits - 1}"
            raise OverflowError(
                f"{where} must be in {low} .. 2**{self.bits}-1 ({self.name}), got {shown(integer)}"
            )
        return integer & self.mask

    def _float_to_bits(self, value: Any, where: str) -> int:
        number = self._to_float(value, where)
        if self.bits == 64:
            return int(_U64.unpack(_F64.pack(number))[0])
        if self.bits == 16:
            return _narrow(int(_U64.unpack(_F64.pack(number))[0]), FRACTION_BITS[self.name])
        try:
            return int(_U32.unpack(_F32.pack(number))[0])
        except OverflowError:  # finite, but rounds beyond the largest f32
            return 0x7F800000 if number > 0 else 0xFF800000

    def to_exact(self, value: Any, where: str) -> Any:
        """Return a value that machine code reads as this type, an int or a float.

        Raises as :meth:`to_bits`.
        """
        return self._to_float(value, where) if self.kind == "float" else self.to_bits(value, where)

    def _to_float(self, value: Any, where: str) -> float:
        type_ = type(value)
        if type_ is float:
            return float(value)
        _learn(type_)
        # float() would also parse text and buffers; NumPy's str_ and bytes_ have a __float__.
        # NumPy's complex numbers have one that drops the imaginary part.
        if (
            isinstance(value, (str, bytes))
            or _is_numpy(type_, "complex64", "complex128", "complex256", "clongdouble")
            or not (hasattr(type_, "__float__") or hasattr(type_, "__index__"))
        ):
            raise TypeError(f"{where} must be a real number ({self.name}), got {describe(value)}")
        try:
            return float(value)
        except TypeError as error:
            raise TypeError(
                f"{where} must be a real number ({self.name}), got {describe(value)}"
            ) from error
        except OverflowError:
            raise OverflowError(
                f"{where} must be a real number ({self.name}), "
                f"got {type_.__name__} beyond its range"
            ) from None

    def from_bits(self, pattern: int) -> Any:
        """Return the Python value of a bit pattern: an int, a float, or a bool for a bool.

        A signalling NaN of less than 64 bits becomes quiet, by C's conversion to double; compare
        patterns where that matters.
        """
        if self.kind == "float":
            if self.bits == 64:
                return _F64.unpack(_U64.pack(pattern))[0]
            if self.name == "bf16":
                pattern <<= 16  # a bf16 is the upper half of an f32
            elif self.bits == 16:
                return _from_half(pattern)
            return _F32.unpack(_U32.pack(pattern))[0]
        if self.name == "bool":
            return pattern != 0
        if self.signed and pattern >> (self.bits - 1):
            return pattern - (1 << self.bits)
        return pattern

    def extended(self, pattern: int) -> int:
        """Return a pattern as its caller passes it: a narrow integer has 32 bits.

        System V ABI for AMD64 leaves the upper bits undefined, but clang and GCC extend the
        arguments of a call to 32 bits by their sign, and clang's callees rely on it.
        """
        if self.bits < 32 and self.signed and pattern >> (self.bits - 1) and self.kind == "integer":
            return pattern | 0xFFFF_FFFF ^ self.mask
        return pattern

    def check_pattern(self, pattern: Any, where: str) -> int:
        """Return `pattern` if it is an unsigned integer of this width, or raise as `to_bits`."""
        if self.name == "bool":
            return _bool_to_bits(pattern, where)
        try:
            integer = _index(pattern)
        except TypeError:
            raise TypeError(
                f"{where} must be a bit pattern (int of {self.bits} bits), got {describe(pattern)}"
            ) from None
        if not 0 <= integer <= self.mask:
            raise OverflowError(
                f"{where} must be a bit pattern in 0 .. 2**{self.bits}-1, got {shown(integer)}"
            )
        return integer


def _learn(type_: type) -> None:
    if learners and type_.__module__ == "numpy":
        learners[0](type_)


def _is_numpy(type_: type, *names: str) -> bool:
    return type_.__module__ == "numpy" and type_.__name__ in names


def _bool_to_bits(value: Any, where: str) -> int:
    type_ = type(value)
    _learn(type_)
    if type_ is bool or _is_numpy(type_, "bool", "bool_"):
        return 1 if value else 0
    try:
        integer = _index(value)
    except TypeError:
        if hasattr(type_, "__index__") and not _is_numpy(type_, "ndarray"):
            raise  # its own error
        raise TypeError(f"{where} must be True or False (bool), got {describe(value)}") from None
    if integer not in (0, 1):
        raise OverflowError(f"{where} must be True, False, 1 or 0 (bool), got {shown(integer)}")
    return integer


FRACTION_BITS = {"f16": 10, "bf16": 7, "f32": 23, "f64": 52}
"""Bits of a float's fraction, by the name of its type."""


def _narrow(pattern: int, fraction: int) -> int:
    """Return the 16 bits of the float nearest to an f64, ties to even; a NaN becomes quiet."""
    bias = (1 << 14 - fraction) - 1
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


VALUE_TYPES = {
    value_type.name: value_type
    for value_type in (
        ValueType("i8", 8, "integer", True, "int8_t", "c_int8"),
        ValueType("u8", 8, "integer", False, "uint8_t", "c_uint8"),
        ValueType("i16", 16, "integer", True, "int16_t", "c_int16"),
        ValueType("u16", 16, "integer", False, "uint16_t", "c_uint16"),
        ValueType("bool", 8, "integer", False, "bool", "c_bool"),
        ValueType("i32", 32, "integer", True, "int32_t", "c_int32"),
        ValueType("u32", 32, "integer", False, "uint32_t", "c_uint32"),
        ValueType("i64", 64, "integer", True, "int64_t", "c_int64"),
        ValueType("u64", 64, "integer", False, "uint64_t", "c_uint64"),
        ValueType("usize", POINTER_BITS, "integer", False, "size_t", "c_size_t"),
        ValueType("i128", 128, "integer", True, "__int128", ""),
        ValueType("u128", 128, "integer", False, "unsigned __int128", ""),
        ValueType("f16", 16, "float", True, "_Float16", ""),
        ValueType("bf16", 16, "float", True, "__bf16", ""),
        ValueType("f32", 32, "float", True, "float", "c_float"),
        ValueType("f64", 64, "float", True, "double", "c_double"),
        ValueType("pointer", POINTER_BITS, "pointer", False, "void *", "c_size_t"),
        ValueType(CONST_POINTER, POINTER_BITS, "pointer", False, "const void *", "c_size_t"),
        ValueType("vmctx", POINTER_BITS, "pointer", False, "VMContext *", "c_size_t"),
        ValueType(
            "anyfunc", POINTER_BITS, "pointer", False, "VMCallerCheckedAnyfunc *", "c_size_t"
        ),
        ValueType("externref", POINTER_BITS, "pointer", False, "VMExternData *", "c_size_t"),
        ValueType("reference", POINTER_BITS, "pointer", False, "void *", "c_size_t"),
    )
}
"""Every C value type by name. The pointer types have the same ABI and different targets."""


WASM_NUMBERS = {
    **{name: VALUE_TYPES[name] for name in ("i32", "i64", "f32", "f64")},
    "v128": ValueType("v128", 128, "vector", False, "", ""),
}
"""The number types of WebAssembly and its vector type, which in Python is an unsigned int."""


def known_type(name: str) -> ValueType:
    """Return the C or WebAssembly value type of a name."""
    return VALUE_TYPES.get(name) or WASM_NUMBERS[name]
