"""Machine code against the fallback and the oracle, on raw bit patterns.

Every encoding of a family is compared with the other implementations, not only the one that this
CPU gets: the legacy ones run on every newer CPU too.
"""

from __future__ import annotations

import pytest
from edge_tables import outcome
from hypothesis import assume, example, given
from hypothesis import strategies as st

from asm_libcalls.checks.rounding import CHECKER
from asm_libcalls.libcalls import DECLARATIONS
from asm_libcalls.signatures import Signature
from asm_libcalls.x86_64.cpu import SLOW_DIVIDE_64

ROUNDING = [name for name, row in DECLARATIONS.items() if row.family == "rounding"]
INTEGERS = [name for name, row in DECLARATIONS.items() if row.family == "integers"]

# The sets of CPU features that choose an encoding.
ENCODINGS = {
    "rounding-legacy": ("rounding", {"sse4_1"}),
    "rounding-vex": ("rounding", {"sse4_1", "avx"}),
    "integers-legacy": ("integers", set()),
    "integers-bmi2": ("integers", {"bmi2"}),
    "integers-short-division": ("integers", {SLOW_DIVIDE_64}),
}
TUNINGS = {SLOW_DIVIDE_64}  # a choice of instructions that every CPU has


def interesting_patterns(bits: int) -> st.SearchStrategy[int]:
    """Any pattern; half of them near a power of two or an end, or with few bits set."""
    mask = (1 << bits) - 1
    few = st.lists(st.integers(0, bits - 1), max_size=4).map(lambda at: sum({1 << i for i in at}))
    near = st.builds(
        lambda power, step, negative: ((1 << power) + step) * (-1 if negative else 1) & mask,
        st.integers(0, bits),
        st.integers(-3, 3),
        st.booleans(),
    )
    return st.integers(0, mask) | few | near | few.map(lambda pattern: pattern ^ mask)


@pytest.fixture(scope="module", params=ENCODINGS)
def encoding(request, machine_code, machine_entry, load_routines):
    """An encoding's family, and a function of a libcall's name that makes a callable on bits."""
    from asm_libcalls.x86_64 import integers, rounding

    family, features = ENCODINGS[request.param]
    missing = features - machine_code.cpu.features - TUNINGS
    if missing:
        pytest.skip(f"this CPU lacks {', '.join(sorted(missing))}")
    module = {"rounding": rounding, "integers": integers}[family]
    loaded = load_routines(*module.routines(frozenset(features)))

    def call_bits(name: str):
        signature = Signature(DECLARATIONS[name].signature)
        return lambda *patterns: machine_entry.call(loaded.routine(name), signature, patterns)

    return family, call_bits


def test_every_encoding_agrees_with_the_fallback(encoding, fallback, random_cases):
    family, call_bits = encoding
    wrong = []
    for name in {"rounding": ROUNDING, "integers": INTEGERS}[family]:
        expected, machine = fallback.libcalls[name].call_bits, call_bits(name)
        types = DECLARATIONS[name].signature.parameters
        mask, half = types[0].mask, 1 << types[0].bits // 2
        corners = (0, 1, 7, half - 1, half, half + 1, mask >> 1, (mask >> 1) + 1, mask - 1, mask)
        cases = [(x, y)[: len(types)] for x in corners for y in corners]
        for narrower in (0, 31, 32, 33):
            cases += [
                tuple(random_cases.getrandbits(t.bits) >> min(narrower, t.bits - 8) for t in types)
                for _ in range(1000)
            ]
        wrong += [
            f"{name}({', '.join(map(hex, case))}): {outcome(machine, *case)}, "
            f"the fallback {outcome(expected, *case)}"
            for case in cases
            if outcome(machine, *case) != outcome(expected, *case)
        ]
    assert wrong == []


@pytest.mark.parametrize("name", ROUNDING)
def test_rounding_agrees(name, accelerated, fallback):
    bits = DECLARATIONS[name].signature.parameters[0].bits
    one, other = accelerated.libcalls[name].call_bits, fallback.libcalls[name].call_bits
    oracle = CHECKER.oracle(accelerated.libcalls[name])

    @given(interesting_patterns(bits))
    @example(0)
    @example(1 << (bits - 1))
    def agree(pattern):
        assert f"{one(pattern):#x}" == f"{other(pattern):#x}" == f"{oracle(pattern):#x}"

    agree()


@pytest.mark.parametrize("name", INTEGERS)
def test_integers_agree(name, accelerated, fallback):
    one, other = accelerated.libcalls[name].call_bits, fallback.libcalls[name].call_bits

    @given(interesting_patterns(64), interesting_patterns(64))
    @example(1 << 63, (1 << 64) - 1)
    @example(1, 0)
    def agree(x, y):
        assert outcome(one, x, y) == outcome(other, x, y)

    agree()


def test_signed_division_identity(binding):
    """WebAssembly 2.0, 4.3.2: "i1 = i2 * idiv_s(i1, i2) + irem_s(i1, i2)"."""
    sdiv, srem = binding.libcalls["i64_sdiv"], binding.libcalls["i64_srem"]

    @given(interesting_patterns(64), interesting_patterns(64).filter(bool))
    def holds(x, y):
        assume((x, y) != (1 << 63, (1 << 64) - 1))  # the quotient does not exist
        quotient, remainder = sdiv(x, y), srem(x, y)
        signed_x, signed_y = (v - (1 << 64) if v >> 63 else v for v in (x, y))
        assert signed_y * quotient + remainder == signed_x
        assert abs(remainder) < abs(signed_y)
        assert remainder == 0 or (remainder < 0) == (signed_x < 0)

    holds()


def test_unsigned_division_identity(binding):
    """WebAssembly 2.0, 4.3.2: "i1 = i2 * idiv_u(i1, i2) + irem_u(i1, i2)"."""
    udiv, urem = binding.libcalls["i64_udiv"], binding.libcalls["i64_urem"]

    @given(interesting_patterns(64), interesting_patterns(64).filter(bool))
    def holds(x, y):
        assert divmod(x, y) == (udiv(x, y), urem(x, y))

    holds()
