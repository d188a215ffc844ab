"""Encodings: the forms of a machine instruction that the compiler chooses when it copies it.

A stencil of one instruction may be copied with other registers, and with the shortest encoding of
its displacement and immediate. It is written with the registers 8 to 11, which stand for the roles
``to``, ``left``, ``right`` and ``index``. ``decode`` takes it apart once; ``Instruction.form``
puts it together again, for each choice of registers and sizes once.

Source: Intel SDM volume 2, 2.1.5 (ModRM, SIB), 2.2.1 (REX) and 2.3.5 (VEX).
"""

from __future__ import annotations

from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    # A form of an instruction: its bytes, and the offsets and formats of its displacement and its
    # immediate. An offset of 0 means that it has no such number.
    Form = tuple[bytes, int, Struct, int, Struct]

NO_INDEX = "none"
"""In the role ``index``: the address has no index."""

CONSTANT = "constant"
"""In the role ``index``: the operand is a constant behind the code, relative to the instruction's
end. Its distance is the displacement, the last four bytes."""

_NUMBERS = {
    "rax": 0, "rcx": 1, "rdx": 2, "rbx": 3, "rsp": 4, "rbp": 5, "rsi": 6, "rdi": 7, NO_INDEX: 4,
    CONSTANT: 4,
}  # fmt: skip
_ROLES = {8: 0, 9: 1, 10: 2, 11: 3}
_BYTE, _UNSIGNED_BYTE, _LONG, _QUAD = Struct("<b"), Struct("<B"), Struct("<i"), Struct("<q")
_SHORT_IMMEDIATE = {0x81: 0x83, 0x69: 0x6B}
"""Opcodes with an immediate of 32 bits, and the same with a sign-extended byte."""

_MODRM_OF_BYTES = frozenset(
    (b"\x88", b"\x8a", b"\x0f\xb6", b"\x0f\xbe", *(bytes([0x0F, 0x90 | c]) for c in range(16)))
)
"""Opcodes with a byte register: without REX, 4 to 7 would be ah to bh."""


class Instruction:
    """A machine instruction, taken apart. A register is its number, or None if there is none."""

    def __init__(self) -> None:
        self.prefix = b""
        self.vex: tuple[int, int] | None = None  # the map of opcodes, and L and pp
        self.wide = 0
        self.opcode = b""
        self.reg = self.vvvv = self.rm = 0
        self.in_memory = False
        self.scale = 0
        self.index: int | None = None
        self.opcode_register = False
        self.fixed: bytes | None = None  # a displacement that is no hole
        self.immediate = b""

    def form(self, registers: tuple[str, ...], displacement: int, short: bool) -> Form:
        """Encode the instruction with registers for its four roles.

        The displacement has 0, 1 or 4 bytes. The immediate is `short` if it fits a byte.
        """
        reg, vvvv, rm = (self._number(n, registers) for n in (self.reg, self.vvvv, self.rm))
        index = None if self.index is None else self._number(self.index, registers)
        if index == 4:
            index = None
        in_code = registers[3] == CONSTANT
        if in_code:
            rm = 5
        opcode, immediate = self.opcode, self.immediate
        if short and len(immediate) == 4 and opcode[-1] in _SHORT_IMMEDIATE:
            opcode, immediate = bytes([_SHORT_IMMEDIATE[opcode[-1]]]), immediate[:1]
        if self.opcode_register:
            code = self._prefixes(opcode, 0, 0, rm, vvvv)
            code += bytes([opcode[0] | rm & 7])
            size = 0
        else:
            code = self._prefixes(opcode, reg, index or 0, rm, vvvv) + opcode
            if in_code:
                operand, size = bytes([(reg & 7) << 3 | 5]), 4
            else:
                operand, size = self._operand(reg, rm, index, displacement)
            code += operand
        displacement_at = len(code) if size else 0
        code += bytes(size)
        immediate_at = len(code) if immediate else 0
        code += immediate
        kinds = {0: _BYTE, 1: _BYTE, 4: _LONG, 8: _QUAD}
        kind = kinds[len(immediate)]
        if len(self.immediate) == 1:  # a shift count, or another byte without a sign
            kind = _UNSIGNED_BYTE
        return code, displacement_at, kinds[size], immediate_at, kind

    def _number(self, number: int, registers: tuple[str, ...]) -> int:
        role = _ROLES.get(number)
        if role is None:
            return number
        register = registers[role]
        # of `xmm5`, `v5` and `r13` the digits
        return _NUMBERS[register] if register in _NUMBERS else int(register.strip("rxmv"))

    def _prefixes(self, opcode: bytes, reg: int, index: int, rm: int, vvvv: int) -> bytes:
        r, x, b = reg >> 3, index >> 3, rm >> 3
        if self.vex:
            map_, rest = self.vex
            last = self.wide << 7 | (~vvvv & 15) << 3 | rest
            if map_ == 1 and not (x or b or self.wide):
                return bytes([0xC5, (1 - r) << 7 | last])
            return bytes([0xC4, (1 - r) << 7 | (1 - x) << 6 | (1 - b) << 5 | map_, last])
        rex = 0x40 | self.wide << 3 | r << 2 | x << 1 | b
        register_of_byte = rm if opcode[:1] == b"\x0f" else reg
        if opcode[:1] == b"\x0f" and self.in_memory:
            register_of_byte = 0
        needed = opcode in _MODRM_OF_BYTES and 4 <= register_of_byte < 8
        return self.prefix + (bytes([rex]) if rex != 0x40 or needed else b"")

    def _operand(
        self, reg: int, rm: int, index: int | None, displacement: int
    ) -> tuple[bytes, int]:
        """Return the ModRM and SIB bytes, and the size of the displacement."""
        if not self.in_memory:
            return bytes([0xC0 | (reg & 7) << 3 | rm & 7]), 0
        size = displacement if self.fixed is None else len(self.fixed)
        if not size and rm & 7 == 5:  # without a displacement this means another address
            size = 1
        modrm = {0: 0, 1: 0x40, 4: 0x80}[size] | (reg & 7) << 3
        if index is None and rm & 7 != 4:
            operand = bytes([modrm | rm & 7])
        else:
            in_sib = 4 if index is None else index & 7
            operand = bytes([modrm | 4, self.scale << 6 | in_sib << 3 | rm & 7])
        return (operand, size) if self.fixed is None else (operand + self.fixed, 0)


def decode(code: bytes) -> Instruction:
    """Take one instruction apart.

    It has a ModRM byte, or is a ``mov`` of an immediate to a register, and has no address relative
    to the instruction pointer.
    """
    it = Instruction()
    at = 0
    while code[at] in (0x66, 0xF2, 0xF3):
        at += 1
    it.prefix = code[:at]
    r = x = b = 0
    if code[at] in (0xC4, 0xC5):
        last = code[at + 1]
        r, map_ = 1 - (last >> 7), 1
        if code[at] == 0xC4:
            x, b, map_ = 1 - (last >> 6 & 1), 1 - (last >> 5 & 1), last & 31
            at += 1
            last = code[at + 1]
            it.wide = last >> 7
        it.vvvv = ~last >> 3 & 15
        it.vex = map_, last & 7
        at += 2
        it.opcode = code[at : at + 1]
        at += 1
    else:
        if code[at] & 0xF0 == 0x40:
            it.wide, r, x, b = (code[at] >> bit & 1 for bit in (3, 2, 1, 0))
            at += 1
        start = at
        at += 1
        if code[start] == 0x0F:
            at += 2 if code[at] in (0x38, 0x3A) else 1
        it.opcode = code[start:at]
        if code[start] & 0xF8 == 0xB8:
            it.opcode_register = True
            it.rm = code[start] & 7 | b << 3
            it.opcode = b"\xb8"
            it.immediate = code[at:]
            return it
    modrm = code[at]
    at += 1
    mod, it.reg, it.rm = modrm >> 6, modrm >> 3 & 7 | r << 3, modrm & 7 | b << 3
    it.in_memory = mod != 3
    if it.in_memory:
        if modrm & 7 == 4:
            sib = code[at]
            at += 1
            it.scale, it.rm = sib >> 6, sib & 7 | b << 3
            index = sib >> 3 & 7 | x << 3
            it.index = None if index == 4 else index
        assert mod or it.rm & 7 != 5, "relative to the instruction pointer"
        size = (0, 1, 4)[mod]
        it.fixed = None if size == 4 else code[at : at + size]
        at += size
    it.immediate = code[at:]
    return it
