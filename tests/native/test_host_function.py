"""Host functions: Python callables at C addresses; arguments, results and exceptions."""

from __future__ import annotations

import copy
import ctypes
import gc
import itertools
import math
import random
import struct
import sys
import threading
import weakref

import pytest
from in_threads import in_threads, switching_every

import asm_libcalls
from asm_libcalls import HostFunction, Signature, Trap, TrapCode, catch_traps
from asm_libcalls.emitter.libc import function_address, prototype
from asm_libcalls.signatures import VALUE_TYPES


class Native:
    """The C address of a Python callable, and a way to call it as native code would."""

    def __init__(self, binding, function, signature, bits=False):
        self.signature = Signature(signature)
        self.binding = binding
        self.address, self.close = binding.host_address(function, self.signature, bits)

    def call_bits(self, *patterns):
        return self.binding.entry.call(self.address, self.signature, patterns)

    def __call__(self, *arguments):
        patterns = [
            t.to_bits(a, "test") for t, a in zip(self.signature.parameters, arguments, strict=True)
        ]
        pattern = self.call_bits(*patterns)
        result = self.signature.result
        return None if result is None else result.from_bits(pattern)


@pytest.fixture
def native(binding):
    made = []

    def make(function, signature, bits=False):
        made.append(Native(binding, function, signature, bits))
        return made[-1]

    yield make
    for each in made:
        each.close()


def f32(value: float) -> float:
    return struct.unpack("f", struct.pack("f", value))[0]


ARGUMENTS = {
    "i8": [0, 1, -1, 127, -128],
    "u8": [0, 1, 255],
    "i16": [0, 1, -1, 2**15 - 1, -(2**15)],
    "u16": [0, 1, 2**16 - 1],
    "bool": [True, False],
    "usize": [0, 2**64 - 1],
    "i32": [0, 1, -1, 2**31 - 1, -(2**31)],
    "u32": [0, 1, 2**31, 2**32 - 1],
    "i64": [0, -1, 2**63 - 1, -(2**63)],
    "u64": [0, 2**63, 2**64 - 1],
    "pointer": [0, 0x7FFF_FFFF_FFFF, 2**64 - 1],
    "vmctx": [0, 16],
    "externref": [0, 16],
    "reference": [0, 16],
    "f32": [0.0, -0.0, 1.5, f32(0.1), math.inf, -math.inf, f32(1e-45)],
    "f64": [0.0, -0.0, 0.1, math.inf, 5e-324, 1.7976931348623157e308],
}


class TestConversions:
    @pytest.mark.parametrize("name", ARGUMENTS)
    def test_argument_and_result(self, native, name):
        seen = []

        def same(value):
            seen.append(value)
            return value

        function = native(same, f"({name}) -> {name}")
        for value in ARGUMENTS[name]:
            result = function(value)
            assert result == value
            assert seen[-1] == value
            assert type(seen[-1]) is type(result) is type(value)
            assert math.copysign(1, result) == math.copysign(1, seen[-1]) == math.copysign(1, value)

    @pytest.mark.parametrize(
        ("name", "patterns"),
        [
            ("f32", [0x7FC00000, 0xFFC00001, 0x7F800000, 0x80000000, 1]),
            ("f64", [0x7FF8 << 48, 0x7FF0000000000001, 0xFFF4000000000000, 1 << 63, 1]),
            ("i32", [0, 0xFFFFFFFF, 0x80000000]),
            ("i64", [0, 2**64 - 1, 1 << 63]),
            ("pointer", [0, 2**64 - 1]),
        ],
    )
    def test_bits_go_through_as_they_are(self, native, name, patterns):
        seen = []

        def same(pattern):
            seen.append(pattern)
            return pattern

        function = native(same, f"({name}) -> {name}", bits=True)
        for pattern in patterns:
            assert function.call_bits(pattern) == pattern
            assert seen[-1] == pattern

    def test_signalling_f32_by_its_bits(self, native, binding):
        """Values that ctypes would convert differently."""
        function = native(lambda pattern: pattern, "(f32) -> u32", bits=True)
        assert function.call_bits(0x7FA00001) == 0x7FA00001
        function = native(lambda: 0x7FA00001, "() -> f32", bits=True)
        assert function.call_bits() == 0x7FA00001

    def test_numbers_keep_quiet_nans(self, native):
        seen = []
        function = native(lambda x: seen.append(struct.pack("<d", x)) or x, "(f64) -> f64")
        assert function.call_bits(0xFFF8_0000_0000_1234) == 0xFFF8_0000_0000_1234
        assert seen == [(0xFFF8_0000_0000_1234).to_bytes(8, "little")]
        narrow = native(lambda x: x, "(f32) -> f32")
        assert narrow.call_bits(0xFFC01234) == 0xFFC01234

    def test_f64_result_of_f32_is_rounded_once(self, native):
        function = native(lambda: 0.1, "() -> f32")
        assert function.call_bits() == 0x3DCCCCCD
        assert native(lambda: 1e300, "() -> f32")() == math.inf
        assert native(lambda: -1e-300, "() -> f32").call_bits() == 0x80000000

    def test_no_result(self, native):
        seen = []
        assert native(lambda x: seen.append(x) or "ignored", "(i32)")(5) is None
        assert seen == [5]

    def test_upper_half_of_a_32_bit_argument_is_anything(self, binding, native):
        """The ABI leaves it undefined; a caller that passes 64 bits shows it."""
        seen = []
        function = native(lambda a, b: seen.append((a, b)), "(i32, u32)")
        narrow = native(lambda *a: seen.append(a), "(i8, u8, i16, u16, bool, bool)")
        binding.entry.call(
            narrow.address,
            Signature("(u64, u64, u64, u64, u64, u64)"),
            [0xDEADBEEF_77660000 | low for low in (0x55FF, 0x55FF, 0x8001, 0x8001, 0x5500, 0x5501)],
        )
        assert seen.pop() == (-1, 255, 1 - 2**15, 2**15 + 1, False, True)
        wide = Signature("(u64, u64)")
        binding.entry.call(function.address, wide, [0xDEADBEEF_FFFFFFFF, 0xDEADBEEF_00000007])
        assert seen == [(-1, 7)]

    def test_a_narrow_result_is_extended_to_32_bits(self, binding, native):
        for name, value, word in (
            ("i8", -2, 0xFFFFFFFE),
            ("u8", 254, 254),
            ("i16", 2**15, 0xFFFF8000),
            ("u16", -1, 0xFFFF),
            ("bool", True, 1),
        ):
            host = native(lambda value=value: value, f"() -> {name}")
            got = binding.entry.call(host.address, Signature("() -> u32"), [])
            # libffi leaves the upper bits as they are.
            known = VALUE_TYPES[name].mask if binding.x86_64 is None else 2**32 - 1
            assert got & known == word & known

    def test_objects_that_stand_for_numbers(self, native):
        class Index:
            def __index__(self):
                return 41

        class Float:
            def __float__(self):
                return 2.5

        assert native(Index, "() -> i32")() == 41
        assert native(lambda: True, "() -> u64")() == 1
        assert native(Float, "() -> f64")() == 2.5
        assert native(lambda: 7, "() -> f32")() == 7.0
        assert native(lambda: Index(), "() -> f64")() == 41.0  # noqa: PLW0108

    @pytest.mark.parametrize(
        ("name", "good", "bad"),
        [
            ("i8", [2**8 - 1, -(2**7)], [2**8, -(2**7) - 1, 2**64]),
            ("u16", [2**16 - 1, -(2**15)], [2**16, -(2**15) - 1]),
            ("bool", [True, False, 1, 0], [2, -1]),
            ("i32", [2**32 - 1, -(2**31), 2**31], [2**32, -(2**31) - 1, 2**64, -(2**64)]),
            ("u32", [2**32 - 1, -(2**31), -1], [2**32, -(2**31) - 1, 2**63, 2**64 + 5]),
            ("i64", [2**64 - 1, 2**63, -(2**63)], [2**64, -(2**63) - 1, 2**200]),
            ("u64", [2**64 - 1, 2**63, -(2**63)], [2**64, -(2**63) - 1]),
            ("pointer", [0, 2**64 - 1], [-1, 2**64]),
        ],
    )
    def test_range_of_integer_results(self, native, name, good, bad):
        mask = VALUE_TYPES[name].mask
        for value in good:
            assert native(lambda value=value: value, f"() -> {name}").call_bits() == value & mask
        for value in bad:
            with pytest.raises(OverflowError, match=r"the result of host function .*<lambda>"):
                native(lambda value=value: value, f"() -> {name}")()

    @pytest.mark.parametrize(
        "name",
        ["i8", "u16", "bool", "usize", "i32", "u32", "i64", "u64", "pointer", "f32", "f64"],
    )
    @pytest.mark.parametrize("value", ["5", b"5", None, [], 2j, object()])
    def test_results_that_are_no_numbers(self, native, name, value):
        function = native(lambda: value, f"() -> {name}")
        if name == "pointer" and value is None:
            assert function() == 0
        else:
            with pytest.raises(TypeError, match=r"the result of host function .*<lambda>"):
                function()

    def test_a_float_is_no_integer(self, native):
        with pytest.raises(TypeError, match="must be an integer"):
            native(lambda: 2.0, "() -> i32")()
        with pytest.raises(TypeError, match="must be an address"):
            native(lambda: 2.0, "() -> pointer")()

    @pytest.mark.parametrize("value", [-1, 1 << 32, "x", None, 1.0])
    def test_bits_that_are_no_pattern(self, native, value):
        for name in ("i32", "u32", "f32"):
            with pytest.raises((TypeError, OverflowError), match="must be a bit pattern"):
                native(lambda: value, f"() -> {name}", bits=True)()

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("x"), TypeError("own")])
    def test_a_conversion_that_raises_something_of_its_own(self, native, error):
        class Raises:
            def __index__(self):
                raise error

            def __float__(self):
                raise error

        for name in ("i32", "u64", "f64"):
            with pytest.raises(type(error)) as caught:
                native(Raises, f"() -> {name}")()
            chain = [caught.value, caught.value.__cause__, caught.value.__context__]
            assert error in chain


class TestManyArguments:
    @pytest.mark.parametrize("count", range(20))
    def test_of_one_kind(self, native, count):
        for name, values in (
            ("i64", [(-1) ** i * (i + 1) * 0x0101010101010101 for i in range(count)]),
            ("i32", [(-1) ** i * (i + 1) for i in range(count)]),
            ("f64", [i + 0.1 for i in range(count)]),
            ("f32", [f32(i + 0.1) for i in range(count)]),
        ):
            seen = []
            function = native(lambda *a, seen=seen: seen.append(a) or 5,
                              f"({', '.join([name] * count)}) -> i32")  # fmt: skip
            assert function(*values) == 5
            assert seen == [tuple(values)]

    def test_mixed_at_random(self, native, random_cases: random.Random):
        """Six integers and eight floats go in registers, the others on the stack, in order."""
        for _ in range(60):
            names = [
                random_cases.choice(list(ARGUMENTS)) for _ in range(random_cases.randrange(30))
            ]
            values = [random_cases.choice(ARGUMENTS[name]) for name in names]
            result = random_cases.choice(["f32", "f64", "i32", "u64"])
            value = random_cases.choice(ARGUMENTS[result])
            seen = []
            function = native(
                lambda *a, seen=seen, value=value: seen.append(a) or value,
                f"({', '.join(names)}) -> {result}",
            )
            assert function(*values) == value
            assert repr(seen) == repr([tuple(values)])  # -0.0 too

    def test_a_thousand(self, native):
        function = native(lambda *a: sum(a), f"({', '.join(['i64'] * 1000)}) -> i64")
        assert function(*range(1000)) == sum(range(1000))


class TestExceptions:
    @pytest.mark.parametrize(
        "error",
        [
            ValueError("value"), KeyboardInterrupt("ctrl-c"), MemoryError("memory"), SystemExit(3),
            GeneratorExit(), StopIteration(5), RecursionError("deep"), asm_libcalls.StackOverflow(),
            BaseException("base"), Trap(77),
        ],
        ids=lambda error: type(error).__name__,
    )  # fmt: skip
    def test_arrive_unchanged(self, native, error):
        def body(x):
            raise error

        for signature in ("(i32)", "(i32) -> i64", "(i32) -> f32"):
            with pytest.raises(type(error)) as caught:
                native(body, signature)(1)
            assert caught.value is error

    def test_traceback_leads_to_the_line(self, native):
        def body():
            raise ValueError("here")

        with pytest.raises(ValueError, match="here") as caught:
            native(body, "()")()
        assert caught.traceback[-1].name == "body"

    def test_what_is_raised_while_another_is_handled_has_its_context(self, native):
        function = native(lambda: 1 / 0, "()")

        def handle():
            try:
                raise KeyError("first")
            except KeyError:
                function()

        with pytest.raises(ZeroDivisionError) as caught:
            handle()
        assert isinstance(caught.value.__context__, KeyError)

    def test_no_exception_is_kept(self, native):
        class Kept(Exception):
            pass

        def body():
            raise Kept

        function = native(body, "()")
        refs = []
        for _ in range(50):
            try:
                function()
            except Kept as error:
                refs.append(weakref.ref(error))
        gc.collect()
        assert not any(ref() for ref in refs)
        assert sys.exc_info() == (None, None, None)

    def test_counts_are_balanced(self, native):
        """Arguments, results and callables come back to the counts that they had."""

        class Number(float):
            pass

        result = Number(2.5)

        def body(*arguments):
            return result

        function = native(body, "(i64, f64, i32) -> f64")

        def raises(*arguments):
            raise ValueError

        failing = native(raises, "(i64, f64, i32) -> f64")
        wrong = object()
        misfit = native(lambda: wrong, "() -> i64")
        counts = [sys.getrefcount(x) for x in (result, body, raises, wrong, None)]
        for _ in range(300):
            assert function(2**62, 1.25, 5) == 2.5
            with pytest.raises(ValueError):  # noqa: PT011
                failing(2**62, 1.25, 5)
            with pytest.raises(TypeError):
                misfit()
        after = [sys.getrefcount(x) for x in (result, body, raises, wrong, None)]
        assert after[:4] == counts[:4]
        assert abs(after[4] - counts[4]) < 50


class TestNesting:
    def test_native_host_native_host(self, native):
        order = []

        def inner(x):
            order.append(("inner", x))
            return x * 2

        inner_native = native(inner, "(i32) -> i32")

        def outer(x):
            order.append(("outer", x))
            return inner_native(x + 1) + 1

        assert native(outer, "(i32) -> i32")(5) == 13
        assert order == [("outer", 5), ("inner", 6)]

    def test_only_the_innermost_is_unwound(self, native):
        def inner():
            raise Trap(TrapCode.UNREACHABLE_CODE_REACHED)

        inner_native = native(inner, "()")

        def outer():
            with pytest.raises(asm_libcalls.UnreachableCodeReached):
                inner_native()
            return 7

        assert native(outer, "() -> i32")() == 7

    def test_through_many_levels_the_same_object(self, native):
        error = ValueError("from the bottom")
        levels = []

        def body(n):
            levels.append(n)
            if n == 0:
                raise error
            function(n - 1)

        function = native(body, "(i32)")
        with pytest.raises(ValueError, match="from the bottom") as caught:
            function(60)
        assert caught.value is error
        assert levels == list(range(60, -1, -1))

    def test_recursion_without_end_is_python_s(self, child):
        """Each level is Python's too, so its limit ends it before the stack does."""
        child("""
            from asm_libcalls import HostFunction, catch_traps
            def body(n):
                return function(n + 1)
            host = HostFunction(body, "(i64) -> i64")
            function = catch_traps(host.address, host.signature)
            for _ in range(3):
                try:
                    function(0)
                except RecursionError:
                    pass
                else:
                    raise AssertionError
            """)

    def test_libcalls_inside_host_functions(self, native):
        def body(x):
            try:
                asm_libcalls.i64_sdiv(x, 0)
            except ZeroDivisionError:
                return asm_libcalls.i64_sdiv(x, 3)

        assert native(body, "(i64) -> i64")(-10) == -3

    def test_generators_and_threads_inside(self, native):
        def body(x):
            numbers = (i for i in range(x))
            results = []
            thread = threading.Thread(target=lambda: results.extend(numbers))
            thread.start()
            thread.join()
            return sum(results)

        assert native(body, "(i32) -> i32")(10) == 45


class TestLife:
    def test_close_and_use_again(self, native, binding):
        signature = Signature("(i32) -> i32")
        first, release = binding.host_address(lambda x: 1, signature, False)
        call = lambda address: binding.entry.call(address, signature, [0])  # noqa: E731
        assert call(first) == 1
        release()
        with pytest.raises(
            RuntimeError, match="native code called a host function that was closed"
        ):
            call(first)
        addresses = []
        for i in range(5):
            address, release = binding.host_address(lambda x, i=i: i, signature, False)
            addresses.append(address)
            assert call(address) == i
            release()
        assert set(addresses) == {first}

    def test_close_lets_the_callable_go(self, binding):
        class Callable:
            def __call__(self):
                return 1

        function = Callable()
        ref = weakref.ref(function)
        address, release = binding.host_address(function, Signature("() -> i32"), False)
        del function
        gc.collect()
        assert binding.entry.call(address, Signature("() -> i32"), []) == 1
        release()
        gc.collect()
        assert ref() is None

    def test_close_inside_its_own_call(self, binding):
        signature = Signature("(i32) -> i32")
        releases = []

        def body(x):
            releases.pop()()
            gc.collect()
            others = [binding.host_address(lambda y: y, signature, False) for _ in range(3)]
            for _, release in others:
                release()
            return x + 1

        address, release = binding.host_address(body, signature, False)
        releases.append(release)
        del body, release
        assert binding.entry.call(address, signature, [41]) == 42
        assert releases == []

    def test_host_function_object(self):
        host = HostFunction(lambda x: x + 1, "( i32 )->i32")
        assert host.signature == "(i32) -> i32"
        function = catch_traps(host.address, host.signature)
        assert function(1) == 2
        assert f"(i32) -> i32 at {host.address:#x}" in repr(host)
        with host:
            assert function(2) == 3
        host.close()
        assert "closed" in repr(host)
        with pytest.raises(RuntimeError, match="was closed"):
            function(1)
        for make_copy in (copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="HostFunction objects cannot be copied"):
                make_copy(host)

    def test_it_keeps_itself_and_its_callable_alive(self):
        class Callable:
            def __call__(self):
                return 7

        function = Callable()
        ref = weakref.ref(function)
        host = HostFunction(function, "() -> i32")
        address = host.address
        del host, function
        gc.collect()
        assert ref() is not None
        assert catch_traps(address, "() -> i32")() == 7

    @pytest.mark.parametrize(
        ("function", "signature", "error", "message"),
        [
            (5, "()", TypeError, r"HostFunction\(\): function must be callable, got 5"),
            (print, "(i9)", ValueError, "unknown type 'i9'"),
            (print, "i32", ValueError, "expected parameter types in parentheses"),
            (print, None, TypeError, "signature must be a str"),
        ],
    )
    def test_refuses(self, function, signature, error, message):
        with pytest.raises(error, match=message):
            HostFunction(function, signature)

    def test_three_hundred_at_once(self, native):
        """More thunks than one image has; all addresses differ, and each calls its own function."""
        functions = [native(lambda x, i=i: x + i, "(i32) -> i32") for i in range(300)]
        assert len({function.address for function in functions}) == 300
        assert [function(1) for function in functions] == list(range(1, 301))
        for function in functions[::2]:
            function.close()
            function.close = lambda: None
        assert [function(1) for function in functions[1::2]] == list(range(2, 301, 2))
        again = [native(lambda x, i=i: x - i, "(i32) -> i32") for i in range(150)]
        assert {f.address for f in again} <= {f.address for f in functions[::2]} | {
            f.address for f in again
        }
        assert [function(0) for function in again] == [-i for i in range(150)]

    def test_a_destructor_makes_one_while_thunks_are_made(self, child):
        """So may a signal handler: assembling thunks runs Python."""
        child("""
            from asm_libcalls import HostFunction, catch_traps
            from asm_libcalls.binding import default_binding
            from asm_libcalls.native import thunks

            load, made = thunks.code_cache.load, []

            def load_and_make(name):
                if not made:
                    made.append(None)
                    made.append(HostFunction(lambda: 7, "() -> i64"))
                return load(name)

            if default_binding().x86_64 is not None:
                thunks.code_cache.load = load_and_make
                functions = [HostFunction(lambda i=i: i, "() -> i64") for i in range(300)]
                assert len({function.address for function in [*functions, made[1]]}) == 301
                assert catch_traps(made[1].address, "() -> i64")() == 7
                assert catch_traps(functions[0].address, "() -> i64")() == 0
            """)

    def test_threads_make_and_close_them(self, binding):
        signature = Signature("(i64) -> i64")

        def work(number):
            for i in range(4):
                made = [
                    binding.host_address(lambda x, j=j: x + number + j, signature, False)
                    for j in range(60)
                ]
                for j, (address, _) in enumerate(made):
                    assert binding.entry.call(address, signature, [i]) == i + number + j
                for _, release in made:
                    release()

        with switching_every(1e-6):
            in_threads(work, range(0, 8000, 1000))


pthread_create = prototype(
    "pthread_create", ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p,
    ctypes.c_void_p,
)  # fmt: skip
pthread_join = prototype("pthread_join", ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


class TestForeignCallers:
    def test_a_thread_that_python_did_not_make(self, native):
        seen = []

        def body(argument):
            seen.append((argument, threading.get_ident() != threading.main_thread().ident))
            return argument + 1

        function = native(body, "(pointer) -> pointer")
        for argument in range(20):
            thread, result = ctypes.c_void_p(), ctypes.c_void_p()
            assert pthread_create(ctypes.byref(thread), None, function.address, argument) == 0
            assert pthread_join(thread, ctypes.byref(result)) == 0
            assert result.value == argument + 1
        assert seen == [(argument, True) for argument in range(20)]

    def test_many_such_threads_at_once_enter_native_code_again(self, native):
        """Each gets a list of activations of its own, which is freed with it."""
        inner = native(lambda x: x * 3, "(i64) -> i64")
        failing = native(lambda: {}["missing"], "()")
        lock = threading.Lock()
        done = []

        def body(argument):
            for i in range(20):
                assert inner(i) == 3 * i
                with pytest.raises(KeyError):
                    failing()
                with pytest.raises(ZeroDivisionError):
                    asm_libcalls.i64_udiv(argument, 0)
            with lock:
                done.append(argument)
            return argument

        function = native(body, "(pointer) -> pointer")
        threads = []
        for argument in range(1, 17):
            thread = ctypes.c_void_p()
            assert pthread_create(ctypes.byref(thread), None, function.address, argument) == 0
            threads.append(thread)
        for thread in threads:
            assert pthread_join(thread, None) == 0
        assert sorted(done) == list(range(1, 17))

    @pytest.mark.parametrize("make", [ctypes.CFUNCTYPE, ctypes.PYFUNCTYPE])
    def test_a_plain_ctypes_call(self, native, make):
        function = native(lambda x: x + 1, "(i32) -> i32")
        plain = make(ctypes.c_int32, ctypes.c_int32)(function.address)
        assert [plain(i) for i in range(5)] == [1, 2, 3, 4, 5]
        # Also inside a host function, in turn with entries of ours.
        mixed = native(lambda x: plain(x) + function(x) + plain(x), "(i32) -> i32")
        assert mixed(1) == 6

    def test_qsort_calls_python(self, native):
        """A C library calls back, and is unwound like any native code."""

        def compare(a, b):
            x, y = (ctypes.c_int32.from_address(p).value for p in (a, b))
            return (x > y) - (x < y)

        function = native(compare, "(pointer, pointer) -> i32")
        numbers = (ctypes.c_int32 * 100)(*(i * 37 % 101 for i in range(100)))
        sort = Signature("(pointer, u64, u64, pointer)")
        function.binding.entry.call(
            function_address("qsort"), sort, [ctypes.addressof(numbers), 100, 4, function.address]
        )
        assert list(numbers) == sorted(numbers)

    CHILD = """
        import ctypes, os
        from asm_libcalls import *
        from asm_libcalls import HostFunction, Instance, Table, Memory, LIBCALLS
        def boom(*arguments):
            raise ValueError("boom")
        host = HostFunction(boom, "() -> i32")
        plain = ctypes.CFUNCTYPE(ctypes.c_int32)(host.address)
        """

    def test_without_an_activation_what_is_raised_is_told_and_ends_the_process(self, child):
        """No caller can get the exception, and there is no result: the process must end."""
        done = child(self.CHILD + "\n        plain()\n        print('went on')", exit_status=-4)
        assert "ValueError: boom" in done.stderr
        assert "went on" not in done.stdout

    def test_the_fallback_prints_it_as_ctypes_does(self, child):
        done = child(
            self.CHILD + "\n        print('result', plain())",
            variables={"ASM_LIBCALLS_BACKEND": "fallback"},
        )
        assert "ValueError: boom" in done.stderr
        assert "result 0" in done.stdout

    @pytest.mark.parametrize("backend", ["auto", "fallback"])
    @pytest.mark.parametrize(
        "call",
        [
            "LIBCALLS['table_fill'].address, (0, 9, 0, 1)",
            "LIBCALLS['memory_fill'].address, (0, 65536, 0, 1)",
            "LIBCALLS['memory_copy'].address, (0, 0, 0, 65536, 1)",
        ],
        ids=["table_fill", "memory_fill", "memory_copy"],
    )
    def test_a_trap_without_an_activation_ends_the_process(self, child, backend, call):
        """As the bare machine instruction would."""
        child(
            self.CHILD
            + f"""
        instance = Instance([Memory(1)], [Table("externref", 1)])
        address, arguments = {call}
        types = [ctypes.c_uint64 if i == 3 and len(arguments) == 4 else ctypes.c_uint32
                 for i in range(len(arguments))]
        function = ctypes.CFUNCTYPE(None, ctypes.c_size_t, *types)(address)
        function(instance.vmctx, *arguments)
        print("went on")
        """,
            exit_status=-4,
            variables={"ASM_LIBCALLS_BACKEND": backend},
        )

    @pytest.mark.parametrize(
        "inside",
        [
            "plain()",
            "ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)"
            "(LIBCALLS['i64_sdiv'].address)(1, 0)",
            "ctypes.CFUNCTYPE(None, ctypes.c_uint32)"
            "(runtime_symbols()['asm_libcalls_raise_trap'])(9)",
        ],
        ids=["an exception", "a libcall's trap", "raise_trap"],
    )
    def test_the_interpreter_s_frames_are_never_unwound(self, child, machine_code, inside):
        """A plain ctypes call in a host function: frames of Python lie above our activation.

        What is raised there must not jump over them: it ends the process, with its cause told.
        """
        child(
            self.CHILD
            + f"""
        outer = HostFunction(lambda: {inside}, "()")
        try:
            catch_traps(outer.address, "()")()
        finally:
            print("went on", flush=True)
        """,
            exit_status=-4,
        )

    def test_where_it_is_caught_inside_nothing_happens(self, native):
        """The same, entered through us: an ordinary exception in the host function."""
        failing = native(lambda: {}["missing"], "()")

        def outer():
            with pytest.raises(KeyError):
                failing()
            return 5

        assert native(outer, "() -> i32")() == 5


def test_every_signature_shape_once(native):
    """All pairs of parameter and result types, with the argument passed on."""
    for parameter, result in itertools.product(ARGUMENTS, repeat=2):
        value = ARGUMENTS[result][-1]
        function = native(lambda x, value=value: value, f"({parameter}) -> {result}")
        assert function(ARGUMENTS[parameter][-1]) == value
