"""Import matching: check given objects against the imports that a module declares."""

from __future__ import annotations

from asm_libcalls.runtime.funcref import FuncRef
from asm_libcalls.runtime.global_ import Global
from asm_libcalls.runtime.memory import Memory
from asm_libcalls.runtime.table import Table
from asm_libcalls.signatures.arguments import describe, printable
from asm_libcalls.toy_jit.codegen.layout import type_id
from asm_libcalls.toy_jit.errors import LinkError
from asm_libcalls.toy_jit.frontend.external_types import import_type
from asm_libcalls.toy_jit.frontend.module import VALUE_TYPE_NAMES
from asm_libcalls.toy_jit.runtime.host_functions import HostInstance

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from asm_libcalls.toy_jit.frontend import module as decoded_module


WASI = "wasi_snapshot_preview1"
"""The module name of WASI preview 1's imports."""

_SHOWN = 50
"""The most missing imports that a message lists; a module of a few bytes can have very many."""

_KINDS: dict[str, type[Any]] = {"func": FuncRef, "table": Table, "memory": Memory, "global": Global}


def match_imports(
    decoded: decoded_module.Module, given: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, list[Any]], HostInstance | None]:
    """Look up the imports of a module in a mapping, and check their types.

    Return the imports of each kind, in their order, and the instance of those that are Python
    callables.
    """
    _check_mapping(given, "imports")
    for module in {entry.module for entry in decoded.imports if entry.module in given}:
        _check_mapping(given[module], f"imports[{module!r}]")
    _check_missing(decoded, given)
    imports: dict[str, list[Any]] = {kind: [] for kind in _KINDS}
    host: dict[int, tuple[Any, Any, str]] = {}
    for entry in decoded.imports:
        name = printable(f"{entry.module}.{entry.name}")
        value = given[entry.module][entry.name]
        if entry.kind == "func" and callable(value) and not isinstance(value, FuncRef):
            own = getattr(value, "wasm_type", None)  # most Python functions declare no type
            if own is not None and own != entry.type:
                raise LinkError(
                    f"incompatible import type for {name}: expected {entry.type!r}, got {own!r}"
                )
            host[len(imports["func"])] = (value, entry.type, name)
        elif problem := _mismatch(entry, value, name):
            raise LinkError(f"incompatible import type for {name}: {problem}")
        imports[entry.kind].append(value)
    if not host:
        return imports, None
    instance = HostInstance([*host.values()])
    for place, func in zip(host, instance.functions, strict=True):
        imports["func"][place] = func
    return imports, instance


def _check_mapping(given: Any, what: str) -> None:
    if not hasattr(type(given), "keys"):
        raise TypeError(f"Instance(): {what} must be a mapping, got {describe(given)}")


def _check_missing(decoded: decoded_module.Module, given: Mapping[str, Mapping[str, Any]]) -> None:
    missing = []
    for entry in decoded.imports:
        try:
            given[entry.module][entry.name]
        except (KeyError, TypeError):
            missing.append(import_type(entry))
    if not missing:
        return
    different = list(dict.fromkeys(missing))
    lines = [
        line if len(line) <= 500 else f"{line[:500]}..." for line in map(str, different[:_SHOWN])
    ]
    if len(different) > _SHOWN:
        lines.append(f"and {len(different) - _SHOWN} more")
    if len(lines) == 1:
        what = f"unknown import {lines[0]}"
    else:
        what = "\n  ".join([f"{len(different)} unknown imports:", *lines])
    if any(each.module == WASI for each in missing):
        what += f"\nasm_libcalls.toy_jit.wasi.Preview1() gives {WASI}"
    error = LinkError(what)
    error.missing = tuple(missing)
    raise error


def _mismatch(entry: decoded_module.Import, value: Any, name: str) -> str:
    """Say why a value cannot be imported, or return "" (2.0, 3.2 and 4.5.2: import matching)."""
    wanted: Any = entry.type
    if not isinstance(value, _KINDS[entry.kind]):
        expected = "function" if entry.kind == "func" else entry.kind
        return f"expected a {expected}, got {type(value).__name__}"
    owner = value.instance if entry.kind == "func" else value
    if owner.closed:
        of = "is of a closed Instance" if entry.kind == "func" else "is closed"
        raise ValueError(f"Instance(): the import {name} {of}")
    if entry.kind == "func":
        if value.type_index != type_id(wanted):
            return f"expected {wanted!r}, got {value!r}"
    elif entry.kind == "global":
        if (value.value_type, value.mutable) != (VALUE_TYPE_NAMES[wanted.value], wanted.mutable):
            mutable = "mutable" if wanted.mutable else "constant"
            name = VALUE_TYPE_NAMES[wanted.value]
            return f"expected a {mutable} global of {name}, got {value!r}"
    else:
        limits = wanted
        if entry.kind == "table":
            limits = wanted.limits
            if value.element_type != VALUE_TYPE_NAMES[wanted.element]:
                return f"expected a table of {VALUE_TYPE_NAMES[wanted.element]}, got {value!r}"
        size = len(value) if entry.kind == "table" else value.size
        if size < limits.minimum:
            return f"expected at least {limits.minimum}, got {value!r}"
        if limits.maximum is not None and (value.maximum is None or value.maximum > limits.maximum):
            return f"expected a maximum of at most {limits.maximum}, got {value!r}"
    return ""
