"""The command ``compile``, and ``run`` with what it wrote."""

import os
import threading

import pytest
from command_line import run
from jit_modules import Function, build

from asm_libcalls.cli import main
from asm_libcalls.toy_jit import Module

pytestmark = pytest.mark.usefixtures("machine_code")

FUNCTIONS = {
    "divide": Function("i64 i64 -> i64", "local.get 00 local.get 01 i64.div_s"),
    "trap": Function("->", "unreachable"),
}


@pytest.fixture
def wasm(tmp_path):
    path = tmp_path / "module.wasm"
    path.write_bytes(build(FUNCTIONS))
    return path


@pytest.fixture
def compiled(wasm, tmp_path, capsys):
    path = tmp_path / "module.compiled"
    assert main(["compile", str(wasm), "-o", str(path)]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{path}: {wasm.stat().st_size} bytes of WebAssembly, ")
    assert printed.err == ""
    return path


def failure(capsys, *words):
    code = main([str(word) for word in words])
    printed = capsys.readouterr()
    assert printed.out == ""
    return code, printed.err


def test_other_processes_compile_and_run(wasm, tmp_path):
    path = str(tmp_path / "out")
    assert run("compile", str(wasm), "--output", path).returncode == 0
    done = run("run", "--allow-precompiled", path, "--invoke", "divide", "-7", "2")
    assert (done.returncode, done.stdout.split()[0]) == (0, "-3")
    done = run("run", path, "--allow-precompiled", "--invoke", "trap")
    assert done.returncode == 3
    assert "unreachable" in done.stderr


def test_options(wasm, tmp_path):
    path = tmp_path / "out"
    assert main(["compile", "--inline", str(wasm), "-o", str(path)]) == 0
    assert Module.deserialize(path.read_bytes())._options.inline
    assert path.stat().st_mode & 0o111 == 0


def test_machine_code_runs_only_where_it_is_allowed(compiled, capsys):
    code, error = failure(capsys, "run", compiled, "--invoke", "divide", "7", "2")
    assert code == 2
    assert "--allow-precompiled runs it, if you trust it" in error


def test_webassembly_is_compiled_where_machine_code_is_allowed(wasm, capsys):
    assert main(["run", "--allow-precompiled", str(wasm), "--invoke", "divide", "7", "2"]) == 0
    assert capsys.readouterr().out.split()[0] == "3"


@pytest.mark.parametrize("words", [("--stats",), ("--inline",), ("--disasm", "divide")])
def test_options_of_compiling(compiled, capsys, words):
    code, error = failure(capsys, "run", "--allow-precompiled", *words, compiled)
    assert code == 2
    assert "are for compiling" in error


def test_a_damaged_file(compiled, capsys):
    compiled.write_bytes(compiled.read_bytes()[:-1])
    code, error = failure(capsys, "run", "--allow-precompiled", compiled)
    assert code == 1
    assert f"{compiled} cannot be used: it is truncated" in error


def test_what_cannot_be_compiled_or_written(wasm, compiled, tmp_path, capsys):
    code, error = failure(capsys, "compile", compiled, "-o", tmp_path / "out")
    assert (code, "is not valid: magic header" in error) == (1, True)
    code, error = failure(capsys, "compile", tmp_path / "none", "-o", tmp_path / "out")
    assert (code, "cannot be read" in error) == (2, True)
    code, error = failure(capsys, "compile", wasm, "-o", tmp_path / "none" / "out")
    assert (code, "cannot be written" in error) == (2, True)
    assert not (tmp_path / "out").exists()
    with pytest.raises(SystemExit):
        main(["compile", str(wasm)])
    assert "-o" in capsys.readouterr().err


@pytest.mark.parametrize("link", ["itself", "symbolic", "hard"])
def test_the_source_is_not_replaced(wasm, tmp_path, capsys, link):
    output, before = wasm, wasm.read_bytes()
    if link != "itself":
        output = tmp_path / "link"
        (output.symlink_to if link == "symbolic" else output.hardlink_to)(wasm)
    code, error = failure(capsys, "compile", wasm, "-o", output)
    assert (code, "is the same file" in error) == (2, True)
    assert wasm.read_bytes() == output.read_bytes() == before


def test_a_pipe_is_written_to_and_a_link_stays(wasm, compiled, tmp_path, capsys):
    """A device would be replaced by a file otherwise, ``/dev/full`` for example."""
    pipe, link, target = tmp_path / "pipe", tmp_path / "link", tmp_path / "folder" / "target"
    os.mkfifo(pipe)
    target.parent.mkdir()
    target.write_bytes(b"old")
    link.symlink_to(target)
    given = []
    reader = threading.Thread(target=lambda: given.append(pipe.read_bytes()))
    reader.start()
    assert main(["compile", str(wasm), "-o", str(pipe)]) == 0
    reader.join()
    assert main(["compile", str(wasm), "-o", str(link)]) == 0
    capsys.readouterr()
    assert pipe.is_fifo()
    assert link.is_symlink()
    assert given == [target.read_bytes()] == [compiled.read_bytes()]
    assert [*target.parent.iterdir()] == [target]


def test_a_full_device(wasm, capsys):
    code, error = failure(capsys, "compile", wasm, "-o", "/dev/full")
    assert (code, "/dev/full cannot be written: No space left on device" in error) == (2, True)
