"""Python arguments of the libcalls that work on an instance: checked, and made bit patterns.

Native code is trusted with its vmctx and indices, as in C. Python is not: everything is checked
here, before any implementation sees it, so that no mistake is more than an exception. What a
parameter means follows from its name in THE TABLE.
"""

from __future__ import annotations

import operator

from asm_libcalls import externref
from asm_libcalls.externref import VMExternRef
from asm_libcalls.funcref import FuncRef
from asm_libcalls.instance import Instance, instance_of
from asm_libcalls.reference import check_raw

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from asm_libcalls.libcalls import Declaration

__all__ = ["to_patterns"]


def to_patterns(declaration: Declaration, arguments: Sequence[Any]) -> list[int]:
    """Check the arguments of a libcall and return their bit patterns.

    The count of the arguments has been checked. A vmctx is an Instance, or the address of a live
    one; a reference is None, a VMExternRef or FuncRef, or a raw pointer to a live one.

    Raises
    ------
    TypeError
        A wrong type, or a reference of another kind than the table's or global's.
    ValueError
        A closed instance, a dead pointer, or an index outside the instance's index space.
    OverflowError
        An integer that 32 bits can not hold.
    """
    patterns: list[int] = []
    instance: Instance | None = None
    reference_type = ""
    for value_type, parameter, argument in zip(
        declaration.signature.parameters, declaration.parameters, arguments, strict=True
    ):
        where = f"{declaration.name}(): argument {parameter!r}"
        if value_type.name == "vmctx":
            instance = _instance(argument, where)
            patterns.append(instance.vmctx)
        elif value_type.name == "reference":
            patterns.append(_reference(reference_type, argument, where))
        elif value_type.name == "externref":
            patterns.append(_externref(declaration.name, argument, where))
        elif parameter.endswith("_index"):
            assert instance is not None
            index = value_type.to_bits(argument, where)
            first, end, what = _index_space(declaration.name, parameter, instance)
            if not first <= index < end:
                there = f"{first} .. {end - 1}" if end > first else "there are none"
                raise ValueError(f"{where}: {what} {index} is not in the instance ({there})")
            patterns.append(index)
            if parameter == "table_index":
                reference_type = instance.tables[index].element_type
            if parameter == "global_index" and instance.globals[index].value_type != "externref":
                kind = instance.globals[index].value_type
                raise TypeError(f"{where}: global {index} is a {kind}, not an externref")
        else:
            patterns.append(value_type.to_bits(argument, where))
    if instance is not None:
        if instance.closed:  # by the __index__ of an argument
            raise ValueError(f"{declaration.name}(): argument 'vmctx': the Instance is closed")
        _check_open_parts(declaration, instance, patterns)
    return patterns


def _instance(argument: Any, where: str) -> Instance:
    if isinstance(argument, Instance):
        if argument.closed:
            raise ValueError(f"{where}: the Instance is closed")
        return argument
    try:
        address = operator.index(argument)
    except TypeError:
        raise TypeError(
            f"{where} must be an Instance or a vmctx address, got {type(argument).__name__}"
        ) from None
    try:
        return instance_of(address)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


_COUNTS: dict[str, tuple[str, Callable[[Instance], int]]] = {
    "table_index": ("table", lambda instance: len(instance.tables)),
    "memory_index": ("memory", lambda instance: len(instance.memories)),
    "global_index": ("global", lambda instance: len(instance.globals)),
    "data_index": ("data segment", lambda instance: len(instance.data)),
    "elem_index": ("element segment", lambda instance: len(instance.elements)),
}


def _index_space(name: str, parameter: str, instance: Instance) -> tuple[int, int, str]:
    imported = instance.offsets.num_imported_memories
    if parameter == "defined_memory_index":
        return 0, len(instance.memories) - imported, "defined memory"
    if name.startswith("imported_"):
        return 0, imported, "imported memory"
    what, count = _COUNTS[parameter.removeprefix("dst_").removeprefix("src_")]
    return 0, count(instance), what


def _check_open_parts(declaration: Declaration, instance: Instance, patterns: list[int]) -> None:
    for parameter, index in zip(declaration.parameters, patterns, strict=True):
        if parameter == "defined_memory_index":
            part: Any = instance.memories[instance.offsets.num_imported_memories + index]
        elif parameter.endswith("memory_index"):
            part = instance.memories[index]
        elif parameter.endswith("table_index"):
            part = instance.tables[index]
        elif parameter == "global_index":
            part = instance.globals[index]
        else:
            continue
        if part.closed:
            raise ValueError(
                f"{declaration.name}(): argument {parameter!r}: "
                f"{type(part).__name__} {index} is closed"
            )


def _reference(reference_type: str, argument: Any, where: str) -> int:
    if argument is None:
        return 0
    wanted: type[VMExternRef | FuncRef] = VMExternRef if reference_type == "externref" else FuncRef
    if isinstance(argument, wanted):
        return argument.as_raw()
    try:
        address = operator.index(argument)
    except TypeError:
        raise TypeError(
            f"{where} must be a {wanted.__name__}, a raw pointer or None (the table holds "
            f"{reference_type}), got {type(argument).__name__}"
        ) from None
    check_raw(reference_type, address, where)
    return address


def _externref(name: str, argument: Any, where: str) -> int:
    address = _reference("externref", argument, where)
    if address == 0 and name != "externref_global_set":
        raise ValueError(f"{where} must not be null")
    if name == "drop_externref":
        owners = externref.strong_count(address)
        if owners:
            raise ValueError(f"{where}: the externref at {address:#x} still has {owners} owners")
    return address
