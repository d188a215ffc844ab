"""The soak of ``soak.py``, in a process of its own; nothing may grow, leak, or be counted wrongly.

``ASM_LIBCALLS_SOAK_CALLS=10000000`` runs the full length.
"""

import json
import os

import pytest
from free_threading import frees_modules_and_classes

CALLS = int(os.environ.get("ASM_LIBCALLS_SOAK_CALLS") or 1_000_000)


@frees_modules_and_classes
@pytest.mark.usefixtures("machine_code")
def test_nothing_grows(child):
    pytest.importorskip("peachpy", reason="no assembler for native frames")
    done = child(f"import json, soak; print(json.dumps(soak.main({CALLS})))", timeout=1800)
    report = json.loads(done.stdout)
    assert done.stderr == ""
    assert report["calls"] >= CALLS
    # Everything happened, and each ending as often as every other.
    assert set(report["outcomes"]) == {
        "returns", "HeapOutOfBounds", "TableOutOfBounds", "IntegerDivisionByZero",
        "UnreachableCodeReached", "HostError", "LimiterError", "DestructorError",
    }  # fmt: skip
    assert min(report["outcomes"].values()) >= report["rounds"] // 8
    assert report["collections"] >= report["rounds"]
    # What is left is what was left after the warm-up, to the object.
    left, now = report["left after warm-up"], report["left"]
    assert now["things"] == left["things"] == 2  # those in the segment
    assert now["boxes"] == left["boxes"]
    assert now["segment counts"] == left["segment counts"] == 4
    assert now["activations"] == left["activations"] == 0
    assert now["objects"] - left["objects"] < 20  # fewer is no leak: caches of the warm-up go
    growth = report["resident KiB at the end"] - report["resident KiB after warm-up"]
    assert growth < 1024, report
