"""Host functions: Python callables that WebAssembly imports."""

from __future__ import annotations

import ctypes
import weakref
from functools import partial

from asm_libcalls.binding import default_binding
from asm_libcalls.runtime.instance import Instance
from asm_libcalls.signatures.arguments import first_items, iterator_of, number_of
from asm_libcalls.toy_jit.codegen.layout import type_id
from asm_libcalls.toy_jit.frontend.module import V128, type_names
from asm_libcalls.toy_jit.link.code_map import traced
from asm_libcalls.toy_jit.runtime.functions import Func
from asm_libcalls.toy_jit.runtime.values import NUMBERS, from_slots, slot_count, to_slots
from asm_libcalls.x86_64.trampolines.call_records import make_number_record, make_slot_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from asm_libcalls.toy_jit.frontend.module import FuncType
    from asm_libcalls.toy_jit.runtime.deadlines import Deadline

_MOST_ARGUMENTS = 32
"""The most slots that a thunk passes one by one; if a call has more, all are read from the stack.
The record has an entry for each slot that is passed. Without a limit, a module with many such
imports would use memory out of proportion."""


class HostInstance(Instance):
    """An instance of Python functions, for others to import.

    Only this object keeps the Python functions alive. So the garbage collector can break a cycle of
    a function and an instance that imports it. Each function has its type, and its name in errors.
    """

    def __init__(self, functions: Sequence[tuple[Callable[..., Any], FuncType, str]]) -> None:
        self._begin()
        thunks = default_binding().thunks()
        self.function_keepers: dict[int, Instance] = {}
        self.deadlines: list[Deadline] = []
        self._borrowed: list[object] = []
        rows = []
        for function, functype, name in functions:
            where = f"the result of the host function {name}"
            if _has_numbers_alone(functype):
                record, *borrowed = _number_record(function, functype, where)
            else:
                record, *borrowed = _SlotCall(self, function, functype, where).record()
            self._borrowed += borrowed
            thunk = thunks.thunk_of_record(record)
            rows.append((thunk.address, type_id(functype)))
            # Before destructors of the same garbage cycle run: the record owns no callable.
            weakref.finalize(self, thunk.close).atexit = False
            thunk.keep()
        super().__init__(functions=rows, function_class=Func)
        for func, (_, _, name) in zip(self.functions, functions, strict=True):
            func.name = name  # type: ignore[attr-defined]

    def share(self, importer: Instance) -> None:
        """Root externrefs that the functions return in the importer, whose frames get them."""
        self.activations_table = importer.activations_table
        self.stack_map_registry = importer.stack_map_registry

    def check_soon(self) -> None:
        """Do nothing: a running Python function is not stopped."""


def _has_numbers_alone(functype: FuncType) -> bool:
    types = {*functype.params, *functype.results}
    few = len(functype.params) <= _MOST_ARGUMENTS and len(functype.results) <= 1
    return few and NUMBERS.keys() - {V128} >= types


def _number_record(
    function: Callable[..., Any], functype: FuncType, where: str
) -> tuple[ctypes.Array[ctypes.c_char], object, object]:
    """Make a record for numbers, with at most one result; return it, and what it borrows."""
    parameters = [NUMBERS[valtype] for valtype in functype.params]
    result, convert = None, None
    if functype.results:
        result = NUMBERS[functype.results[0]]
        # of a result that is not exactly a number in the range of its type
        convert = traced(partial(result.to_bits, where=where))
    call = traced(function)
    return make_number_record(call, convert, parameters, result), call, convert


class _SlotCall:
    """The callable of all other types, which a thunk calls with the slots and their address."""

    def __init__(
        self, instance: HostInstance, function: Callable[..., Any], functype: FuncType, where: str
    ) -> None:
        self.instance = weakref.ref(instance)
        self.function = function
        self.functype = functype
        self.where = where
        count = slot_count(functype.params)
        self.slots_on_stack = count if count > _MOST_ARGUMENTS else 0

    def record(self) -> tuple[ctypes.Array[ctypes.c_char], object]:
        """Make its record; return it, and the callable that it borrows."""
        call = traced(self)
        count = 0 if self.slots_on_stack else slot_count(self.functype.params)
        return make_slot_record(call, int, count, bool(self.functype.results)), call

    def __call__(self, *given: int) -> int | None:
        *arguments, slots = given
        if self.slots_on_stack:
            arguments = (ctypes.c_uint64 * self.slots_on_stack).from_address(slots)[:]
        params, results = self.functype.params, self.functype.results
        instance = self.instance()
        assert instance is not None  # the calling instance imports it
        returned = self.function(*from_slots(params, arguments))
        if not results:
            return None
        values, where = [returned], self.where
        if len(results) > 1:
            where = f"{self.where}: value"
            try:
                iterator = iterator_of(returned)
            except TypeError:
                pass
            else:
                values = first_items(iterator, len(results))
        if len(values) != len(results):
            raise TypeError(
                f"{self.where} must be {len(results)} values {type_names(results)}, "
                f"got {number_of(values, len(results))}"
            )
        taken, _ = to_slots(results, values, instance, where, returned=True)
        if len(taken) == 1:
            return taken[0]
        target = (ctypes.c_uint64 * len(taken)).from_address(slots)
        for i, slot in enumerate(taken):
            target[i] = slot
        return 0
