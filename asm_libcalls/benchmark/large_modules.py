"""Large WebAssembly modules for the benchmark: small ones whose functions are repeated."""

from __future__ import annotations

from asm_libcalls.emitter.eh_frame import uleb128
from asm_libcalls.toy_jit.frontend.reader import Reader

_FUNCTIONS, _CODE = 3, 10  # sections


def repeated(binary: bytes, size: int) -> bytes:
    """Repeat the functions of a module behind its own, until it has about `size` bytes.

    The repeated functions call those that they called before.
    """
    reader = Reader(binary, 8, len(binary))
    sections = []
    while reader.pos < reader.end:
        section_id, section = reader.byte(), reader.sized()
        count = section.u32() if section_id in (_FUNCTIONS, _CODE) else 0
        sections.append((section_id, count, binary[section.pos : section.end]))
    functions = sum(len(content) for _, count, content in sections if count)
    times = 1 + max(0, size - len(binary)) // functions
    result = binary[:8]
    for section_id, count, content in sections:
        whole = uleb128(count * times) + content * times if count else content
        result += bytes([section_id]) + uleb128(len(whole)) + whole
    return result
