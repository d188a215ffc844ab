"""Functions at the border: exports as Python callables, and Python callables as imports."""

from __future__ import annotations

import ctypes
import weakref

from asm_libcalls.binding import default_binding
from asm_libcalls.funcref import FuncRef
from asm_libcalls.instance import Instance
from asm_libcalls.native_functions import native_function
from asm_libcalls.signatures import Signature
from asm_libcalls.toy_jit.layout import type_id, type_of_id
from asm_libcalls.toy_jit.module import F32, F64, I32, VALUE_TYPE_NAMES, type_names
from asm_libcalls.toy_jit.runtime import fill_slots
from asm_libcalls.toy_jit.templates import ENTER, STENCILS
from asm_libcalls.toy_jit.values import from_pattern, is_reference, to_pattern
from asm_libcalls.x86_64 import pages
from asm_libcalls.x86_64.host_calls import make_slot_record
from asm_libcalls.x86_64.image import link
from asm_libcalls.x86_64.stencils import Part, compose

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from asm_libcalls.toy_jit.module import FuncType

__all__ = ["Func", "host_instance"]

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
        Whether it soon ends, whatever it is given: then a call keeps the GIL.
    """

    __slots__ = ("brief", "name")

    def __init__(self, instance: Any, index: int, address: int) -> None:
        super().__init__(instance, index, address)
        self.name = f"function {index}"
        self.brief = False

    @property
    def type(self) -> FuncType:
        """The function's type."""
        return type_of_id(self.type_index)

    def __repr__(self) -> str:
        t = self.type
        return f"<Func {self.name} {type_names(t.params)} -> {type_names(t.results)}>"

    def __call__(self, *arguments: Any) -> Any:
        """Call it: numbers in, a number out; None for no result, a tuple for several.

        Raises
        ------
        TypeError, OverflowError
            An argument that does not fit its type, or the wrong count.
        Trap
            The function trapped.
        """
        builtin = _builtin(self)
        if builtin is not None:
            # From now on a call goes straight to the builtin: it is found on the class.
            self.__class__ = type("Func", (Func,), {"__slots__": (), "__call__": builtin})
            return builtin(*arguments)
        results = self._call(arguments, bits=False)
        return results[0] if len(results) == 1 else results or None

    def call_bits(self, *patterns: Any) -> tuple[Any, ...]:
        """Call it with bit patterns (unsigned), and references as objects; return a tuple."""
        return self._call(patterns, bits=True)

    def _call(self, arguments: Sequence[Any], bits: bool) -> tuple[Any, ...]:
        functype = self.type
        params, results = functype.params, functype.results
        if len(arguments) != len(params):
            plural = "argument" if len(params) == 1 else "arguments"
            raise TypeError(
                f"{self.name}() takes {len(params)} {plural} {type_names(params)}, "
                f"got {len(arguments)}"
            )
        count = max(len(params), len(results))
        slots = (ctypes.c_uint64 * (count + 2))()
        for i, (valtype, argument) in enumerate(zip(params, arguments, strict=True)):
            where = f"{self.name}(): argument {i + 1}"
            slots[i] = to_pattern(valtype, argument, self.instance, where, bits)
        entry = default_binding().entry
        assert entry is not None
        anyfunc = self._anyfunc
        patterns = [anyfunc.vmctx, anyfunc.func_ptr, ctypes.addressof(slots), count]
        entry.call(ENTER, _ENTER_SIGNATURE, patterns)
        if len(results) == 1:
            slots[0] = slots[count + (results[0] in _FLOATS)]
        return tuple(from_pattern(t, slots[i], bits) for i, t in enumerate(results))


def _builtin(func: Func) -> Callable[..., Any] | None:
    """Make a builtin that calls a function of numbers, or return None where it takes more."""
    functype = func.type
    types = (*functype.params, *functype.results)
    floats = sum(t in _FLOATS for t in functype.params)
    if (
        len(functype.results) > 1
        or any(map(is_reference, types))
        or floats > 8
        or len(functype.params) - floats > 6
    ):
        return None
    names = [VALUE_TYPE_NAMES[t] for t in functype.params]
    signature = f"({', '.join(names)})"
    if functype.results:
        signature += f" -> {VALUE_TYPE_NAMES[functype.results[0]]}"
    builtin: Callable[..., Any] = native_function(
        _adapter(func), signature, name=func.name, release_gil=not func.brief
    )
    return builtin


def _adapter(func: Func) -> int:
    """Make a C function that calls compiled code; return its address."""
    params = func.type.params
    anyfunc = func._anyfunc
    size = -(-8 * max(1, len(params)) // 16) * 16 + 8  # five registers are pushed before
    parts = [Part(STENCILS["adapter.begin"], {"frame": size})]
    integers = floats = 0
    for i, valtype in enumerate(params):
        if valtype in _FLOATS:
            name, floats = f"adapter.float.{floats}", floats + 1
        else:
            kind = "i32" if valtype == I32 else "i64"
            name, integers = f"adapter.{kind}.{integers}", integers + 1
        parts.append(Part(STENCILS[name], {"offset": 8 * i}))
    numbers = {}
    for prefix, address in (("", anyfunc.vmctx), ("code_", anyfunc.func_ptr)):
        for half, value in (("low", address & 0xFFFFFFFF), ("high", address >> 32)):
            numbers[prefix + half] = value - (value >> 31 << 32)
    parts.append(Part(STENCILS["adapter.end"], numbers))
    loaded = pages.load(link([compose("adapter", parts)]))
    fill_slots(loaded)
    return loaded.routine("adapter")


def host_instance(functions: Sequence[tuple[Callable[..., Any], FuncType, str]]) -> Instance:
    """Make an instance of Python functions, as Wasmtime does, for others to import.

    Parameters
    ----------
    functions : sequence of (callable, FuncType, str)
        What to call, its type, and what to call it in errors.
    """
    thunks = default_binding().thunks()
    holder: list[Any] = []  # of a weak reference to the instance, once there is one
    releases = []
    rows = []
    for function, functype, name in functions:
        call = _host_call(function, functype, name, holder)
        record = make_slot_record(call, int, len(functype.params), bool(functype.results))
        address, release = thunks.address_of_record(record, call)
        rows.append((address, type_id(functype)))
        releases.append(release)
    instance = Instance(functions=rows, function_class=Func)
    holder.append(weakref.ref(instance))
    for func, (_, _, name) in zip(instance.functions, functions, strict=True):
        func.name = name  # type: ignore[attr-defined]
    for release in releases:
        weakref.finalize(instance, release).atexit = False
    return instance


def _host_call(
    function: Callable[..., Any], functype: FuncType, name: str, holder: list[Any]
) -> Callable[..., int | None]:
    params, results = functype.params, functype.results
    where = f"the result of the host function {name}"

    def call(*patterns: int) -> int | None:
        *arguments, slots = patterns
        returned = function(*map(from_pattern, params, arguments))
        if not results:
            return None
        instance = holder[0]()
        if len(results) == 1:
            return to_pattern(results[0], returned, instance, where)
        try:
            values = tuple(returned)
        except TypeError:
            values = (returned,)
        if len(values) != len(results):
            raise TypeError(
                f"{where} must be {len(results)} values {type_names(results)}, got {len(values)}"
            )
        target = (ctypes.c_uint64 * len(results)).from_address(slots)
        for i, (valtype, value) in enumerate(zip(results, values, strict=True)):
            target[i] = to_pattern(valtype, value, instance, where)
        return 0

    return call
