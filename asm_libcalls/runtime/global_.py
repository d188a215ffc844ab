"""A global: 16 bytes that native code reads and writes.

Source: WebAssembly 2.0, 4.2.9 (global instances); ``VMGlobalDefinition`` of Wasmtime 0.22.
"""

from __future__ import annotations

from functools import partial

from asm_libcalls.owned.objects import unmade
from asm_libcalls.runtime import externref_arrays, externref_boxes
from asm_libcalls.runtime.definition import Defined
from asm_libcalls.runtime.reference import REFERENCE_TYPES, from_raw, give_back, owned_raw
from asm_libcalls.runtime.releasing import release_when_unused
from asm_libcalls.runtime.store import link
from asm_libcalls.runtime.store_entries import inside, inside_or_later
from asm_libcalls.signatures import WASM_NUMBERS
from asm_libcalls.signatures.arguments import one_of
from asm_libcalls.steps import step
from asm_libcalls.vmcontext import VMGlobalDefinition

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TYPES = (*WASM_NUMBERS, *REFERENCE_TYPES)

_HALF = (1 << 64) - 1


class Global(Defined):
    """A WebAssembly global.

    Parameters
    ----------
    value_type : {"i32", "i64", "f32", "f64", "v128", "funcref", "externref"}
    value : int, float or object
        The initial value: a number, or for a reference type a value that ``table[i]`` takes.
    mutable : bool
        Whether ``global.set`` may change it. Python may not change an immutable one either.
    """

    _mutable: bool = unmade()
    _value_type: str = unmade()

    _relied_on: tuple[str, ...] = "mutable", "owned_raw", "swap_raw", "value_type"

    def __init__(self, value_type: str, value: Any = 0, mutable: bool = False) -> None:
        self._begin()
        value_type = one_of(value_type, _TYPES, "Global(): value_type")
        self._value_type = value_type
        self._mutable = bool(mutable)
        self._definition = VMGlobalDefinition()
        self._keeper: Any = None
        if value_type in REFERENCE_TYPES and value is not None and type(value) is int:
            # The default is 0 for a number, null for a reference. A VMExternRef can hold the int 0
            # as a value.
            value = None if value == 0 else value
        self._finish()
        try:
            self._write(value, "Global(): value")
        except BaseException:
            self.close()
            raise

    @property
    def value_type(self) -> str:
        """The name of its type."""
        return self._value_type

    @property
    def mutable(self) -> bool:
        """Whether ``global.set`` may change it."""
        return self._mutable

    def __repr__(self) -> str:
        if self.closed:
            return "<Global closed>"
        mutable = "mutable " if self.mutable else ""
        return f"<Global {mutable}{self.value_type} {self.value!r}>"

    @classmethod
    def from_bits_or_reference(cls, value_type: str, value: Any, mutable: bool) -> Global:
        """Make a Global from a float's bit pattern, or from a Python value of any other type."""
        if value_type not in ("f32", "f64"):
            return cls(value_type, value, mutable)
        self = cls(value_type, 0, mutable)
        self._store(WASM_NUMBERS[value_type].check_pattern(value, "Global(): value"))
        return self

    @property
    @inside
    def value(self) -> Any:
        """The value: an int (signed, except v128), a float, or a reference as in ``table[i]``."""
        self._check_open()
        if self._value_type == "externref":
            return externref_arrays.value_at(self._definition.storage, 0)
        pattern = self.bits
        if self.value_type in REFERENCE_TYPES:
            return from_raw(self.value_type, pattern)
        return WASM_NUMBERS[self.value_type].from_bits(pattern)

    @value.setter
    def value(self, value: Any) -> None:
        self._check_open()
        if not self.mutable:
            raise AttributeError(f"the Global is immutable: {self!r}")
        self._write(value, "Global.value")

    @property
    @inside
    def bits(self) -> int:
        """The raw bit pattern, unsigned; a pointer for a reference."""
        self._check_open()
        low, high = self._definition.storage
        if self.value_type in REFERENCE_TYPES:
            return int(low)
        return int(low | high << 64) & WASM_NUMBERS[self.value_type].mask

    @bits.setter
    def bits(self, pattern: int) -> None:
        self._check_open()
        if not self.mutable:
            raise AttributeError(f"the Global is immutable: {self!r}")
        if self.value_type in REFERENCE_TYPES:
            raise TypeError(f"the bits of a reference cannot be set: {self!r}")
        self._store(WASM_NUMBERS[self.value_type].check_pattern(pattern, "Global.bits"))

    def swap_raw(self, owned: list[int], keeper: Any = None) -> None:
        """Exchange the pointer with that in `owned`, with its count.

        A closed global drops both, and raises ValueError.
        """
        if keeper is not None:
            link([self, keeper])  # here, and not while this thread is inside one of the stores
        self._swap_inside(owned, keeper)

    @inside
    def _swap_inside(self, owned: list[int], keeper: Any) -> None:
        self._swap(owned, keeper)
        if self.closed:  # before, or during the swap
            give_back(owned)
            Global._release(self)
            self._check_open()

    def _swap(self, owned: list[int], keeper: Any) -> None:
        while True:
            definition = self._definition
            if self._exchange(definition, definition.storage, owned, [keeper]):
                return

    @step
    def _exchange(self, definition: Any, cells: Any, owned: list[int], keeper: list[Any]) -> bool:
        """Exchange the pointer and the keeper, if the definition is still in this place."""
        # No call from here on: no other code can store between the read and the write.
        if self._definition is definition:
            old: int = cells[0]
            cells[0] = owned[0]
            owned[0] = old
            old_keeper = self._keeper
            self._keeper = keeper[0]
            keeper[0] = old_keeper  # dropped by the caller
            return True
        return False

    @inside
    def owned_raw(self) -> list[int]:
        """Return the pointer of an externref, with a count for the caller."""
        self._check_open()
        return externref_arrays.hold_range(self._definition.storage, 0, 1)

    @inside_or_later
    def _release(self) -> None:
        if self._value_type in REFERENCE_TYPES:
            self._definition.storage[1] = VMGlobalDefinition.CLOSED  # for machine code
        owned = externref_boxes.Counts((0,)) if self._value_type == "externref" else [0]
        self._swap(owned, None)
        release_when_unused(self, partial(give_back, owned))

    def _write(self, value: Any, where: str) -> None:
        if self.value_type in REFERENCE_TYPES:
            owned, keeper = owned_raw(self.value_type, value, where)
            self.swap_raw(owned, keeper)
            give_back(owned)
        else:
            self._store(WASM_NUMBERS[self.value_type].to_bits(value, where))

    @inside
    def _store(self, pattern: int) -> None:
        self._check_open()  # the value's __index__ or __float__ may have closed it
        self._definition.storage[0] = pattern & _HALF
        self._definition.storage[1] = pattern >> 64
