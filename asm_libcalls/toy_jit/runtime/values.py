"""Wasm values at the border to Python: numbers, references, and the 64 bits that code has of them.

An i32 or f32 is in the low half of its 64 bits. An externref is any Python object, and None is
null; a funcref is a :class:`~asm_libcalls.toy_jit.runtime.functions.Func` or None.
"""

from __future__ import annotations

from asm_libcalls.runtime import externref
from asm_libcalls.runtime.externref import VMExternRef
from asm_libcalls.runtime.funcref import FuncRef
from asm_libcalls.signatures import VALUE_TYPES
from asm_libcalls.toy_jit.frontend.module import EXTERNREF, FUNCREF, VALUE_TYPE_NAMES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


__all__ = ["from_pattern", "is_reference", "to_patterns"]

_NUMBERS = {
    valtype: VALUE_TYPES[name]
    for valtype, name in VALUE_TYPE_NAMES.items()
    if name in ("i32", "i64", "f32", "f64")
}


def is_reference(valtype: int) -> bool:
    """Return whether a value type is funcref or externref."""
    return valtype in (FUNCREF, EXTERNREF)


def to_patterns(
    types: bytes, values: Sequence[Any], instance: Any, where: str, bits: bool = False
) -> tuple[list[int], list[VMExternRef]]:
    """Return the 64 bits of each Python value that goes into compiled code, and the externrefs.

    The externrefs are to be kept until compiled code has run: a signal's handler that collects
    while its frame has no arguments yet takes them out of the activations table.

    Parameters
    ----------
    types : bytes
        The value types.
    values : sequence of object
        Numbers (with `bits`, their unsigned patterns), and the Python objects of references.
    instance : CompiledInstance or HostInstance
        Whose activations table keeps the externrefs alive; it keeps the functions itself.
    where : str
        What to call the values in an error; where they are several, or arguments, their number
        comes behind it.
    """
    numbered = len(types) > 1 or where.endswith("argument")
    patterns = []
    boxes = []
    for i, (valtype, value) in enumerate(zip(types, values, strict=True)):
        number = _NUMBERS.get(valtype)
        if number is not None or value is not None:
            what = f"{where} {i + 1}" if numbered else where
        if number is not None:
            pattern = number.check_pattern(value, what) if bits else number.to_bits(value, what)
        elif value is None:
            pattern = 0
        elif valtype == EXTERNREF:
            boxes.append(value if isinstance(value, VMExternRef) else VMExternRef(value))
            pattern = boxes[-1].as_raw()
        elif isinstance(value, FuncRef):
            pattern = value.as_raw()
            instance.function_keepers.add(value.instance)
        else:
            raise TypeError(f"{what} must be a Func or None (funcref), got {type(value).__name__}")
        patterns.append(pattern)
    if boxes:
        instance.activations_table.insert_all(
            [box.as_raw() for box in boxes], instance.stack_map_registry
        )
    return patterns, boxes


def from_pattern(valtype: int, pattern: int, bits: bool = False) -> Any:
    """Return the Python value of 64 bits that come out of compiled code."""
    number = _NUMBERS.get(valtype)
    if number is not None:
        pattern &= number.mask
        return pattern if bits else number.from_bits(pattern)
    if pattern == 0:
        return None
    return externref.value_of(pattern) if valtype == EXTERNREF else FuncRef.from_raw(pattern)
