"""Write ``__init__.pyi`` of ``asm_libcalls`` and of its second table: the names and their types.

    python tools/make_stubs.py            writes the files
    python tools/make_stubs.py --check    says whether they are up to date, by the exit code

The libcalls are made into attributes of the package from the table, where no type checker can see
them; so the stub is made from the table too. Every other public name comes from where it is
defined. A test makes the stub anew and compares.
"""

from __future__ import annotations

import argparse
import inspect
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import asm_libcalls
import asm_libcalls.llvm
from asm_libcalls.libcalls import Declaration
from asm_libcalls.signatures import ValueType

STUB = Path(asm_libcalls.__file__).with_suffix(".pyi")
LLVM_STUB = Path(asm_libcalls.llvm.__file__).with_suffix(".pyi")

# What no object says of itself: the types of the package's own variables, as the source has them.
VARIABLES = {"LIBCALLS": "dict[str, Libcall]", "__version__": "str"}

PACKAGES = ("llvm", "toy_jit", "ufuncs")
"""Public packages that are imported when first used."""

POINTERS = {
    "pointer": "Any",  # a writable buffer; before Python 3.12 that has no type
    "vmctx": "Instance | int",
    "reference": "VMExternRef | FuncRef | int | None",
    "externref": "VMExternRef | int",
}
"""What Python gives for a pointer: the object behind it, or its address."""

NULLABLE = {("externref_global_set", "externref")}
"""Parameters of type externref that may be null; a reference always may."""

HEADER = '''\
"""Types of the public names. Made by tools/make_stubs.py from the table: do not edit."""

# The parameters' names, the sentences and the order are the table's.
# ruff: noqa: A002, D401, RUF022
'''


def parameter_type(libcall: str, name: str, value_type: ValueType) -> str:
    """Return the Python type that a parameter takes."""
    if value_type.kind != "pointer":
        return "float" if value_type.kind == "float" else "int"
    return POINTERS[value_type.name] + (" | None" if (libcall, name) in NULLABLE else "")


def result_type(value_type: ValueType | None) -> str:
    """Return the Python type that a result has; an address is an int, null is 0."""
    if value_type is None:
        return "None"
    return "float" if value_type.kind == "float" else "int"


def libcall_lines(declaration: Declaration) -> Iterator[str]:
    """Yield the stub of a libcall, with its documentation for editors to show."""
    parameters = [
        f"{name}: {parameter_type(declaration.name, name, value_type)}"
        for name, value_type in zip(
            declaration.parameters, declaration.signature.parameters, strict=True
        )
    ]
    result = result_type(declaration.signature.result)
    line = f"def {declaration.name}({', '.join([*parameters, '/'])}) -> {result}:"
    if len(line) > 100:
        yield f"def {declaration.name}("
        inner = f"    {', '.join([*parameters, '/'])}"
        yield from [inner] if len(inner) <= 100 else [f"    {p}," for p in [*parameters, "/"]]
        yield f") -> {result}:"
    else:
        yield line
    yield f'    """{declaration.doc}"""'
    yield ""


def function_lines(name: str, function: Any) -> Iterator[str]:
    """Yield the stub of a function of the package's own."""
    signature = inspect.signature(function)
    # The annotations are strings (PEP 563), and inspect would quote them.
    unquoted = str(signature).replace("'", "")
    yield f"def {name}{unquoted}:"
    yield f'    """{(inspect.getdoc(function) or "").splitlines()[0]}"""'
    yield ""


def public_names(package: ModuleType) -> tuple[dict[str, list[str]], list[str]]:
    """Return what the package re-exports, by module, and the functions of its own."""
    imported: dict[str, list[str]] = {}
    own = []
    for name in package.__all__:
        value = getattr(package, name)
        if name in VARIABLES or name in package.LIBCALLS:
            continue
        if isinstance(value, ModuleType):
            imported.setdefault(package.__name__, []).append(name)
        elif getattr(value, "__module__", None) == package.__name__:
            own.append(name)
        elif isinstance(getattr(value, "__module__", None), str):
            imported.setdefault(value.__module__, []).append(name)
        else:
            raise SystemExit(f"{name} is a variable: say its type in VARIABLES of {__file__}")
    return imported, own


def make_stub() -> str:
    """Return the text of the stub."""
    imported, own = public_names(asm_libcalls)
    lines = [HEADER]
    lines += [f"from asm_libcalls import {name} as {name}" for name in PACKAGES]
    for module, names in sorted(imported.items()):
        # "X as X" is a stub's way to say that a name is public.
        lines += [f"from {module} import {name} as {name}" for name in sorted(names)]
    lines.append("")
    lines += [f"{name}: {type_name}" for name, type_name in VARIABLES.items()]
    lines.append("")
    for name in sorted(own):
        lines += function_lines(name, getattr(asm_libcalls, name))
    for libcall in asm_libcalls.LIBCALLS.values():
        lines += libcall_lines(libcall.declaration)
    return "\n".join([*lines, *all_lines(asm_libcalls)]) + "\n"


def make_llvm_stub() -> str:
    """Return the text of the second table's stub."""
    package = asm_libcalls.llvm
    header = HEADER.replace("A002, D401, ", "")
    lines = [header, "from typing import Any", "", "from asm_libcalls.libcall import Libcall", ""]
    lines += ["LIBCALLS: dict[str, Libcall]", "", *function_lines("symbols", package.symbols)]
    for libcall in package.LIBCALLS.values():
        lines += libcall_lines(libcall.declaration)
    return "\n".join([*lines, *all_lines(package)]) + "\n"


def all_lines(package: ModuleType) -> Iterator[str]:
    """Yield the list of a package's public names."""
    yield "__all__ = ["
    names = ", ".join(f'"{name}"' for name in package.__all__)
    yield from (f"    {line}" for line in textwrap.wrap(names + ",", 96))
    yield "]  # fmt: skip"


def main() -> int:
    """Write the stub, or compare it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    check = parser.parse_args().check
    stale = []
    for path, stub in ((STUB, make_stub()), (LLVM_STUB, make_llvm_stub())):
        if not check:
            path.write_text(stub, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != stub:
            stale.append(path)
    for path in stale:
        print(f"{path} is out of date: run python tools/make_stubs.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
