"""Conversion between Python objects and the slots in which compiled code has Wasm values.

A slot has 64 bits. An i32 or f32 is in the low half of its slot, a v128 in two slots, the lower
half first. An externref is any Python object, and None is null; a funcref is a
:class:`~asm_libcalls.toy_jit.runtime.functions.Func` or None.
"""

from __future__ import annotations

from asm_libcalls.owned.objects import is_a
from asm_libcalls.runtime import transit
from asm_libcalls.runtime.externref import VMExternRef
from asm_libcalls.runtime.funcref import FuncRef
from asm_libcalls.runtime.reference import from_raw
from asm_libcalls.runtime.store import link
from asm_libcalls.signatures import WASM_NUMBERS
from asm_libcalls.toy_jit.frontend.module import EXTERNREF, V128, VALUE_TYPE_NAMES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


NUMBERS = {
    valtype: WASM_NUMBERS[name]
    for valtype, name in VALUE_TYPE_NAMES.items()
    if name in WASM_NUMBERS
}


def slot_count(types: bytes) -> int:
    """Return the number of slots that values of these types take."""
    return len(types) + types.count(V128)


def to_slots(
    types: bytes,
    values: Sequence[Any],
    instance: Any,
    where: str | tuple[str, ...],
    bits: bool = False,
    returned: bool = False,
) -> tuple[list[int], list[VMExternRef]]:
    """Convert Python values to slots for compiled code; return these and the externrefs.

    The caller keeps the externrefs until compiled code has run. They are not put into the
    activations table: it would keep them until its next collection, and an object that refers to
    its instance, and passes itself to it, would not be freed.

    The values are numbers (with `bits`, their unsigned patterns), and the Python objects of
    references. `where` is the values' name in errors, to which the number is added if they are
    several; or the name of each. With `returned`, the running host function returns the slots to
    compiled code: they are in transit, and the externrefs need not be kept. `instance` keeps the
    functions alive, and its activations table the externrefs that are returned.
    """
    if isinstance(where, str):
        several = len(types) > 1
        where = tuple([f"{where} {i + 1}" if several else where for i in range(len(types))])
    slots = []
    boxes = []
    for valtype, value, what in zip(types, values, where, strict=True):
        number = NUMBERS.get(valtype)
        if number is not None:
            pattern = number.check_pattern(value, what) if bits else number.to_bits(value, what)
        elif value is None:
            pattern = 0
        elif valtype == EXTERNREF:
            # The user's own VMExternRef may be dropped meanwhile.
            boxes.append(
                VMExternRef._clone_of(value) if is_a(value, VMExternRef) else VMExternRef(value)
            )
            pattern = boxes[-1].as_raw()
        elif is_a(value, FuncRef):
            pattern = value.as_raw()
            keeper = value.instance
            link([instance, keeper])
            instance.function_keepers[id(keeper)] = keeper
        else:
            raise TypeError(f"{what} must be a Func or None (funcref), got {type(value).__name__}")
        slots.append(pattern & 0xFFFFFFFFFFFFFFFF)
        if valtype == V128:
            slots.append(pattern >> 64)
    if boxes and returned:
        transit.returns(slots)
        instance.activations_table.insert_all(
            [box.as_raw() for box in boxes], instance.stack_map_registry
        )
    return slots, boxes


def from_slots(types: bytes, slots: Sequence[int], bits: bool = False) -> tuple[Any, ...]:
    """Convert slots from compiled code to Python values."""
    if V128 not in types:  # `slots` may be longer than `types`
        return tuple(_from_pattern(t, slots[i], bits) for i, t in enumerate(types))
    values = []
    at = 0
    for valtype in types:
        pattern = slots[at]
        if valtype == V128:
            at += 1
            pattern |= slots[at] << 64
        at += 1
        values.append(_from_pattern(valtype, pattern, bits))
    return tuple(values)


def _from_pattern(valtype: int, pattern: int, bits: bool) -> Any:
    number = NUMBERS.get(valtype)
    if number is not None:
        pattern &= number.mask
        return pattern if bits else number.from_bits(pattern)
    return from_raw(VALUE_TYPE_NAMES[valtype], pattern)
