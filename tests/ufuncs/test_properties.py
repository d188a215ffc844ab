"""Every ufunc loop against the fallback, bit for bit, for each instruction set of this CPU.

Lengths around each vector boundary, any step and alignment, the operands in place or apart, with
poison around the output; and with the divisors and dividends that are hardest for a division by
reciprocals.
"""

import inner_loops
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inner_loops import INTEGERS, LEVELS, ROUNDING, SIZES, Memory

from asm_libcalls import ufuncs

MASK = (1 << 64) - 1
DIVISIONS = ["i64_sdiv", "i64_srem", "i64_udiv", "i64_urem"]


def loops_of(names):
    """Parametrize a test over the loops of each instruction set; other CPUs' are skipped."""
    return pytest.mark.parametrize(
        ("level", "name"),
        [
            pytest.param(
                level,
                name,
                marks=pytest.mark.skipif(
                    not inner_loops.runs_here(level), reason=f"no {level} code runs on this machine"
                ),
            )
            for level in LEVELS
            for name in names
            if inner_loops.has_loop(level, name)
        ],
    )


lengths = st.one_of(
    st.integers(0, 40),
    st.builds(lambda k, d: k * 16 + d, st.integers(2, 9), st.integers(-1, 1)),
    st.builds(lambda k, d: k * 64 + d, st.integers(2, 5), st.integers(-2, 2)),
)
elements_apart = st.sampled_from([1, 1, 1, 2, 3, 7, -1, -2, 0])
alignments = st.integers(0, 63)
seeds = st.integers(0, 2**32 - 1)


def float_patterns(seed, count, size):
    """Random patterns, with those where rounding has something to decide among them."""
    random = np.random.default_rng(seed)
    bits = 8 * size
    unsigned, real = np.dtype(f"u{size}"), np.dtype(f"f{size}")
    plain = random.integers(0, 2**bits, count, dtype=unsigned)
    halves = (random.integers(-40, 40, count) / 2).astype(real).view(unsigned)
    fraction_bits = {4: 23, 8: 52}[size]
    infinity = ((1 << (bits - 1 - fraction_bits)) - 1) << fraction_bits
    special = np.array(
        [
            sign << (bits - 1) | magnitude
            for sign in (0, 1)
            for magnitude in (
                0,
                1,
                infinity,
                infinity + 1,  # signalling
                infinity | 1 << (fraction_bits - 1),
                (1 << (bits - 1)) - 1,
                int(np.array(0.5, real).view(unsigned)) - 1,
                int(np.array(2.0**fraction_bits, real).view(unsigned)) - 1,
            )
        ],
        dtype=unsigned,
    )
    kind = random.integers(0, 3, count)
    return np.choose(kind, [plain, halves, random.choice(special, count)]).astype(unsigned)


def integer_patterns(seed, count):
    """Random numbers of every width, and the neighbours of what divisions find hard."""
    random = np.random.default_rng(seed)
    plain = random.integers(0, 2**64, count, dtype=np.uint64)
    narrow = plain >> random.integers(0, 64, count, dtype=np.uint64)
    powers = np.uint64(1) << random.integers(0, 64, count, dtype=np.uint64)
    near_powers = powers + random.integers(-2, 3, count).astype(np.uint64)
    small = random.integers(-3, 4, count).astype(np.uint64)
    doubles = np.uint64(2**53) + random.integers(-2, 3, count).astype(np.uint64)
    negative = -near_powers
    kind = random.integers(0, 6, count)
    return np.choose(kind, [plain, narrow, near_powers, small, doubles, negative])


def dividends(seed, divisors):
    """Dividends beside multiples of the divisors, k*b - 1, k*b and k*b + 1, and others."""
    random = np.random.default_rng(seed)
    count = len(divisors)
    quotients = integer_patterns(seed, count) % np.maximum(
        np.uint64(MASK) // np.maximum(divisors, 1), 1
    )
    beside = quotients * divisors + random.integers(-1, 2, count).astype(np.uint64)
    return np.where(random.integers(0, 2, count) == 0, beside, integer_patterns(seed + 1, count))


def check(level, name, operands, steps, alignments, output):
    """Run a loop in poisoned memory and compare everything; `output` is an operand's number or -1.

    The operands are patterns; the output's step comes after theirs.
    """
    size = SIZES[name]
    count = len(operands[0])
    if output >= 0:
        steps = [*steps[:-1], steps[output]]
    if steps[-1] == 0:
        steps[-1] = 1  # a reduction's: tested with its own meaning below
        output = -1
    memory = Memory(sum((abs(step) * count + 1) * size + 256 for step in steps) + 256)
    dtype = np.dtype(f"u{size}")
    views = [
        memory.operand(dtype, count, step * size, alignment)
        for step, alignment in zip(steps, alignments, strict=True)
    ]
    if output >= 0:
        views[-1] = views[output]
    for view, operand in zip(views[:-1], operands, strict=True):
        view[...] = operand  # where the step is 0, the last one stays
    wanted = inner_loops.expected_array(name, *(view.copy() for view in views[:-1]))
    before = memory.snapshot()
    inner_loops.call(
        level,
        name,
        [view.ctypes.data for view in views],
        count,
        [step * size for step in steps],
    )
    got = views[-1].copy()
    wrong = np.flatnonzero(got != wanted)
    if wrong.size:
        i = wrong[0]
        shown = ", ".join(hex(int(operand[i])) for operand in operands)
        raise AssertionError(
            f"{name}({shown}) at {i} of {count}, steps {steps}: {got[i]:#x}, not {wanted[i]:#x}"
        )
    views[-1][...] = np.ndarray(
        (count,), dtype, before, offset_of(views[-1], memory), views[-1].strides
    )
    assert (memory.bytes == before).all(), "bytes beside the output were written"


def offset_of(view, memory):
    return view.ctypes.data - memory.bytes.ctypes.data


@loops_of(ROUNDING)
@settings(max_examples=40)
@given(
    count=lengths,
    steps=st.tuples(elements_apart, elements_apart),
    alignments=st.tuples(alignments, alignments),
    in_place=st.booleans(),
    seed=seeds,
)
def test_rounding(level, name, count, steps, alignments, in_place, seed):
    operand = float_patterns(seed, count, SIZES[name])
    check(level, name, [operand], list(steps), alignments, 0 if in_place else -1)


@loops_of(ROUNDING)
@settings(max_examples=40)
@given(
    count=st.one_of(st.integers(5_000, 6_000), st.integers(20_000, 20_300)),
    in_place=st.booleans(),
    streaming=st.sampled_from([inner_loops.STREAMING, 1 << 40]),
    alignments=st.tuples(alignments, alignments),
    seed=seeds,
)
def test_rounding_of_large_arrays(level, name, count, in_place, streaming, alignments, seed):
    """Whole blocks of vectors, stored into the caches and past them."""
    assert count * SIZES[name] > inner_loops.STREAMING
    small = float_patterns(seed, 500, SIZES[name])
    operand = np.resize(small, count)
    wanted = np.resize(inner_loops.expected_array(name, small), count)
    memory = Memory(2 * count * SIZES[name] + 1024)
    views = [memory.operand(operand.dtype, count, SIZES[name], a) for a in alignments]
    if in_place:
        views[1] = views[0]
    views[0][...] = operand
    before = memory.snapshot()
    addresses = [view.ctypes.data for view in views]
    inner_loops.call(level, name, addresses, count, [SIZES[name]] * 2, streaming)
    assert (views[1] == wanted).all()
    views[1][...] = np.ndarray((count,), operand.dtype, before, offset_of(views[1], memory))
    assert (memory.bytes == before).all(), "bytes beside the output were written"


@loops_of(INTEGERS)
@settings(max_examples=40)
@given(
    count=lengths,
    steps=st.tuples(elements_apart, elements_apart, elements_apart),
    alignments=st.tuples(alignments, alignments, alignments),
    output=st.integers(-1, 1),
    seed=seeds,
)
def test_integers(level, name, count, steps, alignments, output, seed):
    second = integer_patterns(seed, count)
    first = dividends(seed, second) if name in DIVISIONS else integer_patterns(seed + 1, count)
    check(level, name, [first, second], list(steps), alignments, output)


@loops_of(DIVISIONS)
@settings(max_examples=40)
@given(divisor=st.integers(0, MASK), count=st.integers(1, 70), seed=seeds)
def test_division_by_one_divisor(level, name, divisor, count, seed):
    divisors = np.full(count, divisor, dtype=np.uint64)
    check(level, name, [dividends(seed, divisors), divisors], [1, 0, 1], (0, 0, 0), -1)


EDGES = sorted(
    {
        number & MASK
        for power in (0, 1, 13, 14, 15, 31, 32, 33, 49, 50, 51, 52, 53, 54, 62, 63, 64)
        for distance in (-2, -1, 0, 1, 2)
        for number in ((1 << power) + distance, -(1 << power) + distance)
    }
    | {3, 5, 7, 10, 1000, 10**18, 10**19, MASK // 3, MASK // 5}
)


@loops_of(INTEGERS)
def test_every_pair_of_edges(level, name):
    """All pairs of edges, in each of the contiguous ways and a strided one."""
    edges = np.array(EDGES, dtype=np.uint64)
    first, second = (grid.ravel().copy() for grid in np.meshgrid(edges, edges))
    wanted = inner_loops.expected_array(name, first, second)
    for spread in (1, 2):
        a, b = (np.repeat(x, spread) for x in (first, second))
        out = np.zeros(first.size * spread, dtype=np.uint64)
        addresses = [x.ctypes.data for x in (a, b, out)]
        inner_loops.call(level, name, addresses, first.size, [8 * spread] * 3)
        assert (out[::spread] == wanted).all()
    table = wanted.reshape(edges.size, edges.size)  # a row for each second operand
    out = np.zeros_like(edges)
    for i, edge in enumerate(edges):
        fixed = np.array([edge])
        addresses = [edges.ctypes.data, fixed.ctypes.data, out.ctypes.data]
        inner_loops.call(level, name, addresses, edges.size, [8, 0, 8])
        assert (out == table[i]).all(), hex(edge)
        addresses[:2] = fixed.ctypes.data, edges.ctypes.data
        inner_loops.call(level, name, addresses, edges.size, [0, 8, 8])
        assert (out == table[:, i]).all(), hex(edge)


@loops_of(DIVISIONS)
def test_quotient_boundaries(level, name, random_cases):
    """k*b - 1, k*b and k*b + 1, where an estimate that is off by one shows."""
    pairs = []
    for _ in range(4_000):
        divisor = random_cases.getrandbits(random_cases.randint(1, 64)) or 1
        quotient = random_cases.randint(0, MASK // divisor)
        pairs += [((quotient * divisor + d) & MASK, divisor) for d in (-1, 0, 1)]
    first, second = (np.array(column, dtype=np.uint64) for column in zip(*pairs, strict=True))
    out = np.zeros_like(first)
    inner_loops.call(
        level, name, [x.ctypes.data for x in (first, second, out)], first.size, [8] * 3
    )
    assert (out == inner_loops.expected_array(name, first, second)).all()


@loops_of(INTEGERS)
@settings(max_examples=40)
@given(
    count=lengths,
    shift=st.integers(-20, 20),
    steps=st.sampled_from([(1, 1), (1, 1), (2, 2), (-1, -1), (1, 2), (2, 1), (3, -1), (0, 1)]),
    other_step=st.sampled_from([1, 1, 0, 2]),
    operand=st.integers(0, 1),
    seed=seeds,
)
def test_results_that_are_operands_of_later_elements(
    level, name, count, shift, steps, other_step, operand, seed
):
    """The output anywhere over an operand: as if one element were computed after the other.

    ``accumulate`` has it shifted by one element.
    """
    step, out_step = steps
    reach = 3 * count + 24
    values = integer_patterns(seed, 2 * reach)
    other = integer_patterns(seed + 1, count * other_step + 1)
    addresses, all_steps = [0, 0, 0], [8 * step, 8 * step, 8 * out_step]
    addresses[operand] = values.ctypes.data + 8 * reach
    addresses[1 - operand] = other.ctypes.data
    addresses[2] = addresses[operand] + 8 * shift
    all_steps[1 - operand] = 8 * other_step
    wanted = values.tolist()
    for i in range(count):
        own, others = wanted[reach + i * step], int(other[i * other_step])
        pair = (own, others) if operand == 0 else (others, own)
        wanted[reach + shift + i * out_step] = inner_loops.expected(name, *pair)
    inner_loops.call(level, name, addresses, count, all_steps)
    assert values.tolist() == wanted


@loops_of(INTEGERS)
@settings(max_examples=40)
@given(count=st.integers(0, 80), step=st.sampled_from([1, 3, -1, 0]), seed=seeds)
def test_reduction(level, name, count, step, seed):
    """The output is the first operand, and both stay where they are."""
    values = integer_patterns(seed, count * abs(step) + 1)
    result = integer_patterns(seed + 1, 1)
    first = values.size - 1 if step < 0 else 0
    wanted = int(result[0])
    for i in range(count):
        wanted = inner_loops.expected(name, wanted, int(values[first + i * step]))
    at = result.ctypes.data
    inner_loops.call(level, name, [at, values.ctypes.data + 8 * first, at], count, [0, 8 * step, 0])
    assert int(result[0]) == wanted


UFUNCS = {
    **{name: [(f"f{SIZES[name]}", name)] for name in ROUNDING},
    **{name: [("i8" if name[4] == "s" else "u8", name)] for name in INTEGERS},
    "i64_ishl": [("i8", "i64_ishl"), ("u8", "i64_ishl")],
}


@pytest.mark.parametrize("name", UFUNCS)
@given(
    count=st.integers(0, 70),
    steps=st.tuples(st.sampled_from([1, 2, -1]), st.sampled_from([1, 2, -1])),
    seed=seeds,
)
def test_ufunc(name, count, steps, seed):
    """The public ufuncs, whatever serves them, over every type they have a loop for."""
    ufunc = getattr(ufuncs, name.partition("_")[2])
    for dtype, libcall in UFUNCS[name]:
        if name in ROUNDING:
            operands = [float_patterns(seed, count * 2, SIZES[name])]
        else:
            second = integer_patterns(seed, count * 2)
            first = dividends(seed, second) if name in DIVISIONS else integer_patterns(seed, count)
            operands = [np.resize(first, count * 2), second]
        operands = [x[:: steps[i]][:count] for i, x in enumerate(operands)]
        wanted = inner_loops.expected_array(libcall, *operands)
        with np.errstate(all="ignore"):
            got = ufunc(*(x.view(dtype) for x in operands))
        assert got.dtype == np.dtype(dtype)
        assert (got.view(wanted.dtype) == wanted).all()
