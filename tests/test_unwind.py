"""Frames of our routines: derived from their code, and walked through by gdb and the C library."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap

import pytest
from child_process import environment

from asm_libcalls.x86_64.eh_frame import ENTERED, Frame

# DWARF's numbers.
RBX, RBP, RSP, R12 = 3, 6, 7, 12


@pytest.fixture(scope="module")
def frames():
    pytest.importorskip("peachpy", reason="routines of tests are assembled by PeachPy")
    from asm_libcalls.x86_64.assembler import sequence

    def of(body, **options):
        return list(sequence("sample", body, **options).frames)

    return of


def test_a_leaf(frames):
    from peachpy.x86_64 import MOV, RET, rax, rdi

    def body():
        MOV(rax, rdi)
        RET()

    assert frames(body) == [(0, ENTERED)]
    assert frames(body, is_stencil=True) == []


def test_pushes_and_a_frame_pointer(frames):
    from peachpy.x86_64 import AND, LEA, MOV, POP, PUSH, RET, SUB, rax, rbx
    from peachpy.x86_64.registers import rbp, rsp

    def body():
        PUSH(rbp)  # 1 byte
        MOV(rbp, rsp)  # 3
        PUSH(rbx)  # 1
        SUB(rsp, rax)  # 3
        AND(rsp, -64)  # 4
        MOV(rbx, rax)  # 3
        LEA(rsp, [rbp - 8])  # 4
        POP(rbx)  # 1
        POP(rbp)  # 1
        RET()

    pushed = ((RBX, 24), (RBP, 16))
    assert frames(body) == [
        (0, ENTERED),
        (1, Frame(RSP, 16, ((RBP, 16),))),
        (4, Frame(RBP, 16, ((RBP, 16),))),
        (5, Frame(RBP, 16, pushed)),
        (20, Frame(RBP, 16, ((RBP, 16),))),
        (21, ENTERED),
    ]


def test_paths_that_meet(frames):
    """What stands behind a return has the frame of who jumps there."""
    from peachpy.x86_64 import ADD, JZ, LABEL, POP, PUSH, RET, SUB, UD2, Label, rbx
    from peachpy.x86_64.registers import rsp

    def body():
        other = Label("other")
        PUSH(rbx)  # 1
        SUB(rsp, 32)  # 4
        JZ(other)  # 2
        ADD(rsp, 32)  # 4
        POP(rbx)  # 1
        RET()  # 1
        LABEL(other)
        UD2()

    deep = Frame(RSP, 48, ((RBX, 16),))
    assert frames(body) == [
        (0, ENTERED),
        (1, Frame(RSP, 16, ((RBX, 16),))),
        (5, deep),
        (11, Frame(RSP, 16, ((RBX, 16),))),
        (12, ENTERED),
        (13, deep),
    ]


def test_paths_that_do_not_agree(frames):
    from peachpy.x86_64 import JZ, LABEL, PUSH, UD2, Label, rax

    def body():
        meet = Label("meet")
        JZ(meet)
        PUSH(rax)
        LABEL(meet)
        UD2()

    assert frames(body)[-1] == (3, Frame(None, 0))


def test_a_loop_that_is_entered_in_its_middle(frames):
    from peachpy.x86_64 import JMP, JNZ, LABEL, NOP, POP, PUSH, RET, Label, rbx

    def body():
        again, middle = Label("again"), Label("middle")
        PUSH(rbx)
        JMP(middle)
        LABEL(again)
        NOP()
        LABEL(middle)
        NOP()
        JNZ(again)
        POP(rbx)
        RET()

    assert frames(body) == [
        (0, ENTERED),
        (1, Frame(RSP, 16, ((RBX, 16),))),
        (8, ENTERED),
    ]


def test_what_is_lost_is_not_made_up(frames):
    from peachpy.x86_64 import MOV, POP, PUSH, RET, XOR, ebx, r12, rax, rbx
    from peachpy.x86_64.registers import rsp

    def body():
        MOV(r12, rsp)  # 3 bytes
        XOR(ebx, ebx)  # 2
        MOV(rsp, rax)  # 3
        MOV(r12, rax)  # 3
        RET()

    assert frames(body) == [
        (0, ENTERED),
        (3, Frame(RSP, 8, (), (R12,))),
        (5, Frame(RSP, 8, (), (RBX, R12))),
        (8, Frame(R12, 8, (), (RBX, R12))),
        (11, Frame(None, 0)),
    ]

    def popped_elsewhere():
        PUSH(rbx)
        MOV(rbx, rax)
        POP(rax)
        RET()

    assert frames(popped_elsewhere)[-1] == (5, Frame(RSP, 8, (), (RBX,)))


def test_no_routine_that_runs_loses_its_caller():
    """But for the raise, which gives frames up."""
    pytest.importorskip("peachpy", reason="there is nothing to assemble an image with")
    from asm_libcalls.x86_64.image import link
    from asm_libcalls.x86_64.images import IMAGES, LEVELS

    for name, kind in IMAGES.items():
        image = link(kind.assemble(LEVELS["x86-64-v4-erms"]))
        for routine, found in image.frames.items():
            lost = [offset for offset, frame in found if frame.register is None or frame.lost]
            assert not lost or routine == "asm_libcalls_raise_status", (name, routine, found)


@pytest.fixture
def cache(tmp_path):
    """A cache folder with the images that a program uses."""
    pytest.importorskip("peachpy", reason="there is nothing to fill a cache with")
    return tmp_path / "cache"


PROGRAM = """
import ctypes, os, sys, time
now = time.time
time.time = lambda: now() + 10  # the sources may have been changed just now
import asm_libcalls
from asm_libcalls.x86_64 import code_cache
from asm_libcalls.x86_64 import native_loops

def main(what):
    backend = asm_libcalls._binding.x86_64
    if backend.loaded.way != "library":
        print("not loaded from a file:", backend.loaded.way, code_cache.refusals)
        return
    host = asm_libcalls.HostFunction(lambda n: what() or n + 1, "(i64) -> i64")
    print(asm_libcalls.catch_traps(host.address, "(i64) -> i64")(41))
    print(asm_libcalls.native_function(host.address, "(i64) -> i64")(41))
    enter = asm_libcalls.catch_traps(asm_libcalls.LIBCALLS["i64_sdiv"].address, "(i64, i64) -> i64")
    print(enter(-7, 2))
    try:
        enter(1, 0)
    except asm_libcalls.IntegerDivisionByZero:
        print("trapped")
"""

BACKTRACE = """
libc = ctypes.CDLL(None)

def backtrace():
    addresses = (ctypes.c_void_p * 200)()
    count = libc.backtrace(addresses, 200)
    sys.stdout.flush()
    libc.backtrace_symbols_fd(addresses, count, 1)

main(backtrace)
"""


def test_backtrace_of_the_c_library(child, cache, machine_code):
    variables = {"ASM_LIBCALLS_CACHE": str(cache)}
    child(PROGRAM + "main(int)", variables=variables)
    done = child(PROGRAM + BACKTRACE, variables=variables)
    if "backtrace" in done.stderr:
        pytest.skip("the C library has no backtrace")
    first, _, _ = done.stdout.partition("42\n")
    names = [line.partition("(")[2].partition("+")[0] for line in first.splitlines()]
    at = names.index("asm_libcalls_call_python")
    assert names[at + 1] == "asm_libcalls_enter", first
    assert len(names) > at + 6, first  # and on, through ctypes and CPython
    assert ".image(asm_libcalls_enter+" in first
    assert str(cache) in first


SIGNALLED = """
import signal
os.kill(os.getpid(), signal.SIGUSR1)
for _ in range(100):
    main(int)
"""

GDB = """
import gdb

gdb.execute("set pagination off")
gdb.execute("set confirm off")
gdb.execute("handle SIGUSR1 stop nopass", to_string=True)
gdb.execute("run", to_string=True)  # to the signal: the images are loaded

def name_of(pc):
    found = gdb.execute(f"info symbol {pc:#x}", to_string=True)
    return found.split(" ")[0].split(" + ")[0]

def caller():
    frame = gdb.newest_frame().older()
    return frame.pc(), int(frame.read_register("rsp")), int(frame.read_register("rbp")), [
        int(frame.read_register(name)) for name in ("rbx", "r12", "r13", "r14", "r15")
    ]

for function in FUNCTIONS:
    gdb.execute(f"break *{function}", to_string=True)
    gdb.execute("continue", to_string=True)
    pc = int(gdb.newest_frame().pc())
    assert name_of(pc) == function, (name_of(pc), function)
    known = caller()
    gdb.execute("delete")
    steps = 0
    while name_of(pc) == function:
        assert caller() == known, (function, hex(pc), steps, caller(), known)
        gdb.execute("nexti", to_string=True)
        pc = int(gdb.newest_frame().pc())
        steps += 1
    print("walked", function, steps)
gdb.execute("kill")
"""


def test_gdb_finds_the_caller_at_every_instruction(cache, machine_code, tmp_path):
    """Stepping through each routine, with its caller's registers known from the first one on."""
    if shutil.which("gdb") is None:
        pytest.skip("no gdb")
    program, script = tmp_path / "program.py", tmp_path / "script.py"
    program.write_text(PROGRAM + SIGNALLED)
    functions = [
        "asm_libcalls_enter", "asm_libcalls_call_python", "asm_libcalls_enter_holding_gil",
        "wasmtime_i64_sdiv",
    ]  # fmt: skip
    script.write_text(f"FUNCTIONS = {functions}\n" + textwrap.dedent(GDB))
    variables = environment(ASM_LIBCALLS_CACHE=str(cache), LC_ALL="C.UTF-8")
    subprocess.run(
        [sys.executable, "-c", PROGRAM + "main(int)"],
        env=variables,
        check=True,
        timeout=120,
        capture_output=True,
    )
    done = subprocess.run(
        ["gdb", "-nx", "-batch", "-x", script, "--args", sys.executable, program],
        env=variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if "ptrace: Operation not permitted" in done.stderr:
        pytest.skip("this system lets nobody trace")
    walked = dict(
        line.split()[1:] for line in done.stdout.splitlines() if line.startswith("walked")
    )
    assert list(walked) == functions, done.stdout + done.stderr
    assert int(walked["asm_libcalls_enter"]) > 50
    assert int(walked["asm_libcalls_call_python"]) > 60
