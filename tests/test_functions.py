"""The libcalls as the package's functions: builtins that do what their libcall does."""

import copy
import gc
import inspect
import pickle
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import asm_libcalls
from asm_libcalls import LIBCALLS
from asm_libcalls.binding import default_binding
from asm_libcalls.functions import _Entered, make_functions
from asm_libcalls.libcall import Libcall
from asm_libcalls.native.native_function import native_functions, why_not_builtin
from asm_libcalls.native.specification import Specification

BUILTIN = type(len)
NUMERIC = [name for name, c in LIBCALLS.items() if c.declaration.family in ("rounding", "integers")]


@pytest.fixture(params=["auto", "fallback"])
def functions(request, fallback):
    """The functions over what serves by default, and over the fallback alone."""
    if request.param == "fallback":
        return make_functions(fallback)
    return {name: getattr(asm_libcalls, name) for name in LIBCALLS}


def outcome(function, arguments):
    try:
        result = function(*arguments)
    except Exception as error:
        return type(error), str(error)
    return type(result), repr(result)


@pytest.mark.parametrize("name", LIBCALLS)
def test_they_are_builtins_that_say_what_they_are(name):
    libcall, function = LIBCALLS[name], getattr(asm_libcalls, name)
    if why_not_builtin() == "":
        assert type(function) is BUILTIN
        assert repr(function) == f"<built-in function {name}>"
    assert function.__name__ == function.__qualname__ == name
    assert function.__module__ == "asm_libcalls"
    assert function.__doc__ == libcall.doc
    assert list(inspect.signature(function).parameters) == list(libcall.declaration.parameters)
    assert getattr(asm_libcalls, name) is function
    assert copy.deepcopy(function) is pickle.loads(pickle.dumps(function)) is function


def test_there_are_builtins_where_machine_code_serves(machine_code):
    assert why_not_builtin() == ""


ARGUMENTS = (
    st.integers(-(2**65), 2**65)
    | st.builds(lambda power, step: 2**power + step, st.integers(0, 65), st.integers(-2, 2))
    | st.floats()
    | st.booleans()
    | st.sampled_from([None, "1", 10**400, 0, -1, -(2**63), 2**63])
)


@pytest.mark.parametrize("name", LIBCALLS)
def test_they_do_what_the_libcall_does(name, functions):
    libcall, function = LIBCALLS[name], functions[name]
    count = len(libcall.declaration.parameters)

    # All that is refused is refused in one place; machine code reads the numeric ones' arguments.
    @settings(max_examples=100 if name in NUMERIC else 5)
    @given(st.lists(ARGUMENTS, min_size=count, max_size=count))
    def agree(arguments):
        assert outcome(function, arguments) == outcome(libcall.checked_call, arguments)

    agree()


@pytest.mark.parametrize("name", LIBCALLS)
def test_a_wrong_count_or_a_keyword_is_refused(name, functions):
    function, parameters = functions[name], LIBCALLS[name].declaration.parameters
    for count in {0, 1, 2, 3, 8} - {len(parameters)}:
        with pytest.raises(TypeError, match=rf"\b{name}\(\)"):
            function(*[0] * count)
    with pytest.raises(TypeError, match="keyword"):
        function(**dict.fromkeys(parameters, 0))


def test_common_arguments_run_no_python(machine_code):
    arguments = {1: (2.5,), 2: (-(2**62), 2**33 + 1)}
    functions = [
        (getattr(asm_libcalls, name), arguments[len(LIBCALLS[name].declaration.parameters)])
        for name in NUMERIC
    ]
    events = []
    sys.setprofile(lambda frame, event, argument: events.append((event, argument)))
    try:
        for function, given_ in functions:
            function(*given_)
    finally:
        sys.setprofile(None)
    assert len(functions) == 15
    assert [argument for event, argument in events if event == "c_call"] == [
        *(function for function, _ in functions),
        sys.setprofile,
    ]
    assert not {event for event, _ in events} & {"call", "c_exception"}


@pytest.mark.parametrize("name", NUMERIC)
def test_a_libcall_and_its_cfunc_run_no_python_either(machine_code, name):
    libcall = LIBCALLS[name]
    arguments = {1: (2.5,), 2: (-(2**62), 2**33 + 1)}[len(libcall.declaration.parameters)]
    expected = getattr(asm_libcalls, name)(*arguments)
    cfunc = libcall.cfunc
    assert cfunc is libcall.cfunc
    assert libcall(*arguments) == expected  # the first call makes the builtin
    events = []
    gc.disable()  # its callbacks are Python functions
    sys.setprofile(lambda frame, event, argument: events.append(event))
    try:
        results = libcall(*arguments), cfunc(*arguments)
    finally:
        sys.setprofile(None)
        gc.enable()
    assert results == (expected, expected)
    assert "call" not in events


@pytest.mark.parametrize("name", NUMERIC)
def test_the_fallback_and_its_cfunc_run_no_machine_code(accelerated, monkeypatch, name):
    libcall = Libcall(LIBCALLS[name].declaration, accelerated)
    assert libcall.signature.result is not None
    pattern = 5 if libcall.signature.result.kind == "integer" else 0x42280000  # 42.0 as f32
    monkeypatch.setattr(type(accelerated), "fallback_of", lambda *of: lambda *patterns: pattern)
    fallback = libcall.fallback
    arguments = {1: (2.5,), 2: (-(2**62), 2**33 + 1)}[len(libcall.declaration.parameters)]
    for _ in range(2):
        results = fallback(*arguments), fallback.cfunc(*arguments)
        assert results == (libcall.signature.from_pattern(pattern),) * 2


def test_only_divisors_that_trap_take_the_slow_path(machine_code, monkeypatch):
    """It enters native code by a function of its own, which catches the trap."""
    seen = []
    original = _Entered.__call__

    def spy(self, *arguments):
        seen.append((self._libcall.name, arguments))
        return original(self, *arguments)

    monkeypatch.setattr(_Entered, "__call__", spy)
    functions = make_functions(default_binding())  # their slow paths are spied on
    assert functions["i64_sdiv"](5, -1) == -5
    assert functions["i64_srem"](-(2**63), -1) == 0
    assert functions["i64_udiv"](2**64 - 1, -1) == 1
    assert seen == []
    for name, arguments in (
        ("i64_sdiv", (-(2**63), -1)),
        ("i64_sdiv", (1, 0)),
        ("i64_srem", (1, 0)),
        ("i64_udiv", (1, 0)),
        ("i64_urem", (1, 0)),
    ):
        with pytest.raises(asm_libcalls.Trap):
            functions[name](*arguments)
        assert seen.pop() == (name, arguments)


def test_they_are_made_when_first_used(child):
    child(
        """
        import sys
        import asm_libcalls
        assert "asm_libcalls.native.native_function" not in sys.modules
        assert "f64_ceil" in dir(asm_libcalls) and "f64_ceil" not in vars(asm_libcalls)
        from asm_libcalls import f64_ceil, native_function
        assert asm_libcalls.f64_ceil is f64_ceil and f64_ceil(0.5) == 1.0
        assert asm_libcalls.i64_udiv is vars(asm_libcalls)["i64_udiv"]
        # Those that take an instance come by themselves, with what there is of instances.
        assert "memory_fill" not in vars(asm_libcalls)
        assert "asm_libcalls.runtime.instance" not in sys.modules
        assert asm_libcalls.memory_fill is vars(asm_libcalls)["memory_fill"]
        assert asm_libcalls.table_grow is vars(asm_libcalls)["table_grow"]
        import asm_libcalls.native.native_function
        assert asm_libcalls.native_function is native_function
        try:
            asm_libcalls.f64_cell
        except AttributeError as error:
            assert "f64_cell" in str(error)
        """
    )


def test_another_binding_has_functions_of_its_own(accelerated):
    made = make_functions(accelerated)
    assert list(made) == list(LIBCALLS)
    if accelerated is default_binding():
        assert made["f64_ceil"] is not asm_libcalls.f64_ceil
    assert made["f64_ceil"](0.5) == 1.0


@pytest.mark.parametrize("features", [(), ("sse4_1",), ("avx", "bmi2")], ids="+".join)
def test_what_is_copied_into_functions_is_straight_line_code(machine_code, features):
    from asm_libcalls.x86_64 import integers, rounding

    routines = [*integers.routines(frozenset(features)), *rounding.routines(frozenset(features))]
    straight = {r.name for r in routines if r.code.find(b"\xc3") == len(r.code) - 1}
    assert {r.name for r in routines} == set(NUMERIC)
    assert straight == set(NUMERIC) - set(integers.GUARDS)


@pytest.mark.parametrize("signature", ["(f64) -> f64", "(f64, f32) -> f64", "(i64, f64) -> i64"])
def test_a_copied_routine_leaves_its_function_as_a_call_does(machine_code, signature):
    made = native_functions(
        [Specification(1, signature, inline="return_first_argument", slow=lambda *a: a)]
    )
    first = 2.5 if signature.startswith("(f64") else -5
    arguments = (first, 0.5)[: len(Specification(1, signature).parameters)]
    for _ in range(100):
        assert made[0](*arguments) == first
        assert made[0](*arguments[:-1], "x") == (*arguments[:-1], "x")


@pytest.mark.parametrize("name", ["toy_jit", "ufuncs"])
def test_packages_are_imported_when_first_used(child, name):
    child(
        f"""
        import sys
        import asm_libcalls
        assert "numpy" not in sys.modules and "asm_libcalls.{name}" not in sys.modules
        assert asm_libcalls.{name} is sys.modules["asm_libcalls.{name}"]
        """
    )
