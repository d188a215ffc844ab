"""Suite: tables, externref globals and growth, by the libcalls and by their Python functions.

The machine code is called from a loop in machine code, and from Python. A table has as many boxes
as elements, in a random order, unless a case says otherwise.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from asm_libcalls import LIBCALLS, Global, Instance, Memory, Table, VMExternRef
from asm_libcalls.benchmark.memory import OURS_FROM_PYTHON, native, native_loop_or_why
from asm_libcalls.benchmark.timing import OURS, Candidate, Case, repeat
from asm_libcalls.vmcontext import VMTableDefinition

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from asm_libcalls.benchmark.memory import Loop
    from asm_libcalls.benchmark.peers import Peers

SUITE = "references"
SIZES = (1, 10, 100, 1000, 10_000, 100_000)
QUICK_SIZES = (1, 100)
MOST_IN_PYTHON = 1000
"""Elements up to which the fallback is measured."""


def cases(peers: Peers, quick: bool) -> Iterator[Case]:
    """Make the cases; none if no machine code serves these libcalls."""
    loop = native_loop_or_why(peers, SUITE, "table_copy")
    if loop is None:
        return
    yield from _single(loop)
    for size in QUICK_SIZES if quick else SIZES:
        yield from _ranges(peers, loop, size)


def _case(
    loop: Loop, name: str, instance: Instance, arguments: tuple[Any, ...], title: str, size: int = 0
) -> Case:
    import asm_libcalls

    libcall, keep = LIBCALLS[name], (instance, arguments)
    pointers = [getattr(each, "as_raw", lambda each=each: each or 0)() for each in arguments]
    candidates = [
        native(OURS, loop, libcall.address, (instance.vmctx, *pointers), keep),
        Candidate(OURS_FROM_PYTHON, repeat(getattr(asm_libcalls, name), (instance, *arguments))),
    ]
    if size <= MOST_IN_PYTHON:
        fallback = repeat(libcall.fallback, (instance, *arguments))
        candidates.append(Candidate("the fallback", fallback))
    return Case(SUITE, title, size, 1, tuple(candidates))


def _single(loop: Loop) -> Iterator[Case]:
    refs = [VMExternRef(i) for i in range(2)]
    instance = Instance(
        [Memory(1)],
        [Table("externref", 1)],
        [Global("externref", refs[0], True)],
        elements=[("externref", [])],
    )
    yield _case(loop, "externref_global_get", instance, (0,), "externref_global_get")
    yield _case(loop, "externref_global_set", instance, (0, refs[1]), "externref_global_set")
    yield _case(loop, "elem_drop", instance, (0,), "elem_drop of a dropped one")
    yield _case(loop, "table_grow", instance, (0, 0, refs[0]), "table_grow by 0")
    yield _case(loop, "memory32_grow", instance, (0, 0), "memory32_grow by 0")


def _ranges(peers: Peers, loop: Loop, size: int) -> Iterator[Case]:
    boxes = [VMExternRef(i) for i in range(size)]
    order = random.Random(1).sample(boxes, size)
    functions = [(16 * (i + 1), 0) for i in range(2)]
    tables = [Table(kind, size) for kind in ("externref", "externref", "funcref", "funcref")]
    one = boxes[0]
    instance = Instance(
        tables=tables, functions=functions, elements=[("externref", order), ("funcref", [0] * size)]
    )
    for table in tables[2:]:
        for i in range(size):
            table[i] = instance.functions[i % 2]
    for i in range(size):
        tables[0][i], tables[1][i] = boxes[i], order[i]
    definitions = (VMTableDefinition.from_address(t.definition_address) for t in tables[2:])
    to, source = (int(definition.base) for definition in definitions)
    operands = {"memmove": (to, source, 8 * size), "memset": (to, 0, 8 * size)}
    c_functions = {
        name: native(f"glibc {name}", loop, peers.c_function(name), operands[name], tables)
        for name in operands
    }
    function = instance.functions[0]
    for name, title, arguments in (
        ("table_fill", "table_fill of funcrefs", (2, 0, function, size)),
        ("table_copy", "table_copy of funcrefs", (2, 3, 0, 0, size)),
        ("table_init", "table_init of funcrefs", (2, 1, 0, 0, size)),
        ("table_copy", "table_copy of externrefs", (0, 1, 0, 0, size)),
        ("table_init", "table_init of externrefs", (0, 0, 0, 0, size)),
        ("table_fill", "table_fill of externrefs", (0, 0, one, size)),
    ):
        case = _case(loop, name, instance, arguments, title, size)
        peer = c_functions["memset" if name == "table_fill" else "memmove"]
        yield case._replace(candidates=(*case.candidates, peer))
