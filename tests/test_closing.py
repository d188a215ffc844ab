"""A close that an exception interrupted at any place is continued by the next one."""

import contextlib
import gc
import re
import sys

import pytest
from jit_modules import Function, build

from asm_libcalls import (
    Code,
    ElementSegment,
    Global,
    HostFunction,
    Instance,
    Memory,
    Table,
    VMExternRef,
    catch_traps,
    load_code,
    toy_jit,
)
from asm_libcalls.runtime import externref_boxes


class StruckError(Exception):
    pass


def compiled():
    module = toy_jit.Module(build({"f": Function("externref -> externref", "local.get 00")}))
    instance = toy_jit.Instance(module)
    instance.exports["f"](object())
    return instance


def table():
    made = Table("externref", 3)
    made[0] = made[2] = object()
    return made


MAKERS = {
    "Table": table,
    "Memory": lambda: Memory(1),
    "Global": lambda: Global("externref", object(), True),
    "Instance": lambda: Instance(
        [Memory(1)], [Table("externref", 1)], elements=[ElementSegment("externref", [object()])]
    ),
    "HostFunction": lambda: HostFunction(lambda: None, "()"),
    "VMExternRef": lambda: VMExternRef(object()),
    "toy_jit.Module": lambda: toy_jit.Module(build({"f": Function("->", "")})),
    "toy_jit.Instance": compiled,
}


def strike_call(number):
    """Raise in the call of Python code with this number, as a signal handler could.

    Return a list that is empty until then.
    """
    calls = 0
    struck = []

    def profile(frame, event, _):
        nonlocal calls
        if event == "call" and "asm_libcalls" in frame.f_globals["__name__"]:
            calls += 1
            if calls == number:
                sys.setprofile(None)
                struck.append(frame.f_code.co_name)
                raise StruckError

    sys.setprofile(profile)
    return struck


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("finish", ["close", "drop"])
def test_a_close_interrupted_at_any_call_is_continued(make, finish, monkeypatch):
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)  # of a finalizer that was struck
    make().close()  # what is imported late
    gc.collect()  # of tests before this one
    before = externref_boxes.live_count()
    for number in range(1, 200):
        thing = make()
        struck = strike_call(number)
        with contextlib.suppress(StruckError):
            thing.close()
        sys.setprofile(None)
        if not struck:
            break
        if finish == "close":
            thing.close()
            assert thing.closed
            thing.close()
        del thing
        gc.collect()
        VMExternRef(None).drop()
        assert externref_boxes.live_count() == before, (number, struck)
    assert number > 1


def test_the_default_stack_map_registry_is_not_closed():
    registry = Instance().stack_map_registry
    with pytest.raises(ValueError, match="the default StackMapRegistry cannot be closed"):
        registry.close()
    with pytest.raises(ValueError, match="cannot be closed"), registry:
        pass
    assert not registry.closed


def test_what_catch_traps_returns_is_made_once():
    host = HostFunction(lambda: None, "()")
    call = catch_traps(host.address, "()")
    with pytest.raises(RuntimeError, match=r"__init__\(\) was called again"):
        call.__init__(host.address + 1, "(i64) -> i64")
    assert call() is None
    assert call.address == host.address


def set_limiter(thing):
    thing.limiter = None


ANY_USE = {
    "Table": (
        len, bool, list, reversed, lambda t: 0 in t, lambda t: t[0], lambda t: t.grow(0),
        lambda t: t.__setitem__(0, None), set_limiter, lambda t: Instance(tables=[t]),
        lambda t: Instance(memories=t), lambda t: Instance(imports={"tables": t}),
        lambda t: t.definition_address,
    ),
    "Memory": (
        len, bool, lambda m: m.size, lambda m: m.base, lambda m: m.read(0, 0), lambda m: m.grow(0),
        lambda m: m.write(0, b""), lambda m: Memory(1).write(0, m), set_limiter,
        lambda m: Instance(memories=[m]), lambda m: Instance(data=[m]), load_code, Code,
        toy_jit.Module, lambda m: m.definition_address,
    ),
    "Global": (
        lambda g: g.value, lambda g: g.bits, lambda g: setattr(g, "value", None),
        lambda g: Instance(globals=[g]),
    ),
    "Instance": (lambda i: i.vmctx,),
    "HostFunction": (lambda h: h.address, lambda h: catch_traps(h.address, "()")),
    "VMExternRef": (lambda r: r.value, lambda r: r.as_raw(), lambda r: r.clone()),
    "toy_jit.Module": (lambda m: m.serialize(), toy_jit.Instance),
    "toy_jit.Instance": (lambda i: i.exports["f"](None), lambda i: i.gc()),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "use"), [(name, use) for name, uses in ANY_USE.items() for use in uses]
)
def test_a_closed_object_refuses_any_use(name, use):
    thing = MAKERS[name]()
    thing.close()
    with pytest.raises(ValueError, match=r"closed|dropped"):
        use(thing)
    assert thing.closed
    assert re.search(r"closed|dropped|<Module|<Instance of", repr(thing))
