"""Files: descriptors that are closed with their owner, and whether mapped code is the file's."""

from __future__ import annotations

import os
from itertools import starmap

from asm_libcalls.emitter import libc
from asm_libcalls.owned import Released

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from functools import partial
    from typing import Any
else:
    from _functools import partial  # importing functools takes longer

_INT3 = 0xCC


class OpenFile(Released):
    """A file, closed by :meth:`close`, or when this object is dropped.

    `opener` is called with the arguments, and returns its descriptor. It is a C function, so no
    signal handler can raise before this object has the descriptor.

    Programs that become daemons close all descriptors, and open other files. Those are not closed
    here.
    """

    __slots__ = ("_identity", "_numbers")

    def __init__(self, opener: Callable[..., int], *arguments: Any, **names: Any) -> None:
        self._numbers: list[int] = []
        self._identity: list[tuple[int, int]] = []
        super().__init__(partial(_close, self._numbers, self._identity))
        self._numbers.extend(starmap(partial(opener, **names), (arguments,)))
        self._identity.append(_identity(self._numbers))

    @property
    def number(self) -> int:
        """The descriptor; -1 once it is closed."""
        try:
            return self._numbers[0]
        except IndexError:
            return -1

    def check(self) -> None:
        """Raise OSError if the descriptor is another file's, or none."""
        if _identity(self._numbers) != self._identity[0]:
            raise OSError("the descriptor is another file's")

    def close(self) -> None:
        """Close it; twice is a no-op."""
        _close(self._numbers, self._identity)


def _identity(numbers: list[int]) -> tuple[int, int]:
    status = os.fstat(numbers[0] if numbers else -1)
    return status.st_dev, status.st_ino


def _close(numbers: list[int], known: list[tuple[int, int]]) -> None:
    try:
        is_same = not known or _identity(numbers) == known[0]
    except OSError:
        is_same = False
    if not is_same:
        numbers.clear()
    try:
        any(map(os.close, iter(numbers.pop, None)))  # one call of C code
    except IndexError:  # the list is empty
        return


def check_mapped(address: int, code: bytes, read_file: Callable[[], bytes]) -> None:
    """Raise OSError unless the code at an address is as expected, breakpoints aside.

    `read_file` reads the code from the mapped file. A debugger writes a breakpoint as soon as the
    file is mapped, before this process runs again. The kernel does the same for a uprobe (``perf
    probe``). Both are ``int3`` in this process's copy of the page. The file does not change.
    """
    mapped = libc.string_at(address, len(code))
    if mapped == code:
        return
    others = sum(a != b != _INT3 for a, b in zip(code, mapped, strict=True))
    if others:
        raise OSError(f"the file changed between reading and mapping it: {others} bytes of code")
    if read_file() != code:
        raise OSError("the file changed between reading and mapping it: breakpoints in the file")
