"""The stream of instructions that validation leaves for the compiler."""

import pytest
import wasm_builder as wasm
from wasm_builder import EXTERNREF, F32, I32, I64
from wasm_functions import (
    NO_SPEC_TESTS,
    SPEC_TESTS,
    check_streams,
    is_reached,
    spec_files,
    spec_modules,
    stream,
)

from asm_libcalls.toy_jit.frontend import opcodes as op
from asm_libcalls.toy_jit.frontend.operands import FUNCTION


def test_immediates_and_offsets():
    instructions = stream(
        "i32.const 7f i64.const 8001 f32.const 0000a07f drop local.set 01 i32.load 02 8001 nop "
        "local.get 05 drop drop"
    )
    assert [instruction[:2] for instruction in instructions[:-1]] == [
        ("i32.const", -1),
        ("i64.const", 128),
        ("f32.const", 0x7FA0_0000),
        ("drop", F32),
        ("local.set", 1),
        ("i32.load", 128),
        ("local.get", 5),
        ("drop", EXTERNREF),
        ("drop", I32),
    ]
    assert [offset for *_, offset in instructions] == [0, 2, 5, 10, 11, 13, 18, 20, 21, 22]
    name, frame, _ = instructions[-1]
    assert (name, frame.opcode, frame.height) == ("end", FUNCTION, 0)
    assert repr(frame) == "<Frame function [] -> [] at height 0>"


def test_references_at_calls():
    instructions = stream(
        "local.get 05 i32.const 00 local.get 04 i32.const 00 i64.const 01 call 00 drop drop "
        "i32.const 01 table.grow 00 drop drop global.set 02 memory.size 00 drop"
    )
    immediates = {name: immediate for name, immediate, _ in instructions}
    assert immediates["call"][0] == 0
    assert immediates["call"][1].results == bytes([I64, I32])
    assert immediates["call"][2] == (0,)  # 2 is a funcref, which is not counted
    assert immediates["table.grow"] == (0, (0,))
    assert immediates["global.set"] == (2, (0,))
    assert immediates["memory.size"] == ((),)


def test_branches_name_their_frames():
    instructions = stream(
        "block 7f block 40 loop 40 i32.const 01 br_if 00 i32.const 01 br_table 01 01 00 end end "
        "i32.const 03 i32.const 00 br_if 00 i32.const 00 br_if 01 return end",
        (I32,),
    )
    frames = [frame for name, frame, _ in instructions if name in ("block", "loop")]
    frames.insert(0, instructions[-1][1])
    branches = [immediate for name, immediate, _ in instructions if name.startswith("br")]
    assert branches == [frames[3], (frames[2], frames[3]), frames[1], frames[0]]
    assert [(len(frame.label), frame.height) for frame in frames] == [
        (1, 0),
        (1, 0),
        (0, 0),
        (0, 0),
    ]


@pytest.mark.parametrize(
    ("text", "live"),
    [
        ("unreachable i32.const 00 drop", "unreachable (end)"),
        ("block 40 br 00 nop block 40 end end", "block br (end) end"),
        ("block 40 unreachable end i32.const 00 drop", "block unreachable (end) (end)"),
        ("loop 40 br 00 end i32.const 00 drop", "loop br (end) (end)"),
        (
            "block 40 loop 40 i32.const 00 br_if 01 br 00 end end memory.size 00 drop",
            "block loop i32.const br_if br (end) (end) memory.size drop end",
        ),
        ("i32.const 00 if 40 return end nop", "i32.const if return (end) end"),
        (
            "i32.const 00 if 40 return else return end i32.const 00 drop",
            "i32.const if return (else) return (end) (end)",
        ),
        (
            "i32.const 00 if 40 br 00 else return end i32.const 00 drop",
            "i32.const if br (else) return (end) i32.const drop end",
        ),
        (
            "i32.const 00 if 40 nop else return end i32.const 00 drop",
            "i32.const if else return (end) i32.const drop end",
        ),
        ("return block 40 i32.const 00 if 40 else end br 00 end", "return (end)"),
        ("block 40 return br 00 end memory.size 00 drop", "block return (end) (end)"),
    ],
)
def test_dead_code_is_checked_but_not_in_the_stream(text, live):
    names = [name if is_reached(name, frame) else f"({name})" for name, frame, _ in stream(text)]
    assert names == live.split()


def test_targeted_frames():
    frames = {
        frame.opcode: frame.targeted
        for name, frame, _ in stream(
            "block 40 loop 40 i32.const 00 br_if 01 "
            "i32.const 00 if 40 return br 00 br 01 end end end"
        )
        if name == "end"
    }
    assert frames == {op.BLOCK: True, op.LOOP: False, op.IF: False, FUNCTION: False}


def test_stream_of_everything():
    check_streams(wasm.EVERYTHING)


@pytest.mark.skipif(not SPEC_TESTS, reason=NO_SPEC_TESTS)
def test_streams_of_the_spec_modules():
    for path in spec_files():
        for command, binary in spec_modules(path):
            if command["type"] == "module":
                check_streams(binary)
