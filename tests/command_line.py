"""Runs the command line as a user does: in a process of its own, into pipes or in a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import child_process

from asm_libcalls.binding import ENVIRONMENT_VARIABLE, default_binding

# Variables that change the behaviour of rich or of the package.
_UNSET = (
    "COLUMNS", "FORCE_COLOR", "LINES", "NO_COLOR", "PYTHONUNBUFFERED",
    "TTY_COMPATIBLE", "TTY_INTERACTIVE",
)  # fmt: skip
_ESCAPE_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def environment(**variables: str) -> dict[str, str]:
    """Return this process's environment, cleaned, with the same package and backend."""
    result: dict[str, str | None] = dict.fromkeys(_UNSET)
    result["TERM"] = "xterm-256color"
    result[ENVIRONMENT_VARIABLE] = default_binding().requested
    return child_process.environment(**{**result, **variables})


def command(*words: str, without: tuple[str, ...] = ()) -> list[str]:
    """Return the command; modules in `without` cannot be imported there."""
    if not without:
        return [sys.executable, "-m", "asm_libcalls", *words]
    hide = f"import sys; sys.modules.update(dict.fromkeys({without!r}))"
    main = f"from asm_libcalls.cli import main; sys.exit(main({list(words)!r}))"
    return [sys.executable, "-c", f"{hide}; {main}"]


def run(
    *words: str, without: tuple[str, ...] = (), **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run it with pipes for the outputs."""
    return subprocess.run(
        command(*words, without=without),
        capture_output=True,
        text=True,
        env=environment(**variables),
        timeout=300,
        check=False,
    )


class Terminal:
    """What a run in a terminal showed."""

    def __init__(self, code: int, raw: str) -> None:
        self.code = code  # the exit code
        # `raw`, `text`: all that was written, with and without the escape sequences
        self.raw = raw
        self.text = _ESCAPE_SEQUENCE.sub("", raw).replace("\r\n", "\n")


def run_in_terminal(
    *words: str, columns: int, without: tuple[str, ...] = (), stdout: int | None = None
) -> Terminal:
    """Run it in a terminal of this width; only the standard error is there if `stdout` is given."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 60, columns, 0, 0))
    process = subprocess.Popen(
        command(*words, without=without),
        stdin=follower,
        stdout=follower if stdout is None else stdout,
        stderr=follower,
        env=environment(),
    )
    os.close(follower)
    chunks = []
    while True:
        try:
            chunk = os.read(leader, 4096)
        except OSError:  # Linux says EIO when the last writer has left
            break
        if not chunk:
            break
        chunks.append(chunk)
    os.close(leader)
    return Terminal(process.wait(timeout=300), b"".join(chunks).decode())
