"""The public ufuncs: NumPy's contract of a ufunc, and ours beyond it."""

import ctypes
import functools
import gc
import pickle
from fractions import Fraction

import inner_loops
import numpy as np
import pytest
from floating_point_flags import FE_DIVBYZERO, FE_OVERFLOW, raised_by
from inner_loops import LEVELS, SIZES

from asm_libcalls import ufuncs
from asm_libcalls.libcalls import DECLARATIONS
from asm_libcalls.ufuncs import fallback_loops, objects
from asm_libcalls.ufuncs.objects import Loop, make_ufunc
from asm_libcalls.x86_64 import cpu

MIN, MAX = -(2**63), 2**63 - 1
NAMES = [name for name in ufuncs.__all__ if name != "BACKENDS"]
ROUNDING = {"ceil": np.ceil, "floor": np.floor, "trunc": np.trunc, "nearest": np.rint}
SIGNED = ["sdiv", "srem", "sshr"]
UNSIGNED = ["udiv", "urem", "ushr"]
DIVISIONS = ["sdiv", "srem", "udiv", "urem"]


@functools.cache
def made(kind):
    """Return all ufuncs by name: the public ones, a level's, or those of a kind of fallback."""
    if kind == "public":
        return {name: getattr(ufuncs, name) for name in NAMES}
    result = {}
    for name, loops in ufuncs._LOOPS.items():
        its_loops = {}
        for libcall, dtypes in loops:
            if libcall in its_loops:
                continue
            if kind == "callback":
                its_loops[libcall] = fallback_loops.callback_loop(libcall, dtypes)
            elif kind == "fallback" or not inner_loops.has_loop(kind, libcall):
                its_loops[libcall] = fallback_loops.fallback_loop(libcall, dtypes)
            else:
                address = inner_loops.image(kind).routine(f"{libcall}_loop")
                its_loops[libcall] = Loop(dtypes, address, inner_loops.STREAMING)
        result[name] = make_ufunc(name, "", ufuncs.all_loops(name, its_loops), "elsewhere")
    return result


KINDS = ["public", "fallback", "callback", *LEVELS]


@pytest.fixture(params=KINDS)
def served(request):
    """All ufuncs, by every kind of loop that runs on this machine."""
    if request.param in LEVELS and not inner_loops.runs_here(request.param):
        pytest.skip(f"no {request.param} code runs on this machine")
    return made(request.param)


def operands(name, count=100, seed=1):
    random = np.random.default_rng(seed)
    if name in ROUNDING:
        return (random.normal(scale=100, size=count),)
    dtype = np.int64 if name in (*SIGNED, "ishl") else np.uint64
    pair = random.integers(0, 2**64, (2, count), dtype=np.uint64).view(dtype)
    return pair[0], pair[1] | 2  # no divisor 0 or -1


def one_by_one(name, *arrays):
    """Compute with the fallback on the broadcast elements; int64, uint64 and float64 alone."""
    libcall = f"f64_{name}" if name in ROUNDING else f"i64_{name}"
    broadcast = np.broadcast_arrays(*arrays)
    flat = [np.ascontiguousarray(x).view(np.uint64).ravel() for x in broadcast]
    result = inner_loops.expected_array(libcall, *flat)
    return result.view(broadcast[0].dtype).reshape(broadcast[0].shape)


def same(got, wanted):
    assert got.dtype == wanted.dtype
    assert got.shape == wanted.shape
    bits = f"u{wanted.dtype.itemsize}"
    assert (np.ascontiguousarray(got).view(bits) == np.ascontiguousarray(wanted).view(bits)).all()


def test_names_types_and_documents():
    for name in NAMES:
        ufunc = getattr(ufuncs, name)
        assert isinstance(ufunc, np.ufunc)
        assert ufunc.__name__ == name
        assert ufunc.nin == (1 if name in ROUNDING else 2)
        assert ufunc.identity is None
        assert DECLARATIONS[ufuncs._LOOPS[name][0][0]].doc in ufunc.__doc__
    for name in ROUNDING:
        types = [f"{t}->{t}" for t in "fd?bBhHiIlLqQeg" + "FDG" * (name == "nearest") + "O"]
        assert getattr(ufuncs, name).types == types
    signed, unsigned = (np.dtype(t).char for t in ("i8", "u8"))
    for name in NAMES:
        if name not in ROUNDING:
            types = getattr(ufuncs, name).types
            inputs = [f"{a}{b}" for a in (signed, unsigned) for b in (signed, unsigned)]
            assert sorted(t[:2] for t in types) == sorted(inputs)
            own = {t[-1] for t in types}
            assert own == {signed, unsigned} if name == "ishl" else own == {types[0][0]}
    assert set(ufuncs.BACKENDS) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_pickles_by_name(name):
    ufunc = getattr(ufuncs, name)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(ufunc, protocol)) is ufunc


@pytest.mark.skipif(not hasattr(np.ceil, "__dict__"), reason="NumPy before 2.2 has no __module__")
def test_says_where_it_is_from():
    assert ufuncs.sdiv.__module__ == "asm_libcalls.ufuncs"
    assert ufuncs.sdiv.__qualname__ == "sdiv"


def test_served_by_machine_code_where_there_is_some():
    features = inner_loops.cpu_features()
    if not features:
        assert all(backend.startswith("fallback: ") for backend in ufuncs.BACKENDS.values())
        return
    for name, backend in ufuncs.BACKENDS.items():
        needed = {"sse4_1"} if name in ROUNDING else set()
        assert backend == ("x86_64" if needed <= features else ufuncs.BACKENDS["ceil"])


@pytest.mark.parametrize("dtype", "?bBhHiIlLqQ")
@pytest.mark.parametrize("name", ROUNDING)
def test_integers_stay_as_they_are(name, dtype, served):
    ends = [0, 1] if dtype == "?" else [np.iinfo(dtype).min, np.iinfo(dtype).max]
    values = np.array([*ends, 0, 1], dtype)
    for given in (values, values[::2], values[:0], values[1]):
        got = served[name](given)
        assert got.dtype == values.dtype
        assert (got == given).all()
    assert served[name](2**53 + 1) == 2**53 + 1


@pytest.mark.parametrize("dtype", "efdg")
@pytest.mark.parametrize("name", ROUNDING)
def test_floats_round_in_their_own_type(name, dtype, served):
    values = np.array([0, -0.5, 1, 1.5, 2.5, -100.4, np.inf, np.nan], dtype)
    got = served[name](values)
    wanted = ROUNDING[name](values)
    assert got.dtype == values.dtype
    assert np.array_equal(got, wanted, equal_nan=True)
    assert (np.signbit(got) == np.signbit(wanted)).all()
    assert type(served[name](2.5)) is np.float64


def test_objects_round_by_their_own_methods(served):
    values = np.array([Fraction(3, 2), Fraction(-3, 2)], object)
    assert served["floor"](values).tolist() == [1, -2]
    assert served["trunc"](values).tolist() == [1, -1]

    class Own:
        def rint(self):
            return "rounded"

    assert served["nearest"](np.array([Own()], object)).tolist() == ["rounded"]


def test_complex_numbers_round_to_nearest_alone(served):
    for dtype in "FDG":
        assert served["nearest"](np.array([1.5 - 2.5j], dtype)).tolist() == [2 - 2j]
        with pytest.raises(TypeError):
            served["ceil"](np.array([1.5j], dtype))


def test_integers_of_every_kind_divide(served):
    small = np.array([-7, 7], dtype=np.int8)
    same(served["sdiv"](small, np.uint16(2)), np.array([-3, 3]))
    same(served["udiv"](small, small), np.array([1, 1], np.uint64))
    same(served["udiv"](np.array([9]), np.array([2])), np.array([4], np.uint64))
    for a, b in ((1.0, 1.0), (small, 2.0), (1j, 1)):
        with pytest.raises(TypeError):
            served["sdiv"](a, b)
        with pytest.raises(TypeError):
            served["udiv"](a, b)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ROUNDING])
def test_operands_may_be_given_in_either_reading(name, served):
    """As for the libcalls: by their bits."""
    first, second = operands(name, 50)
    wanted = one_by_one(name, first, second)
    for a in (np.int64, np.uint64):
        for b in (np.int64, np.uint64):
            result = a if name == "ishl" else np.uint64 if name in UNSIGNED else np.int64
            got = served[name](first.view(a), second.view(b))
            same(got, wanted.view(result))
            if len(got):
                same(served[name](first.view(a)[0], second.view(b)[0]), got[0])
    out = np.zeros(50, np.int64)
    served[name](first.view(np.int64), second.view(np.uint64), out=out)
    same(out, wanted.view(np.int64))


def test_python_numbers_and_lists(served):
    for name, (a, b), wanted, dtype in (
        ("udiv", (5, 10), 0, np.uint64),
        ("udiv", (-1, 2), 2**63 - 1, np.uint64),
        ("udiv", ([7, 8], 2), [3, 4], np.uint64),
        ("udiv", (np.uint64(2**63 + 5), 2), 2**62 + 2, np.uint64),
        ("udiv", (np.array([5]), -2), [0], np.uint64),
        ("urem", ([7, 8], [4, 3]), [3, 2], np.uint64),
        ("ushr", (-1, 60), 15, np.uint64),
        ("sdiv", (np.uint64(7), 2), 3, np.int64),
        ("sdiv", (np.uint64(7), -2), -3, np.int64),
        ("sdiv", (-7, np.uint64(2)), -3, np.int64),
        ("sdiv", (np.uint64(2**64 - 7), 2), -3, np.int64),
        ("srem", ([-7], np.uint64(4)), [-3], np.int64),
        ("sshr", (np.uint64(2**64 - 8), 1), -4, np.int64),
        ("ishl", (np.uint64(1), -1), 2**63, np.uint64),
        ("ishl", (1, np.uint64(65)), 2, np.int64),
        ("ishl", (True, True), 2, np.int64),
    ):
        got = served[name](a, b)
        assert (got.tolist(), got.dtype) == (wanted, dtype), (name, a, b)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [0, 1, 7, 100, 9000])
def test_every_layout(name, count, served):
    ufunc = served[name]
    arrays = operands(name, 2 * count)
    contiguous = [x[:count].copy() for x in arrays]
    strided = [x[::2] for x in arrays]
    backwards = [x[count:][::-1] for x in arrays]
    swapped = [x.astype(x.dtype.newbyteorder()) for x in contiguous]
    unaligned = []
    for x in contiguous:
        raw = np.zeros(x.nbytes + 1, np.uint8)[1:]
        raw[:] = np.frombuffer(x.tobytes(), np.uint8)
        unaligned.append(raw.view(x.dtype))
    for layout in (contiguous, strided, backwards, swapped, unaligned):
        native = [x.astype(x.dtype.newbyteorder("=")) for x in layout]
        same(ufunc(*layout), one_by_one(name, *native))
    if len(arrays) == 2:
        a, b = contiguous
        same(ufunc(a, strided[1]), one_by_one(name, a, strided[1]))
        if count:
            same(ufunc(a, b[0]), one_by_one(name, a, b[0]))
            same(ufunc(a[0], b), one_by_one(name, a[0], b))
            table = ufunc.outer(a[:9], b[:50])
            same(table, one_by_one(name, a[:9, None], b[None, :50]))


@pytest.mark.parametrize("name", NAMES)
def test_out_and_where(name, served):
    arrays = operands(name)
    wanted = one_by_one(name, *arrays)
    out = np.full_like(wanted, 99)
    chosen = np.arange(100) % 3 == 0
    assert served[name](*arrays, out=out, where=chosen) is out
    same(out, np.where(chosen, wanted, np.full_like(wanted, 99)))
    wide = np.zeros((100, 3), dtype=wanted.dtype)
    served[name](*arrays, out=wide[:, 1])
    same(wide[:, 1], wanted)
    assert not wide[:, ::2].any()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [1, 5, 33, 1000])
def test_in_place_and_overlapping(name, count, served):
    for i in range(len(operands(name))):
        for shift in (-9, -1, 0, 1, 9):
            arrays = [x.copy() for x in operands(name, count + 20)]
            inputs = [x[10 : 10 + count] for x in arrays]
            output = arrays[i][10 + shift : 10 + shift + count]
            wanted = one_by_one(name, *inputs)
            served[name](*inputs, out=output)
            same(output, wanted)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ROUNDING])
def test_small_operands(name, served):
    """Many quotients are exact, with every pair of signs."""
    low = -20 if name in (*SIGNED, "ishl") else 0
    dtype = np.int64 if low else np.uint64
    first, second = np.meshgrid(np.arange(low, 21), [n for n in range(low, 21) if n])
    arrays = first.astype(dtype), second.astype(dtype)
    with np.errstate(all="raise"):
        same(served[name](*arrays), one_by_one(name, *arrays))


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ROUNDING])
@pytest.mark.parametrize("count", [1, 2, 3, 9, 100])
def test_reductions(name, count, served):
    ufunc = served[name]
    values = operands(name, 3 * count)[1].reshape(count, 3)
    running = [values[0]]
    for row in values[1:]:
        running.append(one_by_one(name, running[-1], row))
    running = np.array(running)
    same(ufunc.reduce(values), running[-1])
    same(ufunc.reduce(np.ascontiguousarray(values.T), axis=1), running[-1])
    same(ufunc.reduce(values, keepdims=True), running[-1:])
    same(ufunc.accumulate(values), running)
    same(ufunc.accumulate(np.ascontiguousarray(values.T), axis=1), running.T)
    column = np.ascontiguousarray(values[:, 0])
    same(ufunc.reduceat(column, [0]), running[-1:, 0])
    with_initial = one_by_one(name, column[:1], column[:1])
    same(ufunc.reduce(column[:1], initial=column[0], keepdims=True), with_initial)
    with pytest.raises(ValueError, match="no identity"):
        ufunc.reduce(column[:0])


def test_at(served):
    values = np.array([100, 200, 300])
    served["sdiv"].at(values, [0, 2, 0], [3, -7, 2])
    same(values, np.array([16, 200, -42]))
    numbers = np.array([0.5, 1.5, 2.5])
    served["nearest"].at(numbers, [0, 1])
    same(numbers, np.array([0.0, 2.0, 2.5]))


def test_masked_arrays_and_subclasses(served):
    masked = np.ma.masked_array([1.5, 2.5], mask=[True, False])
    got = served["floor"](masked)
    assert isinstance(got, np.ma.MaskedArray)
    assert got.tolist() == [None, 2.0]


@pytest.mark.parametrize("name", ROUNDING)
def test_nans_keep_sign_and_payload(name, served):
    for unsigned, real, patterns in (
        (
            np.uint32,
            np.float32,
            {0x7F800001: 0x7FC00001, 0xFFA5A5A5: 0xFFE5A5A5, 0x7FC12345: 0x7FC12345},
        ),
        (
            np.uint64,
            np.float64,
            {0xFFF0000000000001: 0xFFF8000000000001, 0x7FF8000000000123: 0x7FF8000000000123},
        ),
    ):
        for count in (1, 3, 100):
            quiet = np.resize(np.array(list(patterns.values()), dtype=unsigned), count)
            given = np.resize(np.array(list(patterns), dtype=unsigned), count)
            with np.errstate(invalid="ignore"):
                got = served[name](given.view(real)).view(unsigned)
            assert (got == quiet).all()


@pytest.mark.parametrize(
    ("level", "name"),
    [(level, name) for level in LEVELS for name in SIZES if inner_loops.has_loop(level, name)],
)
def test_floating_point_flags(level, name):
    """No loop raises a flag but the two that are meant, on any way through it."""
    if not inner_loops.runs_here(level):
        pytest.skip(f"no {level} code runs on this machine")
    size = SIZES[name]
    for count in (1, 3, 8, 9, 16, 17, 100):
        for step in (1, 2, 0):
            for special, flag in (
                (None, 0),
                ((5, 0), FE_DIVBYZERO),
                ((0, 0), FE_DIVBYZERO),
                ((MIN, -1), FE_OVERFLOW),
            ):
                first = np.arange(2, 2 + 2 * count, dtype=f"u{size}") * 7
                second = np.arange(3, 3 + 2 * count, dtype=f"u{size}") * 3
                if name in inner_loops.ROUNDING:
                    first = (first + 0.25).astype(f"f{size}")
                if special:
                    at = 0 if step == 0 else step * (count - 1)
                    if name in inner_loops.INTEGERS:
                        first.view(np.int64)[0 if step == 0 else at] = special[0]
                        second.view(np.int64)[at] = special[1]
                wanted = 0
                if special and name.endswith(("div", "rem")):
                    wanted = flag
                    if flag == FE_OVERFLOW and name != "i64_sdiv":
                        wanted = 0
                out = np.zeros_like(first)
                arrays = [first, out] if name in inner_loops.ROUNDING else [first, second, out]
                steps = [size * step] * (len(arrays) - 1) + [size * (step or 1)]
                call = functools.partial(
                    inner_loops.call, level, name, [x.ctypes.data for x in arrays], count, steps
                )
                assert raised_by(call) == wanted, (count, step, special)


MASK_64 = (1 << 64) - 1
DIVISION_LOOPS = [f"i64_{name}" for name in DIVISIONS]
DIVISORS = [
    *(1, 2, 3, 5, 7, 10, 255, 1000, 4095, 4096, 4097, 10_007),
    *(
        16_381,
        (1 << 14) - 1,
        1 << 14,
        (1 << 14) + 1,
        (1 << 16) - 1,
        1 << 16,
        10**6,
        1 << 31,
        (1 << 52) + 1,
        (1 << 62) + 3,
    ),
    *((1 << 63) - 1, 1 << 63, (1 << 64) - 3, MASK_64 - 16_383, MASK_64 - 6, MASK_64 - 1, MASK_64),
]


@pytest.mark.parametrize(
    ("level", "name"), [(level, name) for level in LEVELS for name in DIVISION_LOOPS]
)
def test_division_by_one_number_and_by_many(level, name):
    """Each divisor has a loop for its size; dividends are beside multiples, and extreme."""
    if not inner_loops.runs_here(level):
        pytest.skip(f"no {level} code runs on this machine")
    random = np.random.default_rng(20)
    for divisor in DIVISORS:
        quotients = random.integers(0, MASK_64 // divisor, 150, dtype=np.uint64, endpoint=True)
        near = quotients * np.uint64(divisor)
        some = [0, 1, 2**52 - 1, 2**52, 2**63 - 1, 2**63, 2**63 + 1, MASK_64, divisor]
        dividends = np.concatenate(
            [near - np.uint64(1), near, near + np.uint64(1), np.array(some, np.uint64)]
        )
        fixed = np.array([divisor], np.uint64)
        out = np.full(len(dividends) + 1, 0xA5A5, np.uint64)
        all_divisors = np.full_like(dividends, divisor)
        wanted = inner_loops.expected_array(name, dividends, all_divisors)
        for divisors, step in ((fixed, 0), (all_divisors, 8)):
            out[:-1] = 0x5A5A
            addresses = [x.ctypes.data for x in (dividends, divisors, out)]
            inner_loops.call(level, name, addresses, len(dividends), [8, step, 8])
            assert np.array_equal(out[:-1], wanted), (divisor, step)
            assert out[-1] == 0xA5A5


@pytest.mark.parametrize("level", [level for level in LEVELS if level != "baseline"])
def test_strided_operands_beside_guard_pages(level, child):
    """No loop reads or writes what lies before a first or behind a last element."""
    if not inner_loops.runs_here(level):
        pytest.skip(f"no {level} code runs on this machine")
    done = child(f"""
        import ctypes
        import numpy as np
        import inner_loops
        from raw_vmcontext import GuardedPages

        source, target = GuardedPages(4096), GuardedPages(4096)
        done = 0
        for name, size in (("f32_ceil", 4), ("f64_floor", 8)):
            rounded = {{4: np.ceil, 8: np.floor}}[size]
            for step_in in (1, 2, 3, -2):
                for step_out in (1, 2, -1):
                    for count in (*range(1, 70), 100, 128, 129):
                        for at_end in (False, True):
                            views = []
                            for pages, step in ((source, step_in), (target, step_out)):
                                span = (abs(step) * (count - 1) + 1) * size
                                first = 4096 - span if at_end else 0
                                if step < 0:
                                    first += span - size
                                whole = (ctypes.c_uint8 * 4096).from_address(pages.address)
                                views.append(
                                    np.ndarray((count,), f"f{{size}}", whole, first, (step * size,))
                                )
                            views[0][...] = np.linspace(-9, 9, count)
                            addresses = [view.ctypes.data for view in views]
                            steps = [step_in * size, step_out * size]
                            inner_loops.call({level!r}, name, addresses, count, steps, 1 << 40)
                            assert np.array_equal(views[1], rounded(views[0])), (name, count)
                            done += 1
        print(done)
        """)
    assert int(done.stdout) == 2 * 4 * 3 * 72 * 2


@pytest.mark.parametrize("count", [1, 5, 100, 20_000])
@pytest.mark.parametrize("name", DIVISIONS)
def test_zero_divisor(name, count, served):
    dividends, divisors = (x.copy() for x in operands(name, count))
    divisors[0] = 0  # in the first of several blocks, where NumPy casts in blocks
    with np.errstate(all="raise", divide="ignore"):
        same(served[name](dividends, divisors), one_by_one(name, dividends, divisors))
        assert served[name](dividends, divisors)[0] == 0
        zero = dividends.dtype.type(0)
        assert not served[name](dividends, zero).any()
    with np.errstate(divide="raise"):
        with pytest.raises(FloatingPointError, match=f"divide by zero encountered in {name}"):
            served[name](dividends, divisors)
        narrow = (divisors != 0).astype(np.uint8)
        with pytest.raises(FloatingPointError, match="divide by zero"):
            served[name](dividends, narrow)
        with pytest.raises(FloatingPointError, match="divide by zero"):
            served[name](dividends, divisors * 0)
    with np.errstate(divide="warn"), pytest.warns(RuntimeWarning, match="divide by zero"):
        served[name](dividends, divisors)


def test_traps_within_reductions(served):
    """There every result is the next operand, and flags are raised as elsewhere."""
    for name in DIVISIONS:
        values = np.array([100, 7, 0, 3]).astype("u8" if name in UNSIGNED else "i8")
        with np.errstate(all="raise", divide="ignore"):
            assert served[name].accumulate(values)[2:].tolist() == [0, 0]
            assert served[name].reduce(values) == 0
        for call in (served[name].accumulate, served[name].reduce):
            with (
                np.errstate(divide="raise"),
                pytest.raises(FloatingPointError, match="divide by zero encountered"),
            ):
                call(values)
    values = np.array([MIN, 1, -1, 2])
    with np.errstate(all="raise", over="ignore"):
        assert served["sdiv"].accumulate(values).tolist() == [MIN, MIN, MIN, MIN // 2]
    with (
        np.errstate(over="raise"),
        pytest.raises(FloatingPointError, match="overflow encountered"),
    ):
        served["sdiv"].accumulate(values)
    with np.errstate(all="raise"):
        assert served["srem"].accumulate(np.array([MIN, MAX, -1])).tolist() == [MIN, -1, 0]


@pytest.mark.parametrize("count", [1, 5, 8, 100])
def test_minimum_by_minus_one(count, served):
    """As NumPy's floor division: MIN and an overflow; the remainder is 0 and nothing happens."""
    lowest, minus_one = np.full(count, MIN), np.full(count, -1)
    for divisor in (minus_one, np.int64(-1)):
        with np.errstate(all="raise", over="ignore"):
            assert (served["sdiv"](lowest, divisor) == MIN).all()
            assert (np.floor_divide(lowest, divisor) == MIN).all()
        with (
            np.errstate(over="raise"),
            pytest.raises(FloatingPointError, match="overflow encountered in sdiv"),
        ):
            served["sdiv"](lowest, divisor)
        with np.errstate(all="raise"):
            assert not served["srem"](lowest, divisor).any()
            assert (served["sdiv"](lowest + 1, divisor) == MAX).all()


def test_shift_counts_are_taken_modulo_64(served):
    counts = np.array([0, 1, 63, 64, 65, 127, 128, -1])
    same(served["ishl"](np.int64(1), counts), np.int64(1) << (counts & 63))
    same(served["sshr"](np.int64(MIN), counts), np.int64(MIN) >> (counts & 63))
    unsigned = counts.astype(np.uint64)
    same(served["ushr"](np.uint64(2**63), unsigned), np.uint64(2**63) >> (unsigned & np.uint64(63)))


def test_nothing_given_to_numpy_is_freed():
    doc = "".join(["a doc", "string"])
    address = fallback_loops.callback_loop("i64_ishl", ["i8"] * 3).address
    ufunc = make_ufunc("".join(["ish", "l"]), doc, [Loop(["i8"] * 3, address)], "elsewhere")
    del doc
    gc.collect()
    assert ufunc.__name__ == "ishl"
    assert ufunc.__doc__.endswith("a docstring")
    assert ufunc(3, 65) == 6


def test_fallback_borrows_what_numpy_has_and_calls_back_for_the_rest():
    borrowed = {
        n
        for n in SIZES
        if fallback_loops.borrowed_loop(
            n,
            [f"{'f' if n[0] == 'f' else 'u' if n[4] == 'u' else 'i'}{SIZES[n]}"]
            * (2 if n[0] == "f" else 3),
        )
    }
    assert borrowed == {*inner_loops.ROUNDING, "i64_srem", "i64_udiv", "i64_urem"}
    assert fallback_loops.borrowed_loop("i64_udiv", ["u8", "u8", "f8"]) is None


@pytest.mark.parametrize("swapped", [(), ("ntypes", "reserved1"), ("nargs", "identity")])
def test_fallback_looks_before_it_borrows(monkeypatch, swapped):
    """Where NumPy's objects are not laid out as its header says, nothing is read past the check."""
    fields = objects._UFuncObject._fields_
    if swapped:
        names = [name for name, _ in fields]
        i, j = map(names.index, swapped)
        names[i], names[j] = names[j], names[i]
        fields = [(name, type_) for name, (_, type_) in zip(names, fields, strict=True)]
    else:
        fields = [("moved", ctypes.c_int), *fields]

    class Elsewhere(ctypes.Structure):
        _fields_ = fields

    monkeypatch.setattr(objects, "_UFuncObject", Elsewhere)
    assert fallback_loops.borrowed_loop("f64_ceil", ["f8", "f8"]) is None
    loop = fallback_loops.fallback_loop("f64_ceil", ["f8", "f8"])
    assert make_ufunc("ceil", "", [loop], "elsewhere")(1.5) == 2


def test_fallback_alone_in_a_process_of_its_own(child):
    code = """
        from asm_libcalls import ufuncs
        assert ufuncs.BACKENDS == dict.fromkeys(
            ufuncs.BACKENDS, "fallback: the fallback was asked for"
        ), ufuncs.BACKENDS
        print(ufuncs.sdiv([-7, 7], 2).tolist(), ufuncs.ceil(1.5), ufuncs.ishl(1, 65))
    """
    done = child(code, variables={"ASM_LIBCALLS_BACKEND": "fallback"})
    assert done.stdout.strip() == "[-3, 3] 2.0 2"


def test_package_does_not_import_numpy(child):
    code = "import asm_libcalls, sys; print('numpy' in sys.modules)"
    assert child(code).stdout.strip() == "False"


def test_failure_to_make_loops_leaves_the_fallback(monkeypatch):
    def refuse(features):
        raise OSError(13, "no pages today")

    monkeypatch.setenv("ASM_LIBCALLS_CACHE", "off")
    from asm_libcalls.x86_64 import code_cache, ufunc_loops

    monkeypatch.setattr(code_cache, "kept_images", {})
    monkeypatch.setattr(ufunc_loops, "routines", refuse)
    monkeypatch.setattr(ufuncs, "BACKENDS", {})
    image, why_not = ufuncs._machine_loops()
    assert image is None
    if inner_loops.cpu_features():
        assert why_not.endswith("no pages today")
    assert ufuncs._make_ufuncs()["sdiv"](-7, 2) == -3
    assert all(backend.startswith("fallback: ") for backend in ufuncs.BACKENDS.values())


@pytest.mark.parametrize("failing", [False, True], ids=["made", "not made"])
def test_report_says_whose_loops_serve(child, failing):
    code = f"""
        from asm_libcalls import backend_report
        assert backend_report()["ufuncs"] == "not imported"
        from asm_libcalls.x86_64 import code_cache
        load = code_cache.load
        def refuse(kind, *features):
            if kind == "ufuncs" and {failing}:
                raise OSError("no pages today")
            return load(kind, *features)
        code_cache.load = refuse
        from asm_libcalls import ufuncs
        print(backend_report()["ufuncs"], *sorted(set(ufuncs.BACKENDS.values())), sep="|")
    """
    reported, *backends = child(code).stdout.strip().split("|")
    if len(backends) == 1:
        assert reported == backends[0]
    assert all(backend in reported for backend in backends)
    if failing and inner_loops.cpu_features():
        assert reported == "fallback: machine code could not be made: OSError: no pages today"


def test_size_of_the_last_level_cache(tmp_path):
    assert cpu.last_level_cache() > 0
    assert cpu.last_level_cache(tmp_path / "missing") == 32 << 20
    for i, (level, type_, size) in enumerate(
        [(1, "Data", "32K"), (1, "Instruction", "64M"), (2, "Unified", "2M"), (3, "Unified", "?")]
    ):
        folder = tmp_path / f"index{i}"
        folder.mkdir()
        for name, text in (("level", str(level)), ("type", type_), ("size", size)):
            (folder / name).write_text(f"{text}\n")
    assert cpu.last_level_cache(tmp_path) == 2 << 20


@pytest.mark.parametrize("level", [level for level in LEVELS if level != "baseline"])
@pytest.mark.parametrize("name", ["f32_floor", "f64_nearest"])
def test_places_of_operands_in_a_page(level, name):
    """Where the output is a little ahead modulo 4096 rounding goes backwards, unless they meet."""
    if not inner_loops.runs_here(level):
        pytest.skip(f"no {level} code runs on this machine")
    size = SIZES[name]
    rounded = {"f32_floor": np.floor, "f64_nearest": np.rint}[name]
    space = np.zeros(6 * 4096 + 2 * 40_000, dtype="u1")
    start = -space.ctypes.data % 4096
    for count in (16, 31, 64, 129, 1000, 40_000 // size):
        apart = -(-count * size // 4096) * 4096
        # Apart in both orders; and the output behind an input that it meets, which is read first.
        for distance in (
            *(apart + 4096 + ahead for ahead in (-64, 0, size, 48, 64, 144, 256, 500, 512, 1040)),
            *(-apart - 4096 + ahead for ahead in (0, size, 64, 256)),
            *(-behind * size for behind in (0, 1, 17, 250, 4000 // size, 4080 // size)),
        ):
            space[:] = 0xA5
            first = start + (64 if distance >= 0 else -distance)
            source, target = (
                space[at : at + count * size].view(f"f{size}") for at in (first, first + distance)
            )
            source[:] = np.linspace(-100, 100, count)
            wanted = space.copy()
            at = first + distance
            wanted[at : at + count * size] = rounded(source).view("u1")
            addresses = [source.ctypes.data, target.ctypes.data]
            inner_loops.call(level, name, addresses, count, [size, size], 1 << 40)
            assert np.array_equal(space, wanted), (count, distance)
