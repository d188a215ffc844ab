"""Backtraces of exceptions that unwound native frames: the functions' names, listed in notes.

The names are those that a JIT gives when it loads code (:func:`asm_libcalls.load_code`,
:class:`asm_libcalls.Code`). toy_jit's own frames are WebAssembly functions; see
``toy_jit/backtrace.py``.
"""

from __future__ import annotations

from functools import partial

from asm_libcalls.activation import MAXIMUM_TRACE
from asm_libcalls.emitter import code_names
from asm_libcalls.traps import Trap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Self

_TITLE = "Native backtrace:"


class NativeFrame(int):
    """A frame of native code: its return address, an int, and the function that it is in."""

    # the name that `load_code` got; None where the address is in no named function
    function: str | None
    offset: int | None  # the return address, in bytes from the function's beginning

    def __new__(cls, address: int, function: str | None = None, offset: int | None = None) -> Self:
        """Make the frame of a return address."""
        self = super().__new__(cls, address)
        self.function = function
        self.offset = offset
        return self

    def __str__(self) -> str:
        if self.function is None:
            return f"{int(self):#x}"
        return f"{self.function}+{self.offset:#x}"

    def __repr__(self) -> str:
        return f"<NativeFrame {self}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return (NativeFrame, (int(self), self.function, self.offset))


def found(trace: tuple[int, ...]) -> Callable[[Trap], None]:
    """Find the functions of return addresses; return what gives a trap these frames."""
    return partial(_add_frames, trace, code_names.find_all(trace))


def _add_frames(
    trace: tuple[int, ...], functions: Sequence[tuple[str, int] | None], trap: Trap
) -> None:
    frames = tuple(map(_frame, trace, functions))
    trap.trace = frames
    _note_frames(trap, frames)


def note_exception(error: BaseException, trace: tuple[int, ...]) -> None:
    """Add the named frames that an exception of a host function has unwound, in a note.

    A Trap gets its trace, unless it has one.
    """
    frames = tuple(map(_frame, trace, code_names.find_all(trace)))
    if isinstance(error, Trap) and not error.trace:
        error.trace = frames
    _note_frames(error, frames)


def _note_frames(error: BaseException, frames: tuple[NativeFrame, ...]) -> None:
    named = [i for i, frame in enumerate(frames) if frame.function is not None]
    if named:
        set_note(error, _TITLE, describe(frames[: named[-1] + 1]))


def _frame(address: int, function: tuple[str, int] | None) -> NativeFrame:
    return NativeFrame(address, *(function or (None, None)))


def describe(frames: Sequence[object]) -> list[str]:
    """Write frames, a line for each; equal frames in succession share a line."""
    lines: list[list[Any]] = []
    for frame in map(str, frames):
        if lines and lines[-1][0] == frame:
            lines[-1][1] += 1
        else:
            lines.append([frame, 1])
    described = [
        f"  {'called by' if i else 'in'} {frame}" + (f", {count} times" if count > 1 else "")
        for i, (frame, count) in enumerate(lines)
    ]
    return [*described, "  ..."] if len(frames) == MAXIMUM_TRACE else described


def set_note(error: BaseException, title: str, lines: list[str]) -> None:
    """Add a note to an exception, in place of its note with the same title."""
    # Not add_note, nor setattr: the class of a user's exception may define them.
    attributes: dict[str, Any] = object.__getattribute__(error, "__dict__")
    notes = attributes.get("__notes__", [])
    if type(notes) is list:
        kept = [note for note in notes if not (type(note) is str and note.startswith(title))]
        attributes["__notes__"] = [*kept, "\n".join((title, *lines))]
