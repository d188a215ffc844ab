"""``build-library``: a shared object that other tools load by name, without Python."""

import os
import platform
import shutil
import signal
import stat
import struct
import sys

import pytest
from child_process import run_program, run_python
from command_line import run
from elf_files import ElfFile

from asm_libcalls import TrapCode
from asm_libcalls.cli import main
from asm_libcalls.integrations.numeric import NUMERIC
from asm_libcalls.libcalls import DECLARATIONS

ON_MEMORIES = {
    "memory_copy", "memory_fill", "imported_memory_fill", "memory_init", "data_drop",
    "memory32_size", "imported_memory32_size",
}  # fmt: skip
SYMBOLS = {DECLARATIONS[name].symbol for name in {*NUMERIC, *ON_MEMORIES}}
LEVELS = ("x86-64-v2", "x86-64-v3", "x86-64-v4", "native")


@pytest.fixture(scope="session")
def libraries(tmp_path_factory, machine_code):
    """A library for each level, and the header."""
    pytest.importorskip("peachpy", reason="there is nothing to assemble a library with")
    folder = tmp_path_factory.mktemp("libraries")
    for level in LEVELS:
        words = ["build-library", str(folder / f"{level}.so"), "--cpu-level", level]
        assert main([*words, "--header", str(folder / "libcalls.h")]) == 0
    return folder


@pytest.fixture(params=["x86-64-v2", "native"])
def library(request, libraries):
    """A library that this CPU runs."""
    return libraries / f"{request.param}.so"


@pytest.mark.parametrize("level", LEVELS)
def test_what_is_in_it(level, libraries):
    path = libraries / f"{level}.so"
    elf = ElfFile(path.read_bytes())
    exported = {symbol.name for symbol in elf.symbols(".dynsym")}
    assert exported == {*SYMBOLS, "asm_libcalls_set_trap_handler"}
    header = (libraries / "libcalls.h").read_text()
    assert all(f" {symbol}(" in header for symbol in exported)
    assert elf.soname() == f"{level}.so"
    if level != "native":
        *_, bits, _ = struct.unpack("<8I", elf.data(".note.gnu.property"))
        assert bits == (1 << int(level[-1])) - 1
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


NUMBERS = """
import ctypes, os, struct, sys
from edge_tables import all_rows

library = ctypes.CDLL(PATH)
NAMES = {"f32": ctypes.c_float, "f64": ctypes.c_double, "i64": ctypes.c_uint64}
FORMATS = {"f32": ("<I", "<f"), "f64": ("<Q", "<d"), "i64": ("<Q", "<Q")}

def function(name):
    found = library["wasmtime_" + name]
    kind = name[:3]
    found.restype = NAMES[kind]
    found.argtypes = [NAMES[kind]] * (2 if kind == "i64" else 1)
    return found

def call(row):
    bits, value = FORMATS[row.libcall[:3]]
    operands = [struct.unpack(value, struct.pack(bits, o))[0] for o in row.operands]
    result = function(row.libcall)(*operands)
    return struct.unpack(bits, struct.pack(value, result))[0]
"""


def test_every_row_of_the_edge_tables(library, child):
    done = child(
        f"PATH = {str(library)!r}\n"
        + NUMBERS
        + """
called = set()
for row in all_rows():
    if isinstance(row.expected, int):
        got = call(row)
        assert got == row.expected, (row, hex(got))
        called.add(row.libcall)
assert "asm_libcalls" not in sys.modules
print(*sorted(called))
"""
    )
    assert set(done.stdout.split()) == set(NUMERIC)


def test_every_trap_of_the_edge_tables(library, child):
    """With a handler, which gets the code; without one, and where it returns, SIGILL."""
    done = child(
        f"PATH = {str(library)!r}\n"
        + NUMBERS
        + """
import faulthandler, signal
faulthandler.disable()
HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_uint32)
leave = HANDLER(lambda code: os._exit(100 + code))
come_back = HANDLER(lambda code: None)
set_handler = library.asm_libcalls_set_trap_handler
set_handler.restype, set_handler.argtypes = ctypes.c_void_p, [ctypes.c_void_p]

def status_of(row, handler):
    pid = os.fork()
    if not pid:
        set_handler(handler)
        call(row)
        os._exit(0)
    return os.waitpid(pid, 0)[1]

address = ctypes.cast(leave, ctypes.c_void_p).value
assert set_handler(address) is None
assert set_handler(None) == address
for row in all_rows():
    if isinstance(row.expected, str):
        status = status_of(row, address)
        assert os.WIFEXITED(status), (row, status)
        print(row.libcall, row.expected, os.WEXITSTATUS(status) - 100)
        last = row
for handler in (None, ctypes.cast(come_back, ctypes.c_void_p).value):
    status = status_of(last, handler)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGILL, status
"""
    )
    lines = [line.split() for line in done.stdout.splitlines()]
    assert {name for name, _, _ in lines} == {"i64_sdiv", "i64_srem", "i64_udiv", "i64_urem"}
    assert {code for _, code, _ in lines} == {"INTEGER_DIVISION_BY_ZERO", "INTEGER_OVERFLOW"}
    assert all(int(number) == TrapCode[code] for _, code, number in lines)


def test_memories_on_a_vmctx_made_by_hand(library, child):
    """While the package itself is the fallback: none of its machine code is loaded."""
    code = f"""
    import ctypes, os
    import memory_cases
    from asm_libcalls.binding import default_binding
    from raw_vmcontext import GuardedPages, RawVMContext

    assert default_binding().x86_64 is None
    library = ctypes.CDLL({str(library)!r})

    class Loaded:
        def routine(self, name):
            return ctypes.cast(library["wasmtime_" + name], ctypes.c_void_p).value

    loaded = Loaded()
    sizes = (0, 1, 7, 16, 31, 64, 129, 1000, 5000)
    print(memory_cases.check_copies(loaded, sizes, (0, 3), (0, 1, 17, 64)))
    print(memory_cases.check_fills(loaded, sizes, (0, 5)))

    pages, segment = GuardedPages(1 << 17), ctypes.create_string_buffer(b"0123456789", 10)
    memory = (pages.address, 1 << 17)
    context = RawVMContext([memory, memory], 1, [(ctypes.addressof(segment), 10)])
    functions = {{
        name: memory_cases.function(loaded, name)
        for name in ("memory_init", "data_drop", "memory32_size", "imported_memory32_size",
                     "imported_memory_fill")
    }}
    assert functions["memory32_size"](context.vmctx, 0) == 2
    assert functions["imported_memory32_size"](context.vmctx, 0) == 2
    functions["imported_memory_fill"](context.vmctx, 0, 5, 0x161, 3)
    assert pages.read(4, 5) == b"\\0aaa\\0"
    functions["memory_init"](context.vmctx, 0, 0, 100, 2, 5)
    assert pages.read(99, 7) == b"\\00023456\\0"[:7], pages.read(99, 7)
    functions["data_drop"](context.vmctx, 0)
    assert context.segments[0].length == 0

    long = GuardedPages(3 << 20)  # so long that elsewhere the GIL is released
    context = RawVMContext([(long.address, 3 << 20)])
    memory_cases.function(loaded, "memory_fill")(context.vmctx, 0, 1, 7, (3 << 20) - 2)
    assert long.read() == bytes([0, *[7] * ((3 << 20) - 2), 0])
    memory_cases.function(loaded, "memory_copy")(context.vmctx, 0, 0, 0, 1 << 20, 2 << 20)
    assert long.read(0, 2) == bytes([7, 7]) and long.read((2 << 20) - 2, 2) == bytes([7, 0])

    context = RawVMContext([memory, memory], 1, [(ctypes.addressof(segment), 0)])
    leave = ctypes.CFUNCTYPE(None, ctypes.c_uint32)(lambda code: os._exit(40 + code))
    library.asm_libcalls_set_trap_handler(leave)
    functions["memory_init"](context.vmctx, 0, 0, 100, 2, 5)  # dropped: out of bounds
    """
    status = 40 + TrapCode.HEAP_OUT_OF_BOUNDS
    done = child(code, variables={"ASM_LIBCALLS_BACKEND": "fallback"}, exit_status=status)
    assert all(int(line) > 30 for line in done.stdout.split())


@pytest.mark.parametrize(
    ("cpu", "level", "loads"),
    [
        ("Nehalem", "x86-64-v2", True),
        ("Nehalem", "x86-64-v3", False),
        ("Haswell", "x86-64-v3", True),
        ("Haswell", "x86-64-v4", False),
    ],
)
def test_a_cpu_that_can_not_run_it_does_not_load_it(cpu, level, loads, libraries, child):
    """So says glibc, from 2.33 on, instead of an illegal instruction somewhere."""
    qemu = shutil.which("qemu-x86_64-static") or shutil.which("qemu-x86_64")
    if qemu is None:
        pytest.skip("no qemu-x86_64-static: install Debian's package qemu-user-static")
    name, version = platform.libc_ver()
    if name != "glibc" or tuple(map(int, version.split("."))) < (2, 33):
        pytest.skip(f"{name} {version} does not look")
    done = child(
        f"""
        import ctypes
        try:
            ceil = ctypes.CDLL({str(libraries / f"{level}.so")!r}).wasmtime_f64_ceil
        except OSError as error:
            print(error)
        else:
            ceil.restype = ctypes.c_double
            print(ceil(ctypes.c_double(1.5)))
        """,
        command=[qemu, "-cpu", cpu, sys.executable],
        timeout=300,
    )
    assert done.stdout.endswith("2.0\n" if loads else "CPU ISA level is lower than required\n")


C_PROGRAM = """
#include "libcalls.h"
#include <setjmp.h>
#include <stdio.h>

static jmp_buf landing;
static void handler(uint32_t code) { longjmp(landing, (int)code); }

int main(void) {
    int code;
    asm_libcalls_set_trap_handler(handler);
    printf("%g %lld\\n", wasmtime_f64_nearest(2.5), (long long)wasmtime_i64_sdiv(-7, 2));
    code = setjmp(landing);
    if (code == 0) {
        wasmtime_i64_sdiv(1, 0);
        return 1;
    }
    return code == ASM_LIBCALLS_TRAP_INTEGER_DIVISION_BY_ZERO ? 0 : 2;
}
"""

CPP_PROGRAM = """
#include "libcalls.h"
#include <cstdio>

struct Trap { uint32_t code; };

static void handler(uint32_t code) { throw Trap{code}; }

int main() {
    asm_libcalls_set_trap_handler(handler);
    std::printf("%g %lld\\n", wasmtime_f64_nearest(2.5), (long long)wasmtime_i64_sdiv(-7, 2));
    try {
        wasmtime_i64_sdiv(INT64_MIN, -1);
    } catch (const Trap &trap) {
        return trap.code == ASM_LIBCALLS_TRAP_INTEGER_OVERFLOW ? 0 : 2;
    }
    return 1;
}
"""


@pytest.mark.parametrize(
    ("compiler", "name", "program"),
    [("gcc", "program.c", C_PROGRAM), ("g++", "program.cc", CPP_PROGRAM)],
    ids=["C", "C++"],
)
def test_linked_into_a_program(compiler, name, program, library, tmp_path):
    """The handler leaves by longjmp; by an exception, which unwinds our frames."""
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler}")
    (tmp_path / name).write_text(program)
    options = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-O1", f"-I{library.parent}"]
    run_program(
        *(compiler, *options, name, library, f"-Wl,-rpath,{library.parent}", "-o", "program"),
        folder=tmp_path,
    )
    needed = ElfFile((tmp_path / "program").read_bytes()).needed()
    assert library.name in needed  # by its name, wherever it is
    assert run_program(tmp_path / "program").stdout == "2 -3\n"


def test_cffi_loads_it(library):
    cffi = pytest.importorskip("cffi")
    ffi = cffi.FFI()
    ffi.cdef("double wasmtime_f64_nearest(double); int64_t wasmtime_i64_srem(int64_t, int64_t);")
    loaded = ffi.dlopen(str(library))
    assert loaded.wasmtime_f64_nearest(2.5) == 2.0
    assert loaded.wasmtime_i64_srem(-(2**63), -1) == 0


def test_llvmlite_loads_it(library, child):
    pytest.importorskip("llvmlite")
    child(
        f"""
        import ctypes
        import llvmlite.binding as llvm
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        llvm.load_library_permanently({str(library)!r})
        module = llvm.parse_assembly('''
            declare double @wasmtime_f64_nearest(double)
            define double @twice(double %x) {{
                %y = call double @wasmtime_f64_nearest(double %x)
                %z = fadd double %y, %y
                ret double %z
            }}
        ''')
        machine = llvm.Target.from_default_triple().create_target_machine()
        engine = llvm.create_mcjit_compiler(module, machine)
        engine.finalize_object()
        twice = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(
            engine.get_function_address("twice")
        )
        assert twice(2.5) == 4.0
        """
    )


def test_a_file_that_is_in_use_is_replaced_and_not_changed(libraries, child, tmp_path):
    path = tmp_path / "libcalls.so"
    shutil.copy(libraries / "x86-64-v2.so", path)
    child(
        f"""
        import ctypes
        from asm_libcalls.cli import main
        library = ctypes.CDLL({str(path)!r})
        library.wasmtime_f64_ceil.restype = ctypes.c_double
        library.wasmtime_f64_ceil.argtypes = [ctypes.c_double]
        assert main(["build-library", {str(path)!r}]) == 0
        assert library.wasmtime_f64_ceil(1.5) == 2.0
        """
    )
    assert [each.name for each in tmp_path.iterdir()] == ["libcalls.so"]


def test_it_is_the_same_each_time(libraries, tmp_path, capsys):
    path = tmp_path / "x86-64-v3.so"  # the name is in it
    assert main(["build-library", str(path), "--cpu-level", "x86-64-v3"]) == 0
    content = path.read_bytes()
    assert content == (libraries / "x86-64-v3.so").read_bytes()
    variables = {"ASM_LIBCALLS_CACHE": str(tmp_path / "cache")}
    for _ in range(2):  # kept, and from the cache
        words = ["build-library", str(path), "--cpu-level", "x86-64-v3"]
        run_python("-m", "asm_libcalls", *words, variables=variables)
        assert path.read_bytes() == content
    out = capsys.readouterr().out
    assert out == f"{path}: 22 libcalls for x86-64-v3, {len(content)} bytes\n"


def test_where_nothing_can_be_written(libraries, tmp_path, capsys):
    assert main(["build-library", str(tmp_path / "nowhere" / "a.so")]) == 2
    assert "cannot be written: No such file or directory" in capsys.readouterr().err
    (tmp_path / "folder.so").mkdir()
    assert main(["build-library", str(tmp_path / "folder.so")]) == 2
    assert "cannot be written: Is a directory" in capsys.readouterr().err
    assert [each.name for each in tmp_path.iterdir()] == ["folder.so"]


@pytest.mark.parametrize("old", [None, b"an older library"])
@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("nowhere/a.h", "a.h cannot be written: No such file or directory"),
        ("folder", "folder cannot be written: Is a directory"),
        ("a.so", "a.so cannot be both the library and the header"),
        ("folder/../a.so", "cannot be both the library and the header"),
    ],
)
def test_a_header_that_cannot_be_written_leaves_no_library(
    old, header, message, libraries, tmp_path, capsys
):
    (tmp_path / "folder").mkdir()
    path = tmp_path / "a.so"
    if old:
        path.write_bytes(old)
    assert main(["build-library", str(path), "--header", str(tmp_path / header)]) == 2
    assert message in capsys.readouterr().err
    assert {each.name for each in tmp_path.iterdir()} == {"folder", *(["a.so"] if old else [])}
    assert not old or path.read_bytes() == old


def test_a_library_that_cannot_be_written_leaves_no_header(libraries, tmp_path, capsys):
    (tmp_path / "folder").mkdir()
    words = ["build-library", str(tmp_path / "folder"), "--header", str(tmp_path / "a.h")]
    assert main(words) == 2
    assert "folder cannot be written: Is a directory" in capsys.readouterr().err
    assert [each.name for each in tmp_path.iterdir()] == ["folder"]


def test_without_an_assembler(tmp_path):
    done = run("build-library", str(tmp_path / "a.so"), without=("peachpy",))
    assert (done.returncode, done.stdout) == (4, "")
    assert "no library can be made: PeachPy is not installed" in done.stderr
    done = run("build-library", str(tmp_path / "a.so"), "--cpu-level", "native",
               without=("peachpy",))  # fmt: skip
    assert done.returncode == 4
    assert "name a level with --cpu-level" in done.stderr
    assert not (tmp_path / "a.so").exists()


def test_the_fallback_can_write_it_too(libraries, tmp_path):
    """The levels are about the CPU that runs it, not about this process."""
    path = tmp_path / "x86-64-v2.so"
    words = [sys.executable, "-m", "asm_libcalls", "build-library", str(path)]
    run_program(*words, variables={"ASM_LIBCALLS_BACKEND": "fallback"})
    assert path.read_bytes() == (libraries / "x86-64-v2.so").read_bytes()


# LLVM's libcalls.


@pytest.fixture(scope="module")
def llvm_library(tmp_path_factory, machine_code):
    pytest.importorskip("peachpy", reason="there is nothing to assemble a library with")
    path = tmp_path_factory.mktemp("llvm") / "runtime.so"
    header = path.with_suffix(".h")
    assert main(["build-library", str(path), "--table", "llvm", "--header", str(header)]) == 0
    return path


def test_llvm_s_libcalls_have_compiler_rt_s_names(llvm_library):
    from asm_libcalls import llvm

    elf = ElfFile(llvm_library.read_bytes())
    exported = {symbol.name for symbol in elf.symbols(".dynsym")}
    assert exported == set(llvm.symbols())
    compiler = shutil.which("cc")
    if compiler is not None:
        header = llvm_library.with_suffix(".h")
        text = "#if !defined(__clang__) && __GNUC__ < 13\n#define __bf16 _Float16\n#endif\n"
        header.write_text(text + header.read_text())
        command = [compiler, "-x", "c", "-Wall", "-Werror", "-fsyntax-only", str(header)]
        run_program(*command)


def test_llvm_s_libcalls_work_and_divide_by_zero(llvm_library, child):
    done = child(
        f"""
        import ctypes, resource
        from asm_libcalls import catch_traps, llvm

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        library = ctypes.CDLL({str(llvm_library)!r})
        calls = {{
            name: catch_traps(
                ctypes.cast(getattr(library, libcall.symbol), ctypes.c_void_p).value,
                libcall.signature,
            )
            for name, libcall in llvm.LIBCALLS.items()
        }}
        from asm_libcalls.checks.engine import checker_of

        for name, libcall in llvm.LIBCALLS.items():
            cases = list(checker_of(libcall).edge_cases(libcall))
            ours, theirs = bytearray(16), bytearray(16)
            stores = libcall.signature.parameters[-1].kind == "pointer"
            for case in cases[:: len(cases) // 50 + 1]:
                if not libcall.declaration.traps or case[1]:
                    address = ctypes.addressof(ctypes.c_char.from_buffer(ours))
                    got = calls[name].call_bits(*case, *[address] * stores)
                    wanted = libcall.fallback.call_bits(*case, *[theirs] * stores)
                    assert (got, ours) == (wanted, theirs), (name, case)
        print(calls["divti3"](-(2**100), 7), calls["truncdfhf2"](1.1), flush=True)
        calls["udivti3"](1, 0)
        """,
        exit_status=-signal.SIGFPE,
    )
    assert done.stdout == f"{-(2**100 // 7)} 1.099609375\n"


IN_PLACE_OF_LIBGCC = """
#include <stdio.h>
typedef __int128 i128;

int main(int count, char **arguments) {
    volatile i128 a = -((i128)1 << 100), b = 6 + count;
    volatile double d = 1e30;
    volatile float f = 2.5f;
    i128 q = a / b, r = a % b, n = (i128)-d;
    unsigned __int128 u = (unsigned __int128)d;
    printf("%lx %lx %ld ", (long)(q >> 64), (long)q, (long)r);
    printf("%lx %lx %g %g\\n", (long)(u >> 64), (long)n, (double)a, __builtin_powi(f, 1 + count));
    return 0;
}
"""


def test_a_compiler_links_it_in_place_of_libgcc(llvm_library, tmp_path):
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    source, program = tmp_path / "program.c", tmp_path / "program"
    source.write_text(IN_PLACE_OF_LIBGCC)
    options = ["-O1", "-nodefaultlibs", f"-Wl,-rpath,{llvm_library.parent}"]
    command = [compiler, *options, source, "-o", program, llvm_library, "-lc"]
    run_program(*command)
    done = run_program(program)
    quotient, remainder, large = -(2**100 // 7), -(2**100 % 7), int(1e30)
    words = (quotient >> 64) % 2**64, quotient % 2**64
    expected = f"{words[0]:x} {words[1]:x} {remainder} {large >> 64:x} {-large % 2**64:x}"
    assert done.stdout == f"{expected} {float(-(2**100)):g} 6.25\n"
