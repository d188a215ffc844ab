"""Frames of our routines: derived from their code."""

from __future__ import annotations

import pytest

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
