"""How modules are compiled."""

from __future__ import annotations

__all__ = ["CompileOptions", "compile_options"]


class CompileOptions:
    """What :func:`compile_options` returns.

    Attributes
    ----------
    inline : bool
    """

    __slots__ = ("inline",)

    def __init__(self, inline: bool = False) -> None:
        self.inline = inline


def compile_options(*, inline: bool = False) -> CompileOptions:
    """Make options for :class:`~asm_libcalls.toy_jit.Module`.

    Parameters
    ----------
    inline : bool
        Emit the CPU's own instruction for 64-bit shifts, instead of calling the libcalls.
    """
    return CompileOptions(bool(inline))
