"""The timing loop of the benchmarks: number of calls, arguments, and preserved registers."""

import ctypes

import pytest

pytest.importorskip("peachpy", reason="the loop is assembled by PeachPy")

from asm_libcalls.benchmark import native_loop


def _counter():
    """(long long *sums, a, b, c, d, e): add each argument to what is there."""
    from peachpy.x86_64 import ADD, MOV, OR, RET, qword, r8, r9, rax, rcx, rdi, rdx, rsi
    from peachpy.x86_64.registers import rsp

    ADD(qword[rdi], 1)
    for i, register in enumerate((rsi, rdx, rcx, r8, r9)):
        ADD([rdi + 8 * (i + 1)], register)
    MOV(rax, rsp)
    OR([rdi + 48], rax)
    RET()


@pytest.fixture(scope="module")
def loaded(load_routines):
    from asm_libcalls.x86_64.assembler import sequence

    return load_routines(native_loop.routine(), sequence("counter", _counter))


@pytest.mark.parametrize("count", [1, 2, 1000])
def test_each_call_has_the_arguments(loaded, count):
    sums = (ctypes.c_uint64 * 7)()
    arguments = (ctypes.addressof(sums), 1, 20, 300, 4000, 50000)
    call = native_loop.call_of(loaded.routine("counter"), arguments)
    ticks = native_loop.repeater(loaded)(call, count)
    assert list(sums[:6]) == [count * n for n in (1, 1, 20, 300, 4000, 50000)]
    assert sums[6] & 15 == 8  # rsp as the ABI has it at a function's entry
    assert ticks > 0


def test_a_count_of_none(loaded):
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        native_loop.repeater(loaded)(native_loop.call_of(1), 0)
