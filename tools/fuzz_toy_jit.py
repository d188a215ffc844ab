"""Run random and damaged modules with ``asm_libcalls.toy_jit``, and compare with Wasmtime.

    python tools/fuzz_toy_jit.py --modules 1000
    python tools/fuzz_toy_jit.py --seed 5 --first 1234 --modules 1 --keep found    one of them again

Every module is refused with ``InvalidModule``, or it runs: that may end in a trap or ``LinkError``,
but in no other exception, and never ends the process. Where the package ``wasmtime`` is installed,
it must come to the same verdict and results, host calls, memories, tables and globals.

Half of the modules are made (:mod:`random_modules`), and half are damaged ones
(:mod:`mutated_modules`): of those just made, of ``tests/programs``, and of the folder that the
environment variable ``WASM_SPEC_TESTS`` names, if it is set.

Modules run in child processes, in batches, so that a crash is a finding like any other. The
exit code says whether there were findings.
"""

from __future__ import annotations

import argparse
import collections
import gc
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import mutated_modules
import random_modules
import toy_jit_run
from asm_libcalls.toy_jit import LinkError, Module
from asm_libcalls.toy_jit.errors import InvalidModule, LimitExceeded
from asm_libcalls.toy_jit.options import compile_options
from module_runs import Run, first_difference
from wasmtime_run import WasmtimeRun, wasmtime_package

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PROGRAM = Path(__file__).resolve()
"""The program of a child process."""

PROGRAMS = PROGRAM.parent.parent / "tests" / "programs"
SPEC_TESTS = "WASM_SPEC_TESTS"

BATCH = 250
"""Modules in a child process."""

SLOW = 30.0
"""Seconds that a child may be silent; then its module is a finding. It may take longer to start."""

_MOST_PAGES, _MOST_ELEMENTS = 512, 1 << 16


def real_modules() -> list[bytes]:
    """Return modules that compilers and other projects have made."""
    folders = [PROGRAMS]
    if os.environ.get(SPEC_TESTS):
        folders += map(Path, os.environ[SPEC_TESTS].split(os.pathsep))
    paths = sorted(path for folder in folders for path in folder.rglob("*.wasm"))
    return [path.read_bytes() for path in paths]


class Fuzzer:
    """Makes modules and tries them, each identified by a seed and a number.

    `real` are modules to damage, besides those that are made. With `compare`, results are compared
    with Wasmtime's, if that is installed.
    """

    def __init__(self, seed: int, real: Sequence[bytes], compare: bool = True) -> None:
        self.seed = seed
        # how many modules ended how
        self.outcomes: collections.Counter[str] = collections.Counter()
        self._real = list(real)
        self._wasmtime = wasmtime_package() if compare else None

    def module(self, number: int) -> tuple[bytes, bool]:
        """Return a module, and whether it has to be valid."""
        chosen = random.Random(f"{self.seed}/{number}")
        if number % 2 == 0:
            return random_modules.make(chosen), True
        if not self._real or chosen.random() < 0.4:
            made = [random_modules.make(chosen) for _ in range(2)]
            return mutated_modules.mutate(chosen, made), False
        return mutated_modules.mutate(chosen, self._real), False

    def examine(self, number: int) -> str:
        """Try a module; return what is wrong, or ""."""
        binary, must_be_valid = self.module(number)
        options = compile_options(inline=number // 2 % 2 == 1)
        try:
            module = Module(binary, options)
        except InvalidModule as error:
            self.outcomes["refused"] += 1
            if must_be_valid:
                return f"a valid module is refused: {error}"
            if self._wasmtime and not isinstance(error, LimitExceeded) and self._valid(binary):
                # It has proposals that cannot be switched off.
                self.outcomes["refused, but not by Wasmtime"] += 1
            return ""
        if self._wasmtime and not self._valid(binary):
            return "accepted, but not by Wasmtime"
        if not _is_small(module):
            self.outcomes["too large to run"] += 1
            return ""
        ours = toy_jit_run.ToyJitRun(module, binary, f"{self.seed}/{number}")
        try:
            ours.run()
        except LinkError as error:
            self.outcomes["not linked"] += 1
            names = [(entry.module, entry.name) for entry in module.decoded.imports]
            if len(set(names)) < len(names):  # one name, and maybe two types
                return ""
            return f"imports of the right types are refused: {error}"
        ended = ours.stopped or ("ran" if ours.notes[0][1] == "done" else "not instantiated")
        self.outcomes[ended] += 1
        for what, how, *_ in ours.notes:
            if what.startswith("call"):
                self.outcomes["calls"] += 1
                self.outcomes["calls that end in a trap or a host error"] += how != "done"
        if self._wasmtime and ours.stopped != "INTERRUPT":  # it would not end there either
            return self._compare(ours, module, binary)
        return ""

    def _valid(self, binary: bytes) -> bool:
        assert self._wasmtime is not None
        try:
            self._wasmtime.Module.validate(WasmtimeRun.engine(self._wasmtime), binary)
        except self._wasmtime.WasmtimeError:
            return False
        return True

    def _compare(self, ours: Run, module: Module, binary: bytes) -> str:
        assert self._wasmtime is not None
        theirs = WasmtimeRun(self._wasmtime, module.decoded, binary, ours.seed)
        try:
            theirs.run()
        except self._wasmtime.WasmtimeError as error:
            theirs.stopped = str(error).splitlines()[0]
            self.outcomes[f"Wasmtime: {theirs.stopped:.60}"] += 1
        else:
            self.outcomes["compared"] += not ours.stopped and not theirs.stopped
        difference = first_difference(ours, theirs)
        theirs.close()
        return difference


def _is_small(module: Module) -> bool:
    decoded = module.decoded
    return all(limits.minimum <= _MOST_PAGES for limits in decoded.memories) and all(
        table.limits.minimum <= _MOST_ELEMENTS for table in decoded.tables
    )


def run_child(seed: int, first: int, count: int, compare: bool) -> None:
    """Examine modules, and print a line for each: the work of a child process."""

    def say(**what: object) -> None:
        sys.stdout.write(json.dumps(what) + "\n")
        sys.stdout.flush()

    fuzzer = Fuzzer(seed, real_modules(), compare)
    for number in range(first, first + count):
        say(at=number)
        try:
            wrong = fuzzer.examine(number)
        except Exception as error:  # any exception is a finding
            wrong = f"{type(error).__name__}: {error}"
        if wrong:
            say(number=number, wrong=wrong)
    gc.collect()
    if toy_jit_run.things_alive():
        wrong = f"{toy_jit_run.things_alive()} objects outlive the instances of this batch"
        say(number=first, wrong=wrong)
    say(outcomes=fuzzer.outcomes)


def run_batches(
    seed: int, first: int, modules: int, *, compare: bool = True, jobs: int = 1
) -> tuple[list[tuple[int, str]], collections.Counter[str]]:
    """Examine modules in child processes, `jobs` at the same time, from number `first` on.

    Return for each finding the number of a module and what is wrong, and how many modules ended
    how.
    """
    findings: list[tuple[int, str]] = []
    outcomes: collections.Counter[str] = collections.Counter()
    waiting = [
        (at, min(BATCH, first + modules - at)) for at in range(first, first + modules, BATCH)
    ]
    waiting.reverse()
    running: list[_Child] = []
    while waiting or running:
        while waiting and len(running) < jobs:
            running.append(_Child(seed, *waiting.pop(), compare))
        child = running.pop(0)
        if not child.ended(0.2):
            running.append(child)
            continue
        findings += child.findings
        outcomes += child.outcomes
        if child.rest:
            waiting.append(child.rest)
    return sorted(findings), outcomes


class _Child:
    """A child process that examines modules."""

    def __init__(self, seed: int, first: int, count: int, compare: bool) -> None:
        self.findings: list[tuple[int, str]] = []
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.rest: tuple[int, int] | None = None
        self._range = first, count
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - read when the child has ended
        self._size, self._silent, self._killed = 0, 0.0, False
        command = [sys.executable, "-X", "faulthandler", str(PROGRAM), "--child"]
        command += ["--seed", str(seed), "--first", str(first), "--modules", str(count)]
        command += [] if compare else ["--alone"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self._output, stderr=subprocess.STDOUT
        )

    def ended(self, seconds: float) -> bool:
        """Wait a little, and return whether the child has ended."""
        size = os.fstat(self._output.fileno()).st_size
        self._silent = 0.0 if size != self._size else self._silent + seconds
        self._size = size
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            if self._silent < (SLOW if size else 10 * SLOW):
                return False
            self._killed = True
            self._process.kill()
            self._process.wait()
        self._read()
        return True

    def _read(self) -> None:
        self._output.seek(0)
        at, said, complete = self._range[0], [], False
        for line in self._output.read().decode(errors="replace").splitlines():
            try:
                message = json.loads(line)
            except ValueError:
                said.append(line)
                continue
            if "at" in message:
                at = message["at"]
            elif "wrong" in message:
                self.findings.append((message["number"], message["wrong"]))
            else:
                self.outcomes.update(message["outcomes"])
                complete = True
        self._output.close()
        status = self._process.returncode
        if not complete or status:
            how = "was silent for too long" if self._killed else f"ended with {status}"
            self.findings.append((at, "\n    ".join([f"the process {how}", *said[:40]])))
            end = self._range[0] + self._range[1]
            if not complete and at + 1 < end:
                self.rest = at + 1, end - at - 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0, help="the seed of all modules")
    parser.add_argument("--first", type=int, default=0, help="the number of the first module")
    parser.add_argument("--modules", type=int, default=1000, help="how many")
    parser.add_argument("--jobs", type=int, default=1, help="how many processes at a time")
    parser.add_argument("--alone", action="store_true", help="do not compare with Wasmtime")
    parser.add_argument("--keep", type=Path, help="a folder for the modules that are findings")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    compare = not options.alone
    if options.child:
        run_child(options.seed, options.first, options.modules, compare)
        return 0
    findings, outcomes = run_batches(
        options.seed, options.first, options.modules, compare=compare, jobs=options.jobs
    )
    for line in _report(findings, outcomes):
        sys.stdout.write(line + "\n")
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
        fuzzer = Fuzzer(options.seed, real_modules(), compare=False)
        for number, _ in findings:
            path = options.keep / f"{options.seed}-{number}.wasm"
            path.write_bytes(fuzzer.module(number)[0])
    return 1 if findings else 0


def _report(findings: list[tuple[int, str]], outcomes: collections.Counter[str]) -> Iterator[str]:
    for what, count in sorted(outcomes.items()):
        yield f"{count:8}  {what}"
    for number, wrong in findings:
        yield f"module {number}: {wrong}"
    yield f"{len(findings)} findings"


if __name__ == "__main__":
    sys.exit(main())
