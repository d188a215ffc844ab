"""Handlers of vector instructions, and of others that differ in functions with vectors.

See :mod:`asm_libcalls.toy_jit.codegen.handlers`, which has the others. An instruction that is one
stencil of its name needs no handler of its own.
"""

from __future__ import annotations

from functools import cache

from asm_libcalls.toy_jit.codegen.arithmetic import simple
from asm_libcalls.toy_jit.codegen.encodings import NO_INDEX
from asm_libcalls.toy_jit.codegen.function_code import constant
from asm_libcalls.toy_jit.codegen.handlers import local_set, local_tee, make_handlers
from asm_libcalls.toy_jit.codegen.registers import ACCUMULATORS
from asm_libcalls.toy_jit.codegen.stencils.direct_vectors import DIRECT, SWAPPED
from asm_libcalls.toy_jit.codegen.stencils.vectors import NARROWED
from asm_libcalls.toy_jit.codegen.templates import INSTRUCTIONS, has_avx
from asm_libcalls.toy_jit.frontend import opcodes as op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from asm_libcalls.toy_jit.codegen.function_code import Place
    from asm_libcalls.toy_jit.codegen.vectors import VectorEmitter

    Handler = Callable[[VectorEmitter, Any], object]

_FIRST, _SECOND, _THIRD = ACCUMULATORS["v"]


@cache
def make_vector_handlers(inline: bool) -> list[Handler]:
    """Return the handlers by opcode, for functions with vectors.

    With `inline`, the CPU's instruction rounds all lanes, instead of a libcall for each lane.
    """
    handlers: list[Handler] = [*make_handlers(inline)]
    handlers += [
        _handler(name or "", opcode, inline)
        for opcode, name in enumerate(op.NAMES[op.VECTORS :], op.VECTORS)
    ]
    handlers[op.LOCAL_SET] = _set(local_set)
    handlers[op.LOCAL_TEE] = _set(local_tee)
    return handlers


def _handler(name: str, opcode: int, inline: bool) -> Handler:
    lanes, _, verb = name.partition(".")
    if verb in _HANDLERS:
        return _HANDLERS[verb]
    if verb in ("ceil", "floor", "trunc", "nearest") and not inline:
        return _round(lanes, verb)
    if verb in ("shl", "shr_s", "shr_u"):
        return _shift(name, opcode)
    if name in DIRECT:
        return _direct(name)
    if opcode in op.ALIGNMENTS:
        return _access(name, opcode)
    if opcode in op.LANES:
        return _extract(name, lanes) if verb.startswith("extract") else _replace(name, lanes)
    return simple(name, opcode)


def _direct(name: str) -> Handler:
    is_swapped = name in SWAPPED
    predicate = int(DIRECT[name].partition(" ")[2] or 0)

    def emit(c: VectorEmitter, immediate: Any) -> None:
        right, left = c.pop_two()
        if is_swapped:
            left, right = right, left
        c.operate(name, left, right, predicate)

    return emit


def _constant(c: VectorEmitter, immediate: Any) -> None:
    c.push(("vconst", immediate))


def _condition(condition: str) -> Handler:
    """Make the handler of an instruction that leaves its result in the flags."""

    def emit(c: VectorEmitter, immediate: Any) -> None:
        c.take((_FIRST,))
        c.emit(op.NAMES[c.current[0]] or "")
        c.push_condition(condition)

    return emit


def _shift(name: str, opcode: int) -> Handler:
    by_register = simple(name, opcode)
    template = name + ".const"
    most = NARROWED[name.partition(".")[0]]

    def emit(c: VectorEmitter, immediate: Any) -> None:
        if c.stack[-1][0] != "const" or template not in INSTRUCTIONS:
            by_register(c, immediate)
            return
        count = c.pop()[1] & most
        source = c.pop()
        if has_avx():
            c.produce(template, right=c.in_register(source, _SECOND), value=count)
        else:
            to = c.vector_register()
            c.move((to,), source)
            c.form(template, right=to, value=count)
            c.push_register(to)

    return emit


def _set(handler: Handler) -> Handler:
    """Make the handler of an instruction that sets a local.

    If the previous instruction made the vector, it is changed to write the local's register.
    """

    def emit(c: VectorEmitter, immediate: Any) -> None:
        local = c.locals[immediate]
        kind = local[0]
        if kind[0] != "v":
            handler(c, immediate)
            return
        value = c.stack[-1]
        if (
            kind != "vslot"
            and value[0] in c.held
            and local not in c.stack[c.flushed :]
            and c.retarget(kind)
        ):
            c.pop()
            c.push(local)
        handler(c, immediate)
        c.set_local(local, value[0])

    return emit


# -- memory


def _access(name: str, opcode: int) -> Handler:
    verb = name.partition(".")[2]
    size = 1 << op.ALIGNMENTS[opcode]
    stores, has_lane = verb.startswith("store"), opcode in op.LANES
    any_target = name in INSTRUCTIONS  # a single instruction of the CPU

    def emit(c: VectorEmitter, immediate: Any) -> None:
        offset, lane = immediate if has_lane else (immediate, None)
        c.make_room(2 if stores or has_lane else 1)
        if name == "v128.store":
            value = c.in_register(c.pop(), _SECOND)
        elif stores or has_lane:
            c.move((_FIRST,), c.pop())
        index, rest = c.address(c.pop(), offset, size)
        if name == "v128.store":
            c.form(name, value, index=index, offset=rest)
        elif any_target:
            c.produce(name, index=index, offset=rest)
        else:
            c.move(("rax",), constant(0) if index == NO_INDEX else (index,))
            c.emit(name, rest)
            if lane is not None:
                c.code[-1] = lane
            if not stores:
                c.push_register(_FIRST)

    return emit


# -- lanes


def _extract(name: str, lanes: str) -> Handler:
    signed = name.endswith("_s")
    template = {"f64x2": "f32x4.extract_lane"}.get(lanes, name[:-1] + "u" if signed else name)
    result = "xmm0" if lanes[0] == "f" else "rax"

    def emit(c: VectorEmitter, lane: int) -> None:
        c.take((_FIRST,))
        c.emit(template)
        c.code[-1] = (68, 238)[lane] if lanes == "f64x2" else lane
        if signed:
            extension = "i32.extend8_s" if lanes == "i8x16" else "i32.extend16_s"
            c.form(extension, "rax", right="rax")
        c.push_register(result)

    return emit


def _replace(name: str, lanes: str) -> Handler:
    value = "xmm0" if lanes[0] == "f" else "rax"

    def emit(c: VectorEmitter, lane: int) -> None:
        c.take((_FIRST, value))
        if lanes == "f64x2":
            c.emit(f"{name}.{lane}")
        else:
            c.emit(name)
            c.code[-1] = lane << 4 if lanes == "f32x4" else lane
        c.push_register(_FIRST)

    return emit


def _round(lanes: str, verb: str) -> Handler:
    """Make the handler of an instruction that calls a libcall for each lane."""
    scalar, size = lanes[:3], int(lanes[1:3]) // 8
    libcall = f"{scalar}_{verb}"

    def emit(c: VectorEmitter, immediate: Any) -> None:
        height = len(c.stack) - 1
        c.spill(height)
        c.flush_registers(height)
        c.save_locals()
        c.pop()
        offset = c.slots[height][1]
        for at in range(offset, offset + 16, size):
            c.move(("xmm0",), ("slot", at))
            c.call_libcall(libcall)
            c.emit(f"store.{scalar}", at)
        c.restore_locals()
        c.push(("vslot", offset))

    return emit


# -- shuffles

_UNPACKED = {
    bytes(first + lane * size + i + 16 * other for lane in range(8 // size) for other in (0, 1)
          for i in range(size)): f"vector.unpack_{part}_{letter}"
    for size, letter in ((1, "b"), (2, "w"), (4, "d"), (8, "q"))
    for first, part in ((0, "low"), (8, "high"))
}  # fmt: skip
"""By their lanes: the shuffles that alternate lanes of both vectors."""


def _wide_lanes(lanes: bytes, size: int) -> list[int] | None:
    """Return the lanes of a shuffle as lanes of `size` bytes, or None if it splits such lanes."""
    wide = []
    for i in range(0, 16, size):
        first = lanes[i]
        if first % size or lanes[i : i + size] != bytes(range(first, first + size)):
            return None
        wide.append(first // size)
    return wide


def _order(lanes: list[int]) -> int:
    """Return the immediate of pshufd and shufps."""
    return sum((lane & 3) << 2 * i for i, lane in enumerate(lanes))


def _shuffle(c: VectorEmitter, lanes: bytes) -> None:
    left, right = c.stack[-2:]
    swapped = bytes(lane ^ 16 for lane in lanes)
    if left == right or max(lanes) < 16 or min(lanes) > 15:
        c.pop(), c.pop()
        place = right if min(lanes) > 15 else left
        _shuffle_one(c, bytes(lane & 15 for lane in lanes), place)
    elif lanes in _UNPACKED or swapped in _UNPACKED:
        c.pop(), c.pop()
        if lanes in _UNPACKED:
            c.operate(_UNPACKED[lanes], left, right)
        else:
            c.operate(_UNPACKED[swapped], right, left)
    else:
        c.take((_FIRST, _SECOND))
        _shuffle_two(c, lanes)
        c.push_register(_FIRST)


def _shuffle_two(c: VectorEmitter, lanes: bytes) -> None:
    dwords, words = _wide_lanes(lanes, 4), _wide_lanes(lanes, 2)
    if dwords and max(dwords[:2]) < 4 <= min(dwords[2:]):
        c.emit("vector.shuffle_ps")
        c.code[-1] = _order(dwords)
    elif words and all(word & 7 == i for i, word in enumerate(words)):
        c.emit("vector.blend")
        c.code[-1] = sum((word > 7) << i for i, word in enumerate(words))
    elif lanes == bytes(range(lanes[0], lanes[0] + 16)):
        c.emit("vector.align")
        c.code[-5] = lanes[0]
    else:
        for register, bit in (("v0", 0), (_THIRD, 16)):
            # Lanes of the other vector get the highest bit, for which pshufb gives 0.
            mask = bytes(lane & 15 if lane & 16 == bit else 0x80 for lane in lanes)
            c.move((register,), ("vconst", int.from_bytes(mask, "little")))
        c.emit("vector.shuffle_two")


def _shuffle_one(c: VectorEmitter, lanes: bytes, place: Place) -> None:
    dwords = _wide_lanes(lanes, 4)
    if dwords:
        register = c.in_register(place, _SECOND)
        c.produce("vector.shuffle_d", right=register, value=_order(dwords))
    else:
        c.operate("vector.shuffle", place, ("vconst", int.from_bytes(lanes, "little")))


_HANDLERS: dict[str, Handler] = {
    "const": _constant, "shuffle": _shuffle,
    "any_true": _condition("nz"), "all_true": _condition("z"),
}  # fmt: skip
