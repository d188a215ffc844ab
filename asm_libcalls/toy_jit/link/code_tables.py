"""The tables of a module's linked code: functions, calls, stack maps, relocations."""

from __future__ import annotations

from array import array

from asm_libcalls.toy_jit.codegen.layout import OFFSETS
from asm_libcalls.toy_jit.frontend.module import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asm_libcalls.toy_jit.codegen.layout import CodeLayout

    Offsets = array[int]


class CodeTables(Record):
    """The tables of a module's linked code. Offsets are in the code, unless "in the module".

    They contain nothing of the process. :class:`~.codegen.layout.CodeLayout` describes those that
    have the same name there.
    """

    size: int  # of the code
    functions: list[tuple[int, int]]
    brief: bytes
    ends: Offsets
    epilogues: Offsets
    returns: Offsets  # the return address of each call, ascending
    origins: Offsets  # for each call: its offset in the module
    stack_maps: dict[int, tuple[int, ...]]
    stubs: dict[str, int]
    relocations: dict[str, Offsets]
    marks: Offsets | None


def tables_of(layout: CodeLayout) -> CodeTables:
    """Take the tables out of the compiler's layout, whose code is linked."""
    return CodeTables(
        size=len(layout.code),
        functions=layout.functions,
        brief=bytes(layout.brief),
        ends=layout.ends,
        epilogues=layout.epilogues,
        returns=layout.returns,
        origins=layout.origins,
        stack_maps=layout.stack_maps,
        stubs=layout.stubs,
        relocations={symbol: array(OFFSETS, holes) for symbol, holes in layout.relocations.items()},
        marks=layout.marks,
    )
