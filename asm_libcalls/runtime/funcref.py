"""``FuncRef``: the Python object for a ``VMCallerCheckedAnyfunc`` of an instance."""

from __future__ import annotations

from weakref import WeakValueDictionary

from asm_libcalls.owned import NotCopied, not_made, refuse_again
from asm_libcalls.signatures.arguments import address_from, shown_address
from asm_libcalls.vmcontext import VMCallerCheckedAnyfunc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

live: WeakValueDictionary[int, FuncRef] = WeakValueDictionary()

_written: set[int] = set()
"""The anyfuncs whose references an instance is making."""


class FuncRef(NotCopied):
    """A reference to a function of an instance; users get them from ``Instance.functions``.

    Only instances make them: the address must be that of an anyfunc that they wrote. A reference
    keeps the instance alive. Two references are equal when they point to the same anyfunc.
    """

    __slots__ = ("__weakref__", "_address", "_index", "_instance")

    def __init__(self, instance: Any, index: int, address: int) -> None:
        refuse_again(self, "_address")
        if type(address) is not int or address not in _written:
            raise TypeError(
                f"{type(self).__name__}() is called by instances only: "
                "Instance.functions and the exports of a module have the references"
            )
        self._instance = instance
        self._index = index
        self._address = address
        live[address] = self

    @property
    def instance(self) -> Any:
        """The instance in whose VMContext the anyfunc is."""
        try:
            return self._instance
        except AttributeError:
            raise not_made(self) from None

    @property
    def index(self) -> int:
        """The function index there, imports first."""
        try:
            return self._index
        except AttributeError:
            raise not_made(self) from None

    @staticmethod
    def from_raw(address: int) -> FuncRef:
        """Return the reference of a raw anyfunc pointer; ValueError if no instance has it."""
        address = address_from(address, "from_raw(): address")
        reference = live.get(address)
        if reference is None:
            raise ValueError(f"no live function reference at address {shown_address(address)}")
        return reference

    def as_raw(self) -> int:
        """Return the address of the VMCallerCheckedAnyfunc."""
        try:
            return self._address
        except AttributeError:
            raise not_made(self) from None

    _readable_member = ("anyfunc", "_address")  # see Instance._readable_member

    def __native_address__(self, kind: str) -> Any:
        """Return the address of the VMCallerCheckedAnyfunc, for native code."""
        return self.as_raw() if kind in ("anyfunc", "reference") else NotImplemented

    @property
    def _anyfunc(self) -> VMCallerCheckedAnyfunc:
        return VMCallerCheckedAnyfunc.from_address(FuncRef.as_raw(self))

    @property
    def func_ptr(self) -> int:
        """The C address of the code."""
        return int(self._anyfunc.func_ptr)

    @property
    def type_index(self) -> int:
        """The type that ``call_indirect`` compares, as the JIT numbers types."""
        return int(self._anyfunc.type_index)

    @property
    def vmctx(self) -> int:
        """The vmctx that the code is called with."""
        return int(self._anyfunc.vmctx)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, FuncRef):
            return FuncRef.as_raw(self) == FuncRef.as_raw(other)
        return NotImplemented

    def __hash__(self) -> int:
        return hash(FuncRef.as_raw(self))

    def __repr__(self) -> str:
        return f"<FuncRef function {self.index} of {self.instance!r}>"


_get_address: Any = FuncRef.__dict__["_address"].__get__
_get_instance: Any = FuncRef.__dict__["_instance"].__get__


def make_references(cls: type[FuncRef], instance: Any, addresses: Sequence[int]) -> list[FuncRef]:
    """Return the references to the anyfuncs that an instance has written, in index order."""
    _written.update(addresses)
    try:
        return [cls(instance, index, address) for index, address in enumerate(addresses)]
    finally:
        _written.difference_update(addresses)


def raw_and_keeper(reference: Any) -> tuple[int, Any]:
    """Return the address of a FuncRef, and its instance, without any override of a subclass."""
    return _get_address(reference), _get_instance(reference)
