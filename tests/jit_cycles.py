"""Objects that have their instance, and pass themselves to it, in a process with one thread."""

import gc
import threading
import weakref

import pytest
import wasm_builder as wasm
from jit_modules import EXTERNREFS, Function, build

import asm_libcalls
from asm_libcalls import toy_jit

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


def module():
    return toy_jit.Module(build(FUNCTIONS, IMPORTS, **MODULE_PARTS))


def alive_after(way):
    """Return which of five objects a collection leaves alive."""
    code = module()

    def use():
        application = Application(code)
        WAYS[way](application)
        return weakref.ref(application)

    dropped = [use() for _ in range(5)]
    for _ in range(3):
        gc.collect()
    return [reference() is not None for reference in dropped]


ACTIONS = ["call", "close", "collect", "make"]


def ran_destructors():
    """Return the actions of destructors that ran at the beginning of a collection."""
    code = module()
    ran = []

    class Reenters:
        def __init__(self, action):
            self.application = Application(code)
            self.action = action
            self.application.exports["identity"](self)

        def __del__(self):
            self.application.exports["identity"](Application(code))
            if self.action == "collect":
                gc.collect()
                self.application.instance.gc()
            elif self.action == "close":
                self.application.instance.close()
            elif self.action == "make":
                Application(code).exports["made"]()
            ran.append(self.action)

    for action in ACTIONS:
        Reenters(action)
    for _ in range(3):
        gc.collect()
    return sorted(ran)
