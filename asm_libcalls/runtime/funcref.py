"""``FuncRef``: the Python object for a ``VMCallerCheckedAnyfunc`` of an instance."""

from __future__ import annotations

from weakref import WeakValueDictionary

from asm_libcalls.owned import NotCopied, refuse_again
from asm_libcalls.vmcontext import VMCallerCheckedAnyfunc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["FuncRef"]

_live: WeakValueDictionary[int, FuncRef] = WeakValueDictionary()


class FuncRef(NotCopied):
    """A reference to a function of an instance; users get them from ``Instance.functions``.

    It keeps the instance alive. Two references are equal when they point to the same anyfunc.
    """

    __slots__ = ("__weakref__", "_address", "_index", "_instance")

    def __init__(self, instance: Any, index: int, address: int) -> None:
        if hasattr(self, "_address"):
            refuse_again(self)
        self._instance = instance
        self._index = index
        self._address = address
        _live[address] = self

    @property
    def instance(self) -> Any:
        """The instance in whose VMContext the anyfunc is."""
        return self._instance

    @property
    def index(self) -> int:
        """The function index there, imports first."""
        return self._index

    @staticmethod
    def from_raw(address: int) -> FuncRef:
        """Return the reference of a raw anyfunc pointer; ValueError if no instance has it."""
        reference = _live.get(address)
        if reference is None:
            raise ValueError(f"no live function reference at address {address:#x}")
        return reference

    def as_raw(self) -> int:
        """Return the address of the VMCallerCheckedAnyfunc."""
        return self._address

    def __native_address__(self, kind: str) -> Any:
        """Return the address of the VMCallerCheckedAnyfunc, for native code."""
        return self.as_raw() if kind in ("anyfunc", "reference") else NotImplemented

    @property
    def _anyfunc(self) -> VMCallerCheckedAnyfunc:
        return VMCallerCheckedAnyfunc.from_address(self._address)

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
            return self._address == other._address
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self._address)

    def __repr__(self) -> str:
        return f"<FuncRef function {self.index} of {self.instance!r}>"


_get_address: Any = FuncRef.__dict__["_address"].__get__
_get_instance: Any = FuncRef.__dict__["_instance"].__get__


def raw_and_keeper(reference: Any) -> tuple[int, Any]:
    """Return the address of a FuncRef, and its instance, without any override of a subclass."""
    return _get_address(reference), _get_instance(reference)
