"""C addresses for Python functions where there is no machine code: ctypes callbacks.

A callback is called by native code that may outlive every Python reference to it, so it lives
until it is given back. What it raises goes to :func:`asm_libcalls.entry.report`, since ctypes
would swallow it.
"""

from __future__ import annotations

from asm_libcalls import entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from asm_libcalls.signatures import Signature

__all__ = ["make_callback"]

_live: dict[int, Any] = {}


def make_callback(
    function: Callable[..., Any], signature: Signature, bits: bool
) -> tuple[int, Callable[[], None]]:
    """Return the C address of a Python function, and what gives it back.

    Parameters
    ----------
    function : callable
    signature : Signature
    bits : bool
        Whether the function takes and returns bit patterns instead of numbers.
    """
    import ctypes

    parameters, result = signature.parameters, signature.result

    def callback(*values: Any) -> Any:
        try:
            if bits:
                values = tuple(
                    t.to_bits(value, "argument")
                    for t, value in zip(parameters, values, strict=True)
                )
            returned = function(*values)
            if result is None:
                return None
            pattern = returned if bits else result.to_bits(returned, "the result")
            return result.from_bits(pattern)
        except BaseException as exception:
            entry.report(exception)
            return None if result is None else result.from_bits(0)

    try:
        native = signature.ctypes_prototype()(callback)
    except MemoryError as refusal:
        raise MemoryError(
            "no C address for a Python function: "
            "the system refuses ctypes executable memory for its callbacks"
        ) from refusal
    address = ctypes.cast(native, ctypes.c_void_p).value or 0
    _live[address] = native

    def release() -> None:
        del _live[address]

    return address, release
