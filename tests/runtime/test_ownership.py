"""Owners of C memory: made once, closed once, refused after that; no copies; odd subclasses."""

import copy
import ctypes
import gc
import operator
import pickle
import sys

import pytest
from interruptions import at_every_point

import asm_libcalls
from asm_libcalls import (
    Code,
    ElementSegment,
    FuncRef,
    Global,
    HostFunction,
    Instance,
    Memory,
    StackMapRegistry,
    Table,
    VMExternRef,
)
from asm_libcalls.owned import NotCopied
from asm_libcalls.owned.objects import Owned, Resource
from asm_libcalls.runtime.activations_table import VMExternRefActivationsTable

EMPTY_MODULE = b"\0asm\1\0\0\0"


def toy_jit_module():
    from asm_libcalls import toy_jit

    return toy_jit.Module(EMPTY_MODULE)


def toy_jit_instance():
    from asm_libcalls import toy_jit

    return toy_jit.Instance(toy_jit_module())


MAKERS = {
    "Memory": (lambda: Memory(1), (1,)),
    "Table": (lambda: Table("externref", 1), ("externref", 1)),
    "Global": (lambda: Global("externref", "x", True), ("i32",)),
    "ElementSegment": (lambda: ElementSegment("externref", ["x"]), ("externref", [])),
    "Instance": (lambda: Instance([Memory(1)]), ()),
    "StackMapRegistry": (StackMapRegistry, ()),
    "VMExternRefActivationsTable": (VMExternRefActivationsTable, ()),
    "HostFunction": (lambda: HostFunction(print, "()"), (print, "()")),
    "Code": (lambda: Code(b"\xc3", {"f": (0, 1)}), (b"\xc3",)),
    "VMExternRef": (lambda: VMExternRef("x"), ("y",)),
    "toy_jit.Module": (toy_jit_module, (EMPTY_MODULE,)),
    "toy_jit.Instance": (toy_jit_instance, (None,)),
}
USES = {
    "Memory": lambda it: it.grow(1),
    "Table": lambda it: it.grow(1),
    "Global": lambda it: it.value,
    "ElementSegment": lambda it: Instance(elements=[it]),
    "Instance": lambda it: it.vmctx,
    "StackMapRegistry": lambda it: it.register(1, 1, {}),
    "Code": lambda it: it.address,
    "VMExternRef": lambda it: it.value,
    "toy_jit.Module": lambda it: it.code,
    "toy_jit.Instance": lambda it: it.gc(),
}


@pytest.fixture(params=MAKERS)
def owner(request):
    if request.param.startswith(("toy_jit", "Code")):
        request.getfixturevalue("machine_code")
    return request.param, MAKERS[request.param][0]()


def test_each_owner_is_tried():
    """A class that is added to the base class is added here too."""

    def derived(cls):
        for sub in cls.__subclasses__():
            yield sub
            yield from derived(sub)

    from asm_libcalls import toy_jit

    assert toy_jit.Module is not toy_jit.Instance  # imported when they are asked for
    abstract = {
        "Defined",
        "Stored",
        "Growable",
        "StoppableInstance",
        "CompiledInstance",
        "HostInstance",
    }
    ours = {c for c in derived(Owned) if c.__module__.startswith("asm_libcalls")}
    found = {
        f"toy_jit.{c.__name__}" if ".toy_jit." in c.__module__ else c.__name__
        for c in ours
        if c.__name__ not in abstract
    }
    assert found | {"VMExternRef"} == set(MAKERS)


def test_closing_twice_and_use_after_it(owner):
    name, it = owner
    assert not it.closed
    it.close()
    it.close()
    assert it.closed
    with it:
        pass
    assert "closed" in repr(it) or "dropped" in repr(it) or name not in ("Memory", "Table")
    if name in USES:
        with pytest.raises(ValueError, match=r"closed|dropped"):
            USES[name](it)


def test_leaving_a_with_closes(owner):
    _, it = owner
    with it as entered:
        assert entered is it
        assert not it.closed
    assert it.closed


@pytest.mark.parametrize("closed", [False, True])
def test_making_it_again_is_refused(owner, closed):
    name, it = owner
    arguments = MAKERS[name][1]
    if closed:
        it.close()
    before = dict(vars(it)) if hasattr(it, "__dict__") else None
    with pytest.raises(RuntimeError, match=r"__init__\(\) was called again"):
        it.__init__(*arguments)
    assert it.closed == closed
    if before is not None:
        assert vars(it) == before


@pytest.mark.parametrize(
    "copier", [copy.copy, copy.deepcopy, pickle.dumps, operator.methodcaller("__getstate__")]
)
def test_copies_are_refused_by_name(owner, copier):
    _, it = owner
    with pytest.raises(TypeError, match=rf"^{type(it).__name__} objects cannot be copied"):
        copier(it)


def test_one_that_was_never_made_says_so(owner):
    name, it = owner
    if name == "VMExternRef":
        return
    unmade = object.__new__(type(it))
    assert unmade.closed
    unmade.close()
    if name in ("Memory", "Table", "Global"):
        with pytest.raises(ValueError, match=rf"the {type(it).__name__} was not made"):
            USES[name](unmade)


def test_a_failed_init_leaves_one_that_is_not_open():
    class Late(Memory):
        def __init__(self, *arguments):
            failed.append(self)
            super().__init__(*arguments)

    failed = []
    with pytest.raises(TypeError, match="minimum must be a number"):
        Late("x")
    assert failed[0].closed
    with pytest.raises(ValueError, match="was not made"):
        failed[0].grow(1)
    Memory.__init__(failed[0], 1)  # nothing was made yet
    assert failed[0].grow(1) == 1


def test_a_resource_that_two_threads_finalize_is_released_once():
    """Each goes through all that was dropped; the other one may come in at any point."""
    released = []

    def scene():
        released.clear()
        resource = Resource(lambda: released.append(1))
        return resource._finalize, resource._finalize

    def check(outcome, number):
        assert released == [1], f"at point {number}"

    assert at_every_point(scene, check) > 1


def test_no_resource_is_made_again():
    released = []
    resource = Resource(lambda: released.append(1))
    with pytest.raises(RuntimeError, match="called again"):
        resource.__init__(lambda: released.append(2))
    del resource
    assert released == [1]


def test_an_instance_goes_on_after_its_memory_refused_to_be_made_again():
    memory = Memory(1)
    instance = Instance(memories=[memory])
    with pytest.raises(RuntimeError):
        memory.__init__(1)
    gc.collect()
    asm_libcalls.memory_fill(instance, 0, 0, 7, 10)
    assert bytes(memoryview(memory)[:11]) == b"\7" * 10 + b"\0"


# --- subclasses


def test_a_subclass_whose_getattr_raises(owner):
    name, it = owner

    class Odd(type(it)):
        def __getattr__(self, name):
            raise KeyError(name)

    arguments = (toy_jit_module(),) if name == "toy_jit.Instance" else MAKERS[name][1]
    odd = Odd(*arguments)
    with pytest.raises(RuntimeError, match="called again"):
        odd.__init__(*arguments)
    odd.close()
    assert odd.closed
    object.__new__(Odd)  # dropped at once, which reports no exception


class Liar:
    """Overrides what the runtime might rely on."""

    def __len__(self):
        return 1 << 30

    def __eq__(self, other):
        return True

    def __hash__(self):
        return 7

    def __bool__(self):
        return False

    def __iter__(self):
        return iter((1, 2, 3))

    def __contains__(self, other):
        return True

    def __getitem__(self, index):
        return "a lie"

    @property
    def __class__(self):
        return int

    @property
    def size(self):
        return 1 << 30

    @property
    def closed(self):
        return False


class LyingMemory(Liar, Memory):
    pass


class LyingTable(Liar, Table):
    pass


class LyingInstance(Liar, Instance):
    pass


class LyingFuncRef(Liar, FuncRef):
    def as_raw(self):
        return 0x1234

    instance = None


class LyingRef(Liar, VMExternRef):
    def as_raw(self):
        return 0x1234


class LyingSegment(Liar, ElementSegment):
    pass


class LyingRegistry(Liar, StackMapRegistry):
    pass


def test_a_view_of_a_memory_has_its_size():
    memory = LyingMemory(1, 2)
    assert memoryview(memory).nbytes == 65536
    assert memory.grow(1) == 1
    assert memoryview(memory).nbytes == 2 * 65536
    memoryview(memory)[-1] = 1


def test_libcalls_with_liars():
    memory, table = LyingMemory(1, 2), LyingTable("externref", 2)
    instance = LyingInstance(
        [memory], [table], elements=[LyingSegment("externref", ["x"]), LyingSegment("funcref", [])]
    )
    with pytest.raises(asm_libcalls.HeapOutOfBounds):
        asm_libcalls.LIBCALLS["memory_fill"](instance, 0, 65530, 1, 7)
    assert asm_libcalls.LIBCALLS["memory32_size"](instance, 0) == 1
    with pytest.raises(asm_libcalls.TableOutOfBounds):
        asm_libcalls.LIBCALLS["table_fill"](instance, 0, 1, None, 2)
    asm_libcalls.LIBCALLS["table_init"](instance, 0, 0, 0, 0, 1)
    assert Table.__getitem__(table, 0) == "x"
    with pytest.raises(IndexError):
        Table.__getitem__(table, 5)
    reference = LyingRef("real")
    asm_libcalls.LIBCALLS["table_fill"](instance, 0, 0, reference, 1)
    assert Table.__getitem__(table, 0) == "real"
    Memory.close(memory)
    with pytest.raises(ValueError, match="closed"):
        asm_libcalls.LIBCALLS["memory_fill"](instance, 0, 0, 1, 7)


@pytest.mark.parametrize(
    "use",
    [
        lambda fake: Instance([fake]),
        lambda fake: Instance(tables=[fake]),
        lambda fake: Instance(globals=[fake]),
        lambda fake: Instance(imports={"functions": [fake]}),
        lambda fake: Instance(elements=[fake]),
        lambda fake: Instance(stack_map_registry=fake),
        asm_libcalls.gc,
        lambda fake: asm_libcalls.LIBCALLS["memory32_size"](fake, 0),
    ],
)
@pytest.mark.parametrize(
    "claimed", [Memory, Table, Global, FuncRef, ElementSegment, StackMapRegistry, Instance]
)
def test_what_says_that_it_is_one_of_ours_is_refused(use, claimed):
    class Fake:
        __class__ = claimed

    assert isinstance(Fake(), claimed)
    with pytest.raises(TypeError):
        use(Fake())


def test_a_table_keeps_the_instances_of_liars():
    """Keepers are told apart by identity: all of these say that they are equal."""
    table = Table("funcref", 2)
    for i in range(2):
        instance = LyingInstance(functions=[(16 + i, i)], function_class=LyingFuncRef)
        table[i] = instance.functions[0]
    del instance
    gc.collect()
    junk = [bytes(1000) for _ in range(100)]
    assert [FuncRef.from_raw(raw).type_index for raw in table.raw(0, 2)] == [0, 1]
    del junk


def test_each_registry_is_asked_whatever_it_is_equal_to():
    from asm_libcalls.runtime import stack_maps

    registries = [LyingRegistry() for _ in range(3)]
    for i, registry in enumerate(registries):
        registry.register(0x1000 * (i + 1), 16, {8: (-16 * i,)})
    asked = [stack_maps.stack_map(0x1000 * (i + 1) + 8, StackMapRegistry()) for i in range(3)]
    assert asked == [(0,), (-16,), (-32,)]


@pytest.mark.parametrize("name", ["element_type", "reservation", "closed"])
def test_what_the_runtime_relies_on_is_read_only(name):
    with pytest.raises(AttributeError):
        setattr(Table("funcref", 1), name, "externref")


def test_limits_that_are_changed_afterwards_change_no_limit():
    memory, table = Memory(1, 2), Table("externref", 1, 2)
    memory.maximum = table.maximum = 1 << 20
    assert memory.grow(10) == table.grow(10) == -1


def test_sequences_that_change_are_read_once():
    class Changes(list):
        def __iter__(self):
            yield from [Memory(1)] if not seen else ["no memory"]
            seen.append(1)

    seen = []
    instance = Instance(Changes())
    assert isinstance(instance.memories[0], Memory)


def test_public_attributes_that_are_replaced():
    """The VMContext points to what it was made with."""
    instance = Instance([Memory(1)], [Table("externref", 1)])
    instance.activations_table = instance.stack_map_registry = instance.interrupts = None
    instance.memories.clear()
    gc.collect()
    junk = [bytes(size) for size in range(1, 5000)]
    at = instance.vmctx + instance.offsets.vmctx_externref_activations_table()
    start, end = (ctypes.c_uint64 * 2).from_address(ctypes.c_uint64.from_address(at).value)
    assert end - start == 8 * 512
    del junk


@pytest.mark.parametrize(
    "returned", ["self", "bytes(3)", "None", "5", "memoryview(self)", "bytearray(5)"]
)
def test_a_buffer_method_that_is_odd(returned, child):
    """Python 3.12 refuses all of these itself."""
    program = f"""
    import asm_libcalls
    class Odd(asm_libcalls.Memory):
        def __buffer__(self, flags):
            return {returned}
    for _ in range(3):
        try:
            memoryview(Odd(1))
        except (TypeError, BufferError, RecursionError, ValueError) as error:
            print(type(error).__name__)
    """
    done = child(program)
    assert len(done.stdout.split()) == 3
    assert not done.stderr


def test_nothing_is_said_at_exit(child):
    program = """
    import asm_libcalls
    from asm_libcalls import *
    things = [
        Memory(1), Table("externref", 1), Global("externref", "x", True), VMExternRef(1),
        StackMapRegistry(), ElementSegment("externref", ["x"]), HostFunction(print, "()"),
    ]
    instance = Instance([Memory(1)], [Table("externref", 1)], elements=[("externref", ["y"])])
    cycle = [things, instance]
    cycle.append(cycle)
    """
    done = child(program, options=["-X", "dev"])
    assert (done.stdout, done.stderr) == ("", "")


def test_func_refs_and_their_like_are_not_copied():
    assert issubclass(FuncRef, NotCopied)


@pytest.mark.parametrize(
    "owner_of",
    [
        VMExternRef,
        lambda value: Global("externref", value, True),
        lambda value: Instance(globals=[Global("externref", value, True)]),
        lambda value: ElementSegment("externref", [value]),
    ],
    ids=["reference", "global", "instance", "segment"],
)
def test_a_long_chain_of_references_is_dropped_without_deep_recursion(owner_of):
    alive = 0

    class Link:
        def __init__(self, owner):
            nonlocal alive
            self.owner = owner
            alive += 1

        def __del__(self):
            nonlocal alive
            alive -= 1

    owner = None
    for _ in range(1500):
        owner = owner_of(Link(owner))
    owner = None
    gc.collect()
    assert alive == 0


@pytest.mark.parametrize(
    "error",
    [RecursionError, ctypes.ArgumentError("argument 1: RecursionError: maximum recursion depth")],
    ids=["ours", "of ctypes"],
)
def test_what_is_finalized_at_the_recursion_limit_is_released_later(error):
    class Resisting(Owned):
        attempts = 0

        def __init__(self):
            self._begin()
            self._finish()

        def _release(self):
            Resisting.attempts += 1
            if Resisting.attempts < 20:
                raise error

    heard = []
    hook, sys.unraisablehook = sys.unraisablehook, lambda unraisable: heard.append(0)
    try:
        Resisting()
        before = Resisting.attempts
        for _ in range(5):
            Memory(1)
    finally:
        sys.unraisablehook = hook
    assert before < Resisting.attempts == 20
    assert heard


@pytest.mark.parametrize(
    ("base", "name"),
    [
        (base, name)
        for base in (Memory, Table, Global, ElementSegment, Instance, StackMapRegistry)
        for name in sorted(
            {each for cls in base.__mro__ for each in vars(cls).get("_relied_on", ())}
        )
    ],
    ids=lambda each: each if isinstance(each, str) else each.__name__,
)
def test_subclasses_define_nothing_that_the_runtime_relies_on(base, name):
    assert hasattr(base, name)
    with pytest.raises(TypeError, match=f"Lying must not define '{name}': the runtime relies on"):
        type("Lying", (base,), {name: property(lambda self: 10**9)})
    mixin = type("Lying", (), {name: lambda self: 10**9})
    with pytest.raises(TypeError, match=f"Lying must not define '{name}'"):
        type("Mixed", (mixin, base), {})
    type("Honest", (base,), {"close": lambda self: None, "__len__": lambda self: 10**9})


@pytest.mark.parametrize("name", ["code", "decoded"])
def test_a_subclass_of_a_module_has_its_code(machine_code, name):
    """Code of another module would not be laid out as this module's instances are."""
    base = type(toy_jit_module())
    with pytest.raises(TypeError, match=f"Lying must not define '{name}'"):
        type("Lying", (base,), {name: property(lambda self: None)})


@pytest.mark.parametrize("name", ["__delattr__", "__getattribute__", "__setattr__"])
def test_no_code_of_a_subclass_runs_in_the_steps_that_use_attributes(owner, name):
    """It could close the object in the middle, or wait for a thread that waits for the step."""
    base = type(owner[1])
    if issubclass(base, Owned):
        with pytest.raises(TypeError, match=f"Odd must not define '{name}'"):
            type("Odd", (base,), {name: getattr(object, name)})
        mixin = type("Mixin", (), {name: getattr(object, name)})
        with pytest.raises(TypeError, match=f"Mixin must not define '{name}'"):
            type("Mixed", (base, mixin), {})
    else:
        assert base is VMExternRef  # its attributes are used outside steps
        type("Odd", (base,), {name: getattr(object, name)})


class _Closing:
    """A number that closes an object when it is converted."""

    def __init__(self, owner):
        self.owner = owner

    def __index__(self):
        self.owner.close()
        return 1

    def __float__(self):
        return float(self.__index__())


@pytest.mark.parametrize(
    ("make", "use"),
    [
        (lambda: Memory(1, 9), lambda it, one: it.grow(one)),
        (lambda: Memory(1), lambda it, one: it.read(0, one)),
        (lambda: Memory(1), lambda it, one: it.write(one, b"x")),
        (lambda: Table("externref", 2), lambda it, one: it.grow(one)),
        (lambda: Table("externref", 2), lambda it, one: it[one]),
        (lambda: Table("externref", 2), lambda it, one: it.__setitem__(one, "x")),
        (lambda: Global("i32", 0, True), lambda it, one: setattr(it, "value", one)),
        (lambda: Global("f64", 0, True), lambda it, one: setattr(it, "value", one)),
        (lambda: Global("i64", 0, True), lambda it, one: setattr(it, "bits", one)),
        (StackMapRegistry, lambda it, one: it.register(one, 8, {})),
        (StackMapRegistry, lambda it, one: it.register(1, 8, {one: [8]})),
        (StackMapRegistry, lambda it, one: it.register(1, 8, {4: [one]})),
    ],
)
def test_an_argument_that_closes_the_object_is_refused(make, use):
    it = make()
    with pytest.raises(ValueError, match="closed"):
        use(it, _Closing(it))
    if isinstance(it, StackMapRegistry):
        assert "0 code ranges" in repr(it)


@pytest.mark.parametrize("make", [lambda: Memory(1), lambda: Table("externref", 1)])
@pytest.mark.parametrize("limiter", [0, False, "text", 1.5, []])
def test_a_limiter_is_checked_where_it_is_set(make, limiter):
    it = make()
    with pytest.raises(TypeError, match="limiter must be callable"):
        it.limiter = limiter
    assert it.limiter is None
    assert it.grow(1) == 1
