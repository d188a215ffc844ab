"""Objects that have their instance, and pass themselves to it: Python's collector frees them."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest
import wasm_builder as wasm
from free_threading import frees_what_was_dropped
from jit_modules import EXTERNREFS, Function, build, instantiate

import asm_libcalls
from asm_libcalls import toy_jit

pytestmark = pytest.mark.usefixtures("machine_code")

FUNCTIONS = {
    "take": Function("externref ->", ""),
    "identity": Function("externref -> externref", "local.get 00"),
    "several": Function("externref i32 externref -> externref i32", "local.get 00 local.get 01"),
    "made": Function("->", "call 00 drop"),
    "made_twice": Function("-> externref", "call 00 call 00 drop"),
    "passed": Function("externref -> externref", "local.get 00 call 01"),
    "traps": Function("externref ->", "local.get 00 drop unreachable"),
    "made_traps": Function("->", "call 00 drop unreachable"),
    "raises": Function("externref ->", "local.get 00 call 02"),
    "again": Function("externref ->", "local.get 00 call 03"),
    "from_table": Function("->", "i32.const 00 table.get 00 drop"),
    "global_set": Function("externref ->", "local.get 00 global.set 00"),
    "from_global": Function("->", "global.get 00 drop"),
}
IMPORTS = {
    "make": "-> externref",
    "pass": "externref -> externref",
    "raise": "externref ->",
    "again": "externref ->",
}
MODULE_PARTS = {
    **EXTERNREFS,
    "globals_": [b"\x6f\x01\xd0\x6f\x0b"],
    "exports": [wasm.exported("table", 1, 0)],
}


class Application:
    """Has its instance, whose host functions are its methods."""

    def __init__(self, module):
        given = {
            "make": self.itself,
            "pass": lambda value: value,
            "raise": self.fail,
            "again": self.again,
        }
        self.instance = toy_jit.Instance(module, {"m": given})
        self.exports = self.instance.exports

    def itself(self):
        return self

    def fail(self, value):
        raise LookupError(value)

    def again(self, value):
        assert self.exports["identity"](value) is self
        self.exports["made"]()

    def through_table(self):
        table = self.exports["table"]
        table[0] = self
        self.exports["from_table"]()
        table[0] = None

    def through_global(self):
        self.exports["global_set"](self)
        self.exports["from_global"]()
        self.exports["global_set"](None)

    def through_bits(self):
        assert self.exports["identity"].call_bits(self) == (self,)

    def in_box(self):
        box = asm_libcalls.VMExternRef(self)
        self.exports["take"](box)
        box.drop()

    def refused(self):
        with pytest.raises(TypeError):
            self.exports["several"](self, "no number", self)

    def trapped(self):
        for call in (lambda: self.exports["traps"](self), self.exports["made_traps"]):
            with pytest.raises(asm_libcalls.Trap, match="unreachable"):
                call()

    def raised(self):
        with pytest.raises(LookupError):
            self.exports["raises"](self)

    def through_others(self):
        other = Application(self.instance.module)
        other.other = self
        self.other = other
        for each in (self, other):
            assert each.exports["identity"](self) is self
            assert each.exports["passed"](other) is other

    def in_thread(self):
        thread = threading.Thread(target=self.exports["made"])
        thread.start()
        thread.join()

    def many(self):
        for _ in range(1500):
            self.exports["made"]()


WAYS = {
    "argument": lambda a: a.exports["take"](a),
    "result": lambda a: a.exports["identity"](a),
    "several": lambda a: a.exports["several"](a, 1, a),
    "host result": lambda a: a.exports["made"](),
    "host results": lambda a: a.exports["made_twice"](),
    "through host": lambda a: a.exports["passed"](a),
    "nested": lambda a: a.exports["again"](a),
    "table.get": Application.through_table,
    "global.get": Application.through_global,
    "call_bits": Application.through_bits,
    "VMExternRef": Application.in_box,
    "refused": Application.refused,
    "trap": Application.trapped,
    "exception": Application.raised,
    "several instances": Application.through_others,
    "thread": Application.in_thread,
    "many": Application.many,
}


@pytest.fixture(scope="module")
def module():
    return toy_jit.Module(build(FUNCTIONS, IMPORTS, **MODULE_PARTS))


@pytest.fixture
def alone():
    """Wait until no thread of an earlier test is left: one may be using an instance."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join(10)


@frees_what_was_dropped
@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("way", WAYS)
def test_an_object_that_has_its_instance_is_collected(module, way):
    def use():
        application = Application(module)
        WAYS[way](application)
        return weakref.ref(application)

    dropped = [use() for _ in range(5)]
    for _ in range(3):
        gc.collect()
    assert [reference() for reference in dropped] == [None] * 5


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
    reference = asm_libcalls.VMExternRef(Application)
    asm_libcalls.activations_table_insert_with_gc(instance, reference)
    pointer = reference.as_raw()
    reference.drop()
    gc.collect()
    assert asm_libcalls.VMExternRef.clone_from_raw(pointer).value is Application
    asm_libcalls.gc(instance)
    assert len(instance.activations_table) == 0


@frees_what_was_dropped
@pytest.mark.usefixtures("alone")
def test_destructors_in_a_collection_may_use_instances(module):
    """They run at its beginning, and may call, collect, close, make instances, and raise."""
    ran = []

    class Reenters:
        def __init__(self, action):
            self.application = Application(module)
            self.action = action
            self.application.exports["identity"](self)

        def __del__(self):
            ran.append(self.action)
            self.application.exports["identity"](Application(module))
            if self.action == "collect":
                gc.collect()
                self.application.instance.gc()
            elif self.action == "close":
                self.application.instance.close()
            elif self.action == "make":
                Application(module).exports["made"]()

    actions = ["call", "collect", "close", "make"]
    for action in actions:
        Reenters(action)
    for _ in range(3):
        gc.collect()
    assert sorted(ran) == sorted(actions)
