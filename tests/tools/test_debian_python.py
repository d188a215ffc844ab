"""Pythons from Debian: errors name what is missing, the folder is complete, mounts end.

Nothing is downloaded: the programs that do the work stand in for themselves on a PATH of their own.
"""

import functools
import http.server
import os
import subprocess
import threading

import pytest

import debian_python
import other_pythons
from debian_python import NotToBeHadError


@pytest.fixture
def programs(monkeypatch, tmp_path):
    """Make programs on a PATH that has no others; we are root."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def make(name, text="exit 0"):
        path = folder / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return make


@pytest.fixture
def server(tmp_path):
    """Serve a folder: its address, and the folder."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", folder
        running.shutdown()


def release(folder, origin):
    path = folder / "dists" / debian_python.SUITE / "Release"
    path.parent.mkdir(parents=True)
    path.write_text(f"Origin: {origin}\nSuite: unstable\n")


def test_the_mirror_is_the_first_of_apts_that_has_the_suite(programs, server, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    address, folder = server
    release(folder / "other", "Another")
    release(folder / "debian", "Debian")
    programs("apt-get", f"printf '%s\\n' {address}/none {address}/other/ {address}/debian/ x:y")
    assert debian_python.mirror() == f"{address}/debian/"
    programs("apt-get", f"printf '%s\\n' {address}/none {address}/other")
    with pytest.raises(NotToBeHadError, match=r"none of apt's sources .*404.*is not Debian's"):
        debian_python.mirror()
    programs("apt-get")
    with pytest.raises(NotToBeHadError, match="it has none"):
        debian_python.mirror()


def test_without_apt_there_is_no_mirror(programs):
    with pytest.raises(NotToBeHadError, match="no apt"):
        debian_python.mirror()


def test_what_is_missing_is_said(programs, monkeypatch, tmp_path):
    def refusal():
        with pytest.raises(NotToBeHadError) as raised:
            debian_python.make(tmp_path / "debian", ["3.99"])
        return str(raised.value)

    needed = ("debootstrap", "unshare", "chroot", "mount")
    for name in needed:
        assert refusal() == f"there is no {name} here"
        programs(name)
    programs("unshare", "echo 'unshare: Operation not permitted' >&2; exit 1")
    assert refusal() == "mounts are refused here (unshare: Operation not permitted)"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert refusal() == "that needs root"


# As the real one is called: unshare --mount --propagation private sh -ec SCRIPT
RUN_SCRIPT = 'case "$6" in *bind*) exit 0;; *) exec /bin/sh -ec "$6";; esac'
BOOTSTRAP = """
for last in "$@"; do :; done
echo "$@" >> {log}
/bin/mkdir -p {folder}/usr/bin {folder}/etc/apt/apt.conf.d
case "$*" in
    *python3.98*)
        echo "E: Couldn't find these debs: python3.98 python3.98-dev python3.98-venv"
        exit 1;;
esac
echo > {folder}/usr/bin/python3.99
"""


@pytest.fixture
def debootstrap(programs, monkeypatch, tmp_path):
    """Make all programs but debootstrap, which is given as a text; return the folder."""
    folder = tmp_path / "debian"
    for name in ("chroot", "mount"):
        programs(name)
    programs("unshare", RUN_SCRIPT)
    monkeypatch.setattr(debian_python, "mirror", lambda: "http://mirror/debian")

    def make(text):
        programs("debootstrap", text.format(log=tmp_path / "log", folder=folder))
        return folder

    return make


def test_a_python_that_debian_has_not_got_is_left_out(debootstrap, tmp_path):
    folder = debootstrap(BOOTSTRAP)
    made = debian_python.make(folder, ["3.98", "3.99"])
    assert (made.versions, made.missing) == (("3.99",), ("3.98",))
    first, second = (tmp_path / "log").read_text().splitlines()
    assert "python3.98-venv" in first
    assert "3.98" not in second
    assert "python3.99-venv" in second
    assert second.endswith(f" sid {folder} http://mirror/debian")
    # It is used again as it is.
    assert debian_python.make(folder, ["3.99"]).versions == ("3.99",)
    assert len((tmp_path / "log").read_text().splitlines()) == 2
    with pytest.raises(NotToBeHadError, match=r"has no Python 3\.97"):
        debian_python.make(folder, ["3.97"])


def test_a_failure_of_debootstrap_is_told_by_its_last_line(debootstrap):
    folder = debootstrap("echo I: Retrieving; echo E: no space left on device; exit 1")
    with pytest.raises(NotToBeHadError, match="debootstrap failed: E: no space left on device"):
        debian_python.make(folder, ["3.99"])


def test_what_pips_settings_name_is_in_there_too(debootstrap, monkeypatch, tmp_path):
    wheels, constraints = tmp_path / "wheels", tmp_path / "constraints.txt"
    wheels.mkdir()
    constraints.write_text("x==1\n")
    settings = {
        "PIP_FIND_LINKS": f"file://{wheels} https://host/x",
        "PIP_CONSTRAINT": str(constraints),
        "PIP_EXTRA_INDEX_URL": f"https://host/simple file://{tmp_path}/index/simple",
    }
    (tmp_path / "index").mkdir()
    monkeypatch.setattr(debian_python, "pip_settings", lambda: settings)
    folder = debootstrap(BOOTSTRAP)
    made = debian_python.make(folder, ["3.99"])
    assert (folder / str(constraints)[1:]).read_text() == "x==1\n"
    script = made.command(["make", "test", "ARGS=-k 'one or two'"])[-1]
    assert f"mount --rbind {wheels} {folder}{wheels}\n" in script
    assert f"mount --rbind {tmp_path}/index {folder}{tmp_path}/index\n" in script
    assert f"mount --rbind {debian_python.ROOT} {folder}{debian_python.ROOT}\n" in script
    # It is the shell's own words that come out again.
    said = script.replace(f"exec chroot {folder} /bin/sh -c", "printf '%s|'")
    last = subprocess.run(
        ["/bin/sh", "-ec", said.splitlines()[-1]], capture_output=True, text=True, check=True
    )
    enter = 'cd "$0" && exec "$@"'
    assert last.stdout == f"{enter}|{debian_python.ROOT}|make|test|ARGS=-k 'one or two'|"


def test_pips_settings_become_variables(programs, monkeypatch):
    programs(
        "python",
        r"""printf '%s\n' "global.extra-index-url='a\nb'" ":env:.cert='/c'" "freeze.x='1'" noise""",
    )
    monkeypatch.setattr(debian_python.sys, "executable", "python")
    assert debian_python.pip_settings() == {"PIP_EXTRA_INDEX_URL": "a\nb", "PIP_CERT": "/c"}


def test_a_temporary_debian_is_removed_whatever_happens(debootstrap, monkeypatch, tmp_path):
    folder = debootstrap(BOOTSTRAP)
    monkeypatch.setattr(debian_python.tempfile, "mkdtemp", lambda prefix: str(folder))
    seen = []

    def fail():
        with debian_python.temporary(["3.99"]):
            seen.append(folder.is_dir())
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fail()
    assert seen == [True]
    assert not folder.exists()


@pytest.mark.parametrize("status", [0, 2])
def test_other_pythons_come_from_debian_if_asked(debootstrap, monkeypatch, capfd, status):
    folder = debootstrap(BOOTSTRAP)
    monkeypatch.setattr(debian_python.tempfile, "mkdtemp", lambda prefix: str(folder))
    monkeypatch.setattr(other_pythons, "other_pythons", lambda: {"3.98": "", "3.99": ""})
    monkeypatch.setattr(other_pythons, "INDEPENDENT", {"test_x.py": "sources"})
    ran = []
    monkeypatch.setattr(
        debian_python.Debian, "run", lambda _, command: ran.append(command) or status
    )
    assert other_pythons.main(["--debian", "-n", "2"]) == (1 if status else 0)
    options = "ARGS=--ignore=tests/test_x.py -n 2"
    assert ran == [["make", "PYTHON=python3.99", "VENV=.venv-3.99", options, "test"]]
    said = capfd.readouterr()
    assert said.out.splitlines() == [
        "Python 3.99: of Debian's sid",
        "Python 3.98: not found, Debian's sid has none: NOT TESTED",
        "Python without the GIL: not found: NOT TESTED",
    ]
    assert said.err == ("the tests fail on Python 3.99\n" if status else "")


def test_other_pythons_say_why_debian_does_not_serve(programs, monkeypatch, capfd):
    monkeypatch.setattr(other_pythons, "other_pythons", lambda: {"3.99": ""})
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert other_pythons.main(["--debian"]) == 0
    assert capfd.readouterr().out == (
        "Python 3.99: not found, not to be had from Debian: that needs root: NOT TESTED\n"
        "Python without the GIL: not found: NOT TESTED\n"
    )


def test_a_command_is_run_with_a_python_of_debians(debootstrap, monkeypatch, capfd):
    folder = debootstrap(BOOTSTRAP)
    ran = []
    monkeypatch.setattr(debian_python.Debian, "run", lambda _, command: ran.append(command) or 3)
    arguments = ["--folder", str(folder), "3.98", "3.99", "--", "make", "test"]
    assert debian_python.main(arguments) == 3
    assert ran == [["make", "test"]]
    assert folder.is_dir()
    assert capfd.readouterr().err == "Python 3.98: Debian's sid has none\n"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert debian_python.main(["3.99"]) == 1
    assert capfd.readouterr().err == "no Python 3.99: that needs root\n"
