"""``StoreLimits``: first sizes, growth and numbers of memories and tables."""

import contextlib
import copy
import gc
import pickle
import threading

import numpy
import pytest
import wasm_builder as wasm
from interruptions import at_point
from jit_modules import Function, build

import asm_libcalls
from asm_libcalls import toy_jit

pytestmark = pytest.mark.usefixtures("machine_code")

PAGE = 65536
GROW = {
    "memory.grow": Function("i32 -> i32", "local.get 00 memory.grow 00"),
    "table.grow": Function("i32 -> i32", "ref.null 6f local.get 00 table.grow 00"),
}
BIG = 1 << 70
NAMES = ("memory_size", "table_elements", "instances", "tables", "memories")


def module(memory=b"\x00\x01", table=b"\x6f\x00\x08"):
    exports = [wasm.exported("m", 2, 0), wasm.exported("t", 1, 0)]
    return toy_jit.Module(build(GROW, memories=[memory], tables=[table], exports=exports))


def instance_with(limits, **parts):
    return toy_jit.Instance(module(**parts), limits=limits)


@pytest.mark.parametrize(
    ("bytes_", "pages"), [(PAGE, 1), (2 * PAGE - 1, 1), (5 * PAGE, 5), (5 * PAGE + 1, 5)]
)
@pytest.mark.parametrize("maximum", [None, 100, 3])
def test_a_memory_grows_to_its_limit(bytes_, pages, maximum):
    declared = b"\x00\x01" if maximum is None else b"\x01\x01" + wasm.u(maximum)
    exports = instance_with(toy_jit.StoreLimits(memory_size=bytes_), memory=declared).exports
    grow, memory = exports["memory.grow"], exports["m"]
    assert memory.maximum == maximum  # its type is what the module says
    pages = min(pages, maximum or pages)
    assert grow(pages) == memory.grow(pages) == -1
    assert grow(pages - 1) == 1
    assert memory.size == pages
    assert grow(1) == memory.grow(1) == -1
    assert grow(0) == memory.grow(0) == pages
    memory.limiter = lambda *sizes: True  # cannot allow more
    assert grow(1) == memory.grow(1) == -1


@pytest.mark.parametrize("declared", [b"\x6f\x00\x08", b"\x6f\x01\x08\x80\x01"])
def test_a_table_grows_to_its_limit(declared):
    limits = toy_jit.StoreLimits(table_elements=20)
    exports = instance_with(limits, table=declared).exports
    grow, table = exports["table.grow"], exports["t"]
    assert grow(13) == table.grow(13) == -1
    assert grow(12) == 8
    assert len(table) == 20
    assert grow(1) == table.grow(1) == -1


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"memory_size": PAGE - 1}, "a memory of 65536 bytes: StoreLimits.memory_size is 65535"),
        ({"memory_size": 0}, "a memory of 65536 bytes: StoreLimits.memory_size is 0"),
        ({"table_elements": 7}, "a table of 8 elements: StoreLimits.table_elements is 7"),
        ({"instances": 0}, "too many instances: StoreLimits.instances is 0"),
        ({"memories": 0}, "too many memories: StoreLimits.memories is 0"),
        ({"tables": 0}, "too many tables: StoreLimits.tables is 0"),
    ],
)
def test_what_begins_too_large_is_refused(limits, message):
    compiled = module()
    shared = toy_jit.StoreLimits(**limits)
    for _ in range(3):
        with pytest.raises(toy_jit.LimitExceeded) as caught:
            toy_jit.Instance(compiled, limits=shared)
        assert str(caught.value) == message
        assert caught.value.offset is None
    toy_jit.Instance(compiled)


def test_a_table_that_none_could_hold_is_refused_by_its_limit():
    with pytest.raises(toy_jit.LimitExceeded, match="a table of 4294967295 elements"):
        instance_with(
            toy_jit.StoreLimits(table_elements=100), table=b"\x6f\x00\xff\xff\xff\xff\x0f"
        )


@pytest.mark.parametrize("value", [BIG, numpy.uint64(2**63), 2**32, None])
@pytest.mark.parametrize("name", NAMES)
def test_limits_that_are_never_reached(name, value):
    limits = toy_jit.StoreLimits(**{name: value})
    assert getattr(limits, name) == value
    exports = instance_with(limits).exports
    assert exports["memory.grow"](1) == 1
    assert exports["table.grow"](1) == 8


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("value", "error"), [(-1, ValueError), (1.0, TypeError), ("1", TypeError), ([], TypeError)]
)
def test_limits_are_checked_where_they_are_set(name, value, error):
    with pytest.raises(error, match=rf"^StoreLimits\(\): {name} must"):
        toy_jit.StoreLimits(**{name: value})


def test_limits_are_store_limits():
    class Alike:
        __class__ = toy_jit.StoreLimits

    for wrong in ({"memory_size": 1}, 5, toy_jit.StoreLimits, Alike()):
        with pytest.raises(TypeError, match=r"Instance\(\): limits must be a StoreLimits"):
            toy_jit.Instance(module(), limits=wrong)


def test_limits_are_made_once():
    limits = toy_jit.StoreLimits(instances=1)
    instance = toy_jit.Instance(module(), limits=limits)
    with pytest.raises(RuntimeError, match=r"StoreLimits.__init__\(\) was called again"):
        limits.__init__(instances=5)
    with pytest.raises(toy_jit.LimitExceeded):
        toy_jit.Instance(module(), limits=limits)
    instance.close()


@pytest.mark.parametrize(
    "copier", [copy.copy, copy.deepcopy, lambda limits: pickle.loads(pickle.dumps(limits))]
)
def test_a_copy_counts_for_itself(copier):
    limits = toy_jit.StoreLimits(instances=1, memory_size=1 << 20)
    instance = toy_jit.Instance(module(), limits=limits)
    copied = copier(limits)
    assert repr(copied) == repr(limits)
    for _ in range(2):
        toy_jit.Instance(module(), limits=copied).close()
    with pytest.raises(toy_jit.LimitExceeded):
        toy_jit.Instance(module(), limits=limits)
    instance.close()
    toy_jit.Instance(module(), limits=limits)


@pytest.mark.parametrize("name", ["instances", "tables", "memories"])
def test_counts_are_of_all_that_share_them(name):
    compiled, limits = module(), toy_jit.StoreLimits(**{name: 3})
    instances = [toy_jit.Instance(compiled, limits=limits) for _ in range(3)]
    for _ in range(2):
        with pytest.raises(toy_jit.LimitExceeded, match=f"too many {name}"):
            toy_jit.Instance(compiled, limits=limits)
        del instances[0]
        gc.collect()
        instances.append(toy_jit.Instance(compiled, limits=limits))
    if name == "instances":
        instances[0].close()
        instances[0].close()
        instances.append(toy_jit.Instance(compiled, limits=limits))
    with pytest.raises(toy_jit.LimitExceeded, match=f"too many {name}"):
        toy_jit.Instance(compiled, limits=limits)


def test_a_memory_is_counted_as_long_as_somebody_has_it():
    compiled, limits = module(), toy_jit.StoreLimits(memories=1)
    memory = toy_jit.Instance(compiled, limits=limits).exports["m"]
    gc.collect()
    with pytest.raises(toy_jit.LimitExceeded):
        toy_jit.Instance(compiled, limits=limits)
    del memory
    gc.collect()
    toy_jit.Instance(compiled, limits=limits)


def test_what_is_imported_is_not_limited():
    memory, table = asm_libcalls.Memory(3), asm_libcalls.Table("externref", 30)
    imports = [
        wasm.imported(2, b"\x00\x01", "memory"),
        wasm.imported(1, b"\x6f\x00\x08", "table"),
    ]
    source = wasm.module(imports=imports)
    limits = toy_jit.StoreLimits(memory_size=PAGE, table_elements=8, tables=0, memories=0)
    toy_jit.Instance(
        toy_jit.Module(source), {"m": {"memory": memory, "table": table}}, limits=limits
    )
    assert memory.grow(1) == 3


def test_an_instance_that_fails_is_not_counted():
    limits = toy_jit.StoreLimits(instances=1, memories=1)
    trapping = toy_jit.Module(
        build({"f": Function("->", "unreachable")}, memories=[b"\0\1"], start=0)
    )
    for _ in range(3):
        with pytest.raises(asm_libcalls.Trap):
            toy_jit.Instance(trapping, limits=limits)
        gc.collect()


class Struck(BaseException):
    """A signal handler raises this."""


@pytest.mark.parametrize(
    "package", ["asm_libcalls.toy_jit.instance", "asm_libcalls.toy_jit.store_limits"]
)
def test_an_instance_whose_making_a_signal_handler_interrupted_is_not_counted(package):
    def strike():
        raise Struck

    compiled = module()
    for number in range(1000):
        limits = toy_jit.StoreLimits(instances=1, memories=1, tables=1)
        try:
            reached, _ = at_point(
                number, lambda limits=limits: toy_jit.Instance(compiled, limits=limits),
                strike, package,
            )  # fmt: skip
        except Struck:
            reached = True
        if not reached:
            break
        _ = None
        gc.collect()
        toy_jit.Instance(compiled, limits=limits)
    assert number > 5


def test_threads_that_take_the_last_one():
    compiled, limits = module(), toy_jit.StoreLimits(instances=5)
    made = []

    def work():
        for _ in range(20):
            with contextlib.suppress(toy_jit.LimitExceeded):
                made.append(toy_jit.Instance(compiled, limits=limits))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 5
