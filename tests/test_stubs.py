"""The type stub: made from the table, and true of the package."""

from __future__ import annotations

import ast
import inspect
import sys
from pathlib import Path

import pytest
from child_process import environment, run_python

import asm_libcalls
import make_stubs
from asm_libcalls import LIBCALLS

STUB = make_stubs.STUB.read_text(encoding="utf-8")
TREE = ast.parse(STUB)
FUNCTIONS = {node.name: node for node in TREE.body if isinstance(node, ast.FunctionDef)}


def test_the_stub_is_up_to_date() -> None:
    assert make_stubs.make_stub() == STUB, "run python tools/make_stubs.py"
    llvm = make_stubs.LLVM_STUB.read_text(encoding="utf-8")
    assert make_stubs.make_llvm_stub() == llvm, "run python tools/make_stubs.py"


def test_check_says_by_its_exit_code_whether_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["make_stubs.py", "--check"])
    assert make_stubs.main() == 0
    monkeypatch.setattr(make_stubs, "STUB", tmp_path / "__init__.pyi")
    assert make_stubs.main() == 1
    assert "run python tools/make_stubs.py" in capsys.readouterr().err
    assert not make_stubs.STUB.exists()
    monkeypatch.setattr(sys, "argv", ["make_stubs.py"])
    assert make_stubs.main() == 0
    assert make_stubs.STUB.read_text() == STUB


def test_the_stub_has_exactly_the_public_names() -> None:
    declared = set(FUNCTIONS)
    for node in TREE.body:
        if isinstance(node, ast.ImportFrom):
            declared |= {alias.asname or "" for alias in node.names}
        elif isinstance(node, ast.AnnAssign):
            assert isinstance(node.target, ast.Name)
            declared.add(node.target.id)
    assert declared == set(dir(asm_libcalls))
    (assignment,) = (node for node in TREE.body if isinstance(node, ast.Assign))
    assert ast.literal_eval(assignment.value) == asm_libcalls.__all__
    assert set(dir(asm_libcalls)) == {*asm_libcalls.__all__, "llvm", "toy_jit", "ufuncs"}


@pytest.mark.parametrize("name", LIBCALLS)
def test_each_libcall_has_the_types_of_its_signature(name: str) -> None:
    libcall, node = LIBCALLS[name], FUNCTIONS[name]
    assert not node.args.args  # all positional, as the callable takes them
    assert [a.arg for a in node.args.posonlyargs] == list(libcall.declaration.parameters)
    result = libcall.signature.result
    kinds = {"integer": "int", "float": "float", "pointer": "int"}
    assert node.returns is not None
    assert ast.unparse(node.returns) == ("None" if result is None else kinds[result.kind])
    for argument, value_type in zip(
        node.args.posonlyargs, libcall.signature.parameters, strict=True
    ):
        assert argument.annotation is not None
        types = ast.unparse(argument.annotation).split(" | ")
        assert kinds[value_type.kind] in types
        assert (value_type.kind == "pointer") is (len(types) > 1)
    assert ast.get_docstring(node) == libcall.doc


def test_the_package_s_own_functions_have_the_types_of_their_source() -> None:
    own = set(FUNCTIONS) - set(LIBCALLS)
    assert {"symbols", "runtime_symbols", "backend_report"} <= own
    for name in own:
        signature = inspect.signature(getattr(asm_libcalls, name))
        returns = FUNCTIONS[name].returns
        assert returns is not None
        assert ast.unparse(returns) == signature.return_annotation


def test_a_variable_needs_its_type_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asm_libcalls, "NEW", 1, raising=False)
    monkeypatch.setattr(asm_libcalls, "__all__", [*asm_libcalls.__all__, "NEW"])
    with pytest.raises(SystemExit, match="NEW is a variable: say its type in VARIABLES"):
        make_stubs.make_stub()


USER = """
import asm_libcalls
from asm_libcalls import LIBCALLS, Instance, Memory, f32_ceil, symbols

quotient: int = asm_libcalls.i64_sdiv(-7, 2)
up: float = f32_ceil(1.5)
up = f32_ceil(2)
quotient = asm_libcalls.llvm.divti3(-(2**100), 7)
up = asm_libcalls.llvm.floattidf(quotient)
address: int = LIBCALLS["f64_ceil"].address + symbols()["wasmtime_f64_ceil"]
asm_libcalls.memory_fill(Instance(memories=[Memory(1)]), 0, 0, 0, 0)
"""

MISTAKES = """
import asm_libcalls

asm_libcalls.f64_ceil("1.5")
asm_libcalls.f64_ceil(x=1.5)
asm_libcalls.i64_sdiv(1)
asm_libcalls.i64_sdiv(1, 0.5)
asm_libcalls.f64_cell(1.5)
asm_libcalls.llvm.divti3(1.5, 2)
"""


def test_a_type_checker_takes_what_is_right_and_finds_what_is_not(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="the type checker, of the extra lint")
    (tmp_path / "user.py").write_text(USER)
    (tmp_path / "mistakes.py").write_text(MISTAKES)
    done = run_python(
        *("-m", "mypy", "--strict", "--follow-imports=silent", "--cache-dir", tmp_path / "cache"),
        *("user.py", "mistakes.py"),
        folder=tmp_path,
        variables={"MYPYPATH": environment()["PYTHONPATH"]},
        exit_status=1,
    )
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    lines = [number for number, line in enumerate(MISTAKES.splitlines(), 1) if "(" in line]
    assert [int(error.split(":")[1]) for error in errors if error.startswith("mistakes")] == lines
    assert [error for error in errors if error.startswith("user")] == []


def test_the_installed_version_is_the_package_s() -> None:
    """One version: a literal in the package, which pyproject.toml takes from there."""
    import re

    root = Path(asm_libcalls.__file__).parent
    (literal,) = re.findall(r'^__version__ = "(.+)"$', (root / "__init__.py").read_text(), re.M)
    assert literal == asm_libcalls.__version__
    project = (root.parent / "pyproject.toml").read_text()
    static = re.findall(r'^version = "(.+)"', project, re.M)
    assert static in ([], [literal])
    assert static or 'version = { attr = "asm_libcalls.__version__" }' in project
