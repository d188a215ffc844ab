"""The official WebAssembly spec tests, all assertions of all files that ``WASM_SPEC_TESTS`` has.

A test is a file. The outcome of each file is in a section of the summary, which shows a file whose
assertions were not made.
"""

import json
import os
from pathlib import Path

import pytest
from deserialized_modules import replace_modules
from spec_runner import SpecFile
from wasm_functions import NO_SPEC_TESTS, SPEC_TESTS, spec_files

pytestmark = [
    pytest.mark.skipif(SPEC_TESTS is None, reason=NO_SPEC_TESTS),
    pytest.mark.usefixtures("machine_code"),
]

FILES = {path.stem: path for path in spec_files()}
# Of each thing that a module has one file. With ASM_LIBCALLS_TEST_SERIALIZED all tests are such.
SERIALIZED = [
    name
    for name in (
        "bulk", "call_indirect", "data", "elem", "exports", "float_exprs", "func_ptrs", "globals",
        "imports", "linking", "memory_grow", "ref_func", "simd_const", "simd_lane", "start",
        "table_copy", "table_grow", "traps",
    )
    if name in FILES
]  # fmt: skip


def test_there_are_files():
    for folder in SPEC_TESTS.split(os.pathsep):
        assert any(Path(folder).glob("*/*.json")), f"no NAME/NAME.json in {folder}"


@pytest.mark.parametrize("name", FILES)
def test_file(name, record_property):
    check(name, name, record_property)


@pytest.mark.parametrize("name", SERIALIZED)
def test_file_with_deserialized_modules(name, record_property, monkeypatch):
    replace_modules(monkeypatch)
    check(name, f"{name}, serialized and deserialized", record_property)


def check(name, title, record_property):
    spec = SpecFile(FILES[name])
    failures = spec.run()
    report = f"{title}: {spec.assertions} assertions"
    if spec.malformed_text:
        report += f", and {spec.malformed_text} of malformed text are left out"
    if failures:
        report += f", {len(failures)} failures"
    record_property("spec", report)
    assert not failures, "\n".join(failures)


def test_every_command_is_known():
    kinds = {
        command["type"]
        for path in FILES.values()
        for command in json.loads(path.read_text())["commands"]
    }
    assert not [kind for kind in kinds if not hasattr(SpecFile, kind)]
