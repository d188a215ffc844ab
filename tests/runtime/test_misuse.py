"""Every stateful libcall, called wrongly from Python: a clear error, and no change of state."""

from __future__ import annotations

import ctypes
import itertools
from typing import Any

import pytest

import asm_libcalls
from asm_libcalls import Global, Instance, Memory, Table, VMExternRef
from asm_libcalls.functions import make_functions
from asm_libcalls.libcalls import DECLARATIONS
from asm_libcalls.runtime import externref_boxes

STATEFUL = [
    name for name, row in DECLARATIONS.items() if row.signature.parameters[0].name == "vmctx"
]
assert len(STATEFUL) == 17  # all 18 but drop_externref

CALLERS = ["call", "call_bits", "function", "fallback", "fallback call_bits"]


class Scene:
    """An instance with two of everything, a set of good arguments, and its state to compare."""

    def __init__(self, binding) -> None:
        self.value = VMExternRef("value")
        imported = Memory(1, 4)
        Instance([imported])
        self.instance = Instance(
            [Memory(1, 4)],
            [Table("externref", 4, 8), Table("externref", 4, 8), Table("funcref", 4, 8)],
            [Global("i32", 5, True), Global("externref", "old", True)],
            functions=[(16, 1)],
            data=[b"abcd", b"efgh"],
            elements=[
                ("externref", ["a", "b"]),
                ("externref", ["c"]),
                ("funcref", [0, None]),
            ],
            imports={"memories": [imported]},
            binding=binding,
        )
        for memory in self.instance.memories:
            memoryview(memory)[:8] = b"contents"
        self.instance.tables[1][0] = "in table 1"
        self.function = self.instance.functions[0]

    def arguments(self, name: str) -> dict[str, Any]:
        """Return arguments with which the libcall does something."""
        row = DECLARATIONS[name]
        values = {
            "vmctx": self.instance,
            "delta": 1,
            "defined_memory_index": 0,
            "memory_index": 0,
            "dst_memory_index": 0,
            "src_memory_index": 1,
            "data_index": 1,
            "table_index": 0,
            "dst_table_index": 0,
            "src_table_index": 1,
            "elem_index": 1,
            "global_index": 1,
            "dst": 1,
            "src": 0,
            "val": 7,
            "len": 1,
            "init_value": self.value,
            "externref": self.value,
        }
        if name == "table_fill":
            values["val"] = self.value
        return {parameter: values[parameter] for parameter in row.parameters}

    def state(self) -> list[Any]:
        instance = self.instance
        return [
            [bytes(memoryview(m)[:16]) if not m.closed else None for m in instance.memories],
            [m.current_size() for m in instance.memories],
            [None if t.closed else list(t) for t in instance.tables],
            [None if g.closed else g.bits for g in instance.globals],
            [len(e) for e in instance.elements],
            [instance.data_segment(i)[1] for i in range(2)],
            len(instance.activations_table),
            self.value.strong_count(),
        ]


@pytest.fixture
def scene(binding):
    return Scene(binding)


@pytest.fixture(params=CALLERS)
def caller(request, binding):
    """How Python calls a libcall: ``caller(name, arguments)``."""

    functions = make_functions(binding) if request.param == "function" else {}

    def call(name, arguments):
        if functions:
            return functions[name](*arguments)
        libcall = binding.libcalls[name]
        if request.param.startswith("fallback"):
            libcall = libcall.fallback
        if request.param.endswith("call_bits"):
            return libcall.call_bits(*(raw(a) for a in arguments))
        return libcall(*arguments)

    call.is_function = request.param in ("function", "call")
    call.takes_objects = not request.param.endswith("call_bits")
    return call


def raw(argument: Any) -> Any:
    if isinstance(argument, Instance):
        return argument.vmctx
    if isinstance(argument, VMExternRef) or hasattr(argument, "func_ptr"):
        return argument.as_raw()
    return 0 if argument is None else argument


def expect(caller, scene, name, arguments, errors, parameter, message=""):
    """Call and check: the error, its words, and that nothing has changed."""
    before = scene.state()
    with pytest.raises(errors, match=rf"^{name}\(\): argument '{parameter}'.*{message}"):
        caller(name, list(arguments.values()))
    assert scene.state() == before


def each(parameters: str) -> list[tuple[str, str]]:
    """Return (libcall, parameter) for every parameter of these kinds."""
    return [
        (name, parameter)
        for name in STATEFUL
        for parameter in DECLARATIONS[name].parameters
        if parameter in parameters.split()
    ]


NUMBERS = (
    "delta defined_memory_index memory_index dst_memory_index src_memory_index data_index "
    "table_index dst_table_index src_table_index elem_index global_index dst src len"
)
INDICES = " ".join(name for name in NUMBERS.split() if name.endswith("index"))
NUMBER_CASES = each(NUMBERS) + [(n, "val") for n in ("memory_fill", "imported_memory_fill")]
REFERENCE_CASES = [
    ("table_grow", "init_value"),
    ("table_fill", "val"),
    ("activations_table_insert_with_gc", "externref"),
    ("externref_global_set", "externref"),
]


@pytest.mark.parametrize("name", STATEFUL)
def test_the_good_arguments_are_good(scene, caller, name):
    """The tests below depend on this."""
    before = scene.state()
    caller(name, list(scene.arguments(name).values()))
    if not name.endswith("size"):
        assert scene.state() != before


@pytest.mark.parametrize(("name", "parameter"), NUMBER_CASES)
def test_wrong_type_of_a_number(scene, caller, name, parameter):
    for bad in ("1", b"1", 1.0, None, [], 1j, scene.value):
        if bad is None and not caller.takes_objects:
            continue  # null is a pattern
        if bad is scene.value and not caller.takes_objects:
            continue  # as a pattern it is a number
        arguments = scene.arguments(name) | {parameter: bad}
        expect(caller, scene, name, arguments, TypeError, parameter, "must be")


@pytest.mark.parametrize(("name", "parameter"), NUMBER_CASES)
def test_number_out_of_32_bits(scene, caller, name, parameter):
    for bad in (1 << 32, -(1 << 31) - 1, 1 << 64, -(1 << 64), 10**30):
        arguments = scene.arguments(name) | {parameter: bad}
        expect(caller, scene, name, arguments, OverflowError, parameter, "must be")


@pytest.mark.parametrize(("name", "parameter"), each(INDICES))
def test_index_outside_the_index_space(scene, caller, name, parameter):
    there = {
        "defined_memory_index": 1,
        "memory_index": 1 if name.startswith("imported") else 2,
        "dst_memory_index": 2,
        "src_memory_index": 2,
        "data_index": 2,
        "table_index": 3,
        "dst_table_index": 3,
        "src_table_index": 3,
        "elem_index": 3,
        "global_index": 2,
    }[parameter]
    for bad in (there, there + 1, 1000, 0x80000000, 0xFFFFFFFF):
        arguments = scene.arguments(name) | {parameter: bad}
        expect(
            caller, scene, name, arguments, ValueError, parameter,
            rf"{bad} is not in the instance \(0 \.\. {there - 1}\)",
        )  # fmt: skip


@pytest.mark.parametrize(("name", "parameter"), each(INDICES))
def test_index_where_there_is_nothing(binding, caller, name, parameter):
    scene = Scene(binding)
    arguments = scene.arguments(name) | {"vmctx": Instance()}
    with pytest.raises(ValueError, match=r"is not in the instance \(there are none\)"):
        caller(name, list(arguments.values()))


@pytest.mark.parametrize("name", STATEFUL)
def test_vmctx_that_is_none(scene, caller, name):
    vmctx = scene.instance.vmctx
    for bad in (0, 1, 8, vmctx + 16, vmctx - 16, vmctx ^ 1, 1 << 47, (1 << 64) - 1):
        arguments = scene.arguments(name) | {"vmctx": bad}
        expect(caller, scene, name, arguments, ValueError, "vmctx", "no live instance at vmctx")
    for bad in ("x", 1.5, b"12345678", object(), scene.instance.memories[0]):
        arguments = scene.arguments(name) | {"vmctx": bad}
        expect(caller, scene, name, arguments, TypeError, "vmctx", "must be")
    if caller.takes_objects:
        arguments = scene.arguments(name) | {"vmctx": None}
        message = "must be an asm_libcalls.Instance or a vmctx"  # toy_jit has an Instance too
        expect(caller, scene, name, arguments, TypeError, "vmctx", message)
        for bad in (-1, 1 << 64, 1 << 70):
            arguments = scene.arguments(name) | {"vmctx": bad}
            expect(caller, scene, name, arguments, ValueError, "vmctx", "no live instance")
    else:
        for bad in (-1, 1 << 64):
            arguments = scene.arguments(name) | {"vmctx": bad}
            expect(caller, scene, name, arguments, OverflowError, "vmctx", "bit pattern")


@pytest.mark.parametrize("name", STATEFUL)
def test_closed_instance(scene, caller, name):
    instance = scene.instance
    vmctx, arguments = instance.vmctx, scene.arguments(name)
    memories, tables, globals_ = instance.memories, instance.tables, instance.globals
    elements = instance.elements
    instance.close()
    state = [bytes(m) for m in memories], [list(t) for t in tables], [g.bits for g in globals_]
    if caller.takes_objects:
        with pytest.raises(
            ValueError, match=rf"^{name}\(\): argument 'vmctx': the Instance is closed"
        ):
            caller(name, list(arguments.values()))
    with pytest.raises(ValueError, match=rf"^{name}\(\): argument 'vmctx': no live instance"):
        caller(name, list((arguments | {"vmctx": vmctx}).values()))
    after = [bytes(m) for m in memories], [list(t) for t in tables], [g.bits for g in globals_]
    assert after == state
    assert scene.value.strong_count() == 1
    assert not any(map(len, elements))


PARTS = {
    "defined_memory_index": lambda instance: (instance.memories[1], "Memory"),
    "memory_index": lambda instance: (instance.memories[0], "Memory"),
    "dst_memory_index": lambda instance: (instance.memories[0], "Memory"),
    "src_memory_index": lambda instance: (instance.memories[1], "Memory"),
    "table_index": lambda instance: (instance.tables[0], "Table"),
    "dst_table_index": lambda instance: (instance.tables[0], "Table"),
    "src_table_index": lambda instance: (instance.tables[1], "Table"),
    "global_index": lambda instance: (instance.globals[1], "Global"),
}


@pytest.mark.parametrize(("name", "parameter"), each(" ".join(PARTS)))
def test_closed_part(scene, caller, name, parameter):
    part, kind = PARTS[parameter](scene.instance)
    part.close()
    arguments = scene.arguments(name)
    expect(
        caller, scene, name, arguments, ValueError, parameter,
        rf"{kind} {arguments[parameter]} is closed",
    )  # fmt: skip


@pytest.mark.parametrize(("name", "parameter"), REFERENCE_CASES)
def test_reference_that_is_none(scene, caller, name, parameter):
    dead = VMExternRef("dead")
    address = dead.as_raw()
    dead.drop()
    bad_addresses = [
        1,
        8,
        address,
        scene.value.as_raw() + 8,
        (1 << 64) - 1,
        scene.function.as_raw(),
    ]
    for bad in bad_addresses:
        arguments = scene.arguments(name) | {parameter: bad}
        expect(
            caller, scene, name, arguments, ValueError, parameter, "no live externref at address"
        )
    for bad in ("x", 1.5, [], object(), VMExternRef):
        arguments = scene.arguments(name) | {parameter: bad}
        expect(caller, scene, name, arguments, TypeError, parameter, "must be a")
    if caller.takes_objects:
        for bad in (-1, 1 << 64, 1 << 70):
            arguments = scene.arguments(name) | {parameter: bad}
            expect(caller, scene, name, arguments, ValueError, parameter, "no live externref")
        expect(
            caller, scene, name, scene.arguments(name) | {parameter: scene.function},
            TypeError, parameter, "must be a VMExternRef, a raw pointer or None.*got FuncRef",
        )  # fmt: skip
        before = scene.state()
        with pytest.raises(ValueError, match="the VMExternRef was dropped"):
            caller(name, list((scene.arguments(name) | {parameter: dead}).values()))
        assert scene.state() == before


@pytest.mark.parametrize(("name", "parameter"), REFERENCE_CASES[:2])
def test_reference_for_a_table_of_functions(scene, caller, name, parameter):
    table = {"table_index": 2}
    bad_addresses = [1, scene.value.as_raw(), scene.function.as_raw() + 24, scene.instance.vmctx]
    for bad in bad_addresses:
        arguments = scene.arguments(name) | table | {parameter: bad}
        expect(
            caller, scene, name, arguments, ValueError, parameter,
            "no live function reference at address",
        )  # fmt: skip
    if caller.takes_objects:
        arguments = scene.arguments(name) | table
        expect(
            caller, scene, name, arguments, TypeError, parameter,
            r"must be a FuncRef, a raw pointer or None \(the table holds funcref\), got VMExtern",
        )  # fmt: skip
    gone = Instance(functions=[(32, 1)])
    address = gone.functions[0].as_raw()
    gone.close()
    arguments = scene.arguments(name) | table | {parameter: address}
    expect(caller, scene, name, arguments, ValueError, parameter, "no live function reference")


def test_a_null_to_insert(scene, caller):
    name = "activations_table_insert_with_gc"
    arguments = scene.arguments(name) | {"externref": None if caller.takes_objects else 0}
    expect(caller, scene, name, arguments, ValueError, "externref", "must not be null")


@pytest.mark.parametrize("name", ["externref_global_get", "externref_global_set"])
def test_global_of_another_type(scene, caller, name):
    arguments = scene.arguments(name) | {"global_index": 0}
    expect(
        caller, scene, name, arguments, TypeError, "global_index",
        "global 0 has type i32, not externref",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("table_copy", {"src_table_index": 2}),
        ("table_copy", {"dst_table_index": 2}),
        ("table_init", {"elem_index": 2}),
        ("table_init", {"table_index": 2}),
        ("table_copy", {"src_table_index": 2, "len": 0}),
        ("table_init", {"table_index": 2, "len": 0}),
    ],
)
def test_two_reference_types(scene, caller, name, change):
    """No validated module does that; the error says which table holds what."""
    before = scene.state()
    arguments = scene.arguments(name) | change
    with pytest.raises(TypeError, match=rf"^{name}\(\): .* (funcref|externref), table \d holds|"
                                        rf"^{name}\(\): .* holds (funcref|externref)"):  # fmt: skip
        caller(name, list(arguments.values()))
    assert scene.state() == before


class TestDropExternref:
    def test_that_is_owned(self, caller, binding):
        ref = VMExternRef("x")
        second = ref.clone()
        with pytest.raises(
            ValueError,
            match=r"drop_externref\(\): argument 'externref': .* still has 2 owners",
        ):
            caller("drop_externref", [ref])
        assert second.strong_count() == 2

    @pytest.mark.parametrize("bad", [1, 8, (1 << 64) - 1])
    def test_that_is_garbage(self, caller, bad):
        with pytest.raises(ValueError, match="'externref': no live externref at address"):
            caller("drop_externref", [bad])

    def test_null(self, caller):
        with pytest.raises(ValueError, match="'externref' must not be null"):
            caller("drop_externref", [0])

    @pytest.mark.parametrize("bad", ["x", 1.5, object(), b"x"])
    def test_of_a_wrong_type(self, caller, bad):
        with pytest.raises(TypeError, match=r"drop_externref\(\): argument 'externref' must be"):
            caller("drop_externref", [bad])

    def test_twice(self, caller):
        ref = VMExternRef("kept")
        address = externref_boxes.retain(ref.as_raw())
        ref.drop()
        ctypes.c_uint64.from_address(address).value = 0
        caller("drop_externref", [address])
        with pytest.raises(ValueError, match="no live externref"):
            caller("drop_externref", [address])


@pytest.mark.parametrize("name", [*STATEFUL, "drop_externref"])
def test_count_of_arguments(scene, caller, name):
    good = list(scene.arguments(name).values()) if name in STATEFUL else [scene.value]
    before = scene.state()
    # A function says it as functions of its type do.
    message = rf"\b{name}\(\) " if caller.is_function else rf"^{name}\(\) takes {len(good)} arg"
    for arguments in ([], good[:-1], [*good, 1]):
        if len(arguments) == len(good):
            continue
        with pytest.raises(TypeError, match=message):
            caller(name, arguments)
    assert scene.state() == before


@pytest.mark.parametrize("name", STATEFUL)
def test_keywords(scene, binding, name):
    with pytest.raises(TypeError, match=rf"\b{name}\(\) takes no keyword arguments"):
        binding.libcalls[name](vmctx=scene.instance)


@pytest.mark.parametrize("name", STATEFUL)
def test_an_index_object_that_raises_or_closes(scene, binding, name):
    """Arguments are Python objects: reading them runs anything."""

    class Raises:
        def __index__(self):
            raise OSError("from __index__")

    class Closes:
        def __index__(self):
            scene.instance.close()
            return 0

    good = scene.arguments(name)
    number = next((p for p in reversed(good) if p in NUMBERS.split() or p == "val"), None)
    if number is None:
        return
    if good[number] is not scene.value:
        before = scene.state()
        with pytest.raises(OSError, match="from __index__"):
            binding.libcalls[name](*(good | {number: Raises()}).values())
        assert scene.state() == before
    with pytest.raises((ValueError, TypeError)):
        binding.libcalls[name](*(good | {number: Closes()}).values())
    assert scene.value.strong_count() == 1


def test_all_garbage_at_once(binding, random_cases):
    """Random arguments of every kind, to every libcall: an error each time, never a crash."""
    scene = Scene(binding)
    kinds = [
        0, 1, -1, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 63, (1 << 64) - 1, 1 << 200, None, "x", 1.5,
        b"x", object(), scene.value, scene.function, scene.value.as_raw(), scene.function.as_raw(),
        scene.instance.memories[0], scene.instance.vmctx, VMExternRef, float("nan"), [],
    ]  # fmt: skip
    for name, _ in itertools.product([*STATEFUL, "drop_externref"], range(60)):
        libcall = binding.libcalls[name]
        for function in (libcall, libcall.call_bits, libcall.fallback):
            arguments = [random_cases.choice(kinds) for _ in libcall.signature.parameters]
            if arguments[0] == scene.instance.vmctx:
                arguments[0] = scene.instance.vmctx + 1
            with pytest.raises((TypeError, ValueError, OverflowError)):
                function(*arguments)
    assert scene.instance.memories[0].size == 1


LONG = 2**100_000


@pytest.mark.parametrize(
    "call",
    [
        lambda: asm_libcalls.Signature("x" * 100_000),
        lambda: asm_libcalls.Signature("(" + "x" * 100_000 + ")"),
        lambda: asm_libcalls.native_function(1, "y" * 100_000),
        lambda: asm_libcalls.externref_global_set(LONG, 0, None),
        lambda: asm_libcalls.VMExternRef.clone_from_raw(LONG),
        lambda: asm_libcalls.FuncRef.from_raw(LONG),
        lambda: asm_libcalls.memory32_size(LONG, 0),
    ],
)
def test_an_error_is_shorter_than_what_it_tells_of(call):
    with pytest.raises((TypeError, ValueError, OverflowError)) as caught:
        call()
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("address", ["x", None, 1.5, [], b"x"])
@pytest.mark.parametrize(
    "function", [asm_libcalls.FuncRef.from_raw, asm_libcalls.VMExternRef.clone_from_raw]
)
def test_what_is_no_address(function, address):
    expected = rf"from_raw\(\): address must be an int, got {type(address).__name__}"
    with pytest.raises(TypeError, match=expected):
        function(address)


def test_a_class_with_an_odd_module():
    odd = type("Instance", (), {"__module__": 5})()
    for call in (asm_libcalls.gc, lambda instance: asm_libcalls.memory32_size(instance, 0)):
        with pytest.raises(TypeError, match=r"got 5\.Instance"):
            call(odd)


def test_an_instance_of_the_other_kind_is_named(machine_code):
    module = asm_libcalls.toy_jit.Module(b"\0asm\1\0\0\0")
    other = asm_libcalls.toy_jit.Instance(module)
    for call in (asm_libcalls.gc, lambda instance: asm_libcalls.memory32_size(instance, 0)):
        with pytest.raises(TypeError, match=r"got asm_libcalls\.toy_jit\.instance\.Instance"):
            call(other)
