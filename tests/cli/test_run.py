"""The command ``run``: a module from a file, called with numbers as text."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import wasm_builder as wasm
from command_line import command, environment, run
from jit_modules import EXTERNREFS, MEMORY, Function, build

from asm_libcalls.cli import main

pytestmark = pytest.mark.usefixtures("machine_code")

FUNCTIONS = {
    "add": Function("i32 i32 -> i32", "local.get 00 local.get 01 i32.add"),
    "float": Function("f32 f64 -> f64 f32", "local.get 01 local.get 00"),
    "divide": Function("i64 i64 -> i64", "local.get 00 local.get 01 call 0a"),
    "nothing": Function("->", ""),
    "reference": Function("externref funcref -> externref funcref", "local.get 00 local.get 01"),
    "own": Function("-> funcref", "ref.func 00"),
    "endless": Function("->", "loop 40 br 00 end"),
    "deep": Function("->", "call 07"),
    "fill": Function("->", "i32.const 00 i32.const 01 i32.const 02 memory.fill 00"),
    "round": Function("f64 -> f64", "local.get 00 f64.floor f64.ceil"),
    "_divide": Function("i64 i64 -> i64", "local.get 00 local.get 01 i64.div_s"),
}


@pytest.fixture
def module(tmp_path):
    path = tmp_path / "module.wasm"
    path.write_bytes(build(FUNCTIONS, **MEMORY, elements=[b"\x03\x00\x01\x00"]))
    return str(path)


@pytest.fixture
def run_here(capsys):
    """Run the command in this process."""

    def run_here(*words):
        code = main(["run", *words])
        printed = capsys.readouterr()
        return subprocess.CompletedProcess(words, code, printed.out, printed.err)

    return run_here


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (("add", "40", "2"), ["42  i32 0x0000002a"]),
        (("add", "-1", "0"), ["-1  i32 0xffffffff"]),
        (("add", "0xffff_ffff", "-1"), ["-2  i32 0xfffffffe"]),
        (("float", "-inf", "-0x1p-1"), ["-0.5  f64 0xbfe0000000000000", "-inf  f32 0xff800000"]),
        (("float", "nan:0x1", "nan"), ["nan  f64 0x7ff8000000000000", "nan:0x1  f32 0x7f800001"]),
        (("divide", "-9", "2"), ["-4  i64 0xfffffffffffffffc"]),
        (("nothing",), []),
        (("reference", "null", "null"), ["null  externref", "null  funcref"]),
        (("own",), ["<Func add [i32 i32] -> [i32]>  funcref"]),
    ],
)
def test_a_function_is_called(module, words, lines, run_here):
    name, *values = words
    done = run_here(module, "--invoke", name, *values)
    assert (done.returncode, done.stdout.splitlines(), done.stderr) == (0, lines, "")


def test_options_may_stand_anywhere(module):
    for words in (
        ("--invoke", "add", module, "1", "-2"),
        (module, "1", "-2", "--invoke=add"),
        ("--inline", module, "--invoke", "add", "1", "-2", "--timeout", "60"),
    ):
        assert run("run", *words).stdout == "-1  i32 0xffffffff\n"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--invoke", "ad"), 2, "exports no function 'ad'; did you mean add?"),
        (("--invoke", "zzz"), 2, "exports no function 'zzz'; there are: add, float, divide, "),
        (("--invoke", "add", "1"), 2, "add takes 2 values [i32 i32], got 1"),
        (("--invoke", "add", "1", "x"), 2, "add: argument 2 must be an integer (i32)"),
        (("--invoke", "add", "1", "4294967296"), 2, "add: argument 2 must be in "),
        (("--invoke", "reference", "5", "null"), 2, "argument 1 must be null (externref), got '5'"),
        (("5",), 2, "exports no _start: name the function with --invoke"),
        (("--disasm", "99"), 2, "has no function '99': there are 0 .. 10, and by name: add, "),
    ],
)
def test_wrong_usage_is_one_line(module, words, code, message, run_here):
    done = run_here(module, *words)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("asm-libcalls: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_file_that_is_no_module(tmp_path, run_here):
    path = tmp_path / "x.wasm"
    done = run_here(str(path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"asm-libcalls: {path} cannot be read: No such file or directory\n"
    path.write_bytes(b"\0asm\1\0\0\0\xff")
    done = run_here(str(path))
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(
        rf"asm-libcalls: {re.escape(str(path))} is not valid: .* at byte 0x\w+\n", done.stderr
    )
    path.write_bytes(build({"f": Function("-> i32", "")}))
    done = run_here(str(path), "--stats")
    assert done.returncode == 1
    assert "is not valid: type mismatch" in done.stderr


def test_start_is_called_by_default(tmp_path, run_here):
    path = tmp_path / "start.wasm"
    path.write_bytes(
        build({"_start_": Function("-> i32", "i32.const 07")}).replace(b"_start_", b"x")
    )
    functions = {"f": Function("-> i32", "i32.const 07")}
    path.write_bytes(build(functions, exports=[wasm.exported("_start", 0, 0)]))
    done = run_here(str(path))
    assert (done.returncode, done.stdout) == (0, "7  i32 0x00000007\n")


def test_exports_are_listed_where_there_is_no_start(module, tmp_path, run_here):
    done = run_here(module)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[2:]] == list(FUNCTIONS)[:-1]
    assert lines[2].endswith("<Func add [i32 i32] -> [i32]>")
    path = tmp_path / "empty.wasm"
    path.write_bytes(build({}))
    assert run_here(str(path)).stdout == "The module exports nothing.\n"


def test_a_trap_is_one_block(module, run_here):
    done = run_here(module, "--invoke", "divide", "1", "0")
    assert (done.returncode, done.stdout) == (3, "")
    first, *frames = done.stderr.splitlines()
    assert first == (
        f"asm-libcalls: {module} trapped: integer divide by zero (INTEGER_DIVISION_BY_ZERO)"
    )
    assert re.fullmatch(r"  in function 10 at byte 0x\w+", frames[0])
    assert re.fullmatch(r"  called by divide at byte 0x\w+", frames[1])
    assert len(frames) == 2


def test_frames_that_repeat_are_counted(module, run_here):
    done = run_here(module, "--invoke", "deep")
    assert done.returncode == 3
    assert "trapped: call stack exhausted (STACK_OVERFLOW)" in done.stderr
    assert re.search(r"  in deep at byte 0x\w+, 64 times\n  \.\.\.\n$", done.stderr)


def test_a_trap_at_instantiation(tmp_path, run_here):
    path = tmp_path / "trap.wasm"
    path.write_bytes(build({"f": Function("->", "unreachable")}, start=0))
    done = run_here(str(path), "--invoke", "f")
    assert done.returncode == 3
    assert "trapped: unreachable" in done.stderr
    path.write_bytes(
        build({}, **EXTERNREFS, elements=[b"\x06\x00\x41\x08\x0b\x6f\x01\xd0\x6f\x0b"])
    )
    done = run_here(str(path))
    assert done.returncode == 3
    assert "trapped: out of bounds table access: element segment 0 has 1 elements" in done.stderr
    assert "(TABLE_OUT_OF_BOUNDS)\n" in done.stderr


def test_imports_are_named(tmp_path, run_here):
    path = tmp_path / "imports.wasm"
    path.write_bytes(build({"f": Function("->", "call 00")}, {"one": "->", "two": "->"}))
    done = run_here(str(path), "--invoke", "f")
    assert (done.returncode, done.stdout) == (4, "")
    assert "imports what the command line does not have" in done.stderr
    assert done.stderr.endswith("\n  m.one: function () -> ()\n  m.two: function () -> ()\n")


def test_stats(module, run_here):
    done = run_here(module, "--invoke", "divide", "9", "2", "--stats")
    assert done.stdout == "4  i64 0x0000000000000004\n"
    size = Path(module).stat().st_size
    assert f"{size} bytes of WebAssembly, 11 functions\n" in done.stderr
    assert re.search(r"compiled in [0-9.]+ ms \([0-9]+ KB a second\)\n", done.stderr)
    assert re.search(r"\n[0-9]+ bytes of machine code\n", done.stderr)
    assert done.stderr.endswith("libcalls called:\n  i64_sdiv  1\n")
    done = run_here(module, "--invoke", "round", "1.5", "--stats")
    assert done.stderr.endswith("libcalls called:\n  f64_ceil   1\n  f64_floor  1\n")
    done = run_here(module, "--invoke", "fill", "--stats")
    assert done.stderr.endswith("libcalls called:\n  memory_fill  1\n")
    done = run_here(module, "--invoke", "nothing", "--stats")
    assert done.stderr.endswith("no libcall was called\n")
    done = run_here(module, "--invoke", "divide", "9", "0", "--stats")
    assert done.returncode == 3
    assert done.stderr.endswith("libcalls called:\n  i64_sdiv  1\n")


@pytest.mark.parametrize("name", ["_divide", "10"])
def test_a_listing_has_both_kinds_of_instructions(tmp_path, name, run_here):
    pytest.importorskip("capstone", reason="pip install capstone")
    names = wasm.sized(wasm.vector([wasm.u(10) + wasm.name("_divide")]))
    content = build(FUNCTIONS, **MEMORY, elements=[b"\x03\x00\x01\x00"])
    path = tmp_path / "named.wasm"
    path.write_bytes(content + wasm.custom("name", b"\x01" + names))
    done = run_here(str(path), "--disasm", name)
    assert (done.returncode, done.stderr) == (0, "")
    first, *lines = done.stdout.splitlines()
    assert re.fullmatch(r"function 10, \d+ bytes at 0x\w+:", first)
    instructions = [line.partition(": ") for line in lines if line.startswith("0x")]
    assert [text for _, _, text in instructions] == [
        "local.get 0",
        "local.get 1",
        "i64.div_s",
        "end",
    ]
    offset = int(instructions[2][0], 16)
    assert content[offset] == 0x7F  # i64.div_s
    assert any("wasmtime_i64_sdiv" in line for line in lines)
    assert "out of line: traps and interrupts:" in lines
    assert any(line.endswith("call interrupt") for line in lines)


def test_a_listing_names_what_is_called(module, run_here):
    pytest.importorskip("capstone", reason="pip install capstone")
    done = run_here(module, "--disasm", "fill", "--invoke", "add", "1", "2")
    assert "; memory_fill\n" in done.stdout
    assert done.stdout.endswith("3  i32 0x00000003\n")
    done = run_here(module, "--disasm", "divide")
    assert "call function 10\n" in done.stdout
    assert ": call function 10\n" in done.stdout


def test_a_listing_needs_capstone(module):
    done = run("run", module, "--disasm", "add", without=("capstone",))
    assert (done.returncode, done.stdout) == (4, "")
    assert "--disasm needs the disassembler capstone" in done.stderr


TEXT = '(module (func (export "f") (result i32) i32.const 5))'


def test_the_text_format_is_converted(tmp_path, run_here):
    if shutil.which("wat2wasm") is None:
        pytest.importorskip("wasmtime", reason="no converter: neither wabt nor wasmtime")
    path = tmp_path / "module.wat"
    path.write_text(TEXT)
    assert run_here(str(path), "--invoke", "f").stdout == "5  i32 0x00000005\n"
    path.write_text("(module (func")
    done = run_here(str(path))
    assert (done.returncode, done.stdout) == (1, "")
    assert re.match(
        rf"asm-libcalls: (wat2wasm|wasmtime) refuses {re.escape(str(path))}:\n", done.stderr
    )


def test_wasmtime_converts_where_wabt_is_not(tmp_path):
    pytest.importorskip("wasmtime", reason="pip install wasmtime")
    path = tmp_path / "module.wat"
    path.write_text(TEXT)
    assert (
        run("run", str(path), "--invoke", "f", PATH=str(tmp_path)).stdout == "5  i32 0x00000005\n"
    )
    path.write_text("(module (func")
    done = run("run", str(path), PATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith(f"asm-libcalls: wasmtime refuses {path}:\n")


def test_no_converter_at_all(tmp_path):
    path = tmp_path / "module.wat"
    path.write_text(TEXT)
    done = run("run", str(path), without=("wasmtime",), PATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (4, "")
    assert "install wabt" in done.stderr


def test_a_time_limit(module, run_here):
    done = run_here(module, "--invoke", "endless", "--timeout", "0.1")
    assert done.returncode == 3
    assert "trapped: interrupt (INTERRUPT)\n  in endless at byte 0x" in done.stderr


def test_a_time_limit_of_the_start_function(tmp_path, run_here):
    path = tmp_path / "start.wasm"
    path.write_bytes(build({"f": Function("->", "loop 40 br 00 end")}, start=0))
    for words in ((), ("--invoke", "f")):
        done = run_here(str(path), *words, "--timeout", "0.1")
        assert done.returncode == 3
        assert "trapped: interrupt (INTERRUPT)\n  in f at byte 0x" in done.stderr


@pytest.mark.parametrize("value", ["inf", "1e10", "1e999", "60"])
def test_a_time_limit_that_is_never_reached(module, run_here, value):
    done = run_here(module, "--invoke", "add", "1", "2", "--timeout", value)
    assert (done.returncode, done.stdout, done.stderr) == (0, "3  i32 0x00000003\n", "")


@pytest.mark.parametrize("value", ["nan", "-1", "-inf", "abc", "", "0.5s"])
def test_a_time_limit_that_is_none(module, capsys, value):
    with pytest.raises(SystemExit) as caught:
        main(["run", module, "--invoke", "add", "1", "2", f"--timeout={value}"])
    assert caught.value.code == 2
    message = f"argument --timeout: {value!r} is not a number of seconds, or is negative"
    assert message in capsys.readouterr().err


def test_ctrl_c_ends_an_endless_function(module):
    process = subprocess.Popen(
        command("run", module, "--invoke", "endless"),
        stderr=subprocess.PIPE,
        env=environment(),
        text=True,
    )
    try:
        while process.poll() is None and not busy(process.pid):
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)  # once: a second one might strike while it ends
        assert process.wait(300) == 130
        assert process.stderr.read().startswith("asm-libcalls: interrupted")
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def busy(process_id):
    """Whether it computes: by then it has been in the loop for longer than anything takes."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) / os.sysconf("SC_CLK_TCK") > 2


def test_the_fallback_says_that_it_can_not(module):
    done = run("run", module, "--invoke", "nothing", ASM_LIBCALLS_BACKEND="fallback")
    assert (done.returncode, done.stdout) == (4, "")
    assert "toy_jit needs machine code: the fallback was asked for" in done.stderr


@pytest.mark.parametrize("kind", ["binary", "text"])
def test_a_module_from_standard_input(kind, module):
    content = Path(module).read_bytes()
    if kind == "text":
        if shutil.which("wat2wasm") is None:
            pytest.skip("wat2wasm is not installed: it is in wabt")
        content = b""" ;; first a comment
        (module (func (export "add") (param i32 i32) (result i32)
            local.get 0 local.get 1 i32.add))"""
    done = subprocess.run(
        [*command(), "run", "-", "--invoke", "add", "40", "2"],
        input=content,
        env=environment(),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"42  i32")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_names_that_a_terminal_must_not_get(tmp_path, encoding):
    name = "\N{GREEK SMALL LETTER ALPHA}\x1b[31m\0\u2028"
    path = tmp_path / "names.wasm"
    path.write_bytes(build({name: Function("->", "")}))
    done = run("run", str(path), PYTHONIOENCODING=encoding)
    shown = r"\u03b1" if encoding == "ascii" else name[0]
    assert done.stdout.split()[6] == shown + r"\x1b[31m\x00\u2028"
    assert (done.returncode, done.stderr) == (0, "")
    done = run("run", str(path), "--invoke", "f", PYTHONIOENCODING=encoding)
    assert done.stderr.strip().isprintable()
