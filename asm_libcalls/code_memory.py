"""Executable pages for the code of a JIT, never writable and executable at once.

The bytes may come from any assembler or encoder. What they need is on the page "Writing a JIT" of
the documentation.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["load_code"]


def load_code(code: Any) -> int:
    """Put machine code on executable pages of its own.

    The pages are written, then sealed read and execute, and live until the process ends: nobody
    can know who still holds an address in them. So load the functions of a module together, one
    after the other in one piece of code, and not each by itself.

    Parameters
    ----------
    code : bytes-like
        Position-independent x86-64 code. Constants may stand in it, to be read relative to rip.

    Returns
    -------
    int
        The address of its first byte, a multiple of the page size (so of every alignment that
        code and constants ask for).

    Raises
    ------
    TypeError, ValueError
        No bytes, or none at all.
    OSError
        This is no x86-64 Linux, or the system refuses executable memory.

    Examples
    --------
    >>> add = load_code(bytes.fromhex("8d0437 c3"))  # lea eax, [rdi + rsi]; ret
    >>> import asm_libcalls
    >>> asm_libcalls.catch_traps(add, "(i32, i32) -> i32")(40, 2)
    42
    """
    try:
        content = memoryview(code).tobytes()
    except TypeError:
        raise TypeError(
            f"load_code(): code must be bytes-like, got {type(code).__name__}"
        ) from None
    if not content:
        raise ValueError("load_code(): code must not be empty")
    from asm_libcalls.x86_64 import backend, pages
    from asm_libcalls.x86_64.image import Routine, link

    try:
        backend.check_machine()
    except backend.Unavailable as reason:
        raise OSError(f"load_code(): {reason}") from None
    return pages.load(link([Routine("code", content, len(content))])).address
