"""The image of ``build-library``: libcalls for other tools, as machine code without Python.

It has the numeric libcalls, and the memory libcalls that need no Python. A trap jumps to
``asm_libcalls_raise_trap``, of which this image has its own: without activations, it calls the
*handler* that the program has set, with the trap code. A handler leaves the libcall by ``longjmp``
or an exception. Without a handler, or if it returns, an illegal instruction ends the process.
"""

from __future__ import annotations

from collections.abc import Iterator

from asm_libcalls.emitter.image import Routine

SET_TRAP_HANDLER = "asm_libcalls_set_trap_handler"
"""``void (*asm_libcalls_set_trap_handler(void (*handler)(uint32_t code)))(uint32_t code)``: set the
handler of all threads and return the previous one. It is a function and not a variable, because a
program that refers to another library's variable may get a copy.
"""

_HANDLER = "trap_handler"


def routines(features: frozenset[str]) -> Iterator[Routine]:
    """Assemble the library for a CPU with these features."""
    from asm_libcalls.libcalls import DECLARATIONS
    from asm_libcalls.x86_64 import families
    from asm_libcalls.x86_64.assembler import sequence

    yield sequence("asm_libcalls_raise_trap", _raise_trap)
    yield sequence(SET_TRAP_HANDLER, _set_trap_handler)
    for routine in families.routines(DECLARATIONS.values(), features):
        if not any(reference.is_slot for reference in routine.references):  # no C function
            yield routine


def exports() -> frozenset[str]:
    """Return the names of the exported functions."""
    from asm_libcalls.libcalls import DECLARATIONS

    return frozenset({*DECLARATIONS, SET_TRAP_HANDLER})


def _raise_trap() -> None:
    from peachpy.x86_64 import CALL, JZ, LABEL, PUSH, TEST, UD2, Label, rax, rdi

    from asm_libcalls.x86_64.assembler.instructions import LOAD_SLOT

    no_handler = Label("no_handler")
    PUSH(rdi)  # the code, for a core dump; it also aligns the stack, since libcalls are leaves
    LOAD_SLOT(rax, _HANDLER)
    TEST(rax, rax)
    JZ(no_handler)
    CALL(rax)
    LABEL(no_handler)
    UD2()


def _set_trap_handler() -> None:
    from peachpy.x86_64 import MOV, RET, rax, rdi

    from asm_libcalls.x86_64.assembler.instructions import EXCHANGE_SLOT

    MOV(rax, rdi)
    EXCHANGE_SLOT(rax, _HANDLER)
    RET()
