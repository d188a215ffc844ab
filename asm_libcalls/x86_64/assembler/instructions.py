"""Instructions that PeachPy lacks, as subclasses of PeachPy's ``Instruction``.

They are of two kinds: unknown instructions (``rep movsb``, the x87 control word, conversions with a
rounding mode of their own), and references to a symbol of the image, whose four displacement bytes
the linker of the image fills in. A reference is always relative to the instruction pointer, so code
is position-independent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import peachpy.stream
from peachpy.x86_64.encoding import modrm_sib_disp, optional_rex
from peachpy.x86_64.generic import RET
from peachpy.x86_64.instructions import Instruction
from peachpy.x86_64.operand import check_operand
from peachpy.x86_64.registers import GeneralPurposeRegister64, XMMRegister, rax, rcx, rdi, rsi

_GENERAL_PURPOSE_64 = 0xF  # PeachPy's mask of a whole 64-bit register
_AL = 0x1


def _emit(instruction: Instruction, encode: Callable[[Any], bytearray]) -> None:
    instruction.encodings.append((0, encode))
    if peachpy.stream.active_stream is not None:
        peachpy.stream.active_stream.add_instruction(instruction)


class REP_MOVSB(Instruction):
    """``rep movsb``: copy rcx bytes from [rsi] to [rdi], upwards while DF is clear."""

    code = b"\xf3\xa4"
    registers: tuple[Any, ...] = (rdi, rsi, rcx)  # read and changed
    rax_mask = 0  # the part of rax that is read

    def __init__(self) -> None:
        super().__init__(type(self).__name__.replace("_", " "))
        self._implicit_out_regs = {r.physical_id: _GENERAL_PURPOSE_64 for r in self.registers}
        self._implicit_in_regs = {**self._implicit_out_regs}
        if self.rax_mask:
            self._implicit_in_regs[rax.physical_id] = self.rax_mask
        _emit(self, lambda op: bytearray(self.code))


class REP_STOSB(REP_MOVSB):
    """``rep stosb``: store al to rcx bytes at [rdi], upwards while DF is clear."""

    code = b"\xf3\xaa"
    registers = (rdi, rcx)
    rax_mask = _AL


class REP_STOSQ(REP_STOSB):
    """``rep stosq``: store rax to rcx words of 8 bytes at [rdi], upwards while DF is clear."""

    code = b"\xf3\x48\xab"
    rax_mask = _GENERAL_PURPOSE_64


class LOCK(Instruction):
    """``lock``: a prefix that makes the next instruction, on memory, atomic."""

    def __init__(self) -> None:
        super().__init__("LOCK")
        _emit(self, lambda op: bytearray([0xF0]))


class LOAD_THREAD_POINTER(Instruction):
    """``mov r64, fs:[0]``: load the thread pointer, which differs in each thread of a process."""

    def __init__(self, register: GeneralPurposeRegister64) -> None:
        super().__init__("LOAD_THREAD_POINTER")
        self.operands = (register,)
        self.in_regs = (False,)
        self.out_regs = (True,)
        self.out_operands = (True,)
        _emit(
            self,
            lambda op: bytearray(
                [0x64, 0x48 | op[0].hcode << 2, 0x8B, op[0].lcode << 3 | 4, 0x25, 0, 0, 0, 0]
            ),
        )


class _ControlWord(Instruction):
    def __init__(self, name: str, prefix: bytes, extension: int, operand: Any, reads: bool) -> None:
        super().__init__(name)
        self.operands = (check_operand(operand),)
        self.in_regs = (True,)
        self.out_regs = (False,)
        self.out_operands = (not reads,)
        _emit(
            self,
            lambda op: (
                optional_rex(0, op[0].address) + prefix + modrm_sib_disp(extension, op[0].address)
            ),
        )


class FNSTCW(_ControlWord):
    """``fnstcw m16``: store the x87 control word."""

    def __init__(self, operand: Any) -> None:
        super().__init__("FNSTCW", b"\xd9", 7, operand, reads=False)


class FLDCW(_ControlWord):
    """``fldcw m16``: load the x87 control word."""

    def __init__(self, operand: Any) -> None:
        super().__init__("FLDCW", b"\xd9", 5, operand, reads=True)


class CONVERT_TO_NEAREST(Instruction):
    """``vcvtsi2sd xmm, xmm, r64, {rn-sae}``, and for f32 and unsigned integers: needs AVX512F.

    It rounds to nearest, ties to even, whatever MXCSR says, and raises no exception. The upper part
    of the register stays. (PeachPy's own instructions refuse the operand ``{rn-sae}``.)
    """

    def __init__(
        self, register: XMMRegister, integer: GeneralPurposeRegister64, signed: bool, double: bool
    ) -> None:
        super().__init__("VCVTSI2SD" if signed else "VCVTUSI2SD")
        self.operands = (register, integer)
        self.in_regs = (True, True)
        self.out_regs = (True, False)
        self.out_operands = (True, False)
        prefix, opcode = 3 if double else 2, 0x2A if signed else 0x7B
        # EVEX for registers below 16, with W, and with b, which takes the rounding mode from L'L.
        _emit(
            self,
            lambda op: bytearray(
                [
                    0x62,
                    0xF1 ^ op[0].hcode << 7 ^ op[1].hcode << 5,
                    0xFC ^ op[0].code << 3 | prefix,
                    0x18,
                    opcode,
                    0xC0 | op[0].lcode << 3 | op[1].lcode,
                ]
            ),
        )


class _Reference:
    """Mixin: an instruction whose last four bytes are a displacement to `symbol`."""

    symbol: str
    is_slot: bool


class LOAD_SLOT(Instruction, _Reference):
    """``mov r64, [rip + slot]``: load eight bytes of the image's data."""

    opcode = 0x8B
    is_slot = True

    def __init__(self, register: GeneralPurposeRegister64, symbol: str) -> None:
        super().__init__(type(self).__name__)
        self.operands = (register,)
        self.in_regs = (False,)
        self.out_regs = (True,)
        self.out_operands = (True,)
        self.symbol = symbol
        _emit(
            self,
            lambda op: bytearray(
                [0x48 | op[0].hcode << 2, self.opcode, op[0].lcode << 3 | 5, 0, 0, 0, 0]
            ),
        )


class LOAD_ADDRESS(LOAD_SLOT):
    """``lea r64, [rip + routine]``: the address of a routine of the image."""

    opcode = 0x8D
    is_slot = False


class LOAD_SLOT_ADDRESS(LOAD_SLOT):
    """``lea r64, [rip + slot]``: the address of eight bytes of the image's data."""

    opcode = 0x8D


class EXCHANGE_SLOT(LOAD_SLOT):
    """``xchg r64, [rip + slot]``: exchange eight bytes of the image's data, atomically."""

    opcode = 0x87

    def __init__(self, register: GeneralPurposeRegister64, symbol: str) -> None:
        super().__init__(register, symbol)
        self.in_regs = (True,)


class CALL_SLOT(Instruction, _Reference):
    """``call [rip + slot]``: call the C function whose address the slot holds."""

    opcode: tuple[int, ...] = (0xFF, 0x15)
    is_slot = True

    def __init__(self, symbol: str) -> None:
        super().__init__(type(self).__name__)
        self.symbol = symbol
        _emit(self, lambda op: bytearray([*self.opcode, 0, 0, 0, 0]))


class CALL_ROUTINE(CALL_SLOT):
    """``call routine``: call another routine of the image, or a label of one."""

    opcode = (0xE8,)
    is_slot = False


class JUMP_IF(Instruction, _Reference):
    """``jcc routine``: jump to another routine, or another stencil, if a condition holds."""

    is_slot = False
    conditions: ClassVar[dict[str, int]] = {
        name: code
        for code, name in enumerate("o no c nc z nz be a s ns p np l ge le g".split())  # noqa: SIM905
    }
    """Intel's condition codes, in the order of their encoding."""

    def __init__(self, condition: str, symbol: str) -> None:
        super().__init__(f"JUMP_IF_{condition}")
        self.symbol = symbol
        second = 0x80 | self.conditions[condition]
        _emit(self, lambda op: bytearray([0x0F, second, 0, 0, 0, 0]))


# A subclass of RET, because PeachPy ends a basic block there: a tail jump leaves the function too.
class TAIL_JUMP(RET, _Reference):
    """``jmp routine``: jump to another routine of the image."""

    bytecodes: tuple[int, ...] = (0xE9, 0, 0, 0, 0)
    is_slot = False

    def __init__(self, symbol: str) -> None:
        with peachpy.stream.NullStream():
            super().__init__()
        self.name = type(self).__name__
        self.symbol = symbol
        self.encodings.clear()
        _emit(self, lambda op: bytearray(self.bytecodes))


class TAIL_JUMP_SLOT(TAIL_JUMP):
    """``jmp [rip + slot]``: jump to the C function whose address the slot holds."""

    bytecodes = (0xFF, 0x25, 0, 0, 0, 0)
    is_slot = True
