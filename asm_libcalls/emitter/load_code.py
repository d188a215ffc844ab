"""Loads a user's machine code on executable pages, never writable and executable at once.

The bytes may come from any assembler or encoder. The page "Writing a JIT" of the documentation
says what the code must do.
"""

from __future__ import annotations

from asm_libcalls.emitter import availability, code_names
from asm_libcalls.emitter.call_frames import CALLEE_SAVED, RBP, RSP, Node, follow
from asm_libcalls.emitter.eh_frame import instructions
from asm_libcalls.signatures.arguments import bytes_of, counted, pairs_of, printable, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from asm_libcalls.emitter.code_names import Function

_LANDING = bytes.fromhex("f30f1efa")  # endbr64, for control-flow enforcement
_PUSH = b"\x55"  # push rbp
_SET = (bytes.fromhex("4889e5"), bytes.fromhex("488bec"))  # mov rbp, rsp: two encodings


def load_code(code: Any, functions: Mapping[str, tuple[int, int]] | None = None) -> int:
    """Put machine code on executable pages of its own.

    The pages are written, then sealed read and execute. They stay until the process ends, because
    any C code may hold an address in them. Every call takes whole pages, so load all functions of
    a module as one piece of code; or make a :class:`Code`, which can be freed.

    Parameters
    ----------
    code : bytes-like
        Position-independent x86-64 code. It may contain constants, read relative to rip.
    functions : mapping of str to (int, int), optional
        Offset and size in bytes of each function, by the name that perf shows. A function that
        begins with ``push rbp; mov rbp, rsp`` must keep rbp so until it returns: gdb names it too,
        and ``backtrace`` and debuggers walk through its frame.

    Returns
    -------
    int
        Address of the first byte, a multiple of the page size.

    Raises
    ------
    TypeError, ValueError
        `code` is not bytes-like or is empty, or an item of `functions` is invalid.
    OSError
        The system is not x86-64 Linux, or refuses executable memory.

    Examples
    --------
    >>> add = load_code(bytes.fromhex("8d0437 c3"))  # lea eax, [rdi + rsi]; ret
    >>> import asm_libcalls
    >>> asm_libcalls.catch_traps(add, "(i32, i32) -> i32")(40, 2)
    42
    """
    content, parts = check_code(code, functions, "load_code()")
    check_system("load_code()")
    from asm_libcalls.emitter import pages
    from asm_libcalls.emitter.image import Routine, link

    image = link([Routine("code", content, len(content))])
    loaded = pages.load(image, announced=False, owned=True)
    if parts:
        names = listed(loaded.address, content, parts)
        code_names.announce(loaded.address, lambda: names, in_traces=True)
    loaded.keep()
    return loaded.address


def check_code(code: Any, functions: Any, where: str) -> tuple[bytes, list[tuple[str, int, int]]]:
    """Return the bytes of code, and the name, offset and size of each function; or raise."""
    content = bytes_of(code, f"{where}: code")
    if not content:
        raise ValueError(f"{where}: code must not be empty")
    expected = "a mapping of names to (offset, size)"
    items = [] if functions is None else pairs_of(functions, f"{where}: functions", expected)
    return content, [_check(name, place, len(content), where) for name, place in items]


def check_system(where: str) -> None:
    """Raise OSError unless this is a system where code can be loaded."""
    try:
        availability.check_machine()
    except availability.Unavailable as reason:
        raise OSError(f"{where}: {reason}") from None


def listed(address: int, content: bytes, parts: list[tuple[str, int, int]]) -> list[Function]:
    """Return the functions of loaded code, for ``code_names``."""
    return [
        (address + at, size, printable(name), _call_frames(content[at : at + size]))
        for name, at, size in parts
    ]


def _check(name: Any, place: Any, length: int, where: str) -> tuple[str, int, int]:
    if not isinstance(name, str) or not name.strip():
        raise TypeError(
            f"{where}: a function's name must be a str that is not empty: {shown(name)}"
        )
    try:
        at, size = place
        fits = 0 <= at < at + size <= length
    except (TypeError, ValueError):
        raise TypeError(
            f"{where}: function {name!r} must be at (offset, size), got {shown(place)}"
        ) from None
    if not isinstance(at, int) or not isinstance(size, int) or not fits:
        raise ValueError(
            f"{where}: function {name!r} must be within the code of {counted(length, 'byte')}, "
            f"got offset {shown(at)} and size {shown(size)}"
        )
    return name, at, size


def _call_frames(code: bytes) -> bytes | None:
    """Return the call frame instructions of a function with a frame pointer; None if it has none.

    The other callee-saved registers count as lost, because their places are unknown.
    """
    at = len(_LANDING) if code.startswith(_LANDING) else 0
    if not code.startswith(_PUSH, at) or not code.startswith(_SET, at + 1):
        return None
    lost = [("write", register, 0, 0) for register in sorted(CALLEE_SAVED - {RBP})]
    body_at = at + len(_PUSH) + len(_SET[0])
    prologue = [
        Node(at, [("push", RBP, 0, 0)]),
        Node(at + len(_PUSH), [("set", RBP, RSP, 0), *lost]),
        Node(body_at),
    ]
    return instructions(follow(prologue))
