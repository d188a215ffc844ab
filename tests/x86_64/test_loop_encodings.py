"""The inner loops' bytes against a disassembler: each instruction is the intended one.

PeachPy's encodings have mistakes here and there, most of all in AVX-512. So every instruction of
every loop, for each instruction set, is decoded by capstone (5.0 when this was written) and
compared with PeachPy's instruction: mnemonic, operands, masks, rounding, and the target of a
branch.
"""

import re

import capstone
import pytest
from inner_loops import LEVELS
from peachpy.x86_64.instructions import BranchInstruction
from peachpy.x86_64.registers import GeneralPurposeRegister64 as Register64
from peachpy.x86_64.registers import MaskedRegister, Register

from asm_libcalls.x86_64 import assembler, ufunc_loops

DECODER = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)

# One instruction with two names; the second one is capstone's.
SYNONYMS = {"jz": "je", "jnz": "jne", "jnc": "jae"}
PREDICATES = {("vpcmpuq", "1"): "vpcmpltuq", ("vpcmpuq", "5"): "vpcmpnltuq"}


def written(operand):
    """Return an operand of PeachPy's as capstone would write it."""
    if isinstance(operand, MaskedRegister):
        mask = operand.mask
        text = str(operand.register)
        if mask.mask_register.physical_id:  # k0 stands for no mask
            text += f"{{{mask.mask_register}}}"
        return text + ("{z}" if mask.is_zeroing else "")
    if isinstance(operand, Register) or not hasattr(operand, "address"):
        return str(operand)
    text = f"[{operand.address}]"
    if operand.mask is not None:
        text += f"{{{operand.mask.mask_register}}}"
    return text


def normal(text):
    """Write operands in one way: no sizes, spaces or scale of 1, numbers in decimal."""
    text = re.sub(r"\b\w+ ptr \[", "[", text.lower())
    text = re.sub(r"\b(byte|word|dword|qword) ?\[", "[", text)
    text = re.sub(r"-?\b(0x[0-9a-f]+|\d+)\b", lambda m: str(int(m[0], 0) % 2**64), text)
    return re.sub(r"\s+|\*1(?=\D)", "", text)


def meant(instruction):
    mnemonic = instruction.name.lower()
    operands = [normal(written(operand)) for operand in instruction.operands]
    mnemonic = SYNONYMS.get(mnemonic, mnemonic)
    if mnemonic == "mov" and operands[1].isdigit():
        if int(operands[1]) >= 2**32 and isinstance(instruction.operands[0], Register64):
            mnemonic = "movabs"
        elif not isinstance(instruction.operands[0], Register64):
            operands[1] = str(int(operands[1]) % 2**32)
    if operands and (mnemonic, operands[-1]) in PREDICATES:
        mnemonic = PREDICATES[mnemonic, operands.pop()]
    return mnemonic, operands


@pytest.fixture
def assembled(monkeypatch):
    """Assemble a level's loops, and keep the instructions of each routine."""

    def assemble(level):
        kept = []
        lay_out = assembler._lay_out

        def keep(instructions):
            kept.append(list(instructions))
            return lay_out(instructions)

        monkeypatch.setattr(assembler, "_lay_out", keep)
        routines = list(ufunc_loops.routines(LEVELS[level]))
        return list(zip(routines, kept, strict=True))

    return assemble


@pytest.mark.parametrize("level", LEVELS)
def test_every_instruction_is_the_one_that_was_meant(level, assembled):
    wrong = []
    for routine, instructions in assembled(level):
        decoded = list(DECODER.disasm(routine.code, 0))
        real = [i for i in instructions if i.bytecode]
        assert [i.size for i in decoded] == [len(i.bytecode) for i in real], routine.name
        labels = {name.partition(".")[2]: at for name, at in routine.labels.items()}
        for instruction, found in zip(real, decoded, strict=True):
            mnemonic, operands = meant(instruction)
            if isinstance(instruction, BranchInstruction) and instruction.label_name:
                operands = [str(labels[".".join(map(str, instruction.label_name))])]
            text = normal(found.op_str).lstrip("+")
            if (found.mnemonic, text) != (mnemonic, ",".join(operands)):
                wrong.append(
                    f"{routine.name}: {instruction} became {found.mnemonic} {found.op_str}"
                )
    assert wrong == []


@pytest.mark.parametrize("level", LEVELS)
def test_loops_leave_the_callers_registers_and_the_stack_alone(level, assembled):
    """Callee-saved registers are written only where they are saved; rsp, rbp and the heap never."""
    for routine, _ in assembled(level):
        decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        decoder.detail = True
        saved = set()
        for instruction in decoder.disasm(routine.code, 0):
            _, changed = instruction.regs_access()
            names = {instruction.reg_name(register) for register in changed}
            assert not names & {"rsp", "rbp"} - (
                {"rsp"} if instruction.mnemonic == "ret" else set()
            )
            match = re.fullmatch(r"qword ptr \[rsp - 0x\w+\], (\w+)", instruction.op_str)
            if match:
                saved.add(match[1])
            for register in names & {"rbx", "r12", "r13", "r14", "r15"}:
                assert register in saved, (routine.name, instruction.op_str)
            assert instruction.mnemonic not in ("call", "push", "pop")


def test_levels_differ():
    """Each level really is other code: its widest registers show."""
    widest = {}
    for level in LEVELS:
        names = {
            register
            for routine in ufunc_loops.routines(LEVELS[level])
            for instruction in DECODER.disasm(routine.code, 0)
            for register in re.findall(r"[xyz]mm", instruction.op_str)
        }
        widest[level] = max(names)
    assert widest == {
        "baseline": "xmm",
        "sse4_1": "xmm",
        "avx": "ymm",
        "avx2": "ymm",
        "avx512": "zmm",
        "ice_lake": "zmm",
    }


@pytest.mark.parametrize("level", LEVELS)
def test_nothing_newer_than_the_level_is_used(level):
    """By capstone's groups of instructions, which name the extension that brought each one.

    ``novlx`` and the like are how its tables tell the older of two encodings; and it counts
    VPTESTNMQ to ``cdi``, where the manual says AVX512F.
    """
    allowed = {
        "baseline": set(),
        "sse4_1": {"sse41"},
        "avx": {"sse41", "avx"},
        "avx2": {"sse41", "avx", "avx2", "bmi2"},
        "avx512": {"sse41", "avx", "avx2", "bmi2", "avx512", "dqi", "vlx", "cdi"},
        "ice_lake": {"sse41", "avx", "avx2", "bmi2", "avx512", "dqi", "vlx", "cdi", "ifma"},
    }[level] | {
        "sse1",
        "sse2",
        "mode64",
        "jump",
        "ret",
        "branch_relative",
        "novlx",
        "not64bitmode",
        "cmov",
    }
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    decoder.detail = True
    for routine in ufunc_loops.routines(LEVELS[level]):
        for instruction in decoder.disasm(routine.code, 0):
            groups = {instruction.group_name(group) for group in instruction.groups}
            assert groups <= allowed, f"{routine.name}: {instruction.mnemonic}: {groups - allowed}"
