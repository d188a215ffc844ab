"""Externrefs that native frames hold: the activations table, and its GC.

Compiled code does not count references. When it gets one from a table, a global or the host, it
*borrows* it from an activations table. The table owns one count for each entry. Its entries include
all references that the frames hold::

    VMExternRefActivationsTable { next*, end* }     compiled code inserts here, while next < end
              |                    |
              v                    v
    chunk    [ a, b, c, ........... ]               512 slots
    set      { d, e, f }                            survivors, of any number

When the chunk is full, :meth:`VMExternRefActivationsTable.gc` walks the native frames of this
thread. Stack maps have the slots of each frame that hold references. These references, the *precise
roots*, become the new table, and all others are dropped. The walk must reach the entry of every
activation (the canary), or nothing is collected. Frames of other threads are not walked: one thread
at a time uses an instance and all that it is linked to, as a Wasmtime ``Store``.

Source: ``wasmtime_runtime::externref`` of Wasmtime 0.22; DeTreville, "Experience with concurrent
garbage collectors for Modula-2+" (deferred reference counting).
"""

from __future__ import annotations

import ctypes

from asm_libcalls.native.stack_walker import stack_frames
from asm_libcalls.owned.objects import OPEN, Owned
from asm_libcalls.runtime import externref_boxes, transit
from asm_libcalls.runtime.externref_boxes import SHIFT, ref_counts, value_cells
from asm_libcalls.runtime.stack_maps import stack_map
from asm_libcalls.steps import step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from asm_libcalls.runtime.stack_maps import StackMapRegistry

CHUNK_SIZE = 512
"""Slots of the bump chunk: one page of pointers, as in Wasmtime."""

_SLOT = ctypes.sizeof(ctypes.c_size_t)


def _word(address: int) -> int:
    return int(ctypes.c_size_t.from_address(address).value)


class _Header(ctypes.Structure):
    """The part compiled code accesses; see ``VMOffsets.vm_extern_ref_activation_table_next``."""

    _fields_ = [("next", ctypes.c_size_t), ("end", ctypes.c_size_t)]


class VMExternRefActivationsTable(Owned):
    """Keeps the externrefs of native frames alive; one for each instance."""

    def __init__(self) -> None:
        self._begin()
        # The word before the chunk is 0: machine code compares the newest entry with a pointer.
        words = (ctypes.c_size_t * (CHUNK_SIZE + 1))()
        self._chunk = (ctypes.c_size_t * CHUNK_SIZE).from_buffer(words, _SLOT)
        self._start = ctypes.addressof(self._chunk)
        self._header = _Header(self._start, self._start + ctypes.sizeof(self._chunk))
        # a dict of keys alone: adding to a set would be a call, in a step
        self._over_approximated: dict[int, None] = {}
        self._examined: list[int] = []  # taken from both, while a collection sorts them
        self._collecting = False
        self._finish()

    def __len__(self) -> int:
        """Return the number of entries, repetitions in the chunk included."""
        return self._filled() + len(self._over_approximated) + len(self._examined)

    @property
    def address(self) -> int:
        """The pointer in the VMContext: to ``next*`` and ``end*`` of the bump chunk.

        Compiled code may insert by itself: while next is not end, store a pointer whose count it
        has incremented at next, and add 8 to next.
        """
        return ctypes.addressof(self._header)

    def _filled(self) -> int:
        return int(self._header.next - self._start) // _SLOT

    @step
    def insert(self, address: int) -> bool:
        """Insert a live pointer, counting an owner; False if the chunk is full."""
        header, chunk, start = self._header, self._chunk, self._start
        value_cells[address].cell_contents  # noqa: B018 - ValueError if it is not live
        # No call from here on: any Python code might insert into the same slot.
        at = (header.next - start) // _SLOT
        if self._state is OPEN and at != CHUNK_SIZE:
            ref_counts[address >> SHIFT] += 1
            chunk[at] = address
            header.next += _SLOT
            return True
        return False

    def insert_with_gc(self, address: int, registry: StackMapRegistry) -> None:
        """Insert a live pointer, counting an owner; GC first if the chunk is full."""
        if not self.insert(address):
            # Into the set before the GC: a destructor may raise, and the entry must not be lost.
            if not self._keep(address):
                raise ValueError("the Instance is closed")
            self.gc(registry, keep=address)

    def insert_returned(self, owned: list[int], registry: StackMapRegistry) -> int:
        """Insert the pointer in `owned`, which is returned to native code; GC if the chunk is full.

        A pointer that is the chunk's newest entry is not inserted again, as in machine code. Until
        the caller has returned, the pointer is in transit, and no collection drops it.
        """
        address = owned[0]
        if address:
            transit.returns([address])
            try:
                if not self._is_newest(address):
                    self.insert_with_gc(address, registry)
            finally:
                externref_boxes.Counts.give_back(owned)  # type: ignore[arg-type]
        return address

    @step
    def _is_newest(self, address: int) -> bool:
        header, start = self._header, self._start
        # No call from here on: see insert().
        at = (header.next - start) // _SLOT - 1
        newest: bool = at >= 0 and self._chunk[at] == address
        return newest

    def insert_all(self, addresses: Iterable[int], registry: StackMapRegistry) -> None:
        """Insert live pointers, counting an owner of each; GC first if the chunk is too full.

        A closed table would keep none of them; it raises ValueError.
        """
        addresses = list(addresses)
        if self._filled() + len(addresses) > CHUNK_SIZE:
            self.gc(registry)
        for address in addresses:
            if not self.insert(address) and not self._keep(address):
                raise ValueError("the Instance is closed")

    def gc(self, registry: StackMapRegistry, keep: int = 0) -> None:
        """Drop every entry that no native frame of this thread holds, except `keep`.

        Entries in transit between Python and native code stay. A nested call, from a destructor,
        does nothing.

        Raises
        ------
        BaseException
            The first exception of a destructor; the others are collected all the same.
        """
        if self._collecting:
            return
        self._collecting = True
        try:
            # Before the roots are read: an entry inserted later may be in no root that was read, so
            # it is not examined.
            self._examine()
            roots = self._precise_roots(registry)
            if roots is None:
                roots = {*self._examined}
            else:
                roots |= transit.roots().intersection(self._examined)
            if keep:
                roots.add(keep)
            self._sweep(roots)
        finally:
            self._collecting = False

    def holds_what_is_in_transit(self) -> bool:
        """Return whether an entry is in transit between Python and native code of this thread."""
        self._examine()
        return not transit.roots().isdisjoint(self._examined)

    def clear(self) -> None:
        """Drop every entry."""
        self._examine()
        self._sweep(set())

    def _release(self) -> None:
        self._header.end = self._start  # a full chunk, for machine code
        self.clear()

    def _examine(self) -> None:
        """Move every entry to `_examined`."""
        while not self._take({}):
            pass

    @step
    def _take(self, nothing: dict[int, None]) -> bool:
        header, chunk, start = self._header, self._chunk, self._start
        end, kept = header.next, self._over_approximated
        words = chunk[0 : (end - start) // _SLOT]
        examined = [*self._examined, *words, *kept]  # made first, then filled without allocations
        # No code has run since the slots were read, so no insertion is lost.
        if header.next != end or self._over_approximated is not kept:
            return False
        header.next = start
        self._over_approximated = nothing
        self._examined = examined
        return True

    def _precise_roots(self, registry: StackMapRegistry) -> set[int] | None:
        frames = stack_frames()
        if frames is None:
            return None
        roots = set()
        for return_address, frame_pointer in frames:
            for offset in stack_map(return_address, registry):
                address = _word(frame_pointer + offset)
                if address and not externref_boxes.is_live(address):
                    raise ValueError(
                        f"the stack map at return address {return_address:#x} names the slot at "
                        f"{offset}, which holds {address:#x}: no live externref"
                    )
                if address:
                    roots.add(address)
        return roots

    @step
    def _keep(self, address: int) -> bool:
        """Add a live pointer to the set, with a count; return False if the table is closed."""
        kept = self._over_approximated
        value_cells[address].cell_contents  # noqa: B018 - ValueError if it is not live
        # No call, and no new object that the collector tracks: either could replace the set.
        if self._state is not OPEN:
            return False
        if address not in kept:
            ref_counts[address >> SHIFT] += 1
            kept[address] = None
        return True

    def _sweep(self, roots: set[int]) -> None:
        """Drop the examined entries that are no roots; count an owner of the other roots."""
        dropped = externref_boxes.Counts()
        while self._examined:
            if not dropped or dropped[-1]:
                dropped.append(0)  # the place for the next one
            self._sort_one(roots, dropped)
        for address in roots:
            self._keep(address)  # a root that was not in the table
        dropped.give_back()  # destructors run from here on

    @step
    def _sort_one(self, roots: set[int], dropped: externref_boxes.Counts) -> None:
        """Move the last examined entry to the set, or to the last place of `dropped`."""
        # No call, and no new object that the collector tracks: the entry is always in one of them.
        kept, examined = self._over_approximated, self._examined
        if not examined:
            return
        address = examined[-1]
        keeps = self._state is OPEN and address in roots and address not in kept
        del examined[-1]
        if keeps:
            kept[address] = None
        else:
            dropped[-1] = address
