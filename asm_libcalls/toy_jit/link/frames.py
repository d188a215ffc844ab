"""Names and unwind information of compiled functions, for profilers, debuggers and unwinders.

Each function begins with the stencil "prologue" and has any number of the stencil "epilogue". Their
call frame instructions are computed once. In between rbp is the frame pointer. The other
callee-saved registers belong to compiled code: the entry stencil saves its caller's.
"""

from __future__ import annotations

from asm_libcalls.emitter.call_frames import CALLEE_SAVED, RBP
from asm_libcalls.emitter.eh_frame import advance, instructions
from asm_libcalls.emitter.stencils import Part, Stencil
from asm_libcalls.signatures.arguments import printable
from asm_libcalls.toy_jit.codegen.templates import STENCILS
from asm_libcalls.x86_64.stencils import stack_effects

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from asm_libcalls.emitter.code_names import Function
    from asm_libcalls.toy_jit.frontend.module import Module
    from asm_libcalls.toy_jit.link.code_tables import CodeTables


def _changes() -> tuple[tuple[bytes, int], tuple[int, bytes, int]]:
    """Compute :data:`_BEGIN` and :data:`_END`."""
    written = ",".join(f"write,{r},0,0" for r in sorted(CALLEE_SAVED - {RBP}))
    body = Stencil(b"\x90", (), f"0,0,-,target,{written}")
    prologue, epilogue = STENCILS["prologue"], STENCILS["epilogue"]
    numbers = {"frame": 0}  # any size: the CFA is relative to rbp there
    parts = [Part(prologue, numbers), Part(body), Part(epilogue), Part(body, role="target")]
    epilogue_at = len(prologue.code) + len(body.code)
    rows = stack_effects.frames(parts)
    begin = [(at, frame) for at, frame in rows if at < epilogue_at]
    end = [(at - epilogue_at, frame) for at, frame in rows if at > epilogue_at]
    first = end[0][0]
    changes = instructions(end, begin[-1][1], first)
    return (instructions(begin), begin[-1][0]), (first, changes, end[-1][0])


_BEGIN, _END = _changes()
"""``_BEGIN``: the call frame instructions of the prologue, and the offset that they reach.
``_END``: the offset in an epilogue where its instructions begin, these, and where they end."""


def functions(module: Module, tables: CodeTables, address: int) -> Iterator[Function]:
    """List the functions and stubs of a module's code for ``code_names``."""
    prefix = f"wasm::{printable(module.name)}::" if module.name else "wasm::"
    epilogues = iter([*tables.epilogues, tables.size])
    epilogue = next(epilogues)
    for index, (start, end) in enumerate(tables.functions, module.imported_functions):
        name = printable(module.function_name(index) or f"function {index}")
        its_own = []
        while epilogue < end:
            its_own.append(epilogue - start)
            epilogue = next(epilogues)
        yield address + start, end - start, prefix + name, _call_frames(its_own)
    ends = [*list(tables.stubs.values())[1:], tables.size]
    for (role, start), end in zip(tables.stubs.items(), ends, strict=True):
        # Stubs have no frame: they are called, and leave by a jump.
        yield address + start, end - start, prefix + role.replace(".", " "), b""


def _call_frames(epilogues: Iterable[int]) -> bytes:
    """Return the call frame instructions of a function with epilogues at these offsets."""
    result, at = _BEGIN
    first, changes, reached = _END
    for epilogue in epilogues:
        result += advance(epilogue + first - at) + changes
        at = epilogue + reached
    return result
