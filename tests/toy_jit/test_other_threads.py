"""What other threads do while compiled code runs: they close what it uses, and collect garbage."""

import gc
import threading
import time
import weakref

import pytest
import wasm_builder as wasm
from jit_modules import EXTERNREFS, Function, instantiate

import asm_libcalls
from asm_libcalls.native import process
from asm_libcalls.runtime import releasing
from asm_libcalls.steps import HAS_GIL
from asm_libcalls.toy_jit.runtime import interrupts

pytestmark = pytest.mark.usefixtures("machine_code")

LOOP = "loop 40 {} local.get 00 i32.const 01 i32.sub local.tee 00 br_if 00 end"
COPY = "i32.const 00 i32.const 00 i32.const 80 08 table.copy 00 01"  # 1,024 elements
BIG_TABLES = {"tables": [b"\x6f\0\x80\x10", b"\x6f\0\x80\x10"]}  # 2,048 elements each


class Marker:
    """An object that weak references may refer to."""


def in_thread(function):
    errors = []

    def call():
        try:
            function()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert not errors


@pytest.mark.parametrize("closed", ["instance", "table"])
def test_a_thread_closes_what_the_caller_of_a_host_function_uses(closed):
    functions = {"f": Function("-> externref", "i32.const 03 table.get 00 call 00")}
    others = []

    def close():
        part = instance if closed == "instance" else table
        in_thread(part.close)
        if closed == "instance":
            table[3] = None  # which is open
        others.extend(asm_libcalls.VMExternRef(("another", i)) for i in range(600))

    exports = [wasm.exported("table", 1, 0)]
    instance = instantiate(functions, {"h": "->"}, {"h": close}, exports=exports, **EXTERNREFS)
    f, table = instance.exports["f"], instance.exports["table"]
    table[3] = thing = Marker()
    reference = weakref.ref(thing)
    del thing
    result = f()
    assert type(result) is Marker
    del result
    instance.close()
    gc.collect()
    assert asm_libcalls.Table("externref", 1)[0] is None  # without the GIL: when a store is used
    assert reference() is None


def running():
    """Return whether the main thread runs native code without the GIL."""
    record = interrupts._threads[threading.main_thread().ident].record
    return record is not None and record.innermost


@pytest.mark.skipif(not HAS_GIL, reason="threads wait for a store")
def test_a_thread_closes_a_table_while_compiled_code_copies_it():
    functions = {"f": Function("i32 ->", LOOP.format(COPY))}
    exports = [wasm.exported("t", 1, 0), wasm.exported("u", 1, 1)]
    instance = instantiate(functions, exports=exports, **BIG_TABLES)
    f, t, u = (instance.exports[name] for name in "ftu")
    f(1)
    things = [Marker() for _ in range(2)]
    refs = [asm_libcalls.VMExternRef(thing) for thing in things]
    for i in range(1024):
        t[i], u[i] = refs[i % 2], refs[i // 2 % 2]

    def close():
        deadline = time.monotonic() + 20
        while not running() and time.monotonic() < deadline:
            time.sleep(0)
        t.close()

    thread = threading.Thread(target=close)
    thread.start()
    with pytest.raises(ValueError, match="the Table is closed"), instance.time_limit(60):
        f(2**31 - 1)
    thread.join()
    gc.collect()
    assert not releasing._later
    assert [ref.strong_count() for ref in refs] == [1 + 512, 1 + 512]


@pytest.mark.skipif(not HAS_GIL, reason="counts are changed under a lock")
def test_a_collection_in_another_thread_counts_when_compiled_code_does_not():
    functions = {"f": Function("i32 ->", LOOP.format(COPY))}
    exports = [wasm.exported("t", 1, 0), wasm.exported("u", 1, 1)]
    instance = instantiate(functions, exports=exports, **BIG_TABLES)
    f, u = instance.exports["f"], instance.exports["u"]
    f(1)
    ref = asm_libcalls.VMExternRef(Marker())
    for i in range(1024):
        u[i] = ref
    clones = [ref.clone() for _ in range(1000)]
    seen = []

    def drop():
        deadline = time.monotonic() + 20
        while not running() and time.monotonic() < deadline:
            time.sleep(0)
        while clones and running():
            clones.pop()
        seen.append(len(releasing._later))
        clones.clear()

    thread = threading.Thread(target=drop)
    thread.start()
    while thread.is_alive():
        f(20_000)
    thread.join()
    gc.collect()
    assert seen[0] > 0
    assert not releasing._later
    instance.gc()
    assert ref.strong_count() == 1 + 2 * 1024


def test_a_callback_in_the_librarys_own_thread_knows_that_others_may_run():
    instantiate({"f": Function("->", "")}).exports["f"]()
    seen = []
    called = threading.Event()

    def call():
        seen.append(threading.current_thread() is not threading.main_thread())
        seen.append(process.may_run_elsewhere())
        called.set()

    interrupts.watcher.add(call, time.monotonic(), call)
    assert called.wait(20)
    assert seen == [True, True]
