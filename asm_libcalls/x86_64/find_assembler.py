"""Imports PeachPy for the first time, or says why it cannot be used."""

from __future__ import annotations

from asm_libcalls.emitter.availability import Unavailable


def check_assembler() -> str:
    """Import PeachPy and return its name and version, or raise Unavailable."""
    import warnings

    try:
        # Without .pyc files, Python warns about invalid escape sequences in PeachPy. The import
        # must not fail in a program that turns warnings into errors.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import peachpy
            import peachpy.x86_64
            import peachpy.x86_64.function
    except ImportError as error:
        raise Unavailable(
            f"PeachPy is not installed, or not for this Python ({error}); install it from Debian's "
            "python3-peachpy or from https://github.com/Maratyszcza/PeachPy (the package index has "
            'another one, for Python 2), or in a checkout with "make run"'
        ) from error
    except Exception as error:  # with a broken assembler the fallback must serve
        raise Unavailable(f"PeachPy is broken: {type(error).__name__}: {error}") from error
    return f"PeachPy {getattr(peachpy, '__version__', '')}".strip()


def require_assembler() -> None:
    """Import PeachPy, or raise an ImportError that says how to get it."""
    try:
        check_assembler()
    except Unavailable as reason:
        raise ImportError(f"asm_libcalls.x86_64.assembler: {reason}", name="peachpy") from reason
