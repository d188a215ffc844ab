"""The official WebAssembly spec tests, all assertions of all files that ``WASM_SPEC_TESTS`` has.

A test is a file. The outcome of each file is in a section of the summary, which shows a file whose
assertions were not made.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from spec_runner import SpecFile
from wasm_functions import NO_SPEC_TESTS, SPEC_TESTS, spec_files

pytestmark = [
    pytest.mark.skipif(SPEC_TESTS is None, reason=NO_SPEC_TESTS),
    pytest.mark.usefixtures("machine_code"),
]

FILES = {path.stem: path for path in spec_files()}


def test_there_are_files():
    for folder in SPEC_TESTS.split(os.pathsep):
        assert any(Path(folder).glob("*/*.json")), f"no NAME/NAME.json in {folder}"


@pytest.mark.parametrize("name", FILES)
def test_file(name, record_property):
    spec = SpecFile(FILES[name])
    failures = spec.run()
    report = f"{name}: {spec.assertions} assertions"
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
