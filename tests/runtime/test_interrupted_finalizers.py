"""A signal handler raises while an object is dropped: the rest is released, each part once."""

import gc
import sys
from functools import partial

import pytest
from interruptions import at_every_point
from jit_modules import Function, instantiate
from process_maps import mappings

from asm_libcalls import Code, Memory
from asm_libcalls.owned.objects import Resource
from asm_libcalls.signatures import VALUE_TYPES
from asm_libcalls.toy_jit.frontend.module import F64
from asm_libcalls.toy_jit.runtime import adapters


class Struck(BaseException):
    """A signal handler raises this."""


def is_unmapped(start):
    return not any(each.start <= start < each.end for each in mappings())


def resource():
    released = []
    return Resource(partial(released.extend, iter([1]))), lambda: released == [1]


def memory():
    made = Memory(1)
    return made, partial(is_unmapped, made.base)


def small_code():
    """Its memory is free again, once: the next two pieces are at different addresses."""
    made = Code(b"\xc3")
    start = int(made.address)

    def is_free():
        pieces = [Code(b"\xc3") for _ in range(2)]
        first, second = (int(each.address) for each in pieces)
        return first == start != second

    return made, is_free


def large_code():
    made = Code(b"\xc3" * (1 << 21))
    return made, partial(is_unmapped, int(made.address))


def adapter():
    """It is free again, once."""
    made = adapters.Adapter(bytes([F64]), 0, 0)
    address = made.address

    def is_free():
        return [loaded.routine(name) for loaded, name in free].count(address) == 1

    free = adapters._free[VALUE_TYPES["f64"],]
    return made, is_free


def compiled_code():
    instance = instantiate({"f": Function("-> i32", "i32.const 01")})
    code = instance.runtime.code
    instance.close()
    return code, partial(is_unmapped, code.address)


@pytest.mark.parametrize("in_a_cycle", [False, True], ids=["last reference", "cycle"])
@pytest.mark.parametrize("make", [resource, memory, small_code, large_code, adapter, compiled_code])
def test_all_is_released_once(make, in_a_cycle, machine_code, monkeypatch):
    heard = []
    monkeypatch.setattr(sys, "unraisablehook", lambda it: heard.append(type(it.exc_value)))
    is_released = []

    def scene():
        heard.clear()
        it, released = make()
        is_released[:] = [released]
        kept = [it]
        if in_a_cycle:
            kept.append(kept)

        def drop():
            nonlocal kept
            kept = None
            gc.collect()

        def handler():
            raise Struck

        return drop, handler

    def check(outcome, number):
        assert not isinstance(outcome, BaseException)
        assert {*heard} <= {Struck}, number
        Resource(list)  # the finalizer of the next object goes on
        gc.collect()
        assert is_released[0](), (number, heard)

    make()
    gc.collect()
    assert at_every_point(scene, check) > 1
