"""The libcalls on memories as the package's functions: machine code, from an Instance to the bytes.

What each refuses is in runtime/test_misuse.py, which calls the functions too.
"""

import itertools
import sys
import threading

import pytest

import asm_libcalls
from asm_libcalls import LIBCALLS, Instance, Memory
from asm_libcalls.native.native_function import native_functions
from asm_libcalls.native.specification import Specification
from asm_libcalls.runtime.memory import WASM_PAGE_SIZE

pytestmark = pytest.mark.usefixtures("machine_code")

DATA = bytes(range(1, 101))
GOOD = {
    "memory_copy": (0, 5, 1, 3, 40),
    "memory_init": (1, 0, 7, 1, 90),
    "memory_fill": (0, 2, 0xAB, 50),
    "imported_memory_fill": (0, 2, -1, 50),
    "memory32_size": (0,),
    "imported_memory32_size": (0,),
    "data_drop": (0,),
}
"""Arguments after the instance, which has memories of two pages (imported) and of one."""


def make(cls=Instance):
    owner = Instance([Memory(2)])
    instance = cls([Memory(1)], data=[DATA, b""], imports={"memories": owner.memories})
    for number, memory in enumerate(instance.memories, 10):
        view = memoryview(memory)
        view[:100] = bytes(range(number, number + 100))
        view[-100:] = bytes(range(number + 1, number + 101))
    return instance


def state(instance):
    return (
        [bytes(memoryview(memory)) for memory in instance.memories],
        [instance.data_segment(i)[1] for i in range(2)],
    )


def outcome(function, instance, arguments):
    try:
        return function(instance, *arguments)
    except Exception as error:
        return type(error), str(error)


def test_all_that_machine_code_serves_are_here():
    served = [each for each in LIBCALLS.values() if each.backend == "x86_64"]
    assert {each.name for each in served if each.takes_instance and not each.may_leave} == set(GOOD)


@pytest.mark.parametrize("name", GOOD)
def test_an_instance_and_numbers_run_no_python(name):
    instance, function = make(), getattr(asm_libcalls, name)
    events = []
    sys.setprofile(lambda frame, event, argument: events.append((event, argument)))
    try:
        function(instance, *GOOD[name])
    finally:
        sys.setprofile(None)
    assert [argument for _, argument in events] == [function, function, sys.setprofile]


@pytest.mark.parametrize("name", GOOD)
def test_they_do_what_the_fallback_does(name, slow_calls):
    ours, other = make(), make()
    function, fallback = getattr(asm_libcalls, name), LIBCALLS[name].fallback
    ends = [0, 1, 99, 100, 101, WASM_PAGE_SIZE, WASM_PAGE_SIZE + 1, 2 * WASM_PAGE_SIZE]
    numbers = [*ends, *(-n for n in ends), 2**31, 2**32 - 1, -(2**31)]
    cases = []
    for at in range(len(GOOD[name])):
        cases += [(*GOOD[name][:at], number, *GOOD[name][at + 1 :]) for number in numbers]
    if len(GOOD[name]) > 2:  # the ranges that end at the end of a memory
        for before, length in itertools.product((0, 1, 99, 100), (0, 1, 99, 100, 101)):
            for size in (WASM_PAGE_SIZE, 2 * WASM_PAGE_SIZE):
                at = size - before
                changed = {
                    "memory_copy": (at % 2, at, 1, 3, length),
                    "memory_init": (at % 2, 0, at, 0, length),
                }.get(name, (0, at, 7, length))
                cases.append(changed)
                if name == "memory_copy":  # within a memory
                    cases += [(at % 2, at, at % 2, 3, length), (at % 2, 3, at % 2, at, length)]
                    cases += [(0, at, 0, 3, length), (0, 3, 0, at, length)]
    fast = 0
    for case in cases:
        del slow_calls[:]
        result = outcome(function, ours, case)
        fast += not slow_calls
        assert result == outcome(fallback, other, case), case
        assert state(ours) == state(other), case
    assert fast


@pytest.mark.parametrize("name", GOOD)
def test_an_instance_without_memories_and_segments(name):
    with pytest.raises(ValueError, match=r"0 is not in the instance"):
        getattr(asm_libcalls, name)(Instance(), *(0 for _ in GOOD[name]))


@pytest.mark.parametrize("name", GOOD)
def test_what_is_not_common_goes_to_the_checked_call(name, slow_calls):
    class Mine(Instance):
        pass

    class Number(int):
        pass

    function, good = getattr(asm_libcalls, name), GOOD[name]
    instance, mine = make(), make(Mine)
    function(instance.vmctx, *good)  # goes on with the Instance at the address
    function(instance, Number(good[0]), *good[1:])
    assert slow_calls == []
    for own in (mine, mine.vmctx):
        del slow_calls[:]
        function(own, *good)
        assert slow_calls == [name]
    for index in (2, 2**32 - 1):
        del slow_calls[:]
        with pytest.raises(ValueError, match=f"{index} is not in the instance"):
            function(instance, index, *good[1:])
        assert slow_calls == [name]
    instance.close()
    with pytest.raises(ValueError, match="the Instance is closed"):
        function(instance, *good)


@pytest.mark.parametrize("name", [name for name in GOOD if name != "data_drop"])
def test_a_closed_memory_is_refused_even_where_nothing_is_touched(name):
    instance = make()
    for memory in instance.memories:
        memory.close()
    nothing = {"memory_copy": (0, 0, 1, 0, 0), "memory_init": (0, 1, 0, 0, 0)}
    arguments = nothing.get(name, GOOD[name][:1] if "size" in name else (0, 0, 1, 0))
    with pytest.raises(ValueError, match="Memory 0 is closed"):
        getattr(asm_libcalls, name)(instance, *arguments)


@pytest.mark.parametrize(("dst", "src"), [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("closed", range(2))
def test_a_copy_refuses_either_memory_closed(dst, src, closed):
    instance = make()
    instance.memories[closed].close()
    if closed in (dst, src):
        with pytest.raises(ValueError, match=f"Memory {closed} is closed"):
            asm_libcalls.memory_copy(instance, dst, 0, src, 0, 0)
    else:
        asm_libcalls.memory_copy(instance, dst, 0, src, 0, 0)


def test_long_ones_let_other_threads_run(slow_calls):
    from asm_libcalls.x86_64.memories import LONG

    instance = Instance([Memory(2 * LONG // WASM_PAGE_SIZE)], data=[bytes(LONG + 1)])
    for name, arguments in (
        ("memory_fill", (0, 0, 1)),
        ("memory_copy", (0, 1, 0, 0)),
        ("memory_init", (0, 0, 0, 0)),
    ):
        function = getattr(asm_libcalls, name)
        function(instance, *arguments, LONG)
        assert slow_calls == []
        function(instance, *arguments, LONG + 1)
        assert slow_calls == [name]
        del slow_calls[:]


def test_what_python_does_to_the_lists_is_not_what_native_code_sees():
    instance = make()
    copies = memoryview(instance.memories[0]), memoryview(instance.memories[1])
    instance.memories.clear()
    instance.data.clear()
    asm_libcalls.memory_init(instance, 0, 0, 0, 0, 100)
    asm_libcalls.memory_copy(instance, 1, 0, 0, 0, 100)
    assert [bytes(copy[:100]) for copy in copies] == [DATA, DATA]
    del copies
    for _ in range(100):  # the memories are there, whatever else is made
        Memory(1)
        asm_libcalls.memory_fill(instance, 0, 0, 1, WASM_PAGE_SIZE)


def test_another_thread_closes_what_is_being_filled():
    """Its pages stay until the call has returned, and then it is refused."""
    pages = 64  # more than is done while the GIL is held
    for close_instance, by_address in itertools.product((False, True), repeat=2):
        for _ in range(5):
            instance = Instance([Memory(pages)])
            memory, started = instance.memories[0], threading.Event()
            errors = []

            def fill(instance=instance, by_address=by_address, started=started, errors=errors):
                target = instance.vmctx if by_address else instance
                started.set()
                try:
                    while True:
                        asm_libcalls.memory_fill(target, 0, 0, 1, pages * WASM_PAGE_SIZE)
                        asm_libcalls.memory_copy(target, 0, 0, 0, 9, (pages - 1) * WASM_PAGE_SIZE)
                except (ValueError, asm_libcalls.HeapOutOfBounds) as error:
                    errors.append(error)

            thread = threading.Thread(target=fill)
            thread.start()
            started.wait()
            (instance if close_instance else memory).close()
            del memory
            thread.join()
            assert len(errors) == 1


def test_where_the_object_does_not_have_it_python_serves():
    class Elsewhere:
        pass  # and so the member is in its dictionary

    class Here(Elsewhere):
        __slots__ = ("_vmctx", "other")

    for cls, made in ((Elsewhere, type(lambda: 0)), (Here, type(len))):
        specification = Specification(
            0,
            "(vmctx, u32) -> u32",
            slow=lambda *arguments: arguments,
            inline="memory32_size",
            vmctx_of=(cls, "_vmctx"),
        )
        (function,) = native_functions([specification])
        assert type(function) is made
        thing = cls()
        assert function(thing, 0) == (thing, 0)  # unset
        for value in (0, 0.5, 2**64, None):
            thing._vmctx = value
            assert function(thing, 0) == (thing, 0)
        instance = make()
        thing._vmctx = instance.vmctx
        assert function(thing, 0) == (1 if cls is Here else (thing, 0))
        assert function(thing, 1) == (thing, 1)
