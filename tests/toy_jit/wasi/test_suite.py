"""The WASI test-suite's programs for preview 1, where ``WASI_TESTS`` has them.

It is the folder ``tests`` of github.com/WebAssembly/wasi-testsuite, branch prod/testsuite-base,
where the programs in C, Rust and AssemblyScript are compiled.
"""

import functools
import io
import json
import os
import shutil
from pathlib import Path

import pytest

from asm_libcalls import Trap, toy_jit
from asm_libcalls.toy_jit.wasi import Preview1

SUITE = os.environ.get("WASI_TESTS")
PROGRAMS = sorted(Path(SUITE).glob("*/testsuite/wasm32-wasip1/*.wasm")) if SUITE else []

pytestmark = [
    pytest.mark.skipif(
        SUITE is None,
        reason="set WASI_TESTS to the folder tests of github.com/WebAssembly/wasi-testsuite, "
        "branch prod/testsuite-base",
    ),
    pytest.mark.usefixtures("machine_code", "resolver"),
]


@functools.cache
def compiled(path):
    return toy_jit.Module.from_file(path)


def test_there_are_programs():
    languages = {path.parts[-4] for path in PROGRAMS}
    assert languages == {"assemblyscript", "c", "rust"}, f"in WASI_TESTS={SUITE}"


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: f"{path.parts[-4]}-{path.stem}")
def test_program(path, tmp_path):
    specification = path.with_suffix(".json")
    wanted = json.loads(specification.read_text()) if specification.exists() else {}
    preopens = {}
    if root := wanted.get("root"):
        shutil.copytree(path.parent / root, tmp_path / "root")
        preopens["/"] = tmp_path / "root"
    out, err = io.BytesIO(), io.BytesIO()
    with Preview1(
        args=[path.name, *wanted.get("args", ())],
        env=wanted.get("env", {}),
        stdout=out,
        stderr=err,
        preopens=preopens,
    ) as wasi:
        try:
            code = wasi.start(toy_jit.Instance(compiled(path), wasi))
        except Trap as error:
            pytest.fail(f"{error}\n{err.getvalue().decode()}")
    assert code == wanted.get("exit_code", 0), err.getvalue().decode()
    if "stdout" in wanted:
        assert out.getvalue().decode() == wanted["stdout"]
    if "stderr" in wanted:
        assert err.getvalue().decode() == wanted["stderr"]
