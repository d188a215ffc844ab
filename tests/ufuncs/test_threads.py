"""Threads import the ufuncs at once, and run their loops at once."""

import numpy as np
import pytest
from free_threading import WITHOUT_GIL
from in_threads import in_threads

from asm_libcalls import ufuncs

THREADS = range(8)


def test_loops_of_eight_threads_at_once():
    numbers = np.random.default_rng(1).integers(-(2**63), 2**63 - 1, 20_000)
    divisors = np.where(numbers[::-1] == 0, 3, numbers[::-1] >> 17 | 1)
    floats = numbers.astype("f8") / 2**40
    wanted = {
        "rounded": np.ceil(floats),
        "quotients": ufuncs.sdiv(numbers, divisors),
        "shifted": numbers << 5,
    }
    shared = np.empty_like(floats)

    def work(number):
        for _ in range(30):
            assert np.array_equal(ufuncs.ceil(floats), wanted["rounded"])
            assert np.array_equal(ufuncs.sdiv(numbers, divisors), wanted["quotients"])
            assert np.array_equal(ufuncs.ishl(numbers, 5), wanted["shifted"])
            ufuncs.ceil(floats[number::8], out=shared[number::8])  # a part of each

    in_threads(work, THREADS)
    assert np.array_equal(shared, wanted["rounded"])


def test_eight_threads_import_them(child):
    child("""
        import sys
        from in_threads import in_threads

        def work(number):
            from asm_libcalls import ufuncs
            assert ufuncs.ceil([0.5, -1.5]).tolist() == [1.0, -1.0]
            assert ufuncs.sdiv(7, -2) == -3
            return id(ufuncs.ceil)

        assert len(set(in_threads(work, range(8)))) == 1
        """)


@pytest.mark.skipif(not WITHOUT_GIL, reason="there is always a GIL")
def test_they_do_not_turn_the_gil_on(child):
    child("import sys; from asm_libcalls import toy_jit, ufuncs; assert not sys._is_gil_enabled()")
