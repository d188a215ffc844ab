"""Builtins for the exports that C's calling convention cannot express: references, vectors, tuples.

Their machine code (``x86_64/python_functions/slot_stencils.py``) converts arguments and results as
``values.py`` does, and makes and drops the boxes of externrefs as ``externref_boxes.py`` does.
"""

from __future__ import annotations

import ctypes
import sys
from types import CellType

from asm_libcalls.emitter import libc
from asm_libcalls.native import process
from asm_libcalls.native.call_slot import callable_class
from asm_libcalls.runtime import externref_boxes, funcref, step_lock
from asm_libcalls.runtime.externref import VMExternRef
from asm_libcalls.runtime.funcref import FuncRef
from asm_libcalls.steps import HAS_GIL
from asm_libcalls.toy_jit.runtime.slots import ENTER as ENTRY
from asm_libcalls.x86_64.trampolines import ENTER, ENTER_HOLDING_GIL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from asm_libcalls.emitter.pages import LoadedImage
    from asm_libcalls.x86_64.python_functions.slot_shapes import References

ROUTINES = (
    ("spare_box", "spare_box"),
    ("make_box", "make_box"),
    ("drop_box", "drop_box_routine"),
    ("find_function", "find_function"),
)
"""The routines of references, each with its stencil."""

WITHOUT_GIL = (("make_box", "make_box_in_step"), ("drop_box", "drop_box_in_step"))
"""Those that replace routines of the same names, which they call, in builds without the GIL."""

_made: list[tuple[Any, References, LoadedImage]] = []
"""The maker of functions, what its code needs of Python, and the code of that, once it is made."""


def slot_function(
    address: int,
    parameters: tuple[str, ...],
    results: tuple[str, ...],
    *,
    function_class: type,
    name: str,
    text: str,
    module: str,
    slow: Callable[..., Any],
    release_gil: bool,
) -> Any:
    """Make a builtin that calls an anyfunc's code with slots; None where Python must do it.

    `address` is that of the ``VMCallerCheckedAnyfunc``; the types have WebAssembly's names. Objects
    of `function_class`, a FuncRef, are arguments and results too. `name`, `text`, `module` and
    `slow` are as in ``FunctionObjects.make``; `slow` keeps the instance alive.
    """
    maker = process.interface.function_maker()
    if isinstance(maker, str) or sys.is_finalizing():
        return None
    from asm_libcalls.x86_64.python_functions.object_layouts import Unsupported
    from asm_libcalls.x86_64.python_functions.slot_shapes import SlotShape

    try:
        if not _made:
            _made.append((maker, *_references(maker, function_class)))
        _, references, loaded = _made[0]
        loaded.keep()
        enter = ENTER if release_gil else ENTER_HOLDING_GIL
        shape = SlotShape(parameters, results, enter, ENTRY, references)
        code = maker.code_of(shape)
        return maker.objects.make(code, address, len(parameters), slow, name, text, module)
    except (OSError, Unsupported):  # a process may be denied new executable pages at any time
        return None


def remember_keeper(function: Any, instance: object) -> None:
    """Let a slot function take functions of an instance that its own instance keeps alive."""
    if _made:
        _made[0][0].objects.remember_keeper(function.__self__, instance)


def _references(maker: Any, function_class: type) -> tuple[References, LoadedImage]:
    from asm_libcalls.x86_64.python_functions.slot_shapes import References

    objects: dict[str, Any] = {
        "externref_class": VMExternRef,
        "funcref_class": FuncRef,
        "callable_class": callable_class(function_class),
        "free_boxes": externref_boxes.free,
        "functions": vars(funcref.live)["data"],
        "from_raw": FuncRef.from_raw,
        "release_box": externref_boxes.release,
    }
    for each in objects.values():
        libc.never_free(each)  # code has its address
    members = {
        "externref_member": maker.member_offset(VMExternRef, "_address"),
        "funcref_member": maker.member_offset(FuncRef, "_address"),
        "instance_member": maker.member_offset(FuncRef, "_instance"),
        "cell_contents": maker.member_offset(CellType, "cell_contents"),
    }
    addresses = {name: id(each) for name, each in objects.items()}
    addresses["spare_boxes"] = ctypes.addressof(externref_boxes.spare)
    references = References(addresses, members)
    assert process.image is not None
    step_lock.share(process.image)
    routines = ROUTINES if HAS_GIL else ROUTINES + WITHOUT_GIL
    slots = {**references.slots(), "unbox": "unbox_64", "drop_box": "drop_box_routine"}
    titles = {stencil: routine for routine, stencil in routines}
    loaded: LoadedImage = maker.load_stencils(titles, slots, **members)
    addresses.update((routine, loaded.routine(stencil)) for routine, stencil in routines)
    return references, loaded
