"""The CPUs that take the short path of 64-bit division, and the path itself."""

from __future__ import annotations

import pytest

from asm_libcalls.x86_64 import cpu

INTEL, AMD = "GenuineIntel", "AuthenticAMD"
SLOW = {
    "Core 2": (INTEL, 6, 0x0F),
    "Haswell": (INTEL, 6, 0x3C),
    "Skylake server": (INTEL, 6, 0x55),
    "Goldmont Plus": (INTEL, 6, 0x7A),
    "Pentium 4": (INTEL, 15, 0x04),
    "K10": (AMD, 0x10, 0x02),
    "Bulldozer": (AMD, 0x15, 0x01),
}
FAST = {
    "Ice Lake": (INTEL, 6, 0x7E),
    "Sapphire Rapids": (INTEL, 6, 0x8F),
    "Tremont": (INTEL, 6, 0x96),
    "Zen": (AMD, 0x17, 0x01),
    "Zen 4": (AMD, 0x19, 0x61),
    "Haswell's number, of another maker": ("CentaurHauls", 6, 0x3C),
}


def decoded(vendor: str, family: int, model: int) -> cpu.Cpu:
    """Decode what CPUID says on such a model."""
    name = [int.from_bytes(vendor[i : i + 4].encode(), "little") for i in (0, 4, 8)]
    base, extended = (family, 0) if family < 15 else (15, family - 15)
    version = base << 8 | extended << 20 | (model & 15) << 4 | model >> 4 << 16

    def cpuid(leaf: int, subleaf: int = 0) -> tuple[int, ...]:
        if leaf == 0:
            return 1, name[0], name[2], name[1]
        return (version, 0, 0, 0) if leaf == 1 else (0x80000000, 0, 0, 0)

    return cpu._decode(cpuid, lambda: 0)


@pytest.mark.parametrize("which", [*SLOW, *FAST])
def test_model(which):
    asked = {**SLOW, **FAST}[which]
    found = decoded(*asked)
    assert (found.vendor, found.family, found.model) == asked
    assert found.features == ({cpu.SLOW_DIVIDE_64} if which in SLOW else set())


def test_the_short_path_is_a_32_bit_division(machine_code):
    from asm_libcalls.x86_64 import integers

    div_esi, div_rsi, idiv_rsi = b"\xf7\xf6", b"\x48\xf7\xf6", b"\x48\xf7\xfe"
    for tuned in (False, True):
        features = frozenset({cpu.SLOW_DIVIDE_64} if tuned else ())
        divisions = {
            r.name: r.code for r in integers.routines(features) if r.name in integers.GUARDS
        }
        assert len(divisions) == 4
        for name, code in divisions.items():
            wide = idiv_rsi if name in ("i64_sdiv", "i64_srem") else div_rsi
            assert code.count(wide) == 1
            assert code.replace(wide, b"").count(div_esi) == tuned
