"""The forms of machine instructions: every stencil of one instruction, with other registers."""

import pytest

from asm_libcalls.toy_jit.codegen import templates
from asm_libcalls.toy_jit.codegen.encodings import CONSTANT, NO_INDEX

pytest.importorskip("capstone", reason="pip install capstone, to disassemble")

from instruction_forms import DECODER, INTEGERS, check_registers, form, text

NUMBERS = ((0, 1), (-128, -128), (127, 127), (-129, 128), (0x7FFFFFFF, -0x80000000))


@pytest.mark.parametrize("name", templates.INSTRUCTIONS)
def test_registers(name):
    check_registers(name)


@pytest.mark.parametrize(("offset", "value"), NUMBERS)
def test_numbers(offset, value):
    """The shortest form of a displacement and an immediate has their values."""
    registers = {"to": "rsi", "left": "rdi", "right": "r12", "index": "r9"}
    sizes = {}
    for name, stencil in templates.INSTRUCTIONS.items():
        holes = {hole.symbol for hole in stencil.holes}
        code, _, _ = form(name, registers, offset, value)
        (found,) = DECODER.disasm(code, 0)
        if "offset" in holes:
            sign = "-" if offset < 0 else "+"
            number = hex(abs(offset)) if abs(offset) > 9 else str(abs(offset))
            assert f" {sign} {number}]" in found.op_str if offset else "]" in found.op_str
        if "value" in holes:
            last = found.op_str.rpartition(", ")[2]
            wide = "qword" in found.op_str or found.op_str.startswith("rsi")
            width = 64 if wide else 32
            assert (int(last, 0) - value) % (1 << width) == 0, (name, found.op_str)
        sizes[name] = len(code)
    short = -128 <= value <= 127
    assert sizes["i32.add.const"] == (3 if short else 6)
    assert sizes["i32.add.slot"] == (3 if -128 <= offset <= 127 else 6)


def test_no_index():
    """An address may be the base and a displacement only."""
    registers = {"to": "rsi", "left": "rdi", "right": "rbx", "index": NO_INDEX}
    code, _, _ = form("i64.load", registers, 0x1234, 0)
    assert text(code) == "mov rsi, qword ptr [r14 + 0x1234]"


@pytest.mark.parametrize("name", ["f64.add.memory", "f32.neg", "f64.cmp.memory", "f64.load"])
def test_constants(name):
    """A constant is addressed by the last four bytes, relative to the instruction's end."""
    for register in ("rsi", "r15"):
        registers = {"to": register, "left": "r12", "right": "rax", "index": CONSTANT}
        code, _, _ = form(name, registers, 0, 0)
        found = text(code[:-4] + (0x1234).to_bytes(4, "little"))
        assert found.endswith("ptr [rip + 0x1234]")
        assert f" xmm{INTEGERS.index(register)}, " in found


def test_bytes_of_registers():
    """The lowest byte of rsi and rdi needs a prefix, or another register is meant."""
    for register, byte in (("rsi", "sil"), ("rdi", "dil"), ("rbx", "bl"), ("r9", "r9b")):
        registers = {"to": register, "left": "rax", "right": register, "index": "rax"}
        code, _, _ = form("i32.store8", registers, 0, 0)
        assert text(code) == f"mov byte ptr [r14 + rax], {byte}"
        code, _, _ = form("i32.extend8_s", registers, 0, 0)
        assert text(code).endswith(f", {byte}")
        code, _, _ = form("flag.z", registers, 0, 0)
        assert text(code) == f"sete {byte}"
