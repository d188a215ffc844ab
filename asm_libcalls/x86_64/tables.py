"""The table libcalls, where no object is destroyed and nothing else needs Python.

Source: WebAssembly 2.0, 4.4.6 (table instructions); ``wasmtime_runtime::libcalls`` 0.22.
"""

from __future__ import annotations

import ctypes

from asm_libcalls.vmcontext import VMElementSegment
from asm_libcalls.x86_64.leaving import Body, header

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from asm_libcalls.emitter.image import Routine

__all__ = ["routines"]

_POINTER = ctypes.sizeof(ctypes.c_void_p)


def routines(features: frozenset[str]) -> Iterator[Routine]:
    """Assemble the family for a CPU with these features."""
    from asm_libcalls.x86_64 import leaving, reference_counts

    yield from reference_counts.routines()
    yield from leaving.routines({"elem_drop": _elem_drop})


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
    CMP(dword[r9 + segment.kind.offset], segment.FUNCREF)
    JE(empty)
    MOV(rdi, [r9 + segment.base.offset])
    body.call(COUNT_DOWN)
    body.leave_if("c")
    LABEL(empty)
    MOV(qword[r9 + segment.length.offset], 0)
    LABEL(done)
    body.end()
