"""Python in a child process: for tests that may end it, or need a new process."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Here and in the children, machine code is what the assembler makes now, and no test leaves files
# in the user's cache folder. It is read when the package is imported.
os.environ.setdefault("ASM_LIBCALLS_CACHE", "off")

import asm_libcalls

TESTS = Path(__file__).resolve().parent
TOOLS = TESTS.parent / "tools"  # where modules of tests import from too; see pyproject.toml
# A checkout, or where the package is installed.
PACKAGE_HOME = Path(asm_libcalls.__file__).resolve().parent.parent


def environment(**changes: str | None) -> dict[str, str]:
    """Return this process's environment with changes (None removes), for a child that uses us."""
    paths = [str(PACKAGE_HOME), str(TESTS), str(TOOLS), os.environ.get("PYTHONPATH", "")]
    result = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    result.pop("ASM_LIBCALLS_BACKEND", None)
    for name, value in changes.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = value
    return result


def run_program(
    *words: object,
    folder: Path | None = None,
    variables: Mapping[str, str | None] | None = None,
    exit_status: int | None = 0,
    timeout: float = 300,
) -> subprocess.CompletedProcess[str]:
    """Run a program in a folder, and check how it ends; return what it printed.

    `variables` are changes of the environment. The program must end with `exit_status`, -N for
    signal N, or in any way if that is None. A program that takes longer than `timeout` seconds is
    ended and fails the test.
    """
    done = subprocess.run(
        [*map(str, words)],
        cwd=folder,
        env=environment(**(variables or {})),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert exit_status in (None, done.returncode), (
        f"{words[0]} ended with {done.returncode}, not {exit_status}\n{done.stdout}\n{done.stderr}"
    )
    return done


def run_python(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run this Python with some arguments; the options are those of :func:`run_program`."""
    return run_program(sys.executable, *words, **options)


def run_child(
    code: str,
    *,
    folder: Path,
    command: Sequence[str] = (),
    options: Sequence[str] = (),
    **others: Any,
) -> subprocess.CompletedProcess[str]:
    """Run Python code in a child process; other options are those of :func:`run_program`.

    The code is indented as the test is. `command` is the Python to run, with what goes before it;
    by default this one. `options` are Python's.
    """
    python = command or [sys.executable]
    return run_program(*python, *options, "-c", textwrap.dedent(code), folder=folder, **others)
