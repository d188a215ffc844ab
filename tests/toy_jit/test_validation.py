"""Function bodies: what is valid, what is not, and the stream of instructions for the compiler."""

from __future__ import annotations

from pathlib import Path

import pytest
import wasm_builder as wasm
from wasm_builder import END, EXTERNREF, F32, F64, I32, I64, function, i32, module
from wasm_functions import (
    NO_SPEC_TESTS,
    SPEC_TESTS,
    TYPES,
    check_streams,
    code,
    spec_files,
    spec_modules,
    validate_module,
    with_context,
)

from asm_libcalls.toy_jit.errors import InvalidModule, LimitExceeded, MalformedModule
from asm_libcalls.toy_jit.frontend import opcodes as op
from asm_libcalls.toy_jit.frontend.decoder import decode_module
from asm_libcalls.toy_jit.frontend.validator import validate_function
from wasm_encoding import encoded

# -- the official test suite


@pytest.mark.skipif(not SPEC_TESTS, reason=NO_SPEC_TESTS)
def test_spec_tests_are_there():
    assert spec_files()


@pytest.mark.skipif(not SPEC_TESTS, reason=NO_SPEC_TESTS)
@pytest.mark.parametrize("path", spec_files() or [Path("none")], ids=lambda path: path.stem)
def test_spec_modules(path):
    """Modules of all other commands are valid, whatever happens to them later."""
    failures = []
    for command, binary in spec_modules(path):
        refused = None
        try:
            validate_module(binary)
        except InvalidModule as error:
            refused = error
        if (refused is not None) != (command["type"] in ("assert_invalid", "assert_malformed")):
            failures.append(f"line {command['line']}: {command['type']}: {refused}")
    assert failures == []


# -- valid and invalid bodies

VALID = """
i32.const 01 | i32
i32.const ff00 | i32
i32.const 8080808078 | i32
i64.const 8080808080808080807f | i64
f32.const 0000a07f | f32
f64.const 000000000000f07f | f64
local.get 00 i64.extend_i32_s | i64
local.get 8000 | i32
local.get 04 local.tee 04 drop local.get 05 local.set 05
nop nop nop
unreachable | i32
unreachable i32.add | i32
unreachable i64.const 01 i32.wrap_i64 i32.add | i32
unreachable select | f64
unreachable i32.const 01 select | i64
unreachable f32.const 00000000 i32.const 00 select | f32
unreachable select_t 01 6f | externref
unreachable select drop
unreachable drop drop drop
unreachable ref.is_null | i32
unreachable br_if 00
unreachable call 00 | i64 i32
unreachable block 01 end | i32
unreachable if 02 unreachable else unreachable end | i64 i32
unreachable br_table 01 00 00
block 7f unreachable br_table 01 01 01 end drop
block 7f block 7e unreachable br_table 01 00 01 end drop i32.const 00 end drop
block 40 end
block 7f i32.const 01 end | i32
block 03 i32.const 01 i32.const 02 end | i32 i32
block 80808000 end
block 7f i32.const 01 br 00 end | i32
block 7f i32.const 01 br 00 i32.add end | i32
block 7f i32.const 01 i32.const 00 br_if 00 end | i32
i32.const 01 loop 01 i32.const 00 br_if 00 end | i32
i32.const 01 loop 01 br 00 end | i32
i32.const 01 i64.const 02 block 02 call 00 drop i32.wrap_i64 i64.const 01 call 00 end | i64 i32
i32.const 01 if 40 end
i32.const 01 i32.const 01 if 01 end | i32
i32.const 01 if 7f i32.const 01 else i64.const 01 i32.wrap_i64 end | i32
i32.const 01 if 7f unreachable else unreachable end | i32
i32.const 01 return | i32
i64.const 05 i32.const 01 return | i32
i64.const 05 i32.const 01 i64.const 03 br 00 | i64
i32.const 01 i64.const 02 call 00 | i64 i32
i32.const 01 i64.const 02 i32.const 03 call_indirect 02 00 | i64 i32
i32.const 01 i32.const 02 i32.const 03 select | i32
local.get 05 local.get 05 i32.const 03 select_t 01 6f | externref
global.get 00 global.set 00 global.get 01 drop global.get 02 global.set 02
i32.const 00 table.get 00 | funcref
i32.const 00 local.get 05 table.set 01
local.get 04 i32.const 01 table.grow 00 table.size 01 i32.add | i32
i32.const 00 local.get 05 i32.const 00 table.fill 01
i32.const 00 i32.const 00 i32.const 00 table.copy 01 01
i32.const 00 i32.const 00 i32.const 00 table.init 01 01 elem.drop 01
i32.const 00 i32.load 02 00 | i32
i32.const 00 i32.load 8000 ffffffff0f | i32
i32.const 00 f64.const 0000000000000000 f64.store 03 00
i32.const 00 i64.const 00 i64.store32 02 8001
memory.size 00 memory.grow 00 | i32
i32.const 00 i32.const 00 i32.const 00 memory.init 00 00 data.drop 00
i32.const 00 i32.const 00 i32.const 00 memory.copy 00 00
i32.const 00 i32.const 00 i32.const 00 memory.fill 00
f64.const 0000000000000000 fc 03 | i32
f64.const 0000000000000000 fc 8300 | i32
ref.null 70 ref.is_null | i32
ref.func 00 | funcref
local.get 00 i32.extend8_s i64.extend_i32_u i64.extend32_s | i64
local.get 06 local.tee 06 v128.not | v128
block 7b local.get 06 end | v128
v128.const 000102030405060708090a0b0c0d0e0f i64x2.extract_lane 01 | i64
local.get 06 local.get 06 i8x16.shuffle 1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f | v128
local.get 06 local.get 06 i32.const 00 select | v128
local.get 06 local.get 06 i32.const 00 select_t 01 7b | v128
i32.const 00 local.get 06 v128.load8_lane 00 00 0f | v128
i32.const 00 local.get 06 v128.store64_lane 03 ffffffff0f 01
unreachable v128.bitselect | v128
unreachable f32x4.replace_lane 03 | v128
"""

INVALID = """
drop | type mismatch: drop requires [_] but stack has []
i32.const 00 | type mismatch: end requires [] and nothing else but stack has [i32]
i32.const 00 f64.const 0000000000000000 i32.add | type mismatch: i32.add requires [i32 i32] but
i32.const 00 fc 00 | type mismatch: i32.trunc_sat_f32_s requires [f32] but stack has [i32]
unreachable i64.const 00 i32.add | type mismatch: i32.add requires [i32 i32] but stack has [... i64]
unreachable i32.const 00 | type mismatch
i32.const 00 block 40 drop end | type mismatch: drop requires [_] but stack has []
i32.const 00 block 40 i32.eqz drop end | type mismatch
i32.const 00 block 40 local.set 00 end | type mismatch
i32.const 00 block 40 br_if 00 end | type mismatch
block 7f end drop | type mismatch
block 7f i64.const 00 end drop | type mismatch
block 40 i32.const 00 end | type mismatch
block 7f i32.const 00 i32.const 00 end drop | type mismatch
block 7f br 00 end drop | type mismatch
loop 01 end drop | type mismatch
loop 7f i32.const 00 br_if 00 end drop | type mismatch
br 01 | unknown label 1
br_if 01 | unknown label 1
i32.const 00 br_table 01 00 05 | unknown label 5
i32.const 00 br_table 01 05 00 | unknown label 5
br_table 00 00 | type mismatch
i32.const 00 br_table 09 00 00 | length out of bounds
block 40 block 7f unreachable br_table 01 00 01 end drop end | type mismatch: labels
block 7f block 7e i64.const 00 i32.const 00 br_table 01 00 01 end i32.eqz end drop | type mismatch
block 7f block 7e unreachable i64.const 00 i32.const 00 br_table 01 00 01 | type mismatch
i32.const 00 if 7f i32.const 01 end drop | type mismatch: if without else
i32.const 00 if 7f i32.const 00 else end drop | type mismatch
i32.const 00 if 7f else i32.const 00 end drop | type mismatch
if 40 end | type mismatch
i64.const 00 if 40 end | type mismatch
else | END opcode expected
block 40 else end | END opcode expected
i32.const 00 if 40 else else end | END opcode expected
block 40 | END opcode expected
block 7b end | type mismatch: end requires [v128]
block 41 end | malformed block type
block ffffffff7f end | malformed block type
block 05 end | unknown type 5
block ffffffff0f end | unknown type 4294967295
block ffffffff1f end | integer too large
call 03 | unknown function 3
call 00 drop drop | type mismatch
i32.const 00 call_indirect 05 00 | unknown type 5
i32.const 00 call_indirect 00 02 | unknown table 2
i32.const 00 call_indirect 00 01 | type mismatch: call_indirect requires a table of functions
call_indirect 00 00 | type mismatch
local.get 07 drop | unknown local 7
local.set 07 | unknown local 7
local.tee 8601 | unknown local 134
i64.const 00 local.set 00 | type mismatch: local.set requires [i32] but stack has [i64]
local.get 05 local.set 04 | type mismatch
global.get 03 drop | unknown global 3
global.set 03 | unknown global 3
i32.const 00 global.set 01 | global is immutable
i64.const 00 global.set 00 | type mismatch
i32.const 00 i64.const 00 i32.const 00 select drop | type mismatch: select requires
local.get 05 local.get 05 i32.const 00 select drop | type mismatch: select requires
unreachable local.get 05 i32.const 00 select drop | type mismatch: select requires
i32.const 00 select drop | type mismatch
local.get 05 local.get 04 i32.const 00 select_t 01 6f drop | type mismatch
select_t 00 drop | invalid result arity
select_t 02 7f 7f drop | invalid result arity
select_t 01 40 drop | malformed value type
i32.const 00 table.get 02 drop | unknown table 2
i32.const 00 local.get 05 table.set 00 | type mismatch
local.get 05 i32.const 00 table.grow 00 drop | type mismatch
i32.const 00 i32.const 00 i32.const 00 table.copy 00 01 | type mismatch: table.copy with elements
i32.const 00 i32.const 00 i32.const 00 table.init 00 01 | type mismatch: table.init with elements
i32.const 00 i32.const 00 i32.const 00 table.init 02 01 | unknown elem segment 2
elem.drop 02 | unknown elem segment 2
data.drop 01 | unknown data segment 1
memory.size 01 drop | zero byte expected
i32.const 00 memory.grow 8000 drop | zero byte expected
i32.const 00 i32.const 00 i32.const 00 memory.copy 00 01 | zero byte expected
i32.const 00 i32.const 00 i32.const 00 memory.copy 01 00 | zero byte expected
i32.const 00 i32.const 00 i32.const 00 memory.fill 01 | zero byte expected
i32.const 00 i32.const 00 i32.const 00 memory.init 00 01 | zero byte expected
i32.const 00 i32.load 03 00 drop | alignment must not be larger than natural
i32.const 00 i64.load8_s 01 00 drop | alignment must not be larger than natural
i32.const 00 i32.load 20 00 drop | malformed memop flags
i32.const 00 i32.load 00 ffffffff1f drop | integer too large
i64.const 00 i32.load 00 00 drop | type mismatch
i32.const 00 i32.store 00 00 | type mismatch
i32.const ffffffff0f drop | integer too large
i32.const 808080808000 drop | integer representation too long
i64.const 8080808080808080808000 drop | integer representation too long
ref.null 7f drop | malformed reference type
i32.const 00 ref.is_null drop | type mismatch
ref.func 03 drop | unknown function 3
ref.func 02 drop | undeclared function reference 2
fc 17 | illegal opcode fc 17
fc 808001 | illegal opcode fc 4000
fc 808004 | illegal opcode fc 10000
i32.const 00 fd 00 00 00 | type mismatch: end requires [] and nothing else but stack has [v128]
fd 9a01 | illegal opcode fd 9a
fd a201 | illegal opcode fd a2
fd 9402 | illegal opcode fd 114
fd 8002 | an instruction on vectors with relaxed results needs the proposal relaxed-simd
fd 9302 | an instruction on vectors with relaxed results needs the proposal relaxed-simd
i32.const 00 v128.load 05 00 drop | alignment must not be larger than natural
i32.const 00 v128.load8x8_s 04 00 drop | alignment must not be larger than natural
i32.const 00 v128.load64_splat 04 00 drop | alignment must not be larger than natural
i32.const 00 v128.load32_lane 03 00 00 drop | alignment must not be larger than natural
i32.const 00 f32x4.splat drop | type mismatch
unreachable i8x16.extract_lane_u 10 drop | invalid lane index 16
unreachable i64x2.replace_lane 02 drop | invalid lane index 2
unreachable v128.load16_lane 00 00 08 drop | invalid lane index 8
unreachable i8x16.shuffle 00000000000000000000000000000020 drop | invalid lane index 32
27 | illegal opcode 27
c5 | illegal opcode c5
d7 | illegal opcode d7
ff | illegal opcode ff
end | section size mismatch
end nop | section size mismatch
"""


def rows(table: str) -> list[tuple[str, str]]:
    return [
        tuple(part.strip() for part in f"{row}|".split("|")[:2]) for row in table.split("\n")[1:-1]
    ]


@pytest.mark.parametrize(("text", "results"), rows(VALID))
def test_valid(text, results):
    binary = with_context(code(text), tuple(TYPES[name] for name in results.split()))
    check_streams(binary)


@pytest.mark.parametrize(("text", "what"), rows(INVALID))
def test_invalid(text, what):
    binary = with_context(code(text))
    with pytest.raises(InvalidModule) as caught:
        validate_module(binary)
    assert caught.value.what.startswith(what)
    decoded = decode_module(binary)
    assert decoded.functions[1].start < caught.value.offset <= decoded.functions[1].end


@pytest.mark.parametrize(
    "text",
    [
        "i32.const 00 i32.load 00 00 drop",
        "i32.const 00 i32.const 00 i32.store 00 00",
        "memory.size 00 drop",
        "i32.const 00 memory.grow 00 drop",
        "i32.const 00 i32.const 00 i32.const 00 memory.init 00 00",
        "i32.const 00 i32.const 00 i32.const 00 memory.copy 00 00",
        "i32.const 00 i32.const 00 i32.const 00 memory.fill 00",
        "unreachable f64.store 00 00",
    ],
)
def test_memory_instructions_need_a_memory(text):
    with pytest.raises(InvalidModule, match="unknown memory 0"):
        validate_module(with_context(code(text), memories=[]))


@pytest.mark.parametrize(
    "text", ["data.drop 00", "i32.const 00 i32.const 00 i32.const 00 memory.init 00 00"]
)
@pytest.mark.parametrize("prefix", ["", "return "])
def test_data_instructions_need_the_data_count(prefix, text):
    with pytest.raises(MalformedModule, match="data count section required"):
        validate_module(with_context(code(prefix + text), data_count=None))


def test_all_instructions_have_names():
    ranges = ((0, 6), (0x0B, 0x12), (0x1A, 0x1D), (0x20, 0x27), (0x28, 0xC5), (0xD0, 0xD3))
    named = [opcode for first, last in (*ranges, (0x100, 0x112)) for opcode in range(first, last)]
    scalar = [opcode for opcode in op.OPCODES.values() if opcode < op.VECTORS]
    assert scalar == named
    assert len(op.OPCODES) == sum(name is not None for name in op.NAMES)  # no name twice
    assert op.OPCODES["i32.load"] == 0x28
    assert op.OPCODES["i64.extend32_s"] == 0xC4
    assert op.OPCODES["table.fill"] == 0x111


def test_all_vector_instructions_have_names():
    """236, as the specification's index of instructions has; its gaps are opcodes of no use."""
    gaps = (0x9A, 0xA2, 0xA5, 0xA6, 0xAF, 0xB0, 0xB2, 0xB3, 0xB4, 0xBB, 0xC2, 0xC5, 0xC6, 0xCF,
            0xD0, 0xD2, 0xD3, 0xD4, 0xE2, 0xEE)  # fmt: skip
    numbers = [number for number in range(0x100) if op.NAMES[0x200 + number] is not None]
    assert numbers == sorted({*range(0x100)} - {*gaps})
    assert len(numbers) == 236
    assert op.OPCODES["v128.const"] == op.V128_CONST
    assert op.OPCODES["i8x16.avgr_u"] == 0x27B
    assert op.OPCODES["f64x2.nearest"] == 0x294
    assert op.OPCODES["i64x2.extmul_high_i32x4_u"] == 0x2DF
    assert op.OPCODES["f64x2.convert_low_i32x4_u"] == 0x2FF


# -- where a body ends


def test_a_body_without_end_does_not_run_into_the_next():
    bodies = [wasm.sized(b"\x00" + i32(1) + b"\x1a"), wasm.body(i32(1) + b"\x1a")]
    binary = module(types=[wasm.functype()], functions=[0, 0], code=bodies)
    with pytest.raises(MalformedModule, match="END opcode expected"):
        validate_module(binary)


def test_a_body_that_ends_with_the_module():
    for content in (
        b"\x00",
        b"\x00\x41",
        b"\x00\x41\x80",
        b"\x00\x43\x00",
        b"\x00\x02",
        b"\x00\x0e\x7f",
    ):
        binary = module(types=[wasm.functype()], functions=[0], code=[wasm.sized(content)])
        with pytest.raises(MalformedModule) as caught:
            validate_module(binary)
        assert caught.value.offset <= len(binary)


@pytest.mark.parametrize(
    ("groups", "what"),
    [
        ([(0xFFFF_FFFF, I32), (1, I64)], "too many locals"),
        ([(0x8000_0000, I32), (0x8000_0000, F64)], "too many locals"),
        ([(0xFFFF_FFFF, I32)], "more than 50000 locals"),
        ([(50_000, I32)], "more than 50000 locals"),
        ([(1, 0x40)], "malformed value type"),
    ],
)
def test_locals_refused(groups, what):
    with pytest.raises(InvalidModule) as caught:
        validate_module(function(b"", params=[I32], groups=groups))
    assert caught.value.what == what


def test_locals():
    groups = [(2, I64), (0, F32), (49_996, EXTERNREF)]
    decoded = decode_module(function(b"", params=[I32, F64], groups=groups))
    local_types = validate_function(decoded, 0).local_types
    assert local_types == bytes([I32, F64, I64, I64]) + bytes([EXTERNREF]) * 49_996


# -- hostile bodies, and limits


def test_deep_nesting_needs_no_recursion():
    depth = 100_000
    for opcode in (b"\x02\x40", b"\x03\x40", b"\x41\x00\x04\x40"):
        validate_module(function(opcode * depth + END * depth))
    with pytest.raises(InvalidModule, match="unexpected end"):
        validate_module(function(b"\x02\x40" * depth)[: -len(END)] + b"\x01")


def test_operand_limit():
    push, pop = i32(0), b"\x1a"
    decoded = decode_module(function(push * 50_000 + pop * 50_000))
    assert validate_function(decoded, 0).max_height == 50_000
    with pytest.raises(LimitExceeded, match="more than 50000 operands"):
        validate_module(function(push * 50_001 + pop * 50_001))


def test_reference_limit():
    """2,000 references at each of 2,000 calls, as a hostile module might have, are too many."""
    null, call, pop = b"\xd0\x6f", b"\x10\x00", b"\x1a"
    validate_module(function(null * 1000 + call * 1000 + pop * 1000))
    with pytest.raises(LimitExceeded, match="slots of references in stack maps"):
        validate_module(function(null * 2000 + call * 2000 + pop * 2000))


def test_random_bodies_agree_with_wasmtime(random_cases):
    """Random instructions, mostly behind `unreachable` where anything may be on the stack."""
    wasmtime = pytest.importorskip("wasmtime", reason="pip install wasmtime, to compare with it")
    config = wasmtime.Config()
    config.wasm_relaxed_simd = False
    engine = wasmtime.Engine(config)
    accepted = 0
    for _ in range(3000):
        binary = with_context(random_body(random_cases))
        try:
            validate_module(binary)
            refused = None
            check_streams(binary)
            accepted += 1
        except InvalidModule as error:
            refused = error
        try:
            wasmtime.Module.validate(engine, binary)
            refused_there = None
        except wasmtime.WasmtimeError as error:
            refused_there = error
        assert (refused is None) == (refused_there is None), (binary, refused, refused_there)
    assert accepted > 100


def random_vector_instruction(random) -> str:
    opcode = op.VECTORS + random.randrange(0x100)
    immediates = {"V": "00" * 16, "K": f"{random.randrange(34):02x}" * 16}
    words = [encoded(opcode).hex()]
    for letter in op.IMMEDIATES[opcode]:
        words.append(immediates.get(letter, f"{random.randrange(18):02x}"))
        if letter.isdigit():
            words[-1] = f"{random.randrange(6):02x} 00"
    return " ".join(words)


def random_body(random) -> bytes:
    choice = random.choice
    words = ["unreachable"] * (random.random() < 0.7)
    blocks = 0
    for _ in range(random.randrange(1, 10)):
        label, type_ = f"{random.randrange(blocks + 1):02x}", f"{choice(list(TYPES.values())):02x}"
        word = choice(
            [
                f"block {choice(['40', type_, '01', '02'])}",
                f"loop {choice(['40', type_, '01', '02'])}",
                f"if {choice(['40', type_, '01', '02'])}",
                *["end", "else"] * (blocks > 0),
                f"br {label}",
                f"br_if {label}",
                f"br_table 01 {label} 00",
                *["drop", "select", "ref.is_null", "return", "unreachable"],
                f"select_t 01 {type_}",
                f"call {choice(['00', '02'])}",
                f"call_indirect 0{random.randrange(4)} 00",
                f"{choice(['local.get', 'local.set', 'local.tee'])} 0{random.randrange(7)}",
                f"{choice(['global.get', 'global.set', 'table.get', 'table.set'])} 00",
                *["i32.const 01", "i64.const 01", "ref.null 70", "ref.func 00", "memory.grow 00"],
                f"{0x45 + random.randrange(0x80):02x}",
                f"{0x28 + random.randrange(23):02x} 00 00",
                f"{choice(['table.grow', 'table.size', 'table.fill'])} 0{random.randrange(2)}",
                random_vector_instruction(random),
            ]
        )
        blocks += word.startswith(("block", "loop", "if"))
        blocks -= word == "end"
        words.append(word)
    words += ["end"] * blocks
    return code(" ".join(words))
