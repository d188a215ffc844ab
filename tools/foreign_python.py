"""Unpack Debian's Python for another architecture into a folder, to run it under qemu-user.

``python3 tools/foreign_python.py s390x FOLDER`` prints the command that runs it. Nothing of the
system changes: apt works with lists, cache and package status of its own (the sources and keys are
the system's), and the packages are unpacked, not installed. It needs ``apt-get``,
``dpkg-deb`` and the network, and Debian's ``qemu-user-static`` to run Python.

The tests use it to run the fallback on a big-endian and on an Arm machine; see
``tests/x86_64/test_other_cpus.py``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

# Debian's name of an architecture -> qemu's.
QEMU_NAMES = {"s390x": "s390x", "arm64": "aarch64", "ppc64el": "ppc64le", "riscv64": "riscv64"}

# apt adds what they depend on: the C library, libffi for ctypes, and so on.
PACKAGES = ("python3-minimal", "libpython3-stdlib")


class NotToBeHad(Exception):
    """The foreign Python cannot be unpacked or run here; the message says why and what to do."""


def foreign_python(architecture: str, folder: Path) -> list[str]:
    """Return the command that runs Python of `architecture`, fetching it if it is missing.

    `architecture` is Debian's name, a key of :data:`QEMU_NAMES`. `folder` has the Pythons, each in
    a folder of its own, which is complete if it exists. Raise NotToBeHad if qemu-user or apt is
    missing, or the packages cannot be downloaded.
    """
    qemu = shutil.which(f"qemu-{QEMU_NAMES[architecture]}-static")
    if qemu is None:
        raise NotToBeHad(
            f"no qemu-{QEMU_NAMES[architecture]}-static: install Debian's package qemu-user-static"
        )
    root = folder / architecture
    if not root.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{architecture}-", dir=folder) as temporary:
            work = Path(temporary)
            _unpack(_download(architecture, work), work / "root")
            _interpreter(work / "root")
            try:
                (work / "root").rename(root)
            except OSError:
                if not root.is_dir():  # else another process was faster
                    raise
    return [qemu, "-L", str(root), str(_interpreter(root))]


def _interpreter(root: Path) -> Path:
    # /usr/bin/python3 is a link to it, of a package whose scripts have not run.
    found = sorted((root / "usr/bin").glob("python3.*[0-9]"))
    if not found:
        raise NotToBeHad("no usr/bin/python3.* among the packages")
    return found[0]


def _download(architecture: str, work: Path) -> list[Path]:
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise NotToBeHad(f"no {program}: the packages are Debian's")
    for name in ("state/lists/partial", "cache/archives/partial"):
        (work / name).mkdir(parents=True)
    (work / "status").touch()  # nothing is installed, so apt downloads all dependencies
    options = {
        "APT::Architecture": architecture,
        "APT::Architectures::": architecture,
        "APT::Sandbox::User": "",  # the folder may be one that the user _apt cannot enter
        "Acquire::Languages": "none",
        "Acquire::Retries": "2",
        "Acquire::http::Timeout": "30",
        "Dir::State": work / "state",
        "Dir::State::status": work / "status",
        "Dir::Cache": work / "cache",
        "Debug::NoLocking": "true",
    }
    configuration = work / "apt.conf"
    # Read after the system's own configuration, whose list of architectures it replaces.
    configuration.write_text(
        "#clear APT::Architectures;\n"
        + "".join(f'{name} "{value}";\n' for name, value in options.items())
    )
    # update warns of a source without packages for this architecture, and goes on.
    complaint = _run(["apt-get", "update", "-q"], configuration, check=False)
    install = ["install", "-q", "-y", "--download-only", "--no-install-recommends", *PACKAGES]
    try:
        _run(["apt-get", *install], configuration)
    except NotToBeHad as refusal:
        raise NotToBeHad(f"{refusal} {complaint}".strip()) from None
    return sorted((work / "cache/archives").glob("*.deb"))


def _run(command: Sequence[str], configuration: Path, *, check: bool = True) -> str:
    done = subprocess.run(
        command,
        env={**os.environ, "APT_CONFIG": str(configuration), "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith(("E:", "W:"))]
    complaint = " ".join(lines[-2:])
    if check and done.returncode:
        raise NotToBeHad(f"{command[0]} {command[1]} failed: {complaint}")
    return complaint


def _unpack(packages: Sequence[Path], root: Path) -> None:
    root.mkdir()
    for package in packages:
        done = subprocess.run(
            ["dpkg-deb", "-x", str(package), str(root)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise NotToBeHad(f"{package.name} cannot be unpacked: {done.stderr.strip()}")
    # qemu looks for a path in the folder first, but the system follows a link, to this machine's
    # own files if the link is absolute.
    for path in root.rglob("*"):
        if path.is_symlink() and path.readlink().is_absolute():
            target = root / path.readlink().relative_to("/")
            path.unlink()
            path.symlink_to(os.path.relpath(target, path.parent))


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch the Python that the command line names and print how to run it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("architecture", choices=sorted(QEMU_NAMES))
    parser.add_argument("folder", type=Path)
    options = parser.parse_args(arguments)
    try:
        print(*foreign_python(options.architecture, options.folder.resolve()))
    except NotToBeHad as reason:
        print(f"foreign_python: {reason}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
