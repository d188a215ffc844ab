"""The peers that may be missing: NumPy, cffi, numba, a C compiler. Each is found, or left out."""

from __future__ import annotations

import ctypes
import importlib
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

__all__ = ["Notes", "c_library", "optional", "unchecked"]


class Notes(list[str]):
    """What was left out, and why; each note once."""

    def add(self, note: str) -> None:
        """Add a note."""
        if note not in self:
            self.append(note)


def optional(name: str, notes: Notes) -> Any:
    """Import a package, or note that it is missing and return None."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        notes.add(f"{name} is left out: {error}")
        return None


def unchecked(libcall: Any) -> Any:
    """Return the plain ctypes function of a libcall's address: no check, no trap caught."""
    return libcall.signature.ctypes_prototype()(libcall.address)


_SOURCE = """
double c_ceil(double x) { return __builtin_ceil(x); }
long c_sdiv(long a, long b) { return a / b; }
"""


def c_library(notes: Notes) -> ctypes.CDLL | None:
    """Compile two C functions with the machine's compiler, or note that there is none."""
    compiler = shutil.which("cc")
    if compiler is None:
        notes.add("compiled C functions are left out: there is no `cc`")
        return None
    folder = Path(tempfile.mkdtemp(prefix="asm_libcalls_bench_"))
    try:
        source, library = folder / "peers.c", folder / "peers.so"
        source.write_text(_SOURCE)
        command = [compiler, "-O2", "-march=native", "-shared", "-fPIC", str(source)]
        command += ["-o", str(library)]
        subprocess.run(command, check=True, capture_output=True)
        return ctypes.CDLL(str(library))
    except (OSError, subprocess.CalledProcessError) as error:
        notes.add(f"compiled C functions are left out: {error}")
        return None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
