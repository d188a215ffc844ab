"""Machine code for tests: functions with real frames, which call the address in a slot.

A body is written with physical registers inside :func:`frame`, which keeps the frame pointer as a
JIT must, so that stack walks find it. Without PeachPy there is nothing to write it with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import pytest

pytest.importorskip("peachpy", reason="no assembler for native frames")

from peachpy.x86_64 import (
    ADD, CALL, CMP, DEC, INC, JE, JNZ, LABEL, LEA, MOV, OR, POP, PUSH, RET, SUB, XOR, Label, ecx,
    qword, r12, r13, r14, r15, rax, rbx, rcx, rdi, rdx, rsi,
)  # fmt: skip
from peachpy.x86_64.registers import rbp, rsp

from asm_libcalls.emitter import pages
from asm_libcalls.emitter.image import link
from asm_libcalls.emitter.pages import LoadedImage
from asm_libcalls.runtime.stack_maps import StackMapRegistry
from asm_libcalls.x86_64.assembler import sequence
from asm_libcalls.x86_64.assembler.instructions import CALL_SLOT, LOAD_SLOT

__all__ = [
    "ADD", "CALL", "CALL_SLOT", "DEC", "INC", "JNZ", "LABEL", "LEA", "LOAD_SLOT", "MOV", "SAVED",
    "Label", "NativeCode", "call", "compare_saved", "frame", "mark_saved", "qword", "r12", "r13",
    "r14", "r15", "rax", "rbp", "rbx", "rcx", "rdi", "rdx", "rsi", "rsp", "slot_at",
]  # fmt: skip


@contextmanager
def frame(slots: int) -> Iterator[None]:
    """Write a function's prologue and epilogue around the block.

    Callee-saved registers are free in the block; `slots` eight-byte slots are for it, cleared, the
    first one at ``slot_at(0)``. The stack is aligned for calls.
    """
    saved = (rbx, r12, r13, r14, r15)
    PUSH(rbp)
    MOV(rbp, rsp)
    for register in saved:
        PUSH(register)
    size = slots * 8
    SUB(rsp, size + (8 if (len(saved) + slots) % 2 else 0))
    for i in range(slots):
        MOV(qword[rbp + slot_at(i)], 0)
    yield
    LEA(rsp, [rbp - 8 * len(saved)])
    for register in reversed(saved):
        POP(register)
    POP(rbp)
    RET()


SAVED = (rbx, rbp, r12, r13, r14, r15)
"""Callee-saved: System V ABI for AMD64, 3.2.1."""

_PATTERN = 0x0101010101010101


def mark_saved() -> None:
    """Put a value of its own into each of :data:`SAVED`; rbp gets the stack pointer."""
    for i, register in enumerate(SAVED):
        if register is not rbp:
            MOV(register, _PATTERN * (i + 1))
    MOV(rbp, rsp)


def compare_saved(compare_mxcsr: Callable[[], object]) -> None:
    """Make ecx a mask: bit i for SAVED[i], if it is not what :func:`mark_saved` put there.

    The next bit is for MXCSR, which `compare_mxcsr` compares. Clobbers rax.
    """

    def note(bit: int) -> None:
        same = Label(f"same_{bit}")
        JE(same)
        OR(ecx, 1 << bit)
        LABEL(same)

    XOR(ecx, ecx)
    for i, register in enumerate(SAVED):
        if register is rbp:
            CMP(rbp, rsp)
        else:
            MOV(rax, _PATTERN * (i + 1))
            CMP(register, rax)
        note(i)
    compare_mxcsr()
    note(len(SAVED))


def slot_at(index: int) -> int:
    """Return the offset from rbp of a slot of :func:`frame`."""
    return -8 * 6 - 8 * index


def call(symbol: str, site: str = "") -> None:
    """Call what the slot `symbol` holds; its return address is ``site`` if that is given."""
    CALL_SLOT(symbol)
    if site:
        LABEL(Label(site))


class NativeCode:
    """Loaded functions, each written by its body; `slots` are the addresses that the code calls."""

    def __init__(self, bodies: Mapping[str, Callable[[], None]], slots: Mapping[str, int]) -> None:
        self.loaded: LoadedImage = pages.load(
            link([sequence(name, body) for name, body in bodies.items()])
        )
        missing = self.loaded.image.slots.keys() - slots.keys()
        assert not missing, f"no address for {missing}"
        for name, address in slots.items():
            self.loaded.set_slot(name, address)

    def __getitem__(self, name: str) -> int:
        """Return the address of a function."""
        return self.loaded.routine(name)

    def register(
        self, registry: StackMapRegistry, name: str, maps: Mapping[str, Iterable[int]]
    ) -> None:
        """Register stack maps of a function: slots (by index) by call site."""
        start, size = self.loaded.image.routines[name]
        registry.register(
            self.loaded.address + start,
            size,
            {
                self.loaded.image.labels[f"{name}.{site}"] - start: [slot_at(i) for i in live]
                for site, live in maps.items()
            },
        )
