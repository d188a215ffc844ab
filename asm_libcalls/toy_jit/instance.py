"""The public class Instance: a module with its imports, ready to be called.

It wraps an :class:`asm_libcalls.Instance` in which the module's code runs. Instantiation follows
the specification (2.0, 4.5.4): match the imports, copy the segments in order, call the start
function. The steps are in ``runtime/``.
"""

from __future__ import annotations

import math
from types import MappingProxyType

from asm_libcalls.owned.objects import Owned, is_a, unmade
from asm_libcalls.runtime.instance import gc
from asm_libcalls.runtime.memory import Memory
from asm_libcalls.runtime.store_entries import call_inside
from asm_libcalls.toy_jit.module import Module
from asm_libcalls.toy_jit.runtime import time_limits
from asm_libcalls.toy_jit.runtime.functions import Func
from asm_libcalls.toy_jit.runtime.imports import match_imports
from asm_libcalls.toy_jit.runtime.instantiation import copy_segments, make_runtime
from asm_libcalls.toy_jit.store_limits import Admission, StoreLimits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from asm_libcalls.toy_jit.runtime.compiled_instance import CompiledInstance


class Instance(Owned):
    """An instance of a module.

    Parameters
    ----------
    module : Module
    imports : mapping of str to mapping of str to object, optional
        By module and name: Python callables, Memory, Table, Global, or another instance's exports.
    time_limit : number, optional
        Seconds after which instantiation, including the start function, traps with Interrupt.
        No limit by default. (:meth:`time_limit` limits later calls.)
    limits : StoreLimits, optional
        For the memories and tables that the module defines: growth beyond them returns -1.

    Attributes
    ----------
    exports : Mapping
        By name, in the order of the module: Func, Memory, Table or Global.
    runtime : asm_libcalls.Instance
        The instance in which the compiled code runs.

    Raises
    ------
    LinkError
        An import is missing or of another type.
    Trap
        A segment does not fit (the message names it), or the start function trapped.
    LimitExceeded
        The initial size of a memory or table, or a count, is above a limit of `limits`.
    TypeError, ValueError
        A limit is no number, or negative.

    Notes
    -----
    Instances of one module share its code. Only one thread at a time may use an instance and the
    instances it is linked to; without the GIL, threads take turns. Any thread may call
    :meth:`interrupt`.

    An exported function keeps its instance alive. The garbage collector frees both when they are
    unreachable, also in a cycle through host functions. A cycle through objects that were passed to
    a function and not stored is freed while no other thread exists; :meth:`gc` breaks it at any
    time. The code is unmapped with the last instance of the module.

    An exported memory or table has an attribute `limiter`, which limits its growth too:
    ``limiter(current, desired, maximum)`` refuses with a false result.

    A call from Python may use an eighth of the stack that its thread has left (at most 4 MiB).
    Recursion beyond that traps with StackOverflow. Calls by its host functions share this budget.

    Each greenlet (gevent) has its own calls: host functions may switch, wait and be killed.
    """

    module: Module = unmade()
    runtime: CompiledInstance = unmade()
    exports: Mapping[str, Any] = unmade()
    _spaces: dict[str, list[Any]] = unmade()
    _closes_when_dropped = False  # exported functions may outlive this object, and need the runtime

    def __init__(
        self,
        module: Module,
        imports: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        time_limit: float | None = None,
        limits: StoreLimits | None = None,
    ) -> None:
        self._begin()
        if not is_a(module, Module):
            raise TypeError(f"Instance(): module must be a Module, got {type(module).__name__}")
        seconds = math.inf
        if time_limit is not None:
            seconds = time_limits.limit_of_time(time_limit, "Instance(): time_limit")
        if limits is not None and not is_a(limits, StoreLimits):
            raise TypeError(
                f"Instance(): limits must be a StoreLimits, got {type(limits).__name__}"
            )
        decoded = module.decoded
        self.module = module
        matched, host = match_imports(decoded, {} if imports is None else imports)
        self._admission = None if limits is None else Admission(limits, decoded)
        self.runtime = make_runtime(decoded, module.code, matched, limits or StoreLimits())
        if self._admission is not None:
            self._admission.belongs_to(self.runtime)
        if host is not None:
            host.share(self.runtime)
        own: list[Any] = self.runtime.functions[decoded.imported_functions :]
        for func, brief in zip(own, map(bool, module.code.tables.brief), strict=True):
            func.brief = brief
        self._spaces = {
            "func": [*matched["func"], *own],  # a re-exported import is the function itself
            "table": self.runtime.tables,
            "memory": self.runtime.memories,
            "global": self.runtime.globals,
        }
        exports = {e.name: self._spaces[e.kind][e.index] for e in decoded.exports}
        for name, value in exports.items():
            if isinstance(value, Func) and value.name.startswith("function "):
                value.name = name
        self.exports = MappingProxyType(exports)
        self.runtime.owner = self
        self._finish()
        with self.time_limit(seconds):
            call_inside(self.runtime, copy_segments, decoded, self.runtime, matched)
            if decoded.start is not None:
                self._spaces["func"][decoded.start]()

    def __repr__(self) -> str:
        return f"<Instance of {self.module!r}>"

    @property
    def memory(self) -> Memory:
        """The instance's memory, exported or not.

        Raises
        ------
        AttributeError
            The instance has no memory.
        """
        memories = self._spaces["memory"]
        if not memories:
            raise AttributeError("the Instance has no memory")
        memory: Memory = memories[0]
        return memory

    def interrupt(self) -> None:
        """Make the running code of this instance trap with Interrupt; for other threads.

        The trap comes at the next loop or function call, in this instance or in one that it has
        called. If no code runs, the next call traps. A running host function is not stopped, and
        one that catches the Interrupt goes on.
        """
        self.runtime.ask_to_trap()

    def time_limit(self, seconds: float) -> time_limits.time_limit:
        """Return a context manager that limits how long this instance may compute.

        After that time its code traps with Interrupt, at the next loop or function call. So does
        each further call until the context is left::

            with instance.time_limit(0.5):
                instance.exports["main"]()

        The limit covers the instances that this one calls, through imports and host functions. A
        running host function is not stopped. Contexts may be nested: each limit holds.

        Raises
        ------
        TypeError, ValueError
            The limit is no number, or negative. (Infinity is no limit.)
        """
        return time_limits.time_limit(self.runtime, seconds)

    def gc(self) -> None:
        """Release externrefs that no frame holds. Collections also run by themselves.

        Raises
        ------
        BaseException
            The first exception that a destructor raised.
        """
        gc(self.runtime)

    def close(self) -> None:
        """Release what the instance holds; twice is a no-op.

        Its functions raise ValueError from then on, and so does its running code at the next loop
        or function call. Closing never waits. What running code uses is released after the code
        has left, when this object and its functions are unreachable. Exports that other instances
        import stay usable.

        Raises
        ------
        BaseException
            The first exception that a destructor raised.
        """
        super().close()

    def _release(self) -> None:
        try:
            self.runtime.close()
        finally:
            if self._admission is not None:
                self._admission.close()
