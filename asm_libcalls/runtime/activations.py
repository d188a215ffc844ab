"""Externrefs that native frames hold: the activations table, and its GC.

Compiled code does not count references. It *borrows* those it gets from a table, a global or the
host from an activations table. That owns one count for each entry, and has at least the references
that the frames hold::

    VMExternRefActivationsTable { next*, end* }     compiled code inserts here, while next < end
              |                    |
              v                    v
    chunk    [ a, b, c, ........... ]               512 slots
    set      { d, e, f }                            survivors, of any number

When the chunk is full, :meth:`VMExternRefActivationsTable.gc` walks the native frames of this
thread. A stack map registry knows which slots of each frame hold references. These *precise roots*
become the new table, and all others are dropped. The walk must reach the entry of every activation
(the canary), or nothing is collected. Frames of other threads are not walked: like a Wasmtime
``Store``, an instance and all that it is linked to is used by one thread at a time.

Source: ``wasmtime_runtime::externref`` of Wasmtime 0.22; DeTreville, "Experience with concurrent
garbage collectors for Modula-2+" (deferred reference counting).
"""

from __future__ import annotations

import ctypes

from asm_libcalls.native import greenlets
from asm_libcalls.native.stack_walker import stack_frames
from asm_libcalls.owned import OPEN, Owned
from asm_libcalls.runtime import externref
from asm_libcalls.runtime.stack_maps import stack_map
from asm_libcalls.steps import step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from asm_libcalls.runtime.stack_maps import StackMapRegistry

__all__ = ["CHUNK_SIZE", "VMExternRefActivationsTable"]

CHUNK_SIZE = 512
"""Slots of the bump chunk: one page of pointers, as in Wasmtime."""

_SLOT = ctypes.sizeof(ctypes.c_size_t)


def _word(address: int) -> int:
    return int(ctypes.c_size_t.from_address(address).value)


class _Header(ctypes.Structure):
    """The part compiled code accesses; see ``VMOffsets.vm_extern_ref_activation_table_next``."""

    _fields_ = [("next", ctypes.c_size_t), ("end", ctypes.c_size_t)]


class VMExternRefActivationsTable(Owned):
    """Keeps the externrefs of native frames alive; one for each instance.

    Attributes
    ----------
    address : int
        The pointer in the VMContext: to ``next*`` and ``end*`` of the bump chunk. Compiled code may
        insert by itself: while next is not end, store a pointer whose count it has incremented at
        next, and add 8 to next.
    transfers : frozenset
        The places (:func:`~asm_libcalls.native.greenlets.position`) where references are being
        passed between Python and native code.
    """

    def __init__(self) -> None:
        self._begin()
        # The word before the chunk is 0: machine code compares the newest entry with a pointer.
        words = (ctypes.c_size_t * (CHUNK_SIZE + 1))()
        self._chunk = (ctypes.c_size_t * CHUNK_SIZE).from_buffer(words, _SLOT)
        self._start = ctypes.addressof(self._chunk)
        self._header = _Header(self._start, self._start + ctypes.sizeof(self._chunk))
        self._over_approximated: set[int] = set()
        self._collecting = False
        self._finish()
        self.transfers: frozenset[greenlets.Place] = frozenset()

    def __len__(self) -> int:
        """Return how many entries there are, repetitions in the chunk included."""
        return self._filled() + len(self._over_approximated)

    @property
    def address(self) -> int:
        """The address of the header that compiled code knows."""
        return ctypes.addressof(self._header)

    def _filled(self) -> int:
        return int(self._header.next - self._start) // _SLOT

    @step
    def insert(self, address: int) -> bool:
        """Insert a pointer with the count that the caller owns; False if the chunk is full."""
        header, chunk, start = self._header, self._chunk, self._start
        # No call from here on: any Python code might insert into the same slot.
        at = (header.next - start) // _SLOT
        if self._state is OPEN and at != CHUNK_SIZE:
            chunk[at] = address
            header.next += _SLOT
            return True
        return False

    def insert_with_gc(self, address: int, registry: StackMapRegistry) -> None:
        """Insert a pointer with the count that the caller owns; GC first if the chunk is full.

        Native code calls it, so references in transfer have arrived there.
        """
        self.end_transfer()
        if not self.insert(address):
            # Into the set before the GC: a destructor may raise, and the entry must not be lost.
            self._keep(address)
            if self.closed:
                raise ValueError("the Instance is closed")
            self.gc(registry, keep=address)

    def insert_returned(self, address: int, registry: StackMapRegistry) -> None:
        """Insert a pointer that the caller owns and returns to native code; GC first if too full.

        A pointer that is the chunk's newest entry is not inserted again. A transfer into the frame
        begins here, as in :meth:`insert_all`: until the caller has returned, whatever a signal
        handler collects, the pointer is kept.
        """
        by_native_code = greenlets.position()[2]
        if by_native_code:
            self.begin_transfer()
        if self._is_newest(address):
            externref.release(address)
            return
        if not by_native_code:  # Python ends no transfer
            self.insert_with_gc(address, registry)
            return
        try:
            self.insert_all([address], registry)
        finally:
            externref.release(address)
        if self.closed:
            raise ValueError("the Instance is closed")

    @step
    def _is_newest(self, address: int) -> bool:
        header, start = self._header, self._start
        # No call from here on: see insert().
        at = (header.next - start) // _SLOT - 1
        return at >= 0 and bool(self._chunk[at] == address)

    def insert_all(self, addresses: Iterable[int], registry: StackMapRegistry) -> None:
        """Insert live pointers, counting an owner of each; GC first if the chunk is too full.

        A transfer into a frame begins here. None of the pointers is collected until it ends.
        """
        addresses = list(addresses)
        if self._filled() + len(addresses) > CHUNK_SIZE:
            self.gc(registry)
        self.begin_transfer()
        for address in addresses:
            externref.retain(address)
            if not self.insert(address):
                self._keep(address)

    def gc(self, registry: StackMapRegistry, keep: int = 0) -> None:
        """Drop every entry that no native frame of this thread holds, except `keep`.

        A nested call, from a destructor, does nothing.

        Raises
        ------
        BaseException
            The first exception of a destructor; the others are collected all the same.
        """
        if self._collecting:
            return
        self._collecting = True
        try:
            roots = None if self._in_transfer() else self._precise_roots(registry)
            if roots is None:
                self._empty_chunk()
                return
            if keep:
                roots.add(keep)
            self._sweep(roots)
        finally:
            self._collecting = False

    def begin_transfer(self) -> None:
        """Prevent collections while this greenlet, or thread, is at its current place.

        References between Python and native code are in no frame, and a signal handler may collect
        at any moment. They have arrived when native code next calls Python.
        """
        kept = {place for place in self.transfers if not greenlets.is_over(place)}
        self.transfers = frozenset({*kept, greenlets.position()})

    def end_transfer(self) -> None:
        """End the transfer here: native code has run since, so the references have arrived."""
        if self.transfers:
            self.transfers -= {greenlets.position()}

    def transfers_here(self) -> frozenset[greenlets.Place]:
        """Return the transfers, one or none, that began at this greenlet's or thread's place."""
        if not self.transfers:
            return frozenset()
        return self.transfers & {greenlets.position()}

    def end_transfers(self, before: frozenset[greenlets.Place]) -> None:
        """End the transfers that began here or in calls from here, except those in `before`.

        Transfers of other greenlets stay.
        """
        if self.transfers:
            thread, owner, serial, _ = greenlets.position()
            self.transfers = before | {
                place
                for place in self.transfers
                if place[0] not in (0, thread) or place[1] != owner or place[2] < serial
            }

    def has_transfers(self) -> bool:
        """Return whether references are on their way in any thread or greenlet."""
        return not all(map(greenlets.is_over, self.transfers))

    def _in_transfer(self) -> bool:
        return any(map(greenlets.is_at, self.transfers))

    def clear(self) -> None:
        """Drop every entry."""
        self._sweep(set())

    def _release(self) -> None:
        self._header.end = self._start  # a full chunk, for machine code
        self._sweep(set())

    @step
    def _exchange(self, roots: set[int]) -> set[int]:
        # No call in between: any Python code might insert into the set.
        survivors = self._over_approximated
        self._over_approximated = roots
        return survivors

    def _precise_roots(self, registry: StackMapRegistry) -> set[int] | None:
        frames = stack_frames()
        if frames is None:
            return None
        roots = set()
        for return_address, frame_pointer in frames:
            for offset in stack_map(return_address, registry):
                address = _word(frame_pointer + offset)
                if address and not externref.is_live(address):
                    raise ValueError(
                        f"the stack map at return address {return_address:#x} names the slot at "
                        f"{offset}, which holds {address:#x}: no live externref"
                    )
                if address:
                    roots.add(address)
        return roots

    def _keep(self, address: int) -> None:
        if not self._add(address):
            externref.release(address)  # the set has its count

    @step
    def _add(self, address: int) -> bool:
        # No call between test and insertion, or the set may have been replaced.
        if self._state is OPEN and address not in self._over_approximated:
            self._over_approximated.add(address)
            return True
        return False

    def _empty_chunk(self) -> None:
        for address in self._take_chunk():
            self._keep(address)

    @step
    def _take_chunk(self) -> list[int]:
        header, chunk, start = self._header, self._chunk, self._start
        while True:
            filled = self._filled()
            end, where = start + filled * _SLOT, slice(0, filled)
            taken: list[int] = chunk[where]
            # No code has run since the slots were read, so no insertion is lost.
            if header.next == end:
                header.next = start
                return taken

    def _sweep(self, roots: set[int]) -> None:
        for address in roots:
            externref.retain(address)
        survivors = self._exchange(roots)
        old = [*self._take_chunk(), *survivors]
        nothing: set[int] = set()
        if (
            self._state is not OPEN and self._over_approximated is roots
        ):  # closed while they were counted
            self._over_approximated = nothing
            old += roots
        # From here on destructors run, and may insert into the new table.
        externref.release_all(old)
