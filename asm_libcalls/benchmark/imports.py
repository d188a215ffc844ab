"""Suite: importing: its processor time, and the memory that it leaves occupied.

Each import is measured in a new process of the same Python, from before the import statement to
after it; processes of the candidates alternate. The case ``process`` measures whole processes, from
start to end, beside one that imports nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from asm_libcalls.benchmark.timing import OURS, Figure, Spread, Timed, spread
from asm_libcalls.binding import ENVIRONMENT_VARIABLE
from asm_libcalls.x86_64 import code_cache

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asm_libcalls.benchmark.peers import Peers

__all__ = ["measure_imports"]

SUITE = "imports"
ROUNDS, QUICK_ROUNDS = 15, 3
BARE = "Python alone"

_CHILD = """
import json, sys, time
def resident():
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1])
    except OSError:
        return 0
before = resident()
started = time.process_time_ns()
{statement}
took = time.process_time_ns() - started
print(json.dumps([took, resident() - before]))
"""


class _Import(NamedTuple):
    label: str
    statement: str
    variables: dict[str, str]
    before: str = "json"


def measure_imports(peers: Peers, quick: bool) -> list[Timed]:
    """Measure imports; return a case for the time, in ns, and one for the memory, in bytes."""
    with tempfile.TemporaryDirectory(prefix="asm_libcalls-benchmark-") as cache:
        return _measure(_candidates(peers, cache), QUICK_ROUNDS if quick else ROUNDS)


def _measure(candidates: list[_Import], rounds: int) -> list[Timed]:
    times: list[list[float]] = [[] for _ in candidates]
    memory: list[list[float]] = [[] for _ in candidates]
    processes: list[list[float]] = [[] for _ in candidates]
    page = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
    for candidate in candidates:
        _run(candidate)  # fills .pyc files, the code cache, and the page cache
    for _ in range(rounds):
        for i, candidate in enumerate(candidates):
            took, pages, process = _run(candidate)
            times[i].append(took)
            memory[i].append(pages * page)
            processes[i].append(process)
    labels = [candidate.label for candidate in candidates]
    importing = len(labels) - (labels[-1] == BARE)
    cases = [_case("time", labels[:importing], times, rounds)]
    if any(map(any, memory)):
        cases.append(_case("memory", labels[:importing], memory, rounds))
    if any(map(any, processes)):
        cases.append(_case("process", labels, processes, rounds))
    return cases


def _candidates(peers: Peers, cache: str) -> list[_Import]:
    warm, cold = {code_cache.ENVIRONMENT_VARIABLE: cache}, {code_cache.ENVIRONMENT_VARIABLE: "off"}
    result = [
        _Import(OURS, "import asm_libcalls", warm),
        _Import("asm_libcalls, no code cache", "import asm_libcalls", cold),
        _Import(
            "asm_libcalls, fallback", "import asm_libcalls", {ENVIRONMENT_VARIABLE: "fallback"}
        ),
        _Import("numpy", "import numpy", {}),
        _Import("asm_libcalls.ufuncs after numpy", "import asm_libcalls.ufuncs", warm, "numpy"),
    ]
    if peers.cffi is not None:
        result.append(_Import("cffi", "import cffi; cffi.FFI()", {}))
    result.append(_Import(BARE, "pass", {}))
    return result


def _run(candidate: _Import) -> tuple[float, float, float]:
    """Return processor time in ns, memory in pages, and processor time of the whole process."""
    code = f"import {candidate.before}\n{_CHILD.format(statement=candidate.statement)}"
    # The child imports this package from the same place as this process.
    found = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join([found, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, ENVIRONMENT_VARIABLE: "auto"}
    environment.update(candidate.variables)
    before = _children_time()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    took, pages = json.loads(done.stdout)
    return float(took), float(pages), _children_time() - before


def _children_time() -> float:
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) * 1e9


def _case(name: str, labels: Sequence[str], values: list[list[float]], rounds: int) -> Timed:
    ours = values[0]
    figures = {}
    for label, own in zip(labels, values, strict=False):
        ratios = [a / b for a, b in zip(ours, own, strict=True) if b]
        figures[label] = Figure(spread(own), spread(ratios) if ratios else Spread(0, 0, 0))
    return Timed(SUITE, name, 0, rounds, figures)
