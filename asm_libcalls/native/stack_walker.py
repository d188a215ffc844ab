"""Walks the frames of the native code that a thread has left for Python.

It follows frame pointers from the thunks through which native code left to the entries, in the live
stack of the greenlet that runs, and in the copies of the stacks of others.
"""

from __future__ import annotations

import ctypes

from asm_libcalls.native import greenlets, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from asm_libcalls.activation import Departure

__all__ = ["calling_frame", "departed_stacks", "departures", "stack_frames"]

_WORD = ctypes.sizeof(ctypes.c_size_t)


def departures() -> Iterator[Departure] | None:
    """Iterate over where this thread's native code was left for Python, the newest first.

    None where the frames of some of it are not known: it was entered or left through ctypes.
    """
    if process.runs_unknown_frames():
        return None
    return iter(()) if process.machine_entry is None else process.machine_entry.departures()


def stack_frames(innermost: bool = False) -> Iterator[tuple[int, int]] | None:
    """Walk this thread's native frames, innermost first, over all activations.

    Parameters
    ----------
    innermost : bool, optional
        Walk the innermost activation of the running greenlet alone.

    Returns
    -------
    iterator of (return address, frame pointer), or None
        For each native frame the address in its code where it goes on, and its rbp, or for the
        frames of another greenlet where its rbp points to in a copy of them. None where the walk
        can not be made: native code that is not left through one of our thunks, frames without
        frame pointers, greenlets of which no copy was made, or no machine code to know of them.
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
            caller = _word(frame_pointer + moved)
            if caller == canary:
                break
            if not frame_pointer < caller < canary or caller % _WORD:
                return None
            frames.append((_word(frame_pointer + _WORD + moved), caller + moved))
            frame_pointer = caller
        if innermost:
            break
    return iter(frames)


def departed_stacks(
    left: Iterable[Departure], own: bool = False
) -> Iterator[tuple[Departure, int | None]]:
    """Yield where the stacks of departures can be read.

    Parameters
    ----------
    left : iterable of Departure
        Of this thread.
    own : bool, optional
        Leave out those that are known to be another greenlet's.

    Yields
    ------
    (Departure, int or None)
        What to add to an address between its exit frame and its canary: 0 for the live stack of
        the greenlet that runs, None where it is another one's, or may be, and there is no copy.
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
    """Find the native frame that called the host function which runs in this thread.

    Returns
    -------
    (return address, frame pointer), or None
        As of :func:`stack_frames`, its first. None where this thread's innermost activation was
        not left through one of our thunks.
    """
    for departure, moved in departed_stacks(departures() or (), own=True):
        if moved is None or not departure.canary:
            return None
        frame_pointer = departure.exit_frame_pointer
        return _word(frame_pointer + _WORD), _word(frame_pointer)
    return None


def _word(address: int) -> int:
    return int(ctypes.c_size_t.from_address(address).value)
