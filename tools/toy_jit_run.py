"""Run any WebAssembly module by ``asm_libcalls.toy_jit``; see :mod:`module_runs`."""

from __future__ import annotations

import contextlib
import random
import threading
import time
import weakref

import asm_libcalls
from asm_libcalls import Trap, TrapCode
from asm_libcalls.toy_jit import Instance, Module
from asm_libcalls.toy_jit.frontend.module import VALUE_TYPE_NAMES
from module_runs import FORMATS, Run, Thing, note, to_number, to_numbers, to_pattern

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from asm_libcalls.toy_jit.frontend import module as decoded_module

LIMIT = 0.1
"""Seconds that a call may take before it is interrupted."""

# What Wasmtime calls a trap. It has no trap of its own for a call_indirect past the table's end.
_NAMES = {
    "HEAP_OUT_OF_BOUNDS": "MEMORY_OUT_OF_BOUNDS",
    "UNDEFINED_ELEMENT": "TABLE_OUT_OF_BOUNDS",
    "UNREACHABLE_CODE_REACHED": "UNREACHABLE",
}


class _Watch:
    """Interrupts calls that take too long, from a thread of its own."""

    def __init__(self) -> None:
        self._until = 0.0
        self._instance: Instance | None = None
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def watching(self, instance: Instance) -> Iterator[None]:
        """Interrupt an instance if the block takes longer than :data:`LIMIT`."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        if self._until:  # a nested call, which the outer call's limit covers
            yield
            return
        self._instance, self._until = instance, time.monotonic() + LIMIT
        try:
            yield
        finally:
            self._until, self._instance = 0.0, None

    def _watch(self) -> None:
        while True:
            time.sleep(LIMIT / 10)
            if self._until and time.monotonic() > self._until:
                _interrupt(self._instance)


def _interrupt(instance: Instance | None) -> None:
    # An instance has nothing to interrupt before its runtime exists.
    if instance is not None and hasattr(instance, "runtime"):
        instance.interrupt()


_watch = _Watch()
_alive: weakref.WeakSet[Thing] = weakref.WeakSet()


def things_alive() -> int:
    """Return how many objects that our instances were given are still referenced."""
    return len(_alive)


class ToyJitRun(Run):
    """A run by asm_libcalls.toy_jit."""

    def __init__(self, module: Module, binary: bytes, seed: str) -> None:
        super().__init__(module.decoded, binary, seed)
        self._module = module
        self._gc = random.Random(seed)
        self._made: Instance | None = None

    def instantiate(self, imports: list[Any]) -> None:
        """Make the instance."""
        names: dict[str, dict[str, Any]] = {}
        for entry, value in zip(self.decoded.imports, imports, strict=True):
            names.setdefault(entry.module, {})[entry.name] = value
        # In two steps, so that a start function can be interrupted.
        instance = Instance.__new__(Instance)
        with _watch.watching(instance):
            instance.__init__(self._module, names)  # type: ignore[misc]
        self._made = instance

    def host_function(self, entry: decoded_module.Import, call: Callable[..., Any]) -> Any:
        """Make an import of a function of ours."""
        functype: Any = entry.type

        def function(*values: Any) -> Any:
            if self._made is not None and self._gc.random() < 0.3:
                asm_libcalls.gc(self._made.runtime)
            patterns = map(to_pattern, functype.params, values)
            results = tuple(to_numbers(functype.results, call(*patterns)))
            return results[0] if len(results) == 1 else results or None

        return function

    def host_object(self, entry: decoded_module.Import, value: Any) -> Any:
        """Make an import that is no function."""
        kind: Any = entry.type
        if entry.kind == "global":
            number = to_number(kind.value, value)
            return asm_libcalls.Global(VALUE_TYPE_NAMES[kind.value], number, kind.mutable)
        if entry.kind == "memory":
            return asm_libcalls.Memory(kind.minimum, kind.maximum)
        limits = kind.limits
        return asm_libcalls.Table(VALUE_TYPE_NAMES[kind.element], limits.minimum, limits.maximum)

    def call(self, name: str, functype: decoded_module.FuncType, arguments: Sequence[Any]) -> Any:
        """Call an export."""
        assert self._made is not None
        with _watch.watching(self._made):
            return self._made.exports[name].call_bits(*arguments)

    def ready(self) -> bool:
        """Return whether there is an instance."""
        return self._made is not None

    def new_thing(self, number: int) -> Thing:
        """Make an object, and count it as long as it exists."""
        thing = Thing(number)
        _alive.add(thing)
        return thing

    def trap_name(self, error: Exception) -> str | None:
        """Return the name of a trap, or None for any other exception."""
        if not isinstance(error, Trap):
            return None
        name = TrapCode(error.code).name
        return _NAMES.get(name, name)

    def state(self, export: decoded_module.Export) -> Any:
        """Return what is in an export."""
        assert self._made is not None
        value = self._made.exports[export.name]
        if export.kind == "memory":
            return bytes(memoryview(value).cast("B")[: 1 << 20]), value.size
        if export.kind == "global":
            value_type = self.decoded.globals[export.index].type.value
            return note(value_type, value.bits if value_type in FORMATS else value.value)
        element = self.decoded.tables[export.index].element
        return len(value), [note(element, value[i]) for i in range(min(len(value), 100))]
