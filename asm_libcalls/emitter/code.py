"""``Code``: machine code of a user that can be freed.

The owner of a piece of code is a :class:`Code`. Its memory is a :class:`Resource` with a reference
from the Code while it is open, and one from each address that it has given out. A function object
keeps the address that it was made from, and Python keeps a function object while it runs. So the
memory is free when the Code is closed and nothing can return into it.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from functools import partial

from asm_libcalls.emitter import code_names
from asm_libcalls.emitter.code_address import CodeAddress
from asm_libcalls.emitter.load_code import check_code, check_system, listed
from asm_libcalls.owned.objects import OPEN, Owned, unmade
from asm_libcalls.signatures.arguments import counted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from asm_libcalls.emitter.code_arena import Piece

_arena: list[Any] = []
"""The module, once it is imported, which needs ctypes. At interpreter exit nothing is imported."""


class _Symbols(Mapping[str, CodeAddress]):
    """The addresses of a Code's functions, by name."""

    __slots__ = ("_at", "_start")

    def __init__(self, start: CodeAddress, at: dict[str, int]) -> None:
        self._start = start
        self._at = at

    def __getitem__(self, name: str) -> CodeAddress:
        at = self._at.get(name)
        if at is None:
            there = ", ".join(map(repr, self._at)) or "none: Code() was given no functions"
            raise KeyError(f"the Code has no function {name!r} (its functions: {there})")
        return CodeAddress(int(self._start) + at, self._start.code, self._start.piece)

    def __iter__(self) -> Iterator[str]:
        return iter(self._at)

    def __len__(self) -> int:
        return len(self._at)

    def __repr__(self) -> str:
        places = (f"{name!r}: {self._start + at:#x}" for name, at in self._at.items())
        return f"{{{', '.join(places)}}}"


class Code(Owned):
    """Machine code on executable memory, freed when it is closed or dropped.

    Small pieces share pages. The memory is never writable and executable at once.

    A function object (:func:`native_function`, :func:`catch_traps`) that is made from an address of
    the code keeps the Code, so it can be called as long as it exists. When the Code is closed, new
    calls of its function objects raise ValueError, and running calls continue. Closing never waits.
    The memory is used again when the Code is closed and its function objects and addresses are
    gone. Python keeps a function object while it runs, in every thread and in greenlets that wait.

    A caller that has the address as a plain number (generated code, ctypes, a table of an instance)
    must keep the Code open until it has returned.

    Parameters
    ----------
    code : bytes-like
        As in :func:`load_code`.
    functions : mapping of str to (int, int), optional
        As in :func:`load_code`.

    Attributes
    ----------
    address : CodeAddress
        Address of the first byte, a multiple of 64.
    symbols : mapping of str to CodeAddress
        The address of each function in `functions`.
    size : int
        Its length in bytes.

    Raises
    ------
    TypeError, ValueError
        `code` is not bytes-like or is empty, or an item of `functions` is invalid.
    OSError
        The system is not x86-64 Linux, or refuses executable memory.

    Examples
    --------
    >>> import asm_libcalls
    >>> content = bytes.fromhex("8d0437 c3")  # lea eax, [rdi + rsi]; ret
    >>> with Code(content, {"add": (0, 4)}) as code:
    ...     add = asm_libcalls.native_function(code.symbols["add"], "(i32, i32) -> i32", name="add")
    ...     add(40, 2)
    42
    >>> add(40, 2)
    Traceback (most recent call last):
    ValueError: add(): the Code is closed
    """

    _watchers: dict[weakref.ref[Any], Callable[[Any], object]] = unmade()

    def __init__(self, code: Any, functions: Mapping[str, tuple[int, int]] | None = None) -> None:
        self._begin()
        content, parts = check_code(code, functions, "Code()")
        check_system("Code()")
        if not _arena:
            from asm_libcalls.emitter import code_arena

            _arena.append(code_arena)
            code_names.prepare_traces()
        self.size = len(content)
        self._at = {name: at for name, at, _ in parts}
        self._watchers = {}
        piece: Piece = _arena[0].Piece(content)
        self._start = start = piece.address
        self._piece: Piece | None = piece
        if parts:
            names = listed(start, content, parts)
            code_names.announce(start, lambda: names, in_traces=True)
        self._finish()

    def __repr__(self) -> str:
        if self.closed:
            return "<Code closed>"
        return f"<Code of {counted(self.size, 'byte')} at {self._start:#x}>"

    @property
    def address(self) -> CodeAddress:
        """The address of its first byte."""
        self._check_open()
        piece = self._piece
        if piece is None:  # another thread has closed it just now
            raise ValueError("the Code is closed")
        return CodeAddress(self._start, self, piece)

    @property
    def symbols(self) -> Mapping[str, CodeAddress]:
        """The addresses of its functions, by name."""
        return _Symbols(self.address, self._at)

    def when_closed(self, thing: Any, action: Callable[[Any], object]) -> None:
        """Call ``action(thing)`` when the code is closed, if `thing` still exists."""
        watchers = self._watchers
        watchers[weakref.ref(thing, partial(_forget, watchers))] = action
        if self._state is not OPEN:
            action(thing)

    def close(self) -> None:
        """Refuse new calls from now on, and free the memory when no call can return into it."""
        super().close()

    def _release(self) -> None:
        while self._watchers:
            reference, action = self._watchers.popitem()
            thing = reference()
            if thing is not None:
                action(thing)
        self._piece = None


def _forget(watchers: dict[Any, Any], reference: Any) -> None:
    watchers.pop(reference, None)
