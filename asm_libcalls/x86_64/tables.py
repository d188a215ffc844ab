"""The table libcalls, for calls that destroy no object and do not need Python otherwise.

All bounds are checked first, then the owners of references are counted, then the elements are
written. A table or segment of functions keeps alive the instances that have them. A number in
:class:`~asm_libcalls.vmcontext.VMTableState` stands for their set, and equal numbers mean equal
sets. If another instance may have to be kept, the libcall leaves for Python.

Source: WebAssembly 2.0, 4.4.6 (table instructions); ``wasmtime_runtime::libcalls`` 0.22.
"""

from __future__ import annotations

import ctypes

from asm_libcalls.vmcontext import (
    VMElementSegment,
    VMExternData,
    VMTableDefinition,
    VMTableState,
)
from asm_libcalls.x86_64.leaving import Body, header

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from asm_libcalls.emitter.image import Routine

_POINTER = ctypes.sizeof(ctypes.c_void_p)
_COUNT = VMExternData.ref_count.offset
_FUNCREF, _EXTERNREF = VMElementSegment.FUNCREF, VMElementSegment.EXTERNREF


def routines(features: frozenset[str]) -> Iterator[Routine]:
    """Assemble the family for a CPU with these features."""
    from functools import partial

    from asm_libcalls.x86_64 import leaving, reference_counts
    from asm_libcalls.x86_64.bytes import filling
    from asm_libcalls.x86_64.bytes.vectors import Vectors, routine

    yield routine(filling.FILL_WORDS, filling.fill_words, Vectors(features))
    yield from reference_counts.routines()
    yield from leaving.routines(
        {
            "table_grow": _grow,
            "table_fill": _fill,
            "table_copy": partial(_copy, _table_source),
            "table_init": partial(_copy, _segment_source),
            "elem_drop": _elem_drop,
        },
        counts=True,
    )


def _state(body: Body, index: Any, result: Any) -> None:
    """Emit: result = the VMTableState* of a zero-extended table index, in another register."""
    from peachpy.x86_64 import MOV, rdi

    body.check_index(index, "table_count")
    MOV(result, [rdi + header("tables")])
    MOV(result, [result + index * _POINTER])


def _check_kind(body: Body) -> None:
    """Emit: leave unless a reference from Python, its kind in r9, is of the kind of r10's table."""
    from peachpy.x86_64 import CMP, JZ, LABEL, TEST, Label, r9d, r10

    if body.is_builtin:
        null = Label("null_reference")
        TEST(r9d, r9d)
        JZ(null)
        CMP(r9d, [r10 + VMTableState.kind.offset])
        body.leave_if("nz")
        LABEL(null)


def _check_value(body: Body) -> None:
    """Emit: leave unless the table in r10 may have the reference in rcx without Python."""
    from peachpy.x86_64 import CMP, JMP, JZ, LABEL, TEST, Label, dword, qword, r10, rcx

    externref, uncounted = Label("externref"), Label("uncounted")
    state = VMTableState
    CMP(dword[r10 + state.kind.offset], _EXTERNREF)
    JZ(externref)
    CMP(dword[r10 + state.kind.offset], _FUNCREF)
    body.leave_if("nz")  # a closed table
    TEST(rcx, rcx)
    JZ(uncounted)
    CMP(rcx, [r10 + state.functions_from.offset])
    body.leave_if("c")
    CMP(rcx, [r10 + state.functions_to.offset])
    body.leave_if("nc")
    JMP(uncounted)
    LABEL(externref)
    TEST(rcx, rcx)
    JZ(uncounted)
    CMP(qword[rcx + _COUNT], 0)
    body.leave_if("z")  # a dead box
    LABEL(uncounted)


def _grow(body: Body) -> None:
    """Emit ``table_grow(vmctx, table_index, delta, init_value)``."""
    from peachpy.x86_64 import (
        ADD, CMP, JNZ, JZ, LABEL, LEA, MOV, POP, PUSH, SHL, SHR, TEST, Label, dword, edx, esi, r8,
        r9, r9d, r10, rax, rcx, rdi, rdx, rsi,
    )  # fmt: skip

    from asm_libcalls.x86_64.bytes.filling import FILL_WORDS
    from asm_libcalls.x86_64.memory_growth import MAKE_ACCESSIBLE

    state, table = VMTableState, VMTableDefinition
    fill, done = Label("fill"), Label("done")
    body.save(rdi, rsi, rdx, rcx)
    MOV(esi, esi)  # the upper half of a 32-bit argument is undefined
    _state(body, rsi, r10)
    _check_kind(body)
    _check_value(body)
    MOV(edx, edx)
    MOV(r8, [r10 + state.definition.offset])
    MOV(esi, [r8 + table.current_elements.offset])
    LEA(r9, [rsi + rdx * 1])
    CMP(r9, [r10 + state.grows_below.offset])
    body.leave_if("nc")
    SHL(rsi, 3)  # elements to bytes
    SHL(r9, 3)
    MOV(rax, [r8 + table.base.offset])
    body.call(MAKE_ACCESSIBLE)
    body.leave_if("c")
    SHR(r9, 3)
    MOV(rax, rsi)
    SHR(rax, 3)  # the result
    TEST(rcx, rcx)
    JZ(done)  # elements past the size are null already
    CMP(dword[r10 + state.kind.offset], _EXTERNREF)
    JNZ(fill)
    ADD([rcx + _COUNT], rdx)
    LABEL(fill)
    MOV(rdi, [r8 + table.base.offset])
    ADD(rdi, rsi)
    MOV(rsi, rcx)
    PUSH(rax)
    PUSH(r8)
    PUSH(r9)
    body.call(FILL_WORDS)
    POP(r9)
    POP(r8)
    POP(rax)
    LABEL(done)
    MOV([r8 + table.current_elements.offset], r9d)
    body.end()


def _fill(body: Body) -> None:
    """Emit ``table_fill(vmctx, table_index, dst, val, len)``."""
    from peachpy.x86_64 import (
        ADD, CMP, JNC, JNZ, JZ, LABEL, LEA, MOV, POP, PUSH, SUB, TEST, Label, dword, edi, edx, esi,
        r8, r8d, r9, r10, rax, rcx, rdi, rdx, rsi,
    )  # fmt: skip

    from asm_libcalls.x86_64.bytes.filling import FILL_WORDS
    from asm_libcalls.x86_64.reference_counts import COUNT_DOWN

    table = VMTableDefinition
    null, counted, write, undone = map(Label, ("null", "counted", "write", "undone"))
    body.save(rdi, rsi, rdx, rcx, r8)
    MOV(esi, esi)  # the upper half of a 32-bit argument is undefined
    _state(body, rsi, r10)
    _check_kind(body)
    _check_value(body)
    MOV(edx, edx)
    MOV(r8d, r8d)
    MOV(rsi, [r10 + VMTableState.definition.offset])
    LEA(rax, [rdx + r8 * 1])  # the end
    MOV(edi, [rsi + table.current_elements.offset])
    CMP(rax, rdi)
    body.leave_if("a")
    MOV(r9, [rsi + table.base.offset])
    LEA(r9, [r9 + rdx * _POINTER])  # the first element
    CMP(dword[r10 + VMTableState.kind.offset], _EXTERNREF)
    MOV(r10, rcx)
    JNZ(write)
    TEST(r10, r10)
    JZ(null)
    ADD([r10 + _COUNT], r8)
    LABEL(null)
    PUSH(r8)
    MOV(rdi, r9)
    MOV(rsi, r8)
    body.call(COUNT_DOWN)  # preserves r9 and r10
    POP(r8)
    JNC(counted)
    TEST(r10, r10)
    JZ(undone)
    SUB([r10 + _COUNT], r8)
    LABEL(undone)
    body.leave()
    LABEL(counted)
    LABEL(write)
    MOV(rdi, r9)
    MOV(rsi, r10)
    MOV(rdx, r8)
    body.end_with(FILL_WORDS)


def _copy(source: Callable[[Body], None], body: Body) -> None:
    """Emit ``table_copy`` or ``table_init(vmctx, index, source index, dst, src, len)``."""
    from peachpy.x86_64 import (
        CMP, JMP, JNZ, LABEL, LEA, MOV, POP, PUSH, Label, dword, eax, ecx, edx, esi, r8, r8d,
        r9, r9d, r10, rax, rcx, rdi, rdx, rsi,
    )  # fmt: skip

    from asm_libcalls.x86_64.bytes.copying import MOVE_BYTES
    from asm_libcalls.x86_64.reference_counts import COUNT_OVER

    state, table = VMTableState, VMTableDefinition
    functions, move = Label("functions"), Label("move")
    body.save(rdi, rsi, rdx, rcx, r8, r9)
    MOV(esi, esi)
    MOV(edx, edx)
    MOV(ecx, ecx)
    MOV(r8d, r8d)
    MOV(r9d, r9d)
    _state(body, rsi, r10)
    source(body)
    # rdi: the number of the source's set of keepers; rax: its elements, rdx: their count.
    LEA(rsi, [r8 + r9 * 1])
    CMP(rsi, rdx)
    body.leave_if("a")
    LEA(r8, [rax + r8 * _POINTER])  # the first one
    MOV(rsi, [r10 + state.definition.offset])
    LEA(rdx, [rcx + r9 * 1])
    MOV(eax, [rsi + table.current_elements.offset])
    CMP(rdx, rax)
    body.leave_if("a")
    MOV(rsi, [rsi + table.base.offset])
    LEA(rcx, [rsi + rcx * _POINTER])
    CMP(dword[r10 + state.kind.offset], _EXTERNREF)
    JNZ(functions)
    MOV(r10, rcx)
    PUSH(r8)
    MOV(rdi, r8)
    MOV(rsi, r9)
    MOV(rdx, rcx)
    body.call(COUNT_OVER)  # preserves r9 and r10
    POP(r8)
    body.leave_if("c")
    MOV(rcx, r10)
    LABEL(move)
    MOV(rdi, rcx)
    MOV(rsi, r8)
    LEA(rdx, [r9 * _POINTER])
    body.end_with(MOVE_BYTES)
    LABEL(functions)
    _check_keepers(body)
    JMP(move)


def _table_source(body: Body) -> None:
    """Emit: the source is the table of the index in rdx; leave if it is of another kind."""
    from peachpy.x86_64 import MOV, TEST, eax, edx, rax, rdi, rdx

    state, table = VMTableState, VMTableDefinition
    _state(body, rdx, rax)
    MOV(rdi, rax)
    MOV(eax, [rdi + state.kind.offset])
    TEST(eax, eax)
    body.leave_if("z")  # a closed table
    _same_kind(body)
    MOV(rax, [rdi + state.definition.offset])
    MOV(rdi, [rdi + state.keepers.offset])
    MOV(edx, [rax + table.current_elements.offset])
    MOV(rax, [rax + table.base.offset])


def _segment_source(body: Body) -> None:
    """Emit: the source is the segment of the index in rdx; leave if it is of another kind."""
    from peachpy.x86_64 import MOV, eax, rax, rdi, rdx

    segment = VMElementSegment
    body.check_index(rdx, "element_count")
    MOV(rdi, [rdi + header("elements")])
    MOV(rdi, [rdi + rdx * _POINTER])
    MOV(eax, [rdi + segment.kind.offset])
    _same_kind(body)
    MOV(rax, [rdi + segment.base.offset])
    MOV(rdx, [rdi + segment.length.offset])  # 0 once dropped
    MOV(rdi, [rdi + segment.keepers.offset])


def _same_kind(body: Body) -> None:
    """Emit: leave unless the kind in eax is that of the table in r10."""
    from peachpy.x86_64 import CMP, eax, r10

    CMP(eax, [r10 + VMTableState.kind.offset])
    body.leave_if("nz")


def _check_keepers(body: Body) -> None:
    """Emit: leave unless the table in r10 keeps alive the set of instances of the number in rdi."""
    from peachpy.x86_64 import CMP, JZ, LABEL, TEST, Label, r10, rdi

    kept = Label("kept")
    TEST(rdi, rdi)
    JZ(kept)  # nothing
    CMP(rdi, [r10 + VMTableState.keepers.offset])
    JZ(kept)
    CMP(rdi, [r10 + VMTableState.kept_keepers.offset])
    body.leave_if("nz")
    LABEL(kept)


def _elem_drop(body: Body) -> None:
    """Emit ``elem_drop(vmctx, elem_index)``."""
    from peachpy.x86_64 import CMP, JE, JZ, LABEL, MOV, TEST, Label, dword, esi, qword, r9, rdi, rsi

    from asm_libcalls.x86_64.reference_counts import COUNT_DOWN

    segment = VMElementSegment
    done, empty = Label("done"), Label("empty")
    body.save(rdi, rsi)
    MOV(esi, esi)
    body.check_index(rsi, "element_count")
    MOV(r9, [rdi + header("elements")])
    MOV(r9, [r9 + rsi * _POINTER])  # VMElementSegment*
    MOV(rsi, [r9 + segment.length.offset])
    TEST(rsi, rsi)
    JZ(done)
    CMP(dword[r9 + segment.drops_in_python.offset], 0)
    body.leave_if("nz")
    CMP(dword[r9 + segment.kind.offset], _FUNCREF)
    JE(empty)
    MOV(rdi, [r9 + segment.base.offset])
    body.call(COUNT_DOWN)
    body.leave_if("c")
    LABEL(empty)
    MOV(qword[r9 + segment.length.offset], 0)
    LABEL(done)
    body.end()
