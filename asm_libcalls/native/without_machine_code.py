"""Native interfaces where no machine code serves: through ctypes, and where ctypes is missing."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from asm_libcalls.native.ctypes_callbacks import CallbackThunk
    from asm_libcalls.native.process import Entry
    from asm_libcalls.signatures import Signature


class _WithoutMachineCode:
    """Base of both; `reason` says why no machine code serves."""

    entry: Entry | None = None

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def function_objects(self) -> Any:
        """Return why nothing makes builtins."""
        return self._reason

    function_maker = function_objects


class CtypesInterface(_WithoutMachineCode):
    """Entries and callbacks of ctypes, whose native frames cannot be unwound."""

    def __init__(self, reason: str) -> None:
        from asm_libcalls.native.ctypes_entry import PythonEntry

        super().__init__(reason)
        self.entry = PythonEntry()

    def entry_holding_gil(self) -> Entry:
        """Return an entry whose callees run with the GIL."""
        from asm_libcalls.native.ctypes_entry import PythonEntry

        return PythonEntry(release_gil=False)

    def thunk(
        self, function: Callable[..., Any], signature: Signature, bits: bool
    ) -> CallbackThunk:
        """Return a C address that calls a Python function."""
        from asm_libcalls.native.ctypes_callbacks import CallbackThunk

        return CallbackThunk(function, signature, bits)


class NoInterface(_WithoutMachineCode):
    """The interface without ctypes: native code can neither be called nor call Python."""

    def entry_holding_gil(self) -> Entry:
        """Raise RuntimeError."""
        raise RuntimeError("native code cannot be called: ctypes cannot be imported here")

    def thunk(self, function: Callable[..., Any], signature: Signature, bits: bool) -> NoReturn:
        """Raise RuntimeError."""
        raise RuntimeError("no C address for a Python function: ctypes cannot be imported")
