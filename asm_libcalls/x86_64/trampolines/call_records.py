"""Host call records, which thunks read: a Python callable, and the conversions of its arguments.

The frame, by rbp::

    +16  the caller's arguments on the stack
     +8  return address               into the caller's code: the key of its stack map
      0  the caller's rbp
         rbx, r12 to r15              callee-saved registers of the caller
         integers, floats             spilled argument registers (a record holds their offsets)
         result, GIL state, Departure*, the result's upper 64 bits
         Python arguments             <- rsp

Source: System V ABI for AMD64, 3.2.3.
"""

from __future__ import annotations

import ctypes

from asm_libcalls import calling_convention
from asm_libcalls.calling_convention import (
    CALLEE_SAVED_SIZE, FLOAT_REGISTERS, INTEGER_REGISTERS, assign,
)  # fmt: skip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from asm_libcalls.signatures import Signature, ValueType

THUNKS = tuple([f"thunk {i}" for i in range(128)])
"""Names of the thunks in an image: at 32 bytes each, they fill one page."""

# Conversions of a parameter from C, and of a result to C.
U64, I64, U32, I32, F64, F32, ADDRESS = range(7)
NOTHING = 7

# Offsets from rbp of the body's frame.
INTEGERS = -CALLEE_SAVED_SIZE - 8 * len(INTEGER_REGISTERS)
FLOATS = INTEGERS - 8 * len(FLOAT_REGISTERS)
RESULT = FLOATS - 8
GIL_STATE = RESULT - 8
DEPARTURE = GIL_STATE - 8
RESULT_HIGH = DEPARTURE - 8
FRAME = -(RESULT_HIGH // 16) * 16  # a call finds rsp aligned
STACK_ARGUMENTS = 16

_BANKS = {
    calling_convention.INTEGERS: INTEGERS,
    calling_convention.FLOATS: FLOATS,
    calling_convention.STACK: STACK_ARGUMENTS,
}


class Parameter(ctypes.Structure):
    """Offset of a parameter from rbp, in bytes, and its conversion."""

    _fields_ = [("offset", ctypes.c_int32), ("conversion", ctypes.c_uint32)]


class HostCallRecord(ctypes.Structure):
    """The callable of a thunk, a borrowed ``PyObject*``, and its conversions.

    ``convert`` is a borrowed callable too: it returns the bit pattern of a result that does not
    fit, or raises. ``owner`` is the Python object that owns this record. A call holds references to
    the owner and the callable, so a host function may be closed while it runs. ``count`` entries
    of :class:`Parameter` follow the structure.
    """

    _fields_ = [
        ("callable", ctypes.c_uint64),
        ("convert", ctypes.c_uint64),
        ("owner", ctypes.c_uint64),
        ("count", ctypes.c_uint32),
        ("result", ctypes.c_uint32),
    ]


def _conversion(value_type: ValueType, as_bits: bool) -> int:
    if value_type.bits not in (32, 64):
        return U64  # the pattern, or half of it
    is_long = value_type.bits == 64
    if value_type.kind == "float" and not as_bits:
        return F64 if is_long else F32
    if value_type.signed and not as_bits:
        return I64 if is_long else I32
    return U64 if is_long else U32


def set_owner(record: ctypes.Array[ctypes.c_char], owner: object) -> None:
    """Set the object that owns a record and the record's borrowed references."""
    HostCallRecord.from_buffer(record).owner = id(owner)


def set_convert(record: ctypes.Array[ctypes.c_char], convert: object) -> None:
    """Replace ``convert`` of a record, a borrowed reference."""
    HostCallRecord.from_buffer(record).convert = id(convert)


def make_slot_record(
    function: object, convert: object, count: int, has_result: bool
) -> ctypes.Array[ctypes.c_char]:
    """Make the record of a host function whose caller passes all arguments on the stack.

    Each argument has a slot of 8 bytes. The callable gets the 64 bits of each, and then the address
    of the first slot, where it may store further results. It returns 64 bits, which the thunk
    returns in rax and xmm0.
    """
    parameters = [Parameter(STACK_ARGUMENTS + 8 * i, U64) for i in range(count)]
    parameters.append(Parameter(STACK_ARGUMENTS, ADDRESS))
    return _pack(function, convert, parameters, U64 if has_result else NOTHING)


def make_number_record(
    function: object, convert: object, parameters: Sequence[ValueType], result: ValueType | None
) -> ctypes.Array[ctypes.c_char]:
    """Make such a record, whose callable gets and returns Python numbers, of 32 or 64 bits."""
    entries = [
        Parameter(STACK_ARGUMENTS + 8 * i, _conversion(value_type, as_bits=False))
        for i, value_type in enumerate(parameters)
    ]
    conversion = NOTHING if result is None else _conversion(result, as_bits=False)
    return _pack(function, convert, entries, conversion)


def make_record(
    function: object, convert: object, signature: Signature, as_bits: bool
) -> ctypes.Array[ctypes.c_char]:
    """Make the record of a host function; the caller keeps it and both callables alive.

    With `as_bits`, the callable takes and returns unsigned bit patterns, floats included. A value
    of neither 32 nor 64 bits is always a pattern. A parameter of 128 bits is two arguments, the low
    64 bits first. For a result of 128 bits the callable returns the low 64 bits, and stores the
    high ones at the address in its last argument.
    """
    parameters = []
    for value_type, place in zip(
        signature.parameters, assign(signature.parameters).places, strict=True
    ):
        offset = _BANKS[place.bank] + 8 * place.number
        parameters.append(Parameter(offset, _conversion(value_type, as_bits)))
        if value_type.bits > 64:
            parameters.append(Parameter(offset + 8, U64))
    if signature.result is not None and signature.result.bits > 64:
        parameters.append(Parameter(RESULT_HIGH, ADDRESS))
    result = NOTHING if signature.result is None else _conversion(signature.result, as_bits)
    return _pack(function, convert, parameters, result)


def _pack(
    function: object, convert: object, parameters: list[Parameter], result: int
) -> ctypes.Array[ctypes.c_char]:
    record = HostCallRecord(id(function), id(convert), 0, len(parameters), result)
    content = bytes(record) + b"".join(map(bytes, parameters))
    return ctypes.create_string_buffer(content, len(content))
