"""Truncating 64-bit division in 512-bit vectors, by doubles, exact for every operand.

No x86 instruction divides vectors of integers. This divides eight unsigned elements a by b, 1 <= b,
in less time than two scalar divisions. Doubles have 53 bits, so the quotient of the doubles is only
approximate; but every rounding below is directed so that the quotient is never too large. Let
u = 2^-52, so that one directed rounding changes a value by less than a factor 1 - u or 1 + u. No
value is subnormal, infinite or beyond 2^64.

1. y = b rounded up, so b <= y < b(1 + u).
2. r = 1/y rounded down, so r <= 1/b and r > (1/b) (1 - u)/(1 + u) > (1/b)(1 - 2u).
3. x = a rounded down, so x <= a and x > a(1 - u), or both are 0.
4. p = x*r rounded down, so p <= a/b and p >= (a/b)(1 - u)(1 - 2u)(1 - u) >= (a/b)(1 - 4u).
5. q = p truncated. q <= a/b, so q <= floor(a/b) and the remainder a - q*b is not negative: computed
   modulo 2^64 it is exact. q > a/b - 4u*a/b - 1, so the remainder is less than b + 4u*a < b + 2^14,
   for a < 2^64 and 4u = 2^-50.
6. If b >= 2^14, the remainder is less than 2b: q is floor(a/b) or one less, and comparing the
   remainder with b tells which.
7. If b < 2^14, steps 3 to 5 are done once more with the remainder r1 < b + 2^14 <= 2^15 in place of
   a. Then what remains is less than b + 4u*2^15 < b + 1, hence at most b, and step 6 ends it too.

On Intel's CPUs a division of eight doubles takes 16 cycles, so there vectors of divisors take other
reciprocals. An approximation r0 of 1/y, relative error below 2^-14, becomes r1 = r0 + r0*(1 -
y*r0), below 2^-27. With c = 1 - 2^-50, r = r1 + r1*(c - y*r1), rounded down: if r1 = (1 - e)/y,
that is (c + 2^-50*e - e^2)/y before its rounding, where e^2 < 2^-54 and the rounding of c - y*r1
changes it by less than 2^-78. So r is below 1/y, and above (1/y)(1 - 2^-49), and p >= (a/b)(1 -
2^-48). With 2^16 in place of 2^14 steps 5 to 7 are right: the first remainder is less than b +
2^16, and for b < 2^16 the second less than b + 2^-48 * 2^17.

The loop by a vector computes the reciprocals of the next divisors together with the quotients by
these. The instructions of one vector depend on each other for some 60 cycles, and those that wait
fill the CPU's scheduler. It begins the next vector in time only if each waits for half of that.

For a divisor d that all elements share, there is a loop for small ones and one for the others.
For 2 <= d < 2^16, quotients can also be had from one product, by multipliers of 52 bits (AVX-512
IFMA). Let M = floor(2^104/d) + 1, so M = (2^104 + e)/d with 0 < e <= d. For n < 2^64, n*M/2^104
exceeds n/d by n*e/(d*2^104) <= n/2^104 < 2^-40 < 1/d, so its floor is floor(n/d). With n = 2^52 n1
+ n0 and M = 2^52 m1 + m0, the low 52 bits of n0*m0 carry nothing, as all other terms are multiples
of 2^52.

Signed operands are divided by their magnitudes, which are at most 2^63 and so exact as unsigned
integers; ``MIN / -1`` gives the magnitude 2^63, whose pattern is MIN, as NumPy's wraps. A divisor 0
gives any intermediate value (infinity, NaN); the result is corrected at the end.

The rounding is in the instructions, not in MXCSR, and they suppress all exceptions: neither the
process's rounding mode nor its exception masks matter, and no unwanted flag is raised.

Source: Intel SDM volume 2, VCVTUQQ2PD, VDIVPD, VRCP14PD, VCVTTPD2UQQ, VPMULLQ, VPMADD52LUQ,
VPMADD52HUQ; volume 1, 15.6.4 (static rounding); uops.info (VDIVPD).
"""

from __future__ import annotations

from typing import Any

from peachpy.x86_64 import (
    ADD, BZHI, CMOVAE, CMOVNS, CMP, DIV, INC, JAE, JB, JE, JMP, JNZ, JZ, KANDNB, KMOVB, KORTESTB,
    LABEL, LEA, MOV, NEG, SHL, SHR, SUB, TEST, VCVTTPD2UQQ, VCVTUQQ2PD, VDIVPD, VFMADD231PD,
    VFNMADD213PD, VMOVDQA64, VMOVDQU64, VMULPD, VPABSQ, VPADDQ, VPBROADCASTQ, VPCMPEQQ, VPCMPUQ,
    VPMADD52HUQ, VPMADD52LUQ, VPMOVQ2M, VPMULLQ, VPSLLQ, VPSRLQ, VPSUBQ, VPTERNLOGQ, VPTESTNMQ,
    VPXORQ, VRCP14PD, VZEROUPPER, XOR, Label, eax, ecx, edx, k0, k1, k2, k3, k4, qword, rax, rd_sae,
    rdx, rn_sae, ru_sae, sae, zmm0, zmm1, zmm2, zmm3, zmm4, zmm5, zmm8, zmm9, zmm10, zmm11, zmm12,
    zmm13, zmm14, zmm16, zmm17, zmm18, zmm19, zmm20, zmm21, zmm22, zword,
)  # fmt: skip

from asm_libcalls.x86_64.cpu import ICE_LAKE
from asm_libcalls.x86_64.ufunc_loops.binary import (
    DIVIDE_FLAG, OVERFLOW_FLAG, jump_if_overlapping, jump_if_strided_overlap,
    jump_unless_contiguous, load_divisor, pack, raise_flag, reg_a, reg_a_step, reg_b, reg_b_step,
    reg_n, reg_out, reg_out_step, unpack,
)  # fmt: skip

REQUIRES = frozenset({"avx512f", "avx512dq", "bmi2"})

_MULTIPLIES = frozenset({"avx512ifma", ICE_LAKE})
"""Features with which a small divisor multiplies: on Intel's CPUs that is a third faster."""

_LIMB = 52
"""Bits that VPMADD52LUQ and VPMADD52HUQ take of each operand, and give."""

_LANES = 8
_SMALL, _SMALL_BY_FORMULA = 1 << 14, 1 << 16
"""Divisors from here on need one step; smaller ones may need the second."""

_BELOW_ONE = 0x3FEF_FFFF_FFFF_FFF8
"""The double 1 - 2^-50."""

_LESS, _NOT_LESS = 1, 5  # predicates of VPCMPUQ

# Registers of an iteration. The magnitudes of unsigned operands are the operands themselves.
zmm_a, zmm_b, zmm_reciprocal, zmm_quotient, zmm_remainder, zmm_scratch = (
    zmm0, zmm1, zmm2, zmm3, zmm8, zmm9,
)  # fmt: skip
zmm_signed_a, zmm_signed_b = zmm10, zmm11
k_tail, k_negative, k_small, k_scratch = k1, k2, k3, k4
# As a mask k0 means every lane. It must be explicit: PeachPy 0.2 encodes a comparison into a bare
# mask register as if it were masked by that register.
k_all = k0
# Constants.
zmm_small, zmm_one, zmm_one_double, zmm_zero = zmm16, zmm17, zmm18, zmm19
zmm_m0, zmm_m1, zmm_below_one = zmm20, zmm21, zmm22
# The next divisors, as loaded, their magnitudes and their reciprocals.
zmm_next_signed_b, zmm_next_b, zmm_next_reciprocal = zmm12, zmm13, zmm14


def vector_division(
    *, signed: bool, remainder: bool, features: frozenset[str], sequential: Any, finish: Any
) -> None:
    """Emit the vector paths of a division loop: by vector, by scalar, of a scalar, and strided.

    The CPU has the features of :data:`REQUIRES`. The paths jump to `sequential` with operands that
    they do not handle and the remaining elements, and to `finish` at the end.
    """
    strided = Label("strided")
    kind = _Kind(signed, remainder, features)
    ways = (
        (_Way(kind, "by_vector"), Label("not_by_vector")),
        (_Way(kind, "by_scalar", b_fixed=True), Label("not_by_scalar")),
        (_Way(kind, "of_scalar", a_fixed=True), strided),
    )
    CMP(reg_n, _LANES)
    JB(sequential)
    for way, otherwise in ways:
        a, b = not way.a_fixed, not way.b_fixed
        jump_unless_contiguous(otherwise, a=a, b=b)
        jump_if_overlapping(sequential, a=a, b=b)
        way.contiguous(sequential, finish)
        LABEL(otherwise)
    TEST(reg_out_step, reg_out_step)
    JZ(sequential)  # a reduction
    jump_if_strided_overlap(sequential)
    _Way(kind, "strided").strided(sequential, finish)


class _Kind:
    def __init__(self, signed: bool, remainder: bool, features: frozenset[str]) -> None:
        self.signed = signed
        self.remainder = remainder
        self.multiplies = not remainder and features >= _MULTIPLIES
        self.by_formula = ICE_LAKE in features
        self.small = _SMALL_BY_FORMULA if self.by_formula else _SMALL


class _Way:
    """One path: the operands of step 0, and the code."""

    def __init__(
        self, kind: _Kind, name: str, *, a_fixed: bool = False, b_fixed: bool = False
    ) -> None:
        self.kind = kind
        self.name = name
        self.a_fixed = a_fixed
        self.b_fixed = b_fixed
        self.loaded_a = zmm_signed_a if kind.signed else zmm_a
        self.loaded_b = zmm_signed_b if kind.signed else zmm_b
        self.next_b = zmm_next_signed_b if kind.signed else zmm_next_b

    def contiguous(self, sequential: Any, finish: Any) -> None:
        """Emit the loop over whole vectors; by one divisor, a loop for large ones and for small."""
        if not self.b_fixed:
            self._constants()
            self._loop("any", finish)
            return
        small = Label(f"{self.name}_small")
        load_divisor(sequential, signed=self.kind.signed, remainder=self.kind.remainder)
        self._constants()
        VPCMPUQ(k_small(k_all), zmm_b, zmm_small, _LESS)
        KORTESTB(k_small, k_small)
        JNZ(small)
        self._loop("large", finish)
        LABEL(small)
        if self.kind.multiplies:
            one = Label(f"{self.name}_one")
            self._find_multiplier(one)
            self._loop("multiplied", finish)
            LABEL(one)
        self._loop("small", finish)

    def _find_multiplier(self, one: Any) -> None:
        """Emit: M of the divisor, loaded over b's pointer; jump to `one` if the divisor is 1."""
        MOV(reg_b, [reg_b])
        if self.kind.signed:
            MOV(rax, reg_b)
            NEG(rax)
            CMOVNS(reg_b, rax)
        CMP(reg_b, 1)
        JE(one)
        XOR(edx, edx)
        MOV(rax, 1 << _LIMB)
        DIV(reg_b)
        VPBROADCASTQ(zmm_m1, rax)
        MOV(rax, rdx)  # the remainder times 2^52, in rdx and rax
        SHR(rdx, 64 - _LIMB)
        SHL(rax, _LIMB)
        DIV(reg_b)
        INC(rax)  # below 2^52: the fraction of 2^104/d is at most 1 - 1/d
        VPBROADCASTQ(zmm_m0, rax)

    def _loop(self, divisors: str, finish: Any) -> None:
        """Emit the loop for some divisors, then its body again, masked, for the rest."""
        loop, done = Label(f"{self.name}_{divisors}_loop"), Label(f"{self.name}_{divisors}_done")
        SUB(reg_n, _LANES)
        if not self.b_fixed:
            VMOVDQU64(self.loaded_b, [reg_b])
            self._take_reciprocals()
        LABEL(loop)
        if not self.a_fixed:
            VMOVDQU64(self.loaded_a, [reg_a])
            ADD(reg_a, 64)
        if not self.b_fixed:
            # These divisors again if no whole vector follows: what follows may not be readable.
            LEA(rax, [reg_b + 64])
            CMP(reg_n, _LANES)
            CMOVAE(reg_b, rax)
            VMOVDQU64(self.next_b, [reg_b])
            self._take_reciprocals(zmm_next_b, self.next_b, zmm_next_reciprocal)
        VMOVDQU64([reg_out], self._divide("loop", divisors))
        ADD(reg_out, 64)
        if not self.b_fixed:
            if self.kind.signed:
                VMOVDQA64(zmm_signed_b, zmm_next_signed_b)
            VMOVDQA64(zmm_b, zmm_next_b)
            VMOVDQA64(zmm_reciprocal, zmm_next_reciprocal)
        SUB(reg_n, _LANES)
        JAE(loop)
        ADD(reg_n, _LANES)
        JZ(done)
        MOV(eax, -1)
        BZHI(eax, eax, ecx)
        KMOVB(k_tail, eax)
        if not self.a_fixed:
            VMOVDQU64(self.loaded_a(k_tail.z), [reg_a])
        if not self.b_fixed:
            # The other lanes divide by a value that raises no flag and needs no second step.
            VMOVDQA64(self.loaded_b, zmm_small)
            VMOVDQU64(self.loaded_b(k_tail), [reg_b + 64])
            self._take_reciprocals()
        VMOVDQU64(zword[reg_out](k_tail), self._divide("tail", divisors))
        LABEL(done)
        VZEROUPPER()
        JMP(finish)

    def strided(self, sequential: Any, finish: Any) -> None:
        """Emit the loop over vectors gathered from and scattered to any addresses."""
        loop = Label("strided_loop")
        self._constants()
        SUB(reg_n, _LANES)
        LABEL(loop)
        pack(self.loaded_a, reg_a, reg_a_step)
        pack(self.loaded_b, reg_b, reg_b_step)
        self._take_reciprocals()
        unpack(reg_out, reg_out_step, self._divide("strided", "any"))
        SUB(reg_n, _LANES)
        JAE(loop)
        VZEROUPPER()
        ADD(reg_n, _LANES)
        JNZ(sequential)
        JMP(finish)

    def _constants(self) -> None:
        MOV(eax, 1)
        VPBROADCASTQ(zmm_one, rax)
        VCVTUQQ2PD(zmm_one_double, zmm_one, {rd_sae})
        MOV(eax, self.kind.small)
        VPBROADCASTQ(zmm_small, rax)
        VPXORQ(zmm_zero, zmm_zero, zmm_zero)
        if self.a_fixed:
            VPBROADCASTQ(self.loaded_a, qword[reg_a])
            self._magnitude(zmm_a, self.loaded_a)
        if self.b_fixed:
            VPBROADCASTQ(self.loaded_b, qword[reg_b])
            self._take_reciprocals()
        elif self.kind.by_formula:
            MOV(rax, _BELOW_ONE)
            VPBROADCASTQ(zmm_below_one, rax)

    def _magnitude(self, magnitude: Any, loaded: Any) -> None:
        if self.kind.signed:
            VPABSQ(magnitude, loaded)

    def _take_reciprocals(
        self, divisors: Any = zmm_b, loaded: Any = None, reciprocals: Any = zmm_reciprocal
    ) -> None:
        """Emit: the magnitudes of loaded divisors, and their reciprocals."""
        self._magnitude(divisors, loaded or self.loaded_b)
        VCVTUQQ2PD(zmm4, divisors, {ru_sae})  # step 1
        if not self.kind.by_formula or self.b_fixed:
            VDIVPD(reciprocals, zmm_one_double, zmm4, {rd_sae})  # step 2
            return
        VRCP14PD(reciprocals, zmm4)
        for minuend, rounding in ((zmm_one_double, rn_sae), (zmm_below_one, rd_sae)):
            VMOVDQA64(zmm5, zmm4)
            VFNMADD213PD(zmm5, reciprocals, minuend, {rn_sae})
            VFMADD231PD(reciprocals, reciprocals, zmm5, {rounding})

    def _divide(self, where: str, divisors: str) -> Any:
        """Emit the division of the loaded operands; return the register of the result.

        All divisors are ``"large"`` or ``"small"``; or ``"multiplied"``, small with a multiplier;
        or ``"any"``, where each vector of them is tested.
        """
        signed, remainder = self.kind.signed, self.kind.remainder
        if signed and remainder:
            VPMOVQ2M(k_negative, self.loaded_a)
        elif signed:
            VPXORQ(zmm_scratch, self.loaded_a, self.loaded_b)
            VPMOVQ2M(k_negative, zmm_scratch)
        if not self.a_fixed:
            self._magnitude(zmm_a, self.loaded_a)
        if not self.b_fixed:
            VPCMPUQ(k_small(k_all), zmm_b, zmm_small, _LESS)
        if divisors == "multiplied":
            self._multiply()
            if signed:
                VPSUBQ(zmm_quotient(k_negative), zmm_zero, zmm_quotient)
            return zmm_quotient
        self._step(zmm_quotient, zmm_remainder, zmm_a)
        if divisors == "small":
            self._second_step()
        elif divisors == "any":
            settled = Label(f"{self.name}_{where}_settled")
            KORTESTB(k_small, k_small)
            JZ(settled)
            self._second_step()
            self._check_flags(where)
            LABEL(settled)
        VPCMPUQ(k_scratch(k_all), zmm_remainder, zmm_b, _NOT_LESS)  # step 6
        result = zmm_remainder if remainder else zmm_quotient
        if remainder:
            VPSUBQ(result(k_scratch), result, zmm_b)
        else:
            VPADDQ(result(k_scratch), result, zmm_one)
        if signed:
            VPSUBQ(result(k_negative), zmm_zero, result)
        return result

    def _step(self, zmm_q: Any, zmm_rest: Any, zmm_dividend: Any) -> None:
        VCVTUQQ2PD(zmm_scratch, zmm_dividend, {rd_sae})  # step 3
        VMULPD(zmm_scratch, zmm_scratch, zmm_reciprocal, {rd_sae})  # step 4
        VCVTTPD2UQQ(zmm_q, zmm_scratch, {sae})  # step 5
        VPMULLQ(zmm_scratch, zmm_q, zmm_b)
        VPSUBQ(zmm_rest, zmm_dividend, zmm_scratch)

    def _multiply(self) -> None:
        zmm_n1, zmm_carry, zmm_top = zmm4, zmm_scratch, zmm_remainder
        VPSRLQ(zmm_n1, zmm_a, _LIMB)
        VPXORQ(zmm_carry, zmm_carry, zmm_carry)  # in units of 2^52, below 3 * 2^52
        VPMADD52HUQ(zmm_carry, zmm_a, zmm_m0)
        VPMADD52LUQ(zmm_carry, zmm_a, zmm_m1)
        VPMADD52LUQ(zmm_carry, zmm_n1, zmm_m0)
        VPSRLQ(zmm_quotient, zmm_carry, _LIMB)  # in units of 2^104
        VPMADD52HUQ(zmm_quotient, zmm_a, zmm_m1)
        VPMADD52HUQ(zmm_quotient, zmm_n1, zmm_m0)
        VPMADD52LUQ(zmm_quotient, zmm_n1, zmm_m1)
        VPXORQ(zmm_top, zmm_top, zmm_top)
        VPMADD52HUQ(zmm_top, zmm_n1, zmm_m1)
        VPSLLQ(zmm_top, zmm_top, _LIMB)
        VPADDQ(zmm_quotient, zmm_quotient, zmm_top)

    def _second_step(self) -> None:
        self._step(zmm4, zmm_remainder, zmm_remainder)  # step 7
        if not self.kind.remainder:
            VPADDQ(zmm_quotient, zmm_quotient, zmm4)

    def _check_flags(self, where: str) -> None:
        # Both flags need small divisors, so only the second step tests for them.
        no_zero = Label(f"{self.name}_{where}_no_zero")
        VPTESTNMQ(k_scratch(k_all), zmm_b, zmm_b)
        KORTESTB(k_scratch, k_scratch)
        JZ(no_zero)
        raise_flag(DIVIDE_FLAG)
        # Step 6 finds the remainder 0 not less than the divisor 0: it adds 1, and subtracts 0.
        VPTERNLOGQ(zmm_quotient(k_scratch), zmm_quotient, zmm_quotient, 0xFF)  # all ones
        VMOVDQA64(zmm_remainder(k_scratch), zmm_zero)
        LABEL(no_zero)
        if self.kind.signed and not self.kind.remainder:
            no_overflow = Label(f"{self.name}_{where}_no_overflow")
            VPMOVQ2M(k_scratch, zmm_a)  # the magnitude of MIN alone
            VPCMPEQQ(k_scratch(k_scratch), zmm_b, zmm_one)
            KANDNB(k_scratch, k_negative, k_scratch)
            KORTESTB(k_scratch, k_scratch)
            JZ(no_overflow)
            raise_flag(OVERFLOW_FLAG)
            LABEL(no_overflow)
