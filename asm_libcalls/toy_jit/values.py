"""Wasm values at the border to Python: numbers, references, and the 64 bits that code has of them.

An i32 or f32 is in the low half of its 64 bits. An externref is any Python object, and None is
null; a funcref is a :class:`~asm_libcalls.toy_jit.functions.Func` or None.
"""

from __future__ import annotations

from asm_libcalls import externref
from asm_libcalls.externref import VMExternRef
from asm_libcalls.funcref import FuncRef
from asm_libcalls.signatures import VALUE_TYPES
from asm_libcalls.toy_jit.module import EXTERNREF, FUNCREF, VALUE_TYPE_NAMES
from asm_libcalls.toy_jit.runtime import root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from asm_libcalls.instance import Instance

__all__ = ["from_pattern", "is_reference", "to_pattern"]

_NUMBERS = {
    valtype: VALUE_TYPES[name]
    for valtype, name in VALUE_TYPE_NAMES.items()
    if name in ("i32", "i64", "f32", "f64")
}


def is_reference(valtype: int) -> bool:
    """Return whether a value type is funcref or externref."""
    return valtype in (FUNCREF, EXTERNREF)


def to_pattern(valtype: int, value: Any, instance: Instance, where: str, bits: bool = False) -> int:
    """Return the 64 bits of a Python value that goes into compiled code.

    Parameters
    ----------
    valtype : int
    value : object
        A number (with `bits`, its unsigned pattern), or a reference's Python object.
    instance : Instance
        Whose activations table keeps an externref alive.
    where : str
        What to call the value in an error.
    """
    number = _NUMBERS.get(valtype)
    if number is not None:
        return number.check_pattern(value, where) if bits else number.to_bits(value, where)
    if value is None:
        return 0
    if valtype == EXTERNREF:
        box = value if isinstance(value, VMExternRef) else VMExternRef(value)
        return root(instance, box.as_raw())
    if isinstance(value, FuncRef):
        return value.as_raw()
    raise TypeError(f"{where} must be a Func or None (funcref), got {type(value).__name__}")


def from_pattern(valtype: int, pattern: int, bits: bool = False) -> Any:
    """Return the Python value of 64 bits that come out of compiled code."""
    number = _NUMBERS.get(valtype)
    if number is not None:
        pattern &= number.mask
        return pattern if bits else number.from_bits(pattern)
    if pattern == 0:
        return None
    return externref.value_of(pattern) if valtype == EXTERNREF else FuncRef.from_raw(pattern)
