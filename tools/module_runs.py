"""Run any WebAssembly module, in any implementation, and record what can be observed.

A run makes imports for the module, calls its exports, and records each call, each call of a host
function, and the contents of memories, tables and globals at the end. Imports and arguments come
from a seed. So the records of two runs are the same, up to a record that says why they may differ
from there on.
"""

from __future__ import annotations

import contextlib
import random
import struct

from asm_libcalls.toy_jit.frontend.module import EXTERNREF, F32, F64, FUNCREF, I32, I64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any

    from asm_libcalls.toy_jit.frontend import module as decoded_module

_CALLS = 24  # of exports, in a run
FORMATS = {I32: ("<i", "<I"), I64: ("<q", "<Q"), F32: ("<f", "<I"), F64: ("<d", "<Q")}
_INFINITY = {F32: 0x7F800000, F64: 0x7FF0000000000000}
_SIGN = {F32: 1 << 31, F64: 1 << 63}
_PATTERNS = (0, 1, 2, 3, 5, 8, 31, 100, 255, 65535, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_FLOATS = (0.0, -0.0, 1.0, -1.5, 0.5, 2.5, 1e10, -3e9, float("inf"), float("-inf"), float("nan"))


class Thing:
    """An object that modules are given as an externref."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __repr__(self) -> str:
        return f"Thing({self.number})"


class HostError(Exception):
    """An exception that a host function may raise."""


class Stopped(Exception):
    """From here on a run may differ from others."""


def to_pattern(value_type: int, value: Any) -> Any:
    """Return the bits of a number; a value of another type is returned as it is."""
    if value_type not in FORMATS:
        return value
    number, bits = FORMATS[value_type]
    return int(struct.unpack(bits, struct.pack(number, value))[0])


def to_number(value_type: int, value: Any) -> Any:
    """Return the number of some bits; a value of another type is returned as it is."""
    if value_type not in FORMATS:
        return value
    number, bits = FORMATS[value_type]
    return struct.unpack(number, struct.pack(bits, value))[0]


def to_numbers(value_types: bytes, values: Iterable[Any]) -> list[Any]:
    """Return the numbers of some bits; references are returned as they are."""
    return [to_number(t, value) for t, value in zip(value_types, values, strict=True)]


def note(value_type: int, value: Any) -> Any:
    """Return a text to compare a value by: all NaNs have the same."""
    if value_type == FUNCREF:
        return "null" if value is None else "function"
    if value_type == EXTERNREF:
        return repr(value)
    if value_type in _INFINITY and value & ~_SIGN[value_type] > _INFINITY[value_type]:
        return "nan"
    return value


class Run:
    """A run of a module. A subclass runs it by one implementation of WebAssembly.

    `seed` is that of imports and arguments.
    """

    def __init__(self, decoded: decoded_module.Module, binary: bytes, seed: str) -> None:
        self.decoded = decoded
        self.binary = binary
        self.seed = seed
        self.notes: list[tuple[Any, ...]] = []  # what was observed
        self.stopped = ""  # why another run may have other notes behind these, or ""
        self._things = 0
        self._random = random.Random(seed)
        self._depth = 0

    # -- what an implementation does

    def instantiate(self, imports: list[Any]) -> None:
        """Make the instance."""
        raise NotImplementedError

    def host_function(self, entry: decoded_module.Import, call: Callable[..., Any]) -> Any:
        """Make an import of a function of ours, of patterns and references."""
        raise NotImplementedError

    def host_object(self, entry: decoded_module.Import, value: Any) -> Any:
        """Make an import that is no function."""
        raise NotImplementedError

    def call(self, name: str, functype: decoded_module.FuncType, arguments: Sequence[Any]) -> Any:
        """Call an export with patterns and references; return its results as such."""
        raise NotImplementedError

    def trap_name(self, error: Exception) -> str | None:
        """Return the name of a trap, in Wasmtime's words, or None for any other exception."""
        raise NotImplementedError

    def state(self, export: decoded_module.Export) -> Any:
        """Return what is in an exported memory, table or global."""
        raise NotImplementedError

    # -- what a run is

    def run(self) -> None:
        """Instantiate the module, call its exports, look at what it leaves."""
        functions = [e for e in self.decoded.exports if e.kind == "func"]
        others = [e for e in self.decoded.exports if e.kind != "func"]
        try:
            with self._noted("instantiate"):
                self.instantiate([self._import(entry) for entry in self.decoded.imports])
            if self.notes[-1][1] != "done":
                return
            for number in range(min(_CALLS, 2 * len(functions))):
                # each export in turn
                export = functions[number % len(functions)]
                functype = self.decoded.functions[export.index].type
                self._refuel()
                with self._noted(f"call {export.name}"):
                    self._call(export.name, functype)
            for export in others:
                self.notes.append((export.name, self.state(export)))
        except Stopped as error:
            self.stopped = str(error)

    def _refuel(self) -> None:
        for export in self.decoded.exports:
            if export.name == "refuel" and export.kind == "func":
                functype = self.decoded.functions[export.index].type
                if not functype.params and not functype.results:
                    with self._noted("refuel"):
                        self.call("refuel", functype, [])

    def _call(self, name: str, functype: decoded_module.FuncType) -> None:
        arguments = [self._made_up(value_type) for value_type in functype.params]
        results = self.call(name, functype, arguments)
        noted = [*map(note, functype.results, results)]
        self.notes.append((name, [*map(note, functype.params, arguments)], noted))

    @contextlib.contextmanager
    def _noted(self, what: str) -> Iterator[None]:
        try:
            yield
        except Stopped:
            raise
        except HostError:
            self.notes.append((what, "host error"))
        except Exception as error:
            name = self.trap_name(error)
            if name is None:
                raise
            if name in ("STACK_OVERFLOW", "INTERRUPT"):
                # The depth of the stack, and the time until then, are not specified.
                raise Stopped(name) from None
            self.notes.append((what, name))
        else:
            self.notes.append((what, "done"))

    def _made_up(self, value_type: int) -> Any:
        chosen = self._random
        if value_type == FUNCREF:
            return None
        if value_type == EXTERNREF:
            if chosen.random() < 0.3:
                return None
            self._things += 1
            return self.new_thing(self._things)
        if value_type in _INFINITY:
            return to_pattern(value_type, chosen.choice(_FLOATS))
        bits = 32 if value_type == I32 else 64
        pattern = chosen.choice((*_PATTERNS, chosen.getrandbits(bits), -chosen.randint(1, 9)))
        return pattern & ((1 << bits) - 1)

    def _import(self, entry: decoded_module.Import) -> Any:
        kind: Any = entry.type
        if entry.kind == "func":
            return self.host_function(entry, self._host_call(entry.name, kind))
        if entry.kind == "global":
            return self.host_object(entry, self._made_up(kind.value))
        return self.host_object(entry, None)

    def _host_call(self, name: str, functype: decoded_module.FuncType) -> Callable[..., Any]:
        def call(*arguments: Any) -> list[Any]:
            self.notes.append(("host", name, [*map(note, functype.params, arguments)]))
            if len(self.notes) > 5000:
                raise Stopped("many host calls")
            choice = self._random.random()
            if choice < 0.05:
                raise HostError
            if choice < 0.15:
                self._call_back()
            things = [a for t, a in zip(functype.params, arguments, strict=True) if t == EXTERNREF]
            results = []
            for value_type in functype.results:
                value = self._made_up(value_type)
                if value_type == EXTERNREF and things and self._random.random() < 0.5:
                    value = self._random.choice(things)
                results.append(value)
            return results

        return call

    def _call_back(self) -> None:
        exports = [e for e in self.decoded.exports if e.kind == "func"]
        if self._depth < 2 and exports and self.ready():
            self._depth += 1
            try:
                export = self._random.choice(exports)
                with self._noted(f"call back {export.name}"):
                    self._call(export.name, self.decoded.functions[export.index].type)
            finally:
                self._depth -= 1

    def ready(self) -> bool:
        """Return whether the instance can be called: its start function may be running."""
        raise NotImplementedError

    def new_thing(self, number: int) -> Thing:
        """Make an object to give to the module."""
        return Thing(number)


def first_difference(ours: Run, theirs: Run) -> str:
    """Say where two runs differ, or return ""."""
    for number, (one, other) in enumerate(zip(ours.notes, theirs.notes, strict=False)):
        if one != other:
            return f"note {number}: {one!r:.500} here, {other!r:.500} there"
    count = len(ours.notes), len(theirs.notes)
    if count[0] != count[1] and not ours.stopped and not theirs.stopped:
        return f"{count[0]} notes here, {count[1]} there: {ours.notes[-1:]!r:.500}"
    return ""
