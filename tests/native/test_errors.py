"""Errors of signatures, addresses and names say what was meant."""

import ctypes

import pytest

import asm_libcalls
from asm_libcalls import Code, HostFunction, catch_traps, native_function
from asm_libcalls.signatures import Signature

IDENTITY = bytes.fromhex("4889f8 c3")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("(i64,)", "a type is missing, write one comma between two types"),
        ("(, i64)", "a type is missing, write one comma between two types"),
        ("(i64) ->", "a type is missing, write a type after '->'"),
        ("(i64 a)", "write the type of a parameter alone, without its name"),
        ("(int x)", "write the type of a parameter alone, without its name"),
        ("(F64)", "types are in lower case, 'f64'"),
        ("(i64) -> (i64)", "write the result without parentheses"),
        ("(float64)", "NumPy's float64 is f64 here"),
        ("(const char *)", "C's const char [*] is a const pointer here"),
        ("(char* s)", "C's char[*] s is a pointer here"),
    ],
)
def test_a_signature_is_refused_with_a_hint(text, hint):
    with pytest.raises(ValueError, match=hint):
        Signature(text)


def test_an_object_with_an_address_is_refused_with_a_hint():
    with HostFunction(abs, "(i64) -> i64") as host:
        for make in (native_function, catch_traps):
            with pytest.raises(TypeError, match=rf"^{make.__name__}\(\): .*give its .address$"):
                make(host, "(i64) -> i64")
    with pytest.raises(TypeError, match="c_void_p"):
        native_function(ctypes.CDLL(None).labs, "(i64) -> i64")


def test_a_code_lists_its_functions(machine_code):
    with Code(IDENTITY, {"same": (0, 4)}) as code:
        with pytest.raises(KeyError, match=r"the Code has no function 'other'.*'same'"):
            code.symbols["other"]
        assert "other" not in code.symbols


def test_names_of_caught_functions(machine_code):
    with Code(IDENTITY) as code:
        named = catch_traps(code.address, "(i64, i64) -> i64", name="same", parameters=("x", "y"))
        half = catch_traps(code.address, "(i64) -> i64", parameters=["x"])
        assert (
            repr(named)
            == f"<native function same(i64, i64) -> i64 at {code.address:#x}, traps caught>"
        )
        for _ in range(2):
            with pytest.raises(TypeError, match=r"^same\(\): argument 'y' must be an integer"):
                named(1, "y")
            with pytest.raises(TypeError, match=r"^same\(\) (takes 2 .*\(x, y\)|missing 1 .*'y')"):
                named(1)
            with pytest.raises(TypeError, match=r"^argument 'x' of <native function"):
                half("x")
        with pytest.raises(ValueError, match=r"^catch_traps\(\): name must be an identifier"):
            catch_traps(code.address, "()", name="not a name")
        with pytest.raises(ValueError, match=r"^catch_traps\(\): parameters must be 1 name for"):
            catch_traps(code.address, "(i64)", parameters=["a", "b"])
    for function, title in ((named, r"^same\(\)"), (half, "^<native function")):
        with pytest.raises(ValueError, match=f"{title}.*: the Code is closed"):
            function(*[1] * len(function.signature.parameters))
        with pytest.raises(ValueError, match=f"{title}.*: the Code is closed"):
            function.call_bits(*[1] * len(function.signature.parameters))


def test_complex_numbers_are_no_floats():
    numpy = pytest.importorskip("numpy")
    for value in (1j, numpy.complex64(1), numpy.complex128(1)):
        with pytest.raises(TypeError, match="must be a real number"):
            asm_libcalls.f64_ceil(value)
