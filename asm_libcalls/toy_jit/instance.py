"""Instances: modules with their imports, ready to be called.

An instance of a module is an :class:`asm_libcalls.Instance` with the module's code. Instantiation
is that of the specification (2.0, 4.5.4): imports are matched, segments are copied in order, the
start function is called.
"""

from __future__ import annotations

import math
from types import MappingProxyType

from asm_libcalls.owned import Owned, is_a
from asm_libcalls.runtime.instance import gc
from asm_libcalls.runtime.memory import Memory
from asm_libcalls.toy_jit.limits import Admission, StoreLimits
from asm_libcalls.toy_jit.module import Module
from asm_libcalls.toy_jit.runtime import interrupts
from asm_libcalls.toy_jit.runtime.functions import Func
from asm_libcalls.toy_jit.runtime.imports import match_imports
from asm_libcalls.toy_jit.runtime.instantiation import copy_segments, make_runtime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

__all__ = ["Instance"]


class Instance(Owned):
    """An instance of a module.

    Parameters
    ----------
    module : Module
    imports : mapping of str to mapping of str to object, optional
        By module and name: Python callables, Memory, Table, Global, or another instance's exports.
    time_limit : number, optional
        The seconds that instantiation, with the start function, may take; then it traps with
        Interrupt. No limit by default. (:meth:`time_limit` limits what is called later.)
    limits : StoreLimits, optional
        For the memories and tables that the module makes: growth beyond them returns -1.

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
    LimitExceeded
        A memory or table would begin larger than `limits` allows, or is one too many.
    TypeError, ValueError
        A limit is no number, or negative.

    Notes
    -----
    Instances of one module share its code. An instance, with all that it is linked to, is used by
    one thread at a time; others may do so after it, or call :meth:`interrupt`.

    An exported function keeps its instance alive. Where nobody has either any more, the garbage
    collector frees both, also with host functions that refer to the instance; the code goes with
    the last instance of the module.

    The growth of a memory or table is limited by its attribute `limiter` too, which can be set
    where it is exported: ``limiter(current, desired, maximum)`` refuses with a false result.

    From its entry on, WebAssembly may use an eighth of what is left of the thread's stack (at most
    4 MiB); recursion beyond that traps with StackOverflow. Calls by its host functions share it.

    Each greenlet (gevent) has its own calls: host functions may switch, wait and be killed.
    """

    _closes_when_dropped = False  # its functions may be elsewhere, and keep what they need

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
            seconds = interrupts.limit_of_time(time_limit, "Instance(): time_limit")
        if limits is not None and not isinstance(limits, StoreLimits):
            raise TypeError(
                f"Instance(): limits must be a StoreLimits, got {type(limits).__name__}"
            )
        decoded = module.decoded
        self.module = module
        matched, host = match_imports(decoded, imports or {})
        self._admission = None if limits is None else Admission(limits, decoded)
        try:
            self.runtime = make_runtime(decoded, module.code, matched, limits or StoreLimits())
        except BaseException:
            if self._admission is not None:
                self._admission.give_back()
            raise
        if self._admission is not None:
            self._admission.belongs_to(self.runtime)
        if host is not None:
            host.share(self.runtime)
        own: list[Any] = self.runtime.functions[decoded.imported_functions :]
        for func, brief in zip(own, module.code.layout.brief, strict=True):
            func.brief = brief
        self._spaces = {
            "func": [*matched["func"], *own],  # an import is the function that it stands for
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
        self._finish()
        with self.time_limit(seconds):
            copy_segments(decoded, self.runtime, matched)
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

        Its functions raise ValueError from then on, and code of it that runs stops with that at its
        next loop or function call. It never waits: what running code uses is released when the
        code has left and nobody has this object, or a function of it, any more. What it exports
        and others import lives on.

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
