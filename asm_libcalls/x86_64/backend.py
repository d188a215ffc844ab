"""Loads the x86-64 backend: the routines that this CPU can run, on executable pages."""

from __future__ import annotations

import os

from asm_libcalls.emitter.availability import Unavailable, check_machine, warn
from asm_libcalls.signatures import c_types
from asm_libcalls.steps import HAS_GIL
from asm_libcalls.x86_64.trampolines import (
    ACTIVATIONS_KEY, CALLABLES, FREE_THREAD_RECORD, GREENLET_GETCURRENT, IN_STEP, PYTHON,
    READABLE_TYPES, RECORD_READERS, STEP_LOCK,
)  # fmt: skip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asm_libcalls.emitter.image import Routine
    from asm_libcalls.emitter.pages import LoadedImage
    from asm_libcalls.libcalls import Declaration
    from asm_libcalls.x86_64.cpu import Cpu

__all__ = [
    "Backend",
    "Unavailable",
    "check_machine",
    "is_for_this_machine",
    "load",
    "routines",
    "slot_value",
    "warn",
]


class Backend:
    """The loaded backend."""

    __slots__ = ("assembler", "cpu", "loaded")

    def __init__(self, loaded: LoadedImage, cpu: Cpu, assembler: str) -> None:
        # the routines of every family that this CPU can run, and the trap entry and exit
        self.loaded = loaded
        self.cpu = cpu
        # origin of the code, for example `"PeachPy 0.2.0"` or `"image (file ...)"`
        self.assembler = assembler

    @property
    def families(self) -> dict[str, str]:
        """Each family that has machine code, with "" if it is served, else the reason."""
        from asm_libcalls.libcalls import DECLARATIONS
        from asm_libcalls.x86_64 import families

        return {
            row.family: families.why_not(row, self.cpu.features)
            for row in {row.family: row for row in DECLARATIONS.values()}.values()
            if families.module_of(row) is not None
        }

    def why_not(self, declaration: Declaration) -> str:
        """Return why this CPU cannot run a libcall's family; "" if it can."""
        from asm_libcalls.x86_64 import families

        return families.why_not(declaration, self.cpu.features)

    def guard_of(self, declaration: Declaration) -> str:
        """Return the stencil that tests a libcall's arguments for a trap beforehand, or ""."""
        from asm_libcalls.x86_64 import families

        return families.guard_of(declaration)

    def python_slot(self, name: str) -> str:
        """Return the slot with the address of the Python function of a libcall that leaves for it.

        "" for a libcall that never leaves machine code.
        """
        slot = PYTHON + name
        return slot if slot in self.loaded.image.slots else ""

    def routine_of(self, name: str) -> str:
        """Return the name of the routine that serves a libcall, and of its stencil."""
        in_step = name + IN_STEP
        return in_step if not HAS_GIL and in_step in self.loaded.image.routines else name

    def has_checked(self, name: str) -> bool:
        """Return whether a stencil implements a libcall on an instance, with all checks."""
        from asm_libcalls.x86_64.python_functions import STENCIL_PREFIX

        return STENCIL_PREFIX + name in self.loaded.image.stencils


def load() -> Backend:
    """Load the backend.

    Raise Unavailable if the CPU or system is another, if the assembler or executable memory is
    missing, or if making machine code failed otherwise. The fallback serves then. The cause is
    chained. Raise ValueError if ``ASM_LIBCALLS_TUNING`` names no tuning.
    """
    from asm_libcalls.x86_64 import cpu

    if _loaded:
        return _loaded[0]
    check_machine()
    asked = os.environ.get(cpu.TUNING_VARIABLE, "")
    cpu.tuned(frozenset(), asked)  # checks it
    try:
        _loaded.append(_load(asked))
        return _loaded[0]
    except Unavailable:
        raise
    except Exception as error:  # an assembler of another version, a C library without pthreads, ...
        raise Unavailable(
            f"machine code could not be made: {type(error).__name__}: {error}"
        ) from error


def is_for_this_machine() -> bool:
    """Return whether the CPU and the system are those of this backend."""
    try:
        check_machine()
    except Unavailable:
        return False
    return True


_loaded: list[Backend] = []
"""The backend, once it is loaded; every binding of the process uses it."""


def _load(tuning: str) -> Backend:
    from asm_libcalls.x86_64 import code_cache, cpu

    try:
        this_cpu = cpu.detect(code_cache.load("cpu"))
        this_cpu.features = cpu.tuned(this_cpu.features, tuning)
        loaded = code_cache.load("backend", this_cpu.features)
    except OSError as refusal:
        raise Unavailable(f"no executable memory: {refusal.strerror or refusal}") from refusal
    _fill_slots(loaded)
    loaded.keep()
    return Backend(loaded, this_cpu, loaded.origin)


def routines(features: frozenset[str]) -> list[Routine]:
    """Assemble everything that a CPU with these features can run."""
    from asm_libcalls.libcalls import DECLARATIONS
    from asm_libcalls.x86_64 import families
    from asm_libcalls.x86_64.python_functions import function_stencils, get_buffer, ready_functions
    from asm_libcalls.x86_64.trampolines import call_python, enter_and_raise

    result = [
        routine
        for part in (enter_and_raise, call_python, function_stencils, get_buffer)
        for routine in part.routines()
    ]
    result += families.routines(DECLARATIONS.values(), features)
    return [*result, *ready_functions.routines(DECLARATIONS.values(), result)]


def _fill_slots(loaded: LoadedImage) -> None:
    from asm_libcalls.emitter import libc

    for name in loaded.image.slots:
        is_own = name in loaded.image.routines
        loaded.set_slot(name, loaded.routine(name) if is_own else slot_value(name))
    key = c_types.c_uint32()
    create = libc.prototype("pthread_key_create", c_types.c_int, c_types.c_void_p, c_types.c_void_p)
    error = create(c_types.addressof(key), loaded.routine(FREE_THREAD_RECORD))
    if error:
        raise Unavailable(f"no pthread key for the list of activations: {os.strerror(error)}")
    loaded.set_slot(ACTIVATIONS_KEY, key.value)


_ZERO = frozenset(
    {ACTIVATIONS_KEY, GREENLET_GETCURRENT, STEP_LOCK, RECORD_READERS, READABLE_TYPES, *CALLABLES}
)
_NAMES_BEFORE_3_13 = {"PyThreadState_GetUnchecked": "_PyThreadState_UncheckedGet"}


def slot_value(name: str) -> int:
    """Return the initial value of a slot.

    A slot has the name of the C function (of libc or CPython) whose address it holds. Others are 0
    until they are written: :data:`ACTIVATIONS_KEY` when the image is loaded;
    :data:`GREENLET_GETCURRENT` by :mod:`asm_libcalls.native.greenlets`; :data:`READABLE_TYPES` and
    :data:`CALLABLES` when builtins are first made; :data:`RECORD_READERS` when thunks are;
    :data:`STEP_LOCK` and those of the Python functions of libcalls before the address of such a
    libcall is returned.
    """
    from asm_libcalls.emitter import libc

    if name in _ZERO or name.startswith(PYTHON):
        return 0
    try:
        return libc.function_address(name)
    except AttributeError:
        return libc.function_address(_NAMES_BEFORE_3_13.get(name, name))
