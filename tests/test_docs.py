"""The documentation is true: its programs run, its reference is fresh, its recipes work."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import docs_pages
import pytest
from child_process import PACKAGE_HOME, environment

import asm_libcalls
from asm_libcalls import toy_jit

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = [page for page in docs_pages.pages() if docs_pages.programs(page)]
RUNNER = REPOSITORY / "tests" / "docs_pages.py"
ABI_REFERENCE = docs_pages.DOCS / "abi_reference.md"


def run_page(page: Path, folder: Path, backend: str = "auto") -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, str(RUNNER), str(page)],
        cwd=folder,
        env=environment(ASM_LIBCALLS_BACKEND=backend),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    found: dict[str, object] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("page", "backend"),
    [
        pytest.param(page, backend, id=f"{page.stem}-{backend}")
        for page in PAGES
        for backend in ("auto", "fallback")
        if backend == "auto"
        or any("machine code" not in block.needs for block in docs_pages.programs(page))
    ],
)
def test_the_programs_of_a_page_run(page, backend, tmp_path):
    result = run_page(page, tmp_path, backend)
    skipped = result["skipped"]
    assert result["ran"] + len(skipped) == len(docs_pages.programs(page))
    if skipped:
        lacking = sorted({name for names in skipped.values() for name in names})
        pytest.skip(f"{len(skipped)} blocks need {', '.join(lacking)}; {result['ran']} ran")


def test_every_block_is_run_or_no_python():
    languages = {b.language for page in docs_pages.pages() for b in docs_pages.blocks(page)}
    assert languages <= {*docs_pages.LANGUAGES, "c", "console", "text", "{eval-rst}", "{toctree}"}


# The runner itself: that it can fail.

BROKEN = {
    "an assertion": ("```python\nx = 1\nassert x == 2\n```", "line 3, in <module>"),
    "a doctest": ("```pycon\n>>> 1 + 1\n3\n```", "Expected:"),
    "an exception": ("```pycon\n>>> 1 / 0\n```", "ZeroDivisionError"),
    "no example": ("```pycon\n1\n```", "without >>>"),
    "no end": ("```python\n1\n", "never closed"),
    "a comment of no block": ("<!-- needs: numpy -->\ntext", "no block follows"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_wrong_page_fails(what, tmp_path):
    text, message = BROKEN[what]
    page = tmp_path / "page.md"
    page.write_text(f"{text}\n")
    with pytest.raises(AssertionError, match=re.escape(message)):
        run_page(page, tmp_path)


def test_blocks_of_a_page_share_a_namespace_and_may_be_skipped(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nx = 1\n```\n\n```pycon\n>>> x = x + 1\n```\n\n"
        "<!-- needs: no_such_module, json -->\n```python\nx = 0\n```\n"
        "```python\nassert x == 2\n```\n```text\nnot Python\n```\n"
    )
    assert run_page(page, tmp_path) == {"ran": 3, "skipped": {"11": ["no_such_module"]}}


# The reference.


def test_the_api_page_has_every_public_name():
    page = (docs_pages.DOCS / "api.md").read_text(encoding="utf-8")
    named = r"^\.\. (?:auto|py:)\w+:: (?:asm_libcalls\.)?((?:toy_jit\.)?\w+)$"
    documented = set(re.findall(named, page, re.M))
    public = set(asm_libcalls.__all__) - set(asm_libcalls.LIBCALLS)
    public |= {f"toy_jit.{name}" for name in toy_jit.__all__}
    assert public - documented == set()


def test_the_abi_reference_is_what_the_declarations_make(machine_code):
    missing = [reason for reason in machine_code.families.values() if reason]
    if missing:
        pytest.skip(f"the page is made where every family is served: {'; '.join(missing)}")
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "tools" / "make_abi_reference.py"), "--check"],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_abi_reference_is_c(tmp_path):
    """A C compiler takes its declarations, and finds each field where the page says."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    texts = [b.text for b in docs_pages.blocks(ABI_REFERENCE) if b.language == "c"]
    structures = next(text for text in texts if "typedef" in text)
    source = ["#include <stddef.h>", "#include <stdint.h>", structures]
    source += [text for text in texts if text is not structures]
    count = 0
    for body, name in re.findall(r"typedef struct \{(.*?)\} (\w+);", structures, re.S):
        for field, offset in re.findall(r"(\w+)(?:\[\d+\])?; +/\* \+(\d+) \*/", body):
            source.append(f"_Static_assert(offsetof({name}, {field}) == {offset}, {field!r});")
            count += 1
        for size in re.findall(r"/\* (\d+) bytes \*/", body):
            source.append(f'_Static_assert(sizeof({name}) == {size}, "size");')
    assert count >= 20
    file = tmp_path / "declarations.c"
    file.write_text("\n".join(source).replace("'", '"') + "\n")
    command = [compiler, "-std=c11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sum(text.count("(") for text in texts) >= len(asm_libcalls.LIBCALLS)


# Adding a routine, as the page says, in a copy.

ROTATE = """
import json, random
from asm_libcalls import LIBCALLS, i64_rotl, symbols, catch_traps
libcall = LIBCALLS["i64_rotl"]
source = random.Random(0)
for _ in range(200):
    x, count = source.getrandbits(64), source.getrandbits(64)
    text = f"{x:064b}"
    expected = int(text[count % 64:] + text[:count % 64], 2)
    native = catch_traps(symbols()["wasmtime_i64_rotl"], libcall.signature)
    found = {i64_rotl(x, count), libcall.fallback(x, count), native(x, count)}
    assert found == {expected}, (x, count, found)
print(json.dumps([libcall.backend, libcall.address > 0, libcall.declaration.c_declaration]))
"""


@pytest.fixture(scope="module")
def copy_with_34(tmp_path_factory):
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(
        PACKAGE_HOME / "asm_libcalls",
        folder / "asm_libcalls",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    page = docs_pages.DOCS / "adding_a_routine.md"
    insertions = [block.insertion for block in docs_pages.blocks(page) if block.insert]
    assert {i.path for i in insertions} == {
        "asm_libcalls/libcalls.py",
        "asm_libcalls/fallback/integers.py",
        "asm_libcalls/x86_64/integers.py",
        "asm_libcalls/checks/integers.py",
    }
    for path, before, text in insertions:
        file = folder / path
        content = file.read_text()
        assert content.count(f"\n{before}") == 1, f"{path} has not one line {before!r}"
        file.write_text(content.replace(f"\n{before}", f"\n{text}{before}"))
    return folder


def run_copy(folder: Path, *arguments: str, backend: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment(ASM_LIBCALLS_BACKEND=backend, PYTHONPATH=str(folder)),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("backend", ["auto", "fallback"])
def test_the_recipe_adds_a_libcall(backend, copy_with_34, accelerated):
    served_by, has_address, declaration = json.loads(
        run_copy(copy_with_34, "-c", ROTATE, backend=backend)
    )
    machine_code = backend == "auto" and accelerated.x86_64 is not None
    assert served_by == ("x86_64" if machine_code else "fallback")
    assert has_address
    assert declaration == "uint64_t wasmtime_i64_rotl(uint64_t x, uint64_t count);"


def test_the_recipe_s_libcall_is_listed_and_verified(copy_with_34):
    listed = run_copy(copy_with_34, "-m", "asm_libcalls", "list", backend="auto")
    assert re.search(r"^i64_rotl +\(u64, u64\) -> u64 .* passed \(\d+\)", listed, re.M)
    assert "34 self-checks passed" in listed
    verified = run_copy(copy_with_34, "-m", "asm_libcalls", "verify", "i64_rotl", backend="auto")
    assert re.search(r"^i64_rotl .* agrees$", verified, re.M)


def test_without_the_third_opinion_the_checker_says_so(copy_with_34, tmp_path):
    """The page promises that a libcall which nothing checks is noticed."""
    folder = tmp_path / "copy"
    shutil.copytree(copy_with_34, folder)
    shutil.copy(PACKAGE_HOME / "asm_libcalls/checks/integers.py", folder / "asm_libcalls/checks")
    done = subprocess.run(
        [sys.executable, "-m", "asm_libcalls", "verify", "i64_rotl"],
        cwd=folder,
        env=environment(PYTHONPATH=str(folder)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "i64_rotl" in done.stdout + done.stderr


def test_a_trapping_libcall_without_a_guard_is_slower_and_no_more(child):
    """The page promises it; without an entry round the call the trap would end the process."""
    done = child(
        """
        import asm_libcalls
        from asm_libcalls.binding import default_binding
        from asm_libcalls.functions import make_functions
        from asm_libcalls.x86_64 import integers

        integers.GUARDS.clear()
        functions = make_functions(default_binding())
        print(functions["i64_sdiv"](7, 2))
        try:
            functions["i64_udiv"](1, 0)
        except ZeroDivisionError as trap:
            print(trap)
        """
    )
    assert done.stdout == "3\ninteger divide by zero\n"


# The site.


def test_the_site_builds_without_a_warning(tmp_path, machine_code):
    needed = ("sphinx", "myst_parser", "numpydoc", "furo")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (the extra `docs`)")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    done = subprocess.run(
        [*command, str(docs_pages.DOCS), str(tmp_path / "html")],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for page in docs_pages.pages():
        assert (tmp_path / "html" / f"{page.stem}.html").is_file()
