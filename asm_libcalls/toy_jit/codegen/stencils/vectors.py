"""Stencils of vector instructions, by their names, on SSE4.1.

Operands are in xmm14 and xmm15, and the result in xmm14. ``v14`` is the name of xmm14 for a whole
vector, in places and names of stencils. Other operands and results are in rax and xmm0, a third
vector in xmm1. All of these may change, and rcx and rdx. Those of one instruction whose registers
the compiler chooses are in ``direct_vectors.py``.
"""

from __future__ import annotations

from asm_libcalls.toy_jit.codegen.registers import NEGATED
from asm_libcalls.toy_jit.codegen.stencils.direct_vectors import CPU_LANES
from asm_libcalls.x86_64.rounding import DIRECTIONS, INEXACT_SUPPRESSED

NARROWED = {"i8x16": 7, "i16x8": 15, "i32x4": 31, "i64x2": 63}
"""By the lanes: the mask of a shift count."""


def vectors(features: frozenset[str]) -> dict[str, str]:
    """Return the stencils for a CPU with these features, SSE4.1 among them."""
    found = _moves() | _memory("avx" in features) | _logic() | _lanes_of_integers() | _products()
    return found | _comparisons("sse4_2" in features) | _shifts() | _floats() | _conversions()


def _ones(value: int, bits: int, register: str) -> str:
    """Return code that puts a number of 32 or 64 bits into all lanes; clobbers rdx."""
    if bits == 32:
        return f"mov edx, {value}; movd {register}, edx; pshufd {register}, {register}, 0; "
    return f"mov rdx, {value}; movq {register}, rdx; punpcklqdq {register}, {register}; "


def _moves() -> dict[str, str]:
    found = {
        "global.get.v14": "movups xmm14, [rcx]",
        "global.set.v14": "movups [rcx], xmm14",
        "store.f32": "movss [rbp + target], xmm0",
        "store.f64": "movsd [rbp + target], xmm0",
    }
    for condition in NEGATED:
        # The right operand if the condition holds.
        found[f"select.v14.{condition}"] = (
            f"j{condition} .right; jmp .done; .right:; movaps xmm14, xmm15; .done:"
        )
    return found


def _memory(avx: bool) -> dict[str, str]:
    accesses = {
        "v128.load8_splat": "movzx eax, byte{}; movd xmm14, eax; pxor xmm0, xmm0; "
        "pshufb xmm14, xmm0",
        "v128.load16_splat": "movzx eax, word{}; movd xmm14, eax; pshuflw xmm14, xmm14, 0; "
        "punpcklqdq xmm14, xmm14",
        "v128.load8_lane": "pinsrb xmm14, byte{}, 0", "v128.load16_lane": "pinsrw xmm14, word{}, 0",
        "v128.load32_lane": "pinsrd xmm14, dword{}, 0",
        "v128.load64_lane": "pinsrq xmm14, qword{}, 0",
        "v128.store8_lane": "pextrb byte{}, xmm14, 0",
        "v128.store16_lane": "pextrw word{}, xmm14, 0",
        "v128.store32_lane": "pextrd dword{}, xmm14, 0",
        "v128.store64_lane": "pextrq qword{}, xmm14, 0",
    }  # fmt: skip
    if not avx:  # else it is one instruction
        accesses["v128.load32_splat"] = "movd xmm14, dword{}; pshufd xmm14, xmm14, 0"
    address = "[r14 + rax * 1 + offset]"
    return {name: text.format(address) for name, text in accesses.items()}


def _logic() -> dict[str, str]:
    return {
        "v128.not": "pcmpeqd xmm0, xmm0; pxor xmm14, xmm0",
        # (a and mask) or (b and not mask)
        "v128.bitselect": "pand xmm14, xmm1; pandn xmm1, xmm15; por xmm14, xmm1",
        "v128.any_true": "ptest xmm14, xmm14",
        # An index above 15 gets its highest bit set, for which pshufb gives 0.
        "i8x16.swizzle": _ones(0x70707070, 32, "xmm0")
        + "paddusb xmm0, xmm15; pshufb xmm14, xmm0",
        "i8x16.splat": "movd xmm14, eax; pxor xmm0, xmm0; pshufb xmm14, xmm0",
        "i16x8.splat": "movd xmm14, eax; pshuflw xmm14, xmm14, 0; punpcklqdq xmm14, xmm14",
        "i32x4.splat": "movd xmm14, eax; pshufd xmm14, xmm14, 0",
        "i64x2.splat": "movq xmm14, rax; punpcklqdq xmm14, xmm14",
        "f32x4.splat": "pshufd xmm14, xmm0, 0",
        "f64x2.splat": "pshufd xmm14, xmm0, 68",
        "vector.shuffle_ps": "shufps xmm14, xmm15, 0",
        "vector.blend": "pblendw xmm14, xmm15, 0",
        "vector.align": "palignr xmm15, xmm14, 0; movaps xmm14, xmm15",
        "vector.shuffle_two": "pshufb xmm14, xmm0; pshufb xmm15, xmm1; por xmm14, xmm15",
        # The lane is the last byte, which the compiler fills in.
        "i8x16.extract_lane_u": "pextrb eax, xmm14, 0",
        "i16x8.extract_lane_u": "pextrw eax, xmm14, 0",
        "i32x4.extract_lane": "pextrd eax, xmm14, 0",
        "i64x2.extract_lane": "pextrq rax, xmm14, 0",
        "f32x4.extract_lane": "pshufd xmm0, xmm14, 0",
        "i8x16.replace_lane": "pinsrb xmm14, eax, 0",
        "i16x8.replace_lane": "pinsrw xmm14, eax, 0",
        "i32x4.replace_lane": "pinsrd xmm14, eax, 0",
        "i64x2.replace_lane": "pinsrq xmm14, rax, 0",
        "f32x4.replace_lane": "insertps xmm14, xmm0, 0",
        # Lane 0 or 1 is replaced; the other one stays in xmm14.
        "f64x2.replace_lane.0": "movsd xmm14, xmm0",
        "f64x2.replace_lane.1": "movlhps xmm14, xmm0",
    }  # fmt: skip


def _lanes_of_integers() -> dict[str, str]:
    found = {
        "i64x2.abs": "movaps xmm0, xmm14; psrad xmm0, 31; pshufd xmm0, xmm0, 245; "
        "pxor xmm14, xmm0; psubq xmm14, xmm0",
        # A table lookup for each half of a byte.
        "i8x16.popcnt": f"""
            mov rdx, {0x0302020102010100}; movq xmm0, rdx
            mov rdx, {0x0403030203020201}; pinsrq xmm0, rdx, 1; {_ones(0x0F0F0F0F, 32, "xmm1")}
            movaps xmm15, xmm14; pand xmm15, xmm1; psrlw xmm14, 4; pand xmm14, xmm1
            movaps xmm1, xmm0; pshufb xmm0, xmm15; pshufb xmm1, xmm14; paddb xmm0, xmm1
            movaps xmm14, xmm0
        """,
        "i8x16.bitmask": "pmovmskb eax, xmm14",
        "i16x8.bitmask": "packsswb xmm14, xmm14; pmovmskb eax, xmm14; movzx eax, al",
        "i32x4.bitmask": "movmskps eax, xmm14",
        "i64x2.bitmask": "movmskpd eax, xmm14",
    }
    for lanes, letter in CPU_LANES.items():
        found[f"{lanes}.neg"] = f"pxor xmm0, xmm0; psub{letter} xmm0, xmm14; movaps xmm14, xmm0"
        # The zero flag is set if no lane is 0.
        found[f"{lanes}.all_true"] = (
            f"pxor xmm0, xmm0; pcmpeq{letter} xmm0, xmm14; ptest xmm0, xmm0"
        )
        if letter != "q":
            found[f"{lanes}.abs"] = f"pabs{letter} xmm14, xmm14"
    for narrow, wide, pair in (
        ("i8x16", "i16x8", "bw"), ("i16x8", "i32x4", "wd"), ("i32x4", "i64x2", "dq"),
    ):  # fmt: skip
        for sign, letter in (("s", "s"), ("u", "z")):
            extend = f"pmov{letter}x{pair} xmm14, xmm14"
            found[f"{wide}.extend_low_{narrow}_{sign}"] = extend
            found[f"{wide}.extend_high_{narrow}_{sign}"] = f"pshufd xmm14, xmm14, 238; {extend}"
    return found


def _products() -> dict[str, str]:
    found = {
        # Only -1 times -1 overflows, to 0x8000.
        "i16x8.q15mulr_sat_s": "pmulhrsw xmm14, xmm15; " + _ones(0x80008000, 32, "xmm0")
        + "pcmpeqw xmm0, xmm14; pxor xmm14, xmm0",
        # pmaddubsw multiplies unsigned bytes, the first operand, by signed ones.
        "i16x8.extadd_pairwise_i8x16_s": _ones(0x01010101, 32, "xmm0")
        + "pmaddubsw xmm0, xmm14; movaps xmm14, xmm0",
        "i16x8.extadd_pairwise_i8x16_u": _ones(0x01010101, 32, "xmm0") + "pmaddubsw xmm14, xmm0",
        "i32x4.extadd_pairwise_i16x8_s": _ones(0x00010001, 32, "xmm0") + "pmaddwd xmm14, xmm0",
        "i32x4.extadd_pairwise_i16x8_u":
            "movaps xmm0, xmm14; psrld xmm0, 16; pslld xmm14, 16; psrld xmm14, 16; "
            "paddd xmm14, xmm0",
        "i64x2.mul": """
            movaps xmm0, xmm14; psrlq xmm0, 32; pmuludq xmm0, xmm15
            movaps xmm1, xmm15; psrlq xmm1, 32; pmuludq xmm1, xmm14
            paddq xmm0, xmm1; psllq xmm0, 32; pmuludq xmm14, xmm15; paddq xmm14, xmm0
        """,
    }  # fmt: skip
    for part, high, dwords in (("low", "", 80), ("high", "pshufd {0}, {0}, 238; ", 250)):
        for sign, letter, unsigned in (("s", "s", ""), ("u", "z", "u")):
            found[f"i16x8.extmul_{part}_i8x16_{sign}"] = (
                high.format("xmm14") + high.format("xmm15")
                + f"pmov{letter}xbw xmm14, xmm14; pmov{letter}xbw xmm15, xmm15; "
                "pmullw xmm14, xmm15"
            )  # fmt: skip
            found[f"i32x4.extmul_{part}_i16x8_{sign}"] = (
                f"movaps xmm0, xmm14; pmullw xmm14, xmm15; pmulh{unsigned}w xmm0, xmm15; "
                f"punpck{part[0]}wd xmm14, xmm0"
            )
            found[f"i64x2.extmul_{part}_i32x4_{sign}"] = (
                f"pshufd xmm14, xmm14, {dwords}; pshufd xmm15, xmm15, {dwords}; "
                f"pmul{unsigned}dq xmm14, xmm15"
            )
    return found


def _comparisons(has_pcmpgtq: bool) -> dict[str, str]:
    negate = "; pcmpeqd xmm0, xmm0; pxor xmm14, xmm0"
    found = {}
    for lanes, letter in CPU_LANES.items():
        found[f"{lanes}.ne"] = f"pcmpeq{letter} xmm14, xmm15" + negate
        if letter == "q":
            continue
        for sign in "su":
            most = f"pmax{sign}{letter} xmm15, xmm14; pcmpeq{letter} xmm14, xmm15"
            least = f"pmin{sign}{letter} xmm15, xmm14; pcmpeq{letter} xmm14, xmm15"
            found[f"{lanes}.ge_{sign}"], found[f"{lanes}.le_{sign}"] = most, least
            if sign == "u":
                found[f"{lanes}.gt_u"], found[f"{lanes}.lt_u"] = least + negate, most + negate

    def greater(a: str, b: str) -> str:
        if has_pcmpgtq:
            return f"pcmpgtq {a}, {b}"
        # If the upper halves are equal, b - a is negative if the lower half of a is greater.
        return (
            f"movaps xmm0, {b}; psubq xmm0, {a}; movaps xmm1, {a}; pcmpeqd xmm1, {b}; "
            f"pand xmm0, xmm1; pcmpgtd {a}, {b}; por {a}, xmm0; pshufd {a}, {a}, 245"
        )

    less = greater("xmm15", "xmm14") + "; movaps xmm14, xmm15"
    found["i64x2.gt_s"], found["i64x2.lt_s"] = greater("xmm14", "xmm15"), less
    found["i64x2.le_s"], found["i64x2.ge_s"] = found["i64x2.gt_s"] + negate, less + negate
    return found


def _shifts() -> dict[str, str]:
    found = {}
    for lanes, letter in (("i16x8", "w"), ("i32x4", "d"), ("i64x2", "q")):
        for verb, shift in (("shl", "psll"), ("shr_s", "psra"), ("shr_u", "psrl")):
            count = f"and eax, {NARROWED[lanes]}; movd xmm0, eax; "
            found[f"{lanes}.{verb}"] = f"{count}{shift}{letter} xmm14, xmm0"
    # The sign bit is shifted as unsigned, too; subtracting it extends the sign.
    found["i64x2.shr_s"] = """
        and eax, 63; movd xmm0, eax; pcmpeqd xmm1, xmm1; psllq xmm1, 63; psrlq xmm1, xmm0
        psrlq xmm14, xmm0; pxor xmm14, xmm1; psubq xmm14, xmm1
    """
    # Shift 16 bits, then mask the bits that came from the other byte.
    for verb, shift, cut in (("shl", "psllw", "shl"), ("shr_u", "psrlw", "shr")):
        found[f"i8x16.{verb}"] = f"""
            and eax, 7; mov ecx, eax; movd xmm0, eax; {shift} xmm14, xmm0
            mov eax, 255; {cut} eax, cl; movd xmm1, eax; pxor xmm0, xmm0; pshufb xmm1, xmm0
            pand xmm14, xmm1
        """
    found["i8x16.shr_s"] = """
        and eax, 7; add eax, 8; movd xmm0, eax
        movaps xmm1, xmm14; punpckhbw xmm1, xmm1; punpcklbw xmm14, xmm14
        psraw xmm1, xmm0; psraw xmm14, xmm0; packsswb xmm14, xmm1
    """
    return found


def _floats() -> dict[str, str]:
    found = {}
    for lanes, suffix, letter, bits, payload in (
        ("f32x4", "ps", "d", 32, 10), ("f64x2", "pd", "q", 64, 13),
    ):  # fmt: skip
        ones = "pcmpeqd xmm0, xmm0; "
        found[f"{lanes}.abs"] = f"{ones}psrl{letter} xmm0, 1; and{suffix} xmm14, xmm0"
        found[f"{lanes}.neg"] = f"{ones}psll{letter} xmm0, {bits - 1}; xor{suffix} xmm14, xmm0"
        found[f"{lanes}.sqrt"] = f"sqrt{suffix} xmm14, xmm14"
        # The CPU's minimum is its second operand if one is a NaN or both are zeros. So the results
        # of both orders are ored. That leaves a NaN with any payload, which is made canonical.
        found[f"{lanes}.min"] = f"""
            movaps xmm0, xmm15; min{suffix} xmm0, xmm14; min{suffix} xmm14, xmm15
            or{suffix} xmm0, xmm14; cmp{suffix} xmm14, xmm0, 3; or{suffix} xmm0, xmm14
            psrl{letter} xmm14, {payload}; andn{suffix} xmm14, xmm0
        """
        # If the orders differ in the sign of a zero, 0 - (-0) is 0; a NaN stays a NaN.
        found[f"{lanes}.max"] = f"""
            movaps xmm0, xmm15; max{suffix} xmm0, xmm14; max{suffix} xmm14, xmm15
            xor{suffix} xmm14, xmm0; or{suffix} xmm0, xmm14; sub{suffix} xmm0, xmm14
            cmp{suffix} xmm14, xmm0, 3; psrl{letter} xmm14, {payload}; andn{suffix} xmm14, xmm0
        """
        for verb, direction in DIRECTIONS.items():
            mode = direction | INEXACT_SUPPRESSED
            found[f"{lanes}.{verb}"] = f"round{suffix} xmm14, xmm14, {mode}"
    return found


def _conversions() -> dict[str, str]:
    most, end = 0x41DFFFFFFFC00000, 0x41EFFFFFFFE00000  # 2**31 - 1 and 2**32 - 1 as f64
    two_52 = 0x4330000000000000
    return {
        "f32x4.demote_f64x2_zero": "cvtpd2ps xmm14, xmm14",
        "f64x2.promote_low_f32x4": "cvtps2pd xmm14, xmm14",
        "f32x4.convert_i32x4_s": "cvtdq2ps xmm14, xmm14",
        # The halves are exact as floats, so only their sum is rounded.
        "f32x4.convert_i32x4_u": """
            movaps xmm0, xmm14; pslld xmm0, 16; psrld xmm0, 16; psubd xmm14, xmm0
            cvtdq2ps xmm0, xmm0; psrld xmm14, 1; cvtdq2ps xmm14, xmm14
            addps xmm14, xmm14; addps xmm14, xmm0
        """,
        "f64x2.convert_low_i32x4_s": "cvtdq2pd xmm14, xmm14",
        # The integer becomes the low bits of 2**52, which is then subtracted.
        "f64x2.convert_low_i32x4_u": _ones(two_52 >> 32, 32, "xmm0") + """
            punpckldq xmm14, xmm0; pxor xmm1, xmm1; punpckldq xmm1, xmm0; subpd xmm14, xmm1
        """,
        # A NaN becomes 0. The conversion gives -2**31 for values that are too small or too large;
        # if too large, all bits are inverted.
        "i32x4.trunc_sat_f32x4_s": """
            movaps xmm0, xmm14; cmpps xmm0, xmm0, 0; andps xmm14, xmm0; pxor xmm0, xmm14
            cvttps2dq xmm14, xmm14; pand xmm0, xmm14; psrad xmm0, 31; pxor xmm14, xmm0
        """,
        # NaNs and negative values become 0. Values from 2**31 (xmm1) on become -2**31; the excess
        # above 2**31 is added, or 2**31 - 1 if the excess is too large.
        "i32x4.trunc_sat_f32x4_u": """
            pxor xmm1, xmm1; maxps xmm14, xmm1
            pcmpeqd xmm1, xmm1; psrld xmm1, 1; cvtdq2ps xmm1, xmm1
            movaps xmm0, xmm14; subps xmm0, xmm1; cmpps xmm1, xmm0, 2; cvttps2dq xmm0, xmm0
            pxor xmm0, xmm1; pxor xmm1, xmm1; pmaxsd xmm0, xmm1
            cvttps2dq xmm14, xmm14; paddd xmm14, xmm0
        """,
        # The upper bound is 0 for a NaN. The conversion gives -2**31 for values that are too small.
        "i32x4.trunc_sat_f64x2_s_zero": _ones(most, 64, "xmm1") + """
            movaps xmm0, xmm14; cmppd xmm0, xmm0, 0; andpd xmm0, xmm1; minpd xmm14, xmm0
            cvttpd2dq xmm14, xmm14
        """,
        # The sum of 2**52 and an integer has the integer in its low bits.
        "i32x4.trunc_sat_f64x2_u_zero": _ones(end, 64, "xmm1") + f"""
            pxor xmm0, xmm0; maxpd xmm14, xmm0; minpd xmm14, xmm1; roundpd xmm14, xmm14, 11
            {_ones(two_52, 64, "xmm1")}addpd xmm14, xmm1; shufps xmm14, xmm0, 136
        """,
    }  # fmt: skip
