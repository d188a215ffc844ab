"""Older and newer x86-64 CPUs, emulated: each gets the code that it can run, and no other.

An instruction that a CPU lacks ends the guest with a signal, so a wrong choice cannot pass.
"""

from __future__ import annotations

import platform
import shutil
import sys

import pytest
from emulated import run_guest

from asm_libcalls.libcalls import DECLARATIONS

ROUNDING = [name for name, row in DECLARATIONS.items() if row.family == "rounding"]
INTEGERS = [name for name, row in DECLARATIONS.items() if row.family == "integers"]

# qemu's model; features that it has and lacks; how it rounds (None: in Python) and shifts.
CPUS = {
    "Opteron_G1": ({"sse3"}, {"ssse3", "sse4_1", "avx", "bmi2"}, None, "shl"),
    "Conroe": ({"sse3", "ssse3"}, {"sse4_1", "avx", "bmi2"}, None, "shl"),
    "Nehalem": ({"sse4_1", "popcnt"}, {"avx", "bmi2"}, "round", "shl"),
    "Haswell": ({"sse4_1", "avx", "avx2", "bmi2", "fma3"}, {"avx512f"}, "vround", "shlx"),
    # The CPU has AVX, and the system does not save its registers: only xgetbv tells, and that is
    # an illegal instruction here until cpuid has allowed it.
    "Haswell,-xsave": ({"sse4_1", "bmi2"}, {"avx", "avx2", "fma3", "f16c"}, "round", "shlx"),
    "max": ({"sse4_1", "avx", "avx2", "bmi2"}, set(), "vround", "shlx"),
}


@pytest.fixture(scope="module", params=CPUS)
def guest(request, machine_code):
    """What a guest of one CPU printed, and what is expected of that CPU."""
    if platform.machine() != "x86_64":
        pytest.skip("this Python is for another architecture")
    qemu = shutil.which("qemu-x86_64-static") or shutil.which("qemu-x86_64")
    if qemu is None:
        pytest.skip("no qemu-x86_64-static: install Debian's package qemu-user-static")
    return run_guest([qemu, "-cpu", request.param, sys.executable]), CPUS[request.param]


def mnemonics(code: str) -> list[str]:
    capstone = pytest.importorskip("capstone", reason="needs the disassembler of the cli extra")
    disassembler = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    return [mnemonic for _, _, mnemonic, _ in disassembler.disasm_lite(bytes.fromhex(code), 0)]


def test_features(guest):
    verdict, (has, lacks, _, _) = guest
    features = set(verdict["report"]["cpu_features"].split())
    assert has - features == set()
    assert lacks & features == set()


def test_what_serves_the_rounding(guest):
    verdict, (_, _, rounds, _) = guest
    rows = {name: verdict["report"]["libcalls"][name] for name in ROUNDING}
    if rounds is None:
        assert {row["backend"] for row in rows.values()} == {"fallback"}
        assert {row["reason"] for row in rows.values()} == {"the CPU lacks sse4_1"}
        assert not set(ROUNDING) & set(verdict["code"])
        return
    assert {row["backend"] for row in rows.values()} == {"x86_64"}
    for name in ROUNDING:
        suffix = "ss" if name.startswith("f32") else "sd"
        assert mnemonics(verdict["code"][name]) == [rounds + suffix, "ret"], name


def test_what_serves_the_integers(guest):
    verdict, (_, _, _, shifts) = guest
    rows = {name: verdict["report"]["libcalls"][name] for name in INTEGERS}
    assert {row["backend"] for row in rows.values()} == {"x86_64"}
    assert shifts in mnemonics(verdict["code"]["i64_ishl"])
    assert "idiv" in mnemonics(verdict["code"]["i64_sdiv"])
    assert "div" in mnemonics(verdict["code"]["i64_udiv"])


def test_asking_for_machine_code_on_a_cpu_that_can_not(child, machine_code):
    qemu = shutil.which("qemu-x86_64-static") or shutil.which("qemu-x86_64")
    if qemu is None or platform.machine() != "x86_64":
        pytest.skip("no qemu-x86_64-static: install Debian's package qemu-user-static")
    done = child(
        """
        try:
            import asm_libcalls
        except ImportError as error:
            print(error)
        """,
        command=[qemu, "-cpu", "Conroe", sys.executable],
        variables={"ASM_LIBCALLS_BACKEND": "x86_64"},
    )
    assert done.stdout == (
        "ASM_LIBCALLS_BACKEND=x86_64, but machine code cannot serve: "
        "rounding: the CPU lacks sse4_1\n"
    )
