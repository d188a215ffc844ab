"""Finds the installed peers, and compiles plain C; a missing peer is left out with a note."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

C_SOURCE = """\
#include <math.h>
#include <stdint.h>
float plain_f32_ceil(float x) { return ceilf(x); }
float plain_f32_floor(float x) { return floorf(x); }
float plain_f32_trunc(float x) { return truncf(x); }
float plain_f32_nearest(float x) { return rintf(x); }
double plain_f64_ceil(double x) { return ceil(x); }
double plain_f64_floor(double x) { return floor(x); }
double plain_f64_trunc(double x) { return trunc(x); }
double plain_f64_nearest(double x) { return rint(x); }
int64_t plain_i64_sdiv(int64_t a, int64_t b) { return a / b; }
int64_t plain_i64_srem(int64_t a, int64_t b) { return a % b; }
uint64_t plain_i64_udiv(uint64_t a, uint64_t b) { return a / b; }
uint64_t plain_i64_urem(uint64_t a, uint64_t b) { return a % b; }
int64_t plain_i64_ishl(int64_t a, int64_t b) { return (int64_t)((uint64_t)a << (b & 63)); }
int64_t plain_i64_sshr(int64_t a, int64_t b) { return a >> (b & 63); }
uint64_t plain_i64_ushr(uint64_t a, uint64_t b) { return a >> (b & 63); }
void plain_nothing(void) {}
"""

C_OPTIONS = ("-O2", "-shared", "-fPIC")


class Peers:
    """The peers of one run."""

    def __init__(self) -> None:
        self.notes: list[str] = []  # what is left out, and why
        self.numpy = importlib.import_module("numpy")
        self.cffi = self.optional("cffi")
        self.numba = self.optional("numba")
        self.c_compiler = ""  # the first line of its `--version`, or ""
        self._process = ctypes.CDLL(None)
        self._plain: Any = self._compile()

    def note(self, text: str) -> None:
        """Add a note, unless it is there already."""
        if text not in self.notes:
            self.notes.append(text)

    def optional(self, name: str) -> ModuleType | None:
        """Import a package, or note that it is missing and return None."""
        try:
            return importlib.import_module(name)
        except ImportError as error:
            self.note(f"{name} is left out: {error}")
            return None

    def version(self, module: ModuleType | None) -> str:
        """Return a peer's version; "" if it is missing."""
        return str(getattr(module, "__version__", "")) if module else ""

    def c_function(self, name: str) -> int:
        """Return the address of a function of the C library; 0 if it has none."""
        try:
            return ctypes.cast(self._process[name], ctypes.c_void_p).value or 0
        except AttributeError:
            self.note(f"the C library's {name} is left out: there is none")
            return 0

    def plain_function(self, name: str) -> int:
        """Return the address of the compiled C function of that name; 0 if there is none."""
        if self._plain is None:
            return 0
        return ctypes.cast(self._plain[f"plain_{name}"], ctypes.c_void_p).value or 0

    def cython(self, name: str, source: str) -> ModuleType | None:
        """Compile and import a Cython module; None, and a note, where that is impossible."""
        compiler, include = _c_compiler(), Path(sysconfig.get_path("include"))
        if self.optional("Cython") is None:
            return None
        if compiler is None or not (include / "Python.h").is_file():
            self.note("Cython is left out: no C compiler, or no headers of this Python")
            return None
        with _temporary_folder() as path:
            folder = Path(path)
            (folder / f"{name}.pyx").write_text(source)
            library = folder / f"{name}.so"
            commands = (
                [sys.executable, "-m", "cython", "-3", f"{name}.pyx"],
                [compiler, *C_OPTIONS, "-w", f"-I{include}", f"{name}.c", "-o", str(library)],
            )
            if not all(self._run("Cython", command, folder) for command in commands):
                return None
            specification = importlib.util.spec_from_file_location(name, library)
            assert specification is not None
            assert specification.loader is not None
            module = importlib.util.module_from_spec(specification)
            specification.loader.exec_module(module)
        return module

    def _compile(self) -> Any:
        compiler = _c_compiler()
        if compiler is None:
            self.note("compiled C is left out: there is no C compiler")
            return None
        with _temporary_folder() as path:
            folder = Path(path)
            (folder / "plain.c").write_text(C_SOURCE)
            command = [compiler, *C_OPTIONS, "plain.c", "-o", "plain.so", "-lm"]
            if not self._run("compiled C", command, folder):
                return None
            loaded = ctypes.CDLL(str(folder / "plain.so"))  # stays mapped after the file is removed
        version = subprocess.run(
            [compiler, "--version"], capture_output=True, text=True, check=False
        ).stdout
        self.c_compiler = f"{(version.splitlines() or ['?'])[0]}, {' '.join(C_OPTIONS)}"
        return loaded

    def _run(self, what: str, command: list[str], folder: Path) -> bool:
        """Run a step of compiling a peer; if it fails, note that the peer is left out."""
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            complaint = (done.stderr.strip() or "no message").splitlines()[-1]
            self.note(f"{what} is left out: {command[0]} failed: {complaint}")
        return not done.returncode


def _c_compiler() -> str | None:
    return shutil.which(os.environ.get("CC", "cc"))


def _temporary_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="asm_libcalls-benchmark-")
