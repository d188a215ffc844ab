"""References as tables, globals and segments store them: converts pointers and Python values.

``funcref`` is a ``VMCallerCheckedAnyfunc*`` and is not counted; ``externref`` is a
``VMExternData*`` that owns one count. Null is 0, and None in Python.
"""

from __future__ import annotations

from asm_libcalls.owned.objects import is_a
from asm_libcalls.runtime import externref_boxes
from asm_libcalls.runtime.externref import VMExternRef
from asm_libcalls.runtime.funcref import FuncRef, raw_and_keeper
from asm_libcalls.signatures.arguments import shown_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

REFERENCE_TYPES = ("funcref", "externref")


def owned_raw(reference_type: str, value: Any, what: str) -> tuple[list[int], Any]:
    """Return the pointer of a Python value, in a list, and an object to keep alive.

    The list owns the count of an externref, as a list of class ``externref_boxes.Counts``.

    For externref a value is any Python object, or a VMExternRef, whose box is used; for funcref it
    is a FuncRef. None is null. Raise TypeError for a reference of the wrong kind; `what` names it.
    """
    if value is None:
        return externref_boxes.Counts((0,)) if reference_type == "externref" else [0], None
    if reference_type == "externref":
        if is_a(value, VMExternRef):
            return VMExternRef._held(value), None
        return externref_boxes.new_box(value), None
    if is_a(value, FuncRef):
        raw, keeper = raw_and_keeper(value)
        return [raw], keeper
    raise TypeError(f"{what} must be a FuncRef or None (funcref), got {type(value).__name__}")


def give_back(owned: list[int]) -> None:
    """Drop the pointers of a list, as :func:`owned_raw` returns it, that the caller owns."""
    if isinstance(owned, externref_boxes.Counts):
        owned.give_back()


def check_raw(reference_type: str, address: int, what: str) -> Any:
    """Return the object that keeps a raw reference alive; ValueError for any other address.

    `what` names the argument.
    """
    if address == 0:
        return None
    if reference_type == "externref":
        if not externref_boxes.is_live(address):
            raise ValueError(f"{what}: no live externref at address {shown_address(address)}")
        return None
    try:
        return FuncRef.from_raw(address).instance
    except ValueError:
        raise ValueError(
            f"{what}: no live function reference at address {shown_address(address)}"
        ) from None


def from_raw(reference_type: str, address: int) -> Any:
    """Return the Python value of a pointer: the object in an externref's box, or a FuncRef."""
    if address == 0:
        return None
    if reference_type == "externref":
        return externref_boxes.value_of(address)
    return FuncRef.from_raw(address)
