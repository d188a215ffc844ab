"""Compares mapped code with the bytes that were checked. Breakpoints are no difference.

A debugger writes a breakpoint as soon as the file is mapped, before this process runs again. The
kernel does the same for a uprobe (``perf probe``). Both are ``int3`` in this process's copy of the
page. The file does not change.
"""

from __future__ import annotations

from asm_libcalls.emitter import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_INT3 = 0xCC


def check_mapped(address: int, code: bytes, read_file: Callable[[], bytes]) -> None:
    """Raise OSError unless the code at an address is as expected, breakpoints aside.

    `read_file` reads the code from the mapped file.
    """
    mapped = libc.string_at(address, len(code))
    if mapped == code:
        return
    others = sum(a != b != _INT3 for a, b in zip(code, mapped, strict=True))
    if others:
        raise OSError(f"the file changed between reading and mapping it: {others} bytes of code")
    if read_file() != code:
        raise OSError("the file changed between reading and mapping it: breakpoints in the file")
