"""Operations of Python that need much of the native stack, called from deep in WebAssembly."""

from __future__ import annotations

import json
import pickle
import re
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from jit_modules import Function, instantiate

DEFAULT_STACK = 8 << 20

# CPython 3.12 counts calls from C up to a constant, 1500, and some levels are four of them.
MOST_LEVELS = 300 if sys.version_info[:2] == (3, 12) else 4000


def _nested(depth: int) -> list[Any]:
    nested: list[Any] = []
    for _ in range(depth):
        nested = [nested]
    return nested


class _Attributes:
    def __getattr__(self, name: str) -> int:
        depth = int(name[1:])
        return getattr(self, f"a{depth - 1}") if depth else 0


class _Missing(dict[int, int]):
    def __missing__(self, key: int) -> int:
        return self[key - 1] if key else 0


class _Equal:
    def __init__(self, depth: int) -> None:
        self.depth = depth

    def __eq__(self, other: object) -> bool:
        return not self.depth or [_Equal(self.depth - 1)] == [_Equal(self.depth - 1)]

    __hash__ = None  # type: ignore[assignment]


class _Formatted:
    def __init__(self, depth: int) -> None:
        self.depth = depth

    def __format__(self, specification: str) -> str:
        return f"{_Formatted(self.depth - 1)}" if self.depth else ""


def _sort(depth: int) -> int:
    return sorted([depth - 1], key=_sort)[0] if depth else 0


def _substitute(depth: int) -> str:
    return re.sub("a", lambda _: _substitute(depth - 1), "a") if depth else ""


def _execute(depth: int) -> None:
    if depth:
        exec("_execute(depth - 1)", globals(), {"depth": depth})


# By name: what it does, and about how many bytes of the stack a level of it takes at most.
OPERATIONS: dict[str, tuple[Callable[[int], object], int]] = {
    "repr": (lambda depth: repr(_nested(depth)), 200),
    "json": (lambda depth: json.dumps(_nested(depth)), 200),
    "pickle": (lambda depth: pickle.dumps(_nested(depth)), 300),
    "eval": (lambda depth: eval("-" * depth + "1"), 1000),
    "sorted": (_sort, 5600),
    "getattr": (lambda depth: getattr(_Attributes(), f"a{depth}"), 1300),
    "missing": (lambda depth: _Missing()[depth], 1300),
    "equal": (lambda depth: _Equal(depth) == 1, 1300),
    "format": (lambda depth: f"{_Formatted(depth)}", 1300),
    "re.sub": (_substitute, 2000),
    "exec": (_execute, 1500),
}


def deepest(stack: int, bytes_per_level: int) -> int:
    """Return how deep plain Python goes on a stack of so many bytes, with a quarter to spare."""
    return min(MOST_LEVELS, stack * 3 // 4 // bytes_per_level)


def in_thread(stack: int | None, work: Callable[[], None]) -> None:
    """Do work in a thread with a stack of so many bytes; None is this thread."""
    if stack is None:
        work()
        return
    before = threading.stack_size(stack)
    thread = threading.Thread(target=work)
    thread.start()
    threading.stack_size(before)
    thread.join()


# descend(depth): if depth then descend(depth - 1) else host()
_DESCEND = "local.get 00 if 40 local.get 00 i32.const 01 i32.sub call 01 else call 00 end"


def descender(host: Callable[[], object]) -> Callable[[int], None]:
    """Return what calls a function with WebAssembly of so many frames below it."""

    def call() -> None:
        host()

    functions = {"descend": Function("i32 ->", _DESCEND)}
    return instantiate(functions, {"host": "->"}, {"host": call}).exports["descend"]


def reaches(function: Callable[[int], object], depth: int) -> bool:
    """Call it; return whether that ended otherwise than by running out of stack."""
    try:
        function(depth)
    except RecursionError:
        return False
    except MemoryError as error:
        if "Parser stack overflowed" not in str(error):  # that is CPython's parser
            raise
        return False
    return True


def deepest_call(function: Callable[[int], None]) -> int:
    """Return how many frames of WebAssembly there can be, where a host function is called."""
    low, high = 1, 10_000_000
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if reaches(function, middle) else (low, middle)
    return low


def compare(stack: int | None, limit: int) -> None:
    """Do all operations here, and from near the end of WebAssembly's recursion.

    Prints a line for each: its name, whether plain Python has done it on a stack of this size, and
    how often of four times it was done from WebAssembly.
    """
    operation: Callable[[], object] = int

    def host() -> None:
        operation()

    function = descender(host)  # in this thread: small ones cannot import all
    function(0)
    sys.setrecursionlimit(limit)

    def work() -> None:
        nonlocal operation
        frames = deepest_call(function)
        for name, (of_depth, bytes_per_level) in OPERATIONS.items():
            depth = deepest(stack or DEFAULT_STACK, bytes_per_level)
            operation = partial(of_depth, depth)
            print(name, end=" ", flush=True)
            print(int(reaches(of_depth, depth)), end=" ", flush=True)
            done = [reaches(function, frames - margin) for margin in (0, 1, 20, frames // 2)]
            operation = int
            print(sum(done), flush=True)

    in_thread(stack, work)


def nest(stack: int | None, levels: int) -> None:
    """Recurse in WebAssembly to its end on each of so many levels, then do the operations.

    They get half of the stack: what Python has between the levels needs some too.
    """
    sys.setrecursionlimit(12_000)
    level = 0

    def host() -> None:
        nonlocal level
        if level == levels:
            operation()
            return
        level += 1
        try:
            for frames in (deepest_call(function), 10_000_000):
                reaches(function, frames)
        finally:
            level -= 1

    operation: Callable[[], object] = int
    function = descender(host)
    function(0)

    def work() -> None:
        nonlocal operation
        for name, (of_depth, bytes_per_level) in OPERATIONS.items():
            depth = deepest((stack or DEFAULT_STACK) // 2, bytes_per_level)
            operation = partial(of_depth, depth)
            print(name, flush=True)
            reaches(function, 100)

    in_thread(stack, work)


def main(name: str, kibibytes: str, number: str) -> None:
    {"compare": compare, "nest": nest}[name](int(kibibytes) * 1024 or None, int(number))


if __name__ == "__main__":
    main(*sys.argv[1:])
