"""The forms of a stencil of one instruction, compared with what capstone disassembles."""

import re

import capstone

from asm_libcalls.toy_jit.codegen import templates
from asm_libcalls.toy_jit.codegen.encodings import decode

DECODER = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
INTEGERS = ("rax", "rcx", "rdx", "rbx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r15")
NARROW = {
    "d": {"rax": "eax", "rcx": "ecx", "rdx": "edx", "rbx": "ebx", "rsi": "esi", "rdi": "edi"},
    "w": {"rax": "ax", "rcx": "cx", "rdx": "dx", "rbx": "bx", "rsi": "si", "rdi": "di"},
    "b": {"rax": "al", "rcx": "cl", "rdx": "dl", "rbx": "bl", "rsi": "sil", "rdi": "dil"},
}
ROLES = {"8": "to", "9": "left", "10": "right", "11": "index"}
ROLE = re.compile(r"\b(xmm|r)(8|9|10|11)([dwb]?)\b")


def text(code):
    (found,) = DECODER.disasm(code, 0)
    assert found.size == len(code)
    return f"{found.mnemonic} {found.op_str}"


def named(match, registers):
    """Return the name of the register that replaces one of a stencil, of the same width."""
    kind, number, width = match.groups()
    register = registers[ROLES[number]]
    if kind == "xmm":
        return f"xmm{INTEGERS.index(register)}"
    return NARROW[width].get(register, register + width) if width else register


def form(name, registers, offset, value):
    """Return the bytes of a form with its numbers, as the compiler fills them in."""
    instruction = decode(templates.INSTRUCTIONS[name].code)
    written = text(templates.INSTRUCTIONS[name].code)
    given = [registers[role] for role in ROLES.values()]
    for i, number in enumerate(ROLES):
        if f"xmm{number}" in written:
            given[i] = f"xmm{INTEGERS.index(given[i])}"
    size = 4 if not -128 <= offset <= 127 else 1 if offset else 0
    code, offset_at, offset_format, value_at, value_format = instruction.form(
        tuple(given), size, -128 <= value <= 127
    )
    code = bytearray(code)
    if offset_at:
        offset_format.pack_into(code, offset_at, offset)
    if value_at:
        if value_format.format == "<B":
            is_predicate = written.startswith(("cmp", "vcmp"))  # which is a part of the name
            value = instruction.immediate[0] if is_predicate else value & 0x7F
        value_format.pack_into(code, value_at, value)
    return bytes(code), bool(offset_at), bool(value_at)


def check_registers(name):
    """Check that each form is the instruction of its stencil, with the other registers."""
    stencil = templates.INSTRUCTIONS[name]
    written = text(stencil.code)
    for i in range(len(INTEGERS)):
        registers = {
            role: INTEGERS[(i + 5 * n) % len(INTEGERS)] for n, role in enumerate(ROLES.values())
        }
        code, _, _ = form(name, registers, 0x5EA10000, 0x5EA10000)
        expected = ROLE.sub(lambda match, given=registers: named(match, given), written)
        found = text(code)
        for number in ("0x5ea100015ea10000", "0x5ea10001"):
            expected = expected.replace(number, "0x5ea10000")
        if len(decode(stencil.code).immediate) == 1:
            expected, found = expected.rpartition(", ")[0], found.rpartition(", ")[0]
        assert found == expected, registers
