"""Run a command with Pythons from Debian's unstable suite that this machine lacks.

``sudo python3 tools/debian_python.py 3.15 -- make test PYTHON=python3.15 VENV=.venv-3.15`` puts a
small Debian with that Python into a temporary folder (some 90 seconds), and runs the command there,
in this project's folder at the same path. Mounts are in a namespace of their own, and end with the
command. The folder is removed; ``--folder FOLDER`` keeps it for the next run.

It needs root, ``debootstrap``, and a machine whose apt has a Debian mirror: the packages come from
there. An error of one line names what is missing. ``tools/other_pythons.py --debian`` uses this.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

SUITE = "sid"
# Packages that tests need beyond Python; their tests are skipped without them.
PACKAGES = ("ca-certificates", "elfutils", "g++", "gcc", "gdb", "linux-perf", "make")
PYTHON_PACKAGES = ("python{}", "python{}-dev", "python{}-venv")

NETWORK = tuple(map(Path, ("/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs/ca-certificates.crt")))

# These variables go with the command; the others have paths of this machine.
KEPT_VARIABLES = re.compile(
    r"CI|COLUMNS|LANG|TERM|WASM_SPEC_TESTS|PIP_\w+|\w+_PROXY|\w*(CERT|CA_BUNDLE)\w*", re.IGNORECASE
)
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class NotToBeHadError(Exception):
    """A Debian cannot be made here; the message says why, in one line."""


def mirror() -> str:
    """Return the first mirror of this machine's apt that serves :data:`SUITE`."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)"]
    try:
        done = subprocess.run(
            [*command, "Created-By: Packages", "Component: main"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    except OSError as error:
        raise NotToBeHadError(f"this system has no apt ({error.strerror})") from error
    failures = []
    for address in dict.fromkeys(done.stdout.split()):
        release = f"{address.rstrip('/')}/dists/{SUITE}/Release"
        try:
            with urllib.request.urlopen(release, timeout=30) as reply:
                if b"Origin: Debian\n" in reply.read(4096):
                    return address
            failures.append(f"{release} is not Debian's")
        except (OSError, ValueError, urllib.error.URLError) as error:
            failures.append(f"{release}: {error}")
    raise NotToBeHadError(
        f"none of apt's sources serves Debian's {SUITE} ({'; '.join(failures) or 'it has none'})"
    )


def in_namespace(script: str) -> list[str]:
    """Return the command that runs a shell script whose mounts end with it."""
    return ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script]


def check_rights() -> None:
    """Raise NotToBeHadError unless we are root, may mount, and have debootstrap."""
    if os.geteuid() != 0:
        raise NotToBeHadError("that needs root")
    for program in ("debootstrap", "unshare", "chroot", "mount"):
        if shutil.which(program) is None:
            raise NotToBeHadError(f"there is no {program} here")
    done = subprocess.run(
        in_namespace("mount --bind /proc /proc"), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise NotToBeHadError(f"mounts are refused here ({_last_line(done.stderr)})")


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no word")


class Debian:
    """A folder with a small Debian."""

    def __init__(self, folder: Path, versions: Sequence[str]) -> None:
        self.folder = folder
        # the Pythons in it, for example `"3.15"`
        self.versions = tuple(v for v in versions if (folder / f"usr/bin/python{v}").exists())
        # the Pythons that were asked for and that Debian lacks
        self.missing = tuple(v for v in versions if v not in self.versions)
        settings = pip_settings()
        self._variables = {
            **{name: text for name, text in os.environ.items() if KEPT_VARIABLES.fullmatch(name)},
            **settings,
            "HOME": "/root",
            "PATH": PATH,
        }
        # Paths in pip's settings are there too: folders are mounted, files copied.
        paths = paths_in(settings)
        self._folders = [ROOT, *(path for path in paths if path.is_dir())]
        for tests in os.environ.get("WASM_SPEC_TESTS", "").split(os.pathsep):
            if tests and Path(tests).is_dir():
                self._folders.append(Path(tests).resolve())
        for path in (*paths, *NETWORK):
            if path.is_file():
                self._copy(path)

    def _copy(self, path: Path) -> None:
        copied = self.folder / str(path).lstrip("/")
        copied.parent.mkdir(parents=True, exist_ok=True)
        copied.unlink(missing_ok=True)
        shutil.copyfile(path, copied)

    def command(self, command: Sequence[str]) -> list[str]:
        """Return the command that runs a given one in this Debian."""
        inside = shlex.quote(str(self.folder))
        script = [f"mount --rbind /{name} {inside}/{name}" for name in ("proc", "sys", "dev")]
        for folder in self._folders:
            place = shlex.quote(f"{self.folder}{folder}")
            script.append(f"mkdir -p {place}; mount --rbind {shlex.quote(str(folder))} {place}")
        enter = 'cd "$0" && exec "$@"'
        script.append(
            f"exec chroot {inside} /bin/sh -c {shlex.quote(enter)} "
            f"{shlex.quote(str(ROOT))} {shlex.join(command)}"
        )
        return in_namespace("\n".join(script))

    def run(self, command: Sequence[str]) -> int:
        """Run a command in this Debian, in the project's folder; return its exit status."""
        done = subprocess.run(self.command(command), env=self._variables, check=False)
        return done.returncode


def pip_settings() -> dict[str, str]:
    """Return this machine's settings of pip as environment variables."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    settings = {}
    for line in listed.stdout.splitlines():
        name, equals, value = line.partition("=")
        section, _, option = name.rpartition(".")
        if equals and section in ("global", "install", ":env:"):
            settings[f"PIP_{option.upper().replace('-', '_')}"] = str(ast.literal_eval(value))
    return settings


def paths_in(settings: dict[str, str]) -> list[Path]:
    """Return the paths that pip's settings name."""
    paths = []
    for name, text in settings.items():
        for word in text.split():
            path = Path(word.removeprefix("file://"))
            if not path.is_absolute():
                continue
            # Pages of an index name files in the folder above it.
            beside = name.endswith("INDEX_URL") and len(path.parent.parts) > 2
            paths.append(path.parent if beside else path)
    return list(dict.fromkeys(paths))


def make(folder: Path, versions: Sequence[str]) -> Debian:
    """Put a Debian with these Pythons into an empty folder, or use what is there.

    Raise NotToBeHadError if it cannot be made here, or Debian has none of the Pythons.
    """
    check_rights()
    if not (folder / "usr/bin").is_dir():
        _bootstrap(folder, mirror(), versions)
    debian = Debian(folder, versions)
    if not debian.versions:
        raise NotToBeHadError(f"Debian's {SUITE} has no Python {', '.join(versions)}")
    return debian


def _bootstrap(folder: Path, address: str, versions: Sequence[str]) -> None:
    packages = [*PACKAGES, *(name.format(v) for v in versions for name in PYTHON_PACKAGES)]
    while True:
        command = ["debootstrap", "--variant=minbase", f"--include={','.join(packages)}"]
        script = f"exec {shlex.join([*command, SUITE, str(folder), address])}"
        done = subprocess.run(
            in_namespace(script), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, text=True, errors="replace", check=False,
        )  # fmt: skip
        if not done.returncode:
            break
        absent = re.search(r"Couldn't find these debs: (.+)", done.stdout)
        rest = [name for name in packages if name not in absent[1].split()] if absent else packages
        if rest == packages:
            raise NotToBeHadError(f"debootstrap failed: {_last_line(done.stdout)}")
        packages = rest
    # debootstrap takes a Release file that has expired, as the mirror of a snapshot has; the
    # signatures are checked in any case.
    settings = folder / "etc/apt/apt.conf.d/99mirror"
    settings.write_text('Acquire::Check-Valid-Until "false";\n', encoding="ascii")


@contextlib.contextmanager
def temporary(versions: Sequence[str]) -> Iterator[Debian]:
    """Make a Debian in a temporary folder, which is removed in the end."""
    folder = Path(tempfile.mkdtemp(prefix="debian-"))
    try:
        yield make(folder, versions)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status, or 1 if a Python cannot be installed."""
    parser = argparse.ArgumentParser(description="Run a command with Pythons of Debian's sid.")
    parser.add_argument("--folder", type=Path, help="where to keep the Debian; must be root's")
    parser.add_argument("versions", nargs="+", help="for example 3.15")
    given = list(sys.argv[1:] if arguments is None else arguments)
    split = given.index("--") if "--" in given else len(given)
    options = parser.parse_args(given[:split])
    command = given[split + 1 :] or ["/bin/sh"]
    try:
        with contextlib.ExitStack() as stack:
            if options.folder is None:
                debian = stack.enter_context(temporary(options.versions))
            else:
                debian = make(options.folder.absolute(), options.versions)
            for version in debian.missing:
                print(f"Python {version}: Debian's {SUITE} has none", file=sys.stderr)
            return debian.run(command)
    except NotToBeHadError as reason:
        print(f"no Python {', '.join(options.versions)}: {reason}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
