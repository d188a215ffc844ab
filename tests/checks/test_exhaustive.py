"""The exhaustive check: its oracle is right, and it finds a wrong bit anywhere."""

import itertools
import json

import command_line
import inner_loops
import numpy as np
import pytest

from asm_libcalls import ufuncs
from asm_libcalls.binding import default_binding
from asm_libcalls.checks import exhaustive
from asm_libcalls.fallback import rounding

SOME_TOPS = [0, 1, 125, 126, 127, 128, 149, 150, 151, 254, 255]
SOME_TOPS += [256 + top for top in SOME_TOPS]


@pytest.mark.parametrize("name", exhaustive.FUNCTIONS)
@pytest.mark.parametrize("top", SOME_TOPS)
def test_oracle(name, top):
    random = np.random.default_rng(top)
    fractions = random.integers(0, 1 << 23, 500, dtype=np.uint32)
    fractions[:24] = [0, *(1 << np.arange(23))]
    patterns = fractions | np.uint32(top << 23)
    wanted = [getattr(rounding, name)(pattern) for pattern in patterns.tolist()]
    assert exhaustive._oracle(name, top, patterns).tolist() == wanted


@pytest.mark.parametrize("name", exhaustive.FUNCTIONS)
def test_agrees_on_some_blocks(name):
    told = []
    result = exhaustive.verify_exhaustively(
        name, lambda *told_now: told.append(told_now), tops=[126, 511]
    )
    assert result.difference is None
    assert result.patterns == 2 << 23
    assert told == [(name, 1 << 23), (name, 2 << 23)]
    ways = ("ufunc contiguous", "ufunc strided input", "ufunc strided")
    machine_code = default_binding().x86_64 is not None
    assert result.ways == (("libcall", *ways) if machine_code else ways)


def test_blocks_are_all_patterns():
    for top in (0, 511):
        batches = exhaustive._batches("f32_ceil", {}, [top])
        next(batches)  # the oracle's own check
        blocks = [(int(patterns[0]), int(patterns[-1])) for _, patterns, _ in batches]
        assert blocks[0][0] == top << 23
        assert blocks[-1][1] == (top + 1 << 23) - 1
        assert all(a[1] + 1 == b[0] for a, b in itertools.pairwise(blocks))


@pytest.mark.parametrize("way", ["ufunc contiguous", "ufunc strided input", "ufunc strided"])
def test_sees_one_wrong_bit(way, monkeypatch):
    """One pattern of a block comes out wrong, in one way only."""
    victim = (127 << 23) + 12345
    real = exhaustive._ways

    def ways(name):
        result = real(name)
        right = result[way]

        def wrong(patterns):
            out = right(patterns)
            out[patterns == victim] ^= np.uint32(1)
            return out

        return {**result, way: wrong}

    monkeypatch.setattr(exhaustive, "_ways", ways)
    result = exhaustive.verify_exhaustively("f32_floor", tops=[127])
    right = rounding.f32_floor(victim)
    assert result.difference == (way, victim, right ^ 1, right)
    assert f"{victim:#010x}" in str(result.difference)
    assert result.patterns < 1 << 23


def test_sees_a_wrong_oracle(monkeypatch):
    monkeypatch.setattr(exhaustive, "_HALF", exhaustive._HALF - 1)
    result = exhaustive.verify_exhaustively("f32_nearest", tops=[126])
    assert result.difference.way == "the oracle, against the fallback"
    assert result.difference.pattern == 126 << 23


def test_every_way_is_another_path_through_the_loop():
    """Strides that the three ways are named for."""
    calls = []

    class Watched:
        def __call__(self, operand, out):
            calls.append((operand.strides, out.strides))

    original = ufuncs.ceil
    try:
        ufuncs.ceil = Watched()
        for function in exhaustive._ways("f32_ceil").values():
            function(np.zeros(exhaustive.BLOCK, dtype=np.uint32))
    finally:
        ufuncs.ceil = original
    assert calls == [((4,), (4,)), ((8,), (4,)), ((8,), (8,))]


def test_command_refuses_other_libcalls():
    done = command_line.run("verify", "--exhaustive", "i64_sdiv")
    assert done.returncode == 2
    assert "--exhaustive is for f32_ceil" in done.stderr


def test_command(monkeypatch, capsys):
    from asm_libcalls import cli

    original = exhaustive.verify_exhaustively

    def quickly(name, tell):
        return original(name, tell, tops=[255])

    monkeypatch.setattr(exhaustive, "verify_exhaustively", quickly)
    assert cli.main(["verify", "--exhaustive", "f32_ceil", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["libcalls"]
    assert (row["name"], row["patterns"], row["difference"]) == ("f32_ceil", 1 << 23, None)
    assert cli.main(["verify", "--exhaustive"]) == 0
    assert capsys.readouterr().out.count("agrees") == 4

    broken = exhaustive.PatternDifference("ufunc", 1, 2, 3)
    monkeypatch.setattr(
        exhaustive,
        "verify_exhaustively",
        lambda name, tell: exhaustive.Exhaustive(name, ("ufunc",), 5, 0.1, broken),
    )
    assert cli.main(["verify", "--exhaustive", "f32_ceil"]) == 1
    assert "0x00000001 gave 0x00000002, not 0x00000003" in capsys.readouterr().out


@pytest.mark.skipif(not inner_loops.cpu_features(), reason="no machine code runs on this machine")
def test_native_loops():
    """They call as often as they are told, with each element, and keep the ABI."""
    import ctypes

    from asm_libcalls.x86_64.call_loops import NativeLoops

    loops = NativeLoops()
    seen = []

    @ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)
    def twice(x):
        seen.append(x)
        return 2 * x

    @ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
    def minus(a, b):
        return a - b

    addresses = [ctypes.cast(f, ctypes.c_void_p).value for f in (twice, minus)]
    for count in (0, 1, 5):
        seen.clear()
        a, b = np.arange(5.0), np.full(5, -1.0)
        loops.function("(f64) -> f64")(addresses[0], a.ctypes.data, b.ctypes.data, count)
        assert b.tolist() == [*(2 * a[:count]), *[-1] * (5 - count)]
        assert seen == a[:count].tolist()
        first, second, out = np.arange(5) * 10, np.arange(5), np.full(5, -1)
        pointers = (x.ctypes.data for x in (first, second, out))
        loops.function("(i64, i64) -> i64")(addresses[1], *pointers, count)
        assert out.tolist() == [*(first - second)[:count], *[-1] * (5 - count)]
    f32, u32 = ctypes.c_float, ctypes.c_uint32
    to_integer = ctypes.CFUNCTYPE(u32, f32)(lambda x: int(x) * 10)
    to_float = ctypes.CFUNCTYPE(f32, u32)(lambda n: n / 4)
    for signature, function, source, target, wanted in (
        ("(f32) -> u32", to_integer, np.float32, np.uint32, [0, 10, 20, 30, 40]),
        ("(u32) -> f32", to_float, np.uint32, np.float32, [0, 0.25, 0.5, 0.75, 1]),
    ):
        numbers, results = np.arange(5, dtype=source), np.zeros(5, dtype=target)
        address = ctypes.cast(function, ctypes.c_void_p).value
        loops.function(signature)(address, numbers.ctypes.data, results.ctypes.data, 5)
        assert results.tolist() == wanted
