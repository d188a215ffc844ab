"""Walks the frames of native code that has called Python.

It follows frame pointers from the thunks that called Python to the entries, in the live stack of
the running greenlet, and in the copies of other greenlets' stacks.
"""

from __future__ import annotations

import ctypes

from asm_libcalls.activation import Activation, Departure
from asm_libcalls.native import ctypes_entry, greenlets, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_WORD = ctypes.sizeof(ctypes.c_size_t)


def departures() -> Iterator[Departure] | None:
    """Iterate over this thread's departures from native code, the newest first.

    None if some native frames are not known: they were entered, or called Python, through ctypes.
    """
    if ctypes_entry.runs_unknown_frames():
        return None
    return iter(()) if process.machine_entry is None else process.machine_entry.departures()


def stack_frames(innermost: bool = False) -> Iterator[tuple[int, int]] | None:
    """Walk this thread's native frames, innermost first, over all activations.

    With `innermost`, walk only the innermost activation of the running greenlet.

    Yield for each native frame the address where its code continues, and its rbp. For a frame of
    another greenlet, the second number is the place in the copy that rbp points to. Return None if
    the walk is impossible: native code called Python without a thunk of this library, a frame has
    no frame pointer, a greenlet's stack was not copied, or no machine code is loaded.
    """
    left = departures()
    if left is None:
        return None
    frames: list[tuple[int, int]] = []
    for departure, moved in departed_stacks(left, innermost):
        frame_pointer, canary = departure.exit_frame_pointer, departure.canary
        if moved is None or not canary:
            return None
        while True:
            caller = word(frame_pointer + moved)
            if caller == canary:
                break
            if not frame_pointer < caller < canary or caller % _WORD:
                return None
            frames.append((word(frame_pointer + _WORD + moved), caller + moved))
            frame_pointer = caller
        if innermost:
            break
        if Activation.from_address(departure.activation + moved).previous:
            return None  # it was entered where other native code had called Python by itself
    return iter(frames)


def departed_stacks(left: Iterable[Departure], own: bool) -> Iterator[tuple[Departure, int | None]]:
    """Yield departures of this thread, and where their stacks can be read.

    With `own`, skip those that are known to be another greenlet's. The second value is the offset
    to add to an address between a departure's exit frame and its canary: 0 for the live stack of
    the running greenlet, None if the stack is or may be another's and was not copied.
    """
    owner = greenlets.current()
    for departure in left:
        if not owner or departure.owner == owner:
            yield departure, 0
        elif not departure.owner:
            yield departure, None
        elif not own:
            copy = departure.frames
            yield departure, copy - departure.exit_frame_pointer if copy else None


def calling_frame() -> tuple[int, int] | None:
    """Find the native frame that called the running host function of this thread.

    Return its pair in :func:`stack_frames`. None if this thread's innermost activation did not call
    Python through a thunk of this library.
    """
    for departure, moved in departed_stacks(departures() or (), own=True):
        if moved is None or not departure.canary:
            return None
        frame_pointer = departure.exit_frame_pointer
        return word(frame_pointer + _WORD), word(frame_pointer)
    return None


def word(address: int) -> int:
    """Return the word at an address."""
    return int(ctypes.c_size_t.from_address(address).value)
