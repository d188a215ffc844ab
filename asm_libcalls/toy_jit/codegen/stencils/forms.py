"""Stencils of one instruction, whose registers the compiler chooses.

They are written with the registers 8 to 11 (r8, r8d, r8w and r8b; xmm8) in four roles: 8 is where
the result goes, or the value of a store; 9 is the left operand, 10 the right one, and 11 the index
of an address in memory. ``offset`` is a displacement and ``value`` an immediate. The compiler also
chooses the size of both; see :mod:`asm_libcalls.toy_jit.codegen.encodings`.

The last part of a name says where the right operand is: ``register``, ``slot`` (in the frame),
``memory`` or ``const``.
"""

from __future__ import annotations

from asm_libcalls.toy_jit.codegen.registers import NEGATED
from asm_libcalls.vmcontext import VMMemoryDefinition

_LENGTH = f"[r13 + {VMMemoryDefinition.current_length.offset}]"
MEMORY = "[r14 + r11 * 1 + offset]"
"""The operand in memory 0."""

_LOADS = {
    "i32.load": "mov r8d, dword", "i64.load": "mov r8, qword",
    "f32.load": "movss xmm8, dword", "f64.load": "movsd xmm8, qword",
    "i32.load8_s": "movsx r8d, byte", "i32.load8_u": "movzx r8d, byte",
    "i32.load16_s": "movsx r8d, word", "i32.load16_u": "movzx r8d, word",
    "i64.load8_s": "movsx r8, byte", "i64.load8_u": "movzx r8d, byte",
    "i64.load16_s": "movsx r8, word", "i64.load16_u": "movzx r8d, word",
    "i64.load32_s": "movsxd r8, dword", "i64.load32_u": "mov r8d, dword",
}  # fmt: skip

_STORES = {
    "i32.store": ("dword", "r8d"), "i64.store": ("qword", "r8"),
    "f32.store": ("dword", "xmm8"), "f64.store": ("qword", "xmm8"),
    "i32.store8": ("byte", "r8b"), "i32.store16": ("word", "r8w"),
    "i64.store8": ("byte", "r8b"), "i64.store16": ("word", "r8w"),
    "i64.store32": ("dword", "r8d"),
}  # fmt: skip

_OTHERS = {
    "i32.wrap_i64": "mov r8d, r10d",
    "i64.extend_i32_s": "movsxd r8, r10d",
    "i64.extend32_s": "movsxd r8, r10d",
    "i32.extend8_s": "movsx r8d, r10b",
    "i64.extend8_s": "movsx r8, r10b",
    "i32.extend16_s": "movsx r8d, r10w",
    "i64.extend16_s": "movsx r8, r10w",
    "i32.reinterpret_f32": "movd r8d, xmm10",
    "i64.reinterpret_f64": "movq r8, xmm10",
    "f32.reinterpret_i32": "movd xmm8, r10d",
    "f64.reinterpret_i64": "movq xmm8, r10",
    "flag.extend": "movzx r8d, r10b",
    "global.get.i": "mov r8, qword[r15 + offset]",
    "global.set.i": "mov qword[r15 + offset], r8",
    "global.get.f": "movsd xmm8, qword[r15 + offset]",
    "global.set.f": "movsd qword[r15 + offset], xmm8",
    # The parts of a bounds check.
    "memory.end": "lea rdx, [r10 + offset]",
    "memory.compare": f"cmp r10, {_LENGTH}",
    "memory.compare.const": f"cmp qword{_LENGTH}, value",
}


def forms(features: frozenset[str]) -> dict[str, str]:
    """Return the stencils for a CPU with these features."""
    found = _moves() | _memory() | _OTHERS
    for name, letter, size in (("i32", "d", "dword"), ("i64", "", "qword")):
        found |= _integers(name, letter, size) | _counts(name, letter, features)
    for name, suffix, size in (("f32", "ss", "dword"), ("f64", "sd", "qword")):
        found |= _floats(name, suffix, size, "avx" in features)
    for condition in NEGATED:
        found[f"flag.{condition}"] = f"set{condition} r8b"
        found[f"select.{condition}.register"] = f"cmov{condition} r8, r10"
        found[f"select.{condition}.slot"] = f"cmov{condition} r8, qword[rbp + offset]"
    return found


def _moves() -> dict[str, str]:
    """Return the stencils ``move.TARGET.SOURCE``; "i" and "f" are registers."""
    found = {
        "move.i.i": "mov r8, r10", "move.f.f": "movaps xmm8, xmm10",
        "move.i.const": "mov r8, value",  # sign-extended
        "move.i.short": "mov r8d, value",  # zero-extended
        "move.i.wide": "mov r8, wide",
        "move.f.zero": "xorps xmm8, xmm8",
    }  # fmt: skip
    for place, base in (("slot", "rbp"), ("argument", "rsp")):
        found |= {
            f"move.i.{place}": f"mov r8, qword[{base} + offset]",
            f"move.{place}.i": f"mov qword[{base} + offset], r10",
            f"move.f.{place}": f"movsd xmm8, qword[{base} + offset]",
            f"move.{place}.f": f"movsd qword[{base} + offset], xmm10",
            f"move.{place}.const": f"mov qword[{base} + offset], value",
        }
    return found


def _memory() -> dict[str, str]:
    found = {name: f"{text}{MEMORY}" for name, text in _LOADS.items()}
    for name, (size, register) in _STORES.items():
        found[name] = f"mov {size}{MEMORY}, {register}"
        if register == "xmm8":
            found[name] = f"mov{'ss' if size == 'dword' else 'sd'} {size}{MEMORY}, {register}"
        elif size in ("dword", "qword"):
            found[f"{name}.const"] = f"mov {size}{MEMORY}, value"
        elif size == "byte":
            found[f"{name}.const"] = f"mov byte{MEMORY}, 1"
    return found


def _integers(name: str, letter: str, size: str) -> dict[str, str]:
    to, right = f"r8{letter}", f"r10{letter}"
    slot, memory = f"{size}[rbp + offset]", f"{size}{MEMORY}"
    operands = {"register": right, "slot": slot, "memory": memory, "const": "value"}
    found = {
        f"{name}.{verb}.{place}": f"{verb} {to}, {operand}"
        for verb in ("add", "sub", "and", "or", "xor", "cmp")
        for place, operand in operands.items()
    }
    for place in ("register", "slot", "memory"):
        found[f"{name}.mul.{place}"] = f"imul {to}, {operands[place]}"
    return found | {
        f"{name}.mul.const": f"imul {to}, {right}, value",
        f"{name}.mul.slot.const": f"imul {to}, {slot}, value",
        f"{name}.cmp.slot.const": f"cmp {slot}, value",
        f"{name}.sum.register": f"lea {to}, [r9 + r10 * 1]",
        f"{name}.sum.const": f"lea {to}, [r9 + offset]",
        f"{name}.test": f"test {to}, {to}",
    }


def _counts(name: str, letter: str, features: frozenset[str]) -> dict[str, str]:
    """Return shifts, rotations, and the counting of bits."""
    to, left, right = (f"r{n}{letter}" for n in (8, 9, 10))
    shifts = {"shl": "shl", "shr_s": "sar", "shr_u": "shr", "rotl": "rol", "rotr": "ror"}
    # The count is the last byte. PeachPy has a shorter instruction for a count of 1.
    found = {f"{name}.{verb}.const": f"{shift} {to}, 2" for verb, shift in shifts.items()}
    if "bmi2" in features:
        found[f"{name}.rotr.three"] = f"rorx {to}, {right}, 2"
        for verb in ("shl", "shr_s", "shr_u"):
            found[f"{name}.{verb}.three"] = f"{shifts[verb]}x {to}, {left}, {right}"
    for verb, feature in (("lzcnt", "lzcnt"), ("tzcnt", "bmi"), ("popcnt", "popcnt")):
        if feature in features:
            instruction = {"lzcnt": "clz", "tzcnt": "ctz"}.get(verb, verb)
            found[f"{name}.{instruction}"] = f"{verb} {to}, {right}"
    return found


def _floats(name: str, s: str, size: str, avx: bool) -> dict[str, str]:
    slot, memory = f"{size}[rbp + offset]", f"{size}{MEMORY}"
    found = {}
    for place, operand in (("register", "xmm10"), ("slot", slot), ("memory", memory)):
        found[f"{name}.cmp.{place}"] = f"ucomi{s} xmm8, {operand}"
        for verb in ("add", "sub", "mul", "div"):
            text = f"v{verb}{s} xmm8, xmm9, " if avx else f"{verb}{s} xmm8, "
            found[f"{name}.{verb}.{place}"] = text + operand
    # The operand in memory is a mask of 16 bytes.
    for verb, mnemonic in (("neg", "xorps"), ("abs", "andps")):
        text = f"v{mnemonic} xmm8, xmm9" if avx else f"{mnemonic} xmm8"
        found[f"{name}.{verb}"] = f"{text}, {MEMORY}"
    # With AVX the rest of the target is that of the operand, so its old value does not matter.
    unary = {f"{name}.sqrt": f"sqrt{s}"}
    unary |= {"f32.demote_f64": "cvtsd2ss"} if s == "ss" else {"f64.promote_f32": "cvtss2sd"}
    for instruction, mnemonic in unary.items():
        text = f"v{mnemonic} xmm8, xmm10" if avx else f"{mnemonic} xmm8"
        found[instruction] = f"{text}, xmm10"
    # These keep the rest of the target, which the compiler clears, so that they need not wait.
    for source, register in (("i32_s", "r10d"), ("i32_u", "r10"), ("i64_s", "r10")):
        found[f"{name}.convert_{source}"] = f"cvtsi2{s} xmm8, {register}"
    return found
