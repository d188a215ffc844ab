"""A program that prints which image of the code cache serves, and checks of what it prints."""

from __future__ import annotations

from pathlib import Path

# Print what serves, after a call; `before` runs before the package is imported.
PROBE = """
    import json, sys
    import asm_libcalls
    from asm_libcalls.x86_64 import code_cache

    assert asm_libcalls.f64_nearest(2.5) == 2.0 and asm_libcalls.i64_sdiv(-7, 2) == -3
    try:
        asm_libcalls.i64_srem(1, 0)
    except asm_libcalls.IntegerDivisionByZero:
        pass
    else:
        raise SystemExit("no trap")
    backend = asm_libcalls._binding.x86_64
    print(json.dumps({
        "assembler": backend.assembler if backend else asm_libcalls._binding.x86_64_reason,
        "way": backend.loaded.way if backend else "",
        "address": backend.loaded.address if backend else 0,
        "peachpy": "peachpy" in sys.modules,
        "numpy": "numpy" in sys.modules,
        "refusals": code_cache.refusals,
        "folder": code_cache.folder(),
    }))
"""

NO_PEACHPY = """
    import importlib.abc, sys

    class Finder(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == "peachpy":
                raise ModuleNotFoundError("No module named 'peachpy'")

    sys.meta_path.insert(0, Finder())
"""


def backend_file(folder: Path) -> Path:
    (path,) = folder.glob("backend-*.image")
    return path


def assert_assembled(result, refusal=None):
    assert result["assembler"].startswith("PeachPy ")
    assert result["way"] == "anonymous"
    if refusal is None:
        assert result["refusals"] == []
    else:
        assert any(refusal in each for each in result["refusals"]), result["refusals"]


def assert_from_file(result, path, way="library"):
    assert result["assembler"].startswith(f"image (file {path}, PeachPy ")
    assert result["way"] == way
    assert result["refusals"] == []
    assert not result["peachpy"]
    assert not result["numpy"]


def flip(position):
    def damage(path):
        content = bytearray(path.read_bytes())
        content[position] ^= 1
        path.write_bytes(content)

    return damage
