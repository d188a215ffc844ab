"""Modules that need much in few bytes: their code is in proportion, or they are refused.

Nothing here measures time. Code, stack maps and memory are counted, and work by calls of functions.
"""

import contextlib
import sys
import tracemalloc

import pytest
import wasm_builder as wasm
from wasm_functions import TYPES

from asm_libcalls import toy_jit
from asm_libcalls.toy_jit.frontend.budget import DEFAULTS, Budget

pytestmark = pytest.mark.usefixtures("machine_code")

I32, EXTERNREF = bytes([TYPES["i32"]]), bytes([TYPES["externref"]])
CONST, DROP, BR_IF, END = b"\x41\x00", b"\x1a", b"\x0d", b"\x0b"
LOCAL_GET, LOCAL_SET, LOCAL_TEE, REF_NULL = b"\x20", b"\x21", b"\x22", b"\xd0\x6f"
UNREACHABLE = b"\x00"


def make(*functions, types=None, **parts):
    """Make a module of bodies ``(type index, instructions, locals)``."""
    return wasm.module(
        types=types or [wasm.functype(b"", b"")],
        functions=[functype for functype, _, _ in functions],
        code=[wasm.body(body, groups) for _, body, groups in functions],
        **parts,
    )


def locals_and_calls(n, valtype=EXTERNREF):
    return make((0, b"\x10\x01" * n, [(25 * n, valtype[0])]), (0, b"", []))


def references_and_calls(n):
    return make((0, REF_NULL * n + b"\x10\x01" * n + DROP * n, []), (0, b"", []))


def references_in_many_functions(n):
    body = REF_NULL * 300 + b"\x10\x00" * 300 + DROP * 300
    return make(*[(0, body, [])] * max(1, n // 50))


def locals_references_and_loops(n):
    loop = REF_NULL + b"\x03\x40\x0c\x00\x0b"
    return make((0, loop * n + UNREACHABLE, [(10 * n, EXTERNREF[0])]))


def branches_with_results(n):
    results = min(n, 1000)
    types = [wasm.functype(b"", I32 * results)]
    return make((0, CONST * results + (CONST + BR_IF + b"\x00") * n, []), types=types)


def functions_with_locals(n):
    return make(*[(0, b"", [(50_000, I32[0])])] * n)


def calls_with_many_parameters(n):
    many = I32 * min(n, 1000)
    types = [wasm.functype(many, many)]
    body = b"".join(LOCAL_GET + wasm.u(i) for i in range(len(many))) + b"\x10\x00" * n
    return make((0, body, []), types=types)


def deep_stack_and_blocks(n):
    depth = min(20 * n, 49_000)
    return make((0, CONST * depth + b"\x02\x40\x0b" * n + DROP * depth, []))


def deep_stack_and_branches(n):
    depth = min(20 * n, 49_000)
    body = b"\x02\x7f" + CONST * depth + (CONST + CONST + BR_IF + b"\x00" + DROP) * n
    return make((0, body + UNREACHABLE + END + DROP, []))


def deep_stack_and_tables(n):
    depth = min(20 * n, 49_000)
    table = b"\x02\x40" + CONST + b"\x0e\x03\x00\x00\x00\x00" + END
    return make((0, CONST * depth + table * n + DROP * depth, []))


def deep_stack_and_locals(n):
    depth = min(20 * n, 49_000)
    body = (LOCAL_GET + b"\x00") * depth + (CONST + LOCAL_SET + b"\x01") * n + DROP * depth
    return make((0, body, [(2, I32[0])]))


def tee_chain(n):
    body = CONST + (LOCAL_TEE + b"\x00" + LOCAL_TEE + b"\x01") * n + DROP
    return make((0, body, [(2, I32[0])]))


def selects(n):
    return make((0, CONST + (CONST + CONST + b"\x1b") * n + DROP, []))


def branch_table_to_many(n):
    depth = min(n, 500)
    blocks = b"\x02\x40" * depth
    targets = b"".join(wasm.u(i % depth) for i in range(n))
    return make((0, blocks + CONST + b"\x0e" + wasm.u(n - 1) + targets + END * depth, []))


def branch_table_with_results(n):
    depth, results = min(n, 100), min(n, 300)
    types = [wasm.functype(b"", b""), wasm.functype(b"", I32 * results)]
    body = CONST * 3 + b"\x02\x01" * depth + CONST * results + CONST
    table = b"\x0e" + wasm.u(depth - 1) + b"".join(map(wasm.u, range(depth)))
    after = (END + DROP * results + CONST * results) * (depth - 1) + END + DROP * results
    return make((0, body + table + after + DROP * 3, []), types=types)


def unreachable_tables(n):
    results = min(n, 999)
    types = [wasm.functype(b"", b""), wasm.functype(b"", I32 * (results + 1))]
    targets = b"\x0e" + wasm.u(n - 1) + b"\x00" * n
    body = b"\x02\x01" + UNREACHABLE + b"\x1b" + CONST * (results - 1) + targets + END
    return make((0, body + UNREACHABLE, []), types=types)


def nested_blocks(n):
    return make((0, b"\x02\x40" * n + END * n, []))


def many_globals(n):
    return wasm.module(globals_=[I32 + b"\x00" + CONST + END] * n)


def many_segments(n):
    return wasm.module(tables=[b"\x70\x00\x00"], elements=[b"\x01\x00\x00"] * n)


def many_types(n):
    return wasm.module(types=[wasm.functype(I32 * (i % 100), b"") for i in range(n)])


def many_exports(n):
    exports = [wasm.exported(f"{i}", 0, 0) for i in range(n)]
    return make((0, b"", []), exports=exports)


BOMBS = [
    locals_and_calls, references_and_calls, references_in_many_functions,
    locals_references_and_loops, branches_with_results, functions_with_locals,
    calls_with_many_parameters, deep_stack_and_blocks, deep_stack_and_branches,
    deep_stack_and_tables, deep_stack_and_locals, tee_chain, selects, branch_table_to_many,
    branch_table_with_results, unreachable_tables, nested_blocks, many_globals, many_segments,
    many_types, many_exports,
]  # fmt: skip


def work(function):
    """Count the lines of Python that a function runs, and its calls of C functions."""
    events = 0

    def count(frame, event, argument):
        nonlocal events
        events += 1
        return count

    sys.settrace(count)
    try:
        with contextlib.suppress(toy_jit.LimitExceeded):
            function()
    finally:
        sys.settrace(None)
    return events


@pytest.mark.parametrize("bomb", BOMBS)
def test_work_is_in_proportion_to_the_bytes(bomb):
    def compile_and_run(n):
        binary = bomb(n)
        # The constants are in the way of what is to be seen: that the work is no square.
        limits = {
            name: constant // 16 + for_each_byte * len(binary)
            for name, (_, constant, for_each_byte) in DEFAULTS.items()
        }
        module = toy_jit.Module(binary, toy_jit.compile_options(**limits))
        toy_jit.Instance(module).close()

    with contextlib.suppress(toy_jit.LimitExceeded):
        compile_and_run(2)
    small, large = bomb(100), bomb(400)
    events = work(lambda: compile_and_run(100)), work(lambda: compile_and_run(400))
    # Twice as much again for each byte would be far from quadratic, which is four times.
    assert events[1] / events[0] < 2 * len(large) / len(small) + 1, (bomb.__name__, events)


@pytest.mark.parametrize("bomb", BOMBS)
def test_what_large_ones_use(bomb):
    binary = bomb(2000)
    limits = Budget(len(binary)).limits
    tracemalloc.start()
    try:
        module = toy_jit.Module(binary)
        toy_jit.Instance(module)
    except toy_jit.LimitExceeded as error:
        module, refused = None, str(error)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert module or any(name in refused for name in (*DEFAULTS, "50000"))
    assert peak < (64 << 20) + 1000 * len(binary), bomb.__name__
    if module is not None:
        tables = module.code.tables
        assert tables.size <= limits["max_code_size"]
        maps = {id(slots): slots for slots in tables.stack_maps.values()}
        assert sum(map(len, maps.values())) <= limits["max_stack_map_slots"]


def test_imports_of_many_parameters_take_memory_by_their_number():
    """An import is 7 bytes, however many parameters its type has."""

    def peak(parameters):
        many = wasm.functype(I32 * parameters, I32 * parameters)
        imports = [wasm.imported(0, b"\0", "f")] * 1000
        module = toy_jit.Module(wasm.module(types=[many], imports=imports))
        tracemalloc.start()
        try:
            instance = toy_jit.Instance(module, {"m": {"f": lambda *values: values}})
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            instance.close()

    peak(1)
    assert peak(1000) < 2 * peak(1)


def test_calls_share_the_stack_map_of_locals():
    module = toy_jit.Module(locals_and_calls(2000))
    maps = list(module.code.tables.stack_maps.values())
    assert len(maps) == 2000
    assert {len(slots) for slots in maps} == {50_000}
    assert len(set(map(id, maps))) == 1


@pytest.mark.parametrize(
    ("name", "bomb", "n"),
    [
        ("max_code_size", branches_with_results, 500),
        ("max_stack_map_slots", references_and_calls, 500),
        ("max_locals", functions_with_locals, 10),
    ],
)
def test_limits_are_lowered_and_raised(name, bomb, n):
    binary = bomb(n)
    toy_jit.Module(binary, toy_jit.compile_options(**{name: None}))
    with pytest.raises(
        toy_jit.LimitExceeded, match=f"more than 5000 .*, the limit {name}: at byte"
    ):
        toy_jit.Module(binary, toy_jit.compile_options(**{name: 5000}))
    toy_jit.Module(binary, toy_jit.compile_options(**{name: 1 << 40}))


@pytest.mark.parametrize("name", DEFAULTS)
@pytest.mark.parametrize(
    ("value", "error"), [(-1, ValueError), (1.5, TypeError), ("1", TypeError), (b"", TypeError)]
)
def test_limits_are_checked(name, value, error):
    with pytest.raises(error, match=rf"^compile_options\(\): {name} must"):
        toy_jit.compile_options(**{name: value})


def test_a_limit_that_is_raised():
    binary = branches_with_results(1500)
    with pytest.raises(toy_jit.LimitExceeded, match="max_code_size"):
        toy_jit.Module(binary)
    module = toy_jit.Module(binary, toy_jit.compile_options(max_code_size=1 << 28))
    assert module.code.tables.size > 1 << 22


def test_tables_are_few():
    """Each has mappings, of which Linux allows a process 65,530."""
    for part, table in (("imports", b"\x01m\x01t\x01\x70\x00\x01"), ("tables", b"\x70\x00\x01")):
        most = toy_jit.Module(wasm.module(**{part: [table] * 100}))
        assert len(most.decoded.tables) == 100
        with pytest.raises(toy_jit.LimitExceeded, match="more than 100 tables"):
            toy_jit.Module(wasm.module(**{part: [table] * 101}))
