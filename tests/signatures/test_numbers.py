"""Python numbers as arguments: their conversion to bit patterns, and errors with their names."""

import decimal
import fractions
import struct

import numpy
import pytest

from asm_libcalls.signatures import VALUE_TYPES

# More digits than Python agrees to print.
HUGE = pytest.param(10**5000, id="huge")


class Index:
    """An integer by ``__index__``, or what it raises."""

    def __init__(self, value):
        self.value = value

    def __repr__(self):
        return f"{type(self).__name__}({self.value!r})"  # the same in every process: it names tests

    def __index__(self):
        if isinstance(self.value, BaseException):
            raise self.value
        return self.value


class Float(Index):
    """A number by ``__float__``, or what it raises."""

    def __float__(self):
        return float(Index.__index__(self))

    __index__ = None


class BadRepr:
    def __repr__(self):
        raise RuntimeError("no text")


class FloatSubclass(float):
    pass


class IntSubclass(int):
    pass


@pytest.mark.parametrize(
    ("argument", "result"),
    [
        (2.5, 2.0),
        (FloatSubclass(2.5), 2.0),
        (3, 3.0),
        (True, 1.0),
        (Index(5), 5.0),
        (Float(7), 7.0),
        (numpy.float64(2.5), 2.0),
        (numpy.float32(3.5), 4.0),
        (numpy.float16(0.5), 0.0),
        (numpy.int8(-3), -3.0),
        (numpy.array(1.5), 2.0),
        (decimal.Decimal("4.5"), 4.0),
        (fractions.Fraction(11, 2), 6.0),
        (10**22, 1e22),
    ],
    ids=repr,
)
@pytest.mark.parametrize("name", ["f32_nearest", "f64_nearest"])
def test_real_numbers(name, argument, result, binding):
    got = binding.libcalls[name](argument)
    assert type(got) is float
    assert got == (struct.unpack("f", struct.pack("f", result))[0] if "f32" in name else result)


@pytest.mark.parametrize(
    "argument",
    ["1.5", b"1.5", bytearray(b"1.5"), memoryview(b"1.5"), numpy.str_("1.5"), numpy.bytes_(b"1.5"),
     None, 1j, [1.5], {}, object(), [10**5000], BadRepr()],
    ids=lambda argument: type(argument).__name__,
)  # fmt: skip
@pytest.mark.parametrize("name", ["f32_ceil", "f64_floor"])
def test_not_a_real_number(name, argument, binding):
    with pytest.raises(
        TypeError, match=rf"^{name}\(\): argument 'x' must be a real number .*, got "
    ):
        binding.libcalls[name](argument)


@pytest.mark.parametrize(
    ("value", "bits"),
    [
        (3.4028234663852886e38, 0x7F7FFFFF),  # the largest f32
        (3.4028235677973362e38, 0x7F7FFFFF),  # the last that rounds to it
        (3.4028235677973366e38, 0x7F800000),  # a tie, to even: beyond the range
        (-3.4028235677973366e38, 0xFF800000),
        (1e300, 0x7F800000),
        (-1e300, 0xFF800000),
        (10**300, 0x7F800000),
        (1e-46, 0x00000000),
        (-1e-46, 0x80000000),
        (1e-45, 0x00000001),
        (1 + 2**-24, 0x3F800000),  # a tie, to even
        (1 + 3 * 2**-24, 0x3F800002),
    ],
)
def test_f64_becomes_f32_as_demotion_does(value, bits):
    """WebAssembly 2.0, 4.3.4, demote: to nearest, ties to even, beyond the range to infinity."""
    assert VALUE_TYPES["f32"].to_bits(value, "x") == bits


@pytest.mark.parametrize(
    "argument", [10**400, -(10**400), HUGE, fractions.Fraction(10**400), Index(10**400)]
)
def test_real_number_beyond_f64(argument, binding):
    with pytest.raises(OverflowError, match=r"^f64_ceil\(\): argument 'x' .* beyond its range"):
        binding.libcalls["f64_ceil"](argument)


@pytest.mark.parametrize(
    "argument",
    [7, True, IntSubclass(7), Index(7), numpy.int64(7), numpy.uint8(7), numpy.array(7)],
    ids=repr,
)
def test_integers(argument, binding):
    got = binding.libcalls["i64_srem"](argument, 8)
    assert type(got) is int
    assert got == int(argument)


@pytest.mark.parametrize(
    "argument",
    [
        1.0,
        "1",
        b"1",
        None,
        1j,
        decimal.Decimal(1),
        numpy.float64(1),
        numpy.array([1, 2]),
        BadRepr(),
    ],
    ids=lambda argument: type(argument).__name__,
)
def test_not_an_integer(argument, binding):
    message = r"^i64_sdiv\(\): argument 'divisor' must be an integer \(i64\), got "
    with pytest.raises(TypeError, match=message):
        binding.libcalls["i64_sdiv"](1, argument)


@pytest.mark.parametrize(
    "argument",
    [2**64, -(2**63) - 1, HUGE, pytest.param(-(10**5000), id="minus-huge"), Index(2**64)],
)
def test_integer_out_of_range(argument, binding):
    message = r"^i64_sdiv\(\): argument 'dividend' must be in -2\*\*63 \.\. 2\*\*64-1 \(i64\), got "
    with pytest.raises(OverflowError, match=message):
        binding.libcalls["i64_sdiv"](argument, 1)


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("mine"), TypeError("mine"), KeyboardInterrupt()]
)
def test_error_of_the_argument_itself(error, binding):
    with pytest.raises(type(error)) as caught:
        binding.libcalls["i64_sdiv"](Index(error), 1)
    assert caught.value is error


def test_error_of_a_float_itself(binding):
    error = ZeroDivisionError("mine")
    with pytest.raises(ZeroDivisionError) as caught:
        binding.libcalls["f64_ceil"](Float(error))
    assert caught.value is error


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("f64_ceil", (), r"^f64_ceil\(\) takes 1 argument \(x\), got 0$"),
        ("f64_ceil", (1.0, 2.0), r"^f64_ceil\(\) takes 1 argument \(x\), got 2$"),
        ("i64_ishl", (1,), r"^i64_ishl\(\) takes 2 arguments \(x, count\), got 1$"),
        ("i64_sdiv", (1, 2, 3), r"^i64_sdiv\(\) takes 2 arguments \(dividend, divisor\), got 3$"),
    ],
)
def test_wrong_count(name, arguments, message, binding):
    libcall = binding.libcalls[name]
    for function in (libcall.checked_call, libcall.call_bits, libcall.fallback):
        with pytest.raises(TypeError, match=message):
            function(*arguments)
    # A builtin of one parameter says it as others of its type do.
    with pytest.raises(TypeError, match=rf"\b{name}\(\) takes"):
        libcall(*arguments)


@pytest.mark.parametrize(
    ("name", "patterns", "error"),
    [
        ("f32_ceil", (1 << 32,), OverflowError),
        ("f32_ceil", (-1,), OverflowError),
        ("f32_ceil", (1.5,), TypeError),
        ("f32_ceil", (None,), TypeError),
        ("f64_ceil", (1 << 64,), OverflowError),
        ("i64_sdiv", (-1, 1), OverflowError),
        ("i64_sdiv", (1, 1 << 64), OverflowError),
    ],
)
def test_not_a_bit_pattern(name, patterns, error, binding):
    with pytest.raises(error, match=rf"^{name}\(\): argument '\w+' must be a bit pattern"):
        binding.libcalls[name].call_bits(*patterns)
