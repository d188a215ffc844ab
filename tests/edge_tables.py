"""The edge tables of tests/data, and a comparison of an implementation with them.

Plain standard library: guests under an emulator read this file too (see ``guest.py``).
"""

from __future__ import annotations

from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from asm_libcalls.binding import Binding

DATA = Path(__file__).resolve().parent / "data"
VERBS = ("ceil", "floor", "trunc", "nearest")  # the columns of rounding.txt


class Row:
    """One call and what must come of it."""

    def __init__(
        self, id_: str, libcall: str, operands: tuple[int, ...], expected: int | str
    ) -> None:
        self.id = id_  # the table's stable name of the case
        self.libcall = libcall
        self.operands = operands  # bit patterns
        self.expected = expected  # the result's bit pattern, or the name of the trap code

    def __repr__(self) -> str:
        operands = ", ".join(f"{operand:#x}" for operand in self.operands)
        return f"{self.id}: {self.libcall}({operands})"


def _lines(name: str, columns: int) -> Iterator[list[str]]:
    seen = set()
    for number, line in enumerate((DATA / name).read_text().splitlines(), 1):
        fields = line.partition("#")[0].split()
        if not fields:
            continue
        if len(fields) != columns or fields[0] in seen:
            what = "an ID twice" if len(fields) == columns else f"{len(fields)} columns"
            raise ValueError(f"{name}, line {number}: {what}, expected {columns} and unique IDs")
        seen.add(fields[0])
        yield fields


def _pattern(text: str, bits: int) -> int:
    if len(text) * 4 != bits:
        raise ValueError(f"{text!r} is not a pattern of {bits} bits")
    return int(text, 16)


def rounding_rows() -> dict[str, list[Row]]:
    """Return the rows of rounding.txt by ID, one for each direction."""
    rows = {}
    for id_, x, *results in _lines("rounding.txt", 2 + len(VERBS)):
        value_type = id_.partition("-")[0]
        bits = {"f32": 32, "f64": 64}[value_type]
        rows[id_] = [
            Row(id_, f"{value_type}_{verb}", (_pattern(x, bits),), _pattern(result, bits))
            for verb, result in zip(VERBS, results, strict=True)
        ]
    return rows


def integer_rows() -> dict[str, Row]:
    """Return the rows of integers.txt by ID."""
    rows = {}
    for id_, x, y, result in _lines("integers.txt", 4):
        expected = result if result.isupper() and "_" in result else _pattern(result, 64)
        operands = (_pattern(x, 64), _pattern(y, 64))
        rows[id_] = Row(id_, id_.partition("-")[0], operands, expected)
    return rows


def all_rows() -> list[Row]:
    """Return every row of every table."""
    return [row for rows in rounding_rows().values() for row in rows] + [*integer_rows().values()]


def ways(binding: Binding) -> dict[str, Callable[..., int]]:
    """Return each way to call a libcall, as a function of its name and bit patterns to one."""

    def numbers(function: Callable[[str], Any]) -> Callable[..., int]:
        # Python numbers lose nothing here: a signalling f32 becomes quiet on its way, and so would
        # it in the libcall.
        def call(name: str, *patterns: int) -> int:
            signature = binding.libcalls[name].signature
            values = [t.from_bits(p) for t, p in zip(signature.parameters, patterns, strict=True)]
            return signature.result.to_bits(function(name)(*values), "result")

        return call

    def at_its_address(name: str, *patterns: int) -> int:
        libcall = binding.libcalls[name]
        return binding.entry.call(libcall.address, libcall.signature, patterns)

    libcalls = binding.libcalls
    return {
        "call_bits": lambda name, *patterns: libcalls[name].call_bits(*patterns),
        "call": numbers(lambda name: libcalls[name]),
        "address": at_its_address,
        "cfunc": numbers(lambda name: libcalls[name].cfunc),
    }


def outcome(function: Callable[..., int], *arguments: Any) -> int | str:
    """Call a function of bit patterns; return its result, or the name of its trap."""
    from asm_libcalls.traps import Trap

    try:
        return function(*arguments)
    except Trap as trap:
        return trap.code.name


def failures(binding: Binding, rows: list[Row]) -> list[str]:
    """Run rows in every way and return what is wrong, a line each."""
    found = []
    for way, function in ways(binding).items():
        for row in rows:
            got = outcome(function, row.libcall, *row.operands)
            if got != row.expected:
                found.append(f"{row!r} by {way}: expected {_text(row.expected)}, got {_text(got)}")
    return found


def _text(result: int | str) -> str:
    return result if isinstance(result, str) else f"{result:#x}"
