"""Suite: what importing costs, as whole processes: time, and the largest resident set."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING

from asm_libcalls.benchmark.peers import Notes, optional
from asm_libcalls.benchmark.timing import Comparison, compare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["starts"]

# Not getrusage: its maximum goes on counting from the process that forked.
_MEMORY = "print(next(l.split()[1] for l in open('/proc/self/status') if l.startswith('VmHWM')))"


def starts(notes: Notes, quick: bool) -> Iterator[Comparison]:
    """Compare ``import asm_libcalls``, with its code image and without, with other imports."""
    rounds = 3 if quick else 21
    with tempfile.TemporaryDirectory(prefix="asm_libcalls_bench_") as folder:
        warm = {"ASM_LIBCALLS_CACHE": folder}
        cold = {"ASM_LIBCALLS_CACHE": "off"}
        _run("import asm_libcalls", warm)
        peers = {"bare Python": _process("pass", {})}
        for package in ("numpy", "cffi"):
            if optional(package, notes) is not None:
                peers[f"import {package}"] = _process(f"import {package}", {})
        ours = _process("import asm_libcalls", warm)
        name = "process: import asm_libcalls, code image there"
        yield compare("starts", name, ours, peers, rounds=rounds, round_time=1)
        ours = _process("import asm_libcalls", cold)
        name = "process: import asm_libcalls, code assembled"
        yield compare("starts", name, ours, peers, rounds=rounds, round_time=1)
        for what, statement, variables in (
            ("bare Python", "pass", {}),
            ("import asm_libcalls", "import asm_libcalls", warm),
            ("import numpy", "import numpy", {}),
        ):
            if "numpy" not in what or optional("numpy", notes) is not None:
                kilobytes = int(_run(f"{statement}; {_MEMORY}", variables))
                notes.add(f"largest resident set of {what}: {kilobytes / 1024:.1f} MiB")


def _run(code: str, variables: dict[str, str]) -> str:
    environment = {**os.environ, **variables}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
    )
    return done.stdout


def _process(code: str, variables: dict[str, str]) -> Callable[[int], float]:
    def case(count: int) -> float:
        begin = time.perf_counter_ns()
        for _ in range(count):
            _run(code, variables)
        return (time.perf_counter_ns() - begin) / count

    return case
