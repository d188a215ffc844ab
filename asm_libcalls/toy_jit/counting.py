"""How often compiled code calls each libcall: a stub before each of them, that counts."""

from __future__ import annotations

import ctypes
from functools import partial

from asm_libcalls.binding import default_binding
from asm_libcalls.resources import Resource
from asm_libcalls.toy_jit.stencils.entry import COUNTER_SLOT, LIBCALL_SLOT
from asm_libcalls.toy_jit.templates import STENCILS
from asm_libcalls.x86_64 import pages
from asm_libcalls.x86_64.image import Reference, Routine, link
from asm_libcalls.x86_64.stencils import Part, compose

__all__ = ["LibcallCounts"]


class LibcallCounts:
    """Counters of libcalls, and the C addresses that count.

    Attributes
    ----------
    addresses : dict of str to int
        What to call in place of each libcall, by its name.
    """

    def __init__(self) -> None:
        libcalls = default_binding().libcalls
        self._counters = (ctypes.c_uint64 * len(libcalls))()
        pattern = compose("count", [Part(STENCILS["count"])])
        loaded = pages.load(link(_numbered(pattern, name) for name in libcalls))
        self._pages = Resource(partial(pages.unload, loaded))
        start = ctypes.addressof(self._counters)
        for i, (name, libcall) in enumerate(libcalls.items()):
            loaded.set_slot(f"{COUNTER_SLOT} {name}", start + i * ctypes.sizeof(ctypes.c_uint64))
            loaded.set_slot(f"{LIBCALL_SLOT} {name}", libcall.address)
        self.addresses = {name: loaded.routine(name) for name in libcalls}

    def counts(self) -> dict[str, int]:
        """Return how often each libcall was called, by its name."""
        return dict(zip(self.addresses, self._counters, strict=True))


def _numbered(pattern: Routine, name: str) -> Routine:
    references = tuple(
        Reference(r.offset, f"{r.symbol} {name}", r.is_slot) for r in pattern.references
    )
    return Routine(name, pattern.code, pattern.size, references)
