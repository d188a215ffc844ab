"""The codes by which native code raises traps.

A module of its own, because importing :mod:`enum` takes longer than the start-up of the numeric
libcalls. Only programs that use a code need it.
"""

from __future__ import annotations

from enum import IntEnum


class TrapCode(IntEnum):
    """Why native code trapped: Cranelift's trap codes, and one more for ``call_indirect``.

    The numbers are this library's, and stable; ``asm_libcalls_raise_trap`` takes them.
    """

    STACK_OVERFLOW = 1
    HEAP_OUT_OF_BOUNDS = 2
    TABLE_OUT_OF_BOUNDS = 3
    INDIRECT_CALL_TO_NULL = 4
    BAD_SIGNATURE = 5
    INTEGER_OVERFLOW = 6
    INTEGER_DIVISION_BY_ZERO = 7
    BAD_CONVERSION_TO_INTEGER = 8
    UNREACHABLE_CODE_REACHED = 9
    INTERRUPT = 10
    UNDEFINED_ELEMENT = 11
    """``call_indirect`` past the end of the table, for which spec tests have their own message."""
