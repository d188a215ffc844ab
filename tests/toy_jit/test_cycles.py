"""Objects that have their instance, and pass themselves to it: Python's collector frees them."""

import gc
import json
import threading
import weakref

import jit_cycles
import pytest
from child_process import run_child
from jit_cycles import ACTIONS, WAYS
from jit_modules import Function, instantiate

import asm_libcalls

pytestmark = pytest.mark.usefixtures("machine_code")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What a process without other threads found: earlier tests may have left some."""
    code = """
        import json
        import jit_cycles
        alive = {way: jit_cycles.alive_after(way) for way in jit_cycles.WAYS}
        print(json.dumps([alive, jit_cycles.ran_destructors()]))
    """
    return json.loads(run_child(code, folder=tmp_path_factory.mktemp("alone")).stdout)


@pytest.mark.parametrize("way", WAYS)
def test_an_object_that_has_its_instance_is_collected(alone, way):
    alive, _ = alone
    assert alive[way] == [False] * 5


@pytest.mark.parametrize(
    "way", ["argument", "result", "several", "call_bits", "VMExternRef", "refused"]
)
def test_an_argument_is_collected_while_other_threads_exist(way):
    """They may be running native code; an argument is kept by its call alone."""
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        assert jit_cycles.alive_after(way) == [False] * 5
    finally:
        stop.set()
        thread.join()


def test_destructors_in_a_collection_may_use_instances(alone):
    """They run at its beginning, and may call, collect, close and make instances."""
    _, ran = alone
    assert ran == ACTIONS


def holding(host):
    """An instance whose f holds what "make" returns while it calls `host`, and returns it."""
    made = []

    class Made:
        pass

    def make():
        value = Made()
        made.append(weakref.ref(value))
        return value

    functions = {
        "f": Function("-> externref", "call 00 call 01"),
        "n": Function("->", "call 00 call 01 drop"),
    }
    imports = {"make": "-> externref", "host": "->"}
    return instantiate(functions, imports, {"make": make, "host": host}), made


@pytest.mark.parametrize("export", ["f", "n"])
def test_frames_of_this_thread_keep_theirs(export):
    alive = []

    def host():
        gc.collect()
        alive.append(made[0]() is not None)

    instance, made = holding(host)
    result = instance.exports[export]()
    assert alive == [True]
    assert export == "n" or result is made[0]()


@pytest.mark.parametrize("export", ["f", "n"])
def test_frames_of_other_threads_keep_theirs(export):
    entered, leave = threading.Event(), threading.Event()
    results = []

    def host():
        entered.set()
        leave.wait(30)

    instance, made = holding(host)
    thread = threading.Thread(target=lambda: results.append(instance.exports[export]()))
    thread.start()
    assert entered.wait(30)
    gc.collect()
    alive = made[0]() is not None
    leave.set()
    thread.join()
    assert alive
    assert results == [None if export == "n" else made[0]()]


def test_frames_in_a_main_thread_that_waits_keep_theirs():
    """The collector runs in another thread than the one that has the frames."""

    def host():
        thread = threading.Thread(target=gc.collect)
        thread.start()
        thread.join()

    instance, made = holding(host)
    result = instance.exports["f"]()
    assert result is made[0]()


@pytest.mark.parametrize("export", ["f", "n"])
def test_frames_of_suspended_greenlets_keep_theirs(export):
    greenlet = pytest.importorskip("greenlet")
    main = greenlet.getcurrent()
    instance, made = holding(main.switch)
    other = greenlet.greenlet(instance.exports[export])
    other.switch()
    gc.collect()
    assert made[0]() is not None
    result = other.switch()
    assert result is (None if export == "n" else made[0]())


def test_an_instance_without_a_module_keeps_what_python_inserted():
    """Whoever inserts a reference for a call has its raw pointer until then."""
    instance = asm_libcalls.Instance()
    reference = asm_libcalls.VMExternRef(Function)
    asm_libcalls.activations_table_insert_with_gc(instance, reference)
    pointer = reference.as_raw()
    reference.drop()
    gc.collect()
    assert asm_libcalls.VMExternRef.clone_from_raw(pointer).value is Function
    asm_libcalls.gc(instance)
    assert len(instance.activations_table) == 0
