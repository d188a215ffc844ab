"""Compares the implementation that serves a libcall with the others, case by case.

``list`` compares over edge cases in every run (:func:`self_check`), ``verify`` over edge cases
and random ones (:func:`verify`). A family's :class:`Checker`, in ``checks/FAMILY.py``, makes the
cases and runs them through each implementation. One of these is an *oracle*, which computes the
answer in a different way from machine code and fallback.
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, islice
from typing import Any, NamedTuple

from asm_libcalls.libcall import Libcall
from asm_libcalls.native.catch_traps import catch_traps
from asm_libcalls.signatures.literals import describe, format_bits
from asm_libcalls.trap_codes import TrapCode
from asm_libcalls.traps import Trap

Case = Any
"""Input of a checker's implementations: a tuple of bit patterns, or more for a stateful family."""

PROGRESS_STEP = 256
"""Number of cases between two progress reports."""


class Outcome(NamedTuple):
    """The outcome of one implementation for one case; equal outcomes agree."""

    result: int | None  # the result's bit pattern; None after a trap
    trap: int | None = None  # the trap code
    # the state after the call, by name: the bytes of a memory, for example
    effects: tuple[tuple[str, Any], ...] = ()
    error: str = ""  # an exception other than a trap; it agrees with nothing, not even an equal one

    def describe(self, libcall: Libcall) -> dict[str, str]:
        """Return plain values: a number's type, bits and text; or a trap; or an error."""
        if self.error:
            return {"error": self.error}
        if self.trap is not None:
            return {"trap": trap_name(self.trap)}
        result = libcall.signature.result
        return {} if result is None or self.result is None else describe(result, self.result)


def trap_name(code: int) -> str:
    """Return a trap code's name, or its number if it is a JIT's own."""
    try:
        return TrapCode(code).name
    except ValueError:
        return str(code)


Implementation = Callable[[Case], Outcome]


class Checker:
    """Base class of the checkers of families.

    The cases of a :class:`PatternChecker` are bit patterns. A family that works on an instance
    derives from this class. ``checks/FAMILY.py`` has an object of either under the name
    ``CHECKER``.
    """

    def edge_cases(self, libcall: Libcall) -> Iterable[Case]:
        """Return the cases where faults are likely; ``list`` checks them in every run."""
        raise NotImplementedError

    def random_cases(self, libcall: Libcall, source: random.Random) -> Iterator[Case]:
        """Return a stream of cases, the same for an equal `source`.

        It is endless, or empty if the edge cases are all possible cases.
        """
        raise NotImplementedError

    def implementations(self, libcall: Libcall) -> dict[str, Implementation]:
        """Return the implementations to compare, by name, the one that serves first."""
        raise NotImplementedError

    def describe_inputs(self, libcall: Libcall, case: Case) -> dict[str, dict[str, str]]:
        """Return the inputs of a case by name, as :func:`.literals.describe` writes them."""
        raise NotImplementedError


class PatternChecker(Checker):
    """A checker whose cases are tuples of bit patterns, one for each parameter."""

    def oracle(self, libcall: Libcall) -> Callable[..., int]:
        """Return a third implementation on bit patterns, which also raises :class:`Trap`."""
        raise NotImplementedError

    def implementations(self, libcall: Libcall) -> dict[str, Implementation]:
        """Return those of :func:`served_functions`, and the oracle."""
        found = {**served_functions(libcall), "oracle": self.oracle(libcall)}
        return {name: partial(_run, function) for name, function in found.items()}

    def describe_inputs(self, libcall: Libcall, case: Case) -> dict[str, dict[str, str]]:
        """Return the pattern of each parameter; a pointer at the end has none."""
        parameters = zip(libcall.declaration.parameters, libcall.signature.parameters, strict=True)
        return {name: describe(t, bits) for (name, t), bits in zip(parameters, case, strict=False)}


def served_functions(libcall: Libcall) -> dict[str, Callable[..., int]]:
    """Return the implementations of a libcall on bit patterns, by name, the one that serves first.

    Machine code is compared with the fallback. A fallback that serves is compared with itself,
    called at its C address as native code does. Machine code that leaves for the fallback in some
    cases is called at its C address too.
    """
    found = {libcall.backend: libcall.call_bits}
    if libcall.may_leave:
        found[libcall.backend] = catch_traps(libcall.address, libcall.signature).call_bits
    if libcall.backend != "fallback":
        found["fallback"] = libcall.fallback.call_bits
    elif address_or_reason(libcall)[0]:
        found["address"] = catch_traps(libcall.address, libcall.signature).call_bits
    return found


def address_or_reason(libcall: Libcall) -> tuple[int, str]:
    """Return the C address of a libcall and "", or 0 and the reason why it has none."""
    try:
        return libcall.address, ""
    except (RuntimeError, MemoryError) as error:  # no ctypes, or no callbacks
        return 0, str(error)


def observe(function: Callable[..., int | None], *arguments: Any) -> Outcome:
    """Call a function and return the outcome."""
    try:
        return Outcome(function(*arguments))
    except Trap as trap:
        return Outcome(None, trap.code)
    except Exception as error:
        return Outcome(None, error=f"{type(error).__name__}: {error}")


def _run(function: Callable[..., int], case: Case) -> Outcome:
    return observe(function, *case)


class Difference(NamedTuple):
    """The first case that two implementations answer differently."""

    case_number: int  # number of the case in the run, from 1
    # `inputs`, `outcomes`: the parameters, and the outcome of each implementation, as plain values
    inputs: dict[str, dict[str, str]]
    outcomes: dict[str, dict[str, str]]
    xor: str  # the bits in which two results differ, "" unless there are two
    effects: dict[str, str]  # the effects that differ, each with both values

    def lines(self) -> list[str]:
        """Return the difference as lines of text."""
        rows = {name: _text(value) for name, value in {**self.inputs, **self.outcomes}.items()}
        rows |= self.effects
        if self.xor:
            rows["xor"] = self.xor
        width = max(map(len, rows))
        return [f"{name:<{width}}  {text}" for name, text in rows.items()]


def _text(value: dict[str, str]) -> str:
    if "bits" in value:
        return f"{value['bits']}  {value['type']} {value['text']}"
    return " ".join(f"{key}: {text}" for key, text in value.items()) or "no result"


class Verdict(NamedTuple):
    """The result of a check."""

    cases: int  # number of cases
    compared: tuple[str, ...]  # the implementations, the one that serves first
    difference: Difference | None  # none if all agree

    @property
    def passed(self) -> bool:
        """Whether at least two implementations were compared, and all agreed."""
        return self.difference is None and self.cases > 0


def checker_of(libcall: Libcall) -> Checker:
    """Return the checker of a libcall's family. Every family needs one; without it, LookupError."""
    module = libcall.declaration.module("checks")
    try:
        checker: Checker = importlib.import_module(module).CHECKER
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise LookupError(f"there is no checker, {module} is missing") from None
    return checker


def self_check(libcall: Libcall) -> Verdict:
    """Compare the implementation that serves a libcall with the others, over the edge cases."""
    return verify(libcall, count=0, seed=0)


def verify(
    libcall: Libcall, count: int, seed: int, progress: Callable[[int], None] = lambda done: None
) -> Verdict:
    """Compare over the edge cases and `count` random ones, and stop at the first difference.

    Equal seed and count give the same cases, independently of other libcalls of the run. `progress`
    is called now and then with the number of cases done.
    """
    checker = checker_of(libcall)
    source = random.Random(f"{seed} {libcall.name}")
    cases = chain(checker.edge_cases(libcall), islice(checker.random_cases(libcall, source), count))
    implementations = checker.implementations(libcall)
    names = tuple(implementations)
    serving, *others = implementations.values()
    done = 0
    for done, case in enumerate(cases, 1):
        expected = serving(case)
        for other in others:
            if other(case) != expected or expected.error:
                outcomes = {name: run(case) for name, run in implementations.items()}
                return Verdict(done, names, _difference(libcall, checker, case, outcomes, done))
        if not done % PROGRESS_STEP:
            progress(done)
    return Verdict(done, names, None)


def _difference(
    libcall: Libcall, checker: Checker, case: Case, outcomes: dict[str, Outcome], number: int
) -> Difference:
    serving, *others = outcomes.values()
    other = next((outcome for outcome in others if outcome != serving), others[0])
    xor = ""
    result = libcall.signature.result
    if result is not None and serving.result is not None and other.result is not None:
        xor = format_bits(result, serving.result ^ other.result)
    effects, other_effects = dict(serving.effects), dict(other.effects)
    return Difference(
        number,
        checker.describe_inputs(libcall, case),
        {name: outcome.describe(libcall) for name, outcome in outcomes.items()},
        xor,
        {
            name: _contrast(effects.get(name), other_effects.get(name))
            for name in effects | other_effects
            if effects.get(name) != other_effects.get(name)
        },
    )


def _contrast(one: Any, other: Any) -> str:
    """Return two values side by side; long ones from the first difference on."""
    if isinstance(one, bytes) and isinstance(other, bytes):
        at = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
        if at is None:
            return f"{len(one)} bytes against {len(other)}"
        end = at + 16
        return f"at byte {at:#x}: {one[at:end].hex(' ')} against {other[at:end].hex(' ')}"
    return f"{one!r} against {other!r}"
