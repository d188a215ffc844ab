"""The 33 libcalls of Wasmtime as machine code and in Python, for Python and for native code.

``asm_libcalls.f64_nearest(2.5)`` calls one from Python. ``symbols()`` gives the C addresses to a
JIT. ``LIBCALLS[name]`` has everything about one, including the pure-Python ``fallback``.
"""

from __future__ import annotations

# First: modules that are imported below read it.
__version__ = "0.2.0"

import sys as _sys
import time as _time

if "_asm_libcalls" in _sys.modules:  # the package was deleted and is imported again
    from asm_libcalls import reimport as _reimport

    _reimport.adopt(_sys.modules[__name__], _sys.modules["_asm_libcalls"])

from asm_libcalls import traps as _traps
from asm_libcalls.binding import BackendUnavailable, default_binding
from asm_libcalls.emitter import code_names as _code_names
from asm_libcalls.libcall import Libcall
from asm_libcalls.signatures import Signature
from asm_libcalls.traps import *  # noqa: F403 (its __all__ is the list of trap classes)

_binding = default_binding()

LIBCALLS: dict[str, Libcall] = _binding.libcalls
"""Every libcall by name, in the order of Wasmtime's table."""


_LAZY = {
    "BackendReport": "report",
    "Code": "emitter.code",
    "ElementSegment": "runtime.element_segment",
    "FuncRef": "runtime.funcref",
    "Global": "runtime.global_",
    "HostFunction": "native.host_function",
    "Instance": "runtime.instance",
    "Memory": "runtime.memory",
    "StackMapRegistry": "runtime.stack_maps",
    "Table": "runtime.table",
    "TrapCode": "trap_codes",
    "VMExternRef": "runtime.externref",
    "VMOffsets": "vmcontext",
    "catch_traps": "native.catch_traps",
    "gc": "runtime.instance",
    "load_code": "emitter.load_code",
    "native_function": "native.native_function",
}
# Names by the module that has them, imported when first used, so that a program with only numeric
# libcalls does not import the runtime. The functions of the libcalls are made when first used, too.

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asm_libcalls.report import BackendReport

_PACKAGES = ("llvm", "toy_jit", "ufuncs")
# Public subpackages, imported when first used: the ufuncs import NumPy, LLVM's libcalls have their
# own image.


def __getattr__(name: str) -> object:
    if name in LIBCALLS:
        function = globals()[name] = _binding.function_of(LIBCALLS[name])
        return function
    module = _LAZY.get(name)
    if module is None and name not in _PACKAGES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        import importlib

        imported = importlib.import_module(f"{__name__}.{module or name}")
    except ImportError as error:
        if _sys is not None and _sys.meta_path:  # the module may have been cleared
            raise
        raise ImportError(
            f"{__name__}.{name} is first used at interpreter exit, when nothing can be imported"
        ) from error
    if module is None:
        return imported
    value = globals()[name] = getattr(imported, name)
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *_PACKAGES})


def symbols() -> dict[str, int]:
    """Return the C address of each libcall by its symbol, ``"wasmtime_f64_nearest"`` and so on."""
    return _binding.symbols()


def runtime_symbols() -> dict[str, int]:
    """Return the C addresses of other routines that generated code calls.

    ``asm_libcalls_raise_trap(code)`` takes a :class:`TrapCode` as u32, unwinds to the innermost
    :func:`catch_traps` of the thread, and does not return. Empty without machine code.
    """
    return _binding.runtime_symbols()


def backend_report() -> BackendReport:
    """Return the backend of each libcall and the reason, as a dict; ``str()`` gives a text."""
    from asm_libcalls.report import make_report

    return make_report(_binding, __version__)


if getattr(_sys.modules.get("_asm_libcalls"), "_binding", None) is not _binding:
    _imported = _time.time()
    _sys.modules["_asm_libcalls"] = _sys.modules[__name__]

if _binding.x86_64 is not None:
    if _code_names.are_asked_for(_code_names.PERF_VARIABLE):
        from asm_libcalls.integrations import perf as _perf

        _perf.enable_or_warn()
    if _code_names.are_asked_for(_code_names.GDB_VARIABLE):
        from asm_libcalls.integrations import gdb as _gdb

        _gdb.enable_or_warn()

__all__ = [
    "LIBCALLS",
    "BackendUnavailable",
    "Libcall",
    "Signature",
    "__version__",
    "backend_report",
    "runtime_symbols",
    "symbols",
    *_traps.__all__,
    *LIBCALLS,
    *_LAZY,
]
