"""Imports run in one direction: modules, and the folders that they are in."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import asm_libcalls

PACKAGE = Path(asm_libcalls.__file__).resolve().parent


def module_names() -> dict[str, Path]:
    names = {}
    for path in PACKAGE.rglob("*.py"):
        parts = ("asm_libcalls", *path.relative_to(PACKAGE).with_suffix("").parts)
        names[".".join(parts).removesuffix(".__init__")] = path
    return names


MODULES = module_names()


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imported(node: ast.AST, types: bool) -> Iterator[str]:
    """Yield the package's modules that are imported below a node, in functions too."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            for alias in child.names:
                whole = f"{child.module}.{alias.name}"
                yield from {whole if whole in MODULES else child.module or ""} & MODULES.keys()
        elif isinstance(child, ast.Import):
            yield from {alias.name for alias in child.names} & MODULES.keys()
        elif types or not is_for_types(child):
            yield from imported(child, types)


def imports(types: bool) -> dict[str, set[str]]:
    assert len(MODULES) > 100
    graph = {}
    for name, path in MODULES.items():
        found = set(imported(ast.parse(path.read_text("utf-8")), types)) - {name}
        # A package imports its modules; a module's import of its own package is not counted.
        graph[name] = {other for other in found if not name.startswith(f"{other}.")}
    return graph


def circle(graph: dict[str, set[str]]) -> str:
    """Return a circle of the graph as a text, "" where it has none."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return " <- ".join(error.args[1])
    return ""


def test_this_notices_a_circle():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})


@pytest.mark.parametrize("types", [False, True], ids=["at run time", "for types too"])
def test_no_circle_of_modules(types):
    assert circle(imports(types)) == ""


ORDER = [
    "steps",
    "owned",
    "signatures",
    "trap_codes",
    "traps",
    "libcalls",
    "calling_convention",
    "vmcontext",
    "activation",
    "emitter",
    "x86_64",
    "native",
    "runtime",
    "fallback",
    "libcall",
    "functions",
    "binding",
    "report",
    "ufuncs",
    "checks",
    "llvm",
    "toy_jit",
    "integrations",
    "output",
    "benchmark",
    "cli",
    "__main__",
]
"""The modules and folders directly in the package; each may import those before it."""


def level(module: str) -> int:
    return ORDER.index(module.split(".")[1])


@pytest.mark.parametrize("types", [False, True], ids=["at run time", "for types too"])
def test_folders_import_those_before_them_alone(types):
    upwards = [
        f"{name} imports {other}"
        for name, found in imports(types).items()
        for other in found - {"asm_libcalls"}
        if name != "asm_libcalls" and level(other) > level(name)
    ]
    assert upwards == []


def test_few_modules_stand_directly_in_the_package():
    assert len(list(PACKAGE.glob("*.py"))) <= 16
