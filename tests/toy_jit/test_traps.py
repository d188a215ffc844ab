"""Traps: code, message, and the functions and byte offsets of the backtrace."""

import pickle
import sys
import threading
from functools import partial

import pytest
import wasm_builder as wasm
from interruptions import at_every_point
from jit_modules import EXTERNREFS, FUNCREFS, MEMORY, Function, build, instantiate
from wasm_functions import code

import asm_libcalls
from asm_libcalls import toy_jit
from asm_libcalls.toy_jit.link import code_map
from asm_libcalls.trap_codes import TrapCode

pytestmark = pytest.mark.usefixtures("machine_code")

MESSAGES = {
    TrapCode.HEAP_OUT_OF_BOUNDS: "out of bounds memory access",
    TrapCode.TABLE_OUT_OF_BOUNDS: "out of bounds table access",
    TrapCode.INDIRECT_CALL_TO_NULL: "uninitialized element",
    TrapCode.BAD_SIGNATURE: "indirect call type mismatch",
    TrapCode.INTEGER_OVERFLOW: "integer overflow",
    TrapCode.INTEGER_DIVISION_BY_ZERO: "integer divide by zero",
    TrapCode.BAD_CONVERSION_TO_INTEGER: "invalid conversion to integer",
    TrapCode.UNREACHABLE_CODE_REACHED: "unreachable",
    TrapCode.UNDEFINED_ELEMENT: "undefined element",
}
TRAPS = {
    # The instruction, the code before it, the trap.
    "unreachable": ("", TrapCode.UNREACHABLE_CODE_REACHED),
    "i32.div_s": ("i32.const 01 i32.const 00", TrapCode.INTEGER_DIVISION_BY_ZERO),
    "i32.rem_u": ("i32.const 01 i32.const 00", TrapCode.INTEGER_DIVISION_BY_ZERO),
    "i64.div_s": ("i64.const 01 i64.const 00", TrapCode.INTEGER_DIVISION_BY_ZERO),
    "i64.div_u": ("i64.const 01 i64.const 00", TrapCode.INTEGER_DIVISION_BY_ZERO),
    "i64.rem_s": ("i64.const 01 i64.const 00", TrapCode.INTEGER_DIVISION_BY_ZERO),
    "i64.rem_u": ("i64.const 01 i64.const 00", TrapCode.INTEGER_DIVISION_BY_ZERO),
    "i32.trunc_f32_s": ("f32.const 0000c07f", TrapCode.BAD_CONVERSION_TO_INTEGER),
    "i64.trunc_f64_u": ("f64.const 000000000000f0bf", TrapCode.INTEGER_OVERFLOW),
    "i32.load 02 00": ("i32.const 7f", TrapCode.HEAP_OUT_OF_BOUNDS),
    "i64.store 03 00": ("i32.const 7f i64.const 00", TrapCode.HEAP_OUT_OF_BOUNDS),
    "memory.copy 00 00": ("i32.const 7f i32.const 00 i32.const 01", TrapCode.HEAP_OUT_OF_BOUNDS),
    "memory.fill 00": ("i32.const 7f i32.const 00 i32.const 01", TrapCode.HEAP_OUT_OF_BOUNDS),
    "memory.init 00 00": ("i32.const 00 i32.const 00 i32.const 05", TrapCode.HEAP_OUT_OF_BOUNDS),
    "table.get 01": ("i32.const 08", TrapCode.TABLE_OUT_OF_BOUNDS),
    "table.get 00": ("i32.const 08", TrapCode.TABLE_OUT_OF_BOUNDS),
    "table.set 01": ("i32.const 08 ref.null 6f", TrapCode.TABLE_OUT_OF_BOUNDS),
    "table.fill 00": ("i32.const 08 ref.null 70 i32.const 01", TrapCode.TABLE_OUT_OF_BOUNDS),
    "table.copy 01 01": ("i32.const 00 i32.const 08 i32.const 01", TrapCode.TABLE_OUT_OF_BOUNDS),
    "table.init 00 00": ("i32.const 00 i32.const 00 i32.const 05", TrapCode.TABLE_OUT_OF_BOUNDS),
    "call_indirect 00 00": ("i32.const 08", TrapCode.UNDEFINED_ELEMENT),
    "call_indirect 02 00": ("i32.const 00", TrapCode.BAD_SIGNATURE),
    # The index 2 in two bytes.
    "call_indirect 82 00 00": ("i32.const 01", TrapCode.INDIRECT_CALL_TO_NULL),
}

PARTS = {
    **MEMORY,
    "tables": [*FUNCREFS["tables"], *EXTERNREFS["tables"]],
    # Function 0 in table 0, and a passive segment of one.
    "elements": [b"\x00\x41\x00\x0b\x01\x00", b"\x01\x00\x01\x00"],
    "data_count": 1,
    "data": [b"\x01\x01a"],
}


@pytest.mark.parametrize("instruction", TRAPS)
def test_a_trap_says_where_it_came_from(instruction):
    before, trap_code = TRAPS[instruction]
    functions = {
        "_inner": Function("->", f"nop nop {before} {instruction} unreachable"),
        "middle": Function("i32 -> i32", "i32.const 05 call 00 nop"),
        "outer": Function("-> i32 i32", "i32.const 01 call 01 i32.const 02"),
    }
    parts = {**PARTS, "elements": [b"\x00\x41\x00\x0b\x01\x00", b"\x01\x00\x01\x00"]}
    if instruction.startswith(("memory.init", "table.init")):
        parts["elements"] = [b"\x01\x00\x01\x00"]
    binary = build(functions, **parts)
    outer = toy_jit.Instance(toy_jit.Module(binary)).exports["outer"]
    with pytest.raises(asm_libcalls.Trap) as caught:
        outer()
    trap = caught.value
    assert (trap.code, str(trap)) == (trap_code, MESSAGES[trap_code])
    named = [(f.function_index, f.function_name) for f in trap.wasm_backtrace]
    assert named == [(0, None), (1, "middle"), (2, "outer")]
    bytes_of = code(instruction)
    inner, middle, outer_frame = (binary[f.offset :] for f in trap.wasm_backtrace)
    assert inner.startswith(bytes_of)
    assert middle.startswith(code("call 00"))
    assert outer_frame.startswith(code("call 01"))
    assert trap.__notes__ == [
        "WebAssembly backtrace:\n"
        f"  in function 0 at byte {trap.wasm_backtrace[0].offset:#x}\n"
        f"  called by middle at byte {trap.wasm_backtrace[1].offset:#x}\n"
        f"  called by outer at byte {trap.wasm_backtrace[2].offset:#x}"
    ]
    assert pickle.loads(pickle.dumps(trap)).wasm_backtrace[1].function_name == "middle"


def test_names_are_those_of_the_name_section():
    names = wasm.custom("name", b"\x01" + wasm.sized(wasm.vector([b"\x00" + wasm.name("named")])))
    binary = build({"exported": Function("->", "unreachable")}) + names
    with pytest.raises(asm_libcalls.Trap) as caught:
        toy_jit.Instance(toy_jit.Module(binary)).exports["exported"]()
    assert str(caught.value.wasm_backtrace[0]).startswith("named at byte 0x")


def test_a_trap_is_caught_by_its_class():
    functions = {
        "zero": Function("->", "i64.const 01 i64.const 00 i64.div_s drop"),
        "heap": Function("->", "i32.const 7f i32.load 02 00 drop"),
    }
    exports = instantiate(functions, **MEMORY).exports
    with pytest.raises(ZeroDivisionError):
        exports["zero"]()
    with pytest.raises(IndexError):
        exports["heap"]()


def test_a_trap_in_the_start_function_is_traced():
    module = toy_jit.Module(build({"_start": Function("->", "unreachable")}, start=0))
    with pytest.raises(asm_libcalls.UnreachableCodeReached) as caught:
        toy_jit.Instance(module)
    assert [f.function_index for f in caught.value.wasm_backtrace] == [0]


class Sealed(Exception):
    """An exception that its users cannot change, and that has no attribute of ours."""

    @property
    def wasm_backtrace(self):
        return "its own"

    def __setattr__(self, name, value):
        raise RuntimeError("no attribute may be set")


EXCEPTIONS = {
    "ValueError": lambda: ValueError("from the host"),
    "KeyboardInterrupt": KeyboardInterrupt,
    "SystemExit": lambda: SystemExit(3),
    "StopIteration": StopIteration,
    "MemoryError": MemoryError,
    "a group": lambda: BaseExceptionGroup("several", [ValueError()]),
    "sealed": Sealed,
}


def raising_instance(raised):
    def host():
        raise raised

    functions = {
        "_g": Function("->", "nop call 00"),
        "f": Function("->", "call 01"),
    }
    return instantiate(functions, {"h": "->"}, {"h": host})


@pytest.mark.parametrize("kind", EXCEPTIONS)
def test_an_exception_of_the_host_has_the_frames_that_it_crossed(kind):
    error = EXCEPTIONS[kind]()
    error.__dict__["__notes__"] = ["its note"]
    f = raising_instance(error).exports["f"]
    for _ in range(3):  # raised again, the same object has the frames of the last time alone
        with pytest.raises(type(error)) as caught:
            f()
        assert caught.value is error
        frames = error.__dict__["wasm_backtrace"]
        assert [frame.function_index for frame in frames] == [1, 2]
        assert error.__notes__ == [
            "its note",
            f"WebAssembly backtrace:\n  in {frames[0]}\n  called by {frames[1]}",
        ]
    if kind == "sealed":
        assert error.wasm_backtrace == "its own"
    else:
        assert error.wasm_backtrace == frames


def test_an_exception_of_the_host_is_traced_through_every_entry():
    def host(depth):
        if depth == 0:
            raise LookupError("at the end")
        instance.exports["f"](depth - 1)

    functions = {
        "_g": Function("i32 ->", "local.get 00 call 00"),
        "f": Function("i32 ->", "local.get 00 call 01"),
    }
    instance = instantiate(functions, {"h": "i32 ->"}, {"h": host})
    with pytest.raises(LookupError) as caught:
        instance.exports["f"](2)
    assert [f.function_index for f in caught.value.wasm_backtrace] == [1, 2] * 3


def test_a_result_that_is_refused_has_the_frames_too():
    instance = instantiate(
        {"f": Function("-> i32", "call 00")}, {"h": "-> i32"}, {"h": lambda: "x"}
    )
    with pytest.raises(TypeError, match="the result of the host function") as caught:
        instance.exports["f"]()
    assert [f.function_name for f in caught.value.wasm_backtrace] == ["f"]


def test_an_exception_that_ends_in_the_host_has_none():
    seen = []

    def host():
        try:
            raise LookupError("kept")
        except LookupError as error:
            seen.append(error)

    instance = instantiate({"f": Function("->", "call 00")}, {"h": "->"}, {"h": host})
    instance.exports["f"]()
    assert not hasattr(seen[0], "wasm_backtrace")
    assert not hasattr(seen[0], "__notes__")


def test_a_trap_of_the_host_is_traced_through_every_entry():
    def host(depth):
        if depth == 0:
            raise asm_libcalls.HeapOutOfBounds
        instance.exports["f"](depth - 1)

    functions = {
        "_g": Function("i32 ->", "local.get 00 call 00"),
        "f": Function("i32 ->", "local.get 00 call 01"),
    }
    instance = instantiate(functions, {"h": "i32 ->"}, {"h": host})
    with pytest.raises(asm_libcalls.HeapOutOfBounds) as caught:
        instance.exports["f"](2)
    assert [f.function_index for f in caught.value.wasm_backtrace] == [1, 2] * 3
    with pytest.raises(asm_libcalls.HeapOutOfBounds) as caught:
        instance.exports["f"](100)
    assert len(caught.value.wasm_backtrace) == 64


def test_traps_through_two_instances():
    library = instantiate({"fail": Function("->", "unreachable")}).exports
    caller = instantiate({"f": Function("->", "call 00")}, {"fail": "->"}, library)
    with pytest.raises(asm_libcalls.UnreachableCodeReached) as caught:
        caller.exports["f"]()
    assert [f.function_name for f in caught.value.wasm_backtrace] == ["fail", "f"]


# --- the stack runs out

ENDLESS = {
    "direct": Function("i32 -> i32", "local.get 00 i32.const 01 i32.add call 00"),
    "large_frames": Function("i64 -> i64", "local.get 00 call 01", "i64 " * 5000),
    "mutual": Function("->", "call 03"),
    "_mutual": Function("->", "call 02"),
    "indirect": Function("->", "i32.const 00 call_indirect 04 00"),
}


def overflow(f):
    for _ in range(3):
        arguments = [1] * len(f.type.params)
        with pytest.raises(asm_libcalls.StackOverflow, match=r"^call stack exhausted") as caught:
            f(*arguments)
        assert isinstance(caught.value, RecursionError)
        assert caught.value.wasm_backtrace
    return True


@pytest.mark.parametrize("name", [n for n in ENDLESS if not n.startswith("_")])
@pytest.mark.parametrize("stack", [None, 64, 256, 4096, 65536], ids=lambda s: f"{s} KiB")
def test_runaway_recursion_traps(name, stack):
    parts = {**FUNCREFS, "elements": [b"\x00\x41\x00\x0b\x01\x04"]}
    f = instantiate(ENDLESS, **parts).exports[name]
    if stack is None:
        assert overflow(f)
    else:
        in_thread(64 * 1024 * 1024, lambda: overflow(f))  # the limit is that of the thread
        assert in_thread(stack * 1024, partial(overflow, f)) == [True]


def in_thread(stack_size, function):
    done = []
    before = threading.stack_size(stack_size)
    try:
        thread = threading.Thread(target=lambda: done.append(function()))
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    return done


@pytest.mark.parametrize("stack", [None, 1024], ids=lambda s: f"{s} KiB")
def test_recursion_through_the_host_ends(stack):
    depths = []

    def host(depth):
        depths.append(depth)
        return f(depth + 1)

    functions = {"f": Function("i32 -> i32", "local.get 00 call 00")}
    f = instantiate(functions, {"h": "i32 -> i32"}, {"h": host}).exports["f"]

    def run():
        with pytest.raises(RecursionError):
            f(0)
        return True

    assert run() if stack is None else in_thread(stack * 1024, run) == [True]
    assert max(depths) > 50
    depths.clear()
    # Python has its own limit; where it is out of the way, the stack is the limit.
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(1_000_000)
    try:
        assert run() if stack is None else in_thread(stack * 1024, run) == [True]
    finally:
        sys.setrecursionlimit(limit)
    assert max(depths) > 100


def test_the_stack_is_whole_after_an_overflow():
    functions = {**ENDLESS, "depth": Function("i32 -> i32", DEPTH)}
    parts = {**FUNCREFS, "elements": [b"\x00\x41\x00\x0b\x01\x04"]}
    exports = instantiate(functions, **parts).exports
    with pytest.raises(asm_libcalls.StackOverflow):
        exports["direct"](0)
    assert exports["depth"](10_000) == 10_000


# depth(n) = n and 1 + depth(n - 1)
DEPTH = (
    "local.get 00 i32.eqz if 7f i32.const 00 else local.get 00 i32.const 01 i32.sub call 05 "
    "i32.const 01 i32.add end"
)


@pytest.mark.parametrize("change", ["comes", "goes"])
def test_a_frame_is_found_while_other_code_comes_and_goes(change):
    """Other threads register and forget code at lower addresses, at any point."""
    functions = {"f": Function("->", "call 01"), "_g": Function("->", "unreachable")}
    module = toy_jit.Module(build(functions))
    instance = toy_jit.Instance(module)
    with pytest.raises(asm_libcalls.Trap) as caught:
        instance.exports["f"]()
    found = [each for each in caught.value.trace if code_map.find(each) is not None]
    where = found[-1]
    assert code_map.find(where).function_name == "f"
    code = instance.runtime.code
    others = [code.address - (i << 12) for i in range(1, 4)]

    def scene():
        add = [partial(code_map.register, module, code.tables, each) for each in others]
        forget = [partial(code_map.forget, each) for each in others]
        before, meanwhile = (forget, add) if change == "comes" else (add, forget)
        for each in before:
            each()
        return lambda: code_map.find(where), lambda: [each() for each in meanwhile]

    def check(outcome, number):
        assert outcome is not None
        assert outcome.function_name == "f"

    try:
        assert at_every_point(scene, check) > 1
    finally:
        for each in others:
            code_map.forget(each)
