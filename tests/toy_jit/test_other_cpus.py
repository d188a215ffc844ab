"""Code for CPUs with fewer features: the spec tests, compiled for them and run on this one."""

import json

import pytest
from child_process import run_python
from wasm_functions import NO_SPEC_TESTS, SPEC_TESTS

pytestmark = [
    pytest.mark.skipif(SPEC_TESTS is None, reason=NO_SPEC_TESTS),
    pytest.mark.usefixtures("machine_code"),
]

PROGRAM = """
import json, sys
from asm_libcalls.binding import default_binding

cpu = default_binding().x86_64.cpu
wanted = frozenset(sys.argv[1].split())
assert wanted < cpu.features, f"this CPU has {sorted(cpu.features)}"
cpu.features = wanted

from asm_libcalls import toy_jit
from asm_libcalls.toy_jit.codegen import templates
from spec_runner import SpecFile
from wasm_functions import spec_files

assert templates.THREE_OPERANDS == ("avx" in wanted)
assert ("i32.rotr.three" in templates.INSTRUCTIONS) == ("bmi2" in wanted)
module = toy_jit.Module
options = toy_jit.compile_options(inline=True)
toy_jit.Module = lambda binary: module(binary, options)
files = [SpecFile(path) for path in spec_files() if not path.stem.startswith("simd_")]
failures = [failure for file in files for failure in file.run()]
print(json.dumps([failures, sum(file.assertions for file in files)]))
"""


@pytest.mark.parametrize(
    "features", ["", "sse3 ssse3 sse4_1 sse4_2 popcnt", "sse4_1 avx lzcnt bmi"]
)
def test_specification(features):
    done = run_python("-c", PROGRAM, features)
    failures, assertions = json.loads(done.stdout)
    assert failures == []
    assert assertions > 1000
