"""This process's memory mappings, from the kernel. Plain standard library."""

from __future__ import annotations

import re
from pathlib import Path

LINE = re.compile(r"([0-9a-f]+)-([0-9a-f]+) ([r-][w-][x-][ps]) \S+ \S+ \S+\s*(.*)")


class Mapping:
    """One line of /proc/self/maps; `end` is the first address behind it."""

    def __init__(self, line: str) -> None:
        match = LINE.fullmatch(line)
        assert match, f"not a line of /proc/self/maps: {line!r}"
        self.start, self.end = int(match[1], 16), int(match[2], 16)
        self.permissions, self.name = match[3], match[4]  # "r-xp", say; the file, or ""

    def __repr__(self) -> str:
        return f"{self.start:x}-{self.end:x} {self.permissions} {self.name}".strip()

    @property
    def writable_and_executable(self) -> bool:
        """Whether it is both at once."""
        return "w" in self.permissions and "x" in self.permissions


def mappings() -> list[Mapping]:
    """Return all mappings of this process."""
    return [Mapping(line) for line in Path("/proc/self/maps").read_text().splitlines()]


def mapping_of(address: int) -> Mapping:
    """Return the mapping of an address."""
    return next(m for m in mappings() if m.start <= address < m.end)


def offenders() -> list[str]:
    """Return the mappings that are writable and executable."""
    return [repr(m) for m in mappings() if m.writable_and_executable]
