"""C addresses for Python functions without machine code, over both backends."""

import ctypes
import gc
import sys

import pytest

from asm_libcalls.native import ctypes_callbacks, ctypes_entry
from asm_libcalls.native.ctypes_entry import PythonEntry
from asm_libcalls.signatures import Signature

INT32 = Signature("() -> i32")
C_INT32 = ctypes.CFUNCTYPE(ctypes.c_int32)


def callback(function, signature, bits):
    thunk = ctypes_callbacks.CallbackThunk(function, signature, bits)
    thunk.keep()
    return thunk.address, thunk.close


class Odd(BaseException):
    """What no code expects."""


@pytest.fixture
def make():
    """Make C addresses that are given back when the test is over."""
    releases = []

    def make(function, signature=INT32, bits=False):
        address, release = callback(function, signature, bits)
        releases.append(release)
        return address

    yield make
    for release in releases:
        release()


def test_a_callback_counts_while_it_runs(make):
    """The frames of its native caller cannot be walked."""
    seen = []

    def inner():
        seen.append(ctypes_entry.runs_unknown_frames())
        return 1

    def outer():
        seen.append(ctypes_entry.runs_unknown_frames())
        seen.append(C_INT32(make(inner))())
        seen.append(ctypes_entry.runs_unknown_frames())
        return 2

    assert not ctypes_entry.runs_unknown_frames()
    assert C_INT32(make(outer))() == 2
    assert seen == [True, True, 1, True]
    assert not ctypes_entry.runs_unknown_frames()


@pytest.mark.parametrize("bits", [False, True])
def test_after_an_exception_the_result_is_zero(make, monkeypatch, bits):
    """Without an entry of ours it cannot be raised."""
    reported = []
    monkeypatch.setattr(sys, "unraisablehook", lambda it: reported.append(it.exc_type))

    def fail():
        raise Odd

    assert C_INT32(make(fail, bits=bits))() == 0
    assert reported == [Odd]
    assert not ctypes_entry.runs_unknown_frames()


def test_what_is_raised_before_the_first_line_is_raised_later(make):
    """By a signal's handler, for example; here by a tracer."""
    address = make(lambda: 1)

    def trace(frame, event, argument):
        if frame.f_code is ctypes_callbacks._Callback._call.__code__:
            sys.settrace(None)
            raise Odd

    enter = PythonEntry()
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with pytest.raises(Odd):
            enter.call(address, INT32, [])
    finally:
        sys.settrace(before)
    assert enter.call(address, INT32, []) == 1


def test_where_ctypes_gets_no_memory(monkeypatch):
    def refuse(self, *_):
        def prototype(function):
            raise MemoryError

        prototype._restype_ = ctypes.c_int32
        return prototype

    monkeypatch.setattr(Signature, "ctypes_prototype", refuse)
    monkeypatch.setattr(ctypes_callbacks, "_free", {})
    with pytest.raises(MemoryError, match="the system refuses ctypes executable memory"):
        callback(lambda: 1, INT32, False)


def test_an_address_that_was_given_back_serves_again(monkeypatch):
    monkeypatch.setattr(ctypes_callbacks, "_free", {})
    monkeypatch.setattr(sys, "unraisablehook", lambda it: closed.append(it.exc_type))
    closed = []
    address, release = callback(lambda: 1, INT32, False)
    assert C_INT32(address)() == 1
    release()
    assert C_INT32(address)() == 0
    assert closed == [RuntimeError]
    again, release = callback(lambda: 2, INT32, False)
    other, release_other = callback(lambda: 3, INT32, False)
    assert (again == address, other == address) == (True, False)
    assert (C_INT32(again)(), C_INT32(other)()) == (2, 3)
    release()
    release_other()


def test_bit_patterns_keep_signalling_nans(make):
    signature = Signature("(f64, f32) -> i64")
    seen = []
    address = make(lambda *patterns: seen.append(patterns) or 2**63 + 5, signature, bits=True)
    patterns = [0x7FF0000000000001, 0x7F800001]
    assert PythonEntry().call(address, signature, patterns) == 2**63 + 5
    assert seen == [tuple(patterns)]


def test_a_callback_is_never_freed(monkeypatch):
    """Native code may have its address."""
    monkeypatch.setattr(ctypes_callbacks, "_free", {})
    address = callback(lambda: 7, INT32, False)[0]
    gc.collect()
    there = [thing for thing in gc.get_objects() if type(thing) is ctypes_callbacks._Callback]
    assert address in [callback.address for callback in there]
    assert C_INT32(address)() == 7


def test_results_of_32_bits_keep_signalling_nans(make):
    for pattern in (0x7FA00001, 0xFF800001, 0x7FFFFFFF, 0x80000000, 0x3FC00000, 1, 0):
        address = make(lambda pattern=pattern: pattern, Signature("() -> f32"), bits=True)
        assert PythonEntry().call(address, Signature("() -> f32"), []) == pattern
    address = make(lambda x: x / 2, Signature("(f32) -> f32"))
    assert ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_float)(address)(5) == 2.5


def test_results_of_32_bits_elsewhere(make, monkeypatch):
    """Where registers are not known, by ctypes' own conversion."""
    monkeypatch.setattr(ctypes_callbacks, "_has_halves", lambda: False)
    monkeypatch.setattr(ctypes_callbacks, "_free", {})
    for pattern in (0x7FC00001, 0x3FC00000):
        address = make(lambda pattern=pattern: pattern, Signature("() -> f32"), bits=True)
        assert PythonEntry().call(address, Signature("() -> f32"), []) == pattern
