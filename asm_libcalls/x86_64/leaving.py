"""Libcalls on an instance: the common path in machine code, and a jump to Python for all else.

A body is assembled as a C function, which does not check its indices, and as a stencil for a Python
builtin, which does. Before it has changed anything, a body may *leave* for the libcall's Python
function: the C function jumps to a thunk, with the arguments in their registers, and the builtin to
its slow path. Traps, collections, growth that Python must decide, and the destruction of objects
are left to Python. Only the C functions of ``memories.py`` trap themselves.

A body may clobber all caller-saved registers except r11, where a builtin has its arguments. In a
builtin, r9 has the kind of a reference: 0 for null, or a kind of :class:`VMElementSegment`.
"""

from __future__ import annotations

from asm_libcalls.vmcontext import InstanceHeader
from asm_libcalls.x86_64.trampolines import IN_STEP, PYTHON, RAISE_TRAP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from asm_libcalls.emitter.image import Routine
    from asm_libcalls.trap_codes import TrapCode


def header(field: str) -> int:
    """Return the offset of a field of the instance's header from the vmctx."""
    return InstanceHeader.offset_from_vmctx(field)


def routines(
    bodies: Mapping[str, Callable[[Body], object]],
    *,
    counts: bool = False,
    traps: TrapCode | None = None,
    builtins: bool = True,
) -> Iterator[Routine]:
    """Assemble each libcall from its body: the C function, and the stencil of the builtin if asked.

    Those that count references (`counts`) are assembled once more, as steps for builds without the
    GIL. With `traps`, the C functions raise this trap instead of leaving for Python.
    """
    from functools import partial

    from asm_libcalls.x86_64.assembler import sequence
    from asm_libcalls.x86_64.python_functions import STENCIL_PREFIX
    from asm_libcalls.x86_64.stencils.assembling import assemble

    for name, body in bodies.items():
        for suffix in ("", IN_STEP) if counts else ("",):
            is_step = suffix == IN_STEP
            yield sequence(name + suffix, partial(_emit, body, _Libcall(name, is_step, traps)))
            if not builtins:
                continue
            stencil = STENCIL_PREFIX + name + suffix
            yield assemble(stencil, partial(_emit, body, _Builtin(is_step)), has_effects=True)


def _emit(body: Callable[[Body], object], setting: Body, *_: object) -> None:
    setting.begin()
    body(setting)
    setting.finish()


class Body:
    """The code with which a body checks, leaves, calls and ends.

    If it is a step, it holds the lock of all steps from its start until it ends or leaves.
    """

    is_builtin = False

    def __init__(self, is_step: bool) -> None:
        import peachpy.x86_64

        from asm_libcalls.x86_64.assembler import instructions
        from asm_libcalls.x86_64.trampolines import step_lock

        self._x86 = peachpy.x86_64
        self._more = instructions  # those that PeachPy lacks
        self._step_lock = step_lock
        self._is_step = is_step
        self._left: Any = None

    def begin(self) -> None:
        """Emit what comes before the body."""
        if self._is_step:
            self._step_lock.take(self._leave_unchanged)

    def _leave_unchanged(self) -> None:
        """Emit: leave for Python at once."""
        raise NotImplementedError

    def _label(self) -> Any:
        if self._left is None:
            self._left = self._x86.Label("leave")
        return self._left

    def _release(self) -> None:
        if self._is_step:
            self._step_lock.release()

    def save(self, *registers: Any) -> None:
        """Emit: save argument registers that the body clobbers, at the start of it."""

    def check_index(self, register: Any, count: str) -> None:
        """Emit, in a builtin: leave unless a zero-extended index is below a count in the header."""

    def leave_if(self, condition: str) -> None:
        """Emit: leave for Python if a condition holds, by its name in :class:`JUMP_IF`."""
        getattr(self._x86, f"J{condition.upper()}")(self._label())

    def leave(self) -> None:
        """Emit: leave for Python."""
        self._x86.JMP(self._label())

    def call(self, routine: str) -> None:
        """Emit: call a routine of the image, which needs no aligned stack."""
        raise NotImplementedError

    def end(self) -> None:
        """Emit: return, from the last instruction or before another path."""
        raise NotImplementedError

    def end_with(self, routine: str) -> None:
        """Emit: run a routine, whose arguments are in their registers, and return."""
        self.call(routine)
        self.end()

    def finish(self) -> None:
        """Emit the common end."""


class _Libcall(Body):
    """A C function; the slot of its name with the prefix :data:`PYTHON` has the thunk."""

    def __init__(self, name: str, is_step: bool, traps: TrapCode | None) -> None:
        super().__init__(is_step)
        self._name = name
        self._traps = traps
        self._saved: tuple[Any, ...] = ()

    def save(self, *registers: Any) -> None:
        self._saved = registers
        for register in registers:
            self._x86.PUSH(register)

    def call(self, routine: str) -> None:
        self._more.CALL_ROUTINE(routine)

    def end(self) -> None:
        self._release()
        self._drop_saved()
        self._x86.RET()

    def end_with(self, routine: str) -> None:
        if self._is_step:
            super().end_with(routine)
            return
        self._drop_saved()
        self._more.TAIL_JUMP(routine)

    def finish(self) -> None:
        if self._left is None:
            return
        self._x86.LABEL(self._left)
        self._release()
        for register in reversed(self._saved):
            self._x86.POP(register)
        self._leave_unchanged()

    def _leave_unchanged(self) -> None:
        if self._traps is None:
            self._more.TAIL_JUMP_SLOT(PYTHON + self._name)
        else:
            self._x86.MOV(self._x86.edi, int(self._traps))
            self._more.TAIL_JUMP(RAISE_TRAP)

    def _drop_saved(self) -> None:
        if self._saved:
            self._x86.ADD(self._x86.registers.rsp, 8 * len(self._saved))


class _Builtin(Body):
    """A stencil of ``function_stencils.py``, which has the arguments in r11 for its slow path."""

    is_builtin = True

    def __init__(self, is_step: bool) -> None:
        super().__init__(is_step)
        self._end: Any = None

    def check_index(self, register: Any, count: str) -> None:
        self._x86.CMP(register, [self._x86.rdi + header(count)])
        self.leave_if("nc")

    def leave_if(self, condition: str) -> None:
        if self._is_step:
            super().leave_if(condition)
        else:
            self._more.JUMP_IF(condition, "slow")

    def leave(self) -> None:
        if self._is_step:
            super().leave()
        else:
            self._leave_unchanged()

    def _leave_unchanged(self) -> None:
        self._more.TAIL_JUMP("slow")

    def call(self, routine: str) -> None:
        self._more.CALL_SLOT(routine)

    def end(self) -> None:
        if self._end is None:
            self._end = self._x86.Label("end")
        self._x86.JMP(self._end)

    def finish(self) -> None:
        if self._left is not None:
            self._x86.LABEL(self._left)
            self._release()
            self._leave_unchanged()
        if self._end is not None:
            self._x86.LABEL(self._end)
        self._release()
