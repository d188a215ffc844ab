"""The C calling convention of x86-64: the register or stack slot of each argument and result.

All code that passes arguments uses this module: the entry into native code, the builtins, the
thunks of host functions, toy_jit's adapters. Register names are text, as in assembly language;
``x86_64/assembler`` has PeachPy's registers of these names.

Source: System V ABI for AMD64, 3.2.1 (registers), 3.2.3 (parameter passing).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from asm_libcalls.signatures import ValueType

INTEGER_REGISTERS = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")
"""The registers of arguments of class INTEGER, in order."""

FLOAT_REGISTERS = ("xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7")
"""The registers of arguments of class SSE, in order. A value of 16 bytes (SSE, SSEUP) fills one."""

INTEGER_RESULTS = ("rax", "rdx")
"""The registers of a result of class INTEGER: its low 64 bits, then its high ones."""

CALLEE_SAVED = ("rbx", "r12", "r13", "r14", "r15")
"""The registers that a callee preserves, besides the stack pointer and the frame pointer (rbp)."""

CALLEE_SAVED_SIZE = 8 * len(CALLEE_SAVED)
"""The bytes that they take when pushed."""

INTEGERS, FLOATS, STACK = "integers", "floats", "stack"
"""The banks of argument places: registers of one class, or eightbytes on the stack."""


class Place:
    """The place of one argument."""

    __slots__ = ("bank", "number")

    def __init__(self, bank: str, number: int) -> None:
        self.bank = bank
        # the first register's number in INTEGER_REGISTERS or FLOAT_REGISTERS, or the number of its
        # first eightbyte on the stack, counted from the one that is at rsp when the call is made
        self.number = number

    def __repr__(self) -> str:
        return f"<Place {self.bank} {self.number}>"


class Assignment:
    """The places of the arguments of a call."""

    __slots__ = ("floats", "integers", "places", "stack")

    def __init__(
        self, places: tuple[Place, ...], integers: int = 0, floats: int = 0, stack: int = 0
    ) -> None:
        self.places = places  # one for each parameter
        # `integers`, `floats`: how many registers of each class are used
        self.integers = integers
        self.floats = floats
        self.stack = stack  # how many eightbytes the arguments on the stack take, padding included


def assign(types: Iterable[ValueType]) -> Assignment:
    """Assign arguments of these types to registers and the stack.

    An argument is never split between registers and the stack. If the remaining registers cannot
    hold all of an i128, it goes to the stack, aligned, and the next integer takes the register.
    """
    places = []
    used = {INTEGERS: 0, FLOATS: 0, STACK: 0}
    limits = {INTEGERS: len(INTEGER_REGISTERS), FLOATS: len(FLOAT_REGISTERS)}
    for value_type in types:
        bank = bank_of(value_type)
        needed = value_type.classes.count("INTEGER") if bank == INTEGERS else 1
        if used[bank] + needed > limits[bank]:
            bank, needed = STACK, len(value_type.classes)
            used[STACK] += -used[STACK] % (value_type.alignment // 8)
        places.append(Place(bank, used[bank]))
        used[bank] += needed
    return Assignment(tuple(places), used[INTEGERS], used[FLOATS], used[STACK])


def bank_of(value_type: ValueType) -> str:
    """Return the registers for a value, if enough are left: "integers" or "floats".

    As a result it is in :data:`INTEGER_RESULTS` or in xmm0.
    """
    return INTEGERS if value_type.classes[0] == "INTEGER" else FLOATS
