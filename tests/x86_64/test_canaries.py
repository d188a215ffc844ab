"""Callee-saved state around each libcall of both tables at its C address, by a native harness.

rbx, rbp, rsp, r12 to r15, the direction flag, the control bits of MXCSR, the x87 control word and
an empty x87 stack: System V ABI for AMD64, 3.2.1 and 3.2.3. A *canary* routine puts patterns into
all of them (and rounding modes that are not the usual ones), calls, and says what is different.

It is in two places: below the entry, where it calls the libcall as compiled code does; and above
it, where a trap or a Python exception may have unwound the frames in between.
"""

from __future__ import annotations

import ctypes
import itertools

import pytest
from llvm_routines import load_for

import asm_libcalls
from asm_libcalls import LIBCALLS, llvm
from asm_libcalls.checks.engine import checker_of
from asm_libcalls.libcalls import DECLARATIONS
from asm_libcalls.signatures import Signature

CASES = 150
ROUND_UP_SSE, ROUND_UP_X87 = 0x5F80, 0x0B7F
SAVED = ("rbx", "rbp and rsp", "r12", "r13", "r14", "r15", "MXCSR")


EVERY = {**LIBCALLS, **llvm.LIBCALLS}
STORED = (ctypes.c_char * 16)()
"""The targets of pointers of the second table's libcalls."""
STORING = ("division", "multiplication")


class Record(ctypes.Structure):
    """The arguments of the canary, and its findings."""

    _fields_ = [
        ("integers", ctypes.c_uint64 * 6),
        ("float", ctypes.c_uint64),
        ("target", ctypes.c_uint64),
        ("result", ctypes.c_uint64),
        ("changed", ctypes.c_uint64),
        ("mxcsr", ctypes.c_uint64),
        ("before", ctypes.c_uint64),
        ("after", ctypes.c_uint64),
        ("x87", ctypes.c_uint32 * 8),  # the environment that fnstenv stores has 28 bytes
        ("flags", ctypes.c_uint64),
        ("x87_control", ctypes.c_uint32),
    ]

    def found(self) -> list[str]:
        """Return the state that the callee has not preserved."""
        found = [name for i, name in enumerate(SAVED) if self.changed >> i & 1]
        if self.flags & 1 << 10:
            found.append("direction flag")
        if self.x87[0] & 0xFFFF != ROUND_UP_X87:
            found.append("x87 control word")
        if self.x87[2] & 0xFFFF != 0xFFFF or self.x87[1] >> 11 & 7:  # tags all empty, top 0
            found.append("x87 stack")
        return found


def canary() -> None:
    """Write (Record *): no arguments of PeachPy's, since every register has its part."""
    from native_code import SAVED, compare_saved, mark_saved
    from peachpy.x86_64 import (
        ADD, AND, CALL, CMP, LDMXCSR, MOV, MOVQ, POP, PUSH, RET, STMXCSR, SUB, dword, eax, r8, r9,
        r10, rax, rcx, rdi, rdx, rsi, xmm0,
    )  # fmt: skip
    from peachpy.x86_64.registers import rsp

    def at(field: str) -> int:
        return int(getattr(Record, field).offset)

    for register in SAVED:
        PUSH(register)
    SUB(rsp, 24)
    MOV([rsp], rdi)
    STMXCSR([rsp + 8])
    LDMXCSR([rdi + at("mxcsr")])
    MOV(rax, [rdi + at("before")])
    CALL(rax)
    MOV(rax, [rsp])
    for i, register in enumerate((rdi, rsi, rdx, rcx, r8, r9)):
        MOV(register, [rax + 8 * i])
    MOVQ(xmm0, [rax + at("float")])
    MOV(rax, [rax + at("target")])
    mark_saved()
    CALL(rax)
    MOV(r10, [rsp])
    MOV([r10 + at("result")], rax)

    def compare_mxcsr() -> None:
        STMXCSR([rsp + 12])
        MOV(eax, [rsp + 12])
        AND(eax, 0xFFC0)  # the rest are flags, which a callee may raise
        CMP(eax, dword[r10 + at("mxcsr")])

    compare_saved(compare_mxcsr)
    MOV([r10 + at("changed")], rcx)
    LDMXCSR([rsp + 8])
    MOV(rdi, r10)
    MOV(rax, [rdi + at("after")])
    CALL(rax)
    MOV(r10, [rsp])
    MOV(rax, [r10 + at("result")])
    ADD(rsp, 24)
    for register in reversed(SAVED):
        POP(register)
    RET()


@pytest.fixture(scope="module")
def loaded(load_routines):
    from asm_libcalls.emitter.image import Routine
    from asm_libcalls.x86_64.assembler import sequence

    def displacement(field: str) -> bytes:
        return int(getattr(Record, field).offset).to_bytes(4, "little")

    def plain(name: str, *parts: bytes) -> Routine:
        code = b"".join(parts)
        return Routine(name, code, len(code))

    return load_routines(
        sequence("canary", canary),
        # fldcw [rdi + x87_control]; ret
        plain("before", b"\xd9\xaf", displacement("x87_control"), b"\xc3"),
        # fnstenv [rdi + x87]; fninit; pushfq; pop [rdi + flags]; cld; ret
        plain(
            "after", b"\xd9\xb7", displacement("x87"), b"\xdb\xe3",
            b"\x9c\x8f\x87", displacement("flags"), b"\xfc\xc3",
        ),
        plain("breaks", b"\xfd\xd9\xee\x49\xff\xc6\xc3"),  # std; fldz; inc r14; ret
    )  # fmt: skip


class Harness:
    """Calls through the canary, below or above the entry, and fails where something changed."""

    def __init__(self, loaded, machine_entry, machine_code) -> None:
        self.loaded = loaded
        self.entry = machine_entry
        self.calls = 0
        self.record = Record(
            mxcsr=ROUND_UP_SSE, x87_control=ROUND_UP_X87,
            before=loaded.routine("before"), after=loaded.routine("after"),
        )  # fmt: skip
        self.above = object.__new__(type(machine_entry))
        self.above.__dict__.update(machine_entry.__dict__)
        self.above._enter = self.enter
        self._enter = machine_code.loaded.routine("asm_libcalls_enter")
        self._canary = ctypes.PYFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)(loaded.routine("canary"))

    def check(self) -> None:
        self.calls += 1
        found, self.record.changed, self.record.flags = self.record.found(), -1, 1 << 10
        ctypes.memset(ctypes.addressof(self.record) + Record.x87.offset, 0, 32)
        assert not found, f"not kept: {', '.join(found)}"

    def enter(self, native_call: int) -> int:
        """Take the place of the entry: the canary calls it."""
        self.record.integers[0] = native_call
        self.record.target = self._enter
        try:
            return self._canary(ctypes.addressof(self.record))
        finally:
            self.check()

    def below(self, address: int, signature: Signature, patterns: list[int]) -> None:
        """Have the canary call an address, as compiled code does."""
        integers = []
        for value_type, pattern in zip(signature.parameters, patterns, strict=True):
            if value_type.kind == "float":
                self.record.float = pattern
            else:
                integers.append(pattern & (1 << 64) - 1)
                if value_type.bits > 64:
                    integers.append(pattern >> 64)
        for i, word in enumerate(integers):
            self.record.integers[i] = word
        self.record.target = address
        self.entry.call(
            self.loaded.routine("canary"), Signature("(pointer)"), [ctypes.addressof(self.record)]
        )
        self.check()


@pytest.fixture
def harness(loaded, machine_entry, machine_code):
    return Harness(loaded, machine_entry, machine_code)


def cases(libcall):
    """Yield (patterns) of the self-check's cases, an even choice of them."""
    checker = checker_of(libcall)
    found = list(itertools.islice(checker.edge_cases(libcall), 20000))
    chosen = found[:: max(1, len(found) // CASES)]
    if not hasattr(checker, "scene"):
        stored = [ctypes.addressof(STORED)] * (libcall.declaration.family in STORING)
        for case in chosen:
            yield [*case, *stored[: len(libcall.signature.parameters) - len(case)]]
        return
    scene = checker.scene()
    for case in chosen:
        scene.reset()
        yield scene.patterns(libcall, case)


def test_the_canary_dies(harness):
    with pytest.raises(AssertionError, match=r"^not kept: r14, direction flag, x87 stack"):
        harness.below(harness.loaded.routine("breaks"), Signature("()"), [])


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("backend", ["served", "fallback"])
def test_every_libcall_keeps_what_the_abi_says(name, backend, harness):
    libcall = EVERY[name]
    check(libcall, libcall.address if backend == "served" else libcall.fallback.address, harness)


@pytest.fixture(scope="module")
def for_every_cpu(load_routines):
    return load_for(load_routines, frozenset())


@pytest.mark.parametrize("name", llvm.LIBCALLS)
def test_so_does_the_code_for_every_cpu(name, for_every_cpu, harness):
    libcall = llvm.LIBCALLS[name]
    check(libcall, for_every_cpu.routine(libcall.symbol), harness)


def check(libcall, address, harness):
    above = {"returned": 0, "trapped": 0}
    below = {"returned": 0, "trapped": 0}
    for patterns in cases(libcall):
        try:
            harness.above.call(address, libcall.signature, patterns)
        except asm_libcalls.Trap:
            above["trapped"] += 1
        else:
            above["returned"] += 1
    for patterns in cases(libcall):
        try:
            harness.below(address, libcall.signature, patterns)
        except asm_libcalls.Trap:  # the canary's frame is among those that are gone
            below["trapped"] += 1
        else:
            below["returned"] += 1
    assert below == above
    assert harness.calls == 2 * above["returned"] + above["trapped"] > 0
    assert (above["trapped"] > 0) == (libcall.declaration.traps != ())


WITH_STATE = [
    name for name, row in DECLARATIONS.items() if row.signature.parameters[0].name == "vmctx"
]


@pytest.mark.parametrize("name", WITH_STATE)
def test_what_python_raises_comes_through(name, harness):
    """With an index that no module has, the fallback's Python raises IndexError."""
    libcall = LIBCALLS[name].fallback
    if name == "activations_table_insert_with_gc":
        patterns, error = [0x1000], ValueError
    else:
        patterns, error = [1000] * (len(libcall.signature.parameters) - 1), IndexError
    instance = asm_libcalls.Instance()
    with pytest.raises(error):
        harness.above.call(libcall.address, libcall.signature, [instance.vmctx, *patterns])
    assert harness.calls == 1
