"""Suite: the ufuncs against NumPy's own, from one element to ten million."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asm_libcalls.benchmark.peers import Notes, optional
from asm_libcalls.benchmark.timing import Comparison, compare, statement

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

__all__ = ["arrays"]


def arrays(notes: Notes, quick: bool) -> Iterator[Comparison]:
    """Compare each ufunc over sizes, contiguous and strided, array by array."""
    numpy = optional("numpy", notes)
    if numpy is None:
        return
    from asm_libcalls import ufuncs

    sizes = [1, 1000] if quick else [10**k for k in range(8)]
    rounds = 9 if quick else 41
    random = numpy.random.default_rng(0)
    for size in sizes:
        for kind in ("f4", "f8"):
            x = (random.standard_normal(2 * size) * 100).astype(kind)
            for ours, peer in (("ceil", "ceil"), ("nearest", "rint")):
                for where, stride in (("", 1), (", strided", 2)):
                    if where and quick:
                        continue
                    view = x[: size * stride : stride]
                    names: dict[str, Any] = {
                        "x": view,
                        "out": numpy.empty(size, kind),
                        "ours": getattr(ufuncs, ours),
                        "peer": getattr(numpy, peer),
                    }
                    case = statement("ours(x, out)", names)
                    peers = {f"numpy.{peer}": statement("peer(x, out)", names)}
                    if not where and ours == "ceil":
                        peers |= _numba(notes, names)
                    name = f"{ours} {kind} of {size}{where}"
                    yield compare("arrays", name, case, peers, rounds=rounds)
        for kind, ours in (("i8", "sdiv"), ("u8", "udiv"), ("u8", "urem")):
            a = random.integers(0, 2**64, size, "u8", endpoint=False).astype(kind)
            b = random.integers(1, 2**64, size, "u8", endpoint=False).astype(kind)
            b[b == 0] = 1
            peer = "remainder" if ours == "urem" else "floor_divide"
            names = {
                "a": a,
                "b": b,
                "out": numpy.empty(size, kind),
                "ours": getattr(ufuncs, ours),
                "peer": getattr(numpy, peer),
            }
            case = statement("ours(a, b, out)", names)
            peers = {f"numpy.{peer}": statement("peer(a, b, out)", names)}
            name = f"{ours} {kind} of {size}"
            yield compare("arrays", name, case, peers, rounds=rounds)


def _numba(notes: Notes, names: dict[str, Any]) -> dict[str, Any]:
    numba = optional("numba", notes)
    if numba is None:
        return {}
    import math

    kind = {"f4": "float32(float32)", "f8": "float64(float64)"}[names["x"].dtype.str[1:]]
    names["vectorized"] = numba.vectorize([kind])(lambda x: math.ceil(x))  # noqa: PLW0108 (numba compiles it)
    return {"numba.vectorize": statement("vectorized(x, out)", names)}
