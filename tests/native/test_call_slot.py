"""Objects that are called at about the cost of a builtin, by both ways to make them."""

import gc
import sys
import threading
import weakref

import pytest
from free_threading import frees_modules_and_classes

import asm_libcalls
from asm_libcalls.native import call_slot
from asm_libcalls.native.call_slot import FUNCTION, answer_calls, callable_class
from asm_libcalls.native.native_function import why_not_builtin

WAYS = ["vectorcall", "a class of its own"]


@pytest.fixture(params=WAYS)
def make(request, machine_code, monkeypatch):
    """A function that makes an object, called by its class until it is answered."""
    if why_not_builtin():
        pytest.skip(why_not_builtin())

    class Thing:
        """What a Thing is."""

        __slots__ = ("__weakref__", FUNCTION, "other")

        def __new__(cls):
            return object.__new__(callable_class(cls))

        def __call__(self, *arguments):
            return ("by the class", arguments)

    if request.param == WAYS[1]:
        monkeypatch.setattr(call_slot, "_derive", lambda base: None)
    assert (type(Thing()) is Thing) == (request.param == WAYS[1])
    Thing.way = request.param
    return Thing


def difference():
    return asm_libcalls.native_function(
        asm_libcalls.symbols()["wasmtime_i64_sdiv"], "(i64, i64) -> i64", name="sdiv"
    )


def test_every_way_to_call(make):
    thing = make()
    assert thing(1, 2) == ("by the class", (1, 2))
    answer_calls(thing, difference())
    assert thing(-7, 2) == thing(*(-7, 2)) == -3
    assert list(map(thing, [8, 9], [2, 3])) == [4, 3]
    assert isinstance(thing, make)
    assert callable(thing)
    assert type(thing).__name__ == "Thing"
    assert type(thing).__module__ == __name__
    assert type(thing).__doc__ == "What a Thing is."
    with pytest.raises(ZeroDivisionError):
        thing(1, 0)
    for _ in range(2):
        with pytest.raises(TypeError, match="no keyword arguments"):
            thing(1, divisor=2)
        with pytest.raises(TypeError, match="sdiv"):
            thing(1)
        with pytest.raises(TypeError, match="sdiv"):
            thing(1, "x")


def test_other_objects_of_the_class_are_not_changed(make):
    first, second = make(), make()
    answer_calls(first, difference())
    assert first(6, 2) == 3
    assert second(6, 2) == ("by the class", (6, 2))
    answer_calls(second, asm_libcalls.native_function(*_negation()))
    assert (first(6, 2), second(5)) == (3, -5)
    answer_calls(first, asm_libcalls.native_function(*_negation()))  # again, with another
    assert first(5) == -5


def _negation():
    code = bytes.fromhex("4889f8 48f7d8 c3")  # mov rax, rdi; neg rax; ret
    return asm_libcalls.load_code(code), "(i64) -> i64"


def test_no_python_runs(make):
    thing = make()
    answer_calls(thing, difference())
    events = []
    gc.disable()  # its callbacks are Python functions
    sys.setprofile(lambda frame, event, argument: events.append(event))
    try:
        result = thing(7, 2)
    finally:
        sys.setprofile(None)
        gc.enable()
    assert result == 3
    assert "call" not in events


@frees_modules_and_classes
def test_it_is_collected_in_a_cycle(make):
    thing = make()
    thing.other = thing
    answer_calls(
        thing,
        asm_libcalls.native_function(*_negation(), slow=lambda *arguments, of=thing: of),
    )
    assert thing("x") is thing
    seen = weakref.ref(thing)
    del thing
    gc.collect()
    assert seen() is None


def test_a_finalizer_may_call_it_while_it_is_collected(make):
    outcomes = []

    class Last:
        def __del__(self):
            try:
                outcomes.append(self.thing(5))
            except ReferenceError as error:
                outcomes.append(error)

    last, thing = Last(), make()
    answer_calls(thing, asm_libcalls.native_function(*_negation()))
    thing.other, last.thing = last, thing
    del last, thing
    gc.collect()
    assert outcomes == [-5]


def test_without_its_function_it_refuses(make):
    if make.way != "vectorcall":
        pytest.skip("its class has the function")
    thing = make()
    answer_calls(thing, difference())
    delattr(thing, FUNCTION)
    with pytest.raises(ReferenceError, match="garbage collector"):
        thing(7, 2)
    answer_calls(thing, difference())
    assert thing(7, 2) == 3


def test_a_subclass_is_called_too(make):
    class Sub(make):
        def __init__(self):
            self.more = {}

    thing = Sub()
    assert thing(1) == ("by the class", (1,))
    answer_calls(thing, difference())
    assert thing(7, 2) == 3
    assert thing.more == {}
    with pytest.raises(TypeError):
        type(thing)(1)


def test_threads_make_the_class_at_once(make):
    barrier, things = threading.Barrier(4), []

    def work():
        barrier.wait()
        thing = make()
        answer_calls(thing, difference())
        things.append((thing, thing(7, 2)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result for _, result in things] == [3] * 4
    assert all(thing(9, 3) == 3 for thing, _ in things)


@pytest.mark.parametrize("refusal", ["no builtins", "no pages"])
def test_where_the_class_cannot_be_made(machine_code, monkeypatch, refusal):
    class Thing:
        __slots__ = (FUNCTION,)

        def __call__(self, number):
            return number

    if refusal == "no builtins":
        monkeypatch.setattr(
            type(call_slot.process.interface), "function_maker", lambda self: "a reason"
        )
    else:
        from asm_libcalls.emitter import pages

        def refuse(*arguments, **keywords):
            raise OSError("no pages")

        monkeypatch.setattr(pages, "load", refuse)
    assert callable_class(Thing) is Thing
    thing = Thing()
    answer_calls(thing, lambda number: -number)
    assert thing(3) == -3
