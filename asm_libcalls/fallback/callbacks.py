"""C addresses for functions of the fallback: ctypes callbacks, kept for ever.

A callback is called by native code that may outlive every Python reference to it, so none is ever
freed. What it raises goes to :func:`asm_libcalls.entry.report`, since ctypes would swallow it.
"""

from __future__ import annotations

from asm_libcalls import entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from asm_libcalls.signatures import Signature

__all__ = ["make_callback"]

_immortal: list[Any] = []


def make_callback(function: Callable[..., int], signature: Signature) -> int:
    """Return the C address of a function on bit patterns."""
    import ctypes

    parameters, result = signature.parameters, signature.result

    def callback(*values: Any) -> Any:
        try:
            pattern = function(
                *(t.to_bits(value, "argument") for t, value in zip(parameters, values, strict=True))
            )
            return None if result is None else result.from_bits(pattern)
        except BaseException as exception:
            entry.report(exception)
            return None if result is None else result.from_bits(0)

    native = signature.ctypes_prototype()(callback)
    _immortal.append(native)
    return ctypes.cast(native, ctypes.c_void_p).value or 0
