"""The timing loop of the benchmarks: number of calls, arguments, and preserved registers."""

from __future__ import annotations

import ctypes

import pytest

pytest.importorskip("peachpy", reason="the loop is assembled by PeachPy")

from asm_libcalls.benchmark import native_loop


def _counter():
    """(long long *sums, a, b, c, d, e; double x, y): add each argument to what is there."""
    from peachpy.x86_64 import (
        ADD,
        ADDSD,
        MOV,
        MOVSD,
        OR,
        RET,
        qword,
        r8,
        r9,
        rax,
        rcx,
        rdi,
        rdx,
        rsi,
        xmm0,
        xmm1,
    )
    from peachpy.x86_64.registers import rsp

    ADD(qword[rdi], 1)
    for i, register in enumerate((rsi, rdx, rcx, r8, r9)):
        ADD([rdi + 8 * (i + 1)], register)
    for i, register in enumerate((xmm0, xmm1)):
        ADDSD(register, [rdi + 8 * (i + 6)])
        MOVSD([rdi + 8 * (i + 6)], register)
    MOV(rax, rsp)
    OR([rdi + 64], rax)
    RET()


@pytest.fixture(scope="module")
def loaded(load_routines):
    from asm_libcalls.x86_64.assembler import sequence

    return load_routines(
        native_loop.routine(),
        native_loop.routine(6, 2, "with_floats"),
        sequence("counter", _counter),
    )


def _bits(number: float) -> int:
    return ctypes.c_uint64.from_buffer(ctypes.c_double(number)).value


@pytest.mark.parametrize("count", [1, 2, 1000])
def test_each_call_has_the_arguments(loaded, count):
    sums = (ctypes.c_uint64 * 9)()
    call = native_loop.call_of(
        loaded.routine("counter"),
        (ctypes.addressof(sums), 1, 20, 300, 4000, 50000),
        (_bits(0.5), _bits(-2.0)),
    )
    ticks = native_loop.repeater(loaded, "with_floats")(call, count)
    assert list(sums[:6]) == [count * n for n in (1, 1, 20, 300, 4000, 50000)]
    assert list(sums[6:8]) == [_bits(0.5 * count), _bits(-2.0 * count)]
    assert sums[8] & 15 == 8  # rsp as the ABI has it at a function's entry
    assert ticks > 0


def test_a_count_of_none(loaded):
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        native_loop.repeater(loaded)(native_loop.call_of(1), 0)
