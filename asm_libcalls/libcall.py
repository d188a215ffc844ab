"""One libcall, bound to a backend: Python functions of it, its C address, a ctypes function.

:mod:`asm_libcalls.libcalls` has the declarations, and :mod:`asm_libcalls.binding` binds all of a
table.
"""

from __future__ import annotations

from asm_libcalls.owned import not_made, refuse_again
from asm_libcalls.signatures import MEMORY_POINTERS, Callee
from asm_libcalls.steps import HAS_GIL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Protocol

    from asm_libcalls.libcalls import Declaration
    from asm_libcalls.native.process import Entry

    class Binding(Protocol):
        """The part of :class:`asm_libcalls.binding.Binding` that a libcall uses."""

        module: str

        @property
        def entry(self) -> Entry | None:
            """The entry from Python into native code."""

        def backend_of(self, declaration: Declaration) -> tuple[str, str]:
            """Return the backend of a libcall, and the reason."""

        def may_leave(self, declaration: Declaration) -> bool:
            """Return whether machine code serves a libcall, and leaves for Python in some cases."""

        def why_not_machine_code(self, declaration: Declaration) -> str:
            """Return why the fallback serves a libcall although machine code is loaded."""

        def fallback_of(self, declaration: Declaration) -> Callable[..., int | None]:
            """Return the function on bit patterns in Python."""

        def address_of(self, libcall: Libcall) -> int:
            """Return the C address of a libcall."""

        def function_of(self, libcall: Libcall) -> Callable[..., Any]:
            """Return the function of a libcall."""

        def with_addresses(
            self, libcall: Libcall, arguments: Sequence[Any]
        ) -> tuple[Sequence[Any], list[object]]:
            """Replace buffers by their addresses; return also the objects that keep them alive."""


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
    callee : Callee
        The names of it and its parameters in error messages.
    backend : {"x86_64", "fallback"}
    may_leave : bool
        Whether machine code serves its common cases, and leaves for the fallback in others. Checked
        calls use the fallback at once.
    """

    callee: Callee

    def __init__(self, declaration: Declaration, binding: Binding) -> None:
        refuse_again(self, "declaration")
        self.declaration = declaration
        self.name = declaration.name
        self.symbol = declaration.symbol
        self.signature = declaration.signature
        self.doc = declaration.doc
        self.takes_instance = declaration.takes_instance
        self._binding = binding
        self._address = 0
        self._cfunc: Any = None
        self._fallback: FallbackFunction | None = None
        self.backend, self._reason = binding.backend_of(declaration)
        self.may_leave = self.backend == "x86_64" and binding.may_leave(declaration)

    def __getattr__(self, name: str) -> Any:
        if "declaration" not in vars(self):
            raise not_made(self)
        if name == "callee":  # made when it is first used
            self.callee = Callee.named(self.name, self.declaration.parameters)
            return self.callee
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def reason(self) -> str:
        """The reason for the backend."""
        if not self._reason:
            self._reason = self._binding.why_not_machine_code(self.declaration)
        return self._reason

    def __repr__(self) -> str:
        return f"<libcall {self.name}{self.signature} served by {self.backend}>"

    def __reduce__(self) -> tuple[Any, ...]:
        # By name, so it is bound to the backend of the process that unpickles it.
        return (_bound_here, (self._binding.module, self.name))

    def __copy__(self) -> Libcall:
        return self

    def __deepcopy__(self, memo: object) -> Libcall:
        return self

    def __native_address__(self, kind: str) -> Any:
        return self.address if kind in MEMORY_POINTERS else NotImplemented

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Call it with Python numbers, by position; raise what :meth:`checked_call` raises."""
        function = self._as_function()
        if type(function) is type(len):
            try:
                from asm_libcalls.native.call_slot import answer_calls
            except ImportError:  # at interpreter exit, or a signal handler interrupts this import
                pass
            else:
                answer_calls(self, function)  # later calls go straight to it
            return function(*arguments, **keywords)
        if keywords:
            raise TypeError(f"{self.name}() takes no keyword arguments, got {', '.join(keywords)}")
        return self.checked_call(*arguments)

    def _as_function(self) -> Callable[..., Any]:
        return self._binding.function_of(self)

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
        if self.takes_instance and not HAS_GIL:
            return inside_store(self._call, arguments)
        return self._call(*arguments)

    def _call(self, *arguments: Any) -> Any:
        # `_kept`: while native code runs, other threads may drop or close the objects it uses.
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
        self.callee.check_count(len(patterns))
        given, _kept = self._binding.with_addresses(self, patterns)
        checked = self.signature.check_patterns(given, self.callee)
        if not self.takes_instance:
            return self._invoke(checked)
        if HAS_GIL:
            return self._call_bits(*checked)
        return int(inside_store(self._call_bits, checked))

    def _call_bits(self, *patterns: int) -> int:
        checked, _kept = self._patterns(patterns)  # checks addresses and indices
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

        A call from Python is a call of the libcall: as fast, and it raises the libcall's traps. As
        a C function pointer the object is the bare address.
        """
        if self._cfunc is None:
            prototype = _catching(self.signature.ctypes_prototype(), self._as_function())
            self._cfunc = prototype(self.address)
        return self._cfunc

    @property
    def fallback(self) -> FallbackFunction:
        """The same libcall in plain Python."""
        # Only one for each libcall, because it owns a callback that is never freed.
        if self._fallback is None:
            self._fallback = FallbackFunction(self)
        return self._fallback

    def _patterns(self, arguments: tuple[Any, ...]) -> tuple[list[int], list[object]]:
        self.callee.check_count(len(arguments))
        if self.takes_instance:
            from asm_libcalls.runtime.arguments import to_patterns

            return to_patterns(self.declaration, arguments)
        given, kept = self._binding.with_addresses(self, arguments)
        return self.signature.to_patterns(given, self.callee, kept), kept

    def _invoke(self, patterns: list[int]) -> int:
        if self.backend == "x86_64" and not self.may_leave:
            entry = self._binding.entry
            assert entry is not None
            return entry.call(self.address, self.signature, patterns)
        function = self._binding.fallback_of(self.declaration)
        return getattr(function, "for_python", function)(*patterns) or 0


def inside_store(function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    """Call a function inside the store of its first argument, if that is an instance."""
    from asm_libcalls.runtime.arguments import instance_in
    from asm_libcalls.runtime.store_entries import call_inside

    instance = instance_in(arguments)
    if instance is None:
        return function(*arguments)
    return call_inside(instance, function, *arguments)


class FallbackFunction(Libcall):
    """A libcall in plain Python, also where machine code serves it."""

    def __init__(self, libcall: Libcall) -> None:
        super().__init__(libcall.declaration, libcall._binding)
        self.backend, self._reason, self.may_leave = "fallback", "asked for", False
        self._fallback = self

    def __reduce__(self) -> tuple[Any, ...]:
        return (_fallback_here, (self._binding.module, self.name))

    def _as_function(self) -> Callable[..., Any]:
        return self.checked_call


def _bound_here(module: str, name: str) -> Libcall:
    from importlib import import_module

    libcall: Libcall = import_module(module).LIBCALLS[name]
    return libcall


def _fallback_here(module: str, name: str) -> FallbackFunction:
    return _bound_here(module, name).fallback


def _catching(prototype: Any, function: Callable[..., Any]) -> Any:
    from asm_libcalls.native.call_slot import unbound

    # ctypes reads a function type's own attributes, not those that it inherits.
    own = {name: getattr(prototype, name) for name in ("_flags_", "_argtypes_", "_restype_")}
    return type("CatchingFunction", (prototype,), {**own, "__call__": unbound(function)})
