"""Modules and instances: what a user of toy_jit begins with.

An instance of a module is an :class:`asm_libcalls.Instance` with the module's code. Instantiation
is that of the specification (2.0, 4.5.4): imports are matched, segments are copied in order, the
start function is called.
"""

from __future__ import annotations

import math
import operator
from types import MappingProxyType

from asm_libcalls.fallback import memories as memory_libcalls
from asm_libcalls.fallback import tables as table_libcalls
from asm_libcalls.libcalls import DECLARATIONS
from asm_libcalls.runtime.element_segment import ElementSegment
from asm_libcalls.runtime.funcref import FuncRef
from asm_libcalls.runtime.global_ import Global
from asm_libcalls.runtime.instance import gc
from asm_libcalls.runtime.memory import Memory
from asm_libcalls.runtime.table import Table
from asm_libcalls.toy_jit.codegen.layout import type_id
from asm_libcalls.toy_jit.frontend import opcodes as op
from asm_libcalls.toy_jit.frontend.decoder import decode_module
from asm_libcalls.toy_jit.frontend.external_types import exports_of, import_type, imports_of
from asm_libcalls.toy_jit.frontend.module import VALUE_TYPE_NAMES
from asm_libcalls.toy_jit.link.linker import compile_module
from asm_libcalls.toy_jit.options import CompileOptions
from asm_libcalls.toy_jit.runtime import interrupts
from asm_libcalls.toy_jit.runtime.compiled_instance import CompiledInstance
from asm_libcalls.toy_jit.runtime.functions import Func, host_instance
from asm_libcalls.traps import Trap

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence
    from typing import Any

    from asm_libcalls.toy_jit.frontend import module as decoded_module
    from asm_libcalls.toy_jit.frontend.external_types import ExportType, ImportType
    from asm_libcalls.toy_jit.runtime.functions import HostInstance

__all__ = ["Instance", "LinkError", "Module"]


class LinkError(Exception):
    """An import is missing, or not what the module declares.

    Attributes
    ----------
    missing : tuple of ImportType
        All imports that are not there.
    """

    missing: tuple[ImportType, ...] = ()


class Module:
    """A compiled module.

    Parameters
    ----------
    wasm : bytes-like
        The binary format.
    options : CompileOptions, optional
        What :func:`compile_options` made.

    Attributes
    ----------
    decoded : asm_libcalls.toy_jit.frontend.module.Module
        Its parts.
    code : CompiledCode
        Its machine code, which all its instances share.

    Raises
    ------
    InvalidModule
        It is malformed or not valid: what, and at which byte.
    TypeError
        `wasm` is not bytes-like.
    """

    def __init__(self, wasm: Any, options: CompileOptions | None = None) -> None:
        try:
            binary = bytes(memoryview(wasm).cast("B"))
        except TypeError:
            hint = ""
            if isinstance(wasm, str) or hasattr(wasm, "__fspath__"):
                hint = f"; Module.from_file({wasm!r}) reads a file"
            raise TypeError(
                f"Module(): wasm must be bytes-like, got {type(wasm).__name__}{hint}"
            ) from None
        self.decoded = decode_module(binary)
        if options is not None and not isinstance(options, CompileOptions):
            raise TypeError(
                "Module(): options must be what compile_options() returns, "
                f"got {type(options).__name__}"
            )
        self.code = compile_module(self.decoded, options or CompileOptions())

    @classmethod
    def from_file(
        cls, path: str | os.PathLike[str], options: CompileOptions | None = None
    ) -> Module:
        """Compile a file.

        Parameters
        ----------
        path : str or path-like
            A module in the binary format; one in the text format if the name ends in ``.wat``,
            which wabt's ``wat2wasm`` or the package wasmtime converts.
        options : CompileOptions, optional

        Raises
        ------
        OSError
            The file cannot be read.
        InvalidModule
            As of the class.
        ValueError
            The text format is wrong.
        RuntimeError
            No converter of the text format is installed.
        """
        from pathlib import Path

        file = Path(path)
        content = file.read_bytes()
        if file.suffix == ".wat":
            from asm_libcalls.toy_jit.text_format import convert

            content = convert(content, str(file))
        return cls(content, options)

    @property
    def imports(self) -> tuple[ImportType, ...]:
        """What it imports, in its order: `module`, `name`, `kind` and `type` of each."""
        return imports_of(self.decoded)

    @property
    def exports(self) -> tuple[ExportType, ...]:
        """What it exports, in its order: `name`, `kind` and `type` of each."""
        return exports_of(self.decoded)

    def __repr__(self) -> str:
        name = f" {self.decoded.name}" if self.decoded.name else ""
        return f"<Module{name}: {len(self.decoded.functions)} functions>"

    def libcall_counts(self) -> dict[str, int]:
        """Return how often the code of this module has called each libcall, by its name.

        Raises
        ------
        ValueError
            The module was compiled without ``compile_options(count_libcalls=True)``.
        """
        counters = self.code.layout.counters
        if counters is None:
            raise ValueError(
                "libcall_counts(): the Module must be compiled with "
                "compile_options(count_libcalls=True)"
            )
        return dict(zip(DECLARATIONS, counters, strict=True))

    def interrupt(self) -> None:
        """Stop what the instances of this module are computing: they trap with Interrupt.

        That includes an instance whose start function is running, which nobody has yet. One that
        is not running traps when it is called next.
        """
        for runtime in interrupts.stoppable.copy().values():
            if isinstance(runtime, CompiledInstance) and runtime.code is self.code:
                runtime.ask_to_trap()


class Instance:
    """An instance of a module.

    Parameters
    ----------
    module : Module
    imports : mapping of str to mapping of str to object, optional
        By module and name: Python callables, Memory, Table, Global, or another instance's exports.
    time_limit : number, optional
        The seconds that instantiation, with the start function, may take; then it traps with
        Interrupt. No limit by default. (:meth:`time_limit` limits what is called later.)

    Attributes
    ----------
    exports : Mapping
        By name, in the order of the module: Func, Memory, Table or Global.
    runtime : asm_libcalls.Instance
        What the compiled code runs in.

    Raises
    ------
    LinkError
        An import is missing or of another type.
    Trap
        A segment does not fit (the message names it), or the start function trapped.
    TypeError, ValueError
        A limit is no number, or negative.

    Notes
    -----
    Instances of one module share its code. An instance, with all that it is linked to, is used by
    one thread at a time; others may do so after it, or call :meth:`interrupt`.

    An exported function keeps its instance alive. Where nobody has either any more, the garbage
    collector frees both, also with host functions that refer to the instance; the code goes with
    the last instance of the module.

    The growth of a memory or table is limited by its attribute `limiter`, which can be set where it
    is exported: ``limiter(current, desired, maximum)`` refuses with a false result.

    Recursion traps with StackOverflow while there are 512 KiB left for host functions, or a quarter
    of a thread's stack if that is less.
    """

    def __init__(
        self,
        module: Module,
        imports: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        time_limit: float | None = None,
    ) -> None:
        if not isinstance(module, Module):
            raise TypeError(f"Instance(): module must be a Module, got {type(module).__name__}")
        seconds = math.inf
        if time_limit is not None:
            seconds = interrupts.limit_of_time(time_limit, "Instance(): time_limit")
        decoded = module.decoded
        self.module = module
        self._imports, host = _match(decoded, imports or {})
        self.runtime = self._make_runtime()
        if host is not None:
            host.share(self.runtime)
        own: list[Any] = self.runtime.functions[decoded.imported_functions :]
        for func, brief in zip(own, module.code.layout.brief, strict=True):
            func.brief = brief
        self._spaces = {
            "func": [*self._imports["func"], *own],  # an import is the function that it stands for
            "table": self.runtime.tables,
            "memory": self.runtime.memories,
            "global": self.runtime.globals,
        }
        exports = {e.name: self._spaces[e.kind][e.index] for e in decoded.exports}
        for name, value in exports.items():
            if isinstance(value, Func) and value.name.startswith("function "):
                value.name = name
        self.exports: Mapping[str, Any] = MappingProxyType(exports)
        self.runtime.owner = self
        with self.time_limit(seconds):
            self._run_segments()
            if decoded.start is not None:
                self._spaces["func"][decoded.start]()

    def __repr__(self) -> str:
        return f"<Instance of {self.module!r}>"

    @property
    def memory(self) -> Memory:
        """Its memory, exported or not.

        Raises
        ------
        AttributeError
            It has none.
        """
        memories = self._spaces["memory"]
        if not memories:
            raise AttributeError("the Instance has no memory")
        memory: Memory = memories[0]
        return memory

    def interrupt(self) -> None:
        """Stop what this instance is computing, from another thread: it traps with Interrupt.

        Code that is not running now traps when it is called next. It notices at the next loop or
        function call, in this instance or in another one that it has called. A host function that
        runs is not stopped; one that catches the Interrupt of what it called goes on.
        """
        self.runtime.ask_to_trap()

    def time_limit(self, seconds: float) -> interrupts.time_limit:
        """Make a context in which this instance may compute for so many seconds at most.

        Then it traps with Interrupt, at its next loop or function call, and so does whatever is
        called in it until the context is left::

            with instance.time_limit(0.5):
                instance.exports["main"]()

        The limit covers the instances that this one calls, through imports and host functions. A
        host function that runs is not stopped. Contexts may be nested: each limit holds.

        Raises
        ------
        TypeError, ValueError
            The limit is no number, or negative. (Infinity is no limit.)
        """
        return interrupts.time_limit(self.runtime, seconds)

    def gc(self) -> None:
        """Drop the externrefs that no frame holds any more, which also happens by itself at times.

        Raises
        ------
        BaseException
            The first exception that a destructor raised.
        """
        gc(self.runtime)

    def close(self) -> None:
        """Release what the instance holds; twice is a no-op.

        Its functions raise ValueError from then on. What it exports and others import lives on.

        Raises
        ------
        RuntimeError
            Code of the instance is running in this thread. (What runs in another thread is not
            seen: an instance is used by one thread at a time.)
        """
        self.runtime.close()

    def __enter__(self) -> Instance:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # -- parts

    def _make_runtime(self) -> CompiledInstance:
        decoded, code = self.module.decoded, self.module.code
        functions = decoded.functions[decoded.imported_functions :]
        memories = decoded.memories[decoded.imported_memories :]
        tables = decoded.tables[decoded.imported_tables :]
        runtime = CompiledInstance(
            code,
            memories=[Memory(limits.minimum, limits.maximum) for limits in memories],
            tables=[Table(_name(t.element), t.limits.minimum, t.limits.maximum) for t in tables],
            globals=[self._global(g) for g in decoded.globals[decoded.imported_globals :]],
            functions=[
                (code.function_address(i), type_id(f.type)) for i, f in enumerate(functions)
            ],
            data=[segment.init for segment in decoded.data],
            elements=[
                ElementSegment(_name(e.type), [self._constant(item) for item in e.init])
                for e in decoded.elements
            ],
            imports={_SPACES[kind]: values for kind, values in self._imports.items()},
            signature_ids=[type_id(functype) for functype in decoded.types],
            function_class=Func,
        )
        for entry, global_ in zip(decoded.globals, runtime.globals, strict=True):
            if entry.init is not None and entry.init[0] == op.REF_FUNC:
                func = runtime.functions[entry.init[1]]
                global_.swap_raw(func.as_raw(), func.instance)
        return runtime

    def _global(self, entry: decoded_module.Global) -> Global:
        # There are no functions yet: those that refer to one are null at first.
        value = None if entry.init[0] == op.REF_FUNC else self._constant(entry.init)
        return Global.from_bits_or_reference(_name(entry.type.value), value, entry.type.mutable)

    def _constant(self, expression: decoded_module.ConstExpr) -> Any:
        """Evaluate a constant expression; a function is its index."""
        opcode, immediate = expression
        if opcode == op.BLOCK:
            return self._extended_constant(immediate)
        if opcode == op.GLOBAL_GET:
            global_ = self._imports["global"][immediate]
            is_float = global_.value_type in ("f32", "f64")
            return global_.bits if is_float else global_.value
        return None if opcode == op.REF_NULL else immediate

    def _extended_constant(self, expressions: Sequence[decoded_module.ConstExpr]) -> int:
        stack: list[int] = []
        for opcode, immediate in expressions:
            if immediate is not None:
                stack.append(self._constant((opcode, immediate)))
                continue
            second, first = stack.pop(), stack.pop()
            calculate, bits = _ARITHMETIC[opcode]
            value = calculate(first, second) & (1 << bits) - 1
            stack.append(value - (value >> bits - 1 << bits))  # signed, as constants are
        return stack[0]

    def _run_segments(self) -> None:
        vmctx = self.runtime.vmctx
        decoded = self.module.decoded
        for i, element in enumerate(decoded.elements):
            if element.mode == "active":
                assert element.offset is not None
                start = self._constant(element.offset) & 0xFFFFFFFF
                count = len(element.init)
                with _naming(
                    f"element segment {i}", count, start, self._spaces["table"][element.table]
                ):
                    table_libcalls.table_init(vmctx, element.table, i, start, 0, count)
            if element.mode != "passive":
                table_libcalls.elem_drop(vmctx, i)
        for i, data in enumerate(decoded.data):
            if data.mode == "active":
                assert data.offset is not None
                start = self._constant(data.offset) & 0xFFFFFFFF
                size = len(data.init)
                with _naming(f"data segment {i}", size, start, self._spaces["memory"][data.memory]):
                    memory_libcalls.memory_init(vmctx, data.memory, i, start, 0, size)
                memory_libcalls.data_drop(vmctx, i)


class _naming:
    """A context in which a trap says which segment did not fit."""

    def __init__(self, segment: str, count: int, start: int, target: Memory | Table) -> None:
        self.described = segment, count, start, target

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, Trap):
            segment, count, start, target = self.described
            what, unit = (
                ("memory", "bytes") if isinstance(target, Memory) else ("table", "elements")
            )
            error.args = (
                f"{error.args[0]}: {segment} has {count} {unit} for {start:#x}, and the {what} "
                f"{len(target)} {unit}",
            )


def _name(valtype: int) -> str:
    return VALUE_TYPE_NAMES[valtype]


_ARITHMETIC = {
    op.I32_ADD: (operator.add, 32), op.I32_SUB: (operator.sub, 32), op.I32_MUL: (operator.mul, 32),
    op.I64_ADD: (operator.add, 64), op.I64_SUB: (operator.sub, 64), op.I64_MUL: (operator.mul, 64),
}  # fmt: skip

WASI = "wasi_snapshot_preview1"
"""The module that programs import WASI from."""

_SPACES = {"func": "functions", "table": "tables", "memory": "memories", "global": "globals"}
_KINDS: dict[str, type[Any]] = {"func": FuncRef, "table": Table, "memory": Memory, "global": Global}


def _match(
    decoded: decoded_module.Module, given: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, list[Any]], HostInstance | None]:
    """Find the imports of a module in what is given for them.

    Returns
    -------
    dict of str to list
        The imports of each kind, in their order.
    HostInstance or None
        Of the imports that are Python callables.
    """
    _check_missing(decoded, given)
    imports: dict[str, list[Any]] = {kind: [] for kind in _SPACES}
    host: dict[int, tuple[Any, Any, str]] = {}
    for entry in decoded.imports:
        name = f"{entry.module}.{entry.name}"
        value = given[entry.module][entry.name]
        if entry.kind == "func" and callable(value) and not isinstance(value, FuncRef):
            own = getattr(value, "wasm_type", None)  # most Python functions take what comes
            if own is not None and own != entry.type:
                raise LinkError(
                    f"incompatible import type for {name}: expected {entry.type!r}, got {own!r}"
                )
            host[len(imports["func"])] = (value, entry.type, name)
        elif problem := _mismatch(entry, value):
            raise LinkError(f"incompatible import type for {name}: {problem}")
        imports[entry.kind].append(value)
    if not host:
        return imports, None
    instance = host_instance([*host.values()])
    for place, func in zip(host, instance.functions, strict=True):
        imports["func"][place] = func
    return imports, instance


def _check_missing(decoded: decoded_module.Module, given: Mapping[str, Mapping[str, Any]]) -> None:
    missing = []
    for entry in decoded.imports:
        try:
            given[entry.module][entry.name]
        except (KeyError, TypeError):
            missing.append(import_type(entry))
    if not missing:
        return
    lines = list(dict.fromkeys(map(str, missing)))
    if len(lines) == 1:
        what = f"unknown import {lines[0]}"
    else:
        what = "\n  ".join([f"{len(lines)} unknown imports:", *lines])
    if any(each.module == WASI for each in missing):
        what += f"\nasm_libcalls.toy_jit.wasi.Preview1() gives {WASI}"
    error = LinkError(what)
    error.missing = tuple(missing)
    raise error


def _mismatch(entry: decoded_module.Import, value: Any) -> str:
    """Say why a value can not be imported, or return "" (2.0, 3.2 and 4.5.2: import matching)."""
    wanted: Any = entry.type
    if not isinstance(value, _KINDS[entry.kind]):
        return f"expected a {entry.kind}, got {type(value).__name__}"
    if entry.kind == "func":
        if value.type_index != type_id(wanted):
            return f"expected {wanted!r}, got {value!r}"
    elif entry.kind == "global":
        if (value.value_type, value.mutable) != (_name(wanted.value), wanted.mutable):
            mutable = "mutable " if wanted.mutable else ""
            return f"expected a {mutable}{_name(wanted.value)}, got {value!r}"
    else:
        limits = wanted
        if entry.kind == "table":
            limits = wanted.limits
            if value.element_type != _name(wanted.element):
                return f"expected a table of {_name(wanted.element)}, got {value!r}"
        size = len(value) if entry.kind == "table" else value.size
        if size < limits.minimum:
            return f"expected at least {limits.minimum}, got {value!r}"
        if limits.maximum is not None and (value.maximum is None or value.maximum > limits.maximum):
            return f"expected a maximum of at most {limits.maximum}, got {value!r}"
    return ""
