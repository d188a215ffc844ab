"""The set-up program, on a make-believe machine.

`apt-get`, `dpkg-deb`, pip and the interpreter that makes environments are stubs that log what they
are asked, so every way to PeachPy, and every way to fail, is taken without a network. The
environment's own Python is the real one: whether a PeachPy can be imported is really tried.
"""

import json
import os
import sys
from pathlib import Path

import pytest

import set_up

PIP = """\
import pathlib, shutil, sys
machine, site = pathlib.Path({machine!r}), pathlib.Path({site!r})
arguments = [a for a in sys.argv[1:] if a not in ("--quiet", "--disable-pip-version-check")]
with (machine / "log").open("a") as log:
    print("pip", *arguments, file=log)
if "--no-index" in arguments:  # run from a wheel, to install itself
    shutil.copytree(pathlib.Path(__file__).parent, site / "pip")
elif "--editable" in arguments and (machine / "no-index").exists():
    sys.exit("ERROR: No matching distribution found for rich\\nhint: look elsewhere")
elif "six" in arguments:
    (site / "six.py").touch()
if arguments[-1].startswith("git+"):
    if not (machine / "repository").exists():
        sys.exit("fatal: unable to access the repository\\nnote: not a problem with pip")
    shutil.copytree(machine / "repository", site, dirs_exist_ok=True)
"""

# An environment in a few files, made at once: `-m venv` with its ensurepip takes seconds.
BASE = """\
#!/bin/sh
PATH=/usr/bin:/bin
echo "base $*" >> {machine}/log
case "$*" in
    *--without-pip*) ;;
    *) [ -e {machine}/no-ensurepip ] && {{ echo "ensurepip is not available" >&2; exit 1; }} ;;
esac
mkdir -p {venv}/bin {site}
ln -s {python} {venv}/bin/python
printf "home = {home}\\ninclude-system-site-packages = false\\n" > {venv}/pyvenv.cfg
[ -e {machine}/no-ensurepip ] || cp -r {machine}/pip {site}
[ ! -e {machine}/installed ] || cp -r {machine}/installed/. {site}
"""

APT_GET = """\
#!/bin/sh
PATH=/usr/bin:/bin
while [ "$1" = -o ]; do shift 2; done
echo "apt-get $*" >> {machine}/log
case "$1" in
    update) [ ! -e {machine}/no-update ] && touch {machine}/lists ;;
    download) [ -e {machine}/lists ] && [ -e {machine}/debian/"$2" ] && : > "$2_1.0_all.deb" ;;
esac || {{ echo "E: apt-get will not $*" >&2; exit 100; }}
"""

DPKG_DEB = """\
#!/bin/sh
PATH=/usr/bin:/bin
archive=${{2##*/}}
cp -r {machine}/debian/"${{archive%%_*}}" "$3"
"""


def write(path: Path, text: str = "", mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def put_peachpy(folder: Path, version: str = "0.2.0", body: str = "import six") -> None:
    """Write a PeachPy of which only peachpy.x86_64 is ever imported."""
    write(folder / "peachpy/__init__.py")
    write(folder / "peachpy/arm.py", r"'\(' # a warning, where it is compiled")
    write(folder / "peachpy/x86_64/__init__.py", body)
    write(folder / f"PeachPy-{version}.egg-info/PKG-INFO", f"Name: PeachPy\nVersion: {version}\n")


class Machine:
    """A Debian machine: all its tools, full package lists, PeachPy in Debian, no repository."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.venv = folder / "checkout" / ".venv"
        self.site = set_up.Environment(self.venv).site_packages
        base = Path(set_up.Environment(self.venv).base)
        names = {
            "machine": str(folder),
            "venv": self.venv,
            "site": str(self.site),
            "python": base,
            "home": base.parent,
        }
        write(folder / "base", BASE.format(**names), 0o755)
        write(folder / "bin/apt-get", APT_GET.format(**names), 0o755)
        write(folder / "bin/dpkg-deb", DPKG_DEB.format(**names), 0o755)
        write(folder / "pip/__main__.py", PIP.format(**names))
        write(folder / "lists")
        packages = folder / "debian/python3-peachpy/usr/lib/python3/dist-packages"
        put_peachpy(packages)
        write(packages / "unrelated.py")

    def has(self, name: str) -> None:
        write(self.folder / name)

    def lacks(self, name: str) -> None:
        (self.folder / name).rename(self.folder / f"{name}-gone")

    def calls(self) -> list[str]:
        """Return what the stubs were asked since the last time."""
        log = self.folder / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines

    def set_up(self, *extras: str) -> int:
        return set_up.main(["--venv", str(self.venv), *(extras or ["cli"])])


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(sys, "_base_executable", str(tmp_path / "base"))
    return machine


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out.splitlines()[-1]


# The three ways to PeachPy, and their order


def test_peachpy_that_is_there_is_taken_first(machine, capsys):
    put_peachpy(machine.folder / "installed", body="")
    put_peachpy(machine.folder / "repository")
    assert machine.set_up() == 0
    assert last_line(capsys) == "set-up: PeachPy 0.2.0 (found in the environment)"
    assert not [call for call in machine.calls() if call.startswith("apt-get") or "git+" in call]


def test_debian_is_taken_second(machine, capsys):
    put_peachpy(machine.folder / "repository")
    assert machine.set_up() == 0
    assert last_line(capsys) == "set-up: PeachPy 0.2.0 (Debian's python3-peachpy)"
    assert not [call for call in machine.calls() if "update" in call or "git+" in call]
    assert (machine.site / "PeachPy-0.2.0.egg-info").is_dir()
    assert not (machine.site / "unrelated.py").exists()


@pytest.mark.parametrize("missing", ["bin/apt-get", "bin/dpkg-deb", "debian/python3-peachpy"])
def test_the_repository_is_taken_third(machine, capsys, missing):
    put_peachpy(machine.folder / "repository")
    machine.lacks(missing)
    assert machine.set_up() == 0
    assert last_line(capsys) == "set-up: PeachPy 0.2.0 (its repository)"


def test_a_peachpy_of_debian_that_cannot_be_imported_gives_way(machine, capsys):
    put_peachpy(
        machine.folder / "debian/python3-peachpy/usr/lib/python3/dist-packages", body="1 / 0"
    )
    put_peachpy(machine.folder / "repository")
    assert machine.set_up() == 0
    assert last_line(capsys) == "set-up: PeachPy 0.2.0 (its repository)"


def test_nothing_is_left_of_a_peachpy_that_cannot_be_imported(machine, capsys):
    machine.lacks("debian/python3-peachpy")
    put_peachpy(machine.folder / "repository", body="1 / 0")
    assert machine.set_up() == 0
    assert "ZeroDivisionError" in last_line(capsys)
    assert not list(machine.site.glob("[Pp]each[Pp]y*"))


def test_without_peachpy_set_up_succeeds_and_says_why_in_one_line(machine, capsys):
    machine.lacks("debian/python3-peachpy")
    assert machine.set_up() == 0
    line = last_line(capsys)
    assert line.startswith("set-up: no PeachPy, so the pure-Python fallback serves (")
    assert "E: apt-get will not download python3-peachpy" in line
    assert "fatal: unable to access the repository" in line
    assert "make clean" in line


def test_a_missing_peachpy_is_looked_for_again_only_in_the_environment(machine, capsys):
    machine.lacks("debian/python3-peachpy")
    machine.set_up()
    machine.calls()
    assert machine.set_up() == 0
    assert last_line(capsys).endswith("no PeachPy: the pure-Python fallback serves")
    assert machine.calls() == []
    put_peachpy(machine.site)  # by the user's hand
    write(machine.site / "six.py")
    assert machine.set_up() == 0
    assert last_line(capsys) == "set-up: PeachPy 0.2.0 (found in the environment)"


@pytest.mark.parametrize("debian", [True, False])
def test_peachpy_for_python_2_is_thrown_out_and_never_installed(machine, capsys, debian):
    put_peachpy(machine.folder / "installed", "0.0.1", body="")
    if not debian:
        machine.lacks("debian/python3-peachpy")
    assert machine.set_up("cli", "test") == 0
    line = last_line(capsys)
    assert ("PeachPy 0.2.0" in line) if debian else ("0.0.1 is for Python 2" in line)
    assert not list(machine.site.glob("PeachPy-0.0.1*"))
    # Neither by its name nor by the extra that asks for it: an index would offer 0.0.1.
    installs = [call for call in machine.calls() if call.startswith("pip") and "git+" not in call]
    assert installs
    assert not [call for call in installs if "peachpy" in call or "assembler" in call]


@pytest.mark.parametrize("way", ["installed", "repository", "debian"])
def test_peachpy_is_byte_compiled_whatever_the_user_set(machine, monkeypatch, way):
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    if way != "debian":
        put_peachpy(machine.folder / way, body="")
        machine.lacks("debian/python3-peachpy")
    assert machine.set_up() == 0
    # `arm` is imported by nothing here, so an import has not compiled it.
    assert list(machine.site.glob("peachpy/__pycache__/arm.*.pyc"))


# Debian's package lists


def test_empty_package_lists_are_filled_first(machine, capsys):
    machine.lacks("lists")
    assert machine.set_up() == 0
    assert last_line(capsys) == "set-up: PeachPy 0.2.0 (Debian's python3-peachpy)"
    asked = [call.split()[1] for call in machine.calls() if call.startswith("apt-get")]
    assert asked == ["download", "update", "download"]


def test_lists_that_may_not_be_filled_are_named(machine, capsys):
    machine.lacks("lists")
    machine.has("no-update")
    assert machine.set_up() == 0
    assert "`apt-get update` may help, as root" in last_line(capsys)


@pytest.mark.parametrize(("user", "silenced"), [(0, True), (1000, False)])
def test_apt_downloads_as_root_where_root_asks(monkeypatch, tmp_path, user, silenced):
    commands = []
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(set_up, "run", lambda *command, cwd=None: commands.append(command))
    write(tmp_path / "x_1_all.deb")
    set_up.unpack_debian_package("x", tmp_path)
    assert ("APT::Sandbox::User=root" in commands[0]) is silenced


# The environment


def test_without_the_gil_what_needs_it_is_left_out(machine, monkeypatch):
    monkeypatch.setattr(set_up, "HAS_GIL", False)
    assert machine.set_up("bench", "test") == 0
    [call] = [call for call in machine.calls() if "--editable" in call]
    words = call.split()
    assert words[:5] == ["pip", "install", "--prefer-binary", "--editable", str(set_up.ROOT)]
    assert not [name for name in set_up.NOT_WITHOUT_GIL if name in words]
    assert not [name for name in ("gevent", "greenlet") if any(name in word for word in words)]
    # Those of `cli`, which `test` names, are there too.
    assert {"pytest>=9", "matplotlib", "rich>=13"} <= set(words)


def test_done_once(machine, capsys):
    machine.set_up("cli", "test")
    machine.calls()
    assert machine.set_up("test") == 0
    assert machine.calls() == []
    assert last_line(capsys).endswith("is ready, with PeachPy 0.2.0 (Debian's python3-peachpy)")


def test_another_extra_is_added_to_those_that_are_there(machine, monkeypatch):
    monkeypatch.setattr(set_up, "HAS_GIL", True)
    machine.set_up("test")
    machine.calls()
    machine.set_up("lint")
    assert machine.calls() == [f"pip install --editable {set_up.ROOT}[lint,test]"]


@pytest.mark.parametrize("field", ["sources", "interpreter"])
def test_what_changed_decides_what_is_done_again(machine, field):
    machine.set_up()
    machine.calls()
    stamp = machine.venv / ".stamp"
    stamp.write_text(json.dumps({**json.loads(stamp.read_text()), field: "another"}))
    assert machine.set_up() == 0
    calls = machine.calls()
    assert any(call.startswith("base") for call in calls) is (field == "interpreter")
    assert any("--editable" in call for call in calls)


def test_an_environment_without_a_readable_stamp_is_made_anew(machine):
    machine.set_up()
    (machine.venv / "left-over").touch()
    (machine.venv / ".stamp").write_text("{")
    assert machine.set_up() == 0
    assert not (machine.venv / "left-over").exists()


def test_a_failed_installation_is_told_and_tried_again(machine, capsys):
    machine.has("no-index")
    assert machine.set_up() == 1
    assert "No matching distribution found for rich" in capsys.readouterr().err
    machine.lacks("no-index")
    machine.calls()
    assert machine.set_up() == 0
    assert not [call for call in machine.calls() if call.startswith("base")]


def test_pip_comes_from_debian_where_ensurepip_is_missing(machine):
    machine.has("no-ensurepip")
    wheel = machine.folder / "debian/python3-pip-whl/usr/share/python-wheels/pip-1.0.whl"
    write(wheel / "pip/__main__.py", (machine.folder / "pip/__main__.py").read_text())
    assert machine.set_up() == 0
    [call] = [call for call in machine.calls() if "--editable" in call]
    assert call.startswith("pip install ")


def test_without_any_pip_the_user_is_told_what_to_install(machine, capsys):
    machine.has("no-ensurepip")
    assert machine.set_up() == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "Install python3-venv" in line


def test_a_folder_that_is_no_environment_is_not_touched(machine, capsys):
    write(machine.venv / "thesis.txt")
    assert machine.set_up() == 1
    assert "not touched" in capsys.readouterr().err
    assert (machine.venv / "thesis.txt").exists()


def test_a_python_that_is_too_old_is_told(machine, capsys, monkeypatch):
    monkeypatch.setattr(set_up, "MINIMUM_PYTHON", (99, 0))
    assert machine.set_up() == 1
    assert "make PYTHON=" in capsys.readouterr().err
    assert machine.calls() == []


@pytest.mark.parametrize(
    ("output", "line"),
    [
        ("ERROR: no such thing\nhint: another", "ERROR: no such thing"),
        ("  fatal: no host\n  [end of output]\nERROR: git failed\n", "fatal: no host"),
        ("see a fatal: one\nERROR: another", "ERROR: another"),
        ("W: old\nE: Unable to locate package x\n", "E: Unable to locate package x"),
        ("Traceback:\nImportError: no six\n\n", "ImportError: no six"),
        ("", ""),
    ],
)
def test_the_most_telling_line(output, line):
    assert set_up.most_telling_line(output) == line


def test_the_documentation_says_where_peachpy_comes_from():
    page = Path(set_up.__file__).parent.parent / "docs" / "writing_a_jit.md"
    text = page.read_text("utf-8")
    parts = [set_up.PEACHPY_REPOSITORY, set_up.PEACHPY_DEBIAN_PACKAGE]
    for part in (*parts, *set_up.PEACHPY_BUILD_REQUIREMENTS):
        assert part in text
