"""Run every edge table in this Python and print the results as JSON: for machines without pytest.

``python guest.py`` in a guest of an emulator. It takes the package and the tables from PYTHONPATH.
"""

from __future__ import annotations

import ctypes
import json
import sys

import edge_tables

import asm_libcalls
from asm_libcalls.binding import default_binding


def narrow_results() -> list[str]:
    """Arguments and results narrower than a register, which big-endian ABIs place differently."""
    found = []

    def check(what: str, got: object, expected: object) -> None:
        if got != expected:
            found.append(f"{what}: expected {expected!r}, got {got!r}")

    c_library = ctypes.CDLL(None)
    c_math = ctypes.CDLL("libm.so.6")

    def address(library: ctypes.CDLL, name: str) -> int:
        return ctypes.cast(library[name], ctypes.c_void_p).value or 0

    absolute = asm_libcalls.catch_traps(address(c_library, "abs"), "(i32) -> i32")
    check("abs(-7)", absolute(-7), 7)
    check("abs(INT_MIN)", absolute.call_bits(0x80000000), 0x80000000)
    unsigned = asm_libcalls.catch_traps(address(c_library, "abs"), "(i32) -> u32")
    check("abs(INT_MIN) as u32", unsigned(-(2**31)), 2**31)
    to_host = asm_libcalls.catch_traps(address(c_library, "ntohl"), "(u32) -> u32")
    host = int.from_bytes(bytes([1, 2, 3, 4]), sys.byteorder)
    check("ntohl", to_host(host), 0x01020304)
    fused = asm_libcalls.catch_traps(address(c_math, "fmaf"), "(f32, f32, f32) -> f32")
    check("fmaf(2, 3, 0.5)", fused(2, 3, 0.5), 6.5)
    scale = asm_libcalls.catch_traps(address(c_math, "ldexp"), "(f64, i32) -> f64")
    check("ldexp(1.5, -1)", scale(1.5, -1), 0.75)
    for bits in (0x7FA00001, 0xFF800001, 0x7FC00000, 0xFFFFFFFF, 0x7F800000, 0x3FC00000, 0, 1):
        host = asm_libcalls.HostFunction(lambda pattern: pattern, "(f32) -> f32", bits=True)
        same = asm_libcalls.catch_traps(host.address, "(f32) -> f32")
        check("an f32 through a host function", hex(same.call_bits(bits)), hex(bits))
        host.close()
    half = asm_libcalls.HostFunction(lambda x: x / 2, "(f32) -> f32")
    check("5 / 2", asm_libcalls.catch_traps(half.address, "(f32) -> f32")(5), 2.5)
    return found


def main() -> None:
    """Print the verdict."""
    rows = edge_tables.all_rows()
    backend = default_binding().x86_64
    served = [c.name for c in asm_libcalls.LIBCALLS.values() if c.backend == "x86_64"]
    print(
        json.dumps(
            {
                "byteorder": sys.byteorder,
                "cases": len(rows),
                "code": {name: backend.loaded.code(name).hex() for name in served if backend},
                "failures": edge_tables.failures(default_binding(), rows) + narrow_results(),
                "report": asm_libcalls.backend_report(),
            }
        )
    )


if __name__ == "__main__":
    main()
