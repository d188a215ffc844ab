"""Backtraces of native frames: functions that a JIT has named, in a trap's trace and its note."""

from __future__ import annotations

import ctypes
import pickle
import struct
import traceback

import pytest

import asm_libcalls
from asm_libcalls import Trap, catch_traps, load_code, native_function
from asm_libcalls.activation import MAXIMUM_TRACE
from asm_libcalls.emitter import code_names

pytestmark = pytest.mark.usefixtures("machine_code")

ENTER = bytes.fromhex("55 4889e5")  # push rbp; mov rbp, rsp
LEAVE = bytes.fromhex("5d c3")
CODE = 1000


def raising() -> bytes:
    """A function that ends with its call of ``asm_libcalls_raise_trap``."""
    address = asm_libcalls.runtime_symbols()["asm_libcalls_raise_trap"]
    return (
        ENTER
        + b"\xbf"
        + struct.pack("<I", CODE)
        + bytes.fromhex("48b8")
        + struct.pack("<Q", address)
        + bytes.fromhex("ffd0")
    )


def calling(distance: int) -> bytes:
    """A function that calls what is `distance` bytes before it."""
    after = len(ENTER) + 5
    return ENTER + b"\xe8" + struct.pack("<i", -distance - after) + LEAVE


def recursive() -> bytes:
    """``(i64)``: count down, then divide by zero, which traps in the libcall."""
    address = asm_libcalls.symbols()["wasmtime_i64_sdiv"]
    head = ENTER + bytes.fromhex("4885ff 7408 48ffcf")  # test rdi, rdi; jz +8; dec rdi
    call = b"\xe8" + struct.pack("<i", -len(head) - 5)
    tail = bytes.fromhex("31f6 48b8") + struct.pack("<Q", address) + bytes.fromhex("ffd0") + LEAVE
    return head + call + tail


FIRST = raising()
BOTH = FIRST + calling(len(FIRST))
NAMES = {"fails": (0, len(FIRST)), "calls": (len(FIRST), len(BOTH) - len(FIRST))}

LOADERS = {
    "load_code": lambda names: load_code(BOTH, names),
    "Code": lambda names: asm_libcalls.Code(BOTH, names).address,
}
ENTRIES = {
    "catch_traps": lambda at: catch_traps(at, "()"),
    "native_function": lambda at: native_function(at, "()"),
    "call_bits": lambda at: catch_traps(at, "()").call_bits,
}


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("loader", LOADERS)
def test_a_trace_says_functions_and_offsets(loader, entry):
    address = LOADERS[loader](NAMES)
    with pytest.raises(Trap) as caught:
        ENTRIES[entry](address + len(FIRST))()
    trap = caught.value
    fails, calls = trap.trace[:2]
    # The first function ends with its call, so its return address is one byte after it.
    assert (fails, fails.function, fails.offset) == (address + len(FIRST), "fails", len(FIRST))
    assert (calls.function, calls.offset) == ("calls", len(ENTER) + 5)
    assert all(frame.function is None is frame.offset for frame in trap.trace[2:])
    assert [str(f) for f in (fails, calls)] == [f"fails+{len(FIRST):#x}", "calls+0x9"]
    assert trap.__notes__ == [
        f"Native backtrace:\n  in fails+{len(FIRST):#x}\n  called by calls+0x9"
    ]
    printed = "".join(traceback.format_exception(trap))
    assert printed.endswith("called by calls+0x9\n")
    again = pickle.loads(pickle.dumps(trap))
    assert again.trace == trap.trace
    assert again.trace[0].function == "fails"


@pytest.mark.parametrize("loader", LOADERS)
def test_frames_without_a_name(loader):
    address = LOADERS[loader](None)
    with pytest.raises(Trap) as caught:
        catch_traps(address + len(FIRST), "()")()
    assert caught.value.trace[0] == address + len(FIRST)
    assert caught.value.trace[0].function is None
    assert str(caught.value.trace[0]) == hex(address + len(FIRST))
    missing = f"{type(caught.value).__name__!r} object has no attribute '__notes__'"
    for access in (getattr, delattr):  # as for any exception without notes
        with pytest.raises(AttributeError, match=missing):
            access(caught.value, "__notes__")

    address = LOADERS[loader]({"calls": NAMES["calls"]})
    with pytest.raises(Trap) as caught:
        catch_traps(address + len(FIRST), "()")()
    inner = hex(address + len(FIRST))
    assert caught.value.__notes__ == [f"Native backtrace:\n  in {inner}\n  called by calls+0x9"]


@pytest.mark.parametrize(
    ("depth", "times"), [(0, ""), (5, ", 5 times"), (1000, ", 63 times\n  ...")]
)
def test_equal_frames_share_a_line(depth, times):
    code = recursive()
    down = catch_traps(load_code(code, {"down": (0, len(code))}), "(i64)")
    with pytest.raises(ZeroDivisionError) as caught:
        down(depth)
    lines = ["Native backtrace:", f"  in down+{len(code) - len(LEAVE):#x}"]
    if depth:
        lines.append(f"  called by down+0x11{times}")
    assert caught.value.__notes__ == ["\n".join(lines)]
    assert len(caught.value.trace) == min(depth + 2, MAXIMUM_TRACE)


def test_names_of_the_perf_map_are_in_traces(child):
    child("""
        import os
        import asm_libcalls
        from asm_libcalls.emitter import code_names
        from asm_libcalls.integrations import perf
        from native.test_backtraces import BOTH, FIRST, NAMES

        address = asm_libcalls.load_code(BOTH)
        for name in ("old", "mine"):  # the newest name counts
            perf.write_entry(address, len(FIRST), name)
        try:
            asm_libcalls.catch_traps(address + len(FIRST), "()")()
        except asm_libcalls.Trap as trap:
            assert trap.trace[0].function == "mine"
            assert trap.__notes__ == [f"Native backtrace:\\n  in mine+{len(FIRST):#x}"]

        # The names of a Code come first.
        with asm_libcalls.Code(BOTH) as code:
            start = int(code.address)
            perf.write_entry(start + 8, 4, "gone")
            assert code_names.find(start + 10) == ("gone", 2)
        del code
        code = asm_libcalls.Code(BOTH, NAMES)
        assert int(code.address) == start
        assert code_names.find(start + 10) == ("fails", 10)
        perf.write_entry(start + 8, 4, "other")
        assert code_names.find(start + 10) == ("fails", 10)
        os.unlink(perf.map_file())
    """)


def test_names_go_with_their_code():
    with asm_libcalls.Code(BOTH, NAMES) as code:
        inside = int(code.address) + 20
        assert code_names.find(inside) == ("fails", 20)
    del code
    assert code_names.find(inside) is None


def test_addresses_at_the_ends_of_functions():
    # Two bytes that are no function's, then one function, then two more.
    address = load_code(b"\x90\x90" + b"\xc3" * 4 + b"\x90\x90", {"four": (2, 4)})
    found = [code_names.find(address + i) for i in range(-1, 10)]
    assert found == [None] * 4 + [("four", i) for i in range(1, 5)] + [None] * 3


def test_a_trap_of_a_host_function_keeps_its_own_notes():
    def host():
        try:
            catch_traps(load_code(BOTH, NAMES) + len(FIRST), "()")()
        except Trap as trap:
            trap.add_note("seen")
            raise

    function = asm_libcalls.HostFunction(host, "()")
    with pytest.raises(Trap) as caught:
        catch_traps(function.address, "()")()
    assert [note.partition("\n")[0] for note in caught.value.__notes__] == [
        "Native backtrace:",
        "seen",
    ]


def test_an_exception_of_a_host_function_names_the_frames_that_it_unwinds(machine_code):
    error = KeyError("of the host")

    def fail():
        raise error

    def trap():
        raise asm_libcalls.Trap(asm_libcalls.TrapCode.UNREACHABLE_CODE_REACHED)

    for function, kind in ((fail, KeyError), (trap, asm_libcalls.UnreachableCodeReached)):
        with asm_libcalls.HostFunction(function, "()") as host:
            # push rbp; mov rbp, rsp; mov rax, host; call rax; pop rbp; ret
            code = bytes.fromhex("55 4889e5 48b8") + host.address.to_bytes(8, "little")
            code += bytes.fromhex("ffd0 5d c3")
            address = asm_libcalls.load_code(code, {"calls_the_host": (0, len(code))})
            for enter in (
                asm_libcalls.native_function(address, "()"),
                asm_libcalls.native_function(address, "(pointer)"),
                asm_libcalls.catch_traps(address, "()"),
                asm_libcalls.catch_traps(address, "()").call_bits,
            ):
                given = [] if "pointer" not in repr(enter.__doc__) else [bytearray(1)]
                with pytest.raises(kind) as caught:
                    enter(*given)
                assert caught.value.__notes__ == ["Native backtrace:\n  in calls_the_host+0x10"]
    assert error.__traceback__ is not None


def test_an_error_of_a_c_function_gets_no_note(machine_code):
    asm_libcalls.load_code(b"\xc3", {"known": (0, 1)})
    address = ctypes.cast(ctypes.pythonapi.PyErr_SetNone, ctypes.c_void_p).value
    set_error = asm_libcalls.native_function(address, "(pointer)")
    with pytest.raises(ZeroDivisionError) as caught:
        set_error(id(ZeroDivisionError))
    assert not hasattr(caught.value, "__notes__")
