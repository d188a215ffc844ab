"""The table of instructions: opcodes, immediates, types, names (spec 2.0, index of instructions).

An opcode is the first byte of the instruction. Behind the prefix 0xFC it is ``0x100 +`` the number
that follows, behind 0xFD (vectors) ``0x200 +`` that number. So all tables are flat lists.
"""

from __future__ import annotations

from asm_libcalls.toy_jit.errors import InvalidModule, MalformedModule
from asm_libcalls.toy_jit.frontend import proposals
from asm_libcalls.toy_jit.frontend.module import EXTERNREF, F32, F64, FUNCREF, I32, I64, V128

# The opcodes that other modules name: structured control, and instructions with immediates.
UNREACHABLE, NOP, BLOCK, LOOP, IF, ELSE = range(0x06)
END, BR, BR_IF, BR_TABLE, RETURN, CALL, CALL_INDIRECT = range(0x0B, 0x12)
DROP, SELECT, SELECT_T = range(0x1A, 0x1D)
LOCAL_GET, LOCAL_SET, LOCAL_TEE, GLOBAL_GET, GLOBAL_SET, TABLE_GET, TABLE_SET = range(0x20, 0x27)
MEMORY_SIZE, MEMORY_GROW, I32_CONST, I64_CONST, F32_CONST, F64_CONST = range(0x3F, 0x45)
I32_ADD, I32_SUB, I32_MUL = range(0x6A, 0x6D)
I64_ADD, I64_SUB, I64_MUL = range(0x7C, 0x7F)
REF_NULL, REF_IS_NULL, REF_FUNC = range(0xD0, 0xD3)
PREFIX = 0xFC
MEMORY_INIT, DATA_DROP, MEMORY_COPY, MEMORY_FILL, TABLE_INIT = range(0x108, 0x10D)
ELEM_DROP, TABLE_COPY, TABLE_GROW, TABLE_SIZE, TABLE_FILL = range(0x10D, 0x112)
VECTOR_PREFIX = 0xFD
VECTORS = 0x200
V128_CONST = VECTORS + 0x0C
COUNT = VECTORS + 0x100

# The first opcode, the immediates, the type, and the names of consecutive opcodes.
#
# Immediates: "b" block type, "l" label, "L" labels and the default, "f" function, "y" type,
# "x" local, "g" global, "t" table, "e" element segment, "m" the memory, "d" data segment,
# "i" "I" "s" "S" "V" a constant, "r" reference type, "v" value types, "k" a lane, "K" 16 lanes of
# two vectors; digits are the largest alignments of loads or stores, as powers of two; "-" none.
#
# Types: "iI>f" is [i32 i64] -> [f32]; "v" is a v128, "x" an externref, "p" a funcref, "t" the type
# of the table's (or segment's) elements. "*" has a rule of its own.
_TABLE = """
0x00  -   *      unreachable
0x01  -   >      nop
0x02  b   *      block loop if
0x05  -   *      else
0x0B  -   *      end
0x0C  l   *      br br_if
0x0E  L   *      br_table
0x0F  -   *      return
0x10  f   *      call
0x11  yt  *      call_indirect
0x1A  -   *      drop select
0x1C  v   *      select_t
0x20  x   *      local.get local.set local.tee
0x23  g   *      global.get global.set
0x25  t   i>t    table.get
0x26  t   it>    table.set
0x28  2   i>i    i32.load
0x29  3   i>I    i64.load
0x2A  2   i>f    f32.load
0x2B  3   i>F    f64.load
0x2C  0011 i>i   i32.load8_s i32.load8_u i32.load16_s i32.load16_u
0x30  0011 i>I   i64.load8_s i64.load8_u i64.load16_s i64.load16_u
0x34  22  i>I    i64.load32_s i64.load32_u
0x36  2   ii>    i32.store
0x37  3   iI>    i64.store
0x38  2   if>    f32.store
0x39  3   iF>    f64.store
0x3A  01  ii>    i32.store8 i32.store16
0x3C  012 iI>    i64.store8 i64.store16 i64.store32
0x3F  m   >i     memory.size
0x40  m   i>i    memory.grow
0x41  i   >i     i32.const
0x42  I   >I     i64.const
0x43  s   >f     f32.const
0x44  S   >F     f64.const
0x45  -   i>i    i32.eqz
0x46  -   ii>i   i32.eq i32.ne i32.lt_s i32.lt_u i32.gt_s i32.gt_u i32.le_s i32.le_u
0x4E  -   ii>i   i32.ge_s i32.ge_u
0x50  -   I>i    i64.eqz
0x51  -   II>i   i64.eq i64.ne i64.lt_s i64.lt_u i64.gt_s i64.gt_u i64.le_s i64.le_u
0x59  -   II>i   i64.ge_s i64.ge_u
0x5B  -   ff>i   f32.eq f32.ne f32.lt f32.gt f32.le f32.ge
0x61  -   FF>i   f64.eq f64.ne f64.lt f64.gt f64.le f64.ge
0x67  -   i>i    i32.clz i32.ctz i32.popcnt
0x6A  -   ii>i   i32.add i32.sub i32.mul i32.div_s i32.div_u i32.rem_s i32.rem_u
0x71  -   ii>i   i32.and i32.or i32.xor i32.shl i32.shr_s i32.shr_u i32.rotl i32.rotr
0x79  -   I>I    i64.clz i64.ctz i64.popcnt
0x7C  -   II>I   i64.add i64.sub i64.mul i64.div_s i64.div_u i64.rem_s i64.rem_u
0x83  -   II>I   i64.and i64.or i64.xor i64.shl i64.shr_s i64.shr_u i64.rotl i64.rotr
0x8B  -   f>f    f32.abs f32.neg f32.ceil f32.floor f32.trunc f32.nearest f32.sqrt
0x92  -   ff>f   f32.add f32.sub f32.mul f32.div f32.min f32.max f32.copysign
0x99  -   F>F    f64.abs f64.neg f64.ceil f64.floor f64.trunc f64.nearest f64.sqrt
0xA0  -   FF>F   f64.add f64.sub f64.mul f64.div f64.min f64.max f64.copysign
0xA7  -   I>i    i32.wrap_i64
0xA8  -   f>i    i32.trunc_f32_s i32.trunc_f32_u
0xAA  -   F>i    i32.trunc_f64_s i32.trunc_f64_u
0xAC  -   i>I    i64.extend_i32_s i64.extend_i32_u
0xAE  -   f>I    i64.trunc_f32_s i64.trunc_f32_u
0xB0  -   F>I    i64.trunc_f64_s i64.trunc_f64_u
0xB2  -   i>f    f32.convert_i32_s f32.convert_i32_u
0xB4  -   I>f    f32.convert_i64_s f32.convert_i64_u
0xB6  -   F>f    f32.demote_f64
0xB7  -   i>F    f64.convert_i32_s f64.convert_i32_u
0xB9  -   I>F    f64.convert_i64_s f64.convert_i64_u
0xBB  -   f>F    f64.promote_f32
0xBC  -   f>i    i32.reinterpret_f32
0xBD  -   F>I    i64.reinterpret_f64
0xBE  -   i>f    f32.reinterpret_i32
0xBF  -   I>F    f64.reinterpret_i64
0xC0  -   i>i    i32.extend8_s i32.extend16_s
0xC2  -   I>I    i64.extend8_s i64.extend16_s i64.extend32_s
0xD0  r   *      ref.null
0xD1  -   *      ref.is_null
0xD2  f   *      ref.func
0x100 -   f>i    i32.trunc_sat_f32_s i32.trunc_sat_f32_u
0x102 -   F>i    i32.trunc_sat_f64_s i32.trunc_sat_f64_u
0x104 -   f>I    i64.trunc_sat_f32_s i64.trunc_sat_f32_u
0x106 -   F>I    i64.trunc_sat_f64_s i64.trunc_sat_f64_u
0x108 dm  iii>   memory.init
0x109 d   >      data.drop
0x10A mm  iii>   memory.copy
0x10B m   iii>   memory.fill
0x10C et  iii>   table.init
0x10D e   >      elem.drop
0x10E tt  iii>   table.copy
0x10F t   ti>i   table.grow
0x110 t   >i     table.size
0x111 t   iti>   table.fill
0x200 4   i>v    v128.load
0x201 3   i>v    v128.load8x8_s v128.load8x8_u v128.load16x4_s v128.load16x4_u
0x205 3   i>v    v128.load32x2_s v128.load32x2_u
0x207 0   i>v    v128.load8_splat
0x208 1   i>v    v128.load16_splat
0x209 2   i>v    v128.load32_splat
0x20A 3   i>v    v128.load64_splat
0x20B 4   iv>    v128.store
0x20C V   >v     v128.const
0x20D K   vv>v   i8x16.shuffle
0x20E -   vv>v   i8x16.swizzle
0x20F -   i>v    i8x16.splat i16x8.splat i32x4.splat
0x212 -   I>v    i64x2.splat
0x213 -   f>v    f32x4.splat
0x214 -   F>v    f64x2.splat
0x215 k   v>i    i8x16.extract_lane_s i8x16.extract_lane_u
0x217 k   vi>v   i8x16.replace_lane
0x218 k   v>i    i16x8.extract_lane_s i16x8.extract_lane_u
0x21A k   vi>v   i16x8.replace_lane
0x21B k   v>i    i32x4.extract_lane
0x21C k   vi>v   i32x4.replace_lane
0x21D k   v>I    i64x2.extract_lane
0x21E k   vI>v   i64x2.replace_lane
0x21F k   v>f    f32x4.extract_lane
0x220 k   vf>v   f32x4.replace_lane
0x221 k   v>F    f64x2.extract_lane
0x222 k   vF>v   f64x2.replace_lane
0x223 -   vv>v   i8x16.eq i8x16.ne i8x16.lt_s i8x16.lt_u i8x16.gt_s i8x16.gt_u i8x16.le_s
0x22A -   vv>v   i8x16.le_u i8x16.ge_s i8x16.ge_u
0x22D -   vv>v   i16x8.eq i16x8.ne i16x8.lt_s i16x8.lt_u i16x8.gt_s i16x8.gt_u i16x8.le_s
0x234 -   vv>v   i16x8.le_u i16x8.ge_s i16x8.ge_u
0x237 -   vv>v   i32x4.eq i32x4.ne i32x4.lt_s i32x4.lt_u i32x4.gt_s i32x4.gt_u i32x4.le_s
0x23E -   vv>v   i32x4.le_u i32x4.ge_s i32x4.ge_u
0x241 -   vv>v   f32x4.eq f32x4.ne f32x4.lt f32x4.gt f32x4.le f32x4.ge
0x247 -   vv>v   f64x2.eq f64x2.ne f64x2.lt f64x2.gt f64x2.le f64x2.ge
0x24D -   v>v    v128.not
0x24E -   vv>v   v128.and v128.andnot v128.or v128.xor
0x252 -   vvv>v  v128.bitselect
0x253 -   v>i    v128.any_true
0x254 0k  iv>v   v128.load8_lane
0x255 1k  iv>v   v128.load16_lane
0x256 2k  iv>v   v128.load32_lane
0x257 3k  iv>v   v128.load64_lane
0x258 0k  iv>    v128.store8_lane
0x259 1k  iv>    v128.store16_lane
0x25A 2k  iv>    v128.store32_lane
0x25B 3k  iv>    v128.store64_lane
0x25C 2   i>v    v128.load32_zero
0x25D 3   i>v    v128.load64_zero
0x25E -   v>v    f32x4.demote_f64x2_zero f64x2.promote_low_f32x4
0x260 -   v>v    i8x16.abs i8x16.neg i8x16.popcnt
0x263 -   v>i    i8x16.all_true i8x16.bitmask
0x265 -   vv>v   i8x16.narrow_i16x8_s i8x16.narrow_i16x8_u
0x267 -   v>v    f32x4.ceil f32x4.floor f32x4.trunc f32x4.nearest
0x26B -   vi>v   i8x16.shl i8x16.shr_s i8x16.shr_u
0x26E -   vv>v   i8x16.add i8x16.add_sat_s i8x16.add_sat_u i8x16.sub i8x16.sub_sat_s
0x273 -   vv>v   i8x16.sub_sat_u
0x274 -   v>v    f64x2.ceil f64x2.floor
0x276 -   vv>v   i8x16.min_s i8x16.min_u i8x16.max_s i8x16.max_u
0x27A -   v>v    f64x2.trunc
0x27B -   vv>v   i8x16.avgr_u
0x27C -   v>v    i16x8.extadd_pairwise_i8x16_s i16x8.extadd_pairwise_i8x16_u
0x27E -   v>v    i32x4.extadd_pairwise_i16x8_s i32x4.extadd_pairwise_i16x8_u
0x280 -   v>v    i16x8.abs i16x8.neg
0x282 -   vv>v   i16x8.q15mulr_sat_s
0x283 -   v>i    i16x8.all_true i16x8.bitmask
0x285 -   vv>v   i16x8.narrow_i32x4_s i16x8.narrow_i32x4_u
0x287 -   v>v    i16x8.extend_low_i8x16_s i16x8.extend_high_i8x16_s i16x8.extend_low_i8x16_u
0x28A -   v>v    i16x8.extend_high_i8x16_u
0x28B -   vi>v   i16x8.shl i16x8.shr_s i16x8.shr_u
0x28E -   vv>v   i16x8.add i16x8.add_sat_s i16x8.add_sat_u i16x8.sub i16x8.sub_sat_s
0x293 -   vv>v   i16x8.sub_sat_u
0x294 -   v>v    f64x2.nearest
0x295 -   vv>v   i16x8.mul i16x8.min_s i16x8.min_u i16x8.max_s i16x8.max_u
0x29B -   vv>v   i16x8.avgr_u
0x29C -   vv>v   i16x8.extmul_low_i8x16_s i16x8.extmul_high_i8x16_s i16x8.extmul_low_i8x16_u
0x29F -   vv>v   i16x8.extmul_high_i8x16_u
0x2A0 -   v>v    i32x4.abs i32x4.neg
0x2A3 -   v>i    i32x4.all_true i32x4.bitmask
0x2A7 -   v>v    i32x4.extend_low_i16x8_s i32x4.extend_high_i16x8_s i32x4.extend_low_i16x8_u
0x2AA -   v>v    i32x4.extend_high_i16x8_u
0x2AB -   vi>v   i32x4.shl i32x4.shr_s i32x4.shr_u
0x2AE -   vv>v   i32x4.add
0x2B1 -   vv>v   i32x4.sub
0x2B5 -   vv>v   i32x4.mul i32x4.min_s i32x4.min_u i32x4.max_s i32x4.max_u i32x4.dot_i16x8_s
0x2BC -   vv>v   i32x4.extmul_low_i16x8_s i32x4.extmul_high_i16x8_s i32x4.extmul_low_i16x8_u
0x2BF -   vv>v   i32x4.extmul_high_i16x8_u
0x2C0 -   v>v    i64x2.abs i64x2.neg
0x2C3 -   v>i    i64x2.all_true i64x2.bitmask
0x2C7 -   v>v    i64x2.extend_low_i32x4_s i64x2.extend_high_i32x4_s i64x2.extend_low_i32x4_u
0x2CA -   v>v    i64x2.extend_high_i32x4_u
0x2CB -   vi>v   i64x2.shl i64x2.shr_s i64x2.shr_u
0x2CE -   vv>v   i64x2.add
0x2D1 -   vv>v   i64x2.sub
0x2D5 -   vv>v   i64x2.mul i64x2.eq i64x2.ne i64x2.lt_s i64x2.gt_s i64x2.le_s i64x2.ge_s
0x2DC -   vv>v   i64x2.extmul_low_i32x4_s i64x2.extmul_high_i32x4_s i64x2.extmul_low_i32x4_u
0x2DF -   vv>v   i64x2.extmul_high_i32x4_u
0x2E0 -   v>v    f32x4.abs f32x4.neg
0x2E3 -   v>v    f32x4.sqrt
0x2E4 -   vv>v   f32x4.add f32x4.sub f32x4.mul f32x4.div f32x4.min f32x4.max f32x4.pmin
0x2EB -   vv>v   f32x4.pmax
0x2EC -   v>v    f64x2.abs f64x2.neg
0x2EF -   v>v    f64x2.sqrt
0x2F0 -   vv>v   f64x2.add f64x2.sub f64x2.mul f64x2.div f64x2.min f64x2.max f64x2.pmin
0x2F7 -   vv>v   f64x2.pmax
0x2F8 -   v>v    i32x4.trunc_sat_f32x4_s i32x4.trunc_sat_f32x4_u f32x4.convert_i32x4_s
0x2FB -   v>v    f32x4.convert_i32x4_u i32x4.trunc_sat_f64x2_s_zero
0x2FD -   v>v    i32x4.trunc_sat_f64x2_u_zero f64x2.convert_low_i32x4_s
0x2FF -   v>v    f64x2.convert_low_i32x4_u
"""

ELEMENT = 0
"""In TYPES: the type of a table's or segment's elements."""

_LETTERS = {"i": I32, "I": I64, "f": F32, "F": F64, "v": V128, "p": FUNCREF,
            "x": EXTERNREF, "t": ELEMENT}  # fmt: skip

NAMES: list[str | None] = [None] * COUNT
"""By opcode: the instruction's name, or None."""

IMMEDIATES = [""] * COUNT
"""By opcode: its immediates, in the letters of the table."""

TYPES: list[tuple[bytes, bytes]] = [(b"", b"")] * COUNT
"""By opcode: parameters and results, which may contain ELEMENT; empty if a rule computes them."""

SIGNATURES: list[tuple[bytes, int, bytes] | None] = [None] * COUNT
"""By opcode: (parameters, their number, results) if these are the whole type; else None. Loads and
stores have one, although they also have an alignment and an offset."""

ALIGNMENTS: dict[int, int] = {}
"""By opcode: the largest allowed alignment of a load or store, as a power of two."""


LANES: dict[int, int] = {}
"""By opcode with a lane index as an immediate: the number of lanes."""


def prefixed(prefix: int, number: int, offset: int) -> int:
    """Return the opcode of a prefix and the number behind it; raise if it is illegal."""
    opcode = (VECTORS if prefix == VECTOR_PREFIX else 0x100) + number
    if number >= 0x100 or NAMES[opcode] is None:
        if prefix == VECTOR_PREFIX:
            proposals.check(proposals.VECTOR_OPCODES, number, offset)
        elif number < 0x100:
            raise illegal(opcode, offset)
        raise MalformedModule(f"illegal opcode {prefix:02x} {number:02x}", offset)
    return opcode


def illegal(opcode: int, offset: int) -> InvalidModule:
    """Make the error for an illegal opcode, or one of an unsupported proposal."""
    if opcode in proposals.OPCODES:
        return proposals.refusal(proposals.OPCODES[opcode], offset)
    number = f"{opcode:02x}" if opcode < 0x100 else f"fc {opcode - 0x100:02x}"
    return MalformedModule(f"illegal opcode {number}", offset)


def value_types(letters: str) -> bytes:
    """Return the value types that letters of the table mean."""
    return bytes(_LETTERS[letter] for letter in letters)


for _first, _immediates, _type, *_names in map(str.split, _TABLE.strip().splitlines()):
    for _i, _name in enumerate(_names):
        _opcode = int(_first, 16) + _i
        NAMES[_opcode] = _name
        IMMEDIATES[_opcode] = _immediates.strip("-")
        if _immediates.isdigit():
            IMMEDIATES[_opcode] = _immediates[_i] if len(_immediates) > 1 else _immediates
        if _immediates[0].isdigit():
            ALIGNMENTS[_opcode] = int(IMMEDIATES[_opcode][0])
        if _immediates.endswith("k"):
            _lanes = _name.partition("x")[2].partition(".")[0]
            LANES[_opcode] = int(_lanes) if _lanes else 16 >> ALIGNMENTS[_opcode]
        if _type != "*":
            _params, _results = map(value_types, _type.split(">"))
            TYPES[_opcode] = _params, _results
            if _opcode != NOP and (_immediates == "-" or _immediates.isdigit()):
                SIGNATURES[_opcode] = _params, len(_params), _results

OPCODES = {name: opcode for opcode, name in enumerate(NAMES) if name is not None}
"""By name: its opcode."""
