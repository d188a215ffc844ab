"""Checks of libcalls that store a second result through a pointer, which is compared too."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial
from typing import Any

from asm_libcalls.checks.engine import Outcome, PatternChecker, observe, served_functions
from asm_libcalls.libcall import Libcall


class StoringChecker(PatternChecker):
    """A case has a pattern for each parameter that is no pointer.

    The oracle of a libcall with a pointer returns (result, stored number).
    """

    def implementations(self, libcall: Libcall) -> dict[str, Callable[[Any], Outcome]]:
        """Return what :func:`served_functions` has, and the oracle."""
        size = {"remainder": 16, "overflow": 4}.get(libcall.declaration.parameters[-1])
        if size is None:
            return super().implementations(libcall)
        found: dict[str, Callable[[Any], Outcome]] = {
            name: partial(_run_and_read, function, size, name == "address")
            for name, function in served_functions(libcall).items()
        }
        found["oracle"] = partial(_run_oracle, self.oracle(libcall), size)
        return found


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
