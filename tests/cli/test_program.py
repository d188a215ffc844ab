"""The command line: its outputs and exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from child_process import run_python
from command_line import command, environment, run, run_in_terminal

import asm_libcalls
from asm_libcalls import LIBCALLS
from asm_libcalls.binding import default_binding
from asm_libcalls.cli import main
from asm_libcalls.cli.subcommands import COMMANDS
from asm_libcalls.fallback import rounding

needs_machine_code = pytest.mark.skipif(
    default_binding().x86_64 is None, reason=f"no machine code: {default_binding().x86_64_reason}"
)


def in_process(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Run it here; return the exit code and what it wrote."""
    code = main(words)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def strict_json(text: str) -> Any:
    """Read JSON; NaN and Infinity, which Python would write, are no JSON."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture
def wrong_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fallback whose f64_nearest is wrong for 2.5 alone, and so disagrees with the others."""
    nearest = rounding.f64_nearest
    monkeypatch.setattr(
        rounding,
        "f64_nearest",
        lambda x: 0x4008000000000000 if x == 0x4004000000000000 else nearest(x),
    )


# ---- list


def footer() -> str:
    """Return the counts as the table of this process has them."""
    backends = [libcall.backend for libcall in LIBCALLS.values()]
    counts = [f"{backends.count(b)} served by {b}" for b in ("x86_64", "fallback") if b in backends]
    return ", ".join([*counts, "33 self-checks passed"])


def test_a_list_in_a_pipe_is_plain_and_complete() -> None:
    done = run(COLUMNS="40")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert done.stdout.isascii()
    rows = {line.split(maxsplit=1)[0]: line for line in done.stdout.splitlines() if line}
    for name, libcall in LIBCALLS.items():
        expected = [name, re.escape(libcall.signature), libcall.backend]
        expected += ["0x[0-9a-f]{8,16}", r"passed \([0-9]+\)"]
        assert re.fullmatch(" +".join(expected), rows[name])
    assert footer() in done.stdout.splitlines()


def test_a_list_in_80_columns_fits_and_is_complete() -> None:
    shown = run_in_terminal("list", columns=80)
    assert shown.code == 0
    assert "\x1b[" in shown.raw  # rich is at work
    lines = shown.text.splitlines()
    assert max(map(len, lines)) <= 80
    words = shown.text.split()
    for name in LIBCALLS:
        assert name in words or any(word.startswith(name + "(") for word in words)
    assert len(re.findall(r"\b0x[0-9a-f]{12}\b", shown.text)) == 33
    assert "…" not in shown.text
    assert footer() in " ".join(words)


def test_a_list_in_a_wide_terminal_has_a_row_for_each() -> None:
    shown = run_in_terminal("list", columns=140)
    rows = shown.text.splitlines()
    for name, libcall in LIBCALLS.items():
        assert any(row.split()[:1] == [name] and f" {libcall.signature} " in row for row in rows)


def test_without_rich_a_terminal_gets_the_same_in_plain_text() -> None:
    shown = run_in_terminal("list", columns=80, without=("rich",))
    assert shown.code == 0
    assert "\x1b" not in shown.raw
    assert max(map(len, shown.text.splitlines())) <= 80
    assert footer() in " ".join(shown.text.split())


def test_list_says_why_the_fallback_serves() -> None:
    done = run("list", ASM_LIBCALLS_BACKEND="fallback")
    assert done.returncode == 0
    assert "33 served by fallback, 33 self-checks passed\n" in done.stdout
    assert done.stdout.splitlines()[-1] == (
        "The fallback serves rounding (8), integers (7), memories (9), tables (5), "
        "externrefs (4): the fallback was asked for"
    )


def test_list_is_the_default_and_shows_this_process_s_addresses(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert in_process(capsys) == in_process(capsys, "list")
    code, out, _ = in_process(capsys, "--json")
    assert code == 0
    shown = strict_json(out)
    assert shown["asm_libcalls"] == asm_libcalls.__version__
    assert [row["name"] for row in shown["libcalls"]] == list(LIBCALLS)
    symbols = asm_libcalls.symbols()
    for row in shown["libcalls"]:
        libcall = LIBCALLS[row["name"]]
        assert (row["signature"], row["backend"]) == (libcall.signature, libcall.backend)
        assert int(row["address"], 16) == symbols[row["symbol"]]
        assert row["self_check"]["result"] == "passed"
    assert shown["counts"]["self-checks passed"] == 33
    assert sum(shown["counts"].values()) == 66


@pytest.mark.usefixtures("wrong_nearest")
def test_a_failed_self_check_is_shown_and_is_an_exit_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, _ = in_process(capsys, "list")
    assert code == 1
    row = next(line for line in out.splitlines() if line.startswith("f64_nearest"))
    assert re.search(r"FAILED \([0-9]+\)$", row)
    assert "32 self-checks passed, 1 self-check FAILED" in out
    assert "f64_nearest is wrong, first here:\n  x " in out
    assert re.search(r"^  fallback +0x4008000000000000  f64 3\.0$", out, re.MULTILINE)
    code, out, _ = in_process(capsys, "list", "--json")
    assert code == 1
    (entry,) = (r for r in strict_json(out)["libcalls"] if r["name"] == "f64_nearest")
    assert entry["self_check"]["difference"]["outcomes"]["oracle"]["text"] == "2.0"


def test_a_libcall_without_a_checker_is_not_passed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LIBCALLS["i64_ishl"].declaration, "family", "nothing")
    code, out, _ = in_process(capsys, "list")
    assert code == 1
    assert "1 self-check not checked" in out
    assert "i64_ishl: not checked, there is no checker" in out


# ---- call


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        ("f64_nearest 2.5", "2.0  f64 0x4000000000000000"),
        ("wasmtime_f64_nearest 3.5", "4.0  f64 0x4010000000000000"),
        ("f64_ceil -0.5", "-0.0  f64 0x8000000000000000"),
        ("f64_ceil -inf", "-inf  f64 0xfff0000000000000"),
        ("f64_floor 0x1.8p3", "12.0  f64 0x4028000000000000"),
        ("f64_trunc nan", "nan  f64 0x7ff8000000000000"),
        ("f64_trunc -nan:0x200000", "-nan:0x8000000200000  f64 0xfff8000000200000"),
        ("f32_nearest nan:0x200000", "nan:0x600000  f32 0x7fe00000"),
        ("f32_nearest -nan", "-nan  f32 0xffc00000"),
        ("f32_floor 16777217", "16777216.0  f32 0x4b800000"),
        ("f32_ceil -1e-45", "-0.0  f32 0x80000000"),
        ("i64_sdiv -7 2", "-3  i64 0xfffffffffffffffd"),
        ("i64_srem -0x7 0x4", "-3  i64 0xfffffffffffffffd"),
        ("i64_udiv -1 1", "18446744073709551615  u64 0xffffffffffffffff"),
        ("i64_sshr 18446744073709551615 65", "-1  i64 0xffffffffffffffff"),
        ("i64_ishl 1 63", "-9223372036854775808  i64 0x8000000000000000"),
    ],
)
def test_call(words: str, printed: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert in_process(capsys, "call", *words.split()) == (0, printed + "\n", "")
    name, *arguments = words.split()
    code, out, _ = in_process(capsys, "call", name, "--json", *arguments)
    text, type_name, bits = printed.split()
    assert code == 0
    assert strict_json(out)["result"] == {"type": type_name, "bits": bits, "text": text}
    # What was printed can be given back, by number and to a libcall that leaves it as it is.
    if name.startswith("f"):
        assert in_process(capsys, "call", name, text) == (0, printed + "\n", "")


def test_a_trap_is_one_line_and_an_exit_code_of_its_own() -> None:
    done = run("call", "i64_sdiv", "-1", "0x0")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == (
        "asm-libcalls: i64_sdiv(-1, 0x0) trapped: "
        "integer divide by zero (INTEGER_DIVISION_BY_ZERO)\n"
    )


def test_a_trap_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = in_process(capsys, "call", "i64_sdiv", str(-(2**63)), "-1", "--json")
    assert code == 3
    assert strict_json(out) == {
        "trap": {"code": 6, "name": "INTEGER_OVERFLOW", "text": "integer overflow"}
    }
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("call i64_sdiv 1", "i64_sdiv takes 2 numbers (dividend:i64 divisor:i64), got 1"),
        ("call f32_ceil", "f32_ceil takes 1 number (x:f32), got 0"),
        ("call f32_ceil one", "f32_ceil: x must be a number (f32) like 1.5,"),
        ("call i64_ishl 1.5 -1", "i64_ishl: x must be an integer (i64) like 42,"),
        ("call i64_ishl 1 -0x8000000000000001", "i64_ishl: count must be in -2**63 .. 2**64-1"),
        ("call f64_ceil -nan:0x0", "'-nan:0x0'"),
        ("call f64_cell 1", "no libcall is named 'f64_cell'; did you mean f64_ceil or"),
        ("call i64.div_s 1 2", "did you mean i64_sdiv?"),
        ("call memory.size 1", "did you mean memory32_size or imported_memory32_size?"),
        ("call memory.grow 1", "did you mean memory32_grow or imported_memory32_grow?"),
        ("call -1", "no libcall is named '-1'"),
        ("disasm F64_NEAREST", "did you mean f64_nearest or"),
        ("verify f64_nearst", "did you mean f64_nearest or"),
        ("verify xyzzy", '"asm-libcalls list" shows all'),
    ],
)
def test_wrong_usage(words: str, complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = in_process(capsys, *words.split())
    assert (code, out) == (2, "")
    assert err.startswith("asm-libcalls: ")
    assert err.count("\n") == 1
    assert complaint in err


@pytest.mark.parametrize(
    "words", ["nonsense", "--nonsense", "call", "verify --count -1", "verify --seed x", "disasm"]
)
def test_wrong_words(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words.split())
    assert caught.value.code == 2
    assert "usage: asm-libcalls" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["memory_copy", "drop_externref"])
def test_a_call_that_needs_an_instance_says_so(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = in_process(capsys, "call", name, "1", "2")
    assert (code, out) == (4, "")
    assert err.startswith(f"asm-libcalls: {name} cannot be called from here: it works on an inst")


def test_without_addresses_the_list_still_checks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the system refuses ctypes its callbacks: each reason is told once."""

    def refused(self: object, libcall: object) -> int:
        raise MemoryError("no C address: refused")

    for libcall in LIBCALLS.values():
        monkeypatch.setattr(libcall, "_address", 0)
        monkeypatch.setattr(libcall, "backend", "fallback")
    monkeypatch.setattr(type(default_binding()), "address_of", refused)
    code, out, _ = in_process(capsys, "list", "--json")
    for row in strict_json(out)["libcalls"]:
        assert row["address"] is None
        numeric = row["name"].startswith(("f32", "f64", "i64"))
        assert row["self_check"]["result"] == ("passed" if numeric else "not checked")
    code, out, _ = in_process(capsys, "list")
    assert code == 1  # an instance cannot be made there, so 18 are not checked
    assert re.search(r"^f32_ceil +\(f32\) -> f32 +fallback +- +passed", out, re.MULTILINE)
    assert "15 self-checks passed, 18 self-checks not checked" in out
    assert out.count("no C address: refused") == 2
    assert "f32_ceil, f32_floor, " in out


# ---- disasm


@needs_machine_code
def test_disasm_shows_the_bytes_in_memory(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("capstone", reason="the disassembler, of the extra cli")
    code, out, _ = in_process(capsys, "disasm", "i64_sdiv")
    assert code == 0
    address = LIBCALLS["i64_sdiv"].address
    first, *lines = out.splitlines()
    assert re.fullmatch(f"i64_sdiv, [0-9]+ bytes at {address:#x}:", first)
    assert any("idiv" in line for line in lines)
    assert any(line.endswith("  jmp asm_libcalls_raise_trap") for line in lines)
    assert lines[0].split()[:2] == ["+0", f"{address:x}"]
    code, out, _ = in_process(capsys, "disasm", "wasmtime_i64_sdiv", "--json")
    shown = strict_json(out)
    assert (code, int(shown["address"], 16)) == (0, address)
    assert len(shown["instructions"]) == len(lines)
    backend = default_binding().x86_64
    assert backend is not None
    code_bytes = "".join(i["code"] for i in shown["instructions"])
    assert bytes.fromhex(code_bytes) == backend.loaded.code("i64_sdiv")


@needs_machine_code
@pytest.mark.parametrize("name", ["table_fill", "wasmtime_table_fill"])
def test_disasm_shows_what_serves_a_libcall_that_counts(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the GIL that is a routine that takes the lock of steps."""
    pytest.importorskip("capstone", reason="the disassembler, of the extra cli")
    code, out, _ = in_process(capsys, "disasm", name, "--json")
    assert code == 0
    assert int(strict_json(out)["address"], 16) == LIBCALLS["table_fill"].address


@needs_machine_code
def test_disasm_shows_the_runtime_s_routines_with_labels_and_slots(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("capstone", reason="the disassembler, of the extra cli")
    code, out, _ = in_process(capsys, "disasm", "asm_libcalls_enter")
    assert code == 0
    assert "asm_libcalls_enter.landing:" in out.splitlines()
    assert re.search(r"; slot pthread_getspecific = 0x[0-9a-f]+$", out, re.MULTILINE)


@needs_machine_code
def test_disasm_without_capstone_says_how_to_get_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "capstone", None)
    code, out, err = in_process(capsys, "disasm", "f64_ceil")
    assert (code, out) == (4, "")
    assert 'pip install "capstone>=5"' in err


def test_disasm_of_the_fallback_says_why_there_is_nothing_to_show() -> None:
    done = run("disasm", "f64_ceil", ASM_LIBCALLS_BACKEND="fallback")
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == (
        "asm-libcalls: f64_ceil is served by the fallback, there is no machine code to show: "
        "the fallback was asked for\n"
    )


# ---- verify


def test_verify_takes_every_libcall_if_none_is_named() -> None:
    done = run("verify", "--count", "10")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.match(r"33 libcalls, seed [0-9]+\n", done.stdout)
    for name in LIBCALLS:
        assert re.search(rf"^{name} .* agrees$", done.stdout, re.MULTILINE)


def test_verify_repeats_a_run_by_its_seed(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("verify", "f32_ceil", "i64_sdiv", "memory_fill", "--count", "100")
    code, first, _ = in_process(capsys, *words)
    found = re.match(r"3 libcalls, seed ([0-9]+)\n", first)
    assert code == 0
    assert found is not None
    assert in_process(capsys, *words, "--seed", found[1]) == (0, first, "")
    _, other, _ = in_process(capsys, *words)
    assert other.splitlines()[0] != first.splitlines()[0]


@pytest.mark.usefixtures("wrong_nearest")
def test_verify_shows_the_first_difference_in_bits(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("verify", "f64_nearest", "f64_ceil", "f64_nearest", "--count", "10", "--seed", "9")
    code, out, _ = in_process(capsys, *words)
    assert code == 1
    assert "\nf64_nearest differs first in case " in out
    assert re.search(r"^  x +0x4004000000000000  f64 2\.5$", out, re.MULTILINE)
    assert re.search(r"^  fallback +0x4008000000000000  f64 3\.0$", out, re.MULTILINE)
    assert re.search(r"^  oracle +0x4000000000000000  f64 2\.0$", out, re.MULTILINE)
    assert re.search(r"^  xor +0x0008000000000000$", out, re.MULTILINE)
    assert "again with: verify f64_nearest --count 10 --seed 9" in out
    assert re.search(r"^f64_ceil .* agrees$", out, re.MULTILINE)
    assert out.endswith(" cases, 1 libcall with a difference\n")
    code, out, _ = in_process(capsys, *words, "--json")
    shown = strict_json(out)
    assert (code, shown["seed"], shown["count"]) == (1, 9, 10)
    nearest, ceil = shown["libcalls"]
    assert nearest["result"] == "differs"
    assert nearest["difference"]["xor"] == "0x0008000000000000"
    assert nearest["difference"]["inputs"]["x"]["text"] == "2.5"
    assert (ceil["result"], ceil["difference"]) == ("agrees", None)


@pytest.mark.parametrize("without", [(), ("rich",)], ids=["rich", "plain"])
def test_verify_shows_its_progress_in_a_terminal_only(without: tuple[str, ...]) -> None:
    read, write = os.pipe()
    with os.fdopen(read) as output:
        shown = run_in_terminal(
            "verify", "i64_ishl", "i64_ushr", "--seed", "1", columns=80, without=without,
            stdout=write,
        )  # fmt: skip
        os.close(write)
        printed = output.read()
    assert shown.code == 0
    assert "i64_ushr" in shown.text  # the last one; of a quick run rich may show no other
    assert ("100%" in shown.text) is (not without)
    assert "\x1b" not in printed
    assert printed.startswith("2 libcalls, seed 1\n")
    assert printed.endswith("13200 cases, 0 libcalls with a difference\n")


def test_an_interrupted_verify_says_so_in_one_line() -> None:
    process = subprocess.Popen(
        command("verify", "i64_ishl", "f64_ceil", "--count", "1000000000", "--seed", "77"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "2 libcalls, seed 77\n"
    process.send_signal(signal.SIGINT)
    try:
        _, err = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 130
    assert err == (
        "asm-libcalls: interrupted after 0 of 2 libcalls, no difference so far (seed 77)\n"
    )


# ---- report, help, and the world around


def test_report(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, _ = in_process(capsys, "report")  # imports the ufuncs, of which it tells
    assert code == 0
    report = asm_libcalls.backend_report()
    assert in_process(capsys, "report") == (0, f"{report}\n", "")
    code, out, _ = in_process(capsys, "report", "--json")
    assert (code, strict_json(out)) == (0, dict(report))


VARIABLES = [f"ASM_LIBCALLS_{name}" for name in ("BACKEND", "CACHE", "GDB", "PERF_MAP")]


def test_help_tells_commands_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    for word in (*COMMANDS, "exit codes:", "130", *VARIABLES):
        assert word in out
    for name in ("list", "call", "disasm", "verify", "report"):
        with pytest.raises(SystemExit):
            main([name, "--help"])
        assert "--json" in capsys.readouterr().out


@pytest.mark.parametrize("words", [("list",), ("--help",)], ids=["list", "help"])
def test_a_broken_pipe_ends_quietly(words: tuple[str, ...]) -> None:
    process = subprocess.Popen(
        command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert (process.wait(timeout=300), err) == (141, b"")


@pytest.mark.parametrize("output", ["closed", "/dev/full"])
@pytest.mark.parametrize(
    "words",
    [("list",), ("list", "--json"), ("report",), ("call", "i64_sdiv", "7", "2"), ("--help",)],
    ids=" ".join,
)
def test_an_output_that_cannot_be_written_is_one_line(words: tuple[str, ...], output: str) -> None:
    """And not a traceback at the interpreter's end."""
    with contextlib.ExitStack() as stack:
        stdout = None
        if output != "closed":
            stdout = stack.enter_context(Path(output).open("wb"))
        done = subprocess.run(
            ["sh", "-c", f'exec "$@" {">&-" if stdout is None else ""}', "sh", *command(*words)],
            stdout=stdout,
            stderr=subprocess.PIPE,
            env=environment(),
            text=True,
            check=False,
        )
    assert done.returncode == 4, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("asm-libcalls: ")


def test_the_package_imports_nothing_of_the_command_line() -> None:
    code = "import sys, asm_libcalls; print(*sys.modules)"
    done = run_python("-c", code)
    loaded = set(done.stdout.split())
    assert "asm_libcalls" in loaded
    assert not loaded & {"rich", "capstone", "argparse", "json", "asm_libcalls.cli", "random"}


@pytest.mark.parametrize("backend", ["x86_64", "bogus"])
def test_a_backend_that_can_not_be_chosen_ends_in_a_clear_line(backend: str) -> None:
    done = run("list", ASM_LIBCALLS_BACKEND=backend, without=("peachpy",))
    assert done.returncode == 1
    assert done.stdout == ""
    last = done.stderr.splitlines()[-1]
    if backend == "bogus":
        assert last == (
            "ValueError: ASM_LIBCALLS_BACKEND must be one of auto, x86_64, fallback, got 'bogus'"
        )
    else:
        assert "BackendUnavailable: ASM_LIBCALLS_BACKEND=x86_64, but machine code cannot" in last


@needs_machine_code
def test_the_chosen_machine_code_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    done = run("list", ASM_LIBCALLS_BACKEND="x86_64")
    assert done.returncode == 0
    assert "served by x86_64" in done.stdout


# ---- the second table


@pytest.mark.parametrize("table", ["llvm", "wasmtime", "all"])
def test_list_and_verify_take_either_table(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    from asm_libcalls import llvm

    expected = [*LIBCALLS] * (table != "llvm") + [*llvm.LIBCALLS] * (table != "wasmtime")
    code, out, _ = in_process(capsys, "list", "--table", table, "--json")
    assert code == 0
    assert [row["name"] for row in strict_json(out)["libcalls"]] == expected
    code, out, _ = in_process(capsys, "verify", "--table", table, "--count", "5", "--json")
    assert code == 0
    assert {row["name"]: row["result"] for row in strict_json(out)["libcalls"]} == dict.fromkeys(
        expected, "agrees"
    )


@pytest.mark.parametrize("name", ["divti3", "__divti3"])
def test_libcalls_of_the_second_table_are_called_by_name_and_symbol(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = in_process(capsys, "call", name, str(-(2**127)), "-1")
    assert (code, out) == (0, f"{-(2**127)}  i128 0x8{'0' * 31}\n")
    code, _, error = in_process(capsys, "call", name, "1", "0")
    assert code == 3
    assert "integer divide by zero" in error


def test_a_second_result_has_no_place_on_the_command_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, _, error = in_process(capsys, "call", "muloti4", "1", "2", "3")
    assert code == 4
    assert "stores a result (overflow) in a buffer" in error


@needs_machine_code
def test_machine_code_of_the_second_table_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("capstone", reason="the disassembler, of the extra cli")
    code, out, _ = in_process(capsys, "disasm", "__udivti3")
    assert code == 0
    assert " div " in out
    assert "asm_libcalls_divide_by_zero" in out


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        (["call"], "NAME"),
        (["run"], "FILE"),
        (["disasm"], "NAME"),
        (["build-library"], "FILE.so"),
    ],
    ids=" ".join,
)
def test_a_missing_argument_is_named_and_no_optional_one(words, missing, capsys):
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"are required: {missing}")


def test_integers_are_read_in_every_base_of_python(capsys):
    code, out, _ = in_process(capsys, "call", "i64_udiv", "0b1100", "0o3", "--json")
    assert code == 0
    assert strict_json(out)["result"]["text"] == "4"


@needs_machine_code
def test_machine_code_of_every_libcall_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    from asm_libcalls import llvm

    pytest.importorskip("capstone", reason="the disassembler, of the extra cli")
    for name, libcall in llvm.LIBCALLS.items():
        code, out, _ = in_process(capsys, "disasm", name)
        assert code == 0
        assert libcall.symbol in out
        assert " ret" in out
