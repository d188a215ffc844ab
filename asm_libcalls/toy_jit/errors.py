"""Exceptions for modules that are refused, or cannot be linked or deserialized.

Messages begin with the wording of the spec's reference interpreter where it has one, because the
official test suite compares with it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class InvalidModule(Exception):
    """The bytes are not a module that can be instantiated.

    The class itself means that a module is well-formed but not valid (spec 2.0, section 3).

    Parameters
    ----------
    what : str
        The rule that is broken.
    offset : int or None
        Where in the module, in bytes; None if the error has no place.
    """

    def __init__(self, what: str, offset: int | None = None) -> None:
        super().__init__(what, offset)  # both, so that the exception pickles
        self.what = what
        self.offset = offset

    def __str__(self) -> str:
        return self.what if self.offset is None else f"{self.what}: at byte {self.offset:#x}"


class MalformedModule(InvalidModule):
    """The bytes do not follow the binary format (spec 2.0, section 5)."""


class LimitExceeded(InvalidModule):
    """The module is valid, but larger than a limit allows (spec 2.0, appendix A.2).

    Limits on compiling are fixed, or set by :func:`~asm_libcalls.toy_jit.compile_options`. Limits
    on instances are set by :class:`~asm_libcalls.toy_jit.StoreLimits`. The message names the limit.
    """


class UnsupportedFeature(InvalidModule):
    """The module uses a proposal that is not part of WebAssembly 2.0, or not supported yet.

    Parameters
    ----------
    what : str
        The feature, in words for the message.
    offset : int
        Where in the module, in bytes.
    proposal : str
        The proposal's name: that of its repository, such as ``"threads"`` or ``"memory64"``.
    """

    def __init__(self, what: str, offset: int, proposal: str) -> None:
        super().__init__(what, offset)
        self.args = (what, offset, proposal)  # so that the exception pickles
        self.proposal = proposal


class DeserializeError(Exception):
    """The bytes are no serialized module, or damaged, or for another version, CPU or options.

    Compile the WebAssembly again.
    """


class LinkError(Exception):
    """An import is missing, or not what the module declares.

    Attributes
    ----------
    missing : tuple of ImportType
        All imports that are missing; the message lists 50 at most.
    """

    missing: tuple[Any, ...] = ()
