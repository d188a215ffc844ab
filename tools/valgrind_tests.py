"""Run tests, and the stress program, under valgrind's memcheck.

``python tools/valgrind_tests.py [FILE...]`` runs each test file of :data:`TESTS` in a process of
its own, and ``tools/stress.py``, or only the files that are named. It prints a line for each: how
many processes had errors, and the last line of output. An error in another library's code counts
too, unless ``tools/valgrind.supp`` names it. The exit code is 0 if no error was reported and no
test failed. Machine code is assembled once, into a cache folder that all processes share.

Python must use malloc for each object (``PYTHONMALLOC=malloc``), so that memcheck sees where each
begins and ends. Uses of uninitialized values are not looked for: a slot of compiled code has 64
bits, of which an i32 sets 32, and Python reads all of them before it drops the others.

Memcheck tracks malloc's blocks, the stack, and which pages are mapped. A memory or table of ours is
a mapping: an access outside the mapping raises a signal, and no access inside it is an error.
Forked children are checked too; other programs that tests start are not.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

TESTS = [
    *(f"tests/native/test_{name}.py" for name in (
        "call_slot", "close_while_running", "entry", "greenlets", "host_function",
        "native_function", "native_function_life", "pointers", "threads_and_forks", "traps",
    )),
    *(f"tests/runtime/test_{name}.py" for name in (
        "externref", "gc", "global", "instance", "memory", "memory_functions", "misuse",
        "ownership", "reference_functions", "resources", "stateful", "tables", "threads_at_once",
        "unknown_frames",
    )),
]  # fmt: skip

DESELECTED = {
    "tests/native/test_native_function_life.py::test_functions_of_one_shape_share_their_code":
        "valgrind itself maps executable memory, for the code that it translates",
    "tests/native/test_native_function_life.py::test_a_batch_shares_its_pages":
        "valgrind itself maps executable memory, for the code that it translates",
    "tests/runtime/test_memory.py::TestBuffer::test_thousands_of_views_leave_nothing":
        "valgrind itself keeps freed blocks for a while",
    "tests/runtime/test_memory.py::TestBuffer::test_views_outlive_close_and_the_memory_itself":
        "more address space than valgrind has",
    "tests/runtime/test_memory.py::TestReservation::test_no_memory_is_used_before_it_is_touched":
        "under valgrind the pages of a reservation are resident",
    "tests/runtime/test_memory.py::TestReservation::test_reservations_are_given_back":
        "valgrind makes other mappings for reservations",
    "tests/runtime/test_instance.py::test_dead_instances_are_collected_and_leave_nothing":
        "more address space than valgrind has",
}  # fmt: skip

STRESS = "tools/stress.py"
STRESS_SECONDS = 120


def memcheck(name: str, words: list[str], cache: str) -> bool:
    """Run Python with these arguments under memcheck; print the outcome, and return it."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        command = [
            "valgrind",
            f"--suppressions={ROOT / 'tools' / 'valgrind.supp'}",
            f"--log-file={folder}/%p.log",
            "--num-callers=30",
            "--undef-value-errors=no",
            "--smc-check=all",  # code in files is written too, by pwrite
        ]
        done = subprocess.run(
            [*command, sys.executable, *words],
            cwd=ROOT,
            env={**os.environ, "PYTHONMALLOC": "malloc", "ASM_LIBCALLS_CACHE": cache},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        logs = [path.read_text(errors="replace") for path in sorted(Path(folder).iterdir())]
    # A child that runs another program ends its log without a summary.
    wrong = [
        log
        for log in logs
        if "ERROR SUMMARY: 0 errors" not in log and re.search(r"^==\d+==    (at|by) 0x", log, re.M)
    ]
    if done.returncode:
        wrong.append(done.stdout)
    last = (done.stdout.strip().splitlines() or [""])[-1].strip("= ")
    print(
        f"{name}: {len(wrong)} of {len(logs)} processes with errors, "
        f"exit code {done.returncode}, {time.monotonic() - start:.0f} s: {last}"
    )
    print(*wrong, sep="\n", end="", flush=True)
    return not wrong


def main(names: list[str]) -> int:
    """Run the files; return the exit code."""
    if not shutil.which("valgrind"):
        print("valgrind is not installed")
        return 2
    out = [f"--deselect={test}" for test in DESELECTED]
    good = True
    with tempfile.TemporaryDirectory() as cache:
        for name in names or [*TESTS, STRESS]:
            if name == STRESS:
                words = [STRESS, str(STRESS_SECONDS), "1"]
            else:
                words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", *out, name]
            good = memcheck(name, words, cache) and good
    return int(not good)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
