"""Run any WebAssembly module by Wasmtime; see :mod:`module_runs`."""

from __future__ import annotations

import importlib
import threading
import time

from asm_libcalls.runtime.table import MAXIMUM_ELEMENTS
from asm_libcalls.toy_jit.frontend.module import V128, VALUE_TYPE_NAMES
from module_runs import Run, note, to_number, to_numbers, to_pattern

TYPE_CHECKING = False
if TYPE_CHECKING:
    import types
    from collections.abc import Callable, Sequence
    from typing import Any

    from asm_libcalls.toy_jit.frontend import module as decoded_module


def wasmtime_package() -> types.ModuleType | None:
    """Return the package wasmtime, if it is installed."""
    try:
        return importlib.import_module("wasmtime")
    except ImportError:
        return None


class WasmtimeRun(Run):
    """A run by Wasmtime."""

    _engine: Any = None

    def __init__(
        self, wasmtime: types.ModuleType, decoded: decoded_module.Module, binary: bytes, seed: str
    ) -> None:
        super().__init__(decoded, binary, seed)
        self._wasmtime = wasmtime
        self._store = wasmtime.Store(self.engine(wasmtime))
        self._store.set_limits(table_elements=MAXIMUM_ELEMENTS)  # toy_jit's; more would take long
        self._store.set_epoch_deadline(100)
        self._exports: Any = None
        self._callers: list[Any] = []

    @classmethod
    def engine(cls, wasmtime: types.ModuleType) -> Any:
        """Return the engine of this process: WebAssembly 2.0, and a clock that interrupts."""
        if cls._engine is None:
            config = wasmtime.Config()
            for later in (
                "wasm_relaxed_simd", "wasm_tail_call", "wasm_threads", "wasm_memory64",
                "wasm_multi_memory", "wasm_gc", "wasm_function_references", "wasm_exceptions",
                "wasm_wide_arithmetic", "wasm_custom_page_sizes",
            ):  # fmt: skip
                setattr(config, later, False)
            config.parallel_compilation = False
            config.epoch_interruption = True
            cls._engine = wasmtime.Engine(config)
            threading.Thread(target=cls._tick, daemon=True).start()
        return cls._engine

    @classmethod
    def _tick(cls) -> None:
        while True:
            time.sleep(0.05)
            cls._engine.increment_epoch()

    def instantiate(self, imports: list[Any]) -> None:
        """Make the instance."""
        wasmtime = self._wasmtime
        module = wasmtime.Module(self.engine(wasmtime), self.binary)
        instance = wasmtime.Instance(self._store, module, imports)
        self._exports = instance.exports(self._store)

    def close(self) -> None:
        """Delete the store. At its exit CPython 3.13 without the GIL would end by SIGSEGV there."""
        self._store.close()

    def _value_type(self, value_type: int) -> Any:
        if value_type == V128:
            raise self._wasmtime.WasmtimeError("a v128 of the host")
        return getattr(self._wasmtime.ValType, VALUE_TYPE_NAMES[value_type])()

    def host_function(self, entry: decoded_module.Import, call: Callable[..., Any]) -> Any:
        """Make an import of a function of ours."""
        functype: Any = entry.type

        def function(caller: Any, *values: Any) -> Any:
            self._callers.append(caller)
            try:
                patterns = [*map(self._pattern, functype.params, values)]
                results = to_numbers(functype.results, call(*patterns))
                return results[0] if len(results) == 1 else results or None
            finally:
                self._callers.pop()

        kind = self._wasmtime.FuncType(
            [*map(self._value_type, functype.params)], [*map(self._value_type, functype.results)]
        )
        return self._wasmtime.Func(self._store, kind, function, access_caller=True)

    def host_object(self, entry: decoded_module.Import, value: Any) -> Any:
        """Make an import that is no function."""
        wasmtime = self._wasmtime
        anything: Any = entry.type
        if entry.kind == "global":
            number = to_number(anything.value, value)
            global_type = wasmtime.GlobalType(self._value_type(anything.value), anything.mutable)
            initial = getattr(wasmtime.Val, VALUE_TYPE_NAMES[anything.value])(number)
            return wasmtime.Global(self._store, global_type, initial)
        if entry.kind == "memory":
            limits = wasmtime.Limits(anything.minimum, anything.maximum)
            return wasmtime.Memory(self._store, wasmtime.MemoryType(limits))
        limits = wasmtime.Limits(anything.limits.minimum, anything.limits.maximum)
        table_type = wasmtime.TableType(self._value_type(anything.element), limits)
        null = getattr(wasmtime.Val, VALUE_TYPE_NAMES[anything.element])(None)
        return wasmtime.Table(self._store, table_type, null)

    def call(self, name: str, functype: decoded_module.FuncType, arguments: Sequence[Any]) -> Any:
        """Call an export."""
        if V128 in functype.params:
            # Some versions of the package end the process here; with results they raise this.
            raise self._wasmtime.WasmtimeError("a v128 argument")
        values = to_numbers(functype.params, arguments)
        store = self._callers[-1] if self._callers else self._store
        if not self._callers:
            self._store.set_epoch_deadline(100)
        results = self._exports[name](store, *values)
        if len(functype.results) == 1:
            results = [results]
        return [*map(self._pattern, functype.results, results or [])]

    def _pattern(self, value_type: int, value: Any) -> Any:
        if isinstance(value, self._wasmtime.Val):  # some references come wrapped
            value = value.value
        return to_pattern(value_type, value)

    def ready(self) -> bool:
        """Return whether there is an instance."""
        return self._exports is not None

    def trap_name(self, error: Exception) -> str | None:
        """Return the name of a trap, or None for any other exception."""
        if isinstance(error, self._wasmtime.Trap):
            return str(error.trap_code.name)
        return None

    def state(self, export: decoded_module.Export) -> Any:
        """Return what is in an export."""
        value = self._exports[export.name]
        if export.kind == "memory":
            return bytes(value.read(self._store, 0, 1 << 20)), value.size(self._store)
        if export.kind == "global":
            value_type = self.decoded.globals[export.index].type.value
            return note(value_type, self._pattern(value_type, value.value(self._store)))
        element = self.decoded.tables[export.index].element
        size = value.size(self._store)
        items = [value.get(self._store, i) for i in range(min(size, 100))]
        return size, [note(element, self._pattern(element, item)) for item in items]
