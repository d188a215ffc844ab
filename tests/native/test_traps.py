"""Traps: raised in native code, caught at the entry, without leaks."""

import copy
import enum
import pickle
import platform
import signal
import sys

import pytest

import asm_libcalls
from asm_libcalls import Trap, TrapCode, catch_traps, traps
from asm_libcalls.signatures import Signature

I64_TO_I64 = Signature("(i64, i64) -> i64")
MIN, MINUS_ONE = 1 << 63, (1 << 64) - 1

# The messages are those of the WebAssembly specification's tests.
CODES = [
    (TrapCode.STACK_OVERFLOW, RecursionError, "call stack exhausted"),
    (TrapCode.HEAP_OUT_OF_BOUNDS, IndexError, "out of bounds memory access"),
    (TrapCode.TABLE_OUT_OF_BOUNDS, IndexError, "out of bounds table access"),
    (TrapCode.INDIRECT_CALL_TO_NULL, Trap, "uninitialized element"),
    (TrapCode.BAD_SIGNATURE, TypeError, "indirect call type mismatch"),
    (TrapCode.INTEGER_OVERFLOW, OverflowError, "integer overflow"),
    (TrapCode.INTEGER_DIVISION_BY_ZERO, ZeroDivisionError, "integer divide by zero"),
    (TrapCode.BAD_CONVERSION_TO_INTEGER, ValueError, "invalid conversion to integer"),
    (TrapCode.UNREACHABLE_CODE_REACHED, Trap, "unreachable"),
    (TrapCode.INTERRUPT, Trap, "interrupt"),
    (TrapCode.UNDEFINED_ELEMENT, IndexError, "undefined element"),
]


@pytest.fixture
def raise_trap(accelerated, machine_entry):
    """Enter ``asm_libcalls_raise_trap`` with a code, of 64 bits to show what becomes of them."""
    address = accelerated.runtime_symbols()["asm_libcalls_raise_trap"]
    return lambda code: machine_entry.call(address, Signature("(u64)"), (code,))


# The exceptions.


def test_every_code_has_its_exception():
    assert [code for code, _, _ in CODES] == list(TrapCode)
    classes = {type(Trap(code)) for code in TrapCode}
    assert len(classes) == len(TrapCode)
    assert all(getattr(asm_libcalls, c.__name__) is c for c in classes)


@pytest.mark.parametrize(("code", "base", "message"), CODES, ids=str)
def test_exception_of_a_code(code, base, message):
    trap = Trap(int(code))
    assert isinstance(trap, base)
    assert str(trap) == message
    assert trap.code is code
    own = type(trap)()  # its class knows its code
    assert (own.code, str(own)) == (code, message)
    for other in (copy.copy(trap), copy.deepcopy(trap), pickle.loads(pickle.dumps(trap))):
        assert (type(other), other.code, str(other)) == (type(trap), code, message)
    if code is not TrapCode.INTERRUPT:
        with pytest.raises(ValueError, match="has the code"):
            type(trap)(TrapCode.INTERRUPT)


def test_exception_of_an_unknown_code():
    trap = Trap(0xFFFFFFFF)
    assert (type(trap), trap.code, str(trap)) == (Trap, 0xFFFFFFFF, "trap code 4294967295")
    assert pickle.loads(pickle.dumps(trap)).code == 0xFFFFFFFF


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (None, TypeError),
        ("7", TypeError),
        (7.0, TypeError),
        ([], TypeError),
        (-1, ValueError),
        (1 << 32, ValueError),
    ],
)
def test_not_a_trap_code(code, error):
    with pytest.raises(error, match="trap code"):
        Trap(code)


def test_subclass_of_a_trap():
    class Mine(asm_libcalls.IntegerOverflow):
        pass

    assert Mine().code is TrapCode.INTEGER_OVERFLOW
    assert type(Trap(TrapCode.INTEGER_OVERFLOW)) is asm_libcalls.IntegerOverflow


# Libcalls that trap.


@pytest.mark.parametrize("name", ["i64_sdiv", "i64_srem", "i64_udiv", "i64_urem"])
def test_division_by_zero(name, binding):
    libcall = binding.libcalls[name]
    for call in (
        lambda: libcall(1, 0),
        lambda: libcall.call_bits(1, 0),
        lambda: libcall.cfunc(1, 0),
        lambda: libcall.fallback(1, 0),
        lambda: binding.entry.call(libcall.address, libcall.signature, (1, 0)),
    ):
        with pytest.raises(ZeroDivisionError, match="integer divide by zero") as caught:
            call()
        assert type(caught.value) is asm_libcalls.IntegerDivisionByZero
    assert libcall(7, 7) == (1 if "div" in name else 0)


def test_overflow(binding):
    with pytest.raises(OverflowError, match="integer overflow") as caught:
        binding.libcalls["i64_sdiv"](-(2**63), -1)
    assert type(caught.value) is asm_libcalls.IntegerOverflow


def test_catch_traps():
    sdiv = asm_libcalls.LIBCALLS["i64_sdiv"]
    function = catch_traps(sdiv.address, sdiv.signature)
    assert (function.address, function.signature) == (sdiv.address, sdiv.signature)
    assert hex(sdiv.address) in repr(function)
    assert function(-7, 2) == -3
    assert function.call_bits(MIN, 1) == MIN
    for _ in range(3):
        with pytest.raises(asm_libcalls.IntegerDivisionByZero):
            function(1, 0)
        with pytest.raises(asm_libcalls.IntegerOverflow):
            function.call_bits(MIN, MINUS_ONE)
        assert function(7, 2) == 3


def test_catch_traps_at_a_fallback_address(child):
    """Machine code enters, Python traps: in a child, because the trap must find its entry."""
    child("""
        import asm_libcalls

        sdiv = asm_libcalls.LIBCALLS["i64_sdiv"].fallback
        function = asm_libcalls.catch_traps(sdiv.address, sdiv.signature)
        assert function(-7, 2) == -3
        for _ in range(3):
            try:
                function(1, 0)
            except asm_libcalls.IntegerDivisionByZero:
                pass
            else:
                raise SystemExit("no trap")
    """)


@pytest.mark.parametrize(
    ("address", "signature", "error", "message"),
    [
        (0, "(i32)", ValueError, "address must not be null"),
        (None, "(i32)", TypeError, "address must be an address"),
        ("x", "(i32)", TypeError, "address must be an address"),
        (-1, "(i32)", OverflowError, "address must be in 0"),
        (1 << 64, "(i32)", OverflowError, "address must be in 0"),
        (1, "i32", ValueError, "signature 'i32'"),
        (1, None, TypeError, r"^catch_traps\(\): signature must be a str"),
    ],
)
def test_catch_traps_of_nonsense(address, signature, error, message):
    with pytest.raises(error, match=message):
        catch_traps(address, signature)


def test_arguments_of_a_caught_function():
    sdiv = asm_libcalls.LIBCALLS["i64_sdiv"]
    function = catch_traps(sdiv.address, sdiv.signature)
    with pytest.raises(TypeError, match=r"takes 2 arguments, got 1$"):
        function(1)
    with pytest.raises(TypeError, match=r"^argument 2 of <native function .* must be an integer"):
        function(1, "2")
    with pytest.raises(OverflowError, match=r"^argument 1 of <native function .* bit pattern"):
        function.call_bits(-1, 2)


# asm_libcalls_raise_trap, as a JIT calls it.


@pytest.mark.parametrize(
    "code", [0, *map(int, TrapCode), 12, 99, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
)
def test_raise_trap(code, raise_trap):
    with pytest.raises(Trap) as caught:
        raise_trap(code)
    assert caught.value.code == code
    assert type(caught.value) is type(Trap(code))


def test_raise_trap_looks_at_32_bits(raise_trap):
    """A C caller may leave anything in the upper half of the register."""
    with pytest.raises(asm_libcalls.IntegerOverflow):
        raise_trap(0xDEADBEEF00000006)


def test_raise_trap_by_its_public_address():
    address = asm_libcalls.runtime_symbols().get("asm_libcalls_raise_trap")
    if address is None:
        pytest.skip("nothing unwinds here: no machine code serves")
    with pytest.raises(asm_libcalls.HeapOutOfBounds):
        catch_traps(address, "(u32)")(TrapCode.HEAP_OUT_OF_BOUNDS)


def test_nothing_to_raise_with_where_nothing_unwinds(fallback):
    assert fallback.runtime_symbols() == {}


@pytest.mark.parametrize("backend", ["auto", "fallback"])
@pytest.mark.parametrize("thread", [False, True], ids=["main", "thread"])
def test_trap_that_nobody_catches(backend, thread, child):
    """Without an entry it ends the process as the bare instruction does, handlers or not."""
    done = child(
        f"""
        import ctypes, resource, signal, threading
        import asm_libcalls

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGILL, lambda number, frame: print("handled"))
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGILL])
        sdiv = asm_libcalls.LIBCALLS["i64_sdiv"]
        function = sdiv.signature.ctypes_prototype()(sdiv.address)
        print(function(7, -2), flush=True)
        if {thread}:
            thread = threading.Thread(target=function, args=(1, 0))
            thread.start()
            thread.join()
        else:
            function(1, 0)
        print("alive", flush=True)
        """,
        variables={"ASM_LIBCALLS_BACKEND": backend},
        exit_status=-signal.SIGILL,
    )
    assert done.stdout == "-3\n"


# Very many.

GROWTH = """
    import gc, sys
    import asm_libcalls
    from asm_libcalls.binding import default_binding

    sdiv = asm_libcalls.LIBCALLS["i64_sdiv"]
    entry = default_binding().entry
    function = asm_libcalls.catch_traps(sdiv.address, sdiv.signature)
    caught = 0

    def simple():
        global caught
        try:
            function(1, 0)
        except asm_libcalls.IntegerDivisionByZero:
            caught += 1

    body = [None]
    from asm_libcalls.fallback import integers
    integers.i64_ishl = lambda x, y: body[0](x, y)
    ishl = asm_libcalls.LIBCALLS["i64_ishl"].fallback
    callback = asm_libcalls.catch_traps(ishl.address, ishl.signature)

    def nested_body(x, y):
        simple()
        raise asm_libcalls.IntegerDivisionByZero

    def nested():
        global caught
        try:
            callback(1, 2)
        except asm_libcalls.IntegerDivisionByZero:
            caught += 1

    def resident():
        gc.collect()
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    body[0] = nested_body
    what, count = {"simple": (simple, SIMPLE), "nested": (nested, NESTED)}[sys.argv[1]]
    for _ in range(count // 20):
        what()
    gc.disable()  # no cycle may be needed to get rid of a trap
    before = resident()
    caught = 0
    for _ in range(count):
        what()
    per_call = {"simple": 1, "nested": 2}[sys.argv[1]]
    assert caught == count * per_call, caught
    grown = resident() - before
    print(grown)
"""


@pytest.mark.parametrize("backend", ["auto", "fallback"])
@pytest.mark.parametrize("kind", ["simple", "nested"])
def test_no_growth(backend, kind, child):
    """Traps by the hundred thousand, with a callback under them or not."""
    simple, nested = (300_000, 100_000) if backend == "auto" else (100_000, 50_000)
    code = GROWTH.replace("SIMPLE", str(simple)).replace("NESTED", str(nested))
    code = code.replace("sys.argv[1]", repr(kind))
    done = child(code, variables={"ASM_LIBCALLS_BACKEND": backend}, timeout=300)
    # Less than half a byte a trap: noise of the allocator.
    assert int(done.stdout) < 512 * 1024


# Objects that stand for pointers in native code, and what they pass themselves as.
KINDS = ("vmctx", "externref", "anyfunc", "reference", "pointer")
PASSES = {"instance": {"vmctx"}, "externref": {"externref", "reference"},
          "funcref": {"anyfunc", "reference"}}  # fmt: skip


@pytest.fixture
def passed(binding):
    """Objects by kind, and the address of each in native code."""
    instance = asm_libcalls.Instance(functions=[(16, 1)], binding=binding)
    box = asm_libcalls.VMExternRef("value")
    funcref = instance.functions[0]
    return {
        "instance": (instance, instance.vmctx),
        "externref": (box, box.as_raw()),
        "funcref": (funcref, funcref.as_raw()),
    }


@pytest.fixture(params=["catch_traps", "native_function"])
def identity(request):
    """Makes a Python callable of a C function that returns its argument."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        pytest.skip("its code is for x86-64")
    code = asm_libcalls.load_code(b"\x48\x89\xf8\xc3")  # mov rax, rdi; ret

    def make(kind):
        signature = f"({kind}) -> pointer"
        if request.param == "catch_traps":
            return catch_traps(code, signature)
        return asm_libcalls.native_function(code, signature)

    return make


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", PASSES)
def test_objects_pass_themselves_as_pointers(what, kind, passed, identity):
    thing, address = passed[what]
    function = identity(kind)
    assert function(address) == address
    assert function(None) == 0
    if kind in PASSES[what]:
        assert function(thing) == address
    else:
        with pytest.raises(TypeError, match=rf"must be an address \(int\), None.* \({kind}\)"):
            function(thing)


@pytest.mark.parametrize(
    ("what", "kind", "end", "message"),
    [
        ("instance", "vmctx", "close", "the Instance is closed"),
        ("externref", "externref", "drop", "the VMExternRef was dropped"),
    ],
)
def test_closed_objects_do_not_pass_themselves(what, kind, end, message, passed, identity):
    thing = passed[what][0]
    getattr(thing, end)()
    with pytest.raises(ValueError, match=rf"argument .*: {message}$"):
        identity(kind)(thing)


def test_a_call_of_numbers_runs_no_python(load_routines):
    """What catch_traps() returns is a builtin's equal from its second call on."""
    add = asm_libcalls.load_code(bytes.fromhex("488d0437 c3"))
    call = asm_libcalls.catch_traps(add, "(i64, i64) -> i64")
    assert call(40, 2) == 42
    seen = []
    sys.setprofile(lambda frame, event, argument: seen.append((event, argument)))
    try:
        call(40, 2)
    finally:
        sys.setprofile(None)
    assert "call" not in {event for event, _ in seen}
    assert isinstance(call, type(asm_libcalls.catch_traps(add, "()")))
    assert call.address == add
    assert call.call_bits(40, 2) == 42
    with pytest.raises(TypeError, match="argument 2 of <native function"):
        call(40, "2")
    with pytest.raises(TypeError, match="2 arguments"):
        call(40)


# The codes of a JIT.


@pytest.fixture
def own_codes(monkeypatch):
    """Forget the classes and messages that a test registers."""
    monkeypatch.setattr(traps, "_SUBCLASSES", dict(traps._SUBCLASSES))
    monkeypatch.setattr(traps, "_MESSAGES", dict(traps._MESSAGES))


def test_a_jit_gives_its_code_a_class_and_a_message(raise_trap, own_codes):
    class Negative(Trap, ValueError, code=1000, message="the count is negative"):
        """A count below zero."""

    with pytest.raises(ValueError, match=r"^the count is negative$") as caught:
        raise_trap(1000)
    assert type(caught.value) is Negative
    assert caught.value.code == Negative().code == Trap(1000).code == 1000
    assert str(Negative()) == "the count is negative"
    with pytest.raises(ValueError, match="has the code 1000"):
        Negative(1001)

    class Silent(Trap, code=2**32 - 1):
        pass

    with pytest.raises(Silent, match=r"^trap code 4294967295$"):
        raise_trap(2**32 - 1)
    assert type(Trap(1001)) is Trap


def test_a_code_may_be_of_an_enum_of_the_jit(raise_trap, own_codes):
    class Code(enum.IntEnum):
        UNDERFLOW = 2000

    class Underflow(Trap, IndexError, code=Code.UNDERFLOW, message="the stack is empty"):
        pass

    with pytest.raises(IndexError) as caught:
        raise_trap(2000)
    assert caught.value.code is Code.UNDERFLOW
    assert Trap(Code.UNDERFLOW).code is Trap(2000).code is Underflow().code is Code.UNDERFLOW


def test_a_module_that_is_reloaded_replaces_its_class(own_codes):
    def define(message):
        class Again(Trap, code=3000, message=message):
            pass

        return Again

    define("first")
    second = define("second")
    assert type(Trap(3000)) is second
    assert str(Trap(3000)) == "second"


@pytest.mark.parametrize(
    ("keywords", "error", "words"),
    [
        ({"code": 7}, ValueError, r"the trap code 7 is asm_libcalls\.traps\.IntegerDivisionByZero"),
        ({"code": TrapCode.INTERRUPT}, ValueError, r"is asm_libcalls\.traps\.Interrupt's"),
        ({"code": -1}, ValueError, r"in 0 \.\. 2\*\*32-1"),
        ({"code": 1 << 32}, ValueError, r"in 0 \.\. 2\*\*32-1"),
        ({"code": "7"}, TypeError, "a trap code must be an int, got str"),
        ({"code": 4000, "message": 7}, TypeError, "message must be a str, got int"),
        ({"message": "m"}, TypeError, "a message needs a code"),
        ({"code": 4001}, ValueError, r"the trap code 4001 is .*Taken's"),
    ],
    ids=str,
)
def test_classes_that_are_refused(keywords, error, words, own_codes):
    class Taken(Trap, code=4001):
        pass

    before = dict(traps._SUBCLASSES), dict(traps._MESSAGES)
    with pytest.raises(error, match=words):

        class Other(Trap, **keywords):
            pass

    assert before == (traps._SUBCLASSES, traps._MESSAGES)


class Pickled(Trap, ArithmeticError, code=0x7E57_0001, message="made by a test"):
    """Of this module, so that pickle finds it."""


def test_a_jits_trap_is_pickled():
    again = pickle.loads(pickle.dumps(Trap(0x7E57_0001)))
    assert type(again) is Pickled
    assert (str(again), again.code) == ("made by a test", 0x7E57_0001)
