"""Vector instructions that are one instruction of the CPU, whose registers the compiler chooses.

See ``forms.py``, which has those of numbers.
"""

from __future__ import annotations

from asm_libcalls.toy_jit.codegen.stencils.forms import MEMORY

CPU_LANES = {"i8x16": "b", "i16x8": "w", "i32x4": "d", "i64x2": "q"}
"""By the lanes: the letter that ends the CPU's mnemonics."""

_TWICE = {"b": "w", "w": "d", "d": "q", "q": "dq"}  # the letter of lanes twice as wide

# Predicates of cmpps: a > b is b < a. The CPU's minimum is its second operand if neither is less,
# which is pmin with swapped operands.
_COMPARISONS = {"eq": 0, "lt": 1, "le": 2, "ne": 4, "gt": 1, "ge": 2}
_SWAPPED_VERBS = ("andnot", "pmin", "pmax", "gt", "ge", "lt_s")


def _direct_integers(lanes: str, letter: str) -> dict[str, str]:
    found = {
        f"{lanes}.add": f"padd{letter}", f"{lanes}.sub": f"psub{letter}",
        f"{lanes}.eq": f"pcmpeq{letter}",
        f"vector.unpack_low_{letter}": f"punpckl{letter}{_TWICE[letter]}",
        f"vector.unpack_high_{letter}": f"punpckh{letter}{_TWICE[letter]}",
    }  # fmt: skip
    if letter != "q":
        found |= {f"{lanes}.gt_s": f"pcmpgt{letter}", f"{lanes}.lt_s": f"pcmpgt{letter}"}
        for sign in "su":
            found |= {f"{lanes}.{v}_{sign}": f"p{v}{sign}{letter}" for v in ("min", "max")}
    if letter in "bw":
        found[f"{lanes}.avgr_u"] = f"pavg{letter}"
        for verb in ("add", "sub"):
            found |= {
                f"{lanes}.{verb}_sat_s": f"p{verb}s{letter}",
                f"{lanes}.{verb}_sat_u": f"p{verb}us{letter}",
            }
    return found


def _direct_floats(lanes: str, suffix: str) -> dict[str, str]:
    found = {f"{lanes}.{verb}": verb + suffix for verb in ("add", "sub", "mul", "div")}
    found |= {f"{lanes}.p{verb}": verb + suffix for verb in ("min", "max")}
    return found | {f"{lanes}.{v}": f"cmp{suffix} {p}" for v, p in _COMPARISONS.items()}


DIRECT: dict[str, str] = {
    "v128.and": "pand", "v128.or": "por", "v128.xor": "pxor", "v128.andnot": "pandn",
    "i8x16.narrow_i16x8_s": "packsswb", "i8x16.narrow_i16x8_u": "packuswb",
    "i16x8.narrow_i32x4_s": "packssdw", "i16x8.narrow_i32x4_u": "packusdw",
    "i16x8.mul": "pmullw", "i32x4.mul": "pmulld", "i32x4.dot_i16x8_s": "pmaddwd",
    "vector.shuffle": "pshufb",
    **{name: text for row in CPU_LANES.items() for name, text in _direct_integers(*row).items()},
    **_direct_floats("f32x4", "ps"), **_direct_floats("f64x2", "pd"),
}  # fmt: skip
"""By name: the CPU's instruction. Some are not of WebAssembly, but parts of shuffles.

A number is the immediate, which the compiler writes too."""

SWAPPED = frozenset(name for name in DIRECT if name.partition(".")[2] in _SWAPPED_VERBS)
"""Instructions whose operands the CPU takes in the other order."""

COMMUTATIVE = frozenset(
    name for name in DIRECT
    if name.partition(".")[2] in ("and", "or", "xor", "mul", "eq")
    or (name[0] == "i" and name.partition(".")[2].startswith(("add", "min", "max", "avgr", "dot")))
)  # fmt: skip
"""Instructions whose operands may be swapped. (Of two NaNs, mul then returns the other one.)"""


_OTHERS = {
    "move.register": "movaps xmm8, xmm10",
    "move.slot": "movups xmm8, [rbp + offset]",
    "move.argument": "movups xmm8, [rsp + offset]",
    "move.to.slot": "movups [rbp + offset], xmm8",
    "move.to.argument": "movups [rsp + offset], xmm8",
    "move.zero": "pxor xmm10, xmm10",
    "move.ones": "pcmpeqd xmm10, xmm10",
    "vector.shuffle_d": "pshufd xmm8, xmm10, 0",
    "v128.load": f"movups xmm8, {MEMORY}",
    "v128.load8x8_s": f"pmovsxbw xmm8, qword{MEMORY}",
    "v128.load8x8_u": f"pmovzxbw xmm8, qword{MEMORY}",
    "v128.load16x4_s": f"pmovsxwd xmm8, qword{MEMORY}",
    "v128.load16x4_u": f"pmovzxwd xmm8, qword{MEMORY}",
    "v128.load32x2_s": f"pmovsxdq xmm8, qword{MEMORY}",
    "v128.load32x2_u": f"pmovzxdq xmm8, qword{MEMORY}",
    "v128.load64_splat": f"movddup xmm8, qword{MEMORY}",
    "v128.load32_zero": f"movd xmm8, dword{MEMORY}",
    "v128.load64_zero": f"movq xmm8, qword{MEMORY}",
    "v128.store": f"movups {MEMORY}, xmm8",
}


def direct(avx: bool) -> dict[str, str]:
    """Return the stencils; with AVX they have three operands, and variants with a slot."""
    found = {**_OTHERS}
    if avx:
        found["v128.load32_splat"] = f"vbroadcastss xmm8, dword{MEMORY}"
    for name, instruction in DIRECT.items():
        mnemonic, _, predicate = instruction.partition(" ")
        tail = f", {predicate}" if predicate else ""
        if avx:
            found[name] = f"v{mnemonic} xmm8, xmm9, xmm10{tail}"
            found[name + ".vslot"] = f"v{mnemonic} xmm8, xmm9, [rbp + offset]{tail}"
        else:
            found[name] = f"{mnemonic} xmm8, xmm10{tail}"
    for letter, lanes in (("w", "i16x8"), ("d", "i32x4"), ("q", "i64x2")):
        for verb, shift in (("shl", "psll"), ("shr_s", "psra"), ("shr_u", "psrl")):
            if (verb, letter) != ("shr_s", "q"):
                registers = "xmm8, xmm10" if avx else "xmm10"
                found[f"{lanes}.{verb}.const"] = (
                    f"{'v' if avx else ''}{shift}{letter} {registers}, 0"
                )
    return found
