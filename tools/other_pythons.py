"""Run the tests on every Python that is found beside the one that runs this.

Run by ``make test-pythons``. Each Python gets an environment of its own, ``.venv-3.X``. Tests that
do not depend on Python are left out here; they are most of the time of the suite, which runs on the
Python of development. A Python that is not found is reported; with ``--debian``, as root, it comes
from Debian's unstable suite (``debian_python.py``). Builds without the GIL (3.Xt) are tested too
where they are found; Debian has none.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import debian_python

if TYPE_CHECKING:
    from debian_python import Debian

ROOT = Path(__file__).resolve().parent.parent

INDEPENDENT = {
    "x86_64/test_assembler.py": "the bytes of machine code",
    "benchmark/test_benchmark.py": "the benchmark",
    "benchmark/test_native_loop.py": "the benchmark",
    "cli/test_build_library.py": "what machine code computes, and its file",
    "cli/test_program.py": "starts dozens of processes; cli/test_run.py uses the same command line",
    "x86_64/test_code_cache.py": "files of images",
    "x86_64/test_wheel_images.py": "files of images",
    "x86_64/test_image_kinds.py": "files of images",
    "emitter/test_image_file.py": "files of images",
    "x86_64/test_cpu_matrix.py": "machine code on other CPUs",
    "checks/test_differential.py": "what machine code computes",
    "cli/test_disassembly.py": "the bytes of machine code",
    "x86_64/test_division_tuning.py": "the choice of machine code",
    "tools/test_debian_python.py": "a tool",
    "test_docs.py": "pages; some need what the whole suite installs",
    "emitter/test_elf_object.py": "files of images",
    "checks/test_exhaustive.py": "what machine code computes",
    "native/test_system_refusals.py": "what the system refuses",
    "tools/test_fuzz_toy_jit.py": "what compiled WebAssembly computes",
    "test_integers.py": "what machine code computes",
    "integrations/test_integrations.py": "other packages, which the whole suite installs",
    "signatures/test_literals.py": "how numbers are written",
    "x86_64/test_loop_encodings.py": "the bytes of machine code",
    "emitter/test_memory_protection.py": "what the system lets us do",
    "x86_64/test_memory_routines.py": "what machine code computes, on other CPUs too",
    "tools/test_mutation_test.py": "a tool",
    "x86_64/test_other_cpus.py": "brings Pythons of its own",
    "tools/test_pipeline.py": "continuous integration",
    "toy_jit/test_programs.py": "what compiled WebAssembly computes",
    "test_readme.py": "pages; make test-wheel runs them on another Python",
    "test_imports.py": "the sources",
    "test_rounding.py": "what machine code computes",
    "checks/test_engine.py": "how implementations are compared",
    "checks/test_scenes.py": "how implementations are compared",
    "tools/test_set_up.py": "the set-up, which has brought us here",
    "test_stubs.py": "the sources",
    "toy_jit/test_decoder.py": "the WebAssembly format",
    "toy_jit/test_validation.py": "the WebAssembly format",
    "toy_jit/test_other_cpus.py": "machine code on other CPUs",
    "toy_jit/test_vectors.py": "what compiled WebAssembly computes",
    "x86_64/test_byte_tuning.py": "the choice of machine code",
    "emitter/test_call_frames.py": "the bytes of machine code",
    "ufuncs/test_properties.py": "what machine code computes",
}
"""The test files that are left out, with their subject."""

WITHOUT_GIL = "t"
"""The end of the name of a Python without the GIL, as of ``python3.14t``."""


def supported_versions() -> list[str]:
    """Return the versions that ``pyproject.toml`` names, oldest first."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return re.findall(r'"Programming Language :: Python :: (\d+\.\d+)"', text)


def candidates(version: str) -> Iterator[str]:
    """Yield what may be a Python of this version: on the PATH, of the system, of pyenv.

    A version with a ``t`` at its end is a build without the GIL.
    """
    for name in (f"python{version}", "python3"):
        for folder in (*os.get_exec_path(), "/usr/bin"):
            yield os.path.join(folder, name)  # noqa: PTH118, the PATH has any text
    pyenv = shutil.which("pyenv")
    if pyenv:
        done = subprocess.run([pyenv, "root"], capture_output=True, text=True, check=False)
        versions = Path(done.stdout.strip(), "versions")
        # The oldest first, which is used: later patch releases have fewer bugs.
        numbers = version.removesuffix("t")
        without_gil = version.removeprefix(numbers)
        found = versions.glob(f"{numbers}.*{without_gil}/bin/python")
        yield from sorted(map(str, found), key=lambda path: [*map(int, re.findall(r"\d+", path))])


def is_version(python: str, version: str) -> bool:
    """Tell whether it runs, and is a CPython of this version; pyenv's shims may only fail."""
    code = (
        "import sys; print(sys.implementation.name, *sys.version_info[:2], "
        "*'t' * ('t' in getattr(sys, 'abiflags', '')))"
    )
    numbers = version.removesuffix("t")
    expected = ["cpython", *numbers.split("."), *version.removeprefix(numbers)]
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return done.stdout.split() == expected


def other_pythons() -> dict[str, str]:
    """Return the supported versions, this one apart, each with its Python; "" for none.

    Builds without the GIL are there only if they are found.
    """
    this = "{}.{}".format(*sys.version_info) + WITHOUT_GIL * ("t" in sys.abiflags)
    found = {}
    for version in supported_versions():
        for each in (version, version + WITHOUT_GIL):
            pythons = (python for python in candidates(each) if is_version(python, each))
            python = "" if each == this else next(pythons, "")
            if python or each not in (this, version + WITHOUT_GIL):
                found[each] = python
    return found


def run_tests(version: str, python: str, options: Sequence[str], debian: Debian | None) -> int:
    """Run the tests on a Python of this machine, or in a Debian; return make's exit status."""
    make = ["make", f"PYTHON={python}", f"VENV=.venv-{version}", f"ARGS={shlex.join(options)}"]
    if debian is not None:
        return debian.run([*make, "test"])
    # Without the variables of the make that has started this.
    variables = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS")}
    return subprocess.run([*make, "test"], cwd=ROOT, env=variables, check=False).returncode


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tests; return 1 where they fail on any Python."""
    parser = argparse.ArgumentParser(description="Run the tests on every other Python.")
    parser.add_argument(
        "--debian",
        action="store_true",
        help="as root: take the Pythons that are not found from Debian's unstable suite",
    )
    mine, for_pytest = parser.parse_known_args(arguments)
    options = [f"--ignore=tests/{name}" for name in INDEPENDENT] + for_pytest
    failed = []
    missing = {}
    found = other_pythons()
    for version, python in found.items():
        if not python:
            missing[version] = "not found"
            continue
        print(f"Python {version}: {python}", flush=True)
        if run_tests(version, python, options, None):
            failed.append(version)
    if missing and mine.debian:
        try:
            with debian_python.temporary(list(missing)) as debian:
                for version in debian.versions:
                    print(f"Python {version}: of Debian's {debian_python.SUITE}", flush=True)
                    del missing[version]
                    if run_tests(version, f"python{version}", options, debian):
                        failed.append(version)
            reason = f"Debian's {debian_python.SUITE} has none"
        except debian_python.NotToBeHadError as error:
            reason = f"not to be had from Debian: {error}"
        missing = {version: f"{why}, {reason}" for version, why in missing.items()}
    if not any(version.endswith(WITHOUT_GIL) for version in found):
        missing["without the GIL"] = "not found"
    for version, why in missing.items():
        print(f"Python {version}: {why}: NOT TESTED", flush=True)
    if failed:
        print(f"the tests fail on Python {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
