"""The instructions: opcodes, names and fixed types, as in the spec's index of instructions (2.0).

An opcode here is the byte that an instruction begins with; those behind the prefix 0xFC are
``0x100 +`` the number that follows it. So one flat list serves all of them.
"""

from __future__ import annotations

from asm_libcalls.toy_jit.module import EXTERNREF, F32, F64, I32, I64

__all__ = ["ALIGNMENTS", "LETTERS", "NAMES", "OPCODES", "SIGNATURES"]

# The opcodes that code has to name: structured control, and instructions with immediates.
UNREACHABLE, NOP, BLOCK, LOOP, IF, ELSE = range(0x06)
END, BR, BR_IF, BR_TABLE, RETURN, CALL, CALL_INDIRECT = range(0x0B, 0x12)
DROP, SELECT, SELECT_T = range(0x1A, 0x1D)
LOCAL_GET, LOCAL_SET, LOCAL_TEE, GLOBAL_GET, GLOBAL_SET, TABLE_GET, TABLE_SET = range(0x20, 0x27)
MEMORY_SIZE, MEMORY_GROW, I32_CONST, I64_CONST, F32_CONST, F64_CONST = range(0x3F, 0x45)
REF_NULL, REF_IS_NULL, REF_FUNC = range(0xD0, 0xD3)
PREFIX = 0xFC
MEMORY_INIT, DATA_DROP, MEMORY_COPY, MEMORY_FILL, TABLE_INIT = range(0x108, 0x10D)
ELEM_DROP, TABLE_COPY, TABLE_GROW, TABLE_SIZE, TABLE_FILL = range(0x10D, 0x112)

LETTERS = {"i": I32, "I": I64, "f": F32, "F": F64, "x": EXTERNREF}

# Instructions whose type is the same everywhere: first opcode, type ("iI>f" is [i32 i64] -> [f32]),
# and the names of consecutive opcodes.
_TYPED = (
    (0x45, "i>i", "i32.eqz"),
    (0x46, "ii>i", "i32.eq i32.ne i32.lt_s i32.lt_u i32.gt_s i32.gt_u i32.le_s i32.le_u"),
    (0x4E, "ii>i", "i32.ge_s i32.ge_u"),
    (0x50, "I>i", "i64.eqz"),
    (0x51, "II>i", "i64.eq i64.ne i64.lt_s i64.lt_u i64.gt_s i64.gt_u i64.le_s i64.le_u"),
    (0x59, "II>i", "i64.ge_s i64.ge_u"),
    (0x5B, "ff>i", "f32.eq f32.ne f32.lt f32.gt f32.le f32.ge"),
    (0x61, "FF>i", "f64.eq f64.ne f64.lt f64.gt f64.le f64.ge"),
    (0x67, "i>i", "i32.clz i32.ctz i32.popcnt"),
    (0x6A, "ii>i", "i32.add i32.sub i32.mul i32.div_s i32.div_u i32.rem_s i32.rem_u"),
    (0x71, "ii>i", "i32.and i32.or i32.xor i32.shl i32.shr_s i32.shr_u i32.rotl i32.rotr"),
    (0x79, "I>I", "i64.clz i64.ctz i64.popcnt"),
    (0x7C, "II>I", "i64.add i64.sub i64.mul i64.div_s i64.div_u i64.rem_s i64.rem_u"),
    (0x83, "II>I", "i64.and i64.or i64.xor i64.shl i64.shr_s i64.shr_u i64.rotl i64.rotr"),
    (0x8B, "f>f", "f32.abs f32.neg f32.ceil f32.floor f32.trunc f32.nearest f32.sqrt"),
    (0x92, "ff>f", "f32.add f32.sub f32.mul f32.div f32.min f32.max f32.copysign"),
    (0x99, "F>F", "f64.abs f64.neg f64.ceil f64.floor f64.trunc f64.nearest f64.sqrt"),
    (0xA0, "FF>F", "f64.add f64.sub f64.mul f64.div f64.min f64.max f64.copysign"),
    (0xA7, "I>i", "i32.wrap_i64"),
    (0xA8, "f>i", "i32.trunc_f32_s i32.trunc_f32_u"),
    (0xAA, "F>i", "i32.trunc_f64_s i32.trunc_f64_u"),
    (0xAC, "i>I", "i64.extend_i32_s i64.extend_i32_u"),
    (0xAE, "f>I", "i64.trunc_f32_s i64.trunc_f32_u"),
    (0xB0, "F>I", "i64.trunc_f64_s i64.trunc_f64_u"),
    (0xB2, "i>f", "f32.convert_i32_s f32.convert_i32_u"),
    (0xB4, "I>f", "f32.convert_i64_s f32.convert_i64_u"),
    (0xB6, "F>f", "f32.demote_f64"),
    (0xB7, "i>F", "f64.convert_i32_s f64.convert_i32_u"),
    (0xB9, "I>F", "f64.convert_i64_s f64.convert_i64_u"),
    (0xBB, "f>F", "f64.promote_f32"),
    (0xBC, "f>i", "i32.reinterpret_f32"),
    (0xBD, "F>I", "i64.reinterpret_f64"),
    (0xBE, "i>f", "f32.reinterpret_i32"),
    (0xBF, "I>F", "f64.reinterpret_i64"),
    (0xC0, "i>i", "i32.extend8_s i32.extend16_s"),
    (0xC2, "I>I", "i64.extend8_s i64.extend16_s i64.extend32_s"),
    (0x100, "f>i", "i32.trunc_sat_f32_s i32.trunc_sat_f32_u"),
    (0x102, "F>i", "i32.trunc_sat_f64_s i32.trunc_sat_f64_u"),
    (0x104, "f>I", "i64.trunc_sat_f32_s i64.trunc_sat_f32_u"),
    (0x106, "F>I", "i64.trunc_sat_f64_s i64.trunc_sat_f64_u"),
)

# Loads and stores: first opcode, type, largest alignment of each as a power of two, names.
_MEMORY = (
    (0x28, "i>i", "2", "i32.load"),
    (0x29, "i>I", "3", "i64.load"),
    (0x2A, "i>f", "2", "f32.load"),
    (0x2B, "i>F", "3", "f64.load"),
    (0x2C, "i>i", "0011", "i32.load8_s i32.load8_u i32.load16_s i32.load16_u"),
    (0x30, "i>I", "0011", "i64.load8_s i64.load8_u i64.load16_s i64.load16_u"),
    (0x34, "i>I", "22", "i64.load32_s i64.load32_u"),
    (0x36, "ii>", "2", "i32.store"),
    (0x37, "iI>", "3", "i64.store"),
    (0x38, "if>", "2", "f32.store"),
    (0x39, "iF>", "3", "f64.store"),
    (0x3A, "ii>", "01", "i32.store8 i32.store16"),
    (0x3C, "iI>", "012", "i64.store8 i64.store16 i64.store32"),
)

# Instructions whose type depends on their immediates or on the stack: first opcode, names.
_OTHER = (
    (UNREACHABLE, "unreachable nop block loop if else"),
    (END, "end br br_if br_table return call call_indirect"),
    (DROP, "drop select select_t"),
    (LOCAL_GET, "local.get local.set local.tee global.get global.set table.get table.set"),
    (MEMORY_SIZE, "memory.size memory.grow i32.const i64.const f32.const f64.const"),
    (REF_NULL, "ref.null ref.is_null ref.func"),
    (MEMORY_INIT, "memory.init data.drop memory.copy memory.fill table.init"),
    (ELEM_DROP, "elem.drop table.copy table.grow table.size table.fill"),
)

COUNT = TABLE_FILL + 1

# By opcode: its name, or None where there is no instruction.
NAMES: list[str | None] = [None] * COUNT
# By opcode: (parameters, how many, results) for the instructions of _TYPED and _MEMORY, else None.
SIGNATURES: list[tuple[bytes, int, bytes] | None] = [None] * COUNT
# By opcode: the largest allowed alignment of a load or store, as a power of two.
ALIGNMENTS: dict[int, int] = {}


def _fill() -> None:
    def types(letters: str) -> bytes:
        return bytes(LETTERS[letter] for letter in letters)

    for first, names in _OTHER:
        NAMES[first : first + names.count(" ") + 1] = names.split()
    memory = ((first, shape, names) for first, shape, _, names in _MEMORY)
    for first, shape, names in (*_TYPED, *memory):
        params, _, results = shape.partition(">")
        for opcode, name in enumerate(names.split(), first):
            NAMES[opcode] = name
            SIGNATURES[opcode] = (types(params), len(params), types(results))
    for first, _, alignments, _ in _MEMORY:
        ALIGNMENTS.update(enumerate(map(int, alignments), first))


_fill()

# By name: its opcode.
OPCODES = {name: opcode for opcode, name in enumerate(NAMES) if name is not None}
