"""Damage WebAssembly modules: bytes, instructions, immediates, sections.

    mutated_modules.mutate(random.Random(7), [module, ...])    -> one of them, changed

Changes of bytes mostly make modules that a decoder refuses. Changes of whole instructions mostly
make another valid module.
"""

from __future__ import annotations

import functools
from collections import defaultdict

from asm_libcalls.toy_jit.errors import InvalidModule
from asm_libcalls.toy_jit.frontend import opcodes as op
from asm_libcalls.toy_jit.frontend.decoder import decode_module
from asm_libcalls.toy_jit.frontend.validator import validate_function

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

_INTERESTING = b"\x00\x01\x02\x0b\x0f\x40\x60\x6f\x70\x7c\x7d\x7e\x7f\x80\x81\xfc\xff"


def _alike() -> dict[int, list[int]]:
    """Group the opcodes of one byte by their types: one can stand for another."""
    groups: dict[object, list[int]] = defaultdict(list)
    for opcode, signature in enumerate(op.SIGNATURES[:0x100]):
        if signature is not None:
            groups[signature, opcode in op.ALIGNMENTS].append(opcode)
    groups["local"] = [op.LOCAL_SET, op.LOCAL_TEE, op.LOCAL_GET]
    groups["branch"] = [op.BR, op.BR_IF]
    groups["block"] = [op.BLOCK, op.LOOP]
    groups["alone"] = [op.NOP, op.UNREACHABLE, op.RETURN, op.DROP]
    return {opcode: group for group in groups.values() for opcode in group}


_ALIKE = _alike()


def mutate(random: Random, modules: Sequence[bytes]) -> bytes:
    """Return one of some binary modules, changed; `random` decides everything."""
    chosen = random.choice(modules)
    binary = bytearray(chosen)
    change = random.choice(("bytes", "sections", "instructions", "immediates"))
    for _ in range(random.choice((1, 1, 1, 2, 3, 8))):
        if change == "bytes":
            _bytes(random, binary)
        elif change == "sections":
            binary = _sections(random, binary, random.choice(modules))
        elif change == "instructions":
            _instructions(random, binary, chosen)
        else:
            _immediates(random, binary, chosen)
    return bytes(binary)


def _bytes(random: Random, binary: bytearray) -> None:
    """Change, insert, remove or move some bytes anywhere."""
    size = len(binary)
    if not size:
        return
    at = random.randrange(size)
    length = random.choice((1, 1, 2, 4, 16))
    kind = random.randrange(7)
    if kind == 0:
        binary[at] ^= 1 << random.randrange(8)
    elif kind == 1:
        binary[at] = random.choice(_INTERESTING)
    elif kind == 2:
        binary[at] = random.randrange(256)
    elif kind == 3:
        binary[at:at] = bytes(random.choices(_INTERESTING, k=length))
    elif kind == 4:
        del binary[at : at + length]
    elif kind == 5:
        source = random.randrange(size)
        binary[at : at + length] = binary[source : source + length]
    elif random.random() < 0.2:
        del binary[at:]


@functools.lru_cache(maxsize=64)
def _instruction_offsets(binary: bytes) -> tuple[int, ...]:
    try:
        module = decode_module(binary)
        bodies = [
            validate_function(module, i)
            for i in range(module.imported_functions, len(module.functions))
        ]
    except InvalidModule:
        return ()
    return tuple(body.start + offset for body in bodies for _, _, offset in body.instructions)


def _instructions(random: Random, binary: bytearray, original: bytes) -> None:
    """Put another instruction of the same type where one is."""
    offsets = _instruction_offsets(original)
    if offsets:
        at = random.choice(offsets)
        binary[at] = random.choice(_ALIKE.get(binary[at], [op.NOP]))


def _immediates(random: Random, binary: bytearray, original: bytes) -> None:
    """Change the byte behind an opcode: an index, a constant, an alignment, a block type."""
    offsets = _instruction_offsets(original)
    if offsets:
        at = random.choice(offsets) + random.choice((1, 1, 1, 2))
        if at < len(binary):
            # The high bit says that an LEB128 goes on: it mostly stays.
            keep = 0x80 if random.random() < 0.95 else 0
            binary[at] = binary[at] & keep | random.choice((0, 1, 2, random.randrange(128)))


def _sections(random: Random, binary: bytearray, other: bytes) -> bytearray:
    """Remove, repeat or exchange a section, or take one of another module."""
    mine, theirs = _split(binary), _split(bytearray(other))
    if not mine or not theirs:
        return binary
    at = random.randrange(len(mine))
    kind = random.randrange(4)
    if kind == 0:
        del mine[at]
    elif kind == 1:
        mine.insert(random.randrange(len(mine)), mine[at])
    elif kind == 2:
        same = [section for section in theirs if section[0] == mine[at][0]]
        mine[at] = random.choice(same or theirs)
    else:
        mine.insert(at, random.choice(theirs))
    return binary[:8] + b"".join(mine)


def _split(binary: bytearray) -> list[bytearray]:
    """Return the sections of a module, as far as their sizes make sense."""
    sections = []
    at = 8
    while at < len(binary):
        start, size, shift = at, 0, 0
        at += 1
        while at < len(binary) and shift < 35:
            size |= (binary[at] & 0x7F) << shift
            shift += 7
            at += 1
            if binary[at - 1] < 0x80:
                break
        at += size
        sections.append(binary[start:at])
    return sections
