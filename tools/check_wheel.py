"""Use the wheel in ``dist`` in a new environment, without PeachPy and without the checkout.

Run by ``make test-wheel``, after ``make dist``, which makes the wheel out of the sdist. It is
installed on the Python that runs this and on one more, if one is found. The command line must
list the same backends as in the checkout, with every self-check passed. Then the README's programs
run.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

import asm_libcalls
from other_pythons import other_pythons
from set_up import Environment, SetUpError

ROOT = Path(__file__).resolve().parent.parent

README_TESTS = ("sessions_show", "programs_run", "commands_print")
"""The tests of ``tests/test_readme.py`` that use the package and not the checkout."""

NO_PEACHPY = """
import importlib.util, sys
import asm_libcalls
assert importlib.util.find_spec("peachpy") is None, "PeachPy is here"
assert asm_libcalls.__file__.startswith(sys.prefix), asm_libcalls.__file__
"""


class WheelError(Exception):
    """The wheel is wrong; the message says how."""


def run(command: list[str], folder: Path) -> str:
    """Run a program in `folder`, where no path leads to the checkout; return its output."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "ASM_"))}
    # Only the wheel's images serve: the code cache is empty.
    variables |= {"ASM_LIBCALLS_CACHE": str(folder / "cache"), "HOME": str(folder)}
    done = subprocess.run(
        command, cwd=folder, env=variables, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise WheelError(f"{Path(command[0]).name} ended with {done.returncode}\n{done.stdout}")
    return done.stdout


def check_contents(sdist: Path, wheel: Path) -> None:
    """Check that both have the types and the images, and the wheel nothing but the package."""
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = {PurePosixPath(name) for name in archive.namelist()}
    with tarfile.open(sdist) as archive:
        in_sdist = {PurePosixPath(*PurePosixPath(n).parts[1:]) for n in archive.getnames()}
    package = {path for path in in_wheel if path.parts[0] == "asm_libcalls"}
    others = {path.parts[0] for path in in_wheel - package}
    if others != {wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info"}:
        raise WheelError(f"the wheel has more than the package: {sorted(others)}")
    if package - in_sdist:
        raise WheelError(f"the sdist lacks {sorted(map(str, package - in_sdist))}")
    files = ROOT.joinpath("asm_libcalls").rglob("*")
    wanted = {
        PurePosixPath(path.relative_to(ROOT))
        for path in files
        if path.is_file() and path.suffix in (".py", ".pyi", ".pxd", ".typed")
    }
    if wanted - package or PurePosixPath("asm_libcalls/py.typed") not in package:
        raise WheelError(f"the wheel lacks {sorted(map(str, wanted - package))}")
    images = sorted(path.name for path in package - wanted)
    if not images or any(not name.endswith(".image") for name in images):
        raise WheelError(f"the wheel has these beside the sources: {images}, not images")
    print(f"{wheel.name}: {len(wanted)} sources, {len(images)} images", flush=True)


def listed(program: str | Path, folder: Path) -> dict[str, tuple[str, str]]:
    """Return what serves each libcall, and how its self-check ended."""
    rows = json.loads(run([str(program), "list", "--json"], folder))["libcalls"]
    return {row["name"]: (row["backend"], row["self_check"]["result"]) for row in rows}


def check_installed(wheel: Path, base: str, served: dict[str, tuple[str, str]]) -> None:
    """Install the wheel in a new environment and use it."""
    with tempfile.TemporaryDirectory(prefix="asm_libcalls-") as name:
        folder = Path(name)
        environment = Environment(folder / "environment", base)
        environment.make()
        environment.pip("install", wheel)
        python = str(environment.path / "bin" / "python")
        version = run([python, "--version"], folder).strip()
        run([python, "-c", NO_PEACHPY], folder)
        found = listed(environment.path / "bin" / "asm-libcalls", folder)
        if found != served:
            differ = {name: found.get(name) for name in served if found.get(name) != served[name]}
            raise WheelError(f"{version}: the checkout is served otherwise than {differ}")
        print(f"{version}: {summary(found)}", flush=True)
        # The checkout's tests run the README's programs. Only the tests and the README are copied.
        environment.pip("install", f"{wheel}[cli]", "pytest", "hypothesis")
        shutil.copytree(ROOT / "tests", folder / "tests")
        shutil.copy2(ROOT / "README.md", folder)
        command = [python, "-m", "pytest", "-p", "no:cacheprovider", "tests/test_readme.py"]
        print(run([*command, "-k", " or ".join(README_TESTS), "-q", "-rs"], folder), flush=True)
        run([python, "-c", NO_PEACHPY], folder)


def summary(libcalls: dict[str, tuple[str, str]]) -> str:
    """Count the libcalls of each backend."""
    backends = [backend for backend, _ in libcalls.values()]
    counts = ", ".join(f"{backends.count(name)} by {name}" for name in sorted(set(backends)))
    return f"{len(libcalls)} libcalls, {counts}, every self-check passed"


def main() -> int:
    """Check; return the exit code."""
    name = f"asm_libcalls-{asm_libcalls.__version__}"
    sdist, wheel = (ROOT / "dist" / f"{name}{end}" for end in (".tar.gz", "-py3-none-any.whl"))
    try:
        check_contents(sdist, wheel)
        with tempfile.TemporaryDirectory(prefix="asm_libcalls-") as folder:
            served = listed(Path(sys.executable).with_name("asm-libcalls"), Path(folder))
        failed = [name for name, (_, result) in served.items() if result != "passed"]
        if failed:
            raise WheelError(f"in the checkout these self-checks do not pass: {failed}")
        others = [python for python in other_pythons().values() if python]
        for base in (Environment(Path()).base, *others[-1:]):
            check_installed(wheel, base, served)
    except (SetUpError, WheelError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
