"""Makes a Libcall of each declaration in the table, bound to a backend.

The environment variable ``ASM_LIBCALLS_BACKEND`` chooses once, when the package is imported:
``auto`` (machine code where available, the fallback for the rest), ``x86_64`` (all machine code,
or an error that says why not), ``fallback`` (only Python; no machine code is loaded).
"""

from __future__ import annotations

import atexit
import os
import sys

from asm_libcalls.libcall import Libcall, inside_store
from asm_libcalls.libcalls import BUILTIN_ARRAY, DECLARATIONS
from asm_libcalls.native import process
from asm_libcalls.native.interface import machine_interface
from asm_libcalls.steps import HAS_GIL
from asm_libcalls.traps import Trap
from asm_libcalls.x86_64.trampolines import RAISE_TRAP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType
    from typing import Any

    from asm_libcalls.libcalls import Declaration
    from asm_libcalls.native.interface import MachineInterface
    from asm_libcalls.native.process import Entry
    from asm_libcalls.native.thunks import ThunkPool
    from asm_libcalls.native.without_machine_code import CtypesInterface, NoInterface
    from asm_libcalls.signatures import Signature
    from asm_libcalls.x86_64.backend import Backend

__all__ = [
    "BACKENDS",
    "ENVIRONMENT_VARIABLE",
    "BackendUnavailable",
    "Binding",
    "Libcall",
    "default_binding",
]

ENVIRONMENT_VARIABLE = "ASM_LIBCALLS_BACKEND"
BACKENDS = ("auto", "x86_64", "fallback")

IN_PYTHON = "in Python on every CPU"


class BackendUnavailable(ImportError):
    """The backend in ``ASM_LIBCALLS_BACKEND`` is not available here."""


class Binding:
    """All libcalls, bound to the available backends."""

    module = "asm_libcalls"
    """The module that has the libcalls as functions, and their ``LIBCALLS``."""

    unboxes = True
    """Whether machine code converts the arguments of the libcalls' functions."""

    x86_64: Backend | None  # the machine code, if it is loaded
    # calls between Python and native code, in both directions
    interface: MachineInterface | CtypesInterface | NoInterface

    def __init__(self, requested: str) -> None:
        if requested not in BACKENDS:
            raise ValueError(
                f"{ENVIRONMENT_VARIABLE} must be one of {', '.join(BACKENDS)}, got {requested!r}"
            )
        self.requested = requested  # one of BACKENDS
        self.x86_64 = None
        self.x86_64_reason = "the fallback was asked for"  # why it is not
        if requested != "fallback":
            cause = self._load()
            if requested == "x86_64":
                self._require_all(cause)
        self.interface = self._make_interface()
        self._functions: dict[str, Callable[..., Any]] = {}
        self.libcalls = {name: Libcall(row, self) for name, row in DECLARATIONS.items()}

    def _load(self) -> Exception | None:
        cause: Exception | None = None
        try:
            import _ctypes  # noqa: F401

            from asm_libcalls.x86_64 import backend
        except ImportError as error:  # isolated subinterpreters of 3.12 have no ctypes
            self.x86_64_reason = f"ctypes cannot be imported: {error}"
            cause = error
        else:
            try:
                self.x86_64 = backend.load()
                self.x86_64_reason = ""
            except backend.Unavailable as reason:
                self.x86_64_reason = str(reason)
                cause = reason
                if self.requested == "auto" and backend.is_for_this_machine():
                    backend.warn(
                        f"has no machine code here, so its Python functions serve: {reason}. Set "
                        f"{ENVIRONMENT_VARIABLE} to fallback if that is wanted"
                    )
        return cause

    def _require_all(self, cause: Exception | None) -> None:
        if self.x86_64 is None:
            reasons = [self.x86_64_reason]
        else:
            reasons = [f"{k}: {why}" for k, why in self.x86_64.families.items() if why]
        if reasons:
            raise BackendUnavailable(
                f"{ENVIRONMENT_VARIABLE}=x86_64, but machine code cannot serve: "
                + "; ".join(reasons)
            ) from cause

    def _make_interface(self) -> MachineInterface | CtypesInterface | NoInterface:
        if self.x86_64 is not None:
            return machine_interface(self.x86_64.loaded)
        from asm_libcalls.native.without_machine_code import CtypesInterface, NoInterface

        try:
            return CtypesInterface(self.x86_64_reason)
        except ImportError:
            return NoInterface(self.x86_64_reason)

    @property
    def entry(self) -> Entry | None:
        """The entry from Python into native code; None where ctypes is missing."""
        return self.interface.entry

    def may_leave(self, declaration: Declaration) -> bool:
        """Return whether machine code serves a libcall, and leaves for Python in some cases."""
        return self.x86_64 is not None and self.x86_64.python_slot(declaration.name) != ""

    def backend_of(self, declaration: Declaration) -> tuple[str, str]:
        """Return a libcall's backend and the reason, or "": then :meth:`why_not_machine_code`."""
        if self.x86_64 is None:
            return "fallback", self.x86_64_reason
        if declaration.name in self.x86_64.loaded.image.routines:
            return "x86_64", self.x86_64.assembler.partition(" (")[0]  # the report has the file
        return "fallback", ""

    def why_not_machine_code(self, declaration: Declaration) -> str:
        """Return why the fallback serves a libcall although machine code is loaded."""
        assert self.x86_64 is not None
        return self.x86_64.why_not(declaration) or IN_PYTHON

    def fallback_of(self, declaration: Declaration) -> Callable[..., int | None]:
        """Return the function on bit patterns that implements a libcall in Python."""
        name = declaration.module("fallback")
        family = _fallbacks.get(name)
        if family is None:
            from importlib import import_module

            family = import_module(name)
            _fallbacks[name] = family
        function: Callable[..., int | None] = getattr(family, declaration.name)
        return function

    def with_addresses(
        self, libcall: Libcall, arguments: Sequence[Any]
    ) -> tuple[Sequence[Any], list[object]]:
        """Replace buffers by their addresses; return also the objects that keep them alive."""
        return arguments, []  # no libcall of this table takes a buffer

    def load_numeric_fallbacks(self) -> None:
        """Import the fallbacks of numeric libcalls, which a finalizer may call at exit."""
        for libcall in self.libcalls.values():
            if not libcall.takes_instance:
                self.fallback_of(libcall.declaration)

    def address_of(self, libcall: Libcall) -> int:
        """Return the C address of a libcall; for the fallback, of a new host function."""
        if libcall.backend != "x86_64":
            return self._python_address(libcall)
        assert self.x86_64 is not None
        loaded = self.x86_64.loaded
        if libcall.may_leave:
            from asm_libcalls.runtime import step_lock

            step_lock.share(loaded)
            slot = self.x86_64.python_slot(libcall.name)
            if not loaded.slot(slot):  # another binding may have filled it
                loaded.set_slot(slot, self._python_address(libcall))
        return loaded.routine(self.x86_64.routine_of(libcall.name))

    def _python_address(self, libcall: Libcall) -> int:
        function = self.fallback_of(libcall.declaration)
        if libcall.takes_instance and not HAS_GIL:
            function = _called_by_native_code(function)
        if self.x86_64 is not None:
            function = _traced(function)
        address, _ = self.host_address(function, libcall.signature, bits=True)
        return address

    def function_of(self, libcall: Libcall) -> Callable[..., Any]:
        """Return the function of a libcall, made at the first call."""
        function = self._functions.get(libcall.name)
        if function is not None:
            return function
        if not sys.meta_path:  # None at interpreter exit: nothing can be imported
            return libcall.checked_call
        from asm_libcalls.functions import make_functions

        # The first thread's functions stay.
        for name, made in make_functions(self, libcall.name).items():
            self._functions.setdefault(name, made)
        return self._functions[libcall.name]

    def host_address(
        self, function: Callable[..., Any], signature: Signature, bits: bool
    ) -> tuple[int, Callable[[], None]]:
        """Return a C address that calls a Python function, and a function that frees the address.

        With `bits`, the Python function takes and returns bit patterns instead of numbers.
        """
        thunk = self.interface.thunk(function, signature, bits)
        thunk.keep()
        return thunk.address, thunk.close

    def thunks(self) -> ThunkPool:
        """Return the thunks through which machine code calls Python."""
        if self.x86_64 is None:
            raise RuntimeError(f"there are no thunks without machine code: {self.x86_64_reason}")
        return machine_interface(self.x86_64.loaded).thunks()

    def builtin_addresses(self) -> list[int]:
        """Return the C addresses in the order of the builtin array; empty without ctypes."""
        if self.entry is None:
            return []
        return [self.libcalls[name].address for name in BUILTIN_ARRAY]

    def symbols(self) -> dict[str, int]:
        """Return the C symbol and address of every libcall."""
        return {libcall.symbol: libcall.address for libcall in self.libcalls.values()}

    def runtime_symbols(self) -> dict[str, int]:
        """Return the other addresses that generated code calls; empty without machine code."""
        if self.x86_64 is None:
            return {}
        return {RAISE_TRAP: self.x86_64.loaded.routine(RAISE_TRAP)}


def _called_by_native_code(function: Callable[..., int | None]) -> Callable[..., int | None]:
    # Native code that this library has not entered is in no store. The import is here and not in
    # `inside_store`: a child of fork would wait for a thread that was importing the module.
    from asm_libcalls.runtime import arguments as _  # noqa: F401

    def call(*patterns: int) -> int | None:
        result: int | None = inside_store(function, patterns)
        return result

    return call


def _traced(function: Callable[..., int | None]) -> Callable[..., int | None]:
    # Native code calls this; its frames exist until the trap leaves this function.
    def call(*patterns: int) -> int | None:
        try:
            return function(*patterns)
        except Trap as trap:
            from asm_libcalls.activation import MAXIMUM_TRACE
            from asm_libcalls.native.stack_walker import stack_frames

            frames = stack_frames(innermost=True) or ()
            trace = tuple(return_address for return_address, _ in frames)[:MAXIMUM_TRACE]
            if trace:
                process.tell_observers(trap, trace)
            raise

    return call


_fallbacks: dict[str, ModuleType] = {}
"""The imported fallback modules, by name."""

_default: list[Binding] = []


def default_binding() -> Binding:
    """Return the process's binding, made by the environment variable when first called."""
    if not _default:
        binding = Binding(os.environ.get(ENVIRONMENT_VARIABLE) or "auto")
        process.interface = binding.interface
        process.builtin_addresses = binding.builtin_addresses
        _default.append(binding)
        if binding.x86_64 is None:
            atexit.register(binding.load_numeric_fallbacks)
    return _default[0]
