"""How modules are compiled."""

from __future__ import annotations

from asm_libcalls.toy_jit.limits import checked_limit

__all__ = ["CompileOptions", "compile_options"]


class CompileOptions:
    """What :func:`compile_options` returns.

    Attributes
    ----------
    inline, count_libcalls, listing : bool
        As they were given.
    limits : dict of str to int or None
        The limits, by their names.
    """

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
        self.limits = limits or {}


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
        Emit the CPU's own instructions instead of calling the libcalls where it has them: for
        64-bit shifts and divisions and, with SSE4.1, for rounding, of lanes of vectors too.
    count_libcalls : bool
        Count how often each libcall is called: :meth:`Module.libcall_counts` tells. All instances
        of a module share the counters, which are exact where one thread runs them.
    listing : bool
        Note where the code of each instruction begins, for
        :func:`asm_libcalls.toy_jit.link.listing.listing`.
    max_code_size : int, optional
        The bytes of machine code that a module may become: by default 4 MiB and 256 for each of
        its bytes.
    max_stack_map_slots : int, optional
        The slots of references, over all places where an externref may be collected: by default
        2**20 and 16 for each byte of the module.
    max_locals : int, optional
        The locals of all functions: by default 2**20 and 16 for each byte of the module.

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
