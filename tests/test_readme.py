"""The README: its programs and commands run, and print what it shows."""

from __future__ import annotations

import doctest
import re
import shlex
from pathlib import Path

import pytest
from child_process import run_child, run_program, run_python
from command_line import run

from asm_libcalls import LIBCALLS, backend_report

REPOSITORY = Path(__file__).resolve().parent.parent
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
INDENTED = re.findall(
    r"(?:^    .*\n)+", re.sub(r"^```.*?^```$", "", README, flags=re.M | re.S), re.M
)


def blocks(language: str) -> list[str]:
    return [text for found, text in BLOCKS if found == language]


def test_every_block_is_of_a_kind_that_is_run() -> None:
    assert {language for language, _ in BLOCKS} == {"pycon", "python", "console"}
    assert len(blocks("pycon")) >= 2
    assert len(blocks("python")) >= 2
    assert len(blocks("console")) >= 3


@pytest.mark.parametrize("backend", ["auto", "fallback"])
def test_the_sessions_show_what_python_prints(backend: str, tmp_path: Path) -> None:
    """All sessions run in one new process, each with the names of those before it."""
    (tmp_path / "sessions.txt").write_text("\n".join(blocks("pycon")))
    done = run_child(
        "import doctest; print(doctest.testfile('sessions.txt', module_relative=False))",
        folder=tmp_path,
        variables={"ASM_LIBCALLS_BACKEND": backend},
    )
    examples = len(doctest.DocTestParser().get_examples("\n".join(blocks("pycon"))))
    assert done.stdout == f"TestResults(failed=0, attempted={examples})\n"


@pytest.mark.parametrize("backend", ["auto", "fallback"])
@pytest.mark.parametrize("index", range(len(blocks("python"))))
def test_the_programs_run(index: int, backend: str, tmp_path: Path) -> None:
    """Programs with functions named test_... run under pytest, others as scripts."""
    program = blocks("python")[index]
    machine_code = backend == "auto" and LIBCALLS["f64_ceil"].backend == "x86_64"
    if "toy_jit" in program and not machine_code:
        done = run_child(
            program, folder=tmp_path, variables={"ASM_LIBCALLS_BACKEND": backend}, exit_status=1
        )
        assert "toy_jit needs machine code" in done.stderr  # as its section says
    elif "def test_" in program:
        (tmp_path / "test_snippet.py").write_text(program)
        done = run_python(
            *("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_snippet.py"),
            folder=tmp_path,
            variables={"ASM_LIBCALLS_BACKEND": backend},
        )
        assert f"{program.count('def test_')} passed" in done.stdout
    else:
        run_child(program, folder=tmp_path, variables={"ASM_LIBCALLS_BACKEND": backend})


def commands() -> list[tuple[str, list[str]]]:
    """Return each command of the console blocks with the lines shown below it."""
    found: list[tuple[str, list[str]]] = []
    for block in blocks("console"):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            elif line:
                found[-1][1].append(line)
    return found


@pytest.mark.parametrize(("line", "shown"), commands(), ids=[line for line, _ in commands()])
def test_the_commands_print_what_is_shown(line: str, shown: list[str]) -> None:
    """Lines are compared in order; ``...`` matches any lines, and addresses match each other."""
    start = ".venv/bin/python -m asm_libcalls"
    assert line.startswith(start)
    if LIBCALLS["f64_ceil"].backend != "x86_64":
        pytest.skip(f"shows machine code, and here is none: {LIBCALLS['f64_ceil'].reason}")
    words = shlex.split(line[len(start) :])
    if words[:1] == ["disasm"]:
        pytest.importorskip("capstone", reason="the disassembler, of the extra cli")
        if "avx" not in backend_report()["cpu_features"].split():
            pytest.skip("shows the routine of a CPU with AVX, and this one has none")
    done = run(*words)
    assert (done.returncode, done.stderr) == (0, "")
    pattern = "".join(
        r"(?:.*\n)*?" if text == "..." else re.escape(_masked(text)) + "\n" for text in shown
    )
    printed = "".join(f"{_masked(text)}\n" for text in done.stdout.splitlines() if text)
    assert re.fullmatch(pattern, printed), printed


def _masked(line: str) -> str:
    """Replace addresses, and each run of spaces by one: columns are as wide as addresses."""
    line = re.sub(r"\b(0x)?[57][0-9a-f]{11}\b", "ADDRESS", line)
    return re.sub(r"[ -]{2,}", " ", line)


def test_make_knows_the_targets_that_are_named() -> None:
    text = "".join(INDENTED)
    targets = re.findall(r"^    make (?:[A-Z]+=\S+ )*(\w+)", text, re.MULTILINE)
    assert {"run", "test", "lint"} <= set(targets)
    for target in targets:
        run_program("make", "--dry-run", target, folder=REPOSITORY)


def test_the_tree_is_as_shown() -> None:
    """Every file and folder of the tree under "What is where" exists."""
    (tree,) = (text for text in INDENTED if "the table: each" in text)
    named = [line[4:28].split() for line in tree.splitlines() if line[4:28].strip()]
    inside = False
    count = 0
    for line, names in zip(tree.splitlines(), named, strict=True):
        inside = line.startswith("        ")
        for name in names:
            path = REPOSITORY / ("asm_libcalls" if inside else ".") / name.rstrip("/")
            assert path.is_dir() if name.endswith("/") else path.is_file(), name
            count += 1
    assert count > 10


def test_the_links_lead_somewhere() -> None:
    for path in re.findall(r"\b(?:docs|tools|asm_libcalls|x86_64|fallback)/[\w/]+\.\w+", README):
        assert (REPOSITORY / path).is_file(), path
    text = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    package = REPOSITORY / "asm_libcalls"
    for name in re.findall(r"`([\w/]+\.py)`", text.replace("FAMILY", "rounding")):
        assert (REPOSITORY / name).is_file() or any(package.rglob(name)), name
