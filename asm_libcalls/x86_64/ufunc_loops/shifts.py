"""NumPy inner loops for 64-bit shifts, the count modulo 64: the loops of ``integers.py``.

AVX2 shifts each element of a vector by its own count; the arithmetic shift right needs AVX-512.
With AVX2 it is composed from the logical one: x >> c is ((x >>> c) ^ m) - m, where m = 2^63 >>> c
is the shifted place of the sign bit. Vector shifts give 0 for counts beyond 63, so counts are
masked first.

Source: Intel SDM volume 2, VPSLLVQ, VPSRLVQ, VPSRAVQ.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import peachpy.x86_64 as x86
from peachpy.x86_64 import JNZ, JZ, LABEL, MOV, RET, SUB, TEST, Label, cl, rax, rcx, rdx

from asm_libcalls.emitter.image import Routine
from asm_libcalls.x86_64.assembler import sequence
from asm_libcalls.x86_64.ufunc_loops import binary
from asm_libcalls.x86_64.ufunc_loops.binary import (
    advance, jump_if_overlapping, jump_unless_contiguous, reg_a, reg_b, reg_n, reg_out,
)  # fmt: skip

_VECTOR_BYTES = {"avx512f": 64, "avx2": 32}


def routines(features: frozenset[str]) -> Iterator[Routine]:
    """Assemble the loops for a CPU with these features, named ``i64_ishl_loop`` and so on."""
    extension = next((e for e in _VECTOR_BYTES if e in features), None)
    for name in ("i64_ishl", "i64_sshr", "i64_ushr"):
        yield sequence(f"{name}_loop", partial(_loop, name, extension))


def _loop(name: str, extension: str | None) -> None:
    sequential = x86.Label("sequential")
    binary.load_arguments()
    if extension:
        _Vectors(name, extension).write(sequential)
    x86.LABEL(sequential)
    _sequential({"i64_ishl": x86.SHL, "i64_sshr": x86.SAR, "i64_ushr": x86.SHR}[name])


def _sequential(shift: Any) -> None:
    loop, none = Label("one"), Label("none")
    reg_left = rdx  # the count of a shift is in cl
    MOV(reg_left, reg_n)
    TEST(reg_left, reg_left)
    JZ(none)
    LABEL(loop)
    MOV(rcx, [reg_b])
    MOV(rax, [reg_a])
    shift(rax, cl)  # modulo 64
    MOV([reg_out], rax)
    advance()
    SUB(reg_left, 1)
    JNZ(loop)
    LABEL(none)
    RET()


class _Vectors:
    """The contiguous paths: a count for each element, one count for all, one number for all."""

    def __init__(self, name: str, extension: str) -> None:
        self.name = name
        self.avx512 = extension == "avx512f"
        self.width = _VECTOR_BYTES[extension]
        prefix = "zmm" if self.avx512 else "ymm"
        self.registers = [getattr(x86, f"{prefix}{i}") for i in range(16)]
        self.move = x86.VMOVDQU64 if self.avx512 else x86.VMOVDQU

    def write(self, sequential: Any) -> None:
        """Emit the paths; other operands, and the remaining elements, go to `sequential`."""
        x86.CMP(reg_n, self.width // 8)
        x86.JB(sequential)
        ways = (("by_vector", True, True), ("by_scalar", True, False), ("of_scalar", False, True))
        for way, a, b in ways:
            otherwise = x86.Label(f"not_{way}") if way != "of_scalar" else sequential
            jump_unless_contiguous(otherwise, a=a, b=b)
            jump_if_overlapping(sequential, a=a, b=b)
            self._contiguous(way, a, b, sequential)
            if otherwise is not sequential:
                x86.LABEL(otherwise)

    def _contiguous(self, way: str, a: bool, b: bool, sequential: Any) -> None:
        lanes = self.width // 8
        xs, counts, signs = self.registers[0:4], self.registers[4:8], self.registers[8:12]
        self.counts_mask, self.sign_bit = self.registers[12:14]
        pair, single, rest = (x86.Label(f"{way}_{n}") for n in ("pair", "single", "rest"))
        self._broadcast(self.counts_mask, 63)
        if self.name == "i64_sshr" and not self.avx512:
            self._broadcast(self.sign_bit, -(2**63))
        if not a:
            x86.VPBROADCASTQ(xs[3], x86.qword[reg_a])
        if not b:
            x86.VPBROADCASTQ(counts[3], x86.qword[reg_b])
            self._prepare(counts[3], signs[3])

        def vectors(number: int) -> None:
            for i in range(number):
                x, count, sign = xs[i if a else 3], counts[i if b else 3], signs[i if b else 3]
                if a:
                    self.move(x, [reg_a + i * self.width])
                if b:
                    self.move(count, [reg_b + i * self.width])
                    self._prepare(count, sign)
                self._shift(xs[i], x, count, sign)
                self.move([reg_out + i * self.width], xs[i])
            for pointer, moves in ((reg_a, a), (reg_b, b), (reg_out, True)):
                if moves:
                    x86.ADD(pointer, number * self.width)

        x86.SUB(reg_n, 2 * lanes)
        x86.JB(single)
        x86.LABEL(pair)
        vectors(2)
        x86.SUB(reg_n, 2 * lanes)
        x86.JAE(pair)
        x86.LABEL(single)
        x86.ADD(reg_n, lanes)
        x86.JNC(rest)
        vectors(1)
        x86.SUB(reg_n, lanes)
        x86.LABEL(rest)
        x86.ADD(reg_n, lanes)
        x86.VZEROUPPER()
        x86.JMP(sequential)

    def _broadcast(self, register: Any, value: int) -> None:
        x86.MOV(x86.rax, value)
        if self.avx512:
            x86.VPBROADCASTQ(register, x86.rax)
        else:
            x86.VMOVQ(register.as_xmm, x86.rax)
            x86.VPBROADCASTQ(register, register.as_xmm)

    def _prepare(self, count: Any, sign: Any) -> None:
        """Mask counts; for the composed arithmetic shift, compute the places of the sign."""
        if self.avx512:
            x86.VPANDQ(count, count, self.counts_mask)
            return
        x86.VPAND(count, count, self.counts_mask)
        if self.name == "i64_sshr":
            x86.VPSRLVQ(sign, self.sign_bit, count)

    def _shift(self, result: Any, x: Any, count: Any, sign: Any) -> None:
        if self.name == "i64_ishl":
            x86.VPSLLVQ(result, x, count)
        elif self.name == "i64_ushr":
            x86.VPSRLVQ(result, x, count)
        elif self.avx512:
            x86.VPSRAVQ(result, x, count)
        else:
            x86.VPSRLVQ(result, x, count)
            x86.VPXOR(result, result, sign)
            x86.VPSUBQ(result, result, sign)
