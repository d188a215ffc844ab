"""A signal handler raises while something is made. What was made by then is released."""

import gc
import itertools
import sys
from pathlib import Path

import pytest
from free_threading import frees_modules_and_classes
from interruptions import at_point
from jit_modules import MEMORY, Function, build, instantiate
from process_maps import mappings

import asm_libcalls
from asm_libcalls import (
    Code,
    ElementSegment,
    Global,
    HostFunction,
    Memory,
    Table,
    catch_traps,
    load_code,
    native_function,
    steps,
    toy_jit,
)
from asm_libcalls.emitter import code_arena, code_names
from asm_libcalls.native import call_slot, process
from asm_libcalls.owned.objects import Resource
from asm_libcalls.runtime import externref_boxes
from asm_libcalls.toy_jit.runtime import slot_functions

pytestmark = pytest.mark.usefixtures("machine_code")


class Struck(BaseException):
    """A signal handler raises this."""


def strike():
    raise Struck


def used():
    """Return what this process uses: bytes of mappings, open files, and parts of shared memory."""
    Resource(list)  # the finalizer of the next object goes on with what was dropped
    found = dict.fromkeys(("r-xp", "r-xs", "---p"), 0)
    for each in mappings():
        if each.permissions in found:
            found[each.permissions] += each.end - each.start
    return {
        **found,
        "files": len([*Path("/proc/self/fd").iterdir()]),
        "pieces": sum(region.live for region in code_arena._regions),
        "thunks": len(process.interface.thunks()._used),
        "sources": len(code_names.sources),
        "boxes": externref_boxes.live_count(),
        "steps": sum(lock.depth() for lock in getattr(steps, "_shared", ())),
    }


ADDRESS = asm_libcalls.LIBCALLS["i64_sdiv"].address
OPERATIONS = {
    "load_code": lambda: load_code(b"\xc3", {"f": (0, 1)}),
    "Code": lambda: Code(b"\xc3", {"f": (0, 1)}),
    "catch_traps": lambda: catch_traps(ADDRESS, "(i64, i64) -> i64")(7, 2),
    "HostFunction": lambda: HostFunction(abs, "(i32) -> i32"),
    "Memory": lambda: Memory(1),
    "Table": lambda: Table("externref", 1),
    "ElementSegment": lambda: ElementSegment("externref", [1]),
    "Global": lambda: Global("externref", "a value"),
}

types = itertools.product(("i32", "i64", "f32", "f64"), repeat=6)
"""Parameters of each function, of which no code was made before."""


def simple(name):
    return lambda: OPERATIONS[name]


def code_in_new_region():
    code_arena._regions.clear()
    return OPERATIONS["Code"]


def builtin_of_new_types():
    parameters = ", ".join(next(types))
    return lambda: native_function(ADDRESS, f"({parameters}) -> i64")


def new_thunks():
    process.interface.thunks()._free.clear()
    return OPERATIONS["HostFunction"]


def callable_class():
    class Base:
        __slots__ = (call_slot.FUNCTION,)

        def __call__(self):
            """Call it."""

    return lambda: call_slot.callable_class(Base)


def module_and_instance():
    content = build({"f": Function("i32 -> i32", "local.get 00")}, **MEMORY)
    return lambda: toy_jit.Instance(toy_jit.Module(content))


def first_call():
    signature = f"{' '.join(next(types))} -> i64"
    exports = instantiate({"f": Function(signature, "i64.const 00")}).exports
    return lambda: exports["f"](0, 0, 0, 0, 0, 0)


def first_reference():
    slot_functions._made.clear()
    signature = f"externref {' '.join(next(types))} -> externref"
    exports = instantiate({"f": Function(signature, "local.get 00")}).exports
    return lambda: exports["f"](None, 0, 0, 0, 0, 0, 0)


DOORS = [
    *((name, simple(name), 1) for name in OPERATIONS),
    ("Code in a new region", code_in_new_region, 1),
    ("native_function", builtin_of_new_types, 61),
    ("HostFunction of new thunks", new_thunks, 211),
    ("callable class", callable_class, 5),
    ("Module and Instance", module_and_instance, 61),
    ("first call", first_call, 97),
    ("first call with a reference", first_reference, 211),
]


@pytest.mark.parametrize(
    ("scene", "stride"),
    [
        pytest.param(
            *row[1:],
            id=row[0],
            marks=frees_modules_and_classes if row[0] == "callable class" else (),
        )
        for row in DOORS
    ],
)
def test_a_second_try_leaves_as_much_as_a_first_one(scene, stride, monkeypatch):
    heard = []
    monkeypatch.setattr(sys, "unraisablehook", lambda it: heard.append(it.exc_type))

    def attempt(point):
        """Return whether it was interrupted, and what was left after a second try."""
        operation = scene()
        if stride > 1:
            gc.collect()  # what earlier scenes made
        before = used()
        made, reached = None, False
        try:
            _, made = at_point(point, operation, strike)
        except Struck:
            reached = True
        if reached:
            made = operation()
        if hasattr(made, "close"):
            made.close()
        del made
        gc.collect()
        after = used()
        return reached, {key: after[key] - before[key] for key in after}

    # Some tries find code that an earlier one made.
    whole = [attempt(10**9)[1] for _ in range(8)]
    most = {key: max(left[key] for left in whole[1:]) for key in whole[0]}
    lost = {}
    for point in itertools.count(0, stride):
        reached, left = attempt(point)
        if not reached:
            break
        if any(left[key] > most[key] for key in left):
            lost[point] = left
    assert point > 0
    assert {*heard} <= {Struck}
    # At the last point it has ended: the caller has not got the result yet.
    assert list(lost) in ([], [point - stride]), (most, lost, point)
