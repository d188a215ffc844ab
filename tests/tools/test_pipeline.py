"""The files, targets and extras that continuous integration, tools and a page name exist."""

import re
from pathlib import Path

import pytest
from child_process import run_program

import other_pythons
import valgrind_tests

ROOT = Path(__file__).resolve().parents[2]
WORKFLOW = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
RUN = (ROOT / ".ci" / "run").read_text(encoding="utf-8")


@pytest.mark.parametrize("text", [WORKFLOW, RUN], ids=["workflow", "run"])
def test_make_has_the_targets(text):
    targets = set(re.findall(r"\bmake ([a-z-]+)", text))
    assert {"lint", "docs", "test-wheel", "test"} <= targets
    run_program("make", "--dry-run", *targets, folder=ROOT)


@pytest.mark.parametrize("text", [WORKFLOW, RUN], ids=["workflow", "run"])
def test_every_extra_is_installed(text):
    """But for PeachPy's, which set-up brings by itself, and what one fuzzes with by hand."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    [table] = re.findall(r"^\[project\.optional-dependencies\]\n(.*?)^\[", project, re.M | re.S)
    extras = set(re.findall(r"^(\w+) = \[", table, re.M)) - {"assembler", "fuzz"}
    [installed] = re.findall(r"tools/set_up\.py --venv \.venv (.*)", text)
    assert set(installed.split()) == extras


def test_the_matrix_has_every_version():
    [matrix] = re.findall(r"python: \[(.*)\]", WORKFLOW)
    assert re.findall(r"[\d.]+", matrix) == other_pythons.supported_versions()


PROOF = (ROOT / "docs" / "proof.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "named",
    [
        [f"tests/{name}" for name in other_pythons.INDEPENDENT],
        [*valgrind_tests.TESTS, valgrind_tests.STRESS],
        re.findall(r"\b(?:tests|tools)/[\w/]+\.\w+", PROOF),
    ],
    ids=["left out on other Pythons", "run under valgrind", "the page on testing"],
)
def test_files_that_are_named_are_there(named):
    assert named
    assert [name for name in named if not (ROOT / name).is_file()] == []


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Make programs on a PATH of their own."""

    def make(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return str(path)

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(other_pythons, "supported_versions", lambda: ["3.98", "3.99"])
    return make


def test_pythons_are_found_on_the_path_and_by_pyenv(machine, tmp_path):
    assert other_pythons.other_pythons() == {"3.98": "", "3.99": ""}
    machine("python3.98", "echo pyenv: python3.98: command not found >&2; exit 127")
    machine("python3.99", "echo cpython 3 98")
    machine("python3", "echo pypy 3 98")
    assert other_pythons.other_pythons() == {"3.98": "", "3.99": ""}
    machine("pyenv", f"echo {tmp_path}")
    machine("versions/3.98.9/bin/python", "echo cpython 3 98")
    machine("versions/3.99/bin/python", "echo cpython 3 99")
    python = machine("versions/3.98.10/bin/python", "echo cpython 3 98")
    found = other_pythons.other_pythons()
    assert found["3.98"] in (python, python.replace("3.98.10", "3.98.9"))
    there = machine("python3", "echo cpython 3 99")
    assert other_pythons.other_pythons()["3.99"] == there


def test_builds_without_the_gil_are_tested_where_they_are_found(machine, tmp_path):
    machine("python3.99", "echo cpython 3 99 t")  # as of Fedora's python3.99-freethreading
    assert other_pythons.other_pythons() == {"3.98": "", "3.99": ""}
    there = machine("python3.99t", "echo cpython 3 99 t")
    assert other_pythons.other_pythons() == {"3.98": "", "3.99": "", "3.99t": there}
    machine("pyenv", f"echo {tmp_path}")
    there = machine("versions/3.98.1t/bin/python", "echo cpython 3 98 t")
    assert other_pythons.other_pythons()["3.98t"] == there
    assert other_pythons.other_pythons()["3.98"] == ""


@pytest.mark.parametrize("status", [0, 2])
def test_all_that_are_found_are_tested(machine, monkeypatch, capfd, status):
    python = machine("python3.98", "echo cpython 3 98")
    machine("make", f'echo "make $*"; exit {status}')
    monkeypatch.setattr(other_pythons, "INDEPENDENT", {"test_x.py": "sources"})
    assert other_pythons.main(["-k", "one or two"]) == (1 if status else 0)
    said = capfd.readouterr()
    ignoring = "ARGS=--ignore=tests/test_x.py -k 'one or two'"
    assert said.out.splitlines() == [
        f"Python 3.98: {python}",
        f"make PYTHON={python} VENV=.venv-3.98 {ignoring} test",
        "Python 3.99: not found: NOT TESTED",
        "Python without the GIL: not found: NOT TESTED",
    ]
    assert said.err == ("the tests fail on Python 3.98\n" if status else "")
