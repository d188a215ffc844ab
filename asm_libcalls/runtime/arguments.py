"""Checks Python arguments of libcalls on an instance, and converts them to bit patterns.

Arguments of native callers are not checked, as in C. Arguments from Python are all checked here,
before any implementation gets them, so every mistake is an exception. The meaning of a parameter is
its kind in the table, :mod:`asm_libcalls.libcalls`.
"""

from __future__ import annotations

import operator

from asm_libcalls.owned.objects import is_a
from asm_libcalls.runtime import externref_boxes
from asm_libcalls.runtime.definition import Defined
from asm_libcalls.runtime.externref import VMExternRef
from asm_libcalls.runtime.funcref import FuncRef
from asm_libcalls.runtime.global_ import Global
from asm_libcalls.runtime.instance import Instance, instance_of
from asm_libcalls.runtime.memory import Memory
from asm_libcalls.runtime.reference import check_raw
from asm_libcalls.runtime.table import Table
from asm_libcalls.signatures.arguments import counted, type_shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from asm_libcalls.libcalls import Declaration
    from asm_libcalls.signatures import ValueType


def to_patterns(
    declaration: Declaration, arguments: Sequence[Any]
) -> tuple[list[int], list[object]]:
    """Check the arguments of a libcall; return their bit patterns, and objects to keep alive.

    The caller keeps the objects until the call has ended: other threads may drop or close the
    instance or its memories meanwhile. It has checked the count of the arguments. A vmctx is given
    as an Instance or an address, a reference as None, a VMExternRef, a FuncRef or a raw pointer.

    Raise TypeError for a wrong type, or a reference of another kind than the table's or global's;
    ValueError for a closed instance, a dangling pointer, or an index outside the instance's index
    space; OverflowError for an integer that 32 bits cannot hold.
    """
    patterns: list[int] = []
    kept: list[object] = []
    parts: list[tuple[str, int, Any]] = []
    instance: Instance | None = None
    reference_type = ""
    for (value_type, kind, where, space), argument in zip(
        _plan(declaration), arguments, strict=True
    ):
        if not value_type.is_runtime:
            pattern = value_type.to_bits(argument, where)
            patterns.append(pattern)
            if space is not None:
                assert instance is not None
                part = _part(instance, space, pattern, where)
                parts.append((where, pattern, part))
                if is_a(part, Table):
                    reference_type = part.element_type
        elif value_type.name == "vmctx":
            instance = _instance(argument, where)
            kept.append(instance)
            patterns.append(instance.vmctx)
        elif value_type.name == "externref":
            patterns.append(_externref(kind, argument, where))
        else:
            of_table = value_type.name == "reference"
            held, why = (reference_type, "the table holds ") if of_table else ("funcref", "")
            patterns.append(_reference(held, argument, where, why))
    if instance is not None:
        if instance.closed:  # an argument's __index__ may have closed it
            raise ValueError(f"{declaration.name}(): argument 'vmctx': the Instance is closed")
        for where, index, part in parts:
            if is_a(part, Defined):
                if part.closed:
                    raise ValueError(f"{where}: {type(part).__name__} {index} is closed")
                if is_a(part, Memory):
                    kept.append(part.reservation)
    return patterns, kept


def instance_in(arguments: Sequence[Any]) -> Instance | None:
    """Return the instance of a libcall's first argument, an Instance or a vmctx; else None."""
    first = arguments[0] if arguments else None
    if is_a(first, Instance):
        return first
    try:
        return instance_of(first) if type(first) is int else None
    except ValueError:
        return None


def _part(instance: Instance, space: _Space, index: int, where: str) -> Any:
    what, those_of = space
    there_are = those_of(instance)
    if index >= len(there_are):
        _check_open(instance, where)  # an argument's __index__ may have closed it: it is empty then
        there = f"0 .. {len(there_are) - 1}" if there_are else "there are none"
        raise ValueError(f"{where}: {what} {index} is not in the instance ({there})")
    part = there_are[index]
    if is_a(part, Global) and part.value_type != "externref":
        raise TypeError(f"{where}: global {index} has type {part.value_type}, not externref")
    return part


def _check_open(instance: Instance, where: str) -> None:
    if instance.closed:
        raise ValueError(f"{where}: the Instance is closed")


def _instance(argument: Any, where: str) -> Instance:
    if is_a(argument, Instance):
        instance: Instance = argument
        _check_open(instance, where)
        return instance
    try:
        address = operator.index(argument)
    except TypeError:
        raise TypeError(
            f"{where} must be an asm_libcalls.Instance or a vmctx address, "
            f"got {type_shown(argument, Instance)}"
        ) from None
    try:
        return instance_of(address)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _defined_memories(instance: Instance) -> Sequence[Any]:
    return instance.memories[instance.offsets.num_imported_memories :]


def _imported_memories(instance: Instance) -> Sequence[Any]:
    return instance.memories[: instance.offsets.num_imported_memories]


if TYPE_CHECKING:
    _Space = tuple[str, Callable[[Instance], Sequence[Any]]]

# For each kind of parameter, the name of its index space, and the objects there.
_SPACES: dict[str, _Space] = {
    "defined_memory": ("defined memory", _defined_memories),
    "imported_memory": ("imported memory", _imported_memories),
    "memory": ("memory", lambda instance: instance.memories),
    "table": ("table", lambda instance: instance.tables),
    "externref_global": ("global", lambda instance: instance.globals),
    "data": ("data segment", lambda instance: instance.data),
    "element": ("element segment", lambda instance: instance.elements),
}

_Step = tuple["ValueType", str, str, "_Space | None"]
_plans: dict[str, list[_Step]] = {}


def _plan(declaration: Declaration) -> list[_Step]:
    """Return each parameter's type, kind, name in errors and index space; cached."""
    plan = _plans.get(declaration.symbol)
    if plan is None:
        plan = [
            (value_type, kind, f"{declaration.name}(): argument {name!r}", _SPACES.get(kind))
            for value_type, kind, name in zip(
                declaration.signature.parameters,
                declaration.parameter_kinds,
                declaration.parameters,
                strict=True,
            )
        ]
        _plans[declaration.symbol] = plan  # complete: other threads read it
    return plan


def _reference(reference_type: str, argument: Any, where: str, why: str = "") -> int:
    if argument is None:
        return 0
    wanted: type[VMExternRef | FuncRef] = VMExternRef if reference_type == "externref" else FuncRef
    if is_a(argument, wanted):
        address: int = wanted.as_raw(argument)
        return address
    try:
        address = operator.index(argument)
    except TypeError:
        raise TypeError(
            f"{where} must be a {wanted.__name__}, a raw pointer or None ({why}{reference_type}), "
            f"got {type(argument).__name__}"
        ) from None
    check_raw(reference_type, address, where)
    return address


def _externref(kind: str, argument: Any, where: str) -> int:
    address = _reference("externref", argument, where)
    if address == 0 and kind != "nullable":
        raise ValueError(f"{where} must not be null")
    if kind == "unowned":
        owners = externref_boxes.strong_count(address)
        if owners:
            raise ValueError(
                f"{where}: the externref at {address:#x} still has {counted(owners, 'owner')}"
            )
    return address
