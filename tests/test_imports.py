"""Imports run as docs/architecture.md says: downwards, but for what asks the default binding."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import asm_libcalls

PACKAGE = Path(asm_libcalls.__file__).resolve().parent
BINDING = "asm_libcalls.binding"


def module_names() -> dict[str, Path]:
    names = {}
    for path in PACKAGE.rglob("*.py"):
        parts = ("asm_libcalls", *path.relative_to(PACKAGE).with_suffix("").parts)
        names[".".join(parts).removesuffix(".__init__")] = path
    return names


def imported(node: ast.AST, modules: dict[str, Path], in_functions: bool) -> Iterator[str]:
    """Yield the package's modules that are imported below a node, types apart."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            for alias in child.names:
                whole = f"{child.module}.{alias.name}"
                yield from {whole if whole in modules else child.module or ""} & modules.keys()
        elif isinstance(child, ast.Import):
            yield from {alias.name for alias in child.names} & modules.keys()
        elif isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        elif in_functions or not isinstance(child, (ast.FunctionDef, ast.Lambda)):
            yield from imported(child, modules, in_functions)


def imports(in_functions: bool) -> dict[str, set[str]]:
    modules = module_names()
    assert len(modules) > 100
    return {
        name: set(imported(ast.parse(path.read_text("utf-8")), modules, in_functions)) - {name}
        for name, path in modules.items()
    }


def test_imports_at_the_top_of_modules_make_no_circle():
    order = list(graphlib.TopologicalSorter(imports(in_functions=False)).static_order())
    assert order.index("asm_libcalls.libcalls") < order.index(BINDING)
    assert order.index(BINDING) < order.index("asm_libcalls.toy_jit.instance")


def test_imports_in_functions_make_circles_through_the_binding_alone():
    everything = imports(in_functions=True)
    with pytest.raises(graphlib.CycleError):  # there is one: this test would notice a circle
        graphlib.TopologicalSorter(everything).prepare()
    without = {name: found - {BINDING} for name, found in everything.items()}
    graphlib.TopologicalSorter(without).prepare()
