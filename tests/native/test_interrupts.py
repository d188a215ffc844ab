"""Ctrl-C and other exceptions while native code runs arrive unchanged, and all works after.

Each test is a process of its own that sends itself SIGINT.
"""

import pytest

PRELUDE = """
    import os, signal, sys, threading, time
    import asm_libcalls
    from asm_libcalls import *
    from asm_libcalls import (Global, HostFunction, Instance, Memory, StackMapRegistry, Table,
                              VMExternRef, gc)
    from asm_libcalls.runtime import externref_boxes
    from held_references import held_by

    def interrupted(function):
        # Run it, and want a KeyboardInterrupt, long before what sleeps in it is done.
        begun = threading.Event()
        def send():
            begun.wait()
            time.sleep(0.15)
            os.kill(os.getpid(), signal.SIGINT)
        threading.Thread(target=send, daemon=True).start()
        begin = time.monotonic()
        try:
            begun.set()
            function()
        except KeyboardInterrupt as error:
            assert 0.1 < time.monotonic() - begin < 50
            return error
        raise AssertionError("no KeyboardInterrupt")

    def healthy():
        # The process works as ever: libcalls, traps, references, destructors.
        instance = Instance([Memory(1, 2)], [Table("externref", 2)])
        memory_fill(instance, 0, 0, 7, 65536)
        assert memoryview(instance.memories[0])[65535] == 7
        for name, arguments in (("memory_fill", (0, 65536, 0, 1)), ("table_fill", (0, 2, 0, 1))):
            libcall = LIBCALLS[name]
            try:
                catch_traps(libcall.address, libcall.signature)(instance.vmctx, *arguments)
            except (HeapOutOfBounds, TableOutOfBounds):
                pass
            else:
                raise AssertionError(name)
        value = VMExternRef(5)
        asm_libcalls.activations_table_insert_with_gc(instance, value)
        gc(instance)
        assert value.strong_count() == 1
        host = HostFunction(lambda x: x + 1, "(i32) -> i32")
        assert catch_traps(host.address, host.signature)(41) == 42
        host.close()
"""

NATIVE = """
    from native_code import *
    from peachpy.x86_64 import CMP, JMP, RET

    def loop_of(name, *arguments, count=None):
        # (vmctx, pointer): call a libcall or a host function again and again.
        def body():
            with frame(1):
                MOV(rbx, rdi)
                MOV(r12, rsi)
                if count is not None:
                    MOV(r13, count)
                again = Label("again")
                LABEL(again)
                for register, argument in zip((rdi, rsi, rdx, rcx), arguments):
                    MOV(register, {"vmctx": rbx, "pointer": r12}.get(argument, argument))
                if len(arguments) == 5:
                    from peachpy.x86_64 import r8
                    MOV(r8, arguments[4])
                call(name, "site")
                if count is None:
                    JMP(again)
                else:
                    DEC(r13)
                    JNZ(again)
        return body

    slots = {**{name: libcall.address for name, libcall in LIBCALLS.items()},
             **asm_libcalls.runtime_symbols()}

    def endless(name, *arguments, host=None, count=None):
        code = NativeCode({"loop": loop_of(name, *arguments, count=count)},
                          {**slots, "host": host.address if host else 0})
        return catch_traps(code["loop"], "(vmctx, pointer)")
"""


@pytest.fixture(params=["auto", "fallback"])
def backend(request):
    return request.param


@pytest.fixture
def run(child):
    """Run code after the PRELUDE in a child process."""
    return lambda code, **options: child(PRELUDE + code, **options)


@pytest.fixture
def native(machine_code, run):
    """Run code after NATIVE too."""
    pytest.importorskip("peachpy", reason="no assembler for native frames")
    return lambda code, **options: run(NATIVE + code, **options)


class TestCtrlC:
    def test_in_a_loop_of_memory_fill(self, run, backend):
        run(
            """
    instance = Instance([Memory(512)])
    def loop():
        while True:
            memory_fill(instance, 0, 0, 1, 512 * 65536)
    for _ in range(2):
        interrupted(loop)
        healthy()
    """,
            variables={"ASM_LIBCALLS_BACKEND": backend},
        )

    def test_while_native_code_fills_memory(self, native):
        """Machine code is not interrupted: the exception comes when it has returned."""
        native("""
    instance = Instance([Memory(1024)])
    length = 1024 * 65536
    memory_fill(instance, 0, 0, 1, length)  # the system gives the pages now
    times = []
    for _ in range(5):  # the least: a machine that is busy only now makes the call look too long
        begin = time.perf_counter()
        memory_fill(instance, 0, 0, 1, length)
        times.append(time.perf_counter() - begin)
    once = max(min(times), 1e-3)
    fill = endless("memory_fill", "vmctx", 0, 0, 1, length, count=int(1 / once) + 1)
    interrupted(lambda: fill(instance.vmctx, 0))
    healthy()
    """)

    def test_native_code_that_calls_a_host_function_for_ever(self, native):
        native("""
    calls = 0
    def count():
        global calls
        calls += 1
    host = HostFunction(count, "()")
    loop = endless("host", host=host)
    for _ in range(3):
        before = calls
        interrupted(lambda: loop(0, 0))
        assert calls > before + 100
        healthy()
    """)

    @pytest.mark.parametrize(
        "call",
        [
            '"table_fill", "vmctx", 0, 0, "pointer", 3',
            '"externref_global_get", "vmctx", 0',
            '"externref_global_set", "vmctx", 0, "pointer"',
            '"activations_table_insert_with_gc", "vmctx", "pointer"',
            '"memory32_grow", "vmctx", 0, 0',
            '"elem_drop", "vmctx", 0',
        ],
        ids=lambda call: call.split('"')[1],
    )
    def test_native_code_that_calls_a_libcall_in_python_for_ever(self, native, call):
        native(f"""
    registry = StackMapRegistry()
    value = VMExternRef("value")
    instance = Instance([Memory(1)], [Table("externref", 3)], [Global("externref", value, True)],
                        elements=[("externref", [None])], stack_map_registry=registry)
    name, *arguments = {call}
    loop = endless("host", *arguments, host=LIBCALLS[name].fallback)  # not as machine code
    for _ in range(2):
        interrupted(lambda: loop(instance.vmctx, value.as_raw()))
        healthy()
    # What was interrupted may have left a count too many, but never one too few.
    gc(instance)
    owners = 1 + list(instance.tables[0]).count("value")
    owners += instance.globals[0].value == "value"
    assert value.strong_count() >= owners
    """)

    def test_in_a_sleeping_host_function(self, run, backend):
        run(
            """
    host = HostFunction(lambda: time.sleep(60), "()")
    function = catch_traps(host.address, "()")
    for _ in range(2):
        interrupted(function)
        healthy()
    """,
            variables={"ASM_LIBCALLS_BACKEND": backend},
        )

    def test_in_nested_host_functions_each_hears_of_it(self, run, backend):
        run(
            """
    errors = []
    def inner():
        time.sleep(60)
    inner_host = HostFunction(inner, "()")
    def outer():
        try:
            catch_traps(inner_host.address, "()")()
        except KeyboardInterrupt as error:
            errors.append(error)
            raise
    outer_host = HostFunction(outer, "()")
    error = interrupted(catch_traps(outer_host.address, "()"))
    assert errors == [error]
    assert errors[0] is error
    healthy()
    """,
            variables={"ASM_LIBCALLS_BACKEND": backend},
        )

    @pytest.mark.parametrize("where", ["limiter", "table limiter", "destructor", "weakref"])
    def test_in_a_callback_of_a_libcall(self, run, backend, where):
        run(
            f"""
    import weakref
    where = {where!r}
    def limiter(*sizes):
        time.sleep(60)
    class Slow:
        def __del__(self):
            time.sleep(60)
    class Plain: pass
    instance = Instance([Memory(1, 5, limiter=limiter)], [Table("externref", 2, limiter=limiter)])
    value = VMExternRef("value")
    if where == "limiter":
        name, arguments = "memory32_grow", (1, 0)
    elif where == "table limiter":
        name, arguments = "table_grow", (0, 1, value.as_raw())
    else:
        thing = Slow() if where == "destructor" else Plain()
        watch = weakref.ref(thing, lambda ref: time.sleep(60)) if where == "weakref" else None
        instance.tables[0][0] = thing
        del thing
        name, arguments = "table_fill", (0, 0, value.as_raw(), 2)
    libcall = LIBCALLS[name]
    function = catch_traps(libcall.address, libcall.signature)
    interrupted(lambda: function(instance.vmctx, *arguments))
    healthy()
    assert instance.memories[0].size == 1
    assert list(instance.tables[0]) == (["value"] * 2 if name == "table_fill" else [None] * 2)
    assert value.strong_count() == (3 if name == "table_fill" else 1)
    """,
            variables={"ASM_LIBCALLS_BACKEND": backend},
        )

    def test_the_fallback_s_callbacks_lose_none(self, run):
        """A signal during native code is handled on the first line of the next callback."""
        run(
            """
    import ctypes
    from asm_libcalls.emitter import libc
    def compare(a, b):
        return 0
    host = HostFunction(compare, "(pointer, pointer) -> i32")
    sort = catch_traps(libc.function_address("qsort"), "(pointer, u64, u64, pointer)")
    numbers = (ctypes.c_int32 * 60000)()
    def long():
        while True:
            sort(ctypes.addressof(numbers), 60000, 4, host.address)
    for _ in range(3):
        interrupted(long)
        healthy()
    """,
            variables={"ASM_LIBCALLS_BACKEND": "fallback"},
        )


class TestUnchanged:
    """The entry raises the same object that was raised under native frames."""

    @pytest.mark.parametrize("where", ["host", "limiter", "destructor"])
    def test_under_native_frames(self, native, where):
        native(f"""
    where = {where!r}
    def raises(*arguments):
        raise error
    class Raises:
        def __del__(self):
            raise error
    instance = Instance([Memory(1, 5, limiter=raises)], [Table("externref", 1)])
    host = HostFunction(raises, "()")
    loop = {{
        "host": lambda: endless("host", host=host),
        "limiter": lambda: endless("memory32_grow", "vmctx", 1, 0),
        "destructor": lambda: endless("table_fill", "vmctx", 0, 0, 0, 1),
    }}[where]()
    for error in (ValueError("x"), KeyboardInterrupt(), MemoryError(), SystemExit(5),
                  asm_libcalls.Interrupt()) * 2:
        if where == "destructor":
            instance.tables[0][0] = Raises()
        try:
            loop(instance.vmctx, 0)
        except BaseException as caught:
            assert caught is error, caught
        else:
            raise AssertionError
        healthy()
    """)


class TestStorm:
    """Signals handled at any moment of the runtime's Python: nothing breaks, and counts hold."""

    STORM = """
    import random
    class Thunder(BaseException): pass
    def strike(*arguments):
        raise Thunder
    signal.signal(signal.SIGALRM, strike)

    class Thing: pass

    def storm(function, seconds):
        # For as long, and longer where a busy machine lets little happen in it.
        end = time.monotonic() + seconds
        caught = 0
        while time.monotonic() < end or caught <= 200:
            try:
                signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 8e-4))
                function()
            except Thunder:
                caught += 1
            finally:
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except Thunder:
                    pass
        return caught

    def owners(instance, extra):
        count = {}
        pointers = [ref.as_raw() for ref in extra]
        for table in instance.tables:
            pointers += table.raw(0, len(table))
        pointers += [g.bits for g in instance.globals]
        for segment in instance.elements:
            pointers += segment._cells[: len(segment)]
        pointers += held_by(instance.activations_table)
        for pointer in pointers:
            count[pointer] = count.get(pointer, 0) + 1
        count.pop(0, None)
        return count
    """

    def test_over_the_libcalls(self, run, backend):
        done = run(
            self.STORM
            + """
    instance = Instance([Memory(1, 3)], [Table("externref", 5, 40), Table("externref", 5)],
                        [Global("externref", None, True)],
                        elements=[("externref", [Thing(), Thing()])])
    kept = [VMExternRef(Thing()) for _ in range(4)]
    at = {name: catch_traps(LIBCALLS[name].address, LIBCALLS[name].signature)
          for name in LIBCALLS if LIBCALLS[name].signature.parameters[0].name == "vmctx"}
    vmctx = instance.vmctx

    def work():
        for ref in kept:
            raw = ref.as_raw()
            at["table_fill"](vmctx, 0, 0, raw, 5)
            table_copy(instance, 1, 0, 0, 0, 5)
            at["table_init"](vmctx, 0, 0, 1, 0, 2)
            at["externref_global_set"](vmctx, 0, raw)
            externref_global_get(instance, 0)
            for _ in range(60): at["activations_table_insert_with_gc"](vmctx, raw)
            if len(instance.tables[0]) < 38: table_grow(instance, 0, 1, ref)
            instance.tables[1][0] = Thing()
            VMExternRef(Thing()).clone().drop()
            gc(instance)
            at["memory_fill"](vmctx, 0, 0, 3, 65536)
            HostFunction(lambda: None, "()").close()

    caught = storm(work, 2.5)
    # Nothing was lost, and nothing given back twice, wherever the signals came.
    VMExternRef(None).drop()  # gives back what the last signal interrupted
    import gc as gc_module
    gc_module.collect()
    for pointer, count in owners(instance, kept).items():
        assert externref_boxes.strong_count(pointer) == count, (hex(pointer), count)
    assert all(isinstance(v, Thing) for table in instance.tables for v in table if v is not None)
    healthy()
    work()
    gc(instance)
    assert len(instance.activations_table) == 0
    assert not instance.activations_table._collecting
    assert sys.unraisablehook is sys.__unraisablehook__
    print(caught)
    """,
            variables={"ASM_LIBCALLS_BACKEND": backend},
        )
        assert int(done.stdout) > 200

    def test_over_native_frames(self, run, native):
        done = run(
            self.STORM
            + """
    import soak
    one = soak.Soak()
    def work():
        try:
            one.round(6)
        except soak.DestructorError:
            pass  # of a value that an earlier round was struck before it could drop
    caught = storm(work, 2.5)
    for pointer, count in owners(one.instance, one.segment_values).items():
        assert externref_boxes.strong_count(pointer) >= count, (hex(pointer), count)
    assert not one.instance.activations_table._collecting
    healthy()
    while one.global_.value is not None:
        try:
            one.global_.value = None
        except soak.DestructorError:
            pass
    before = sum(one.outcomes.values())
    for _ in range(80): one.round(6)
    assert sum(one.outcomes.values()) == before + 80
    left = one.settle()
    assert left["activations"] == 0
    print(caught)
    """
        )
        assert int(done.stdout) > 200
