"""One random sequence of libcalls, two instances of equal structure, every step compared.

One world is driven through what serves the libcalls, from Python and at the C addresses with traps
caught, the other through the fallback. After each step memories, tables (by value), globals,
segments, reference counts, destructors that ran, results, traps and errors must agree.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
from typing import Any

import hypothesis
import pytest
from held_references import held_by
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import asm_libcalls
from asm_libcalls import LIBCALLS, Global, Instance, Memory, Table, Trap, VMExternRef, catch_traps
from asm_libcalls.binding import default_binding
from asm_libcalls.libcalls import DECLARATIONS
from asm_libcalls.runtime import externref_boxes

PAGE = 65536

AT_ADDRESS = st.booleans() if default_binding().x86_64 else st.just(False)
"""Whether a libcall is called at its C address: there, without machine code, a collection does
nothing, because native frames cannot be walked, and the worlds differ rightly."""

CALLS = [
    name
    for name, row in DECLARATIONS.items()
    if row.signature.parameters[0].name == "vmctx"
]  # fmt: skip


def called(function, arguments):
    """Call a function of the package, and return the bit pattern of its result."""
    return function(*arguments) or 0


class Refused(Exception):
    """What a limiter or a destructor raises here; equal by its text."""


class Thing:
    """A value of an externref; its destructor leaves a note, and may raise or collect."""

    def __init__(self, name: str, kind: str, world: World) -> None:
        self.name, self.kind, self.world = name, kind, world

    def __del__(self) -> None:
        self.world.log.append(self.name)
        if self.kind == "raises":
            raise Refused(f"destructor of {self.name}")
        if self.kind == "collects" and not self.world.instances[0].closed:
            asm_libcalls.gc(self.world.instances[0])
        if self.kind == "writes" and not self.world.tables[1].closed:
            self.world.tables[1][0] = None


class World:
    """Two instances, one importing from the other, and all that they hold."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.refs: dict[str, VMExternRef] = {}
        self.boxes: dict[str, int] = {}
        memories = [Memory(1, 3, limiter=self.limiter), Memory(0, 2), Memory(2, None)]
        tables = [
            Table("externref", 5, 9),
            Table("externref", 3, limiter=self.limiter),
            Table("funcref", 4, 7),
            Table("externref", 2, 40),
        ]
        globals_ = [Global("externref", None, True), Global("externref", None, True)]
        owner = Instance(
            memories[:2],
            tables[:3],
            globals_[:1],
            functions=[(16, 1), (32, 2)],
            data=[b"0123456789", b"", b"x" * PAGE],
            elements=[
                ("externref", [self.thing("segment 0", "plain"), None, self.thing("s1", "plain")]),
                ("funcref", [1, None, 0]),
                ("externref", []),
            ],
        )
        user = Instance(
            memories[2:],
            tables[3:],
            globals_[1:],
            functions=[(48, 3)],
            data=[bytes(range(256))],
            elements=[("externref", [self.thing("s2", "writes")]), ("funcref", [0, 1])],
            imports={
                "memories": memories[:2][::-1],
                "tables": [tables[2], tables[0]],
                "globals": globals_[:1],
                "functions": owner.functions[:1],
            },
        )
        self.memories, self.tables, self.globals = memories, tables, globals_
        self.instances = [owner, user]
        self.functions = [*owner.functions, *user.functions]
        for i, memory in enumerate(memories):
            view = memoryview(memory)
            for at in range(0, len(view), 509):
                view[at] = (at + i) % 251

    def thing(self, name: str, kind: str) -> Thing:
        return Thing(name, kind, self)

    def limiter(self, current: int, desired: int, maximum: int | None) -> bool:
        self.log.append(f"limiter {current} {desired} {maximum}")
        if desired % 7 == 5:
            raise Refused(f"limiter at {desired}")
        return desired % 11 != 4

    def new_reference(self, name: str, kind: str) -> None:
        ref = VMExternRef(self.thing(name, kind))
        self.refs[name], self.boxes[name] = ref, ref.as_raw()

    def pattern_of(self, argument: int | tuple[str, Any]) -> int:
        """Return a number as it is, and of a reference (by kind and key) this world's pointer."""
        if isinstance(argument, int):
            return argument
        kind, key = argument
        return (self.refs[key] if kind == "externref" else self.functions[key]).as_raw()

    def object_of(self, argument: int | tuple[str, Any]) -> Any:
        """Return a number as it is, and of a reference this world's Python object."""
        if isinstance(argument, int):
            return argument
        kind, key = argument
        return self.refs[key] if kind == "externref" else self.functions[key]

    def name_of(self, pointer: int) -> str | None:
        if not pointer:
            return None
        value = externref_boxes.value_of(pointer)
        return value.name

    def state(self) -> dict[str, Any]:
        """Return everything, without an address in it."""
        return {
            "memories": [bytes(memory) for memory in self.memories],
            "tables": [
                [None if v is None else getattr(v, "name", None) or self.functions.index(v)
                 for v in table]
                for table in self.tables
            ],
            "globals": [self.name_of(g.bits) for g in self.globals],
            "segments": [[len(e) for e in i.elements] for i in self.instances],
            "data": [[i.data_segment(n)[1] for n in range(len(i.data))] for i in self.instances],
            "activations": [len(i.activations_table) for i in self.instances],
            "counts": {
                name: externref_boxes.strong_count(address) if self.is_mine(address, name) else 0
                for name, address in self.boxes.items()
            },
            "log": list(self.log),
        }  # fmt: skip

    def is_mine(self, address: int, name: str) -> bool:
        """Return whether the box still has the value that it had under this name."""
        return externref_boxes.is_live(address) and getattr(
            externref_boxes.value_of(address), "name", None) == name  # fmt: skip


def outcome(function: Any, *arguments: Any) -> tuple[Any, ...]:
    try:
        return ("result", function(*arguments))
    except Trap as trap:
        return ("trap", trap.code)
    except Refused as error:
        return ("raised", str(error))


NUMBERS = st.one_of(
    st.integers(0, 12),
    st.sampled_from(
        [PAGE - 1, PAGE, PAGE + 1, 2 * PAGE, 3 * PAGE, 2**31, 2**32 - 1, 2**32 - PAGE, 1000, 300]
    ),
    st.integers(0, 3 * PAGE),
)


def mostly(numbers: st.SearchStrategy[int]) -> st.SearchStrategy[int]:
    """Return a strategy of these numbers, and of any now and then."""
    return st.integers(0, 9).flatmap(lambda die: NUMBERS if die == 9 else numbers)


class Worlds(RuleBasedStateMachine):
    """The machine: each rule does one thing in both worlds."""

    @initialize()
    def make(self) -> None:
        self.worlds = (World(), World())
        self.names = 0
        for kind in ("plain", "plain", "raises", "collects"):
            self.new_reference(kind)

    def teardown(self) -> None:
        for world in getattr(self, "worlds", ()):
            for close in (*world.instances, *world.tables, *world.globals, *world.refs.values()):
                with contextlib.suppress(Refused):
                    close.close()
            for memory in world.memories:
                memory.close()
            live = [n for n, a in world.boxes.items() if world.is_mine(a, n)]
            assert live == []

    @rule(kind=st.sampled_from(["plain", "plain", "raises", "collects", "writes"]))
    def new(self, kind: str) -> None:
        self.new_reference(kind)

    def new_reference(self, kind: str) -> None:
        self.names += 1
        for world in self.worlds:
            world.new_reference(f"{kind} {self.names}", kind)

    @precondition(lambda self: self.worlds[0].refs)
    @rule(data=st.data())
    def let_go(self, data: st.DataObject) -> None:
        """Python gives its own reference up; tables, globals and segments may have others."""
        names = sorted(self.worlds[0].refs)
        name = data.draw(st.sampled_from(names))
        results = [outcome(world.refs.pop(name).drop) for world in self.worlds]
        assert results[0] == results[1]

    @precondition(lambda self: self.worlds[0].refs)
    @rule(data=st.data(), at_address=AT_ADDRESS)
    def drop_by_libcall(self, data: st.DataObject, at_address: bool) -> None:
        """The last owner is native code: it counts down to 0 and calls drop_externref."""
        single = [
            name for name, ref in self.worlds[0].refs.items()
            if ref.strong_count() == 1
        ]  # fmt: skip
        if not single:
            return
        name = data.draw(st.sampled_from(sorted(single)))
        libcall = LIBCALLS["drop_externref"]
        results = []
        for i, world in enumerate(self.worlds):
            address = externref_boxes.retain(world.refs[name].as_raw())
            world.refs.pop(name).drop()
            ctypes.c_size_t.from_address(address).value = 0
            if i == 1:
                function = libcall.fallback
            elif at_address:
                function = catch_traps(libcall.address, libcall.signature)
            else:
                function = libcall
            results.append(outcome(function, address))
        assert results[0] == results[1]

    @rule(which=st.integers(0, 1))
    def collect(self, which: int) -> None:
        results = [outcome(asm_libcalls.gc, world.instances[which]) for world in self.worlds]
        assert results[0] == results[1]

    @rule(
        which=st.integers(0, 2), at=st.integers(0, PAGE), value=st.binary(min_size=1, max_size=40)
    )
    def write_from_python(self, which: int, at: int, value: bytes) -> None:
        for world in self.worlds:
            view = memoryview(world.memories[which])
            part = view[at : at + len(value)]
            part[:] = value[: len(part)]

    def call(self, name: str, which: int, at_address: bool, data: st.DataObject) -> None:
        """Call a libcall with arguments that a module may use; each has a rule of its own."""
        libcall = LIBCALLS[name]
        arguments = self.draw_arguments(name, which, data)
        if arguments is None:
            return
        results = []
        for i, world in enumerate(self.worlds):
            patterns = [world.instances[which].vmctx]
            patterns += map(world.pattern_of, arguments)
            if i == 1:
                function = libcall.fallback.call_bits
            elif at_address:
                function = catch_traps(libcall.address, libcall.signature).call_bits
            elif data.draw(st.integers(0, 3), label="from Python"):
                # The machine code that Python calls, where there is any.
                arguments_ = (world.instances[which], *map(world.object_of, arguments))
                function = functools.partial(called, getattr(asm_libcalls, name), arguments_)
                patterns = []
            else:
                function = libcall.call_bits
            result = outcome(function, *patterns)
            if name == "externref_global_get" and result[0] == "result":
                result = ("result", world.name_of(result[1]))
            results.append(result)
        assert results[0] == results[1], (name, arguments)

    def draw_arguments(self, name: str, which: int, data: st.DataObject) -> list[Any] | None:
        """Return the arguments after the vmctx; None where there are none that a module may use."""
        world = self.worlds[0]
        instance = world.instances[which]
        imported = instance.offsets.num_imported_memories
        spaces = {
            "defined_memory_index": len(instance.memories) - imported,
            "memory_index": imported if name.startswith("imported_") else len(instance.memories),
            "dst_memory_index": len(instance.memories),
            "src_memory_index": len(instance.memories),
            "data_index": len(instance.data),
            "table_index": len(instance.tables),
            "dst_table_index": len(instance.tables),
            "src_table_index": len(instance.tables),
            "elem_index": len(instance.elements),
            "global_index": len(instance.globals),
        }
        drawn: dict[str, Any] = {}
        for parameter in DECLARATIONS[name].parameters[1:]:
            if parameter in spaces:
                if not spaces[parameter]:
                    return None
                drawn[parameter] = data.draw(st.integers(0, spaces[parameter] - 1), label=parameter)
        tables = [instance.tables[drawn[p]] for p in drawn if p.endswith("table_index")]
        if len({table.element_type for table in tables}) > 1:
            return None
        if "elem_index" in drawn and "table_index" in drawn:
            segment = instance.elements[drawn["elem_index"]]
            if segment.element_type != tables[0].element_type:
                return None
        arguments: list[Any] = []
        ends: dict[str, int] = {}  # how much there is behind each start
        for parameter, value_type in zip(
            DECLARATIONS[name].parameters[1:],
            DECLARATIONS[name].signature.parameters[1:],
            strict=True,
        ):
            if parameter in drawn:
                arguments.append(drawn[parameter])
            elif value_type.name in ("reference", "externref"):
                if value_type.name == "reference" and tables[0].element_type == "funcref":
                    choices = [("funcref", i) for i in range(len(world.functions))]
                else:
                    choices = [("externref", key) for key in sorted(world.refs)]
                if name != "activations_table_insert_with_gc":
                    choices = [0, *choices]
                if not choices:
                    return None
                arguments.append(data.draw(st.sampled_from(choices), label=parameter))
            elif name == "table_grow":
                arguments.append(data.draw(st.sampled_from([0, 1, 1, 2, 3, 9, 2**32 - 1])))
            elif parameter == "delta":
                arguments.append(data.draw(st.sampled_from([0, 0, 1, 1, 2, 70000, 2**32 - 1])))
            elif parameter in ("dst", "src"):
                ends[parameter] = self.length_of(name, parameter, instance, drawn)
                start = data.draw(mostly(st.integers(0, ends[parameter])))
                ends[parameter] -= start
                arguments.append(start)
            elif parameter == "len":
                longer = max(0, *ends.values())
                most = max(0, min(ends.values()))
                near = st.sampled_from([most, most, most, most + 1, longer, longer + 1])
                arguments.append(data.draw(mostly(st.one_of(st.integers(0, most), near))))
            else:
                arguments.append(data.draw(NUMBERS, label=parameter))
        # No memory of this test may grow to gigabytes.
        if name.endswith("grow") and "memory" in name:
            at = drawn.get("defined_memory_index", -imported) + imported
            at = drawn.get("memory_index", at)
            memory = instance.memories[at]
            if memory.maximum is None and memory.size + arguments[0] > 6 and arguments[0] < 65536:
                return None
        return arguments

    @staticmethod
    def length_of(name: str, parameter: str, instance: Instance, drawn: dict[str, int]) -> int:
        """Return the length behind a `dst` or `src`: bytes of a memory, or elements."""
        if parameter == "src" and name.endswith("_init"):
            if "data_index" in drawn:
                return instance.data_segment(drawn["data_index"])[1]
            return len(instance.elements[drawn["elem_index"]])
        side = f"{parameter}_" if name.endswith("_copy") else ""
        if "table" in name:
            return len(instance.tables[drawn[f"{side}table_index"]])
        if "defined_memory_index" in drawn:
            imported = instance.offsets.num_imported_memories
            return len(instance.memories[imported + drawn["defined_memory_index"]])
        return len(instance.memories[drawn[f"{side}memory_index"]])

    @invariant()
    def worlds_agree(self) -> None:
        if not hasattr(self, "worlds"):
            return
        first, second = (world.state() for world in self.worlds)
        for key in first:
            assert first[key] == second[key], key

    @invariant()
    def every_count_is_explained(self) -> None:
        """Each owner counts one, and nothing else does."""
        if not hasattr(self, "worlds"):
            return
        for world in self.worlds:
            owners: dict[int, int] = {}
            pointers = [ref.as_raw() for ref in world.refs.values()]
            for table in world.tables:
                if table.element_type == "externref":
                    pointers += table.raw(0, len(table))
            pointers += [g.bits for g in world.globals]
            for instance in world.instances:
                for segment in instance.elements:
                    if segment.element_type == "externref":
                        pointers += segment._cells[: len(segment)]
                pointers += held_by(instance.activations_table)
            for pointer in pointers:
                owners[pointer] = owners.get(pointer, 0) + 1
            owners.pop(0, None)
            for pointer, count in owners.items():
                assert externref_boxes.strong_count(pointer) == count, world.name_of(pointer)


def _rule_of(name: str) -> Any:
    @rule(which=st.integers(0, 1), at_address=AT_ADDRESS, data=st.data())
    def call(self: Worlds, which: int, at_address: bool, data: st.DataObject) -> None:
        self.call(name, which, at_address, data)

    call.__name__ = name
    return call


for _name in CALLS:
    setattr(Worlds, _name, _rule_of(_name))


SETTINGS = hypothesis.settings(
    max_examples=int(os.environ.get("ASM_LIBCALLS_STATEFUL_EXAMPLES", "60")),
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
class TestWorlds(Worlds.TestCase):
    """Hypothesis's own runner; a destructor that raises when a world dies is no failure."""

    settings = SETTINGS


def test_libcalls_of_the_machine_are_all_with_state() -> None:
    assert len(CALLS) == 17
