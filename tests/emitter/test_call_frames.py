"""Frames of our routines: derived from their code, linked, encoded, read."""

import pytest

from asm_libcalls.emitter.eh_frame import ENTERED, Frame

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
    assert frames(body, stencil=[]) == []


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
    """Code behind a return has the frame of the jump to it."""
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
    """Except for the raise, which drops frames."""
    pytest.importorskip("peachpy", reason="there is nothing to assemble an image with")
    from asm_libcalls.x86_64.image_kinds import IMAGES, LEVELS

    for image, kind in IMAGES.items():
        for routine in kind.assemble(LEVELS["x86-64-v4-erms"]):
            found = routine.frames
            lost = [offset for offset, frame in found if frame.register is None or frame.lost]
            assert not lost or routine.name == "asm_libcalls_raise_status", (image, found)


def test_compiled_functions(machine_code):
    """What is put together for each function is what following its stencils says."""
    from jit_modules import Function, build

    from asm_libcalls import toy_jit
    from asm_libcalls.emitter.eh_frame import instructions
    from asm_libcalls.emitter.stencils import Part, Stencil
    from asm_libcalls.toy_jit.codegen.templates import STENCILS
    from asm_libcalls.toy_jit.link import frames as compiled
    from asm_libcalls.x86_64.stencils.stack_effects import frames

    early = "local.get 00 if 40 i32.const 01 return end local.get 00 if 40 i32.const 02 return end"
    module = toy_jit.Module(
        build(
            {
                "one": Function("-> i32", "i32.const 01"),
                "never": Function("-> i32", "unreachable"),
                "three": Function("i32 -> i32", f"{early} i32.const 03"),
            }
        )
    )
    tables, decoded = module.code.tables, module.decoded
    listed = list(compiled.functions(decoded, tables, 0))
    assert [name for _, _, name, _ in listed[:3]] == ["wasm::one", "wasm::never", "wasm::three"]
    assert [(at, at + size) for at, size, _, _ in listed[:3]] == tables.functions
    counts = []
    for index, (_, _, _, found) in enumerate(listed[:3]):
        code = module.code.code_of(index)
        prologue, epilogue = STENCILS["prologue"], STENCILS["epilogue"]
        written = ",".join(f"write,{r},0,0" for r in (3, 12, 13, 14, 15))
        parts = [Part(prologue, {"frame": 0})]
        *bodies, last = code[len(prologue.code) :].split(epilogue.code)
        for body in bodies:
            effects = f"0,0,-,target,{written}"
            parts += [Part(Stencil(body, (), effects)), Part(epilogue)]
            parts[-2].role = f"part{len(parts)}"
        parts.append(Part(Stencil(last, (), f"0,0,-,target,{written}"), role="target"))
        # Each body but the first is jumped to from the one before.
        for i, part in enumerate(parts[1:-1:2]):
            part.stencil.effects += f" 0,0,-,{parts[2 * i + 3].role},{written}"
        assert found == instructions(frames(parts))
        counts.append(len(bodies))
    assert counts == [1, 0, 3]
    assert [frames for *_, frames in listed[3:]] == [b""] * len(tables.stubs)


def test_frames_of_an_image_are_read_from_its_file():
    pytest.importorskip("peachpy", reason="there is nothing to assemble an image with")
    from asm_libcalls.emitter import image_file
    from asm_libcalls.emitter.image import link
    from asm_libcalls.x86_64.image_kinds import IMAGES, LEVELS

    for name in ("backend", "thunks"):
        image = link(IMAGES[name].assemble(LEVELS["x86-64-v3"]))
        key = bytes(image_file.KEY_SIZE)
        read, _, _ = image_file.unpack(image_file.pack(image, key, "tests"), key)
        padded = {
            name: found.ljust(len(read.frames[name]), b"\0") for name, found in image.frames.items()
        }
        assert read.frames == padded
        assert len(padded) > 30
