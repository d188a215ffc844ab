"""A loop in machine code that calls a C address repeatedly and times the calls.

A ctypes call takes longer than most libcalls, so the loop itself reads the time-stamp counter,
before its first call and after its last. Its ticks are not CPU cycles (the counter's rate is
constant), so only ratios of them are meaningful.

Source: Intel SDM volume 2, RDTSC (LFENCE before and after it orders it with the instructions around
it); System V ABI for AMD64, 3.2.
"""

from __future__ import annotations

import ctypes

from asm_libcalls.activation import NativeCall
from asm_libcalls.calling_convention import INTEGER_REGISTERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asm_libcalls.emitter.image import Routine
    from asm_libcalls.emitter.pages import LoadedImage

NAME = "asm_libcalls_repeat"


def routine() -> Routine:
    """Assemble the loop: ``uint64_t repeat(const NativeCall *, uint64_t count)``, count not 0.

    All six integer registers are loaded before each call; one that the callee does not use costs a
    load.
    """
    from asm_libcalls.x86_64.assembler import sequence

    return sequence(NAME, _repeat)


def _repeat() -> None:
    from peachpy.x86_64 import CALL, DEC, JNZ, LABEL, MOV, POP, PUSH, RET, SUB, Label
    from peachpy.x86_64.registers import r12, r13, rax, rbx, rdi, rsi

    from asm_libcalls.x86_64.assembler import registers

    again = Label("again")
    for register in (rbx, r12, r13):  # three pushes align rsp at the call
        PUSH(register)
    MOV(rbx, rdi)  # the NativeCall
    MOV(r12, rsi)  # calls to go
    _read_time_stamp()
    MOV(r13, rax)
    LABEL(again)
    for i, register in enumerate(registers(INTEGER_REGISTERS)):
        MOV(register, [rbx + NativeCall.integers.offset + 8 * i])
    CALL([rbx + NativeCall.address.offset])
    DEC(r12)
    JNZ(again)
    _read_time_stamp()
    SUB(rax, r13)
    for register in (r13, r12, rbx):
        POP(register)
    RET()


def _read_time_stamp() -> None:
    """Emit: rax = the time-stamp counter, after all earlier instructions. Clobbers rdx."""
    from peachpy.x86_64 import LFENCE, OR, RDTSC, SHL, rax, rdx

    LFENCE()
    RDTSC()
    LFENCE()
    SHL(rdx, 32)
    OR(rax, rdx)


def call_of(address: int, integers: Sequence[int] = ()) -> NativeCall:
    """Return the loop's argument for a call of a C address with these arguments."""
    call = NativeCall(address=address)
    for i, pattern in enumerate(integers):
        call.integers[i] = pattern
    return call


def repeater(loaded: LoadedImage) -> Callable[[NativeCall, int], float]:
    """Return a function of a call and a count, at least 1, that returns the ticks of one call.

    It releases the GIL meanwhile. The callee must not trap.
    """
    loaded.keep()
    repeat = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64)(
        loaded.routine(NAME)
    )

    def ticks(call: NativeCall, count: int) -> float:
        if count < 1:
            raise ValueError(f"count must be at least 1, got {count}")
        return float(repeat(ctypes.addressof(call), count)) / count

    return ticks
