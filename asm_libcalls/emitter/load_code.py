"""Loads a user's machine code on executable pages, never writable and executable at once.

The bytes may come from any assembler or encoder. The page "Writing a JIT" of the documentation
says what the code must do.
"""

from __future__ import annotations

from asm_libcalls.emitter import code_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

__all__ = ["load_code"]

_LANDING = bytes.fromhex("f30f1efa")  # endbr64, for control-flow enforcement
_PUSH = b"\x55"  # push rbp
_SET = (bytes.fromhex("4889e5"), bytes.fromhex("488bec"))  # mov rbp, rsp: two encodings


def load_code(code: Any, functions: Mapping[str, tuple[int, int]] | None = None) -> int:
    """Put machine code on executable pages of its own.

    The pages are written, then sealed read and execute. They live until the process ends, because
    any C code may hold an address in them. Every call takes whole pages, so load all functions of
    a module as one piece of code.

    Parameters
    ----------
    code : bytes-like
        Position-independent x86-64 code. It may contain constants, read relative to rip.
    functions : mapping of str to (int, int), optional
        Offset and size in bytes of each function, by the name for perf to show. A function that
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
    try:
        content = memoryview(code).tobytes()
    except TypeError:
        raise TypeError(
            f"load_code(): code must be bytes-like, got {type(code).__name__}"
        ) from None
    if not content:
        raise ValueError("load_code(): code must not be empty")
    parts = [_check(name, place, len(content)) for name, place in _items(functions)]
    from asm_libcalls.emitter import availability, pages
    from asm_libcalls.emitter.image import Routine, link

    try:
        availability.check_machine()
    except availability.Unavailable as reason:
        raise OSError(f"load_code(): {reason}") from None
    image = link([Routine("code", content, len(content))])
    address = pages.load(image, announced=False).address
    if parts:
        listed = [
            (address + at, size, name, _call_frames(content[at : at + size]))
            for name, at, size in parts
        ]
        code_names.announce(address, lambda: listed)
    return address


def _items(functions: Any) -> Any:
    if functions is None:
        return ()
    try:
        return functions.items()
    except AttributeError:
        raise TypeError(
            "load_code(): functions must be a mapping of names to (offset, size), "
            f"got {type(functions).__name__}"
        ) from None


def _check(name: Any, place: Any, length: int) -> tuple[str, int, int]:
    if not isinstance(name, str) or not name.strip():
        raise TypeError(f"load_code(): a function's name must be a str that is not empty: {name!r}")
    try:
        at, size = place
        fits = 0 <= at < at + size <= length
    except (TypeError, ValueError):
        raise TypeError(
            f"load_code(): function {name!r} must be at (offset, size), got {place!r}"
        ) from None
    if not isinstance(at, int) or not isinstance(size, int) or not fits:
        raise ValueError(
            f"load_code(): function {name!r} must be within the code of {length} bytes, "
            f"got offset {at!r} and size {size!r}"
        )
    return code_names.printable(name), at, size


def _call_frames(code: bytes) -> bytes | None:
    """Return the call frame instructions of a function with a frame pointer; None if it has none.

    The other callee-saved registers count as lost, because their places are unknown.
    """
    at = len(_LANDING) if code.startswith(_LANDING) else 0
    if not code.startswith(_PUSH, at) or not code.startswith(_SET, at + 1):
        return None
    from asm_libcalls.emitter.call_frames import CALLEE_SAVED, RBP, RSP, Node, follow
    from asm_libcalls.emitter.eh_frame import instructions

    lost = [("write", register, 0, 0) for register in sorted(CALLEE_SAVED - {RBP})]
    body_at = at + len(_PUSH) + len(_SET[0])
    prologue = [
        Node(at, [("push", RBP, 0, 0)]),
        Node(at + len(_PUSH), [("set", RBP, RSP, 0), *lost]),
        Node(body_at),
    ]
    return instructions(follow(prologue))
