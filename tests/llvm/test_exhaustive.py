"""Half precision over whole blocks of patterns; ``verify --exhaustive`` takes them all.

Both the code that serves and the code for CPUs without F16C and AVX are called.
"""

import numpy
import pytest

from asm_libcalls import llvm
from asm_libcalls.binding import default_binding
from asm_libcalls.llvm.checks import exhaustive
from asm_libcalls.native.catch_traps import catch_traps

pytestmark = pytest.mark.skipif(
    default_binding().x86_64 is None, reason=f"no machine code: {default_binding().x86_64_reason}"
)

WAYS = ("libcall", exhaustive.OLDEST)


def addresses(name):
    libcall = llvm.LIBCALLS[name]
    oldest = exhaustive._oldest().routine(libcall.symbol)
    return dict(zip(WAYS, (libcall.address, oldest), strict=True))


@pytest.mark.parametrize("name", exhaustive.FUNCTIONS)
def test_agrees(name):
    bits = exhaustive.FUNCTIONS[name][2]
    result = exhaustive.verify_exhaustively(name, step=1 if bits == 16 else 61)
    assert result.difference is None
    assert result.patterns >= 1 << 16
    assert result.ways == WAYS


def test_the_ways_are_different_code():
    """Otherwise, no code by hand would be checked on a CPU with F16C."""
    capstone = pytest.importorskip("capstone", reason="the disassembler, of the extra cli")
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    image = exhaustive._oldest().image
    for name in ("truncsfhf2", "extendhfsf2", "gnu_f2h_ieee", "gnu_h2f_ieee", "truncdfhf2"):
        offset, size = image.routines[f"__{name}"]
        found = {i.mnemonic for i in decoder.disasm(image.code[offset : offset + size], 0)}
        assert found
        assert not [mnemonic for mnemonic in found if mnemonic.startswith("v")]


@pytest.mark.parametrize("name", exhaustive.FUNCTIONS)
def test_the_oracle_agrees_with_the_fallback(name, random_cases):
    _, oracle, bits = exhaustive.FUNCTIONS[name]
    patterns = [random_cases.getrandbits(bits) for _ in range(3000)]
    patterns += [0, 1, (1 << bits) - 1, *(1 << i for i in range(bits))]
    wanted = [llvm.LIBCALLS[name].fallback.call_bits(pattern) for pattern in patterns]
    assert oracle(numpy.array(patterns, dtype=numpy.uint32)).tolist() == wanted


@pytest.mark.parametrize("victim", WAYS)
@pytest.mark.parametrize("name", ["extendhfsf2", "gnu_h2f_ieee"])
def test_sees_a_wrong_implementation(name, victim, monkeypatch):
    """One of the two implementations is that of bfloat, which differs from the first pattern on."""
    other = addresses("extendbfsf2")[victim]
    symbol = f"__{name}"
    if victim == "libcall":
        libcall = llvm.LIBCALLS[name]
        monkeypatch.setattr(type(libcall), "address", property(lambda self: other))
    else:

        class Wrong:
            @staticmethod
            def routine(wanted):
                assert wanted == symbol
                return other

        monkeypatch.setattr(exhaustive, "_oldest", Wrong)
    result = exhaustive.verify_exhaustively(name)
    assert result.difference is not None
    assert result.difference.way == victim
    assert result.patterns == 0


def test_sees_a_wrong_pattern(monkeypatch):
    loop, oracle, bits = exhaustive.FUNCTIONS["extendhfsf2"]

    def wrong(patterns):
        result = oracle(patterns)
        result[patterns == 0x7C01] ^= 1
        return result

    monkeypatch.setitem(exhaustive.FUNCTIONS, "extendhfsf2", (loop, wrong, bits))
    result = exhaustive.verify_exhaustively("extendhfsf2")
    assert result.difference is not None
    assert result.difference.pattern == 0x7C01
    assert result.difference.got ^ result.difference.wanted == 1


@pytest.mark.parametrize("name", ["extendhfsf2", "gnu_h2f_ieee", "extendbfsf2"])
def test_python_takes_every_pattern(name):
    libcall = llvm.LIBCALLS[name]
    served, fallback = libcall.call_bits, libcall.fallback.call_bits
    assert [p for p in range(1 << 16) if served(p) != fallback(p)] == []


# Doubles are too many; their results change between two neighbours of the narrow format.


def values_of(format_, patterns):
    """Return positive patterns as doubles; the one of infinity as the number after the largest."""
    if format_ == "f16":
        values = patterns.astype(numpy.uint16).view(numpy.float16).astype(numpy.float64)
        return numpy.where(patterns == 0x7C00, 2.0**16, values)
    wide = (patterns.astype(numpy.uint32) << numpy.uint32(16)).view(numpy.float32)
    return numpy.where(patterns == 0x7F80, 2.0**128, wide.astype(numpy.float64))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("name", "format_", "infinity"), [("truncdfhf2", "f16", 0x7C00), ("truncdfbf2", "bf16", 0x7F80)]
)
def test_doubles_around_every_tie(name, format_, infinity, way):
    from asm_libcalls.x86_64.call_loops import NativeLoops

    below = numpy.arange(infinity)
    low, high = values_of(format_, below), values_of(format_, below + 1)
    middle = (low + high) / 2
    assert ((middle - low) == (high - middle)).all()
    numbers = [low, numpy.nextafter(middle, 0), middle, numpy.nextafter(middle, numpy.inf)]
    wanted = [below, below, below + below % 2, below + 1]
    operands = numpy.concatenate([*numbers, *(-n for n in numbers)])
    expected = numpy.concatenate([*wanted, *(w | 0x8000 for w in wanted)])
    out = numpy.empty(operands.size, dtype=numpy.uint64)
    call_each = NativeLoops().function("(f64) -> f64")
    call_each(addresses(name)[way], operands.ctypes.data, out.ctypes.data, operands.size)
    assert numpy.flatnonzero(out & 0xFFFF != expected).tolist() == []


# 128-bit integers from and to halves: all that fit, and those around.


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["fixhfti", "fixunshfti"])
def test_every_half_becomes_the_truncated_integer(name, way):
    call = catch_traps(addresses(name)[way], llvm.LIBCALLS[name].signature).call_bits
    halves = numpy.arange(1 << 16, dtype=numpy.uint16).view(numpy.float16).astype(float).tolist()
    signed = name == "fixhfti"
    for pattern, value in enumerate(halves):
        if abs(value) < numpy.inf:
            wanted = int(value) if signed or value > 0 else 0
        elif pattern < 0x8000:
            wanted = 2**127 - 1 if signed else 2**128 - 1
        else:
            wanted = -(2**127) if signed else 0
        assert call(pattern) == wanted % 2**128, hex(pattern)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["floattihf", "floatuntihf"])
def test_every_integer_becomes_the_nearest_half(name, way):
    call = catch_traps(addresses(name)[way], llvm.LIBCALLS[name].signature).call_bits
    integers = range(-70_000 if name == "floattihf" else 0, 70_000)
    with numpy.errstate(over="ignore"):
        halves = numpy.array(integers, dtype=float).astype(numpy.float16).view(numpy.uint16)
    wanted = halves.tolist()
    for integer, pattern in zip(integers, wanted, strict=True):
        assert call(integer % 2**128) == pattern, integer
