"""The stress program runs for a while, and leaves nothing behind."""

import os
from pathlib import Path

import pytest
from child_process import run_python

PROGRAM = Path(__file__).resolve().parents[2] / "tools" / "stress.py"
SECONDS = float(os.environ.get("ASM_LIBCALLS_STRESS_SECONDS", "20"))


@pytest.mark.parametrize(("memory", "words"), [("plain", []), ("plain", ["raise"]), ("debug", [])])
def test_a_while(memory, words):
    if not PROGRAM.exists():
        pytest.skip("tools/ is not here")
    options, variables = [], {}
    if memory == "debug":
        options, variables = ["-X", "dev"], {"PYTHONMALLOC": "debug"}
    done = run_python(
        *(*options, "-X", "faulthandler", PROGRAM, SECONDS, *words),
        variables=variables,
        timeout=SECONDS + 300,
    )
    assert "in the middle of another one" in done.stdout
