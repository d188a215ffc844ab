"""Stencils of several instructions: arithmetic and conversions, by WebAssembly's names.

Operands are in rax and rcx, or xmm0 and xmm1. Results are in rax or xmm0. rcx, rdx and xmm1 may
change. What is one instruction of the CPU is in ``forms.py``.
"""

from __future__ import annotations

import struct

from asm_libcalls.toy_jit.codegen.registers import NEGATED
from asm_libcalls.x86_64.rounding import DIRECTIONS, INEXACT_SUPPRESSED


def numbers(features: frozenset[str]) -> dict[str, str]:
    """Return the stencils for a CPU with these features."""
    found: dict[str, str] = {}
    for name, bits, a, c, d in (("i32", 32, "eax", "ecx", "edx"), ("i64", 64, "rax", "rcx", "rdx")):
        found |= _shifts(name, a) | _bits(name, bits, a, c, d, features)
        found |= _divisions(name, a, c, d)
    for name, bits, suffix in (("f32", 32, "ss"), ("f64", 64, "sd")):
        found |= _floats(name, bits, suffix) | _to_integer(name, suffix)
        if "sse4_1" in features:
            for verb, direction in DIRECTIONS.items():
                mode = direction | INEXACT_SUPPRESSED
                found[f"{name}.{verb}"] = f"round{suffix} xmm0, xmm0, {mode}"
    for condition in NEGATED:
        # the right operand if the condition holds
        found[f"select.{condition}"] = (
            f"movq rdx, xmm0; movq rcx, xmm1; cmov{condition} rdx, rcx; movq xmm0, rdx"
        )
    return found


# -- integers


def _shifts(name: str, a: str) -> dict[str, str]:
    shifts = {"shl": "shl", "shr_s": "sar", "shr_u": "shr", "rotl": "rol", "rotr": "ror"}
    return {f"{name}.{verb}": f"{shift} {a}, cl" for verb, shift in shifts.items()}


def _divisions(name: str, a: str, c: str, d: str) -> dict[str, str]:
    check = f"test {c}, {c}; jz >trap.INTEGER_DIVISION_BY_ZERO; "
    # idiv faults on the quotient 2**31 or 2**63, even if only the remainder is needed.
    check_signed = f"{check}cmp {c}, -1; jne .divide; "
    signed = f"; jmp .done; .divide:; {'cdq' if name == 'i32' else 'cqo'}; idiv {c}; .done:"
    return {
        f"{name}.div_s": f"{check_signed}neg {a}; jo >trap.INTEGER_OVERFLOW{signed}",
        f"{name}.div_u": f"{check}xor edx, edx; div {c}",
        f"{name}.rem_s": f"{check_signed}xor edx, edx{signed}; mov {a}, {d}",
        f"{name}.rem_u": f"{check}xor edx, edx; div {c}; mov {a}, {d}",
    }


def _bits(name: str, bits: int, a: str, c: str, d: str, features: frozenset[str]) -> dict[str, str]:
    thirds, fifths, by_17, by_255 = (((1 << bits) - 1) // n for n in (3, 5, 17, 255))
    # bsr gives the index of the highest bit, and is undefined for 0.
    clz = (
        f"bsr {c}, {a}; mov {d}, {2 * bits - 1}; cmovz {c}, {d}; xor {c}, {bits - 1}; mov {a}, {c}"
    )
    ctz = f"bsf {c}, {a}; mov {d}, {bits}; cmovz {c}, {d}; mov {a}, {c}"
    # Sums of neighbouring bits, pairs and nibbles, side by side (Hacker's Delight, 5-1).
    popcnt = f"""
        mov {c}, {a}; shr {c}, 1; mov {d}, {thirds}; and {c}, {d}; sub {a}, {c}
        mov {d}, {fifths}; mov {c}, {a}; and {c}, {d}; shr {a}, 2; and {a}, {d}; add {a}, {c}
        mov {c}, {a}; shr {c}, 4; add {a}, {c}; mov {d}, {by_17}; and {a}, {d}
        mov {d}, {by_255}; imul {a}, {d}; shr {a}, {bits - 8}
    """
    found = {f"{name}.clz": clz, f"{name}.ctz": ctz, f"{name}.popcnt": popcnt}
    in_one = {"clz": "lzcnt", "ctz": "bmi", "popcnt": "popcnt"}  # for these forms.py has them
    return {n: text for n, text in found.items() if in_one[n[4:]] not in features}


# -- floats


def _floats(name: str, bits: int, s: str) -> dict[str, str]:
    c, d = ("ecx", "edx") if s == "ss" else ("rcx", "rdx")
    sign = bits - 1
    # If equal, only zeros of different signs matter. If one is a NaN, the sum is a quiet NaN.
    extremum = f"""
        ucomi{s} xmm0, xmm1; jne .differ; jp .nan
        {{zeros}} xmm0, xmm1; jmp .done
        .nan:; add{s} xmm0, xmm1; jmp .done
        .differ:; {{verb}}{s} xmm0, xmm1; .done:
    """
    return {
        f"{name}.copysign": f"movq rdx, xmm0; movq rcx, xmm1; btr {d}, {sign}; "
        f"shr {c}, {sign}; shl {c}, {sign}; or {d}, {c}; movq xmm0, rdx",
        f"{name}.min": extremum.format(zeros="orps", verb="min"),  # -0 has the sign bit
        f"{name}.max": extremum.format(zeros="andps", verb="max"),
        # After ucomis: ZF is set if equal or unordered, PF if unordered.
        f"{name}.eq": "setnp al; setz cl; and al, cl; movzx eax, al",
        f"{name}.ne": "setp al; setnz cl; or al, cl; movzx eax, al",
        # A large value is halved, with the lost bit ored into the lowest, so that it rounds right.
        # The conversion keeps the rest of xmm0, so clear it to avoid a dependency on its old value.
        f"{name}.convert_i64_u": f"""
            xorps xmm0, xmm0; test rax, rax; js .large; cvtsi2{s} xmm0, rax; jmp .done
            .large:; mov rcx, rax; shr rcx, 1; and eax, 1; or rcx, rax
            cvtsi2{s} xmm0, rcx; add{s} xmm0, xmm0; .done:
        """,
    }


# -- conversions


def _to_integer(source: str, s: str) -> dict[str, str]:
    found = {}
    for bits, sign in ((32, "s"), (32, "u"), (64, "s"), (64, "u")):
        least, end = (0, 1 << bits) if sign == "u" else (-1 << (bits - 1), 1 << (bits - 1))
        # Truncation makes values just below the least integer valid, if the floats are so dense.
        between = sign == "u" or (bits, source) == (32, "f64")
        low, too_low = (least - 1, "be") if between else (least, "c")
        check = (
            f"mov rdx, {_pattern(source, low)}; movq xmm1, rdx; ucomi{s} xmm0, xmm1; "
            f"j{too_low} {{low}}; "
            f"mov rdx, {_pattern(source, end)}; movq xmm1, rdx; ucomi{s} xmm0, xmm1; "
            "jnc {high}; "
        )
        convert = f"cvtt{s}2si rax, xmm0"
        if (bits, sign) == (64, "u"):
            convert = f"""
                mov rdx, {_pattern(source, 1 << 63)}; movq xmm1, rdx; ucomi{s} xmm0, xmm1
                jc .small; sub{s} xmm0, xmm1; {convert}; btc rax, 63; jmp .converted
                .small:; {convert}; .converted:
            """
        overflow = ">trap.INTEGER_OVERFLOW"
        a = "eax" if bits == 32 else "rax"
        found[f"i{bits}.trunc_{source}_{sign}"] = (
            f"ucomi{s} xmm0, xmm0; jp >trap.BAD_CONVERSION_TO_INTEGER; "
            + check.format(low=overflow, high=overflow) + convert
            + ("; mov eax, eax" if bits == 32 else "")
        )  # fmt: skip
        found[f"i{bits}.trunc_sat_{source}_{sign}"] = f"""
            xor eax, eax; ucomi{s} xmm0, xmm0; jp .done
            {check.format(low=".low", high=".high")}
            {convert}; jmp .done
            .low:; mov {a}, {least}; jmp .done
            .high:; mov {a}, {end - 1}
            .done:; {"mov eax, eax" if bits == 32 else ""}
        """
    return found


def _pattern(name: str, value: int) -> int:
    code = "<f" if name == "f32" else "<d"
    return int.from_bytes(struct.pack(code, value), "little")
