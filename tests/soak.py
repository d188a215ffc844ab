"""Native frames call libcalls, millions of times, with traps, GCs and exceptions mixed in.

``python soak.py CALLS`` in a process of its own prints, as JSON, what it did and what was left: it
ends with an AssertionError where anything leaks. Machine code makes every call and counts it.
"""

from __future__ import annotations

import ctypes
import gc as python_gc
import itertools
import json
import sys
import time
import weakref
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

from native_code import (
    CALL_SLOT, DEC, INC, JNZ, LABEL, MOV, Label, NativeCode, frame, qword, r12, r13, r15, rax, rbp,
    rbx, rcx, rdi, rdx, rsi, slot_at,
)  # fmt: skip
from peachpy.x86_64 import CVTSI2SD, r8, r9, xmm0

import asm_libcalls
from asm_libcalls import (
    LIBCALLS,
    Global,
    HostFunction,
    Instance,
    Memory,
    StackMapRegistry,
    Table,
    VMExternRef,
    catch_traps,
)
from asm_libcalls.runtime import externref_boxes

INTEGERS = (rdi, rsi, rdx, rcx, r8, r9)
HELD = slot_at(0)
SITES = itertools.count()

MEMORY_BYTES = 2 * 65536
VMCTX, COUNTER, A, B = "vmctx", "counter", "a", "b"
REGISTERS = {VMCTX: rbx, COUNTER: r12}


class Thing:
    """A value; what is left of these at the end has leaked."""

    alive: ClassVar[weakref.WeakSet[Thing]] = weakref.WeakSet()
    made = 0

    def __init__(self) -> None:
        Thing.made += 1
        Thing.alive.add(self)


class Fragile(Thing):
    """Its destructor raises."""

    def __del__(self) -> None:
        raise DestructorError


class HostError(Exception):
    """Raised by the host function."""


class LimiterError(Exception):
    """Raised by a memory's limiter."""


class DestructorError(Exception):
    """Raised by a destructor."""


def load(register: Any, argument: Any) -> None:
    """Load an argument: a number, the vmctx, the counter, or a reference (r13 points to those)."""
    if argument in (A, B):
        MOV(register, [r13 + (0 if argument == A else 8)])
    else:
        MOV(register, REGISTERS.get(argument, argument))


def invoke(name: str, *arguments: Any) -> None:
    """Count the call, and make it, at a call site that has a stack map."""
    INC(qword[r15])
    for register, argument in zip(INTEGERS, arguments, strict=False):
        load(register, argument)
    CALL_SLOT(name)
    LABEL(Label(f"site{next(SITES)}"))


def body(*ending: Any) -> None:
    """Write (vmctx, iterations, references, count): all libcalls in a loop, then one more call."""
    again = Label("again")
    with frame(1):
        MOV(rbx, rdi)
        MOV(r12, rsi)
        MOV(r13, rdx)
        MOV(r15, rcx)
        LABEL(again)
        invoke("memory32_size", VMCTX, 0)
        invoke("memory_fill", VMCTX, 0, 64, COUNTER, 100)
        invoke("memory_copy", VMCTX, 0, 200, 0, 64, 100)
        invoke("memory_copy", VMCTX, 1, 210, 1, 200, 3000)
        invoke("memory_copy", VMCTX, 0, 200, 1, 210, 3000)
        invoke("memory_init", VMCTX, 1, 0, 500, 0, 8)
        invoke("data_drop", VMCTX, 1)
        invoke("imported_memory32_size", VMCTX, 0)
        invoke("imported_memory_fill", VMCTX, 0, 1000, COUNTER, 17)
        invoke("i64_sdiv", COUNTER, 3)
        invoke("i64_urem", COUNTER, 7)
        CVTSI2SD(xmm0, r12)
        invoke("f64_nearest")
        invoke("memory32_grow", VMCTX, 0, 0)
        invoke("imported_memory32_grow", VMCTX, 0, 0)
        invoke("table_grow", VMCTX, 0, 0, A)
        invoke("table_fill", VMCTX, 0, 0, A, 4)
        invoke("table_copy", VMCTX, 1, 0, 0, 0, 4)
        invoke("table_init", VMCTX, 0, 0, 1, 0, 2)
        invoke("elem_drop", VMCTX, 1)
        invoke("externref_global_set", VMCTX, 0, B)
        invoke("externref_global_get", VMCTX, 0)
        MOV([rbp + HELD], rax)
        invoke("activations_table_insert_with_gc", VMCTX, A)
        invoke("host", COUNTER)
        # A box of which native code has the only count: it counts down, and drops.
        DEC(qword[rax])
        MOV(rdi, rax)
        invoke("drop_externref")
        DEC(r12)
        JNZ(again)
        if ending:
            invoke(*ending)


ENDINGS: dict[str, tuple[Any, ...]] = {
    "returns": (),
    "HeapOutOfBounds": ("memory_fill", VMCTX, 0, MEMORY_BYTES, 1, 1),
    "TableOutOfBounds": ("table_fill", VMCTX, 0, 4, A, 1),
    "IntegerDivisionByZero": ("i64_sdiv", 1, 0),
    "UnreachableCodeReached": ("asm_libcalls_raise_trap", 9),
    "HostError": ("raises",),
    "LimiterError": ("memory32_grow", VMCTX, 1, 0),
    "DestructorError": ("externref_global_set", VMCTX, 0, B),
}


class Soak:
    """The instance, the code, and a round of it."""

    def __init__(self) -> None:
        self.registry = StackMapRegistry()
        imported = Memory(2, 2)
        self.tables = [Table("externref", 4, 4), Table("externref", 4, 4)]
        self.segment_values = [VMExternRef(Thing()), VMExternRef(Thing())]
        self.global_ = Global("externref", None, True)
        self.instance = Instance(
            [Memory(2, 5, limiter=self.limiter)],
            self.tables,
            [self.global_],
            data=[b"12345678", b"dropped"],
            elements=[("externref", self.segment_values), ("externref", [None])],
            imports={"memories": [imported]},
            stack_map_registry=self.registry,
        )
        self.host = HostFunction(self.in_host, "(u64) -> pointer")
        self.raises = HostFunction(self.raise_in_host, "()")
        self.code = NativeCode(
            {name: lambda ending=ending: body(*ending) for name, ending in ENDINGS.items()},
            {
                **{name: libcall.address for name, libcall in LIBCALLS.items()},
                **asm_libcalls.runtime_symbols(),
                "host": self.host.address,
                "raises": self.raises.address,
            },
        )
        for name in ENDINGS:
            sites = [
                label.removeprefix(f"{name}.")
                for label in self.code.loaded.image.labels
                if label.startswith(f"{name}.site")
            ]
            self.code.register(self.registry, name, {key: [0] for key in sites})
        self.functions = {
            name: catch_traps(self.code[name], "(vmctx, u64, pointer, pointer)") for name in ENDINGS
        }
        self.counter = ctypes.c_uint64(0)
        self.outcomes: Counter[str] = Counter()
        self.collections = 0
        self.rounds = 0
        self.plant = False

    def limiter(self, current: int, desired: int, maximum: int | None) -> bool:
        if desired != current:
            raise LimiterError
        return True

    def in_host(self, count: int) -> int:
        if count % 8 == 0:
            asm_libcalls.gc(self.instance)
            self.collections += 1
        if count == 1 and self.plant:
            self.global_.value = Fragile()  # it dies when native code overwrites it at the end
        counts = externref_boxes.new_box(Thing())
        return counts.pop()  # owned by native code alone

    def raise_in_host(self) -> None:
        raise HostError

    def round(self, iterations: int) -> None:
        """Run one function with new values, and drop all that native code left."""
        name = list(ENDINGS)[self.rounds % len(ENDINGS)]
        self.rounds += 1
        a, b = VMExternRef(Thing()), VMExternRef(Thing())
        references = (ctypes.c_uint64 * 2)(a.as_raw(), b.as_raw())
        self.plant = name == "DestructorError"
        arguments = (
            self.instance.vmctx, iterations, ctypes.addressof(references),
            ctypes.addressof(self.counter),
        )  # fmt: skip
        try:
            self.functions[name](*arguments)
            self.outcomes["returns"] += 1
        except Exception as error:
            if type(error).__name__ != name:
                raise
            self.outcomes[name] += 1
        a.drop()
        b.drop()

    def settle(self) -> dict[str, int]:
        """Empty what holds values, and return what is left."""
        for table in self.tables:
            for i in range(len(table)):
                table[i] = None
        self.global_.value = None
        asm_libcalls.gc(self.instance)
        python_gc.collect()
        return {
            "things": len(Thing.alive),
            "boxes": externref_boxes.live_count(),
            "segment counts": sum(ref.strong_count() for ref in self.segment_values),
            "activations": len(self.instance.activations_table),
            "objects": len(python_gc.get_objects()),
        }


def resident_kilobytes() -> int:
    """Return the resident set of this process, in KiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4


def main(calls: int) -> dict[str, Any]:
    """Make so many calls, a tenth of them to warm up, and check that nothing has grown."""
    soak = Soak()
    begin = time.perf_counter()
    while soak.counter.value < calls // 10:
        soak.round(20)
    left, resident = soak.settle(), resident_kilobytes()
    while soak.counter.value < calls:
        soak.round(20)
    left_now, resident_now = soak.settle(), resident_kilobytes()
    return {
        "calls": soak.counter.value,
        "seconds": round(time.perf_counter() - begin, 1),
        "rounds": soak.rounds,
        "outcomes": dict(soak.outcomes),
        "collections": soak.collections,
        "things made": Thing.made,
        "left": left_now,
        "left after warm-up": left,
        "resident KiB after warm-up": resident,
        "resident KiB at the end": resident_now,
    }


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1])), indent=1))
