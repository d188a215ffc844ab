"""Tables of unsupported proposals, by the byte of the binary format that each one adds.

Proposals have the names of their repositories at github.com/WebAssembly. A byte that no proposal
here uses is refused in the specification's words, as an illegal opcode or a malformed type.
"""

from __future__ import annotations

from asm_libcalls.toy_jit.errors import UnsupportedFeature

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

Feature = tuple[str, str]
"""The feature in words for a message, and the proposal's name."""

_THREADS = "threads"
_MEMORY64 = "memory64"
_EXCEPTIONS = "exception-handling"
_TAIL_CALL = "tail-call"
_GC = "gc"
_FUNCTION_REFERENCES = "function-references"
_STACK_SWITCHING = "stack-switching"
_SHARED_EVERYTHING = "shared-everything-threads"
_MULTI_MEMORY = "multi-memory"

COMPONENT: Feature = ("a component", "component-model")
SECOND_MEMORY: Feature = ("a second memory (multiple memories)", _MULTI_MEMORY)
MEMORY_OF_ACCESS: Feature = ("a load or store that names its memory", _MULTI_MEMORY)
TABLE_INITIALIZER: Feature = ("a table with an initial value", _FUNCTION_REFERENCES)

SECTIONS: dict[int, Feature] = {13: ("a tag section (exceptions)", _EXCEPTIONS)}
"""By section id."""

EXTERNAL_KINDS: dict[int, Feature] = {4: ("an imported or exported tag (exceptions)", _EXCEPTIONS)}
"""By the kind of an import or export."""

TYPE_FORMS: dict[int, Feature] = {
    0x4E: ("a group of recursive types", _GC),
    0x4F: ("a final subtype", _GC),
    0x50: ("a subtype", _GC),
    0x5D: ("a continuation type", _STACK_SWITCHING),
    0x5E: ("an array type", _GC),
    0x5F: ("a struct type", _GC),
    0x65: ("a shared type", _SHARED_EVERYTHING),
}
"""By the first byte of an entry of the type section."""

HEAP_TYPES: dict[int, Feature] = {
    0x65: ("a reference to shared things", _SHARED_EVERYTHING),
    0x68: ("the type contref", _STACK_SWITCHING),
    0x69: ("the type exnref (exceptions)", _EXCEPTIONS),
    0x6A: ("the type arrayref", _GC),
    0x6B: ("the type structref", _GC),
    0x6C: ("the type i31ref", _GC),
    0x6D: ("the type eqref", _GC),
    0x6E: ("the type anyref", _GC),
    0x71: ("the type nullref", _GC),
    0x72: ("the type nullexternref", _GC),
    0x73: ("the type nullfuncref", _GC),
    0x74: ("the type nullexnref (exceptions)", _EXCEPTIONS),
    0x75: ("the type nullcontref", _STACK_SWITCHING),
}
"""By the byte of an abstract heap type."""

VALUE_TYPES: dict[int, Feature] = {
    **HEAP_TYPES,
    0x63: ("a typed reference (ref null ...)", _FUNCTION_REFERENCES),
    0x64: ("a typed reference (ref ...)", _FUNCTION_REFERENCES),
}
"""By the first byte of a value type."""

# By flag. Of several flags, the first in this order is named.
_PAGE_SIZE = (8, ("a memory with a page size of its own", "custom-page-sizes"))
MEMORY_FLAGS: tuple[tuple[int, Feature], ...] = (
    (2, ("a shared memory", _THREADS)),
    (4, ("a 64-bit memory", _MEMORY64)),
    _PAGE_SIZE,
)
"""By the flag in the limits of a memory."""

TABLE_FLAGS: tuple[tuple[int, Feature], ...] = (
    (2, ("a shared table", _SHARED_EVERYTHING)),
    (4, ("a table with 64-bit indices", _MEMORY64)),
)
"""By the flag in the limits of a table."""

OPCODES: dict[int, Feature] = {
    0x06: ("try (legacy exceptions)", _EXCEPTIONS),
    0x07: ("catch (legacy exceptions)", _EXCEPTIONS),
    0x08: ("throw (exceptions)", _EXCEPTIONS),
    0x09: ("rethrow (legacy exceptions)", _EXCEPTIONS),
    0x0A: ("throw_ref (exceptions)", _EXCEPTIONS),
    0x12: ("return_call (a tail call)", _TAIL_CALL),
    0x13: ("return_call_indirect (a tail call)", _TAIL_CALL),
    0x14: ("call_ref", _FUNCTION_REFERENCES),
    0x15: ("return_call_ref (a tail call)", _FUNCTION_REFERENCES),
    0x18: ("delegate (legacy exceptions)", _EXCEPTIONS),
    0x19: ("catch_all (legacy exceptions)", _EXCEPTIONS),
    0x1F: ("try_table (exceptions)", _EXCEPTIONS),
    0xD3: ("ref.eq", _GC),
    0xD4: ("ref.as_non_null", _FUNCTION_REFERENCES),
    0xD5: ("br_on_null", _FUNCTION_REFERENCES),
    0xD6: ("br_on_non_null", _FUNCTION_REFERENCES),
    **dict.fromkeys(range(0xE0, 0xE7), ("an instruction on continuations", _STACK_SWITCHING)),
    0xFB: ("an instruction on structs, arrays or i31", _GC),
    0xFE: ("an atomic instruction", _THREADS),
    0x112: ("memory.discard", "memory-control"),
    **dict.fromkeys(range(0x113, 0x117), ("128-bit arithmetic", "wide-arithmetic")),
}
"""By opcode, numbered as in :mod:`~asm_libcalls.toy_jit.frontend.opcodes`."""

VECTOR_OPCODES: dict[int, Feature] = dict.fromkeys(
    range(0x100, 0x114), ("an instruction on vectors with relaxed results", "relaxed-simd")
)
"""By the number behind the prefix 0xFD."""


def refusal(feature: Feature, offset: int) -> UnsupportedFeature:
    """Make the error for a feature that the byte at `offset` needs."""
    what, proposal = feature
    verb = "needs the proposal" if proposal != "component-model" else "follows the proposal"
    return UnsupportedFeature(f"{what} {verb} {proposal}, which is not supported", offset, proposal)


def check(features: Mapping[int, Feature], byte: int, offset: int) -> None:
    """Raise UnsupportedFeature if the byte at `offset` belongs to one of `features`."""
    if byte in features:
        raise refusal(features[byte], offset)
