"""Results of host functions: conversion to C and errors, for thunks and for ctypes callbacks."""

from __future__ import annotations

from asm_libcalls.signatures.pointers import address_of_result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from asm_libcalls.signatures import Signature


def result_converter(
    function: Callable[..., Any], signature: Signature, bits: bool
) -> Callable[[Any], int | None]:
    """Return a function that converts a host function's result to its bit pattern, or raises.

    Errors name `function`. With `bits`, the results are bit patterns already.
    """
    result = signature.result
    where = f"the result of host function {getattr(function, '__qualname__', '') or function!r}"

    def convert(value: Any) -> int | None:
        if result is None:
            return None
        if bits:
            return result.check_pattern(value, where)
        if result.kind == "pointer":
            return address_of_result(result, value, where)
        return result.to_bits(value, where)

    return convert


def call_closed(*arguments: Any) -> None:
    """Raise the error for native code that calls a closed host function."""
    raise RuntimeError("native code called a host function that was closed")


def refuse_result(value: Any) -> NoReturn:
    """Raise the error for a function closed during its call, whose result needs a conversion."""
    raise RuntimeError(
        "the host function was closed while it ran, and its result "
        f"({type(value).__name__}) does not fit as it is"
    )
