"""Make the virtual environment that the Makefile's targets run in.

Run by ``make``: ``python3 tools/set_up.py --venv .venv EXTRA...``. Needs nothing but the standard
library, because it runs before any installation. It promises three things:

- *Nothing outside the virtual environment changes.* Debian's packages are downloaded and unpacked,
  not installed; the one exception is ``apt-get update``, where a package is not found without it.
- *Done once.* A stamp in the environment records its sources; while they are unchanged, set-up only
  reads the stamp.
- *PeachPy is the right one, or none.* The package index's 0.0.1 is for Python 2: it is never
  installed, and removed where it is found. Without PeachPy set-up still succeeds, and the
  package serves its pure-Python fallback.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

MINIMUM_PYTHON = (3, 11)
PEACHPY_MINIMUM = (0, 2)
PEACHPY_DEBIAN_PACKAGE = "python3-peachpy"
# Dependencies that are in other packages of Debian's.
PEACHPY_REQUIREMENTS = ("six",)
# A tested commit.
PEACHPY_REPOSITORY = (
    "git+https://github.com/Maratyszcza/PeachPy@349e8f836142b2ed0efeb6bb99b1b715d87202e9"
)
# PeachPy's setup.py generates its instruction classes with `opcodes`, which imports pkg_resources:
# setuptools 82 has that no more.
PEACHPY_BUILD_REQUIREMENTS = ("setuptools<82", "wheel", "opcodes>=0.3.13", "six")

# Without the GIL: gevent has no wheel, and pip would try to build it. Importing greenlet, or what
# cffi has built, turns the GIL on. The tests that need them are skipped.
NOT_WITHOUT_GIL = ("cffi", "gevent", "greenlet", "llvmlite", "numba")
HAS_GIL = not sysconfig.get_config_var("Py_GIL_DISABLED")

# Run in the environment. Prints nothing where there is no PeachPy of any kind.
PEACHPY_VERSION = """
from importlib.metadata import PackageNotFoundError, version
try:
    print(version("peachpy"))
except PackageNotFoundError:
    pass
"""
# Run in the environment. Without .pyc files PeachPy's import takes over a second, and warns of its
# escape sequences; users who set PYTHONDONTWRITEBYTECODE would never get these files.
PEACHPY_COMPILE = """
import compileall, importlib.util, warnings
warnings.simplefilter("ignore")
(folder,) = importlib.util.find_spec("peachpy").submodule_search_locations
compileall.compile_dir(folder, quiet=1)
"""


class SetUpError(Exception):
    """A step that could not be done; the message says why in one line, for the user."""


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run `command` and return its output.

    Raise SetUpError if the program is missing or fails, with the most telling line of its
    complaint.
    """
    program = Path(command[0]).name
    try:
        done = subprocess.run(
            [str(part) for part in command],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            # Where the repository is gone, git would ask the terminal for a user's name, and wait.
            env={**os.environ, "GIT_TERMINAL_PROMPT": "0"},
            check=False,
        )
    except OSError as error:
        raise SetUpError(f"{program}: {error.strerror}") from error
    if done.returncode:
        complaint = most_telling_line(done.stderr) or most_telling_line(done.stdout)
        raise SetUpError(f"{program} failed ({done.returncode}): {complaint or 'without a word'}")
    return done.stdout


def most_telling_line(output: str) -> str:
    """Return the line that says what went wrong: pip and git follow it with hints and summaries."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    for marker in ("fatal: ", "ERROR: ", "E: "):
        for line in lines:
            if line.startswith(marker):
                return line
    return lines[-1] if lines else ""


@dataclass(frozen=True)
class Stamp:
    """What an environment was made from; another value in one field means work to do."""

    # what it was made with, and where; when this changes the environment is made anew
    interpreter: str
    # digest of the files that decide what is installed; empty before the first installation
    sources: str = ""
    extras: Sequence[str] = ()  # the project's extras that are installed
    peachpy: str = ""  # PeachPy's version and where it came from; empty where there is none


@dataclass(frozen=True)
class Environment:
    """A virtual environment, there or to be made."""

    path: Path  # its folder
    # The interpreter to make it with. Not sys.executable: with the environment activated that is
    # the environment's own python, and making the environment anew would begin by deleting it.
    base: str = field(default_factory=lambda: getattr(sys, "_base_executable", sys.executable))

    @property
    def _python(self) -> Path:
        return self.path / "bin" / "python"

    @property
    def _stamp(self) -> Path:
        return self.path / ".stamp"

    @property
    def site_packages(self) -> Path:
        """The folder that pip installs pure-Python packages into."""
        paths = {"base": str(self.path), "platbase": str(self.path)}
        return Path(sysconfig.get_path("purelib", "posix_prefix", paths))

    def python(self, *arguments: str | Path) -> str:
        """Run the environment's Python, isolated from PYTHONPATH and the working directory."""
        return run(self._python, "-I", *arguments)

    def pip(self, *arguments: str | Path) -> None:
        """Run the environment's pip."""
        self.python("-m", "pip", "--quiet", "--disable-pip-version-check", *arguments)

    def make(self) -> None:
        """Make the environment anew, with pip in it.

        Raise SetUpError if something else is in its place, or there is no way to bring pip in.
        """
        if (self.path / "pyvenv.cfg").exists():
            shutil.rmtree(self.path)
        elif self.path.exists() and any(self.path.iterdir()):
            raise SetUpError(f"{self.path} is not a virtual environment: not touched")
        try:
            run(self.base, "-m", "venv", self.path)
        except SetUpError:
            # Debian's python3 has no ensurepip before python3-venv is installed. If the reason was
            # another one, this fails again and tells it.
            run(self.base, "-m", "venv", "--clear", "--without-pip", self.path)
            self._bring_pip()

    def _bring_pip(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            try:
                unpacked = unpack_debian_package("python3-pip-whl", Path(folder))
                (wheel,) = unpacked.glob("usr/share/python-wheels/pip-*.whl")
                # pip's wheel can be run as it is, and so installs itself.
                self.python(wheel / "pip", "install", "--quiet", "--no-index", wheel)
            except SetUpError as error:
                raise SetUpError(
                    f"{self.base} has no ensurepip, and Debian's pip cannot be had ({error}). "
                    "Install python3-venv, or choose another Python: `make PYTHON=...`"
                ) from error

    def read_stamp(self) -> Stamp | None:
        """Return what is known of the environment; None where it is missing or not to be used."""
        try:
            stamp = Stamp(**json.loads(self._stamp.read_text()))
        except (OSError, ValueError, TypeError):
            return None
        usable = self._python.exists() and stamp.interpreter == interpreter_of(self)
        return stamp if usable else None

    def write_stamp(self, stamp: Stamp) -> None:
        """Record what is in the environment."""
        self._stamp.write_text(json.dumps(vars(stamp), indent=4) + "\n")


def interpreter_of(environment: Environment) -> str:
    """Identify the running Python and the places that an environment holds absolute paths to."""
    return f"Python {sys.version} in {sys.base_prefix} for {ROOT} at {environment.path}"


def sources_digest() -> str:
    """Digest the files that decide what is installed."""
    digest = hashlib.sha256()
    for path in (ROOT / "pyproject.toml", Path(__file__)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def unpack_debian_package(name: str, folder: Path) -> Path:
    """Download a Debian package, and return the folder in `folder` that it is unpacked to.

    Raise SetUpError without Debian's tools, or where the package cannot be had.
    """
    # Started by root, apt downloads as the user `_apt`, who may not write to our folder, and warns.
    options = ("-o", "APT::Sandbox::User=root") if os.geteuid() == 0 else ()
    try:
        run("apt-get", *options, "download", name, cwd=folder)
    except SetUpError as error:
        # Empty package lists (a fresh container) and outdated ones both fail here.
        try:
            run("apt-get", *options, "update")
        except SetUpError:
            raise SetUpError(f"{error} (`apt-get update` may help, as root)") from error
        run("apt-get", *options, "download", name, cwd=folder)
    (archive,) = folder.glob(f"{name}_*.deb")
    unpacked = folder / "unpacked"
    run("dpkg-deb", "--extract", archive, unpacked)
    return unpacked


def usable_peachpy(environment: Environment) -> str:
    """Return the version of the environment's PeachPy, or raise SetUpError.

    PeachPy may be missing or too old, or its import may fail.
    """
    version = environment.python("-c", PEACHPY_VERSION).strip()
    if not version:
        raise SetUpError("not there")
    if tuple(int(number) for number in re.findall(r"\d+", version)[:2]) < PEACHPY_MINIMUM:
        raise SetUpError(f"{version} is for Python 2")
    environment.python("-c", "import peachpy.x86_64")
    return version


def remove_peachpy(environment: Environment) -> None:
    """Remove a PeachPy that cannot serve, so that pip does not take it for the right one."""
    for pattern in ("peachpy", "[Pp]each[Pp]y-*"):
        for path in environment.site_packages.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:  # old installers wrote the metadata as one file
                path.unlink()


def peachpy_from_debian(environment: Environment) -> None:
    """Copy PeachPy, with its metadata, out of Debian's package: it is pure Python."""
    with tempfile.TemporaryDirectory() as folder:
        unpacked = unpack_debian_package(PEACHPY_DEBIAN_PACKAGE, Path(folder))
        packages = unpacked / "usr/lib/python3/dist-packages"
        for source in [packages / "peachpy", *packages.glob("PeachPy-*.egg-info")]:
            shutil.copytree(source, environment.site_packages / source.name)
    environment.pip("install", *PEACHPY_REQUIREMENTS)


def peachpy_from_repository(environment: Environment) -> None:
    """Have pip build PeachPy from its public repository."""
    environment.pip("install", *PEACHPY_BUILD_REQUIREMENTS)
    environment.pip("install", "--no-build-isolation", PEACHPY_REPOSITORY)


PEACHPY_WAYS: dict[str, Callable[[Environment], None]] = {
    f"Debian's {PEACHPY_DEBIAN_PACKAGE}": peachpy_from_debian,
    "its repository": peachpy_from_repository,
}


def peachpy_arrived(environment: Environment) -> bool:
    """Tell whether the user has installed PeachPy since set-up found none."""
    try:
        usable_peachpy(environment)
    except SetUpError:
        return False
    return True


def describe(peachpy: str) -> str:
    """Describe a stamp's PeachPy for the user."""
    return f"PeachPy {peachpy}" if peachpy else "no PeachPy: the pure-Python fallback serves"


def find_peachpy(environment: Environment) -> str:
    """Install PeachPy by the first way that works and say which; return it, empty for none."""
    failures = []
    for origin, bring in {"found in the environment": None, **PEACHPY_WAYS}.items():
        try:
            if bring is not None:
                remove_peachpy(environment)
                bring(environment)
            found = f"{usable_peachpy(environment)} ({origin})"
        except (SetUpError, OSError) as error:
            failures.append(f"{origin}: {error}")
            continue
        environment.python("-c", PEACHPY_COMPILE)
        say(describe(found))
        return found
    remove_peachpy(environment)
    say(
        f"no PeachPy, so the pure-Python fallback serves ({'; '.join(failures)}). "
        "For machine code mend one of these, then `make clean` and the same again"
    )
    return ""


def requirements_without_gil(extras: Sequence[str]) -> list[str]:
    """Return what these extras of pyproject.toml name, without :data:`NOT_WITHOUT_GIL`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: list[str] = []
    for extra in extras:
        for requirement in project["optional-dependencies"][extra]:
            name = re.split(r"[^\w.-]", requirement)[0]
            if name == project["name"]:
                its_extras = re.findall(r"[\w-]+", requirement.partition("[")[2].partition("]")[0])
                found += requirements_without_gil(its_extras)
            elif name not in NOT_WITHOUT_GIL:
                found.append(requirement)
    return list(dict.fromkeys(found))


def install(environment: Environment, extras: Sequence[str]) -> None:
    """Install the project, editable, with what its extras need."""
    if HAS_GIL:
        environment.pip("install", "--editable", f"{ROOT}[{','.join(extras)}]")
        return
    # NumPy's newest version may have no wheel for a build without the GIL; an older one has.
    requirements = requirements_without_gil(extras)
    environment.pip("install", "--prefer-binary", "--editable", ROOT, *requirements)


def set_up(environment: Environment, extras: set[str]) -> None:
    """Make `environment` have the project with `extras`, and PeachPy if possible."""
    stamp = environment.read_stamp()
    if stamp is None:
        say(f"making {environment.path} with Python {sys.version.split()[0]}")
        environment.make()
        stamp = Stamp(interpreter=interpreter_of(environment))
        environment.write_stamp(stamp)
    # What another target asked for stays, so that `make run` after `make test` installs nothing.
    wanted = sorted(extras.union(stamp.extras))
    sources = sources_digest()
    if (stamp.sources, stamp.extras) != (sources, wanted):
        say(f"installing what {', '.join(wanted)} need")
        install(environment, wanted)
    elif stamp.peachpy or not peachpy_arrived(environment):
        say(f"{environment.path} is ready, with {describe(stamp.peachpy)}")
        return
    peachpy = find_peachpy(environment)
    environment.write_stamp(replace(stamp, sources=sources, extras=wanted, peachpy=peachpy))


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Wait for other set-ups of this checkout, whose builds share files whatever their place."""
    folder = os.open(ROOT, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def say(message: str) -> None:
    """Tell the user what happens, before it does."""
    print(f"set-up: {message}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the set-up; return the exit code."""
    parser = argparse.ArgumentParser(description="Make the virtual environment for the Makefile.")
    parser.add_argument("--venv", type=Path, default=Path(".venv"), help="where to make it")
    parser.add_argument("extras", nargs="+", help="extras of pyproject.toml to install")
    options = parser.parse_args(arguments)
    if sys.version_info < MINIMUM_PYTHON:
        print("set-up: Python 3.11 is the oldest; choose one: `make PYTHON=...`", file=sys.stderr)
        return 1
    try:
        with one_at_a_time():
            set_up(Environment(options.venv.absolute()), set(options.extras))
    except (SetUpError, OSError) as error:
        print(f"set-up: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
