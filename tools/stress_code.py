"""Operations of ``stress.py`` on code that can be freed.

A *piece* is a :class:`Code` that calls back into Python and adds a number of its own, so a call
that ran other code than its own would return another number. Pieces are loaded, called, closed in
the middle of their own calls and from other threads, and dropped.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from asm_libcalls import Code, HostFunction, native_function, runtime_symbols

if TYPE_CHECKING:
    from collections.abc import Callable

MOST = 6
"""The most pieces of a world."""


class Piece:
    """A piece of code and its function."""

    def __init__(self, world: Any) -> None:
        self.number = world.chance.randrange(1 << 30)

        def called(number: int) -> int:
            world.intrude("host function of freed code")
            return number

        self.host = HostFunction(called, "(i64) -> i64")
        vars(world).setdefault("hosts", []).append(self.host)
        # push rbp; mov rbp, rsp; mov rax, host; call rax; add rax, number; pop rbp; ret
        content = bytes.fromhex("55 4889e5 48b8") + self.host.address.to_bytes(8, "little")
        content += bytes.fromhex("ffd0 4805") + self.number.to_bytes(4, "little")
        content += bytes.fromhex("5d c3") + b"\x90" * world.chance.choice((0, 40, 5000))
        self.code = Code(content, {"piece": (0, len(content))})
        self.function = native_function(
            self.code.address, "(i64) -> i64", release_gil=world.chance.random() < 0.5
        )

    def call(self, number: int) -> None:
        """Call it; ValueError if it is closed."""
        result = self.function(number)
        assert result == number + self.number, (result, number, self.number)


def _pieces(world: Any) -> list[Piece]:
    pieces: list[Piece] = vars(world).setdefault("pieces", [])
    return pieces


def _load(world: Any) -> None:
    if runtime_symbols():  # there is machine code
        piece = Piece(world)
        _pieces(world).append(piece)
        piece.call(world.chance.randrange(99))
        while len(_pieces(world)) > MOST:
            _pieces(world).pop(0)  # dropped as it is


def _any(world: Any) -> Piece | None:
    pieces = _pieces(world)
    return world.chance.choice(pieces) if pieces else None


def _call(world: Any) -> None:
    piece = _any(world)
    if piece is not None:
        piece.call(world.chance.randrange(99))


def _close(world: Any) -> None:
    piece = _any(world)
    if piece is not None:
        piece.code.close()
        _pieces(world)[:] = [each for each in _pieces(world) if each is not piece]


def _close_elsewhere(world: Any) -> None:
    piece = _any(world)
    if piece is not None and world.chance.random() < 0.1:
        # A signal handler that raises while CPython starts a thread can leave a lock taken.
        before, world.calm = world.calm, True
        thread = threading.Thread(target=piece.code.close)
        try:
            thread.start()
            for _ in range(3):
                piece.call(1)
        finally:
            thread.join()
            world.calm = before


def close_all(world: Any) -> None:
    """Close every piece of a world that ends, and the host functions, which no code calls now."""
    while _pieces(world):
        _pieces(world).pop().code.close()
    hosts = vars(world).setdefault("hosts", [])
    while hosts:
        hosts.pop().close()


OPERATIONS: dict[str, Callable[[Any], Any]] = {
    "code load": _load,
    "code call": _call,
    "code close": _close,
    "code close elsewhere": _close_elsewhere,
}
