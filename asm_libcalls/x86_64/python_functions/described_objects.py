"""Routines that read objects of the types in the table of ``readable_types.py``.

They are called as those of ``unboxing.py``, with an object in rax.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from peachpy.x86_64 import (
    ADD, AND, BT, CLC, CMP, JC, JE, JMP, JNC, JNE, JNS, JNZ, LABEL, MOV, POP, PUSH, RET, SAR, SHL,
    SHR, STC, TEST, Label, cl, edx, r10, r10b, r10d, rax, rcx, rdx,
)  # fmt: skip

from asm_libcalls.emitter.image import Routine
from asm_libcalls.x86_64.python_functions import readable_types
from asm_libcalls.x86_64.trampolines import READABLE_TYPES
from asm_libcalls.x86_64.python_functions.object_layouts import INTEGER_LAYOUTS, IntegerLayout
from asm_libcalls.x86_64.assembler import sequence
from asm_libcalls.x86_64.assembler.instructions import CALL_ROUTINE, LOAD_SLOT


def routines() -> Iterator[Routine]:
    """Assemble the routines, for each layout."""
    for layout in INTEGER_LAYOUTS.values():
        yield sequence(f"find_type_{layout.name}", partial(_find_type, layout))
        yield sequence(f"read_integer_{layout.name}", partial(_read_integer, layout))


def refuse_at(label: Any) -> None:
    """Define the label at which CF is set and the routine returns."""
    LABEL(label)
    STC()
    RET()


def _find_type(layout: IntegerLayout) -> None:
    """Return the description of the object's type in r10; CF is set if there is none.

    Keeps rax.
    """
    following, found = Label("following"), Label("found")
    PUSH(rcx)
    PUSH(rdx)
    MOV(r10, [rax + layout.object_type])
    LOAD_SLOT(rcx, READABLE_TYPES)
    MOV(edx, r10d)
    AND(edx, readable_types.PLACE_MASK)
    ADD(rcx, rdx)
    LABEL(following)
    MOV(rdx, [rcx])
    CMP(rdx, r10)
    JE(found)
    ADD(rcx, readable_types.ENTRY_SIZE)
    TEST(rdx, rdx)
    JNZ(following)  # the last entry is always empty
    POP(rdx)
    POP(rcx)
    STC()
    RET()
    LABEL(found)
    MOV(r10, [rcx + 8])
    POP(rdx)
    POP(rcx)
    CLC()
    RET()


def _read_integer(layout: IntegerLayout) -> None:
    """Read an integer whose type is described; r10 has the description.

    Keeps rax if it refuses the object.
    """
    no = Label("no")
    CALL_ROUTINE(f"find_type_{layout.name}")
    JC(no)
    CMP(r10b, readable_types.INTEGER)
    JNE(no)
    shift_as_described(layout)
    CLC()
    RET()
    refuse_at(no)


def read_signed(layout: IntegerLayout, no: Any) -> None:
    """Read an integer that int64 can hold, or jump."""
    is_signed = Label("is_signed")
    CALL_ROUTINE(f"read_integer_{layout.name}")
    JC(no)
    TEST(rax, rax)
    JNS(is_signed)
    BT(r10, readable_types.SIGNED_BIT)
    JNC(no)
    CLC()
    LABEL(is_signed)


def shift_as_described(layout: IntegerLayout) -> None:
    """Load the value after the object's header, and extend it to 64 bits."""
    unsigned, done = Label("without_sign"), Label("extended")
    PUSH(rcx)
    MOV(rcx, r10)
    SHR(rcx, readable_types.SHIFT_SHIFT)  # cl: 64 less the bits of the value
    MOV(rax, [rax + layout.value])
    SHL(rax, cl)
    BT(r10, readable_types.SIGNED_BIT)
    JNC(unsigned)
    SAR(rax, cl)
    JMP(done)
    LABEL(unsigned)
    SHR(rax, cl)
    LABEL(done)
    POP(rcx)
