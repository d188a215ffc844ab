"""System calls that fail from here on in this process, by a seccomp filter. Linux on x86-64 alone.

A filter cannot be removed, so this is for child processes.
"""

from __future__ import annotations

import ctypes
import struct

NUMBERS = {
    "mmap": 9, "mprotect": 10, "munmap": 11, "rename": 82, "mkdir": 83, "fchmod": 91,
    "renameat": 264, "renameat2": 316, "memfd_create": 319,
}  # fmt: skip
PROT_EXEC = 4


def _instruction(code: int, if_true: int, if_false: int, k: int) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, k)


def refuse(error: int, *names: str, protection: int = 0) -> None:
    """Let system calls fail with an error; those with a protection only if it has these bits.

    Raise OSError if the kernel has no such filters, or does not let us make one.
    """
    program = b""
    for name in names:
        refusal = _instruction(0x06, 0, 0, 0x00050000 | error)
        if protection and name in ("mmap", "mprotect"):
            # Load the low half of the third argument, and go on if it has none of the bits.
            test = _instruction(0x20, 0, 0, 16 + 8 * 2) + _instruction(0x45, 0, 1, protection)
            refusal = test + refusal
        program += _instruction(0x20, 0, 0, 0)  # load the number of the system call
        program += _instruction(0x15, 0, len(refusal) // 8, NUMBERS[name]) + refusal
    program += _instruction(0x06, 0, 0, 0x7FFF0000)  # allow
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_ulong]
    # PR_SET_NO_NEW_PRIVS, then PR_SET_SECCOMP with a filter.
    if prctl(38, 1, None, 0, 0) or prctl(22, 2, header, 0, 0):
        raise OSError(ctypes.get_errno(), "no seccomp filter")
