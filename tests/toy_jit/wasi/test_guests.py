"""Calls of a hostile guest: pointers, lengths, descriptors, and random arguments."""

import asyncio
import io
import struct

import hypothesis
import pytest
import wasm_builder as wasm
from hypothesis import strategies as some
from wasi_guest import CALLS, MODULE, RESULT, Guest, binary

from asm_libcalls import Trap, toy_jit
from asm_libcalls.toy_jit.frontend.module import I32
from asm_libcalls.toy_jit.wasi import Exit, Preview1
from asm_libcalls.toy_jit.wasi.errors import Errno

pytestmark = pytest.mark.usefixtures("machine_code")

SIZE = 65536

# By call, its arguments: "*" stands for a pointer to what is beyond the memory, "#" for a length or
# count of what does not fit.
POINTERS = [
    "args_get * 0",
    "args_get 0 *",
    "args_sizes_get * 0",
    "args_sizes_get 0 *",
    "environ_get * 0",
    "environ_get 0 *",
    "environ_sizes_get * 0",
    "environ_sizes_get 0 *",
    "clock_res_get 0 *",
    "clock_time_get 0 0 *",
    "random_get * 1",
    "random_get 0 #",
    "fd_fdstat_get 0 *",
    "fd_filestat_get 0 *",
    "fd_filestat_get 4 *",
    "fd_pread 4 * 1 0 8",
    "fd_pread 4 0 0 0 *",
    "fd_pwrite 4 * 1 0 8",
    "fd_pwrite 4 0 0 0 *",
    "fd_read 0 * 1 8",
    "fd_read 0 0 # 8",
    "fd_read 0 0 0 *",
    "fd_write 1 * 1 8",
    "fd_write 1 0 # 8",
    "fd_write 1 0 0 *",
    "fd_prestat_get 3 *",
    "fd_prestat_dir_name 3 * 4",
    "fd_readdir 3 * 8 0 8",
    "fd_readdir 3 0 # 0 8",
    "fd_readdir 3 0 8 0 *",
    "fd_seek 4 0 0 *",
    "fd_tell 4 *",
    "path_create_directory 3 * 1",
    "path_create_directory 3 0 #",
    "path_filestat_get 3 0 * 1 8",
    "path_filestat_get 3 0 16 4 *",
    "path_filestat_set_times 3 0 * 1 0 0 0",
    "path_link 3 0 * 1 3 0 1",
    "path_link 3 0 16 4 3 * 1",
    "path_open 3 0 * 1 0 0 0 0 8",
    "path_open 3 0 16 4 0 0 0 0 *",
    "path_readlink 3 * 1 0 8 8",
    "path_readlink 3 32 4 * 8 8",
    "path_readlink 3 32 4 0 # 8",
    "path_readlink 3 32 4 0 8 *",
    "path_remove_directory 3 * 1",
    "path_rename 3 * 1 3 0 1",
    "path_rename 3 16 4 3 * 1",
    "path_symlink * 1 3 16 4",
    "path_symlink 16 4 3 * 1",
    "path_unlink_file 3 * 1",
    "poll_oneoff * 0 1 8",
    "poll_oneoff 0 * 1 8",
    "poll_oneoff 0 0 1 *",
]


@pytest.fixture
def guest(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "soft").symlink_to("file")
    options = {"stdin": b"input", "stdout": io.BytesIO(), "preopens": {"/dir": tmp_path}}
    with Guest(args=["prog"], env={"A": "1"}, **options) as guest:
        assert guest.open("file", writes=True) == 4
        guest.memory[16:20] = b"file"
        guest.memory[32:36] = b"soft"
        yield guest


@pytest.mark.parametrize("pointer", [SIZE, SIZE + 1, 0xFFFF_FFFF, 0x8000_0000, 0xFFFF_0000])
@pytest.mark.parametrize("row", POINTERS)
def test_pointers_beyond_the_memory(guest, row, pointer):
    name, *words = row.split()
    before = bytes(guest.memory[SIZE // 2 :])
    values = {"*": pointer, "#": max(pointer, SIZE + 1)}
    arguments = [values[word] if word in values else int(word) for word in words]
    assert Errno(guest.instance.exports[name](*arguments)) == Errno.FAULT
    assert bytes(guest.memory[SIZE // 2 :]) == before


def test_every_pointer_is_tried():
    tried = {row.split()[0] for row in POINTERS}
    without = {
        "fd_advise", "fd_allocate", "fd_close", "fd_datasync", "fd_fdstat_set_flags",
        "fd_fdstat_set_rights", "fd_filestat_set_size", "fd_filestat_set_times", "fd_renumber",
        "fd_sync", "proc_exit", "proc_raise", "sched_yield", "sock_accept", "sock_recv",
        "sock_send", "sock_shutdown",
    }  # fmt: skip
    assert tried | without == set(CALLS)


def test_buffers_at_the_end(guest):
    vector = guest.put(struct.pack("<II", SIZE - 3, 3))
    guest.ok("fd_read", 0, vector, 1, RESULT)
    assert bytes(guest.memory[SIZE - 3 :]) == b"inp"
    vector = guest.put(struct.pack("<II", SIZE - 3, 4))
    assert guest.call("fd_read", 0, vector, 1, RESULT) == Errno.FAULT
    guest.ok("random_get", SIZE - 8, 8)
    guest.ok("random_get", SIZE, 0)
    assert guest.read(0) == b"ut"  # nothing was read for nothing


def test_nothing_is_written_where_the_result_has_no_place(guest):
    vector = guest.put(struct.pack("<II", 16, 4))
    assert guest.call("fd_write", 4, vector, 1, SIZE - 3) == Errno.FAULT
    guest.ok("fd_tell", 4, RESULT)
    assert guest.u64() == 0


def test_a_guest_without_memory():
    with Guest(pages=0, args=["prog"], env={"A": "1"}) as guest:
        exports = guest.instance.exports
        for row in POINTERS:
            if row.split()[1] not in "34":
                name, *words = row.split()
                arguments = [int(word.translate({42: "0", 35: "1"})) for word in words]
                assert Errno(exports[name](*arguments)) == Errno.FAULT, row
        assert Errno(exports["sched_yield"]()) == Errno.SUCCESS


def test_python_that_calls_without_a_guest():
    """There is no memory then, and no crash."""
    with Preview1(args=["x"]) as wasi:
        assert wasi[MODULE]["args_sizes_get"](0, 4) == Errno.FAULT
        assert wasi[MODULE]["sched_yield"]() == 0


def test_the_guest_of_each_call_is_asked():
    """Two instances, one of which calls by what the other one exports."""
    with Preview1(args=["prog", "x"]) as wasi:
        name = "args_sizes_get"
        functype = CALLS[name]
        first_binary = wasm.module(
            types=[wasm.functype(functype.params, functype.results)],
            imports=[wasm.name(MODULE) + wasm.name(name) + b"\0\0"],
            memories=[b"\0\1"],
            exports=[wasm.exported(name, 0, 0)],
        )
        first = toy_jit.Instance(toy_jit.Module(first_binary), wasi)
        second = toy_jit.Instance(
            toy_jit.Module(binary(1, {name: functype})), {MODULE: {name: first.exports[name]}}
        )
        assert second.exports[name](0, 4) == 0
        assert bytes(memoryview(second.memory)[:5]) == b"\2\0\0\0\7"
        assert bytes(memoryview(first.memory)[:5]) == bytes(5)


# -- linking


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_type_is_an_error_of_linking(name):
    functype = CALLS[name]
    wrong = type(functype)(functype.params + bytes([I32]), functype.results)
    module = toy_jit.Module(binary(1, {name: wrong}))
    with Preview1() as wasi, pytest.raises(toy_jit.LinkError, match=rf"type for {MODULE}\.{name}:"):
        toy_jit.Instance(module, wasi)


# -- the end


@pytest.mark.parametrize("code", [0, 1, 255, 256, 2**31, 2**32 - 1])
def test_proc_exit(code):
    with Guest() as guest:
        with pytest.raises(SystemExit) as caught:
            guest.call("proc_exit", code)
        assert isinstance(caught.value, Exit)
        assert caught.value.code == code


def program(body, exports=("_start",)):
    exit_type = CALLS["proc_exit"]
    return wasm.module(
        types=[wasm.functype(exit_type.params, exit_type.results), wasm.functype()],
        imports=[wasm.name(MODULE) + wasm.name("proc_exit") + b"\0\0"],
        functions=[1],
        exports=[wasm.exported(name, 0, 1) for name in exports],
        code=[wasm.body(body)],
    )


def instance(wasi, body=b"", exports=("_start",)):
    return toy_jit.Instance(toy_jit.Module(program(body, exports)), wasi)


@pytest.mark.parametrize(
    ("body", "code"), [(b"", 0), (wasm.i32(0) + b"\x10\0", 0), (wasm.i32(7) + b"\x10\0", 7)]
)
def test_start(body, code):
    with Preview1() as wasi:
        library = instance(wasi, exports=["f"])
        with pytest.raises(ValueError, match="exports no _start"):
            wasi.start(library)
        assert wasi.start(instance(wasi, body)) == code


def test_initialize():
    with Preview1() as wasi:
        wasi.initialize(instance(wasi, exports=["f"]))
        with pytest.raises(Trap, match="unreachable"):
            wasi.initialize(instance(wasi, b"\0", ["_initialize"]))
        with pytest.raises(ValueError, match="it is a program"):
            wasi.initialize(instance(wasi))


def runs(wasi):
    return {
        "start": wasi.start,
        "start_async": lambda program: asyncio.run(wasi.start_async(program)),
        "initialize": wasi.initialize,
    }


@pytest.mark.parametrize("first", ["start", "start_async"])
@pytest.mark.parametrize("then", ["start", "start_async"])
def test_each_run_needs_a_preview1_of_its_own(first, then):
    with Preview1() as wasi:
        made = instance(wasi)
        assert runs(wasi)[first](made) == 0
        with pytest.raises(ValueError, match=rf"^{then}\(\): this Preview1 has run a program"):
            runs(wasi)[then](made)


def test_a_closed_preview1_runs_nothing():
    wasi = Preview1()
    made, library = instance(wasi), instance(wasi, exports=["f"])
    wasi.close()
    for run, given in zip(runs(wasi).values(), (made, made, library), strict=True):
        with pytest.raises(ValueError, match="the Preview1 is closed"):
            run(given)
    for use in (instance, dict, len, list, lambda wasi: MODULE in wasi):
        with pytest.raises(ValueError, match="the Preview1 is closed"):
            use(wasi)
    wasi.close()


@pytest.mark.parametrize("run", ["start", "start_async", "initialize"])
def test_what_is_no_instance_is_not_run(run):
    with Preview1() as wasi, pytest.raises(TypeError, match=rf"^{run}\(\): instance must be a "):
        runs(wasi)[run](None)


# -- anything at all

NUMBERS = some.one_of(
    some.integers(0, 8),
    some.sampled_from([16, 32, 64, SIZE - 8, SIZE - 1, SIZE, 0x7FFF_FFFF, 0xFFFF_FFFF]),
    some.integers(0, SIZE),
)
WORDS = {
    0x7F: NUMBERS,
    0x7E: some.one_of(NUMBERS, some.sampled_from([1 << 62, 1 << 63, (1 << 64) - 1])),
}
SKIPPED = {
    "proc_exit",
    "poll_oneoff",
    "fd_allocate",
    "fd_filestat_set_size",
    "fd_pwrite",
    "fd_seek",
}


@hypothesis.given(data=some.data())
@hypothesis.settings(
    max_examples=300, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
def test_any_arguments_give_an_errno(data, tmp_path):
    """Never an exception. (What would fill the disk or wait for long is left out.)"""
    options = {"stdin": b"input" * 100, "stdout": io.BytesIO(), "stderr": io.BytesIO()}
    with Guest(args=["prog"], env={"A": "1"}, preopens={"/": tmp_path}, **options) as guest:
        guest.open("file", 1, writes=True)
        guest.memory[:1024] = (b"file" + bytes(12) + b"\x10\0\0\0\4\0\0\0") * 42 + bytes(16)
        for _ in range(20):
            name = data.draw(some.sampled_from(sorted(set(CALLS) - SKIPPED)))
            arguments = [data.draw(WORDS[kind]) for kind in CALLS[name].params]
            Errno(guest.instance.exports[name](*arguments))


@hypothesis.given(
    kinds=some.lists(
        some.tuples(some.integers(0, 4), some.integers(0, 6), some.integers(0, 5000)), max_size=6
    )
)
def test_any_subscriptions_give_an_errno(kinds):
    with Guest(stdin=b"x", stdout=io.BytesIO()) as guest:
        data = b"".join(
            struct.pack("<QB7xI4xQQH6x", i, kind, fd, time, 0, time % 3)
            for i, (kind, fd, time) in enumerate(kinds)
        )
        at = guest.put(data)
        found = Errno(guest.instance.exports["poll_oneoff"](at, 8192, len(kinds), RESULT))
        assert (found == Errno.INVAL) == (not kinds)
        if kinds:
            assert 1 <= guest.u32() <= len(kinds)
