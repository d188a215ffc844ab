"""Suite: importing: its processor time, and the memory that it leaves occupied.

Each import is measured in a new process of the same Python, from before the import statement to
after it; processes of the candidates alternate. The case ``process`` measures whole processes, from
start to end, compared with one that imports nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from asm_libcalls.benchmark.timing import OURS, Timed, figures
from asm_libcalls.binding import ENVIRONMENT_VARIABLE
from asm_libcalls.x86_64 import code_cache

if TYPE_CHECKING:
    from collections.abc import Callable

    from asm_libcalls.benchmark.peers import Peers

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


def measure(peers: Peers, quick: bool, tell: Callable[[str], None], only: str) -> list[Timed]:
    """Measure imports; return a case for the time, in ns, and one for the memory, in bytes."""
    tell(SUITE)
    with tempfile.TemporaryDirectory(prefix="asm_libcalls-benchmark-") as cache:
        return _measure(_candidates(peers, cache), QUICK_ROUNDS if quick else ROUNDS)


def _measure(candidates: list[_Import], rounds: int) -> list[Timed]:
    for candidate in candidates:
        _run(candidate)  # fills .pyc files, the code cache, and the page cache
    runs = [[_run(candidate) for candidate in candidates] for _ in range(rounds)]
    labels = [candidate.label for candidate in candidates]
    importing = labels[:-1] if labels[-1] == BARE else labels
    cases = []
    for part, (name, own) in enumerate(
        (("time", importing), ("memory", importing), ("process", labels))
    ):
        values = {label: [each[i][part] for each in runs] for i, label in enumerate(own)}
        if name == "time" or any(map(any, values.values())):
            cases.append(Timed(SUITE, name, 0, rounds, figures(values)))
    return cases


def _candidates(peers: Peers, cache: str) -> list[_Import]:
    warm, cold = {code_cache.ENVIRONMENT_VARIABLE: cache}, {code_cache.ENVIRONMENT_VARIABLE: "off"}
    result = [
        _Import(OURS, "import asm_libcalls", warm),
        _Import("asm_libcalls and a call", "import asm_libcalls; asm_libcalls.f64_ceil(1.5)", warm),
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
    """Return processor time in ns, memory in bytes, and processor time of the whole process."""
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
    page = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
    return float(took), float(pages * page), _children_time() - before


def _children_time() -> float:
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) * 1e9
