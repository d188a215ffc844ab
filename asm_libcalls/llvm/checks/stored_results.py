"""Checks of libcalls that store a second result through a pointer, which is compared too."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial
from typing import Any

from asm_libcalls.checks.engine import Outcome, PatternChecker, observe, served_functions
from asm_libcalls.libcall import Libcall
from asm_libcalls.signatures.literals import describe


class StoringChecker(PatternChecker):
    """A case has a pattern for each parameter that is no pointer.

    The oracle of a libcall with a pointer returns (result, stored number).
    """

    def implementations(self, libcall: Libcall) -> dict[str, Callable[[Any], Outcome]]:
        """Return what :func:`served_functions` has, and the oracle."""
        if not _has_pointer(libcall):
            return super().implementations(libcall)
        size = {"remainder": 16, "overflow": 4}[libcall.declaration.parameters[-1]]
        found: dict[str, Callable[[Any], Outcome]] = {
            name: partial(_run_and_read, function, size, name == "address")
            for name, function in served_functions(libcall).items()
        }
        found["oracle"] = partial(_run_oracle, self.oracle(libcall), size)
        return found

    def describe_inputs(self, libcall: Libcall, case: Any) -> dict[str, dict[str, str]]:
        """Return each number's pattern."""
        pairs = zip(libcall.declaration.parameters, libcall.signature.parameters, strict=True)
        return {name: describe(t, pattern) for (name, t), pattern in zip(pairs, case, strict=False)}


def _has_pointer(libcall: Libcall) -> bool:
    return any(t.kind == "pointer" for t in libcall.signature.parameters)


def _run_and_read(
    function: Callable[..., int], size: int, by_address: bool, case: tuple[int, ...]
) -> Outcome:
    buffer = (ctypes.c_ubyte * size).from_buffer(bytearray(b"\xa5" * size))
    outcome = observe(function, *case, ctypes.addressof(buffer) if by_address else buffer)
    return outcome._replace(effects=(("stored", bytes(buffer)),) if outcome.trap is None else ())


def _run_oracle(oracle: Callable[..., Any], size: int, case: tuple[int, ...]) -> Outcome:
    outcome = observe(oracle, *case)
    if outcome.trap is not None or outcome.error:
        return outcome
    result, stored = outcome.result  # type: ignore[misc]
    return Outcome(result, effects=(("stored", int(stored).to_bytes(size, "little")),))
