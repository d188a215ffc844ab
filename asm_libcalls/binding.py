"""Binds each declaration to a backend: a Libcall has a callable, an address, a ctypes function.

The environment variable ``ASM_LIBCALLS_BACKEND`` chooses once, when the package is imported:
``auto`` (machine code where available, the fallback for the rest), ``x86_64`` (all machine code,
or an error that says why not), ``fallback`` (only Python; no machine code is loaded).
"""

from __future__ import annotations

import atexit
import os
import sys

from asm_libcalls.libcalls import BUILTIN_ARRAY, DECLARATIONS
from asm_libcalls.native import process
from asm_libcalls.native.call_slot import answer_calls, is_builtin, unbound
from asm_libcalls.native.interface import CtypesInterface, NoInterface, machine_interface
from asm_libcalls.signatures import Callee
from asm_libcalls.traps import Trap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

    from asm_libcalls.libcalls import Declaration
    from asm_libcalls.native.interface import MachineInterface
    from asm_libcalls.native.process import Entry
    from asm_libcalls.native.thunks import ThunkPool
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


class Libcall:
    """One libcall, bound to a backend. Calling it takes and returns Python numbers.

    Attributes
    ----------
    name : str
    symbol : str
        Its C symbol, ``wasmtime_`` and the name.
    signature : Signature
        Its C signature.
    doc : str
        One sentence.
    declaration : Declaration
        Its row of the table.
    takes_instance : bool
        Whether it works on an instance or its references, not only on numbers.
    backend : {"x86_64", "fallback"}
    """

    def __init__(self, declaration: Declaration, binding: Binding) -> None:
        self.declaration = declaration
        self.name = declaration.name
        self.symbol = declaration.symbol
        self.signature = declaration.signature
        self.doc = declaration.doc
        self.takes_instance = declaration.takes_instance
        self._callee = Callee.named(declaration.name, declaration.parameters)
        self._binding = binding
        self._address = 0
        self._fallback: FallbackFunction | None = None
        self.backend, self._reason = binding.backend_of(declaration)

    @property
    def reason(self) -> str:
        """Why that backend."""
        if not self._reason:
            self._reason = self._binding.why_not_machine_code(self.declaration)
        return self._reason

    def __repr__(self) -> str:
        return f"<libcall {self.name}{self.signature} served by {self.backend}>"

    def __reduce__(self) -> tuple[Any, ...]:
        # By name, so it is bound to the backend of the process that unpickles it.
        return (_served_here, (self.name,))

    def __copy__(self) -> Libcall:
        return self

    def __deepcopy__(self, memo: object) -> Libcall:
        return self

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Call it with Python numbers, by position; raise what :meth:`checked_call` raises."""
        function = self._binding.function_of(self)
        if is_builtin(function):
            answer_calls(self, function)  # later calls go straight to it
            return function(*arguments, **keywords)
        if keywords:
            raise TypeError(f"{self.name}() takes no keyword arguments, got {', '.join(keywords)}")
        return self.checked_call(*arguments)

    def checked_call(self, *arguments: Any) -> Any:
        """Call it with Python numbers, converted and checked in Python.

        Raises
        ------
        TypeError
            The wrong count, or an argument of the wrong type; the message names it.
        OverflowError
            An integer that 32 or 64 bits cannot hold in either reading.
        Trap
            The libcall trapped.
        """
        # While native code runs, other threads may drop or close what it works on.
        patterns, _kept = self._patterns(arguments)
        return self.signature.from_pattern(self._invoke(patterns))

    def call_bits(self, *patterns: int) -> int:
        """Call it with bit patterns and return the result's pattern, in which NaNs keep their bits.

        Parameters
        ----------
        *patterns : int
            One for each parameter, unsigned, of its width.

        Returns
        -------
        int
            The result's pattern; 0 where there is no result.
        """
        checked = self.signature.check_patterns(patterns, self._callee)
        _kept: list[object] = []
        if self.takes_instance:
            checked, _kept = self._patterns(tuple(checked))  # checks addresses and indices
        return self._invoke(checked)

    @property
    def address(self) -> int:
        """The C address, for native code to call; valid until the process ends."""
        if not self._address:
            self._address = self._binding.address_of(self)
        return self._address

    @property
    def cfunc(self) -> Any:
        """A ctypes function of the address.

        If the libcall can trap, a call from Python raises the trap. As a C function pointer the
        object is the bare address.
        """
        prototype = self.signature.ctypes_prototype()
        if self.declaration.traps:
            prototype = _catching(prototype, self._binding.function_of(self))
        return prototype(self.address)

    @property
    def fallback(self) -> FallbackFunction:
        """The same libcall in plain Python."""
        # Only one for each libcall, because it owns a callback that is never freed.
        if self._fallback is None:
            self._fallback = FallbackFunction(self)
        return self._fallback

    def _patterns(self, arguments: tuple[Any, ...]) -> tuple[list[int], list[object]]:
        if not self.takes_instance:
            return self.signature.to_patterns(arguments, self._callee), []
        from asm_libcalls.runtime.arguments import to_patterns

        self._callee.check_count(len(arguments))
        return to_patterns(self.declaration, arguments)

    def _invoke(self, patterns: list[int]) -> int:
        if self.backend == "x86_64":
            entry = self._binding.entry
            assert entry is not None
            return entry.call(self.address, self.signature, patterns)
        function = self._binding.fallback_of(self.declaration)
        if self.signature.result is None or self.signature.result.name != "externref":
            return function(*patterns) or 0
        from asm_libcalls.runtime.instance import instance_of

        # The reference goes to Python and not to a frame: no transfer is pending after the call.
        table = instance_of(patterns[0]).activations_table
        before = table.transfers_here()
        try:
            return function(*patterns) or 0
        finally:
            table.end_transfers(before)


class FallbackFunction(Libcall):
    """A libcall in plain Python, also where machine code serves it."""

    def __init__(self, libcall: Libcall) -> None:
        self.__dict__.update(libcall.__dict__)
        self.backend = "fallback"
        self._reason = "asked for"
        self._address = 0
        self._fallback = self

    def __reduce__(self) -> tuple[Any, ...]:
        return (_fallback_here, (self.name,))

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Call it with Python numbers, by position; raise what :meth:`checked_call` raises."""
        if keywords:
            raise TypeError(f"{self.name}() takes no keyword arguments, got {', '.join(keywords)}")
        return self.checked_call(*arguments)


def _served_here(name: str) -> Libcall:
    return default_binding().libcalls[name]


def _fallback_here(name: str) -> FallbackFunction:
    return default_binding().libcalls[name].fallback


def _catching(prototype: Any, function: Callable[..., Any]) -> Any:
    # ctypes reads a function type's own attributes, not those that it inherits.
    own = {name: getattr(prototype, name) for name in ("_flags_", "_argtypes_", "_restype_")}
    return type("CatchingFunction", (prototype,), {**own, "__call__": unbound(function)})


class Binding:
    """All libcalls, bound to the available backends.

    Attributes
    ----------
    requested : str
        One of :data:`BACKENDS`.
    x86_64 : Backend or None
        The machine code, if it is loaded.
    x86_64_reason : str
        Why it is not.
    interface : MachineInterface, CtypesInterface or NoInterface
        Calls between Python and native code, in both directions.
    libcalls : dict of str to Libcall
    """

    x86_64: Backend | None
    interface: MachineInterface | CtypesInterface | NoInterface

    def __init__(self, requested: str) -> None:
        if requested not in BACKENDS:
            raise ValueError(
                f"{ENVIRONMENT_VARIABLE} must be one of {', '.join(BACKENDS)}, got {requested!r}"
            )
        self.requested = requested
        self.x86_64 = None
        self.x86_64_reason = "the fallback was asked for"
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
            import ctypes  # noqa: F401

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
        try:
            return CtypesInterface(self.x86_64_reason)
        except ImportError:
            return NoInterface(self.x86_64_reason)

    @property
    def entry(self) -> Entry | None:
        """The entry from Python into native code; None where ctypes is missing."""
        return self.interface.entry

    def backend_of(self, declaration: Declaration) -> tuple[str, str]:
        """Return the backend of a libcall, and the reason; "" if it is found out only on demand."""
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

    def load_numeric_fallbacks(self) -> None:
        """Import the fallbacks of numeric libcalls, which a finalizer may call at exit."""
        for libcall in self.libcalls.values():
            if not libcall.takes_instance:
                self.fallback_of(libcall.declaration)

    def address_of(self, libcall: Libcall) -> int:
        """Return the C address of a libcall; for the fallback, of a new host function."""
        if libcall.backend == "x86_64":
            assert self.x86_64 is not None
            return self.x86_64.loaded.routine(libcall.name)
        function = self.fallback_of(libcall.declaration)
        if self.x86_64 is not None:
            function = _traced(function)
        address, _ = self.host_address(function, libcall.signature, bits=True)
        return address

    def function_of(self, libcall: Libcall) -> Callable[..., Any]:
        """Return the function of a libcall, made with those like it when first asked for."""
        function = self._functions.get(libcall.name)
        if function is not None:
            return function
        if not sys.meta_path:  # None at interpreter exit: nothing can be imported
            return libcall.checked_call
        # Many at once, since their code shares pages; the first thread's functions stay.
        for name, made in self._make_functions(libcall.name).items():
            self._functions.setdefault(name, made)
        return self._functions[libcall.name]

    def _make_functions(self, like: str) -> dict[str, Any]:
        from asm_libcalls.functions import make_functions

        return make_functions(self, like)

    def host_address(
        self, function: Callable[..., Any], signature: Signature, bits: bool
    ) -> tuple[int, Callable[[], None]]:
        """Return a C address that calls a Python function, and a function that frees the address.

        With `bits`, the Python function takes and returns bit patterns instead of numbers.
        """
        return self.interface.host_address(function, signature, bits)

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
        names = ("asm_libcalls_raise_trap",)
        return {name: self.x86_64.loaded.routine(name) for name in names}


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
                trap.trace = trace
                process.tell_observers(trap)
            raise

    return call


_fallbacks: dict[str, ModuleType] = {}
"""The imported modules of the families in plain Python."""

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
