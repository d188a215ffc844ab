"""NumPy inner loops for truncating 64-bit division and remainder: the loops of ``integers.py``.

A divisor 0 gives 0 and raises the divide flag; ``MIN / -1`` gives MIN and raises the overflow flag;
``MIN % -1`` is 0. NumPy's own integer division does the same, and then warns or raises, or not, as
``np.errstate`` says.

With AVX-512, vectors divide (`division_vectors`). Without it, a divisor that all elements share
becomes a multiplication (`division_by_scalar`). The remaining elements go one at a time through
``div`` and ``idiv``.

Source: Intel SDM volume 2, DIV and IDIV; NumPy's ``loops_arithmetic``, for the flags.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from peachpy.x86_64 import (
    ADD, CMP, CQO, DIV, IDIV, JBE, JE, JMP, JNO, JNZ, JZ, LABEL, MOV, NEG, OR, SHR, SUB, TEST, XOR,
    Label, dword, eax, edx, qword, rax, rdx,
)  # fmt: skip

from asm_libcalls.emitter.image import Routine
from asm_libcalls.x86_64.assembler import sequence
from asm_libcalls.x86_64.ufunc_loops import binary, division_by_scalar, division_vectors
from asm_libcalls.x86_64.ufunc_loops.binary import (
    DIVIDE_FLAG, OVERFLOW_FLAG, advance, raise_flag, reg_a, reg_b, reg_n, reg_out,
)  # fmt: skip


def routines(features: frozenset[str]) -> Iterator[Routine]:
    """Assemble the loops for a CPU with these features, named ``i64_sdiv_loop`` and so on."""
    for name, signed, remainder in (
        ("i64_sdiv", True, False),
        ("i64_srem", True, True),
        ("i64_udiv", False, False),
        ("i64_urem", False, True),
    ):
        yield sequence(f"{name}_loop", partial(_loop, features, signed, remainder))


def _loop(features: frozenset[str], signed: bool, remainder: bool) -> None:
    sequential, finish = Label("sequential"), Label("finish")
    binary.load_arguments()
    binary.clear_flags()
    has_vectors = features >= division_vectors.REQUIRES
    emit = division_vectors.vector_division if has_vectors else division_by_scalar.scalar_division
    emit(
        signed=signed,
        remainder=remainder,
        features=features,
        sequential=sequential,
        finish=finish,
    )
    LABEL(sequential)
    _sequential(signed, remainder)
    LABEL(finish)
    binary.return_with_flags()


def _sequential(signed: bool, remainder: bool) -> None:
    # Falls through to what follows, after the last element.
    loop, store, short, special, none, zero = (
        Label(n) for n in ("one", "store", "short", "special", "none", "zero")
    )
    TEST(reg_n, reg_n)
    JZ(none)
    LABEL(loop)
    MOV(rax, [reg_a])
    MOV(rdx, [reg_b])
    if signed:
        ADD(rdx, 1)
        CMP(rdx, 1)
        JBE(special)  # the divisor is -1 or 0
        SUB(rdx, 1)
    else:
        TEST(rdx, rdx)
        JZ(zero)
    # Two operands below 2^32 take the 32-bit division: several times as fast on Intel's CPUs before
    # Ice Lake, and slower on none.
    OR(rdx, rax)
    SHR(rdx, 32)
    JZ(short)
    if signed:
        CQO()
        IDIV(qword[reg_b])
    else:
        XOR(edx, edx)
        DIV(qword[reg_b])
    LABEL(store)
    MOV([reg_out], rdx if remainder else rax)
    advance()
    SUB(reg_n, 1)
    JNZ(loop)
    JMP(none)

    LABEL(short)  # edx is 0
    DIV(dword[reg_b])
    JMP(store)
    if signed:
        LABEL(special)
        JE(zero)
        if remainder:
            XOR(edx, edx)  # every integer is a multiple of -1
        else:
            NEG(rax)  # overflows for MIN alone, and leaves it
            JNO(store)
            raise_flag(OVERFLOW_FLAG)
        JMP(store)
    LABEL(zero)
    raise_flag(DIVIDE_FLAG)
    XOR(eax, eax)
    XOR(edx, edx)
    JMP(store)
    LABEL(none)
