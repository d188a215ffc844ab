"""Subinterpreters: native code calls back into its own interpreter, and they end cleanly."""

import sys

import pytest

KINDS = ["legacy", "isolated"] if sys.version_info >= (3, 12) else ["legacy"]

# Isolated ones of 3.12 have no ctypes, so the fallback serves numbers, and nothing else is there.
WITHOUT_CTYPES = (3, 12) <= sys.version_info < (3, 13)

NUMBERS = """
import asm_libcalls
assert asm_libcalls.f64_nearest(2.5) == 2.0 and asm_libcalls.i64_sdiv(-7, 2) == -3
assert asm_libcalls.i64_ushr(-1, 63) == 1 and asm_libcalls.f32_ceil(1) == 2.0 - 1
for arguments in ((1, 0), (-(2**63), -1)):
    try:
        asm_libcalls.i64_sdiv(*arguments)
    except asm_libcalls.Trap as trap:
        assert isinstance(trap, (asm_libcalls.IntegerDivisionByZero, asm_libcalls.IntegerOverflow))
    else:
        raise AssertionError("no trap")
"""

USES = {
    "native functions": """
import ctypes
from asm_libcalls import native_function, catch_traps, LIBCALLS
libm = ctypes.CDLL("libm.so.6")
address = ctypes.cast(libm.ldexp, ctypes.c_void_p).value
for options in ({}, {"release_gil": True}, {"catch": False}):
    ldexp = native_function(address, "(f64, i32) -> f64", **options)
    assert ldexp(0.75, 4) == 12.0 and ldexp(True, 1) == 2.0
del ldexp
check = native_function(ctypes.cast(ctypes.pythonapi.PyErr_NoMemory, ctypes.c_void_p).value, "()")
try:
    check()
except MemoryError:
    pass
else:
    raise AssertionError("no MemoryError")
divide = catch_traps(LIBCALLS["i64_udiv"].address, "(i64, i64) -> i64")
assert divide(7, 2) == 3
try:
    divide(7, 0)
except ZeroDivisionError:
    pass
else:
    raise AssertionError("no trap")
""",
    "memories": """
import asm_libcalls
from asm_libcalls import Instance, Memory
memory = Memory(1, 3)
with Instance(memories=[memory], data=[b"data"]) as instance:
    asm_libcalls.memory_init(instance, 0, 0, 10, 1, 3)
    asm_libcalls.memory_copy(instance, 0, 20, 0, 10, 3)
    asm_libcalls.memory_fill(instance, 0, 23, 65, 2)
    assert bytes(memoryview(memory)[20:25]) == b"ataAA"
    assert asm_libcalls.memory32_grow(instance, 1, 0) == 1
    assert asm_libcalls.memory32_size(instance, 0) == 2
    try:
        asm_libcalls.memory_fill(instance, 0, 2 << 16, 0, 1)
    except asm_libcalls.HeapOutOfBounds:
        pass
    else:
        raise AssertionError("no trap")
""",
    "references": """
import gc, weakref
import asm_libcalls
from asm_libcalls import Instance, Table
class Thing:
    pass
thing = Thing()
gone = weakref.ref(thing)
table = Table("externref", 2, 8)
with Instance(tables=[table]) as instance:
    table[0] = thing
    with asm_libcalls.VMExternRef(thing) as reference:
        assert asm_libcalls.table_grow(instance, 0, 3, reference) == 2
    del reference
    asm_libcalls.table_copy(instance, 0, 0, 1, 0, 1)
    assert table[1] is table[4] is thing
    del thing
    gc.collect()
    assert gone() is table[0]
    for i in range(len(table)):
        table[i] = None
    gc.collect()
    assert gone() is None
table.close()
""",
    "host functions": """
from asm_libcalls import HostFunction, catch_traps
called = []
def twice(number):
    import threading
    called.append(threading.get_ident())
    if number == 13:
        raise KeyError(number)
    if number > 100:
        return call(number - 100) + 1
    return 2 * number
with HostFunction(twice, "(i64) -> i64") as function:
    for release in (True, False):
        call = catch_traps(function.address, "(i64) -> i64")
        assert [call(n) for n in (1, 2, 3)] == [2, 4, 6]
        assert call(205) == 12  # nested
        try:
            call(13)
        except KeyError as error:
            assert error.args == (13,)
        else:
            raise AssertionError("no KeyError")
        from asm_libcalls import native_function
        call = native_function(function.address, "(i64) -> i64", release_gil=release)
assert set(called) == {__import__("threading").get_ident()}
""",
    "the interpreter of a host function": """
import sys
from asm_libcalls import HostFunction, catch_traps, native_function
here = sys
def find(number):
    import sys  # which looks it up in the interpreter that the thread is in
    return sys is here
with HostFunction(find, "(i64) -> i64") as function:
    for call in (
        catch_traps(function.address, "(i64) -> i64"),
        native_function(function.address, "(i64) -> i64"),
        native_function(function.address, "(i64) -> i64", release_gil=True),
    ):
        assert call(0) == 1
""",
    "toy_jit": """
from jit_modules import Function, build
from asm_libcalls import Trap, toy_jit
module = toy_jit.Module(build(
    {
        "divide": Function("i64 i64 -> i64", "local.get 00 local.get 01 i64.div_s"),
        "host": Function("i64 -> i64", "local.get 00 call 00"),
    },
    imports={"f": "i64 -> i64"},
))
def f(n):
    return exports["divide"](n, 2) if n else 1 // 0
with toy_jit.Instance(module, {"m": {"f": f}}) as instance:
    exports = instance.exports
    assert exports["divide"](-7, 2) == exports["host"](-7) == -3
    for call, error in (
        (lambda: exports["divide"](1, 0), Trap),
        (lambda: exports["host"](0), ZeroDivisionError),
    ):
        try:
            call()
        except error:
            pass
        else:
            raise AssertionError(error)
del exports, f
""",
    "time limits": """
from jit_modules import Function, build
from asm_libcalls import Interrupt, toy_jit
module = toy_jit.Module(build({"spin": Function("->", "loop 40 br 00 end")}))
with toy_jit.Instance(module, {}) as instance:
    try:
        with instance.time_limit(0.05):
            instance.exports["spin"]()
    except Interrupt:
        pass
    else:
        raise AssertionError("no Interrupt")
""",
    "threads": """
import threading
from asm_libcalls import HostFunction, catch_traps
failures = []
def add(a, b):
    return a + b
with HostFunction(add, "(i64, i64) -> i64") as function:
    call = catch_traps(function.address, "(i64, i64) -> i64")
    def work():
        try:
            assert [call(i, i) for i in range(300)] == list(range(0, 600, 2))
        except BaseException as error:
            failures.append(error)
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
assert not failures, failures
""",
}


@pytest.mark.parametrize("kind", KINDS)
def test_numbers(child, kind):
    code = f"""
import subinterpreters
for _ in range(2):
    subinterpreters.use({kind!r}, {NUMBERS!r})
exec({NUMBERS!r})
subinterpreters.use({kind!r}, {NUMBERS!r})
"""
    child(code)


@pytest.mark.usefixtures("machine_code")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", USES)
def test_what_native_code_needs(child, what, kind):
    if kind == "isolated" and WITHOUT_CTYPES:
        pytest.skip("isolated subinterpreters of 3.12 cannot import ctypes")
    done = child(f"""
import subinterpreters
for _ in range(2):
    subinterpreters.use({kind!r}, {USES[what]!r})
exec({USES[what]!r}, {{"__name__": "__main__"}})
subinterpreters.use({kind!r}, {USES[what]!r})
""")
    assert done.stderr == ""


@pytest.mark.usefixtures("machine_code")
@pytest.mark.parametrize("kind", KINDS)
def test_several_at_once(child, kind):
    """Each in a thread of its own, with a GIL of its own where there are such."""
    if kind == "isolated" and WITHOUT_CTYPES:
        pytest.skip("isolated subinterpreters of 3.12 cannot import ctypes")
    everything = NUMBERS + "".join(USES.values())
    child(f"""
import subinterpreters, threading
failures = []
def work():
    try:
        for _ in range(2):
            subinterpreters.use({kind!r}, {everything!r})
    except BaseException as error:
        failures.append(error)
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads:
    thread.start()
exec({everything!r}, {{"__name__": "__main__"}})
for thread in threads:
    thread.join()
assert not failures, failures
""")


WITHOUT_NUMPY = """
import asm_libcalls
assert asm_libcalls.f64_ceil(0.5) == 1.0
for _ in range(2):
    try:
        asm_libcalls.ufuncs
    except ImportError as error:
        assert "numpy" in str(error) and "subinterpreter" in str(error), error
    else:
        raise AssertionError("no ImportError")
"""


@pytest.mark.skipif(sys.version_info < (3, 14), reason="concurrent.interpreters came with 3.14")
def test_what_needs_numpy_says_why_not(child):
    pytest.importorskip("numpy")
    child(f"""
import sys
from concurrent import interpreters
interpreter = interpreters.create()
interpreter.exec(f"import sys; sys.path[:] = {{sys.path!r}}")
interpreter.exec({WITHOUT_NUMPY!r})
interpreter.close()
""")
