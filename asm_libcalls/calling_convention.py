"""The C calling convention of x86-64: which register or stack slot each argument and result is in.

Everything that passes arguments asks here: the entry into native code, the builtins, the thunks of
host functions, toy_jit's adapters. Register names are text, as in assembler's language;
``x86_64/assembler`` has PeachPy's registers of these names.

Source: System V ABI for AMD64, 3.2.1 (registers), 3.2.3 (parameter passing).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from asm_libcalls.signatures import ValueType

__all__ = [
    "CALLEE_SAVED",
    "FLOATS",
    "FLOAT_REGISTERS",
    "INTEGERS",
    "INTEGER_REGISTERS",
    "INTEGER_RESULTS",
    "STACK",
    "Assignment",
    "Place",
    "assign",
    "bank_of",
]

INTEGER_REGISTERS = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")
"""Where arguments of class INTEGER go, in order."""

FLOAT_REGISTERS = ("xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7")
"""Where arguments of class SSE go, in order. A value of 16 bytes (SSE, SSEUP) fills one of them."""

INTEGER_RESULTS = ("rax", "rdx")
"""Where a result of class INTEGER is: its low 64 bits, then its high ones."""

CALLEE_SAVED = ("rbx", "r12", "r13", "r14", "r15")
"""What a callee leaves as it was, beside the stack pointer and the frame pointer (rbp)."""

INTEGERS, FLOATS, STACK = "integers", "floats", "stack"
"""Where arguments can be. Each is a row of places: registers of one class, or eightbytes."""


class Place:
    """Where one argument is.

    Attributes
    ----------
    bank : {"integers", "floats", "stack"}
    number : int
        The first register's number in :data:`INTEGER_REGISTERS` or :data:`FLOAT_REGISTERS`, or
        the number of its first eightbyte on the stack, counted from the one that is at rsp when
        the call is made.
    """

    __slots__ = ("bank", "number")

    def __init__(self, bank: str, number: int) -> None:
        self.bank = bank
        self.number = number

    def __repr__(self) -> str:
        return f"<Place {self.bank} {self.number}>"


class Assignment:
    """Where the arguments of a call are.

    Attributes
    ----------
    places : tuple of Place
        One for each parameter.
    integers, floats : int
        How many registers of each class are used.
    stack : int
        How many eightbytes the arguments on the stack take, gaps included.
    """

    __slots__ = ("floats", "integers", "places", "stack")

    def __init__(
        self, places: tuple[Place, ...], integers: int = 0, floats: int = 0, stack: int = 0
    ) -> None:
        self.places = places
        self.integers = integers
        self.floats = floats
        self.stack = stack


def assign(types: Iterable[ValueType]) -> Assignment:
    """Assign arguments to registers and the stack.

    An argument goes in registers whole or not at all: where the registers that are left do not
    hold all of an i128, it goes to the stack, at a multiple of its alignment, and the next integer
    takes the register.

    Parameters
    ----------
    types : iterable of ValueType
        The parameters' types.
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
    """Return the registers that a value goes in, where enough are left: "integers" or "floats".

    As a result it is in :data:`INTEGER_RESULTS` or in xmm0.
    """
    return INTEGERS if value_type.classes[0] == "INTEGER" else FLOATS
