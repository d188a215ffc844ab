"""The documentation is true: its programs run, its reference is fresh, its recipes work."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import textwrap
import time
from pathlib import Path

import docs_pages
import pytest
from child_process import PACKAGE_HOME, run_program, run_python

import asm_libcalls
from asm_libcalls import toy_jit

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = [page for page in docs_pages.pages() if docs_pages.programs(page)]
RUNNER = REPOSITORY / "tests" / "docs_pages.py"
ABI_REFERENCE = docs_pages.DOCS / "abi_reference.md"


def run_page(page: Path, folder: Path, backend: str = "auto") -> dict[str, object]:
    done = run_python(RUNNER, page, folder=folder, variables={"ASM_LIBCALLS_BACKEND": backend})
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
    run_python(REPOSITORY / "tools" / "make_abi_reference.py", "--check")


def test_the_list_of_files_is_what_the_docstrings_make():
    run_python(REPOSITORY / "tools" / "make_file_list.py", "--check")


def test_the_abi_reference_is_c(tmp_path):
    """A C compiler takes its declarations, and finds each field where the page says."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    texts = [b.text for b in docs_pages.blocks(ABI_REFERENCE) if b.language == "c"]
    structures = next(text for text in texts if "typedef" in text)
    source = ["#include <stddef.h>", "#include <stdint.h>", structures]
    # GCC has __bf16 from 13 on.
    source += ["#if !defined(__clang__) && __GNUC__ < 13", "#define __bf16 _Float16", "#endif"]
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
    run_program(*command)
    assert sum(text.count("(") for text in texts) >= len(asm_libcalls.LIBCALLS)


# Adding routines and families, as the page says, in copies.

ADDED = {
    "i64_rotl": (
        {"libcalls.py", "fallback/integers.py", "x86_64/integers.py", "checks/integers.py"},
        "uint64_t wasmtime_i64_rotl(uint64_t x, uint64_t count);",
        """
        for _ in range(200):
            x, count = source.getrandbits(64), source.getrandbits(64)
            text = f"{x:064b}"
            expect(int(text[count % 64:] + text[:count % 64], 2), x, count)
        """,
    ),
    "i64_popcnt": (
        {"libcalls.py", "fallback/bits.py", "x86_64/bits.py", "checks/bits.py"},
        "uint64_t wasmtime_i64_popcnt(uint64_t x);",
        """
        for _ in range(200):
            x = source.getrandbits(source.getrandbits(6))
            expect(f"{x:b}".count("1"), x)
        """,
    ),
    "data_length": (
        {"libcalls.py", "fallback/segments.py", "x86_64/segments.py", "checks/segments.py"},
        "uint32_t wasmtime_data_length(VMContext *vmctx, uint32_t data_index);",
        """
        instance = asm_libcalls.Instance([asm_libcalls.Memory(1)], data=[b"12345", b"", b"123"])
        asm_libcalls.data_drop(instance, 2)
        for index, length in enumerate((5, 0, 0)):
            expect(length, instance, index)
        wrong = {3: ValueError, -1: ValueError, "0": TypeError, 2**32: OverflowError}
        for bad, error in wrong.items():
            for call in (function, libcall, libcall.fallback):
                try:
                    call(instance, bad)
                except error as raised:
                    assert str(raised).startswith("data_length(): argument 'data_index'"), raised
                else:
                    raise AssertionError((call, bad))
        # The others on instances are as they were.
        assert asm_libcalls.memory32_size(instance, 0) == 1
        assert type(asm_libcalls.memory32_size) is type(function)
        instance.close()
        """,
    ),
}
"""By the libcall: the files that are touched, its prototype, and a program that calls it."""

CALL_IT = """
import json, random, sys
import asm_libcalls
libcall = asm_libcalls.LIBCALLS["{name}"]
function = getattr(asm_libcalls, "{name}")
source = random.Random(0)
native = asm_libcalls.catch_traps(asm_libcalls.symbols()["wasmtime_{name}"], libcall.signature)

def expect(result, *arguments):
    found = [call(*arguments) for call in (function, libcall, libcall.fallback, native)]
    assert found == [result] * 4, (arguments, result, found)
{program}
print(json.dumps([libcall.backend, libcall.takes_instance, libcall.declaration.c_declaration,
                  type(function).__name__, "peachpy" in sys.modules]))
"""


def copy_of_package(folder: Path) -> None:
    shutil.copytree(
        PACKAGE_HOME / "asm_libcalls",
        folder / "asm_libcalls",
        ignore=shutil.ignore_patterns("__pycache__"),
    )


@pytest.fixture(scope="module", params=ADDED)
def added(request, tmp_path_factory):
    """A libcall that the page adds, and a copy of the package that has it alone."""
    name = request.param
    folder = tmp_path_factory.mktemp("copy")
    copy_of_package(folder)
    page = docs_pages.DOCS / "adding_a_routine.md"
    family = ADDED[name][0]
    touched = set()
    for block in docs_pages.blocks(page):
        if block.new_file and block.new_file.removeprefix("asm_libcalls/") in family:
            file = folder / block.new_file
            assert not file.exists()
            file.write_text(block.text)
            touched.add(block.new_file)
        elif block.insert and name in block.text:
            path, before, text = block.insertion
            content = (folder / path).read_text()
            assert content.count(f"\n{before}") == 1, f"{path} has not one line {before!r}"
            (folder / path).write_text(content.replace(f"\n{before}", f"\n{text}{before}"))
            touched.add(path)
    assert touched == {f"asm_libcalls/{path}" for path in family}
    for path in touched:  # an image is not kept where its sources have just been changed
        os.utime(folder / path, (time.time() - 60,) * 2)
    return name, folder


def run_copy(folder: Path, *arguments: str, backend: str) -> str:
    variables = {
        "ASM_LIBCALLS_BACKEND": backend,
        "ASM_LIBCALLS_CACHE": str(folder / "cache"),
        "PYTHONPATH": str(folder),
    }
    return run_python(*arguments, folder=folder, variables=variables).stdout


def test_every_block_of_the_recipe_is_followed():
    page = docs_pages.DOCS / "adding_a_routine.md"
    changes = [block for block in docs_pages.blocks(page) if block.insert or block.new_file]
    paths = {b.new_file or b.insertion.path for b in changes}
    assert paths == {f"asm_libcalls/{path}" for files, _, _ in ADDED.values() for path in files}


@pytest.mark.parametrize("backend", ["auto", "fallback"])
def test_the_recipe_adds_a_libcall(backend, added, accelerated):
    name, folder = added
    _, prototype, program = ADDED[name]
    program = CALL_IT.format(name=name, program=textwrap.dedent(program))
    served_by, takes_instance, declaration, kind, _ = json.loads(
        run_copy(folder, "-c", program, backend=backend)
    )
    machine_code = backend == "auto" and accelerated.x86_64 is not None
    assert served_by == ("x86_64" if machine_code else "fallback")
    assert takes_instance == ("vmctx" in declaration)
    assert declaration == prototype
    if machine_code:
        assert kind == type(asm_libcalls.f64_ceil).__name__
        assert json.loads(run_copy(folder, "-c", program, backend=backend))[4] is False


def test_the_recipe_s_libcall_is_listed_and_verified(added):
    name, folder = added
    listed = run_copy(folder, "-m", "asm_libcalls", "list", backend="auto")
    assert re.search(rf"^{name} +\(.* passed \(\d+\)", listed, re.M)
    assert "34 self-checks passed" in listed
    verified = run_copy(folder, "-m", "asm_libcalls", "verify", name, backend="auto")
    assert re.search(rf"^{name} .* agrees$", verified, re.M)


def test_without_the_third_opinion_the_checker_says_so(added, tmp_path):
    """As the page says, a libcall without an oracle is reported."""
    name, original = added
    folder = tmp_path / "copy"
    shutil.copytree(original, folder)
    (checker,) = (path for path in ADDED[name][0] if path.startswith("checks/"))
    old = PACKAGE_HOME / "asm_libcalls" / checker
    if old.exists():
        shutil.copy(old, folder / "asm_libcalls" / checker)
    else:
        (folder / "asm_libcalls" / checker).unlink()
    done = run_python(
        *("-m", "asm_libcalls", "verify", name),
        folder=folder,
        variables={"PYTHONPATH": str(folder)},
        exit_status=None,
    )
    assert done.returncode != 0
    if old.exists():
        assert name in done.stdout + done.stderr
    else:
        missing = f"asm_libcalls.checks.{Path(checker).stem}"
        assert f"there is no checker, {missing} is missing" in done.stderr


def test_a_trapping_libcall_without_a_guard_is_slower_and_no_more(child):
    """As the page says; without an entry the trap would end the process."""
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
    options = ("-W", "--keep-going", "-q", "-b", "html")
    run_python("-m", "sphinx", *options, docs_pages.DOCS, tmp_path / "html")
    for page in docs_pages.pages():
        assert (tmp_path / "html" / f"{page.stem}.html").is_file()
