"""The stress program runs for a while, and leaves nothing behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "tools" / "stress.py"
SECONDS = float(os.environ.get("ASM_LIBCALLS_STRESS_SECONDS", "20"))


@pytest.mark.parametrize(("memory", "words"), [("plain", []), ("plain", ["raise"]), ("debug", [])])
def test_a_while(memory, words):
    if not PROGRAM.exists():
        pytest.skip("tools/ is not here")
    environment = dict(os.environ)
    options = []
    if memory == "debug":
        environment["PYTHONMALLOC"] = "debug"
        options = ["-X", "dev"]
    done = subprocess.run(
        [sys.executable, *options, "-X", "faulthandler", str(PROGRAM), str(SECONDS), *words],
        capture_output=True, text=True, check=False, env=environment, timeout=SECONDS + 300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "in the middle of another one" in done.stdout
