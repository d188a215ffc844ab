"""Entries into native code inside each other and side by side, and Python underneath them."""

from __future__ import annotations

import ctypes
import threading

import pytest
from in_threads import in_threads

import asm_libcalls
from asm_libcalls import Trap, TrapCode
from asm_libcalls.binding import Binding
from asm_libcalls.fallback import integers
from asm_libcalls.signatures import Signature

I64_TO_I64 = Signature("(i64, i64) -> i64")
MIN, MINUS_ONE = 1 << 63, (1 << 64) - 1


class Hook:
    """A C address whose Python body a test chooses."""

    def __init__(self, requested: str) -> None:
        self.body = None
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(integers, "i64_ishl", self._run)
            self.binding = Binding(requested)
            self.address = self.binding.libcalls["i64_ishl"].fallback.address

    def _run(self, x: int, y: int) -> int:
        return self.body(x, y)

    def call(self, x: int, y: int) -> int:
        return self.binding.entry.call(self.address, I64_TO_I64, (x, y))


@pytest.fixture(scope="module", params=["auto", "fallback"])
def hook(request):
    return Hook(request.param)


@pytest.mark.parametrize(
    "exception",
    [
        asm_libcalls.IntegerOverflow(),
        Trap(12345),
        KeyError("mine"),
        KeyboardInterrupt(),
        MemoryError(),
        SystemExit(3),
        StopIteration(),
        GeneratorExit(),
    ],
    ids=lambda exception: type(exception).__name__,
)
def test_exception_in_a_callback_arrives_unchanged(exception, hook):
    exception.note = object()
    # A Trap gets its trace where earlier tests have named some code.
    exception.__dict__.pop("trace", None)
    expected = dict(exception.__dict__)

    def body(x, y):
        raise exception

    hook.body = body
    with pytest.raises(type(exception)) as caught:
        hook.call(1, 2)
    assert caught.value is exception
    exception.__dict__.pop("trace", None)
    assert exception.__dict__ == expected
    names = [entry.name for entry in caught.traceback]
    assert "body" in names  # the traceback shows where it came from
    exception.__traceback__ = None
    hook.body = lambda x, y: x + y
    assert hook.call(1, 2) == 3


def test_exception_group_and_context_in_a_callback(hook):
    def body(x, y):
        try:
            raise KeyError(x)
        except KeyError as error:
            raise ValueError(y) from error

    hook.body = body
    with pytest.raises(ValueError, match="2") as caught:
        hook.call(1, 2)
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize("depth", [2, 30])
def test_a_trap_unwinds_the_innermost_entry_alone(depth, hook):
    sdiv = hook.binding.libcalls["i64_sdiv"]
    caught = []

    def body(level, y):
        if level:
            result = hook.call(level - 1, y)
            assert result == level - 1
        else:
            with pytest.raises(asm_libcalls.IntegerDivisionByZero) as trap:
                hook.binding.entry.call(sdiv.address, I64_TO_I64, (1, 0))
            caught.append(trap.type)
        return level

    hook.body = body
    assert hook.call(depth, 0) == depth
    assert caught == [asm_libcalls.IntegerDivisionByZero]


@pytest.mark.parametrize("depth", [1, 30])
def test_a_trap_that_every_callback_lets_pass(depth, hook):
    sdiv = hook.binding.libcalls["i64_sdiv"]
    left = []

    def body(level, y):
        try:
            if level:
                return hook.call(level - 1, y)
            return hook.binding.entry.call(sdiv.address, I64_TO_I64, (1, 0))
        finally:
            left.append(level)

    hook.body = body
    with pytest.raises(asm_libcalls.IntegerDivisionByZero):
        hook.call(depth, 0)
    assert left == list(range(depth + 1))


def test_qsort_calls_back_into_entries(accelerated):
    """Native frames of the C library stay between two entries, and go on after a trap inside."""
    sdiv = accelerated.libcalls["i64_sdiv"]
    compare_type = ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.POINTER(ctypes.c_int64), ctypes.POINTER(ctypes.c_int64)
    )
    traps = []

    def compare(a, b):
        try:
            accelerated.entry.call(sdiv.address, I64_TO_I64, (a[0], 0))
        except asm_libcalls.IntegerDivisionByZero:
            traps.append(a[0])
        return (a[0] > b[0]) - (a[0] < b[0])

    callback = compare_type(compare)
    values = (ctypes.c_int64 * 50)(*((i * 37) % 50 for i in range(50)))
    qsort = ctypes.cast(ctypes.CDLL(None).qsort, ctypes.c_void_p).value
    accelerated.entry.call(
        qsort,
        Signature("(pointer, u64, u64, pointer)"),
        (ctypes.addressof(values), 50, 8, ctypes.cast(callback, ctypes.c_void_p).value),
    )
    assert list(values) == list(range(50))
    assert len(traps) >= 49


def test_eight_threads_at_once(binding):
    sdiv = binding.libcalls["i64_sdiv"]
    operands = ((MIN, MINUS_ONE), (1, 0))
    codes = (TrapCode.INTEGER_OVERFLOW, TrapCode.INTEGER_DIVISION_BY_ZERO)
    wrong = []

    def work(number):
        for i in range(1, 500):
            try:
                binding.entry.call(sdiv.address, I64_TO_I64, operands[i % 2])
                wrong.append((number, i, "no trap"))
            except Trap as trap:
                if trap.code != codes[i % 2]:
                    wrong.append((number, i, trap))
            quotient = binding.entry.call(sdiv.address, I64_TO_I64, (number * i, i))
            if quotient != number:
                wrong.append((number, i, quotient))

    in_threads(work, range(8))
    assert wrong == []


def test_threads_inside_callbacks_at_once(hook):
    """Each thread traps while the others are in native code."""
    inside = threading.Barrier(4)
    sdiv = hook.binding.libcalls["i64_sdiv"]

    def body(number, y):
        inside.wait(60)
        if number % 2:
            raise Trap(1000 + number)
        with pytest.raises(asm_libcalls.IntegerDivisionByZero):
            hook.binding.entry.call(sdiv.address, I64_TO_I64, (1, 0))
        return number

    hook.body = body

    def work(number):
        try:
            return hook.call(number, 0)
        except Trap as trap:
            return trap.code

    assert in_threads(work, range(4)) == [0, 1001, 2, 1003]


def test_daemon_thread_in_native_code_at_exit(child):
    """The interpreter ends while a thread is below our entry; its frames must not matter."""
    child("""
        import ctypes, threading, time
        import asm_libcalls

        usleep = ctypes.cast(ctypes.CDLL(None).usleep, ctypes.c_void_p).value
        sleep = asm_libcalls.catch_traps(usleep, "(u32) -> i32")
        started = threading.Event()

        def work():
            started.set()
            while True:
                sleep(1000)

        for _ in range(4):
            threading.Thread(target=work, daemon=True).start()
        started.wait()
        time.sleep(0.05)
    """)
