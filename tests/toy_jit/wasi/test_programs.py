"""C programs by clang and wasi-libc: from Python, from the command line, and by Wasmtime."""

import io
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from command_line import command, environment

from asm_libcalls import Interrupt, toy_jit
from asm_libcalls.toy_jit.wasi import Exit, Preview1

PROGRAMS = Path(__file__).parent / "programs"
FLAGS = {"library": ["-mexec-model=reactor"]}

pytestmark = pytest.mark.usefixtures("machine_code")


def missing():
    """Say what is missing to compile programs, or nothing."""
    if shutil.which("clang") is None or shutil.which("wasm-ld") is None:
        return "clang and wasm-ld are not installed: they are in the packages clang and lld"
    probe = subprocess.run(
        ["clang", "--target=wasm32-wasi", "-xc", "-", "-o", "/dev/null"],
        input=b"#include <stdio.h>\nint main(void) { return 0; }",
        capture_output=True,
        check=False,
    )
    return (
        "clang cannot compile for wasm32-wasi: it needs wasi-libc and libclang-rt-*-dev-wasm32"
        if probe.returncode
        else ""
    )


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """Give a function that compiles a program, once."""
    if reason := missing():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("programs")

    def compiled(name):
        target = folder / f"{name}.wasm"
        if not target.exists():
            flags = ["--target=wasm32-wasi", "-O2", *FLAGS.get(name, [])]
            subprocess.run(["clang", *flags, PROGRAMS / f"{name}.c", "-o", target], check=True)
        return target

    return compiled


@pytest.fixture(params=["python", "command line", "wasmtime"])
def run(request, tmp_path):
    """Give each way to run a program: to (exit code, output, errors)."""
    ways = {"python": in_python, "command line": by_command, "wasmtime": by_wasmtime}
    if request.param == "wasmtime":
        pytest.importorskip("wasmtime")

    def run(path, *arguments, env=None, stdin=b"", folder=None):
        return ways[request.param](path, arguments, env or {}, stdin, folder)

    return run


def in_python(path, arguments, env, stdin, folder):
    out, err = io.BytesIO(), io.BytesIO()
    preopens = {} if folder is None else {"/data": folder}
    with Preview1(
        args=[path.name, *arguments],
        env=env,
        stdin=stdin,
        stdout=out,
        stderr=err,
        preopens=preopens,
    ) as wasi:
        code = wasi.start(toy_jit.Instance(toy_jit.Module.from_file(path), wasi))
    return code, out.getvalue().decode(), err.getvalue().decode()


def by_command(path, arguments, env, stdin, folder):
    words = ["run", str(path)]
    for name, value in env.items():
        words += ["--env", f"{name}={value}"]
    if folder is not None:
        words += ["--dir", f"{folder}::/data"]
    done = subprocess.run(
        [*command(), *words, "--", *arguments],
        input=stdin,
        capture_output=True,
        check=False,
        env=environment(),
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def by_wasmtime(path, arguments, env, stdin, folder):
    import tempfile

    import wasmtime

    engine = wasmtime.Engine()
    linker = wasmtime.Linker(engine)
    linker.define_wasi()
    config = wasmtime.WasiConfig()
    config.argv = [path.name, *arguments]
    config.env = list(env.items())
    if folder is not None:
        config.preopen_dir(str(folder), "/data")
    with tempfile.TemporaryDirectory() as temporary:
        files = [Path(temporary) / name for name in ("in", "out", "err")]
        files[0].write_bytes(stdin)
        config.stdin_file, config.stdout_file, config.stderr_file = map(str, files)
        store = wasmtime.Store(engine)
        store.set_wasi(config)
        instance = linker.instantiate(store, wasmtime.Module.from_file(engine, str(path)))
        code = 0
        try:
            instance.exports(store)["_start"](store)
        except wasmtime.ExitTrap as trap:
            code = trap.code
        del store
        return code, files[1].read_text(), files[2].read_text()


def test_hello(compiled, run):
    code, out, err = run(
        compiled("hello"), "one", "-2", "ä b", env={"GREETING": "good day"}, stdin=b"a\nbcd\n\nend"
    )
    assert out.splitlines() == [
        "argument 1: one",
        "argument 2: -2",
        "argument 3: ä b",
        "GREETING: good day",
        "line of 2 bytes: a",
        "line of 4 bytes: bcd",
        "line of 1 bytes: ",
        "line of 3 bytes: end",
    ]
    assert (code, err) == (4, "terminal: 0 0\n")


def test_hello_without_anything(compiled, run):
    code, out, _ = run(compiled("hello"))
    assert (code, out) == (1, "GREETING: (none)\n")


def test_files(compiled, run, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "there").touch()
    code, out, err = run(compiled("files"), folder=folder)
    assert (code, err) == (0, "")
    names = " ".join(f"many-{i:03}" for i in range(200))
    assert out.splitlines() == [
        "mkdir: done",
        "mkdir again: File exists",
        "size 98890",
        "at 7000: line 790",
        "stat: done",
        "98898 bytes, folder 0",
        "rename: done",
        "stat: No such file or directory",
        "link: done",
        "symlink: done",
        "link of 5: other",
        f"/data/made has 205: ./ ../ hard {names} other soft",
        "/data has 4: ./ ../ made/ there",
        "rmdir: Directory not empty",
        "unlink folder: Is a directory",
        "truncate: done",
        "line",
        "unlink: done",
        "pwrite: done",
        "4 bytes: lXYe",
        "write to what is read: Bad file descriptor",
    ]
    assert (folder / "made" / "other").read_bytes() == b"lXYe"
    assert (folder / "made" / "soft").is_symlink()


def test_clocks(compiled, run):
    code, out, _ = run(compiled("clocks"))
    expected = ["slept: 1", "now: 1", "resolution: 1", "random: 1", "polled: 1"]
    assert (code, out.splitlines()) == (0, expected)


def test_ways_out(compiled, run, tmp_path):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    (outside / "folder").mkdir(parents=True)
    (outside / "secret").write_text("secret")
    inside.mkdir()
    (inside / "absolute").symlink_to(outside / "secret")
    (inside / "up").symlink_to("../outside")
    paths = [
        "/data/../outside/secret",
        "../outside/secret",
        str(outside / "secret"),
        "/data/absolute",
        "/data/up/secret",
        "/data/up/new",
        "/data/up/folder",
        "/data/made_by_guest/secret",
        "/data/made_by_guest/folder",
        "/data/./../outside/folder",
        "/etc/passwd",
        "/proc/self/cwd",
    ]
    code, out, _ = run(compiled("ways_out"), *paths, folder=inside)
    # The link itself is the guest's to remove, and its name to use again.
    assert [line for line in out.splitlines() if not line.startswith("/data/absolute: ")] == []
    assert code == len(out.splitlines())
    assert sorted(p.name for p in outside.iterdir()) == ["folder", "secret"]
    assert (outside / "secret").read_text() == "secret"
    assert list((outside / "folder").iterdir()) == []


# -- from Python


def test_a_library(compiled):
    with Preview1() as wasi:
        instance = toy_jit.Instance(toy_jit.Module.from_file(compiled("library")), wasi)
        exports = instance.exports
        assert exports["is_initialised"]() == 0
        wasi.initialize(instance)
        assert exports["is_initialised"]() == 1
        at = exports["allocate"](400)
        memoryview(instance.memory)[at : at + 400] = struct.pack("<100i", *range(100))
        assert exports["sum"](at, 100) == 4950
        with pytest.raises(Exit) as caught:
            exports["leave"](9)
        assert caught.value.code == 9


def test_an_exit_that_nobody_catches_ends_python(compiled):
    program = (
        "from asm_libcalls import toy_jit\n"
        "wasi = toy_jit.wasi.Preview1(args=['hello', 'x', 'y'])\n"
        f"module = toy_jit.Module.from_file({str(compiled('hello'))!r})\n"
        "toy_jit.Instance(module, wasi).exports['_start']()\n"
    )
    import sys

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=False, env=environment()
    )
    assert done.returncode == 3
    assert done.stdout.decode().splitlines()[:2] == ["argument 1: x", "argument 2: y"]
    assert done.stderr == b"terminal: 0 0\n"


def test_a_time_limit_ends_what_waits_for_input(compiled):
    import os

    reader, writer = os.pipe()
    with Preview1(stdin=reader, stdout=io.BytesIO()) as wasi:
        instance = toy_jit.Instance(toy_jit.Module.from_file(compiled("hello")), wasi)
        with instance.time_limit(0.1), pytest.raises(Interrupt):
            wasi.start(instance)
    os.close(reader)
    os.close(writer)


def test_programs_with_asyncio(compiled):
    import asyncio
    import os

    reader, writer = os.pipe()
    module = toy_jit.Module.from_file(compiled("hello"))

    async def run(words, stdin):
        with Preview1(args=words, stdin=stdin, stdout=io.BytesIO()) as wasi:
            instance = toy_jit.Instance(module, wasi)
            return await asyncio.wait_for(wasi.start_async(instance), 0.5 if stdin else None)

    async def main():
        counts = await asyncio.gather(*(run(["x"] * i, b"") for i in range(1, 8)))
        with pytest.raises(asyncio.TimeoutError):  # it waits for its input
            await run(["x"], reader)
        library = toy_jit.Module.from_file(compiled("library"))
        with Preview1() as wasi, pytest.raises(ValueError, match="exports no _start"):
            await wasi.start_async(toy_jit.Instance(library, wasi))
        return counts

    assert asyncio.run(main()) == list(range(1, 8))
    os.close(reader)
    os.close(writer)


# -- by the command line


def line(*words, **options):
    return subprocess.run(
        [*command(), "run", *map(str, words)],
        capture_output=True,
        check=False,
        env=environment(MINE="its own"),
        **options,
    )


def test_a_variable_of_this_environment(compiled):
    for words, expected in (
        (["--env", "GREETING=a=b"], b"GREETING: a=b\n"),
        (["--env", "GREETING="], b"GREETING: \n"),
        (["--env", "GREETING"], b"GREETING: (none)\n"),
    ):
        assert line(compiled("hello"), *words).stdout == expected


def test_a_module_from_the_input(compiled):
    done = line("-", "a", input=compiled("hello").read_bytes())
    assert (done.returncode, done.stdout) == (2, b"argument 1: a\nGREETING: (none)\n")


def test_the_time_limit_of_the_command_line(compiled):
    import os

    reader, writer = os.pipe()
    done = line("--timeout", "0.1", compiled("hello"), stdin=reader)
    os.close(reader)
    os.close(writer)
    assert done.returncode == 3
    assert b"trapped: interrupt (INTERRUPT)" in done.stderr


def test_a_function_of_a_library(compiled):
    done = line(compiled("library"), "--invoke", "is_initialised")
    assert (done.returncode, done.stdout) == (0, b"1  i32 0x00000001\n")
    assert line(compiled("library"), "--invoke", "leave", "5").returncode == 5


def test_what_the_command_line_refuses(compiled, tmp_path):
    done = line(compiled("hello"), "--dir", f"{tmp_path}/none::/data")
    assert done.returncode == 2
    assert b"No such file or directory" in done.stderr
    done = line(compiled("hello"), "--env", "=x")
    assert done.returncode == 2
    assert b"is not a name of an environment variable" in done.stderr
    plain = tmp_path / "plain.wasm"
    plain.write_bytes(b"\0asm\1\0\0\0")
    done = line(plain, "--env", "A=1")
    assert done.returncode == 2
    assert b"are for modules that import wasi_snapshot_preview1" in done.stderr
