"""The soak of ``soak_process.py``, a few laps of it, in a process of its own."""

import json

import pytest
from child_process import PACKAGE_HOME, TESTS, run_python
from free_threading import frees_modules_and_classes


@frees_modules_and_classes
@pytest.mark.usefixtures("machine_code")
def test_nothing_is_left_of_what_comes_and_goes():
    """By the command of docs/proof.md."""
    pytest.importorskip("peachpy", reason="no assembler for native frames")
    done = run_python(
        *(TESTS / "soak_process.py", "--minutes", "0"), variables={"PYTHONPATH": str(PACKAGE_HOME)}
    )
    assert done.stderr == ""
    report = json.loads(done.stdout)
    happened = report["happened"]
    assert happened["laps"] == happened["forks"] == happened["alarms"] == 6
    assert happened["instances"] == happened["modules"] >= 24
    for trap in (
        "HEAP_OUT_OF_BOUNDS", "TABLE_OUT_OF_BOUNDS", "INTEGER_DIVISION_BY_ZERO",
        "UNREACHABLE_CODE_REACHED", "STACK_OVERFLOW", "INTERRUPT",
    ):  # fmt: skip
        assert happened[f"trap {trap}"] >= 24, trap
    left = report["left"]
    assert left["writable and executable"] == 0
    assert left["things"] == 7  # two in each segment, and the owner of the endless loop
