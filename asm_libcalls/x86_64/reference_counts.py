"""Counting the owners of all externrefs in an array.

The routines take the array in rdi and the number of references in rsi. They clobber rax, rcx, rdx,
rdi, rsi and r8, and need no aligned stack.

``asm_libcalls_count_up``
    One more owner of each reference that is not null.
``asm_libcalls_count_down``
    One owner less of each. If one of them was the last owner of its reference, all counts are as
    before, and CF is set.
``asm_libcalls_count_over``
    One more owner of each, and one less of each reference of as many in rdx, which they are going
    to replace; the arrays may overlap. If one of these loses its last owner, all counts are as
    before, and CF is set.

Four references that are equal are counted together: one after the other, each addition would wait
for the store of the one before. Replacing takes one pass for both arrays, which on Intel's CPUs is
a third faster than two. Prefetching boxes makes it slower: on Zen 4 a copy of 1,000 to 100,000
references in random order took 1.1 to 1.4 times as long. The counts are not atomic: without the GIL
the caller has the lock of all steps.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from asm_libcalls.emitter.image import Routine

COUNT_DOWN = "asm_libcalls_count_down"
COUNT_OVER = "asm_libcalls_count_over"
COUNT_UP = "asm_libcalls_count_up"

_TOGETHER = 4


def routines() -> Iterator[Routine]:
    """Assemble the routines."""
    from asm_libcalls.x86_64.assembler import sequence

    yield sequence(COUNT_UP, _count_up)
    yield sequence(COUNT_DOWN, _count_down)
    yield sequence(COUNT_OVER, _count_over)


def _count_up() -> None:
    from peachpy.x86_64 import RET, rdi

    _each((rdi, _add))
    RET()


def _count_down() -> None:
    from peachpy.x86_64 import LABEL, POP, PUSH, RET, STC, Label, rcx, rdi

    last = Label("last")
    PUSH(rdi)
    _each((rdi, _subtract_unless(last)))
    POP(rcx)
    RET()  # CF is clear, by the end of the loop

    LABEL(last)
    POP(rcx)
    _count_up_back_to(rdi)
    STC()
    RET()


def _count_over() -> None:
    from peachpy.x86_64 import (
        JC, LABEL, MOV, POP, PUSH, RET, SHR, STC, SUB, Label, rcx, rdi, rdx, rsi,
    )  # fmt: skip
    from peachpy.x86_64.registers import rsp

    from asm_libcalls.x86_64.assembler.instructions import CALL_ROUTINE

    last, replaced_last = Label("last"), Label("replaced_last")
    for register in (rsi, rdi, rdx):
        PUSH(register)
    _each((rdi, _add), (rdx, _subtract_unless(last)))
    POP(rdx)
    POP(rdi)
    POP(rsi)
    RET()  # CF is clear, by the end of the loop

    # A reference lost its last owner, but perhaps the rest of the array has it, as where the
    # elements of a table are moved upwards by one. So all are counted up, and then all down.
    LABEL(last)
    MOV(rcx, [rsp])
    _count_up_back_to(rdx)
    SUB(rsi, rdi)  # the bytes of those that have not been counted up
    SHR(rsi, 3)
    CALL_ROUTINE(COUNT_UP)
    MOV(rdi, [rsp])
    MOV(rsi, [rsp + 16])
    CALL_ROUTINE(COUNT_DOWN)
    POP(rdx)
    POP(rdi)
    POP(rsi)
    JC(replaced_last)
    RET()
    LABEL(replaced_last)
    CALL_ROUTINE(COUNT_DOWN)  # each has a count more than before, so none is the last
    STC()
    RET()


def _add(box: Any, by: int) -> None:
    from peachpy.x86_64 import ADD, qword

    ADD(qword[box], by)


def _subtract_unless(last: Any) -> Callable[[Any, int], None]:
    """Return a function that emits a subtraction and a jump to `last` if no owner is left."""

    def subtract(box: Any, by: int) -> None:
        from peachpy.x86_64 import JBE, SUB, qword

        SUB(qword[box], by)
        JBE(last)  # not more than that many owners

    return subtract


def _count_up_back_to(pointer: Any) -> None:
    """Emit: count up each reference from before `pointer` down to rcx, at least one."""
    from peachpy.x86_64 import CMP, JA, JZ, LABEL, LEA, MOV, TEST, Label, rax, rcx

    next_, null = Label("next"), Label("null")
    LABEL(next_)
    LEA(pointer, [pointer - 8])
    MOV(rax, [pointer])
    TEST(rax, rax)
    JZ(null)
    _add(rax, 1)
    LABEL(null)
    CMP(pointer, rcx)
    JA(next_)


def _each(*arrays: tuple[Any, Callable[[Any, int], None]]) -> None:
    """Emit: count each reference of one array or two, given as the pointer and a counting function.

    The first pointer is rdi. Each pointer advances to the end of those that were counted. CF is
    clear at the end.
    """
    from peachpy.x86_64 import (
        ADD, CMP, JB, JMP, JZ, LABEL, LEA, MOV, TEST, Label, rax, rdi, rsi,
    )  # fmt: skip

    together, single, next_single = map(Label, ("together", "single", "next_single"))
    LEA(rsi, [rdi + rsi * 8])  # the end
    LABEL(together)
    LEA(rax, [rdi + 8 * _TOGETHER])
    CMP(rsi, rax)
    JB(single)
    for pointer, count in arrays:
        _four(pointer, count)
    JMP(together)

    LABEL(next_single)
    for pointer, count in arrays:
        null = Label(f"null_single_{pointer}")
        MOV(rax, [pointer])
        ADD(pointer, 8)
        TEST(rax, rax)
        JZ(null)
        count(rax, 1)
        LABEL(null)
    LABEL(single)
    CMP(rdi, rsi)
    JB(next_single)


def _four(pointer: Any, count: Callable[[Any, int], None]) -> None:
    """Emit: count four references, together if they are equal."""
    from peachpy.x86_64 import (
        ADD, CMP, JMP, JNE, JZ, LABEL, MOV, TEST, Label, r8, rax, rcx,
    )  # fmt: skip

    mixed, counted = Label(f"mixed_{pointer}"), Label(f"counted_{pointer}")
    MOV(rax, [pointer])
    MOV(rcx, [pointer + 8])
    MOV(r8, [pointer + 16])
    CMP(rax, rcx)
    JNE(mixed)
    CMP(r8, [pointer + 24])
    JNE(mixed)
    CMP(rax, r8)
    JNE(mixed)
    ADD(pointer, 8 * _TOGETHER)
    TEST(rax, rax)
    JZ(counted)
    count(rax, _TOGETHER)
    JMP(counted)
    LABEL(mixed)
    for i, box in enumerate((rax, rcx, r8, rax)):
        null = Label(f"null_{i}_{pointer}")
        if i == _TOGETHER - 1:
            MOV(box, [pointer])
        ADD(pointer, 8)
        TEST(box, box)
        JZ(null)
        count(box, 1)
        LABEL(null)
    LABEL(counted)
