"""The C library and gdb walk through the frames of all our code, cached and composed."""

import os
import shutil
import subprocess
import sys

import pytest
from child_process import environment, run_program

from asm_libcalls.x86_64.python_functions import object_layouts

pytestmark = pytest.mark.usefixtures("machine_code")

PROGRAM = """
import ctypes, os, signal, sys, time
now = time.time
time.time = lambda: now() + 10  # the sources may have been changed just now: the cache takes images
import asm_libcalls
from asm_libcalls.emitter import code_names; from asm_libcalls import toy_jit
from jit_modules import Function, instantiate

libc = ctypes.CDLL(None)

def backtrace(*_):
    addresses = (ctypes.c_void_p * 200)()
    return addresses[: libc.backtrace(addresses, 200)]

seen = []

def host(n):
    seen.append(backtrace())
    return n + 1

instance = instantiate(
    {
        "ask": Function("i64 -> i64", "local.get 00 call 00 i64.const 01 i64.add"),
        "fib": Function("i32 -> i32", "local.get 00 i32.const 02 i32.lt_s if 7f local.get 00 else "
            "local.get 00 i32.const 01 i32.sub call 02 local.get 00 i32.const 02 i32.sub call 02 "
            "i32.add end"),
        "half": Function("i64 i64 -> i64", "local.get 00 local.get 01 i64.div_s"),
        "pair": Function("i64 -> i64 i64", "local.get 00 local.get 00 call 00"),
        "never": Function("->", "unreachable"),
    },
    {"host": "i64 -> i64"},
    {"host": host},
)
host_function = asm_libcalls.HostFunction(host, "(i64) -> i64")
call = asm_libcalls.native_function(host_function.address, "(i64) -> i64")
caught = asm_libcalls.catch_traps(host_function.address, "(i64) -> i64")
# (pointer, divisor): i64_sdiv(7, divisor)
sdiv = asm_libcalls.LIBCALLS["i64_sdiv"].address
divide = asm_libcalls.native_function(
    asm_libcalls.load_code(bytes.fromhex("bf07000000 48b8") + sdiv.to_bytes(8, "little") +
    bytes.fromhex("ffe0")), "(const pointer, i64) -> i64")

def run_all():
    for memory, divisor in ((b"bytes", 2), (bytearray(5), 0), (None, 2), (b"", True), ("", 2)):
        try:
            assert divide(memory, divisor) in (3, 7)
        except (asm_libcalls.Trap, TypeError):
            pass
    for _ in range(3):  # an export is an adapter from its second call on
        assert instance.exports["ask"](40) == 42
        assert instance.exports["fib"](5) == 5
        assert instance.exports["half"](9, 2) == 4
        assert instance.exports["pair"](3) == (3, 4)
    assert call(41) == 42
    assert call(True) == 2
    assert caught(41) == 42
    assert asm_libcalls.i64_sdiv(-7, 2) == -3
    assert asm_libcalls.f64_ceil(0.5) == 1.0
    assert asm_libcalls.f64_ceil(1) == 1.0
    with asm_libcalls.Instance(memories=[asm_libcalls.Memory(1)]) as memory:
        asm_libcalls.memory_fill(memory, 0, 0, 1, 9)
        memory.vmctx
    instance.interrupt()
    for name, arguments in (("fib", (5,)), ("half", (1, 0)), ("never", ())):
        try:
            instance.exports[name](*arguments)
        except asm_libcalls.Trap:
            pass

run_all()
"""

WALKED = """
def functions():
    return [function for source in list(code_names.sources.values()) for function in source()]

def name_of(address):
    for at, size, name, _ in functions():
        if at < address <= at + size:
            return name
    return ""

bottom = backtrace()[-3:]  # main and what calls it
assert len(bottom) == 3
names = []
for walked in seen:
    assert walked[-3:] == bottom, list(map(name_of, walked))
    names.append([name for name in map(name_of, walked) if name])
assert [len(walked) > 12 for walked in seen] == [True] * len(seen)
sys.stdout.flush()
libc.backtrace_symbols_fd((ctypes.c_void_p * len(seen[0]))(*seen[0]), len(seen[0]), 1)
print("names:")
print(*sorted({name.split(" ")[0] for each in names for name in each}), sep="\\n")
print(asm_libcalls.backend_report()["unwinder"])
"""


def has_backtrace():
    import ctypes

    return hasattr(ctypes.CDLL(None), "backtrace")


@pytest.mark.parametrize("cache", ["off", "filled", "perf"])
def test_the_c_library_walks_from_a_callback_to_main(child, tmp_path, cache):
    if not has_backtrace():
        pytest.skip("the C library has no backtrace")
    variables = {"ASM_LIBCALLS_CACHE": "off" if cache == "off" else str(tmp_path / "cache")}
    if cache != "off":
        pytest.importorskip("peachpy", reason="there is nothing to fill a cache with")
        child(PROGRAM, variables=variables)
    if cache == "perf":  # the same images, in anonymous memory
        variables["ASM_LIBCALLS_PERF_MAP"] = "1"
    program = PROGRAM + WALKED
    if cache == "perf":
        program += "\nfrom asm_libcalls.integrations import perf\nos.unlink(perf.map_file())"
    done = child(program, variables=variables)
    shown, _, rest = done.stdout.partition("names:\n")
    if cache == "filled":  # the C library itself has the names
        assert f"{variables['ASM_LIBCALLS_CACHE']}/backend-" in shown
        assert ".image(asm_libcalls_call_python+" in shown
    *names, state = rest.splitlines()
    assert state == "code made at run time is registered"
    assert set(names) >= {
        "asm_libcalls::adapter", "asm_libcalls::builtin", "asm_libcalls_call_python", "wasm::ask",
        "wasm::pair", "asm_libcalls_toy_jit_enter",
    }  # fmt: skip


def test_code_that_is_gone_is_taken_back(child):
    """From the C library and from gdb; also when the garbage collector finds it."""
    child("""
        import ctypes, gc
        from asm_libcalls.integrations import gdb
        from asm_libcalls.emitter import register_frames as unwinder
        from jit_modules import Function, instantiate

        def symbol_files():
            found, at = [], debugger._descriptor.first
            previous = 0
            while at:
                entry = gdb._Entry.from_address(at)
                assert entry.previous == previous
                found.append(ctypes.string_at(entry.symbols, entry.size))
                previous, at = at, entry.next
            return found

        def make(name):
            return instantiate({name: Function("-> i32", "i32.const 01")})

        keep = make("keep")
        assert keep.exports["keep"]() == 1
        gdb.enable()
        gdb.enable()
        assert gdb.is_enabled()
        (debugger,), (known,) = gdb._enabled, unwinder._started
        count, files = len(known._registered), len(symbol_files())
        others = [make(f"other{i}") for i in range(5)]
        assert len(known._registered) == count + 5
        assert len(symbol_files()) == files + 5
        assert symbol_files()[0].count(b"wasm::other4") == 1
        del others[2]
        gc.collect()
        assert len(symbol_files()) == files + 4
        assert not any(b"other2" in each for each in symbol_files())
        others[0].cycle = others  # for the collector
        del others
        gc.collect()
        assert len(known._registered) == count
        assert len(symbol_files()) == files
        assert any(b"wasm::keep" in each for each in symbol_files())
    """)


def test_code_that_goes_while_other_code_is_registered(child):
    """The collector may run anywhere, in any thread."""
    child("""
        import gc, threading
        from asm_libcalls.integrations import gdb
        from asm_libcalls.emitter import register_frames as unwinder
        from jit_modules import Function, build
        from asm_libcalls import toy_jit

        wasm = build({f"f{i}": Function("-> i32", "i32.const 01") for i in range(5)})
        toy_jit.Module(wasm)
        gdb.enable()
        (known,) = unwinder._started
        before = len(known._registered)
        gc.set_threshold(20)

        def work():
            for _ in range(150):
                module = toy_jit.Module(wasm)
                module.cycle = [module] if hasattr(module, "__dict__") else None

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        gc.set_threshold(700)
        gc.collect()
        assert len(known._registered) == before, (len(known._registered), before)
        assert len(gdb._enabled[0]._registered) == len(known._registered)
    """)


def test_symbol_files(tmp_path):
    """What gdb is given, read by elfutils."""
    from elf_files import ElfFile

    from asm_libcalls.emitter import elf_object

    functions = [(0x1000, 40, "wasm::one two", b"\x44\x0e\x10"), (0x1040, 8, "two", b"")]
    content = elf_object.write_symbols(functions)
    elf = ElfFile(content)
    text = elf.section(".text")
    assert (elf.type, text.address, text.size) == (2, 0x1000, 0x48)
    symbols = [(s.name, s.address, s.size, s.kind) for s in elf.symbols(".symtab")]
    assert symbols == [("wasm::one two", 0x1000, 40, 2), ("two", 0x1040, 8, 2)]
    if shutil.which("eu-readelf") is None:
        pytest.skip("no eu-readelf")
    file = tmp_path / "symbols"
    file.write_bytes(content)
    shown = run_program("eu-readelf", "--debug-dump=frames", file).stdout
    for line in ("initial_location:         0x0000000000001000", "def_cfa_offset 16"):
        assert line in shown, shown
    assert shown.count("FDE") == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("del os.memfd_create", "no memfd_create"),
        (
            "from asm_libcalls.emitter import availability\n"
            "def check(): raise availability.Unavailable('this is a toaster')\n"
            "availability.check_machine = check",
            "gdb: this is a toaster",
        ),
        ("os.write = refuse", "disk full"),
    ],
)
def test_what_gdb_needs_is_refused(child, change, message):
    child(f"""
        import os, pytest
        from asm_libcalls.integrations import gdb
        def refuse(*_): raise OSError("disk full")
        gdb._program = lambda: None  # the symbols are not in the program, as they are from 3.15 on
        files = len(os.listdir("/proc/self/fd"))
        exec({change!r})
        with pytest.raises(OSError, match={message!r}):
            gdb.enable()
        assert not gdb.is_enabled()
        with pytest.warns(RuntimeWarning, match={"no names for gdb: .*" + message!r}):
            gdb.enable_or_warn()
        assert len(os.listdir("/proc/self/fd")) == files
        """)


@pytest.mark.parametrize(("value", "enabled"), [("1", True), ("0", False), ("", False)])
def test_gdb_is_asked_for_by_the_environment(child, value, enabled):
    child(
        f"""
        import sys
        import asm_libcalls
        module = sys.modules.get("asm_libcalls.integrations.gdb")
        assert (module is not None and module.is_enabled()) is {enabled}
        """,
        variables={"ASM_LIBCALLS_GDB": value},
    )


def test_without_libgcc_nothing_is_registered(child):
    done = child("""
        import ctypes
        load = ctypes.PyDLL
        class Refusing(load):
            def __init__(self, name, *arguments, **options):
                if name == "libgcc_s.so.1":
                    raise OSError("libgcc_s.so.1: no such file")
                super().__init__(name, *arguments, **options)
        ctypes.PyDLL = Refusing
        import asm_libcalls
        host = asm_libcalls.HostFunction(lambda n: n + 1, "(i64) -> i64")
        assert asm_libcalls.native_function(host.address, "(i64) -> i64")(41) == 42
        print(asm_libcalls.backend_report()["unwinder"])
    """)
    assert "no such file" in done.stdout


SIGNALLED = """
import json
from asm_libcalls.integrations import gdb
gdb.enable()
with open(FILE, "w") as file:
    json.dump([(at, size, name) for source in list(code_names.sources.values())
               for at, size, name, _ in source() if size], file)
os.kill(os.getpid(), signal.SIGUSR1)
for _ in range(30):
    run_all()
"""

GDB = """
import json, re
import gdb

gdb.execute("set pagination off")
gdb.execute("set confirm off")
gdb.execute("set breakpoint pending off")
gdb.execute("handle SIGUSR1 stop nopass", to_string=True)
gdb.execute("run", to_string=True)  # to the signal: the code is there

def name_of(pc):
    found = gdb.execute(f"info symbol {pc:#x}", to_string=True)
    return re.split(r" \\+ | in section ", found)[0].strip()

def frames():
    found, frame = [], gdb.newest_frame()
    while frame is not None and len(found) < 300:
        found.append(frame.name())
        frame = frame.older()
    return found

def caller():
    frame = gdb.newest_frame().older()
    return [frame.pc()] + [int(frame.read_register(name)) for name in ("rsp", "rbp")]

def kept():
    frame = gdb.newest_frame().older()
    return [int(frame.read_register(name)) for name in ("rbx", "r12", "r13", "r14", "r15")]

with open(FILE) as file:
    functions = json.load(file)
waiting = {}
for at, size, name in functions:
    if name.startswith(PREFIXES):
        waiting[at] = size, name, gdb.Breakpoint(f"*{at:#x}")
while True:
    gdb.execute("continue", to_string=True)
    try:
        at = pc = int(gdb.newest_frame().pc())
    except gdb.error:
        break  # it ended
    size, name, breakpoint = waiting[at]
    if breakpoint.hit_count >= CALLS:
        breakpoint.delete()
    top = int(gdb.newest_frame().read_register("rsp"))
    assert name_of(at) == name, (name_of(at), name)
    assert frames()[-1] == "_start", (name, frames())
    known, steps = caller(), 0
    keeps = not name.startswith("wasm::")
    registers = kept() if keeps else None
    # Up to the return, or the jump to where it goes on.
    while at <= pc < at + size and int(gdb.newest_frame().read_register("rsp")) <= top:
        assert caller() == known, (name, hex(pc - at), caller(), known)
        assert not keeps or kept() == registers, (name, hex(pc - at))
        gdb.execute("nexti", to_string=True)
        pc = int(gdb.newest_frame().pc())
        steps += 1
    print("walked", steps, name)
"""

PREFIXES = (
    "asm_libcalls::adapter", "asm_libcalls::builtin ", "asm_libcalls_call_python",
    "asm_libcalls_enter", "asm_libcalls_toy_jit_enter", "wasm::", "wasmtime_i64_sdiv",
)  # fmt: skip


SPINNING = """
from asm_libcalls.integrations import gdb
address = asm_libcalls.load_code(bytes.fromhex("55 4889e5 ebfe"), {"my_jit::spin": (0, 6)})
gdb.enable()
print(address + 4, flush=True)  # the jump to itself
asm_libcalls.catch_traps(address, "()")()
"""


def run_gdb(tmp_path, program, script, **variables):
    if shutil.which("gdb") is None:
        pytest.skip("no gdb")
    file = tmp_path / "functions.json"
    names = f"FILE = {str(file)!r}\n"
    (tmp_path / "program.py").write_text(names + program)
    (tmp_path / "script.py").write_text(names + script)
    done = run_program(
        *("gdb", "-nx", "-batch", "-x", tmp_path / "script.py"),
        *("--args", sys.executable, tmp_path / "program.py"),
        variables={"LC_ALL": "C.UTF-8", **variables},
        exit_status=None,
    )
    if "ptrace: Operation not permitted" in done.stderr:
        pytest.skip("this system does not allow ptrace")
    return done


@pytest.mark.parametrize("cache", ["off", "filled"])
def test_gdb_walks_through_all_code(child, tmp_path, cache):
    """At every instruction of it: the caller is what it was at the first one."""
    folder = "off"
    if cache == "filled":
        pytest.importorskip("peachpy", reason="there is nothing to fill a cache with")
        folder = str(tmp_path / "cache")
        child(PROGRAM, variables={"ASM_LIBCALLS_CACHE": folder})
    script = f"PREFIXES, CALLS = {PREFIXES}, 1\n" + GDB
    done = run_gdb(tmp_path, PROGRAM + SIGNALLED, script, ASM_LIBCALLS_CACHE=folder)
    walked = [line.split(" ", 2)[1:] for line in done.stdout.splitlines() if line[:6] == "walked"]
    layout = object_layouts.found()
    steps = {}
    for count, name in walked:
        steps[name] = steps.get(name, 0) + int(count)
    assert steps.keys() >= {
        "wasm::ask", "wasm::fib", "wasm::half", "wasm::pair", "wasm::interrupt",
        "wasm::trap UNREACHABLE_CODE_REACHED",
        "asm_libcalls::adapter (i64)", "asm_libcalls::adapter (i64, i64)",
        "asm_libcalls::builtin (const pointer, i64) -> i64",
        "asm_libcalls::builtin (i64) -> i64", "asm_libcalls::builtin memory_fill",
        *(f"asm_libcalls::{layout.routine(name)}" for name in ("f64_ceil", "i64_sdiv")),
        "asm_libcalls_call_python", "asm_libcalls_enter", "asm_libcalls_enter_holding_gil",
        "asm_libcalls_toy_jit_enter", "wasmtime_i64_sdiv",
    }, done.stdout + done.stderr  # fmt: skip
    assert steps["asm_libcalls_enter"] > 50, steps
    assert steps["asm_libcalls_call_python"] > 60, steps
    assert sum(steps.values()) > 500


LLVM = """
import signal, os
from asm_libcalls import llvm
from asm_libcalls.emitter import code_names
from asm_libcalls.checks.engine import checker_of

def run_all():
    for libcall in llvm.LIBCALLS.values():
        cases = list(checker_of(libcall).edge_cases(libcall))
        stored = [bytearray(16)] * (libcall.signature.parameters[-1].kind == "pointer")
        cases = cases[:: len(cases) // 5][:5] + [(1, 0) if libcall.declaration.traps else cases[0]]
        for case in cases:
            try:
                libcall.call_bits(*case, *stored)
            except asm_libcalls.IntegerDivisionByZero:
                pass

import asm_libcalls
run_all()
"""


def test_gdb_walks_through_llvm_s_libcalls(tmp_path, machine_code):
    """At every instruction that some calls of each run, and up to a trap."""
    from asm_libcalls import llvm

    script = f"PREFIXES, CALLS = {tuple(llvm.symbols())}, 6\n" + GDB
    done = run_gdb(tmp_path, LLVM + SIGNALLED.replace("range(30)", "range(1)"), script)
    walked = [line.split()[1:] for line in done.stdout.splitlines() if line[:6] == "walked"]
    names = [name for _, name in walked]
    assert {name: names.count(name) for name in names} == dict.fromkeys(llvm.symbols(), 6), (
        done.stdout + done.stderr
    )
    assert sum(int(steps) for steps, _ in walked) > 2000


def test_gdb_is_attached_later():
    """And finds a JIT's own function, which has a frame pointer and a name."""
    if shutil.which("gdb") is None:
        pytest.skip("no gdb")
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM + SPINNING], env=environment(), stdout=subprocess.PIPE
    ) as process:
        try:
            address = int(process.stdout.readline())
            commands = ("set pagination off", f"tbreak *{address}", "continue", "backtrace")
            options = [word for command in commands for word in ("-ex", command)]
            done = run_program(
                *("gdb", "-nx", "-batch", "-p", process.pid, *options), exit_status=None
            )
        finally:
            process.kill()
    if "ptrace: Operation not permitted" in done.stderr:
        pytest.skip("this system does not allow ptrace")
    lines = [line for line in done.stdout.splitlines() if line.startswith("#")]
    assert " my_jit::spin ()" in lines[0], done.stdout + done.stderr
    assert any(" asm_libcalls_enter ()" in line for line in lines)
    assert " _start ()" in lines[-1]


BREAKPOINTS = """
import gdb

gdb.execute("set pagination off")
gdb.execute("set confirm off")
gdb.execute("set breakpoint pending on")
places = [gdb.Breakpoint(name) for name in ("wasmtime_i64_sdiv", "wasmtime_f64_ceil")]
gdb.execute("run", to_string=True)
for _ in range(20):
    try:
        gdb.newest_frame()
    except gdb.error:
        break  # it ended
    gdb.execute("continue", to_string=True)
print("hits:", *[place.hit_count for place in places])
"""

BROKEN_INTO = """
import time
now = time.time
time.time = lambda: now() + 10  # the cache takes images
import asm_libcalls
report = asm_libcalls.backend_report()["pages"]
with open(FILE, "w") as file:
    file.write(report)
divide = asm_libcalls.catch_traps(asm_libcalls.LIBCALLS["i64_sdiv"].address, "(i64, i64) -> i64")
for _ in range(3):
    assert divide(-7, 2) == -3
ceil = asm_libcalls.native_function(asm_libcalls.LIBCALLS["f64_ceil"].address, "(f64) -> f64")
assert ceil(0.5) == 1.0
for _ in range(5):
    assert asm_libcalls.f64_ceil(0.5) == 1.0  # a copy of the routine, without the breakpoint
"""


def test_breakpoints_that_are_set_before_the_program_starts(child, tmp_path):
    """gdb writes them while the library is loaded; that is no change of the file."""
    pytest.importorskip("peachpy", reason="there is nothing to fill a cache with")
    folder = str(tmp_path / "cache")
    child(
        f"FILE = {str(tmp_path / 'report')!r}\n{BROKEN_INTO}",
        variables={"ASM_LIBCALLS_CACHE": folder},
    )
    done = run_gdb(tmp_path, BROKEN_INTO, BREAKPOINTS, ASM_LIBCALLS_CACHE=folder)
    assert "hits: 3 1" in done.stdout, done.stdout + done.stderr
    assert (tmp_path / "functions.json").read_text().endswith("(library)")


CODE = bytes.fromhex("55 4889e5 8d0437 5d c3").ljust(64, b"\xcc")


@pytest.mark.parametrize(
    ("changes", "in_file", "complaint"),
    [
        ({}, b"", ""),
        ({0: 0xCC, 4: 0xCC}, CODE, ""),
        ({0: 0xCC, 4: 0xC3}, CODE, "1 bytes of code"),
        ({63: 0xC3}, CODE, "1 bytes of code"),
        ({0: 0xCC}, b"\xcc" + CODE[1:], "breakpoints in the file"),
        ({0: 0xCC}, b"", "breakpoints in the file"),
    ],
)
def test_differences_that_are_only_breakpoints_are_no_change(changes, in_file, complaint):
    import ctypes

    from asm_libcalls.emitter.open_file import check_mapped

    mapped = bytearray(CODE)
    for at, byte in changes.items():
        mapped[at] = byte
    buffer = ctypes.create_string_buffer(bytes(mapped), len(mapped))
    if complaint:
        with pytest.raises(OSError, match=complaint):
            check_mapped(ctypes.addressof(buffer), CODE, lambda: in_file)
    else:
        check_mapped(ctypes.addressof(buffer), CODE, lambda: in_file)


def test_the_report_says_why_the_library_was_left(child, tmp_path):
    """Another program replaces the file between the check and the load, for example."""
    pytest.importorskip("peachpy", reason="there is nothing to fill a cache with")
    variables = {"ASM_LIBCALLS_CACHE": str(tmp_path / "cache")}
    program = BROKEN_INTO.replace("FILE", repr(str(tmp_path / "report")))
    child(program, variables=variables)
    # A system without the function dlinfo.
    child(
        "import _ctypes\n"
        "class Function(_ctypes.CFuncPtr):\n"
        "    _flags_ = _ctypes.FUNCFLAG_CDECL\n"
        "    def __new__(cls, *arguments):\n"
        "        if isinstance(arguments[0], tuple) and arguments[0][0] == 'dlinfo':\n"
        "            raise AttributeError('no dlinfo here')\n"
        "        return super().__new__(cls, *arguments)\n"
        "_ctypes.CFuncPtr = Function\n" + program,
        variables=variables,
    )
    report = (tmp_path / "report").read_text()
    assert report.endswith("(file; no library: no dlinfo here)"), report


def test_a_probe_that_is_set_before_the_program_starts(child, tmp_path):
    """The kernel writes it, a uprobe, into each process that maps the file."""
    pytest.importorskip("peachpy", reason="there is nothing to fill a cache with")
    if shutil.which("perf") is None:
        pytest.skip("no perf")
    variables = {"ASM_LIBCALLS_CACHE": str(tmp_path / "cache"), "LC_ALL": "C.UTF-8"}
    program = BROKEN_INTO.replace("FILE", repr(str(tmp_path / "report")))
    child(program, variables=variables)
    (image,) = (tmp_path / "cache").glob("backend-*.image")
    event = f"asm_libcalls_test_{os.getpid()}:divide"

    def perf(*words):
        return run_program("perf", *words, variables=variables, exit_status=None)

    added = perf("probe", "-x", str(image), "--add", f"{event}=wasmtime_i64_sdiv")
    if added.returncode:
        pytest.skip(f"this system lets us set no probe: {added.stderr.strip().splitlines()[-1]}")
    try:
        counted = perf("stat", "-x,", "-e", event, sys.executable, "-c", program)
    finally:
        perf("probe", "--del", event)
    assert counted.returncode == 0, counted.stderr
    assert counted.stderr.splitlines()[-1].startswith("3,"), counted.stderr
    assert (tmp_path / "report").read_text().endswith("(library)")
