"""Builds the programs of this folder, and records what they must compute.

Usage: ``python tests/programs/build.py``. It needs clang and lld (in Debian, the packages of these
names).

Each NAME.c becomes NAME.wasm, which is kept in the repository, and a native library, which is not:
this script calls that one and writes what comes out into ``calls.json``. The tests never need a
compiler.

``calls.json`` has a list of calls for each program, which are made in that order. A call has

- ``function``, and ``arguments``: pairs of a type and a bit pattern, in unsigned decimal as in the
  specification's test suite;
- maybe an ``input``: pairs of a text and how often it is repeated, which all together are written
  to where ``input()`` points;
- ``result``: a pair, too, of which this script fills in the pattern;
- ``output_sha256``, from this script: of what the program leaves at ``output()``.

To add a call, write it with a result of ``["i32", null]``, and run this script.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PROGRAMS = Path(__file__).resolve().parent
CALLS = PROGRAMS / "calls.json"

C_TYPES = {
    "i32": ctypes.c_uint32,
    "i64": ctypes.c_uint64,
    "f32": ctypes.c_float,
    "f64": ctypes.c_double,
}
BITS = {"f32": ctypes.c_uint32, "f64": ctypes.c_uint64}

# No contraction of a * b + c: WebAssembly has no fused multiply-add.
COMMON = [
    "-std=c11",
    "-O2",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-fvisibility=hidden",
    "-ffp-contract=off",
]
WASM = [
    "--target=wasm32", "-ffreestanding", "-nostdlib", "-fno-math-errno",
    "-mbulk-memory", "-msign-ext", "-mnontrapping-fptoint", "-mmutable-globals",
    "-Wl,--no-entry", "-Wl,--export-dynamic", "-Wl,--strip-all", "-Wl,-z,stack-size=65536",
]  # fmt: skip
VECTORS = "vector_"  # what the names of programs begin with that may have vectors
NATIVE = ["-shared", "-fPIC", "-fno-math-errno", "-lm"]


def compile_program(source: Path, target: Path, options: list[str]) -> None:
    """Compile one source file."""
    command = ["clang", *COMMON, str(source), "-o", str(target), *options]
    subprocess.run(command, check=True)


def wasm_options(name: str) -> list[str]:
    """Return the options for a program of this name."""
    return [*WASM, "-msimd128"] if name.startswith(VECTORS) else WASM


def from_bits(value_type: str, pattern: str) -> Any:
    """Return the C value of a bit pattern."""
    c_type = C_TYPES[value_type]
    if value_type in BITS:
        return c_type.from_buffer_copy(BITS[value_type](int(pattern)))
    return c_type(int(pattern))


def to_bits(value_type: str, value: Any) -> str:
    """Return the bit pattern of a C value."""
    if value_type in BITS:
        return str(BITS[value_type].from_buffer_copy(C_TYPES[value_type](value)).value)
    return str(value)


def run(library: ctypes.CDLL, call: dict[str, Any]) -> None:
    """Make one call, and fill in its outcome."""
    if "input" in call:
        where = library.input
        where.restype = ctypes.c_void_p
        data = b"".join(text.encode() * count for text, count in call["input"])
        ctypes.memmove(where(), data, len(data))
    function = getattr(library, call["function"])
    result_type = call["result"][0]
    function.restype = C_TYPES[result_type]
    result = function(*(from_bits(*argument) for argument in call["arguments"]))
    call["result"] = [result_type, to_bits(result_type, result)]
    if hasattr(library, "output"):
        library.output.restype = ctypes.c_void_p
        library.output_size.restype = ctypes.c_uint32
        output = ctypes.string_at(library.output(), library.output_size())
        call["output_sha256"] = hashlib.sha256(output).hexdigest()


def main() -> None:
    """Build everything."""
    programs = json.loads(CALLS.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        for name, calls in programs.items():
            source = PROGRAMS / f"{name}.c"
            wasm = PROGRAMS / f"{name}.wasm"
            compile_program(source, wasm, wasm_options(name))
            wasm.chmod(0o644)
            native = Path(folder, f"{name}.so")
            compile_program(source, native, NATIVE)
            library = ctypes.CDLL(str(native))
            for call in calls:
                run(library, call)
            sys.stdout.write(f"{name}: {wasm.stat().st_size} bytes, {len(calls)} calls\n")
    CALLS.write_text(as_text(programs), encoding="utf-8")


def as_text(programs: dict[str, Any]) -> str:
    """Return JSON with a line for each call."""
    blocks = []
    for name, calls in programs.items():
        lines = ",\n".join("    " + json.dumps(call, ensure_ascii=False) for call in calls)
        blocks.append(f"  {json.dumps(name)}: [\n{lines}\n  ]")
    return "{\n" + ",\n".join(blocks) + "\n}\n"


if __name__ == "__main__":
    main()
