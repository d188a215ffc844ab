"""The backend report: the backend of each libcall and the reason, to paste into a bug report."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from asm_libcalls.binding import Binding

ufunc_backends: dict[str, str] = {}
"""The backend of each ufunc, written when they are made: ``"x86_64"``, or ``"fallback: "`` and the
reason."""


class BackendReport(dict[str, "Any"]):
    """A dict of plain values that :mod:`json` can dump; ``str()`` gives a text for people.

    Keys: ``asm_libcalls`` (version), ``python``, ``machine``, ``system`` (kernel and C library),
    ``numpy`` (version), ``requested`` (of ``ASM_LIBCALLS_BACKEND``), ``x86_64`` (``"loaded"`` or
    the reason why not), ``functions`` (``"builtins"``, with a note where this Python is newer than
    the newest that was tested; or why the libcalls and native functions are Python functions),
    ``assembler``, ``pages``, ``unwinder`` (whether the C library's unwinder has our frames),
    ``code_cache`` (its folder, and what was not used), ``cpu``, ``cpu_features``, ``byte_ranges``
    (how bytes are copied and filled), ``ufuncs`` (whose inner loops serve, once ``ufuncs`` is
    imported) and ``libcalls``: for each name ``backend`` and ``reason``.
    """

    def __str__(self) -> str:
        lines = [f"{key + ':':<14} {self[key]}" for key in self if key != "libcalls"]
        lines.append("libcalls:")
        for name, row in self["libcalls"].items():
            lines.append(f"  {name:<33} {row['backend'] or '-':<9} {row['reason']}")
        return "\n".join(lines)


def _brand() -> str:
    from asm_libcalls.emitter.availability import Unavailable
    from asm_libcalls.x86_64 import code_cache, cpu

    try:
        return cpu.brand(code_cache.load("cpu"))
    except (OSError, Unavailable):  # refused now, though it was there at the start
        return ""


def make_report(binding: Binding, version: str) -> BackendReport:
    """Report on a binding."""
    import platform

    from asm_libcalls.native.native_function import why_not_builtin

    why_not = why_not_builtin(binding.interface)
    report = BackendReport(
        asm_libcalls=version,
        python=f"{platform.python_implementation()} {sys.version.split()[0]}",
        machine=f"{platform.machine()}, {sys.platform}, {sys.byteorder}-endian",
        system=" ".join([platform.system(), platform.release(), *platform.libc_ver()]).strip(),
        numpy=_numpy_version(),
        requested=binding.requested,
        x86_64=binding.x86_64_reason or "loaded",
        functions=f"Python functions: {why_not}" if why_not else _builtins(),
    )
    backend = binding.x86_64
    if backend is not None:
        from asm_libcalls.emitter import register_frames
        from asm_libcalls.x86_64 import code_cache
        from asm_libcalls.x86_64.byte_tuning import ByteTuning

        cpu = backend.cpu
        report["assembler"] = backend.assembler
        way = "; ".join([backend.loaded.way, *backend.loaded.refusals])
        report["pages"] = (
            f"{len(backend.loaded.image.code)} bytes at {backend.loaded.address:#x} ({way})"
        )
        report["unwinder"] = register_frames.state()
        report["code_cache"] = "; ".join([code_cache.folder() or "none", *code_cache.refusals])
        brand = _brand() or "?"
        report["cpu"] = f"{brand} ({cpu.vendor}, family {cpu.family}, model {cpu.model})"
        report["cpu_features"] = " ".join(sorted(cpu.features))
        report["byte_ranges"] = str(ByteTuning(cpu.features))
    report["ufuncs"] = _ufuncs()
    report["libcalls"] = {
        name: {"backend": libcall.backend, "reason": libcall.reason}
        for name, libcall in binding.libcalls.items()
    }
    return report


def _ufuncs() -> str:
    names: dict[str, list[str]] = {}
    for name, backend in ufunc_backends.items():
        names.setdefault(backend, []).append(name)
    if len(names) == 1:
        return next(iter(names))
    return "; ".join(f"{' '.join(names[b])}: {b}" for b in names) or "not imported"


def _builtins() -> str:
    from asm_libcalls.x86_64.python_functions.object_layouts import NEWEST_TESTED

    if sys.version_info[:2] <= NEWEST_TESTED:
        return "builtins"
    newest = ".".join(map(str, NEWEST_TESTED))
    return f"builtins (this CPython is newer than {newest}, the newest tested)"


def _numpy_version() -> str:
    # NumPy itself is not imported. Even importlib.metadata imports an extension module, which a
    # system that denies executable memory does not load.
    try:
        from importlib import metadata

        return metadata.version("numpy")
    except ImportError as error:
        return f"not found: {error}"
