"""The options of compiling a module."""

from __future__ import annotations

from asm_libcalls.toy_jit.frontend.budget import DEFAULTS
from asm_libcalls.toy_jit.store_limits import checked_limit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class CompileOptions:
    """The result of :func:`compile_options`, which describes the attributes."""

    __slots__ = ("count_libcalls", "inline", "limits", "listing")

    def __init__(
        self,
        inline: bool = False,
        count_libcalls: bool = False,
        listing: bool = False,
        limits: dict[str, int | None] | None = None,
    ) -> None:
        self.inline = inline
        self.count_libcalls = count_libcalls
        self.listing = listing
        self.limits = limits or {}  # by name

    def as_dict(self) -> dict[str, Any]:
        """Return the attributes, by name; `limits` has all limits."""
        attributes: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        attributes["limits"] = dict.fromkeys(DEFAULTS) | self.limits
        return attributes


def compile_options(
    *,
    inline: bool = False,
    count_libcalls: bool = False,
    listing: bool = False,
    max_code_size: int | None = None,
    max_stack_map_slots: int | None = None,
    max_locals: int | None = None,
) -> CompileOptions:
    """Make options for :class:`~asm_libcalls.toy_jit.Module`.

    Parameters
    ----------
    inline : bool
        Emit instructions of the CPU instead of libcalls where it has them: for 64-bit shifts and
        divisions and, with SSE4.1, for rounding, also of vector lanes.
    count_libcalls : bool
        Count the calls of each libcall, for :meth:`Module.libcall_counts`. All instances of a
        module share the counters. They are exact if one thread runs the instances.
    listing : bool
        Note where the code of each instruction begins, for
        :func:`asm_libcalls.toy_jit.link.listing.listing`.
    max_code_size : int, optional
        Maximum machine code, in bytes. By default 4 MiB and 256 for each byte of the module.
    max_stack_map_slots : int, optional
        Maximum number of slots in all stack maps. By default 2**20 and 16 for each byte of the
        module.
    max_locals : int, optional
        Maximum number of locals of all functions. By default 2**20 and 16 for each byte of the
        module.

    Raises
    ------
    TypeError, ValueError
        A limit is not an integer, or negative.
    """
    limits = {
        "max_code_size": max_code_size,
        "max_stack_map_slots": max_stack_map_slots,
        "max_locals": max_locals,
    }
    for name, limit in limits.items():
        limits[name] = checked_limit(limit, f"compile_options(): {name}")
    return CompileOptions(bool(inline), bool(count_libcalls), bool(listing), limits)
