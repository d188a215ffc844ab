"""The externref libcalls: globals, and insertion into the activations table while there is space.

They leave for Python if the activations table is full, if a reference loses its last owner, and for
errors that only Python can report (a closed global, a dangling pointer). Counts are not atomic:
with the GIL, an instance and all that it is linked to is used by one thread at a time, as compiled
code that counts requires. In a build without it each is a step (``trampolines/step_lock.py``).

``drop_externref`` destroys a Python object, so Python serves it.

:data:`TABLE_GET` is no libcall of Wasmtime, whose compiled code reads tables by itself. It is
``VMExternRef *f(vmctx, table_index, index)``, for toy_jit.

Source: ``wasmtime_runtime::libcalls`` and ``externref`` of Wasmtime 0.22.
"""

from __future__ import annotations

import ctypes

from asm_libcalls.vmcontext import (
    VMElementSegment, VMExternData, VMGlobalDefinition, VMOffsets, VMTableDefinition, VMTableState,
)  # fmt: skip
from asm_libcalls.x86_64.leaving import Body, header

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from asm_libcalls.emitter.image import Routine

_OFFSETS = VMOffsets()
_TABLE = _OFFSETS.vmctx_externref_activations_table()
_NEXT = _OFFSETS.vm_extern_ref_activation_table_next()
_END = _OFFSETS.vm_extern_ref_activation_table_end()
_POINTER = ctypes.sizeof(ctypes.c_void_p)
_COUNT = VMExternData.ref_count.offset
_VALUE = VMGlobalDefinition.storage.offset
_CLOSED = _VALUE + 8

TABLE_GET = "externref_table_get"


def routines(features: frozenset[str]) -> Iterator[Routine]:
    """Assemble the family for a CPU with these features."""
    from asm_libcalls.x86_64 import leaving

    yield from leaving.routines(
        {
            "activations_table_insert_with_gc": _insert,
            "externref_global_get": _get,
            "externref_global_set": _set,
        },
        counts=True,
    )
    yield from leaving.routines({TABLE_GET: _table_get}, counts=True, builtins=False)


def _insert(body: Body) -> None:
    """Emit ``activations_table_insert_with_gc(vmctx, externref)``."""
    from peachpy.x86_64 import CMP, MOV, TEST, qword, r9, rax, rdi, rsi

    TEST(rsi, rsi)
    body.leave_if("z")
    _check_externref(body)
    CMP(qword[rsi + _COUNT], 0)
    body.leave_if("z")
    MOV(rax, rsi)
    MOV(r9, [rdi + _TABLE])
    _append(body)
    body.end()


def _check_externref(body: Body) -> None:
    """Emit: leave if a reference from Python, its kind in r9, is a function."""
    from peachpy.x86_64 import CMP, r9d

    if body.is_builtin:
        CMP(r9d, VMElementSegment.FUNCREF)
        body.leave_if("z")


def _append(body: Body) -> None:
    """Emit: append rax, with a count, to the activations table in r9. Clobbers r8."""
    from peachpy.x86_64 import ADD, CMP, MOV, qword, r8, r9, rax

    MOV(r8, [r9 + _NEXT])
    CMP(r8, [r9 + _END])
    body.leave_if("nc")
    ADD(qword[rax + _COUNT], 1)
    MOV([r8], rax)
    ADD(qword[r9 + _NEXT], _POINTER)


def _global(body: Body) -> None:
    """Emit: r10 = the VMGlobalDefinition* of the global index in esi."""
    from peachpy.x86_64 import CMP, MOV, TEST, esi, qword, r10, rax, rdi, rsi

    MOV(esi, esi)  # the upper half of a 32-bit argument is undefined
    body.check_index(rsi, "global_count")
    MOV(rax, [rdi + header("externref_globals")])
    MOV(r10, [rax + rsi * _POINTER])
    TEST(r10, r10)
    body.leave_if("z")  # of another type
    CMP(qword[r10 + _CLOSED], 0)
    body.leave_if("nz")


def _get(body: Body) -> None:
    """Emit ``externref_global_get(vmctx, global_index)``."""
    from peachpy.x86_64 import MOV, r10, rax

    _global(body)
    MOV(rax, [r10 + _VALUE])
    _return_rooted(body)


def _table_get(body: Body) -> None:
    """Emit :data:`TABLE_GET`."""
    from peachpy.x86_64 import CMP, MOV, dword, edx, esi, r8, r8d, r10, rax, rdi, rdx, rsi

    state, table = VMTableState, VMTableDefinition
    MOV(esi, esi)  # the upper half of a 32-bit argument is undefined
    MOV(edx, edx)
    MOV(rax, [rdi + header("tables")])
    MOV(r10, [rax + rsi * _POINTER])
    CMP(dword[r10 + state.kind.offset], VMElementSegment.EXTERNREF)
    body.leave_if("nz")  # a closed table
    MOV(rax, [r10 + state.definition.offset])
    MOV(r8d, [rax + table.current_elements.offset])
    CMP(rdx, r8)
    body.leave_if("nc")  # a trap
    MOV(rax, [rax + table.base.offset])
    MOV(rax, [rax + rdx * _POINTER])
    _return_rooted(body)


def _return_rooted(body: Body) -> None:
    """Emit: return the reference in rax, which the activations table keeps alive from now on."""
    from peachpy.x86_64 import CMP, JE, JZ, LABEL, MOV, TEST, Label, r8, r9, rax, rdi

    done = Label("done")
    TEST(rax, rax)
    JZ(done)
    MOV(r9, [rdi + _TABLE])
    MOV(r8, [r9 + _NEXT])
    CMP(rax, [r8 - _POINTER])  # the newest entry; 0 before the first one
    JE(done)
    _append(body)
    LABEL(done)
    body.end()


def _set(body: Body) -> None:
    """Emit ``externref_global_set(vmctx, global_index, externref)``."""
    from peachpy.x86_64 import (
        ADD, CMP, JE, JZ, LABEL, MOV, SUB, TEST, Label, qword, r10, rax, rdx,
    )  # fmt: skip

    done, live, counted, no_old = map(Label, ("done", "live", "counted", "no_old"))
    _check_externref(body)
    _global(body)
    MOV(rax, [r10 + _VALUE])
    CMP(rax, rdx)
    JE(done)
    TEST(rdx, rdx)
    JZ(live)
    CMP(qword[rdx + _COUNT], 0)
    body.leave_if("z")
    LABEL(live)
    TEST(rax, rax)
    JZ(no_old)
    CMP(qword[rax + _COUNT], 1)
    body.leave_if("be")  # its last owner
    SUB(qword[rax + _COUNT], 1)
    LABEL(no_old)
    TEST(rdx, rdx)
    JZ(counted)
    ADD(qword[rdx + _COUNT], 1)
    LABEL(counted)
    MOV([r10 + _VALUE], rdx)
    LABEL(done)
    body.end()
