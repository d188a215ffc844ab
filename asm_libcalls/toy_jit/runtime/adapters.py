"""Adapters: C functions that move arguments from where C passes them to slots, and call the code.

Functions with the same parameters have the same adapter code. Each adapter has two image slots, for
the vmctx and for the address of the compiled code. So adapters are assembled several at a time,
and the adapter of a collected function is used again.
"""

from __future__ import annotations

from functools import partial

from asm_libcalls.calling_convention import CALLEE_SAVED_SIZE, FLOATS, STACK, assign
from asm_libcalls.emitter import code_names, pages
from asm_libcalls.emitter.eh_frame import instructions
from asm_libcalls.emitter.image import Reference, Routine, link
from asm_libcalls.emitter.stencils import Part, compose
from asm_libcalls.native.pooled import Pooled
from asm_libcalls.signatures import VALUE_TYPES
from asm_libcalls.steps import HAS_GIL
from asm_libcalls.toy_jit.codegen.stencils.entry import CODE_SLOT, VMCTX_SLOT
from asm_libcalls.toy_jit.codegen.templates import STENCILS
from asm_libcalls.toy_jit.frontend.module import F32, F64, I32, I64
from asm_libcalls.toy_jit.runtime.slots import fill_slots
from asm_libcalls.x86_64.stencils.stack_effects import frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asm_libcalls.emitter.code_names import Function
    from asm_libcalls.emitter.image import Image
    from asm_libcalls.emitter.pages import LoadedImage
    from asm_libcalls.signatures import ValueType

_PER_IMAGE = 16
_STACK_ARGUMENTS = 16  # from rbp: behind the caller's rbp and the return address
_OWN_SLOTS = (VMCTX_SLOT, CODE_SLOT)
_TYPES = {
    valtype: VALUE_TYPES[name]
    for valtype, name in ((I32, "i32"), (I64, "i64"), (F32, "f64"), (F64, "f64"))
}
"""By value type: the one as which it is moved."""

_free: dict[tuple[ValueType, ...], list[tuple[LoadedImage, str]]] = {}


class Adapter(Pooled):
    """An adapter, in use for one function as long as this object exists.

    `params` are the value types of the function's parameters, all of them numbers; `vmctx` and
    `code` the addresses of its VMContext and compiled code.
    """

    __slots__ = ()

    def __init__(self, params: bytes, vmctx: int, code: int) -> None:
        types = tuple(map(_TYPES.__getitem__, params))
        super().__init__(_free.setdefault(types, []), partial(_make_more, types))
        loaded, name = self.item
        self.address = loaded.routine(name)  # the adapter's C address
        loaded.set_slot(f"{VMCTX_SLOT} {name}", vmctx)
        loaded.set_slot(f"{CODE_SLOT} {name}", code)


def _make_more(types: tuple[ValueType, ...]) -> None:
    parts = _parts(types)
    pattern = compose("adapter", parts)
    image = link([_numbered(pattern, str(i)) for i in range(_PER_IMAGE)])
    loaded = pages.load(image, announced=False, owned=True)
    code_names.announce(loaded.address, partial(_functions, image, loaded.address, types, parts))
    fill_slots(loaded)
    _free[types] += [(loaded, str(i)) for i in range(_PER_IMAGE)]
    loaded.keep()


def _parts(types: tuple[ValueType, ...]) -> list[Part]:
    # rsp is a multiple of 16 less 8 when the registers are pushed.
    size = -(-8 * max(1, len(types)) // 16) * 16 + (CALLEE_SAVED_SIZE % 16)
    parts = [Part(STENCILS["adapter.begin"], {"frame": size})]
    for i, (value_type, place) in enumerate(zip(types, assign(types).places, strict=True)):
        numbers = {"offset": 8 * i}
        if place.bank == STACK:
            name = "i32.stack" if value_type.name == "i32" else "i64.stack"
            numbers["source"] = _STACK_ARGUMENTS + 8 * place.number
        else:
            bank = "float" if place.bank == FLOATS else value_type.name
            name = f"{bank}.{place.number}"
        parts.append(Part(STENCILS[f"adapter.{name}"], numbers))
    if not HAS_GIL:
        parts.append(Part(STENCILS["adapter.store"]))
    parts.append(Part(STENCILS["adapter.end"]))
    return parts


def _functions(
    image: Image, address: int, types: tuple[ValueType, ...], parts: list[Part]
) -> list[Function]:
    names = ", ".join(each.name for each in types)
    call_frames = instructions(frames(parts))
    return [
        (address + at, size, f"asm_libcalls::adapter ({names})", call_frames)
        for at, size in image.routines.values()
    ]


def _numbered(pattern: Routine, name: str) -> Routine:
    references = tuple(
        Reference(r.offset, f"{r.symbol} {name}", True) if r.symbol in _OWN_SLOTS else r
        for r in pattern.references
    )
    return Routine(name, pattern.code, pattern.size, references)
