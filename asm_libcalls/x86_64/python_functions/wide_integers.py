"""The routine that reads an int of up to 128 bits, for a v128 of WebAssembly.

It is called with an object in rax, where no argument register is in use. It returns the low 64 bits
in rax and the high ones in rdx, and clears CF; or it sets CF if the object is no int or does not
fit. Reading runs no Python code.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from peachpy.x86_64 import (
    ADC, ADD, CLC, CMP, CMOVS, DEC, JA, JAE, JE, JMP, JNE, JNS, JNZ, JZ, LABEL, MOV, NEG, NOT, OR,
    RET, SHL, SHR, TEST, XOR, Label, byte, eax, edx, r8, r9, r10, r10d, rax, rcx, rdx,
)  # fmt: skip

from asm_libcalls.emitter.image import Routine
from asm_libcalls.x86_64.assembler import sequence
from asm_libcalls.x86_64.assembler.instructions import LOAD_SLOT
from asm_libcalls.x86_64.python_functions import readable_types
from asm_libcalls.x86_64.python_functions.described_objects import refuse_at
from asm_libcalls.x86_64.python_functions.object_layouts import INTEGER_LAYOUTS, IntegerLayout

_DIGIT = 30  # bits
_MOST_DIGITS = 5
_LAST = 128 - _DIGIT * (_MOST_DIGITS - 1)  # bits of the fifth digit


def routines() -> Iterator[Routine]:
    """Assemble the routine, for each layout."""
    for layout in INTEGER_LAYOUTS.values():
        yield sequence(f"unbox_128_{layout.name}", partial(_unbox_128, layout))


def _unbox_128(layout: IntegerLayout) -> None:
    no, is_int, next_digit, end = map(Label, ("no", "is_int", "next_digit", "end"))
    fits, negative = Label("fits"), Label("negative")
    MOV(r10, [rax + layout.object_type])
    LOAD_SLOT(r9, "PyLong_Type")
    CMP(r10, r9)
    JE(is_int)
    TEST(byte[r10 + layout.type_flags + 3], readable_types.INT_SUBCLASS >> 24)
    JZ(no)
    LABEL(is_int)
    MOV(r8, rax)
    MOV(rcx, [r8 + layout.size])
    if layout.tagged:
        SHR(rcx, 3)
    else:
        NEG(rcx)
        CMOVS(rcx, [r8 + layout.size])
    CMP(rcx, _MOST_DIGITS)
    JA(no)
    JNE(fits)
    MOV(r10d, [r8 + layout.digits + 4 * (_MOST_DIGITS - 1)])
    CMP(r10d, 1 << _LAST)
    JAE(no)
    LABEL(fits)
    XOR(eax, eax)
    XOR(edx, edx)
    LABEL(next_digit)
    TEST(rcx, rcx)
    JZ(end)
    DEC(rcx)
    MOV(r9, rax)
    SHR(r9, 64 - _DIGIT)
    SHL(rdx, _DIGIT)
    OR(rdx, r9)
    SHL(rax, _DIGIT)
    MOV(r10d, [r8 + rcx * 4 + layout.digits])
    OR(rax, r10)
    JMP(next_digit)
    LABEL(end)
    offset, mask = layout.sign
    TEST(byte[r8 + offset], mask)
    JNZ(negative)
    RET()  # TEST cleared CF
    LABEL(negative)
    NOT(rax)
    NOT(rdx)
    ADD(rax, 1)
    ADC(rdx, 0)
    TEST(rdx, rdx)
    JNS(no)  # below -2**127
    CLC()
    RET()
    refuse_at(no)
