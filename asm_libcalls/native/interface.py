"""The native interface of machine code: calls from Python to native code, and back.

``without_machine_code.py`` has two others. A binding has one of the three;
:mod:`asm_libcalls.native.process` has the default binding's.
"""

from __future__ import annotations

import sys

from asm_libcalls.native import process
from asm_libcalls.x86_64.trampolines import ACTIVATIONS_KEY, CALL_PYTHON, ENTER, ENTER_HOLDING_GIL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from asm_libcalls.emitter.pages import LoadedImage
    from asm_libcalls.native.process import Entry, MachineCodeEntry
    from asm_libcalls.native.thunks import Thunk, ThunkPool
    from asm_libcalls.signatures import Signature


class MachineInterface:
    """Entries, thunks and builtins of the loaded image; the process has one."""

    def __init__(self, loaded: LoadedImage) -> None:
        self.loaded = loaded
        self.entry: MachineCodeEntry = self._entry(ENTER)
        self._holding_gil: Entry | None = None
        self._pools: dict[str, ThunkPool] = {}  # one, once it is made
        self._objects: Any = None
        self._maker: Any = None

    def _entry(self, routine: str) -> MachineCodeEntry:
        from asm_libcalls.native.entry import MachineEntry

        return MachineEntry(self.loaded.routine(routine), self.loaded.slot(ACTIVATIONS_KEY))

    def entry_holding_gil(self) -> Entry:
        """Return an entry whose callees run with the GIL."""
        if self._holding_gil is None:
            self._holding_gil = self._entry(ENTER_HOLDING_GIL)
        return self._holding_gil

    def thunks(self) -> ThunkPool:
        """Return the thunks through which machine code calls Python."""
        if not self._pools:
            from asm_libcalls.emitter import register_frames
            from asm_libcalls.native import record_readers
            from asm_libcalls.native.thunks import ThunkPool

            register_frames.start()
            record_readers.share(self.loaded)
            pool = ThunkPool(self.loaded.routine(CALL_PYTHON))
            self._pools.setdefault("", pool)  # one operation: threads never get different ones
        return self._pools[""]

    def thunk(self, function: Callable[..., Any], signature: Signature, bits: bool) -> Thunk:
        """Return a C address that calls a Python function."""
        return self.thunks().thunk(function, signature, bits)

    def function_objects(self) -> Any:
        """Return what makes builtins of code, or a text that says why there are none."""
        return _unless_interrupted(self._kept_objects)

    def function_maker(self) -> Any:
        """Return the maker of builtins for C addresses, or a text that says why there is none."""
        return _unless_interrupted(self._kept_maker)

    def _kept_objects(self) -> Any:
        if self._objects is None:
            self._objects = self._make_objects()
        return self._objects

    def _make_objects(self) -> Any:
        from asm_libcalls.native.entry import note_exception, raise_status
        from asm_libcalls.x86_64.python_functions import function_objects

        try:
            return function_objects.FunctionObjects(self.loaded, raise_status, note_exception)
        except (function_objects.Unsupported, OSError) as reason:
            return str(reason)
        except AttributeError as reason:  # no such function in this Python
            if _INTERRUPTED in str(reason):
                raise
            return str(reason)

    def _kept_maker(self) -> Any:
        if self._maker is None:
            objects = self._kept_objects()
            if isinstance(objects, str):
                return objects
            from asm_libcalls.x86_64.python_functions import function_maker

            self._maker = function_maker.FunctionMaker(objects)
        return self._maker


_INTERRUPTED = "partially initialized module"
"""A part of the messages of exceptions in a signal handler that interrupts an import."""


def _unless_interrupted(kept: Callable[[], Any]) -> Any:
    try:
        return kept()
    except (ImportError, AttributeError) as error:
        if sys.is_finalizing():  # a finalizer at interpreter exit
            return f"nothing can be imported: {error}"
        if _INTERRUPTED not in str(error):
            raise
        return f"this code interrupts an import: {error}"  # a later call asks again


_machine: list[MachineInterface] = []


def machine_interface(loaded: LoadedImage) -> MachineInterface:
    """Return the process's interface through machine code, made when first asked for."""
    if not _machine:
        interface = MachineInterface(loaded)
        process.image, process.machine_entry = loaded, interface.entry
        _machine.append(interface)
    return _machine[0]
