"""Func: a WebAssembly function, called from Python."""

from __future__ import annotations

import ctypes
from functools import cache, partial

from asm_libcalls.native.call_slot import FUNCTION, answer_calls, callable_class
from asm_libcalls.native.native_function import native_functions
from asm_libcalls.native.specification import (
    MAXIMUM_PARAMETERS,
    Specification,
    default_parameter_names,
)
from asm_libcalls.owned.objects import is_a
from asm_libcalls.runtime import transit
from asm_libcalls.runtime.externref_boxes import fill_spare
from asm_libcalls.runtime.funcref import FuncRef
from asm_libcalls.runtime.store_entries import call_inside
from asm_libcalls.signatures import MEMORY_POINTERS, Callee, Signature
from asm_libcalls.signatures.arguments import printable
from asm_libcalls.steps import HAS_GIL
from asm_libcalls.toy_jit.codegen.layout import type_of_id
from asm_libcalls.toy_jit.frontend.module import (
    F32,
    F64,
    FUNCREF,
    I32,
    I64,
    REFERENCE_TYPES,
    V128,
    VALUE_TYPE_NAMES,
    type_names,
)
from asm_libcalls.toy_jit.runtime.adapters import Adapter
from asm_libcalls.toy_jit.runtime.slot_functions import remember_keeper, slot_function
from asm_libcalls.toy_jit.runtime.slots import ENTER
from asm_libcalls.toy_jit.runtime.values import from_slots, slot_count, to_slots

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping, Sequence
    from typing import Any, Self

    from asm_libcalls.toy_jit.frontend.module import FuncType

_ENTER_SIGNATURE = Signature("(pointer, pointer, pointer, u64)")
_FLOATS = (F32, F64)


class Func(FuncRef):
    """A WebAssembly function: called with Python numbers and objects.

    Attributes
    ----------
    type : FuncType
    name : str
        Its export name, or ``"function N"``.
    brief : bool
        Whether it ends soon for all arguments: then a call keeps the GIL.
    """

    __slots__ = ("_adapter", "_function", "_has_builtin", "brief", "name")

    def __new__(cls, instance: Any, index: int, address: int) -> Self:
        """Make an object of a class whose calls run machine code."""
        return object.__new__(callable_class(cls))

    def __init__(self, instance: Any, index: int, address: int) -> None:
        super().__init__(instance, index, address)
        self.name = f"function {index}"
        self.brief = False
        self._adapter: Adapter | None = None
        self._has_builtin = True  # until it turns out that none can be made

    def __native_address__(self, kind: str) -> Any:
        """Return the address of the anyfunc, or for a pointer one that C calls with numbers."""
        if kind not in MEMORY_POINTERS:
            return super().__native_address__(kind)
        FuncRef.as_raw(self)  # NotMade, if it was not made
        adapter = self._adapter or _adapter(self)
        if adapter is None:
            raise TypeError(f"{self!r} has no C address: C passes numbers, and returns one")
        return adapter.address

    _readable_member = FuncRef._readable_member

    @property
    def type(self) -> FuncType:
        """The function's type."""
        return type_of_id(self.type_index)

    @property
    def __name__(self) -> str:
        """The same as :attr:`name`."""
        return self.name

    def __repr__(self) -> str:
        t = self.type
        return f"<Func {printable(self.name)} {type_names(t.params)} -> {type_names(t.results)}>"

    def __call__(self, *arguments: Any) -> Any:
        """Call the function; return its result, None without one, or a tuple of several.

        Raises
        ------
        TypeError, OverflowError
            An argument does not fit its type, or the number of arguments is wrong.
        Trap
            The function trapped.
        """
        FuncRef.as_raw(self)  # NotMade, if it was not made
        builtin = getattr(self, FUNCTION, None)  # it exists if this is called as `self.__call__`
        if builtin is None and self._has_builtin:
            builtin = _builtin(self)
            if builtin is not None:
                answer_calls(self, builtin)  # later calls go straight to the builtin
            else:
                self._has_builtin = False
        if builtin is not None:
            return builtin(*arguments)
        results = self._call(arguments, bits=False)
        return results[0] if len(results) == 1 else results or None

    async def call_async(self, *arguments: Any, time_limit: float | None = None) -> Any:
        """Call it in a worker thread (the default executor of asyncio's loop), and await the end.

        The event loop goes on meanwhile. If the task is cancelled, the function traps at its next
        loop or call, and then the task ends; a running host function ends first. Only one call at
        a time may use an instance.

        Parameters
        ----------
        *arguments
            As of a call.
        time_limit : float, optional
            Seconds from the beginning of the call, after which it traps with Interrupt.

        Raises
        ------
        asyncio.CancelledError
            The task was cancelled.
        Exception
            As of a call.
        """
        from asm_libcalls.toy_jit.runtime import time_limits
        from asm_libcalls.toy_jit.runtime.async_calls import call_async

        seconds = float("inf")
        if time_limit is not None:
            seconds = time_limits.limit_of_time(time_limit, "call_async(): time_limit")
        return await call_async(self, self.instance, arguments, seconds)

    def call_bits(self, *patterns: Any) -> tuple[Any, ...]:
        """Call it with unsigned bit patterns, and references as objects; return a tuple of them."""
        return self._call(patterns, bits=True)

    def _call(self, arguments: Sequence[Any], bits: bool) -> tuple[Any, ...]:
        if HAS_GIL:
            return self._call_inside(arguments, bits)
        return call_inside(self.instance, self._call_inside, arguments, bits)

    def _call_inside(self, arguments: Sequence[Any], bits: bool) -> tuple[Any, ...]:
        functype = self.type
        params, results = functype.params, functype.results
        callee = _callees.get(self.name)
        if callee is None or len(callee.where) != len(params):
            callee = _callee(self.name, params)
        callee.check_count(len(arguments))
        count = max(slot_count(params), slot_count(results))
        slots = (ctypes.c_uint64 * (count + 2))()
        anyfunc = self._anyfunc
        pending: MutableMapping[int, Any] = {}
        key = 0
        if any(map(REFERENCE_TYPES.__contains__, results)):
            pending, key = transit.begin(slots)
        try:
            # Kept: a collection may run before compiled code has them in its frame.
            given, _kept = to_slots(params, arguments, self.instance, callee.where, bits)
            slots[: len(given)] = given  # type: ignore[assignment]
            _enter()(anyfunc.vmctx, anyfunc.func_ptr, ctypes.addressof(slots), count)
            if len(results) == 1 and results[0] != V128:
                slots[0] = slots[count + (results[0] in _FLOATS)]
            return from_slots(results, slots[:], bits)
        finally:
            pending.pop(key, None)


_callees: dict[str, Callee] = {}
"""The names in errors of functions called lately, by the name of the function."""


@cache
def _enter() -> Callable[..., None]:
    """Make the function that calls compiled code with slots."""
    specification = Specification(ENTER, _ENTER_SIGNATURE, name="enter", release_gil=True)
    made: Callable[..., None] = native_functions([specification])[0]
    return made


def _callee(name: str, params: bytes) -> Callee:
    shown = printable(name)
    where = tuple([f"{shown}(): argument {i + 1}" for i in range(len(params))])
    callee = Callee(f"{shown}()", where, f" {type_names(params)}")
    if len(_callees) > 100:
        _callees.clear()
    _callees[name] = callee
    return callee


class _OfObjects:
    """An attribute that is computed for an object, and has another value for the class."""

    def __init__(self, of_object: Callable[[Func], object], of_class: object = None) -> None:
        self._of_object = of_object
        self._of_class = of_class

    def __get__(self, func: Func | None, cls: type) -> Any:
        if func is not None:
            return self._of_object(func)
        if self._of_class is None:
            raise AttributeError("only objects have it")
        return self._of_class


def _signature(func: Func) -> Any:
    """Return what ``inspect.signature`` does: positional parameters, with Python's types."""
    from inspect import Parameter, Signature

    functype = func.type
    types = [_PYTHON_TYPES.get(t, object) for t in functype.params]
    results = [_PYTHON_TYPES.get(t, object) for t in functype.results]
    return Signature(
        [
            Parameter(name, Parameter.POSITIONAL_ONLY, annotation=annotation)
            for name, annotation in zip(default_parameter_names(len(types)), types, strict=True)
        ],
        return_annotation=tuple if len(results) > 1 else results[0] if results else None,
    )


def _doc(func: Func) -> str:
    functype = func.type
    types = f"{type_names(functype.params)} -> {type_names(functype.results)}"
    return f"Call the WebAssembly function {printable(func.name)}: {types}."


_PYTHON_TYPES = {I32: int, I64: int, V128: int, F32: float, F64: float}

# Not in the class statement: there both names would be the class's own.
Func.__doc__ = _OfObjects(_doc, Func.__doc__)  # type: ignore[assignment]
Func.__signature__ = _OfObjects(_signature)  # type: ignore[attr-defined]


def _adapter(func: Func) -> Adapter | None:
    """Return a function's adapter, with its C address; None where C cannot pass its arguments."""
    functype = func.type
    types = (*functype.params, *functype.results)
    if len(functype.results) > 1 or V128 in types or any(map(REFERENCE_TYPES.__contains__, types)):
        return None
    if len(functype.params) > MAXIMUM_PARAMETERS:
        return None
    if func._adapter is None:
        anyfunc = func._anyfunc
        func._adapter = Adapter(functype.params, anyfunc.vmctx, anyfunc.func_ptr)
    return func._adapter


def _builtin(func: Func) -> Callable[..., Any] | None:
    """Make a builtin that calls a function; None if Python must do it."""
    functype = func.type
    if len(functype.params) > MAXIMUM_PARAMETERS:
        return None
    adapter = _adapter(func)
    if adapter is None:
        return _slot_function(func)
    signature = f"({', '.join(VALUE_TYPE_NAMES[t] for t in functype.params)})"
    if functype.results:
        signature += f" -> {VALUE_TYPE_NAMES[functype.results[0]]}"
    specification = Specification(
        adapter.address,
        signature,
        name=printable(func.name),  # C has no name with U+0000
        module=__name__,
        slow=partial(_call_slowly, func, adapter),  # kept alive by the builtin, with both
        release_gil=not func.brief,
    )
    builtin: Callable[..., Any] = native_functions([specification])[0]
    return builtin


def _call_slowly(func: Func, adapter: Adapter, *arguments: Any) -> Any:
    """Call a function with arguments that its builtin cannot convert, or refuse them."""
    results = func._call(arguments, bits=False)
    return results[0] if results else None


def _slot_function(func: Func) -> Callable[..., Any] | None:
    """Make a builtin that calls a function with slots; None if Python must do it."""
    functype = func.type
    parameters = ", ".join(("$module", *default_parameter_names(len(functype.params)), "/"))
    name = printable(func.name)
    builtin: Callable[..., Any] | None = slot_function(
        func.as_raw(),
        tuple(VALUE_TYPE_NAMES[t] for t in functype.params),
        tuple(VALUE_TYPE_NAMES[t] for t in functype.results),
        function_class=Func,
        name=name,
        text=f"{name.rpartition('.')[2]}({parameters})\n--\n\n{_doc(func)}",
        module=__name__,
        slow=partial(_call_with_slots, func),
        release_gil=not func.brief,
    )
    if builtin is None:
        return None
    remember_keeper(builtin, func.instance)
    return builtin


def _call_with_slots(func: Func, *arguments: Any) -> Any:
    """Call a function with arguments that its builtin cannot convert, or refuse them."""
    fill_spare()
    try:
        results = func._call(arguments, bits=False)
    finally:
        builtin = getattr(func, FUNCTION, None)
        for valtype, argument in zip(func.type.params, arguments, strict=False):
            if valtype == FUNCREF and is_a(argument, FuncRef) and builtin is not None:
                keeper = argument.instance
                if func.instance.function_keepers.get(id(keeper)) is keeper:
                    remember_keeper(builtin, keeper)
    return results[0] if len(results) == 1 else results or None
