"""Python in a child process: for tests that may end it, or need a new process."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

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


def run_child(
    code: str,
    *,
    folder: Path,
    command: Sequence[str] = (),
    options: Sequence[str] = (),
    variables: Mapping[str, str | None] | None = None,
    exit_status: int = 0,
    timeout: float = 300,
) -> subprocess.CompletedProcess[str]:
    """Run `code` in a folder, and check how it ends; return what it printed.

    The code is indented as the test is. `command` is the Python to run, with what goes before it;
    by default this one. `options` are Python's, `variables` changes of the environment. It must end
    with `exit_status`, -N for signal N. A child that takes longer than `timeout` seconds is ended
    and fails the test.
    """
    done = subprocess.run(
        [*(command or [sys.executable]), *options, "-c", textwrap.dedent(code)],
        cwd=folder,
        env=environment(**(variables or {})),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == exit_status, (
        f"the child ended with {done.returncode}, not {exit_status}\n{done.stdout}\n{done.stderr}"
    )
    return done
