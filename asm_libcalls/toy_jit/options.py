"""How modules are compiled."""

from __future__ import annotations

__all__ = ["CompileOptions", "compile_options"]


class CompileOptions:
    """What :func:`compile_options` returns.

    Attributes
    ----------
    inline, count_libcalls, listing : bool
        As they were given.
    """

    __slots__ = ("count_libcalls", "inline", "listing")

    def __init__(
        self, inline: bool = False, count_libcalls: bool = False, listing: bool = False
    ) -> None:
        self.inline = inline
        self.count_libcalls = count_libcalls
        self.listing = listing


def compile_options(
    *, inline: bool = False, count_libcalls: bool = False, listing: bool = False
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
    """
    return CompileOptions(bool(inline), bool(count_libcalls), bool(listing))
