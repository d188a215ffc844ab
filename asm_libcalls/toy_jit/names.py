"""The name section (spec 2.0, appendix A.4): what the functions are called in the source."""

from __future__ import annotations

from asm_libcalls.toy_jit.errors import InvalidModule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asm_libcalls.toy_jit.module import Module
    from asm_libcalls.toy_jit.reader import Reader

__all__ = ["read"]

MODULE_NAME, FUNCTION_NAMES = 0, 1  # subsections


def read(reader: Reader, module: Module) -> None:
    """Read the names of the module and of its functions into `module`, or none of them.

    A custom section cannot make a module invalid (spec 2.0, section 5.5.3): a malformed one is as
    good as none.
    """
    try:
        name, function_names = _read(reader)
    except InvalidModule:
        return
    module.name = name
    module.function_names = function_names


def _read(reader: Reader) -> tuple[str | None, dict[int, str]]:
    name = None
    function_names = {}
    while reader.pos < reader.end:
        subsection_id = reader.byte()
        subsection = reader.sized()
        if subsection_id == MODULE_NAME:
            name = subsection.name()
        elif subsection_id == FUNCTION_NAMES:
            for _ in range(subsection.length()):
                index = subsection.u32()
                function_names[index] = subsection.name()
    return name, function_names
