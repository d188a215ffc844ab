"""Base class of memories, tables and globals: objects with a C definition that can be closed.

A definition begins in the object's own memory. The instance that defines the object moves it into
its VMContext. An importing instance points to it, after which it cannot move.
"""

from __future__ import annotations

import ctypes

from asm_libcalls.owned.objects import unmade
from asm_libcalls.runtime.store import Stored
from asm_libcalls.runtime.store_entries import inside

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Defined(Stored):
    """An object with a C definition; the base class of Memory, Table and Global."""

    _relied_on: tuple[str, ...] = (
        "adopt_definition", "check_adoptable", "definition_address", "definition_owner",
        "owner_vmctx", "share_definition",
    )  # fmt: skip
    _definition: Any = unmade()
    _owner: Any = None  # keeps the definition alive, once it cannot move
    owner_vmctx = 0
    """The vmctx of the instance that defines it; 0 if none does."""

    @property
    def definition_address(self) -> int:
        """The address of its C definition."""
        self._check_open()
        return ctypes.addressof(self._definition)

    @property
    def definition_owner(self) -> Any:
        """The owner of the definition's memory, once it cannot move; else None."""
        return self._owner

    @inside
    def adopt_definition(self, address: int, vmctx: int, owner: Any) -> None:
        """Move the definition into the VMContext at `vmctx`, which `owner` keeps alive."""
        definition = type(self._definition).from_address(address)
        target = _words(definition)
        everything = slice(None)
        while True:
            self.check_adoptable()
            before = self._definition
            content = _words(before)[everything]
            # No call since the words were read, or a growth or a store could be lost.
            if self._definition is before and self._owner is None:
                target[everything] = content
                self._definition = definition
                self._owner = owner
                self.owner_vmctx = vmctx
                return

    def check_adoptable(self) -> None:
        """Raise ValueError if no instance can define it any more."""
        self._check_open()
        if self._owner is not None:
            raise ValueError(
                f"{self!r} is defined by, or imported into, another instance already: "
                "it can be defined once, so import it"
            )

    def share_definition(self) -> int:
        """Return the definition's address for an import; it cannot move from now on."""
        address = self.definition_address
        if self._owner is None:
            self._owner = self._definition
        return address


def _words(definition: Any) -> Any:
    count = ctypes.sizeof(definition) // ctypes.sizeof(ctypes.c_size_t)
    return (ctypes.c_size_t * count).from_address(ctypes.addressof(definition))
