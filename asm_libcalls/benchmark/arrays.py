"""Suite: the ufuncs on arrays of 1 to ten million elements, against NumPy's own and numba's."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from asm_libcalls.benchmark.timing import OURS, Candidate, Case

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from asm_libcalls.benchmark.peers import Peers

SUITE = "arrays"
NUMPY = "NumPy"

SIZES = tuple(10**i for i in range(8))
QUICK_SIZES = (1, 1_000)
FRESH = 200_000
"""Elements of a case of integers: one run goes through arrays with so many elements in total.

If a run repeats, a CPU's branch predictor learns the signs of ten thousand numbers, and predicts
each branch of NumPy's floor division. Real data come once.
"""

PLACES = 3
"""Number of arrays of floats, of which each sample takes the next: the placement of an array in
memory makes a difference of a tenth."""


class _Operation(NamedTuple):
    name: str
    numpy_name: str
    dtypes: tuple[str, ...]
    expression: str  # for numba
    sizes: tuple[int, ...] = SIZES


_SOME = tuple(size for size in SIZES if size <= 10**6)
_OPERATIONS = (
    _Operation("ceil", "ceil", ("f4", "f8"), "math.ceil(x)"),
    _Operation("floor", "floor", ("f4", "f8"), "math.floor(x)"),
    _Operation("trunc", "trunc", ("f4", "f8"), "math.trunc(x)"),
    _Operation("nearest", "rint", ("f4", "f8"), "np.rint(x)"),
    _Operation("sdiv", "floor_divide", ("i8",), "a // b", _SOME),
    _Operation("srem", "fmod", ("i8",), "a - a // b * b", _SOME),
    _Operation("udiv", "floor_divide", ("u8",), "a // b", _SOME),
    _Operation("urem", "remainder", ("u8",), "a % b", _SOME),
    _Operation("ishl", "left_shift", ("i8",), "a << b", _SOME),
    _Operation("sshr", "right_shift", ("i8",), "a >> b", _SOME),
    _Operation("ushr", "right_shift", ("u8",), "a >> b", _SOME),
)

# Steps of the operands and the output, in elements; 0 for a scalar.
_LAYOUTS: dict[int, dict[str, tuple[int, ...]]] = {
    1: {"contiguous": (1, 1), "strided": (2, 2), "strided input": (2, 1)},
    2: {"contiguous": (1, 1, 1), "by a scalar": (1, 0, 1), "strided": (2, 2, 2)},
}


def cases(peers: Peers, quick: bool) -> Iterator[Case]:
    """Make the cases."""
    from asm_libcalls import ufuncs

    for operation in _OPERATIONS:
        for dtype in operation.dtypes:
            unary = operation.dtypes[0].startswith("f")
            functions = {
                OURS: getattr(ufuncs, operation.name),
                NUMPY: getattr(peers.numpy, operation.numpy_name),
            }
            if peers.numba is not None and not quick:
                functions["numba vectorize"] = _vectorized(peers, operation, dtype, unary)
            kind = {"f4": "f32", "f8": "f64", "i8": "i64", "u8": "u64"}[dtype]
            for layout, steps in _LAYOUTS[1 if unary else 2].items():
                for size in QUICK_SIZES if quick else operation.sizes:
                    if layout != "contiguous" and size > 10**6:
                        continue
                    arrays = _arrays(peers.numpy, operation.name, dtype, size, steps)
                    yield Case(
                        SUITE,
                        f"{operation.name} {kind} {layout}",
                        size,
                        size * (1 if unary else len(arrays)),
                        tuple(
                            (_next_arrays if unary else _all_arrays)(label, function, arrays)
                            for label, function in functions.items()
                        ),
                    )


def _vectorized(peers: Peers, operation: _Operation, dtype: str, unary: bool) -> Any:
    import math

    type_ = peers.numpy.dtype(dtype).name
    arguments = "x" if unary else "a, b"
    scope = {"math": math, "np": peers.numpy}
    function = eval(f"lambda {arguments}: {operation.expression}", scope)
    signature = f"{type_}({', '.join([type_] * (1 if unary else 2))})"
    return peers.numba.vectorize([signature])(function)  # type: ignore[union-attr]


def _arrays(numpy: Any, name: str, dtype: str, size: int, steps: tuple[int, ...]) -> list[Any]:
    """Return sets of operands and output, with these steps."""
    random = numpy.random.default_rng(size)
    count = PLACES if dtype.startswith("f") else max(1, min(FRESH // size, 64))
    result = []
    for _ in range(count):
        operands = []
        for i, step in enumerate(steps[:-1]):
            length = size * max(step, 1)
            if dtype.startswith("f"):
                values = (random.random(length, dtype=numpy.float32) * 2000 - 1000).astype(dtype)
            elif i == 1 and name.endswith(("shl", "shr")):
                values = random.integers(0, 64, length).astype(dtype)
            else:
                values = random.integers(2, 2**64 - 1, length, dtype=numpy.uint64).view(dtype)
            operands.append(values[0] if step == 0 else values[::step][:size])
        output = numpy.zeros(size * steps[-1], dtype=dtype)[:: steps[-1]]
        result.append((*operands, output))
    return result


def _all_arrays(label: str, function: Any, arrays: list[Any]) -> Candidate:
    """Return a candidate that goes through all arrays in each run."""
    calls = [(operands, output) for *operands, output in arrays]

    def run(times: int) -> None:
        for _ in range(times):
            for operands, output in calls:
                function(*operands, out=output)

    return Candidate(label, run)


def _next_arrays(label: str, function: Any, arrays: list[Any]) -> Candidate:
    """Return a candidate that takes the next arrays for each sample, after an untimed run."""
    turn = [0]

    def before() -> None:
        turn[0] += 1
        run(1)

    def run(times: int) -> None:
        *operands, output = arrays[turn[0] % len(arrays)]
        for _ in range(times):
            function(*operands, out=output)

    return Candidate(label, run, before)
