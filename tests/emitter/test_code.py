"""Code: pieces of machine code that share pages, are called, closed and freed."""

from __future__ import annotations

import copy
import ctypes
import gc
import pickle
import sys
import threading
import weakref

import pytest
from in_threads import in_threads
from process_maps import mapping_of, offenders

import asm_libcalls
from asm_libcalls import Code, HostFunction, catch_traps, native_function
from asm_libcalls.emitter import code_names

pytestmark = pytest.mark.usefixtures("machine_code")

ADD = bytes.fromhex("8d0437 c3")  # lea eax, [rdi + rsi]; ret
FRAMED = bytes.fromhex("55 4889e5 8d0437 5d c3")  # push rbp; mov rbp, rsp; lea; pop rbp; ret
SIGNATURE = "(i32, i32) -> i32"
INT3 = b"\xcc"


def calls(address: int) -> bytes:
    """Code that calls a function of an i64 and returns its result plus one."""
    return (
        bytes.fromhex("55 4889e5 48b8") + address.to_bytes(8, "little")  # mov rax, address
        + bytes.fromhex("ffd0 48ffc0 5d c3")  # call rax; inc rax; pop rbp; ret
    )  # fmt: skip


def content(address: int, size: int = 4) -> bytes:
    return ctypes.string_at(int(address), size)


@pytest.fixture(autouse=True)
def neighbour(monkeypatch):
    """A piece that keeps its region mapped, so that tests can look at freed neighbours."""
    monkeypatch.setattr(code_names, "perf_is_wanted", bool)  # another test may have enabled it
    with Code(INT3) as code:
        yield code


# --- made and called ------------------------------------------------------------------------------


def test_an_address_and_symbols():
    code = Code(ADD + INT3 * 12 + FRAMED, {"add": (0, 4), "fram\ned": (16, 9)})
    assert code.size == 25
    assert code.address % 64 == 0
    assert dict(code.symbols) == {"add": code.address, "fram\ned": code.address + 16}
    assert len(code.symbols) == 2
    assert "sub" not in code.symbols
    assert repr(code.symbols) == (
        f"{{'add': {code.address:#x}, 'fram\\ned': {code.address + 16:#x}}}"
    )
    assert repr(code) == f"<Code of 25 bytes at {code.address:#x}>"
    assert content(code.address, 25) == ADD + INT3 * 12 + FRAMED
    for address in (*code.symbols.values(), code.address + 16, 16 + code.address):
        assert address.code is code
        assert native_function(address, SIGNATURE)(40, 2) == 42
    assert type(code.address + 26) is type(code.address - 1) is int  # beyond it
    with pytest.raises(TypeError):
        code.address + "1"


@pytest.mark.parametrize("function", [copy.copy, copy.deepcopy, pickle.dumps])
def test_addresses_are_not_copied(function):
    with (
        Code(ADD) as code,
        pytest.raises(TypeError, match=r"^CodeAddress objects cannot"),
    ):
        function(code.address)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("\xc3",), TypeError, "code must be bytes-like, got str"),
        ((b"",), ValueError, "code must not be empty"),
        ((ADD, [1]), TypeError, "functions must be a mapping"),
        ((ADD, {1: (0, 4)}), TypeError, "name must be a str"),
        ((ADD, {"f": (0, 5)}), ValueError, "within the code of 4 bytes"),
    ],
)
def test_what_is_no_code_is_refused(arguments, error, message):
    with pytest.raises(error, match=rf"^Code\(\): .*{message}"):
        Code(*arguments)


def test_pieces_of_every_size():
    before = offenders()  # callbacks of ctypes, made by other tests
    made = [Code(ADD.ljust(size, INT3)) for size in (4, 64, 65, 4096, 5000, 1 << 16, 3 << 20)]
    for code in made:
        assert mapping_of(code.address).permissions == "r-xs"
        assert content(code.address, code.size) == ADD.ljust(code.size, INT3)
        assert catch_traps(code.address, SIGNATURE)(1, 2) == 3
    assert offenders() == before


# --- closed ---------------------------------------------------------------------------------------

WAYS = {
    "a builtin": lambda a: native_function(a, SIGNATURE, name="it"),
    "a leaf": lambda a: native_function(a, SIGNATURE, name="it", catch=False),
    "without the GIL": lambda a: native_function(a, SIGNATURE, name="it", release_gil=True),
    "a Python function": lambda a: native_function(a, "(i32, i32, f16) -> i32", name="it"),
    "a slow path": lambda a: native_function(a, SIGNATURE, name="it", slow=lambda *_: 42),
    "one argument": lambda a: native_function(a, "(i32) -> i32", name="it"),
    "no argument": lambda a: native_function(a, "() -> i32", name="it"),
    "caught": lambda a: catch_traps(a, SIGNATURE),
    "caught, patterns": lambda a: catch_traps(a, SIGNATURE).call_bits,
    "wide": lambda a: catch_traps(a, "(i32, i32, i128) -> i32"),
}
ARGUMENTS = {
    "one argument": (1,),
    "no argument": (),
    "a Python function": (1, 2, 0.5),
    "wide": (1, 2, 3),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("called", [False, True])
def test_closed_code_is_not_called(way, called):
    arguments = ARGUMENTS.get(way, (1, 2))
    code = Code(ADD)
    address = code.address
    function = WAYS[way](address)
    if called:
        function(*arguments)
    code.close()
    for given in (arguments, (True, *arguments[1:])[: len(arguments)]):
        with pytest.raises(ValueError, match=r"^(it\(\)|<native function .*>|native_.*\(\)): "):
            function(*given)
    assert content(address) == ADD  # as long as the function object is there
    for make in WAYS.values():
        with pytest.raises(ValueError, match="the Code is closed"):
            make(address)()
    with pytest.raises(ValueError, match="the Code is closed"):
        code.address  # noqa: B018
    with pytest.raises(ValueError, match="the Code is closed"):
        code.symbols  # noqa: B018
    assert repr(code) == "<Code closed>"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("closed_first", [False, True])
def test_the_last_use_frees_the_memory(way, closed_first):
    code = Code(ADD)
    address = int(code.address)
    function = WAYS[way](code.address)
    held = weakref.ref(code)
    if closed_first:
        code.close()
        del code
        gc.collect()
        assert content(address) == ADD
    else:
        del code
        gc.collect()
        assert held() is not None
        assert function(*ARGUMENTS.get(way, (1, 2))) is not None
    del function
    gc.collect()
    assert held() is None
    assert content(address) == INT3 * 4


def test_without_functions_closing_frees_at_once():
    code = Code(ADD)
    address = int(code.address)
    code.close()
    code.close()
    assert content(address) == INT3 * 4
    with Code(ADD) as again:
        assert again.address == address  # used again


def test_a_cycle_is_collected():
    code = Code(ADD)
    address = int(code.address)
    code.function = native_function(code.address, SIGNATURE)
    code.itself = code
    assert code.function(1, 2) == 3
    del code
    gc.collect()
    assert content(address) == INT3 * 4


def test_a_finalizer_that_calls_code_of_its_own_cycle():
    """The collector calls finalizers in any order, so the memory must outlive all of them."""

    class Last:
        def __del__(self):
            try:
                results.append(self.function(40, 2))
            except ValueError as error:  # the Code was finalized before
                results.append(str(error))

    results = []
    for _ in range(10):
        thing = Last()
        code = Code(ADD)
        code.thing, thing.code = thing, code
        thing.function = native_function(code.address, SIGNATURE, name="it")
        del thing, code
        gc.collect()
    assert len(results) == 10
    assert set(results) <= {42, "it(): the Code is closed"}


def test_instances_keep_the_code_of_their_functions():
    code = Code(ADD)
    instance = asm_libcalls.Instance(functions=[(code.address, 0)])
    held, address = weakref.ref(code), int(code.address)
    del code
    gc.collect()
    assert held() is not None
    assert instance.functions[0].func_ptr == address
    with Code(ADD) as closed:
        other = closed.address
    with pytest.raises(ValueError, match=r"functions\[0\]: the Code is closed"):
        asm_libcalls.Instance(functions=[(other, 0)])
    instance.close()
    del instance
    gc.collect()
    assert held() is None


def test_stack_maps_are_forgotten_with_the_memory():
    registry = asm_libcalls.StackMapRegistry()
    for _ in range(3):
        code = Code(ADD)
        start = code.address
        registry.register(start, 4, {4: [-8]})
        code.close()
        assert registry.lookup(start + 4) == (-8,)  # code that runs may still need it
        number = int(start)
        with pytest.raises(ValueError, match=r"register\(\): the Code is closed"):
            registry.register(start, 4, {})
        del start
        assert registry.lookup(number + 4) is None
        assert repr(registry) == "<StackMapRegistry of 0 code ranges>"


def test_code_that_is_made_and_freed_at_interpreter_exit(child):
    """Nothing can be imported then."""
    done = child("""
        import asm_libcalls
        from asm_libcalls import Code

        class Last:
            def __del__(self):
                with Code(content, {"f": (0, len(content))}) as code:
                    print(code.size, flush=True)
                self.kept.close()

        content = bytes.fromhex("55 4889e5 8d0437 5d c3")
        last = Last()
        last.kept = Code(content)
        last.itself = last
        """)
    assert (done.stdout, done.stderr) == ("9\n", "")


# --- closed while it runs -------------------------------------------------------------------------


def reuse(much: int = 200) -> list[Code]:
    """Take the space that is free, and call what is there."""
    made = [Code(ADD.ljust(size, INT3)) for size in (4, 70, 200) for _ in range(much)]
    for code in made[:: len(made) // 10]:
        assert native_function(code.address, SIGNATURE)(1, 1) == 2
    return made


MAKE = {"native_function": native_function, "catch_traps": catch_traps}


@pytest.mark.parametrize("make", MAKE)
@pytest.mark.parametrize("outcome", ["result", "exception", "trap"])
def test_in_its_own_call(make, outcome):
    def host(number):
        code.close()
        functions.clear()
        gc.collect()
        kept.append(reuse())
        assert content(address, len(bytes_)) == bytes_
        if outcome == "exception":
            raise KeyError("from the host function")
        if outcome == "trap":
            raise asm_libcalls.UnreachableCodeReached
        return number

    kept = []
    with HostFunction(host, "(i64) -> i64") as function:
        for _ in range(3):
            bytes_ = calls(function.address)
            code = Code(bytes_)
            address = int(code.address)
            functions = [MAKE[make](code.address, "(i64) -> i64")]
            if outcome == "result":
                assert functions.pop()(41) == 42
            else:
                with pytest.raises((KeyError, asm_libcalls.UnreachableCodeReached)):
                    functions.pop()(41)
            gc.collect()
            assert content(address) != bytes_[:4]
            kept.clear()


def test_in_another_thread():
    runs, closed = threading.Event(), threading.Event()

    def host(number):
        runs.set()
        assert closed.wait(60)
        assert content(address, len(bytes_)) == bytes_
        return number

    def call():
        return functions.pop()(41)

    def close():
        assert runs.wait(60)
        code.close()
        gc.collect()
        kept = reuse()
        closed.set()
        return kept

    with HostFunction(host, "(i64) -> i64") as function:
        bytes_ = calls(function.address)
        code = Code(bytes_)
        address = int(code.address)
        functions = [native_function(code.address, "(i64) -> i64", release_gil=True)]
        assert in_threads(lambda work: work(), [call, close])[0] == 42
    gc.collect()
    assert content(address) != bytes_[:4]


def test_in_a_greenlet_that_waits():
    greenlet = pytest.importorskip("greenlet")

    def host(number):
        return greenlet.getcurrent().parent.switch(number)

    with HostFunction(host, "(i64) -> i64") as function:
        bytes_ = calls(function.address)
        code = Code(bytes_)
        address = int(code.address)
        functions = [catch_traps(code.address, "(i64) -> i64")]
        waiting = [greenlet.greenlet(lambda: functions.pop()(41)) for _ in range(1)]
        assert waiting[0].switch() == 41
        code.close()
        del code
        gc.collect()
        kept = reuse()
        assert content(address, len(bytes_)) == bytes_
        assert waiting[0].switch(99) == 100
        assert waiting.pop().dead
        gc.collect()
        assert content(address) != bytes_[:4]
        del kept


def test_threads_that_load_call_and_close():
    """While others do, and the collector runs all the time; nothing is called that was freed."""
    thresholds = gc.get_threshold()
    interval = sys.getswitchinterval()

    def work(number):
        for i in range(300):
            # mov eax, number * 1000 + i; ret
            with Code(b"\xb8" + (number * 1000 + i).to_bytes(4, "little") + b"\xc3") as code:
                function = native_function(code.address, "() -> u32")
                code.cycle = [code, function]
                assert function() == number * 1000 + i
            with pytest.raises(ValueError, match="closed"):
                function()

    try:
        gc.set_threshold(20)
        sys.setswitchinterval(1e-5)
        in_threads(work, range(4))
    finally:
        gc.set_threshold(*thresholds)
        sys.setswitchinterval(interval)


def test_pieces_that_are_freed_while_others_are_made():
    """A finalizer frees, and makes, within the allocation that started the collection."""
    thresholds = gc.get_threshold()

    class Maker:
        def __del__(self):
            with Code(ADD) as code:
                results.append(catch_traps(code.address, SIGNATURE).call_bits(1, len(results)))

    results: list[int] = []
    try:
        gc.set_threshold(3)
        for _ in range(300):
            code = Code(ADD, {"f": (0, 4)})
            code.cycle = [code, Maker()]
            assert native_function(code.address, SIGNATURE)(40, 2) == 42
    finally:
        gc.set_threshold(*thresholds)
    del code
    gc.collect()
    assert results == list(range(1, 301))


# --- names ----------------------------------------------------------------------------------------


def names_of(code: Code) -> list[str]:
    source = code_names.sources.get(int(code.address))
    return [] if source is None else [name for _, _, name, _ in source()]


def test_two_images_on_a_page_keep_their_names():
    one, two = (Code(FRAMED, {f"my::f{i}": (0, len(FRAMED))}) for i in range(2))
    assert one.address // 4096 == two.address // 4096
    assert [names_of(one), names_of(two)] == [["my::f0"], ["my::f1"]]
    address = int(one.address)
    one.close()
    assert address not in code_names.sources
    assert names_of(two) == ["my::f1"]
    three = Code(FRAMED, {"my::f3": (0, len(FRAMED))})
    assert three.address == address
    assert [names_of(three), names_of(two)] == [["my::f3"], ["my::f1"]]


def test_names_go_with_the_memory_not_before():
    code = Code(FRAMED, {"my::f": (0, len(FRAMED))})
    function = native_function(code.address, SIGNATURE)
    address = int(code.address)
    code.close()
    assert address in code_names.sources
    del function
    gc.collect()
    assert address not in code_names.sources


def test_debuggers_and_unwinders_are_told(child):
    child("""
        import ctypes, gc
        from asm_libcalls import Code, HostFunction, native_function
        from asm_libcalls.integrations import gdb
        from asm_libcalls.emitter import register_frames as unwinder
        from asm_libcalls.emitter import code_names

        gdb.enable()
        unwinder.start()
        (debugger,), (known,) = gdb._enabled, unwinder._started

        def counts():
            return len(debugger._registered), len(known._registered)

        walked = []
        libc = ctypes.CDLL(None)

        def backtrace():
            addresses = (ctypes.c_void_p * 200)()
            return addresses[: libc.backtrace(addresses, 200)]

        def host(number):
            walked.append(backtrace())
            if closes:
                closes.pop().close()  # its frame is known until it has returned
                walked.append(backtrace())
            return number

        closes = []
        bottom = backtrace()[-3:]  # main and what calls it

        function = HostFunction(host, "(i64) -> i64")
        # push rbp; mov rbp, rsp; mov rax, function; call rax; inc rax; pop rbp; ret
        content = (bytes.fromhex("55 4889e5 48b8") + function.address.to_bytes(8, "little")
                   + bytes.fromhex("ffd0 48ffc0 5d c3"))
        names = {"my::call": (0, len(content))}
        with Code(content) as code:  # builtins of this shape have code too
            native_function(code.address, "(i64) -> i64")
        before = counts()
        made = [Code(content, names) for _ in range(10)]
        assert counts() == tuple(n + 10 for n in before)
        for code in made[::2]:
            code.close()
        for i in range(200):
            Code(content, names)
        assert counts() == tuple(n + 5 for n in before)
        for code in made[1::2]:
            closes.append(code)
            start = int(code.address)
            assert native_function(code.address, "(i64) -> i64")(41) == 42
            for frames in (walked.pop(), walked.pop()):
                assert any(start < at <= start + len(content) for at in frames)
                assert frames[-3:] == bottom
        del made, code
        gc.collect()
        assert counts() == before
        """)


@pytest.mark.parametrize("way", ["variable", "enable"])
def test_perf_finds_the_names(child, way):
    """perf names anonymous memory alone."""
    child(
        """
        import os
        from asm_libcalls import Code, native_function
        from asm_libcalls.integrations import perf
        from process_maps import mapping_of

        perf.enable()
        try:
            with Code(bytes.fromhex("8d0437c3"), {"my::add": (0, 4)}) as code:
                mapping = mapping_of(code.address)
                assert (mapping.permissions, mapping.name) == ("r-xp", ""), mapping
                assert native_function(code.address, "(i32, i32) -> i32")(40, 2) == 42
                with open(perf.map_file()) as file:
                    assert f"{code.address:x} 4 my::add\\n" in file.read()
        finally:
            os.unlink(perf.map_file())
        """,
        variables={"ASM_LIBCALLS_PERF_MAP": "1" if way == "variable" else None},
    )
