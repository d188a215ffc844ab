"""The self-check and the verification: they find a wrong result, and show it in bits."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from random import Random

import pytest

from asm_libcalls import LIBCALLS, Libcall
from asm_libcalls.binding import default_binding
from asm_libcalls.checks.engine import address_or_reason, checker_of, self_check, verify
from asm_libcalls.fallback import integers, rounding
from asm_libcalls.native.without_machine_code import NoInterface

NUMERIC = [n for n, c in LIBCALLS.items() if c.declaration.family in ("rounding", "integers")]


@pytest.mark.parametrize("name", LIBCALLS)
def test_every_libcall_passes_before_three_judges(name: str) -> None:
    libcall = LIBCALLS[name]
    verdict = self_check(libcall)
    assert verdict.passed
    assert verdict.difference is None
    assert verdict.compared == (libcall.backend, _second(libcall), "oracle")


def _second(libcall: Libcall) -> str:
    return "address" if libcall.backend == "fallback" else "fallback"


_F64 = LIBCALLS["f64_ceil"].signature.parameters[0]
_MASK, _MINIMUM = 2**64 - 1, 1 << 63
_MAGNITUDE, _INFINITY = 2**63 - 1, 0x7FF << 52

nearest = rounding.f64_nearest
sdiv, srem = integers.i64_sdiv, integers.i64_srem


def _signed(pattern: int) -> int:
    return pattern - (pattern >> 63 << 64)


def _is_nan(pattern: int) -> bool:
    return pattern & _MAGNITUDE > _INFINITY


def _away_from_zero(pattern: int) -> int:
    magnitude = pattern & _MAGNITUDE
    if magnitude >= 0x4330000000000000:  # 2**52: no digits behind the point
        return nearest(pattern)
    up = _F64.to_bits(_F64.from_bits(magnitude) + 0.5, "x")
    return rounding.f64_floor(up) | pattern & _MINIMUM


def _trapping_remainder(x: int, y: int) -> int:
    """Use idiv for the remainder, which faults where the quotient has no representation."""
    if y:
        sdiv(x, y)
    return srem(x, y)


MISTAKES: dict[str, tuple[str, Callable[..., int]]] = {
    "ties away from zero": ("f64_nearest", _away_from_zero),
    "loses the sign of zero": ("f64_nearest", lambda x: nearest(x) & _MAGNITUDE and nearest(x)),
    "keeps a NaN signalling": ("f64_nearest", lambda x: x if _is_nan(x) else nearest(x)),
    "canonical NaN": ("f64_nearest", lambda x: 0x7FF8 << 48 if _is_nan(x) else nearest(x)),
    "floored quotient": ("i64_sdiv", lambda x, y: sdiv(x, y) and _signed(x) // _signed(y) & _MASK),
    "MIN / -1 wraps": ("i64_sdiv", lambda x, y: x if x == _MINIMUM and y == _MASK else sdiv(x, y)),
    "MIN % -1 traps": ("i64_srem", _trapping_remainder),
    "count not masked": ("i64_sshr", lambda x, y: _signed(x) >> min(y, 64) & _MASK),
    "zeros shifted in": ("i64_sshr", lambda x, y: x >> (y & 63)),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_self_check_finds(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each classic mistake, made in what serves, is found by the edge cases alone."""
    name, wrong = MISTAKES[mistake]
    libcall = LIBCALLS[name]
    monkeypatch.setattr(libcall, "call_bits", wrong)
    verdict = self_check(libcall)
    assert not verdict.passed
    assert verdict.difference is not None
    # The others agree with each other: the report names the one that is wrong.
    served, *others = verdict.difference.outcomes.values()
    assert all(other == others[0] != served for other in others)


def test_a_difference_is_shown_in_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    libcall = LIBCALLS["f64_ceil"]
    ceil = libcall.call_bits
    monkeypatch.setattr(libcall, "call_bits", lambda x: ceil(x) ^ (x == 1 << 63))
    difference = self_check(libcall).difference
    assert difference is not None
    assert [line.split(maxsplit=1) for line in difference.lines()] == [
        ["x", "0x8000000000000000  f64 -0.0"],
        [libcall.backend, "0x8000000000000001  f64 -5e-324"],
        [_second(libcall), "0x8000000000000000  f64 -0.0"],
        ["oracle", "0x8000000000000000  f64 -0.0"],
        ["xor", "0x0000000000000001"],
    ]
    assert difference.case_number == 2


def test_a_missing_trap_is_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    libcall = LIBCALLS["i64_udiv"]
    udiv = libcall.call_bits
    # 7 is the code of the trap that belongs there: a result must not be taken for it.
    monkeypatch.setattr(libcall, "call_bits", lambda x, y: udiv(x, y) if y else 7)
    difference = self_check(libcall).difference
    assert difference is not None
    assert difference.outcomes["oracle"] == {"trap": "INTEGER_DIVISION_BY_ZERO"}
    assert difference.outcomes[libcall.backend]["text"] == "7"
    assert difference.xor == ""


def test_an_exception_never_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where every implementation raises the same."""
    libcall = LIBCALLS["i64_ishl"]

    def broken(*patterns: int) -> int:
        raise RuntimeError("broken")

    monkeypatch.setattr(libcall, "call_bits", broken)
    monkeypatch.setattr(integers, "i64_ishl", broken)
    monkeypatch.setattr(type(checker_of(libcall)), "oracle", lambda self, libcall: broken)
    verdict = self_check(libcall)
    assert not verdict.passed
    assert verdict.difference is not None
    assert verdict.difference.outcomes["oracle"] == {"error": "RuntimeError: broken"}
    assert verdict.difference.lines()[-1].endswith("error: RuntimeError: broken")


def test_nothing_checked_is_not_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    libcall = LIBCALLS["i64_ishl"]
    monkeypatch.setattr(type(checker_of(libcall)), "edge_cases", lambda self, libcall: iter(()))
    assert not self_check(libcall).passed


def test_a_family_without_a_checker_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    libcall = LIBCALLS["i64_ishl"]
    monkeypatch.setattr(libcall.declaration, "family", "nothing")
    with pytest.raises(LookupError, match=r"asm_libcalls\.checks\.nothing is missing"):
        self_check(libcall)


@pytest.mark.parametrize("name", NUMERIC)
def test_cases_are_patterns_of_the_signature_and_repeat_by_seed(name: str) -> None:
    libcall = LIBCALLS[name]
    checker = checker_of(libcall)
    first, again, other = (
        list(islice(checker.random_cases(libcall, Random(seed)), 500)) for seed in (1, 1, 2)
    )
    assert first == again != other
    assert len(set(first)) > 400
    edges = list(checker.edge_cases(libcall))
    assert len(set(edges)) == len(edges)
    for case in edges + first:
        assert len(case) == len(libcall.signature.parameters)
        assert all(
            0 <= pattern <= value_type.mask
            for pattern, value_type in zip(case, libcall.signature.parameters, strict=True)
        )


def test_verify_runs_the_edge_cases_and_the_count_and_tells_how_far() -> None:
    libcall = LIBCALLS["i64_sdiv"]
    told: list[int] = []
    verdict = verify(libcall, 1000, 5, told.append)
    assert verdict.passed
    assert verdict.cases == self_check(libcall).cases + 1000
    assert told == sorted(set(told))
    assert 0 < verdict.cases - told[-1] < 1000


def test_verify_finds_what_only_random_cases_hit(monkeypatch: pytest.MonkeyPatch) -> None:
    libcall = LIBCALLS["i64_urem"]
    urem = libcall.call_bits
    assert verify(libcall, 300, 3).passed
    rare = list(islice(checker_of(libcall).random_cases(libcall, Random("3 i64_urem")), 300))[200]
    monkeypatch.setattr(
        libcall,
        "call_bits",
        lambda x, y: urem(x, y) ^ ((x, y) == rare),  # one case in 2**128
    )
    assert self_check(libcall).passed
    found = verify(libcall, 300, 3)
    assert found.difference is not None
    assert found.cases == found.difference.case_number == self_check(libcall).cases + 201
    assert [value["bits"] for value in found.difference.inputs.values()] == [
        f"0x{pattern:016x}" for pattern in rare
    ]


def test_without_ctypes_the_fallback_is_checked_against_the_oracle_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    libcall = LIBCALLS["f32_floor"]
    monkeypatch.setattr(libcall, "backend", "fallback")
    monkeypatch.setattr(libcall, "_address", 0)
    monkeypatch.setattr(default_binding(), "interface", NoInterface("no ctypes"))
    assert self_check(libcall).compared == ("fallback", "oracle")
    address, reason = address_or_reason(libcall)
    assert address == 0
    assert "ctypes" in reason
