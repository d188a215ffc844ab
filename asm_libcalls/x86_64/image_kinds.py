"""Table of the images: what each is assembled from, and the CPU levels that a wheel covers."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from asm_libcalls.emitter.image import Routine


MODULES = (
    "activation.py",
    "calling_convention.py",
    "libcalls.py",
    "llvm/libcalls.py",
    "steps.py",
    "trap_codes.py",
    "traps.py",
    "vmcontext.py",
)
"""Other modules of the package that the code depends on: layouts, signatures, names."""

FOLDERS = ("emitter", "signatures", "x86_64")
"""Folders, with all nested ones, of sources that every image depends on."""


class ImageKind:
    """One of the images."""

    __slots__ = ("as_library", "exports", "folders", "for_cpu", "function", "module")

    def __init__(
        self,
        module: str,
        function: str = "routines",
        *,
        for_cpu: bool = True,
        folders: tuple[str, ...] = (),
        exports: str = "",
        as_library: bool = True,
    ) -> None:
        self.module = module  # the module whose function assembles it
        self.function = function  # the name of that function, by default `routines`
        # whether the function takes the CPU's features; else every x86-64 CPU runs the result
        self.for_cpu = for_cpu
        # folders of the package, with all nested ones: the sources of the image, with MODULES
        self.folders = (*FOLDERS, *folders)
        # the module's function that names the exported routines; "" if all are
        self.exports = exports
        self.as_library = as_library  # whether the dynamic linker loads its file, for debuggers

    def assemble(self, features: frozenset[str]) -> Iterable[Routine]:
        """Assemble its routines; needs PeachPy."""
        from importlib import import_module

        make = getattr(import_module(self.module), self.function)
        routines: Iterable[Routine] = make(features) if self.for_cpu else make()
        return routines

    def exported(self) -> frozenset[str] | None:
        """Return the routines that the dynamic linker finds by name; None for all."""
        from importlib import import_module

        if not self.exports:
            return None
        names: frozenset[str] = getattr(import_module(self.module), self.exports)()
        return names


IMAGES = {
    "cpu": ImageKind("asm_libcalls.x86_64.cpu", for_cpu=False, as_library=False),
    "backend": ImageKind("asm_libcalls.x86_64.backend"),
    "library": ImageKind("asm_libcalls.x86_64.library", exports="exports"),
    "thunks": ImageKind(
        "asm_libcalls.x86_64.trampolines.call_python", "thunk_routines", for_cpu=False
    ),
    "ufuncs": ImageKind("asm_libcalls.x86_64.ufunc_loops"),
    "native_loops": ImageKind("asm_libcalls.x86_64.call_loops", for_cpu=False),
    "llvm": ImageKind("asm_libcalls.llvm.x86_64.image", folders=("llvm/x86_64",)),
    "llvm_library": ImageKind(
        "asm_libcalls.llvm.x86_64.library", folders=("llvm/x86_64",), exports="exports"
    ),
    "toy_jit": ImageKind(
        "asm_libcalls.toy_jit.codegen.stencils", folders=("toy_jit/codegen", "toy_jit/frontend")
    ),
    "toy_jit_vectors": ImageKind(
        "asm_libcalls.toy_jit.codegen.stencils",
        "vector_routines",
        folders=("toy_jit/codegen", "toy_jit/frontend"),
    ),
}
"""The images, by name. Modules are named, not imported: an image in a file needs no assembler."""

_V2 = frozenset({"sse3", "ssse3", "sse4_1", "sse4_2", "popcnt"})
_V3 = _V2 | {"avx", "avx2", "bmi", "bmi2", "f16c", "fma3", "lzcnt"}
_V4 = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
_SLOW, _STRINGS = {"slow_divide_64"}, {"erms"}
_WIDE, _ICE_LAKE = {"wide_moves"}, {"ice_lake", "avx512ifma"}

LEVELS: dict[str, frozenset[str]] = {
    "x86-64-v2": _V2,
    "x86-64-v2-slow_divide_64": _V2 | _SLOW,
    "x86-64-v3": _V3,
    "x86-64-v3-erms": _V3 | _STRINGS,
    "x86-64-v3-erms-slow_divide_64": _V3 | _STRINGS | _SLOW,
    "x86-64-v4-erms": _V4 | _STRINGS,
    "x86-64-v4-erms-slow_divide_64": _V4 | _STRINGS | _SLOW,
    "x86-64-v4-erms-wide_moves": _V4 | _STRINGS | _WIDE,
    "x86-64-v4-erms-wide_moves-ice_lake": _V4 | _STRINGS | _WIDE | _ICE_LAKE,
}
"""The CPUs that a wheel has images for: a level, and further features that routines use. AMD's
first x86-64-v3 CPUs have no fast string instructions; every x86-64-v4 CPU has them.

Source: System V ABI, AMD64 supplement, "Micro-Architecture Levels"; names as in ``cpu.py``.
"""


def architecture_level(features: frozenset[str]) -> int:
    """Return the N of the highest x86-64-vN whose features are all present."""
    return max([1, *(n for n, needed in ((2, _V2), (3, _V3), (4, _V4)) if needed <= features)])


def levels_of(features: frozenset[str]) -> list[str]:
    """Return the levels whose images a CPU can run, the best first."""
    fitting = [name for name, needed in LEVELS.items() if needed <= features]
    return sorted(fitting, key=lambda name: len(LEVELS[name]), reverse=True)
