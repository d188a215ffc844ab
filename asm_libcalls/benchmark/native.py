"""Suite: one call at the C address, from a loop in machine code, as compiled code calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asm_libcalls import LIBCALLS
from asm_libcalls.benchmark.timing import OURS, Candidate, Case, repeat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from asm_libcalls.benchmark.peers import Peers

SUITE = "native"
COUNT = 4096
"""Elements of one run, so few that the operands stay in the second-level cache."""

_C_LIBRARY = {
    "f32_ceil": "ceilf",
    "f32_floor": "floorf",
    "f32_trunc": "truncf",
    "f32_nearest": "rintf",
    "f64_ceil": "ceil",
    "f64_floor": "floor",
    "f64_trunc": "trunc",
    "f64_nearest": "rint",
}


def cases(peers: Peers, quick: bool) -> Iterator[Case]:
    """Make the cases; none if no machine code serves."""
    from asm_libcalls.binding import default_binding

    if default_binding().x86_64 is None:
        peers.note(f"suite {SUITE} is left out: {default_binding().x86_64_reason}")
        return
    from asm_libcalls.x86_64.call_loops import SIGNATURES, NativeLoops

    loops = NativeLoops()
    for name, libcall in LIBCALLS.items():
        signature = libcall.signature.replace("u64", "i64")
        if libcall.backend != "x86_64" or signature not in SIGNATURES:
            continue
        for kind, operands in _operands(peers.numpy, name):
            candidates = {OURS: libcall.address}
            if name in _C_LIBRARY:
                candidates[f"glibc {_C_LIBRARY[name]}"] = peers.c_function(_C_LIBRARY[name])
            candidates["compiled C"] = peers.plain_function(name)
            candidates["an empty C function"] = peers.plain_function("nothing")
            loop = loops.function(signature)
            yield Case(
                SUITE,
                f"{name} {kind}".strip(),
                0,
                COUNT,
                tuple(
                    Candidate(label, _caller(loop, address, operands, peers.numpy))
                    for label, address in candidates.items()
                    if address
                ),
            )


def _operands(numpy: Any, name: str) -> Iterator[tuple[str, list[Any]]]:
    random = numpy.random.default_rng(1)
    if name.startswith("f"):
        dtype = {"f32": numpy.float32, "f64": numpy.float64}[name[:3]]
        yield "", [random.normal(scale=1e3, size=COUNT).astype(dtype)]
    elif name.endswith(("div", "rem")):
        for kind, bits in (("64-bit operands", 63), ("31-bit operands", 31)):
            pair = random.integers(1, 2**bits, (2, COUNT), dtype=numpy.int64)
            yield kind, [pair[0], pair[1]]
    else:
        values = random.integers(0, 2**63, COUNT, dtype=numpy.int64)
        yield "", [values, random.integers(0, 64, COUNT, dtype=numpy.int64)]


def _caller(loop: Any, address: int, operands: list[Any], numpy: Any) -> Callable[[int], None]:
    out = numpy.zeros_like(operands[0])
    arguments = (address, *(x.ctypes.data for x in (*operands, out)), COUNT)
    return repeat(loop, arguments, (operands, out))
