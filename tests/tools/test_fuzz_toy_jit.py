"""Random and damaged modules: they are refused, or run as Wasmtime runs them; nothing crashes.

These are a few hundred; ``tools/fuzz_toy_jit.py`` tries any number.
"""

import os
import random
import textwrap
from pathlib import Path

import pytest
import wasm_builder
from child_process import environment

import fuzz_toy_jit
import random_modules
from asm_libcalls import toy_jit
from fuzz_toy_jit import Fuzzer, run_batches
from module_runs import first_difference
from toy_jit_run import ToyJitRun
from wasmtime_run import WasmtimeRun

pytestmark = pytest.mark.usefixtures("machine_code")

MODULES = 300
TOOLS = Path(fuzz_toy_jit.__file__).resolve().parent


@pytest.fixture(autouse=True)
def children_find_what_we_test(monkeypatch):
    paths = environment()["PYTHONPATH"]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([paths, str(TOOLS)]))


def test_nothing_breaks(random_cases):
    seed = random_cases.getrandbits(32)
    findings, outcomes = run_batches(seed, 0, MODULES)
    assert not findings, f"python tools/fuzz_toy_jit.py --seed {seed} --modules {MODULES}"
    # Many ran, many were refused, and most calls ended.
    assert outcomes["ran"] > MODULES / 4
    assert outcomes["refused"] > MODULES / 6
    assert outcomes["calls"] > MODULES
    assert outcomes["calls that end in a trap or a host error"] < outcomes["calls"] / 2


def test_runs_are_compared_with_wasmtime(random_cases):
    pytest.importorskip("wasmtime", reason="compares with Wasmtime's own results")
    _, outcomes = run_batches(random_cases.getrandbits(32), 0, 40)
    assert outcomes["compared"] > 10


def test_a_seed_and_a_number_are_a_module():
    modules = [Fuzzer(7, fuzz_toy_jit.real_modules()).module(number) for number in range(20)]
    again = Fuzzer(7, fuzz_toy_jit.real_modules())
    assert [again.module(number) for number in range(20)] == modules
    assert len(set(modules)) == 20
    assert Fuzzer(8, fuzz_toy_jit.real_modules()).module(3) != modules[3]


def test_random_modules_are_valid_and_have_everything():
    seen = set()
    for seed in range(150):
        module = toy_jit.Module(random_modules.make(random.Random(seed)))
        for entry in module.decoded.imports:
            seen.add(f"import {entry.kind}")
        seen.update(f"export {entry.kind}" for entry in module.decoded.exports)
        seen.update(f"{element.mode} elements" for element in module.decoded.elements)
        seen.update(f"{data.mode} data" for data in module.decoded.data)
        seen.add("start" if module.decoded.start is not None else "no start")
        seen.update(f"{len(f.type.results)} results" for f in module.decoded.functions)
    kinds = {"func", "table", "memory", "global"}
    assert seen >= {f"{what} {kind}" for what in ("import", "export") for kind in kinds}
    assert seen >= {"passive elements", "active elements", "declarative elements", "start"}
    assert seen >= {"passive data", "active data", "0 results", "1 results", "2 results"}


def test_a_wrong_result_is_seen():
    """Were i32.add compiled as i32.sub, this is what would come of it."""
    wasmtime = pytest.importorskip("wasmtime", reason="compares with Wasmtime's own results")
    add, subtract = (
        wasm_builder.module(
            types=[wasm_builder.functype([wasm_builder.I32] * 2, [wasm_builder.I32])],
            functions=[0],
            exports=[wasm_builder.exported("f", 0, 0)],
            code=[wasm_builder.body(b"\x20\x00\x20\x01" + operation)],
        )
        for operation in (b"\x6a", b"\x6b")
    )
    runs = []
    for ours, theirs in ((add, add), (subtract, add)):
        module = toy_jit.Module(ours)
        pair = ToyJitRun(module, ours, "1"), WasmtimeRun(wasmtime, module.decoded, theirs, "1")
        for run in pair:
            run.run()
        runs.append(first_difference(*pair))
    assert runs[0] == ""
    assert runs[1].startswith("note 1: ('f', [")  # behind note 0: instantiated


PROGRAM = """
    import os
    import sys
    import time

    import fuzz_toy_jit

    def examine(self, number):
        if number == 3:
            os.abort()
        if number == 5:
            raise KeyError("five")
        if number == 7:
            time.sleep(60)
        self.outcomes["examined"] += 1
        return "too odd" if number == 8 else ""

    fuzz_toy_jit.Fuzzer.examine = examine
    sys.exit(fuzz_toy_jit.main())
"""


def test_whatever_happens_to_a_child_is_a_finding(monkeypatch, tmp_path, capsys):
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    monkeypatch.setattr(fuzz_toy_jit, "PROGRAM", program)
    monkeypatch.setattr(fuzz_toy_jit, "SLOW", 3.0)
    kept = tmp_path / "kept"
    code = fuzz_toy_jit.main(["--modules", "10", "--jobs", "2", "--keep", str(kept)])
    said = capsys.readouterr().out
    assert code == 1
    assert "module 3: the process ended with -6" in said
    assert "Fatal Python error: Aborted" in said
    assert "module 5: KeyError: 'five'" in said
    assert "module 7: the process was silent for too long" in said
    assert "module 8: too odd" in said
    assert "4 findings" in said
    assert sorted(path.name for path in kept.iterdir()) == [f"0-{n}.wasm" for n in (3, 5, 7, 8)]
    monkeypatch.undo()
    assert fuzz_toy_jit.main(["--modules", "4"]) == 0
    assert "0 findings" in capsys.readouterr().out
