"""Registrations of loaded code: in the middle of each other, and in threads and forks."""

import gc
import threading

import pytest
from interruptions import at_every_point, at_point

from asm_libcalls import Code, load_code
from asm_libcalls.emitter import code_names, register_frames
from asm_libcalls.emitter.code_registration import Registry
from asm_libcalls.integrations import gdb

RET = bytes.fromhex("55 4889e5 5d c3")  # a frame that the unwinder can describe


class Recorded(Registry):
    """Registers in a list, and refuses to be entered twice."""

    def __init__(self):
        super().__init__()
        self.now = {}
        self.count = 0
        self.busy = False

    def _begin(self):
        assert not self.busy, "registered in the middle of a registration"
        self.busy = True

    def register(self, address, functions):
        self._begin()
        self.count += 1
        token = self.count
        for at, _, name, _ in functions:
            self.now[token] = (at, name)
        self._registered[address] = token
        self.busy = False

    def unregister(self, address):
        self._begin()
        del self.now[self._registered.pop(address)]
        self.busy = False

    def names(self):
        return sorted(name for _, name in self.now.values() if name.startswith("piece"))


@pytest.fixture
def registry(machine_code):
    made = Recorded()
    code_names.observe(made)
    yield made
    code_names._observers.remove(made)


def piece(name):
    return Code(RET, {name: (0, len(RET))})


def test_a_signal_handler_may_load_and_free_code_at_any_point(registry):
    kept = []

    def scene():
        gc.collect()

        def operation():
            code = piece("piece 1")
            kept.append(piece("piece 2"))
            code.close()

        def intruder():
            kept.append(piece("piece 3"))
            piece("piece 4").close()

        return operation, intruder

    def check(outcome, number):
        assert outcome is None, number
        assert registry.names() == ["piece 2", "piece 3"], number
        assert not registry._coming
        assert not registry._gone
        kept.clear()
        gc.collect()
        assert registry.names() == []

    points = at_every_point(scene, check)
    kept.clear()
    assert points > 50


def test_code_is_registered_when_it_is_loaded(registry):
    """A thread waits for another one that registers."""
    began, go_on = threading.Event(), threading.Event()

    class Slow(Recorded):
        def register(self, address, functions):
            if threading.current_thread() is not threading.main_thread():
                began.set()
                assert go_on.wait(60)
            super().register(address, functions)

    slow = Slow()
    code_names.observe(slow)
    try:
        thread = threading.Thread(target=load_code, args=(RET, {"piece a": (0, len(RET))}))
        thread.start()
        assert began.wait(60)
        threading.Timer(0.05, go_on.set).start()
        load_code(RET, {"piece b": (0, len(RET))})
        assert "piece b" in slow.names()
        thread.join(60)
        assert slow.names() == ["piece a", "piece b"]
    finally:
        code_names._observers.remove(slow)


def test_a_fork_in_the_middle_of_a_registration(machine_code, child):
    """In a process of its own: forking beside other threads warns from Python 3.12 on."""
    child("""
        import os
        from emitter.test_code_registration import Recorded, code_names, piece

        class Forking(Recorded):
            child = None

            def register(self, address, functions):
                self.child = os.fork()
                code = piece("piece of the child") if not self.child else None
                super().register(address, functions)
                if code is not None:
                    code.close()

        forking = Forking()
        code_names.observe(forking)
        os.register_at_fork(after_in_child=forking._forget_other_threads)
        code = piece("piece of both")
        if not forking.child:
            os._exit(forking.names() != ["piece of both"])
        _, status = os.waitpid(forking.child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert forking.names() == ["piece of both"]
        code.close()
        assert forking.names() == []
    """)


class Struck(BaseException):
    """A signal handler raises this."""


def strike():
    raise Struck


_WHERE = "asm_libcalls.emitter.code_", "asm_libcalls.emitter.reg", "asm_libcalls.integrations"
REGISTRIES = {"unwinder": register_frames._Unwinder, "gdb": gdb._Debugger}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", REGISTRIES)
def test_no_registration_outlives_its_code_where_a_signal_handler_raises(name, machine_code):
    registry = REGISTRIES[name]()
    code_names.observe(registry)
    before = set(registry._registered)

    def load_and_close():
        piece("piece").close()

    def run(number):
        try:
            return at_point(number, load_and_close, strike, _WHERE)[0]
        except Struck:
            return True

    try:
        for number in range(2000):
            if not run(number):
                break
            gc.collect()
            load_and_close()  # goes on with what was interrupted
            assert not registry._coming, number
            assert not registry._gone, number
            assert not code_names._leaving, number
            assert set(registry._registered) - before <= set(code_names.sources), number
    finally:
        code_names._observers.remove(registry)
    assert number > 50
