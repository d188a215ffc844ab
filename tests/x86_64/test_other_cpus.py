"""The fallback on real Pythons for other machines: a big-endian one, and Arm.

They are Debian's, fetched by ``tools/foreign_python.py`` without touching the system, and kept in
the folder that ASM_LIBCALLS_FOREIGN_PYTHONS names, or else in pytest's cache.
"""

import os
from pathlib import Path

import pytest
from emulated import run_guest

from asm_libcalls.libcalls import DECLARATIONS
from foreign_python import NotToBeHad, foreign_python

MACHINES = {"s390x": ("s390x", "big"), "arm64": ("aarch64", "little")}


@pytest.fixture(scope="module", params=MACHINES)
def guest(request):
    """What a guest printed, and its machine's name and byte order."""
    named = os.environ.get("ASM_LIBCALLS_FOREIGN_PYTHONS")
    folder = Path(named) if named else request.config.cache.mkdir("foreign-pythons")
    try:
        command = foreign_python(request.param, folder)
    except NotToBeHad as reason:
        pytest.skip(str(reason))
    return run_guest(command), MACHINES[request.param]


def test_it_is_that_machine(guest):
    verdict, (machine, byteorder) = guest
    assert verdict["byteorder"] == byteorder
    assert verdict["report"]["machine"] == f"{machine}, linux, {byteorder}-endian"


def test_the_fallback_serves_and_says_why(guest):
    verdict, (machine, _) = guest
    reason = f"this Python runs on {machine} (64 bits), not on x86-64"
    assert verdict["report"]["x86_64"] == reason
    assert verdict["report"]["libcalls"] == {
        name: {"backend": "fallback", "reason": reason} for name in DECLARATIONS
    }
    assert verdict["code"] == {}


def test_without_qemu(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotToBeHad, match="install Debian's package qemu-user-static"):
        foreign_python("s390x", tmp_path / "pythons")


@pytest.mark.parametrize(
    ("programs", "reason"),
    [
        ({}, "no apt-get: the packages are Debian's"),
        (
            {"apt-get": "echo E: nothing to be had >&2; exit 100", "dpkg-deb": "exit 0"},
            "apt-get install failed: E: nothing to be had",
        ),
        ({"apt-get": "exit 0", "dpkg-deb": "exit 0"}, r"no usr/bin/python3\.\* among the packages"),
    ],
    ids=["no apt", "no network", "no Python"],
)
def test_foreign_python_that_can_not_be_had(programs, reason, tmp_path, monkeypatch):
    """The error has the reason, and no incomplete folder is left."""
    for name, script in {"qemu-s390x-static": "exit 0", **programs}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    folder = tmp_path / "pythons"
    with pytest.raises(NotToBeHad, match=reason):
        foreign_python("s390x", folder)
    assert list(folder.iterdir()) == []
