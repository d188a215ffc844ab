"""Between accumulators, slots, constants, outgoing arguments and globals."""

from __future__ import annotations

from asm_libcalls.toy_jit.stencils.bodies import wide, with_register

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from asm_libcalls.toy_jit.stencils.bodies import Body, Hole

__all__ = ["moves"]


def moves() -> Iterator[tuple[str, Body]]:
    """Between accumulators, slots, constants, outgoing arguments and globals."""
    import peachpy.x86_64 as x
    from peachpy.x86_64.registers import rbp, rsp

    yield "load", lambda hole: x.MOV(x.rax, [rbp + hole("slot")])
    yield "load.slot", lambda hole: x.MOV(x.rax, [rbp + hole("slot")])
    yield "store.slot", lambda hole: x.MOV([rbp + hole("slot")], x.rax)
    yield "load.rcx.slot", lambda hole: x.MOV(x.rcx, [rbp + hole("slot")])
    yield "float.store.slot", lambda hole: x.MOVSD([rbp + hole("slot")], x.xmm0)
    yield "float.load.xmm1.slot", lambda hole: x.MOVSD(x.xmm1, [rbp + hole("slot")])
    yield "store", lambda hole: x.MOV([rbp + hole("slot")], x.rax)
    yield "load.rcx", lambda hole: x.MOV(x.rcx, [rbp + hole("slot")])
    yield "move.rcx", lambda hole: x.MOV(x.rcx, x.rax)
    yield "const.0", lambda hole: x.XOR(x.eax, x.eax)
    yield "const", lambda hole: x.MOV(x.eax, hole("value"))
    yield "const.wide", lambda hole: x.MOV(x.rax, wide(hole))
    yield "const.rcx", lambda hole: x.MOV(x.ecx, hole("value"))
    yield "const.rcx.wide", lambda hole: x.MOV(x.rcx, wide(hole))
    # A 32-bit immediate is sign-extended to the slot's 64 bits.
    yield "store.const", lambda hole: x.MOV(x.qword[rbp + hole("slot")], hole("value"))
    yield "float.load", lambda hole: x.MOVSD(x.xmm0, [rbp + hole("slot")])
    yield "float.store", lambda hole: x.MOVSD([rbp + hole("slot")], x.xmm0)
    yield "float.load.xmm1", lambda hole: x.MOVSD(x.xmm1, [rbp + hole("slot")])
    yield "float.move.xmm1", lambda hole: x.MOVAPS(x.xmm1, x.xmm0)
    yield "float.from_rax", lambda hole: x.MOVQ(x.xmm0, x.rax)
    yield "float.from_rdx", lambda hole: x.MOVQ(x.xmm0, x.rdx)
    yield "float.to_rax", lambda hole: x.MOVQ(x.rax, x.xmm0)
    yield "float.zero", lambda hole: x.XORPS(x.xmm0, x.xmm0)
    yield "argument.store", lambda hole: x.MOV([rsp + hole("offset")], x.rax)
    yield "argument.float.store", lambda hole: x.MOVSD([rsp + hole("offset")], x.xmm0)
    yield (
        "argument.const",
        lambda hole: x.MOV(x.qword[rsp + hole("offset")], hole("value")),
    )

    def sequence(*steps: Callable[[Callable[[str], int]], object]) -> Body:
        def body(hole: Hole) -> None:
            for step in steps:
                step(hole)

        return body

    yield (
        "store.const.wide",
        sequence(
            lambda hole: x.MOV(x.rdx, wide(hole)),
            lambda hole: x.MOV([rbp + hole("slot")], x.rdx),
        ),
    )
    yield (
        "argument.const.wide",
        sequence(
            lambda hole: x.MOV(x.rdx, wide(hole)),
            lambda hole: x.MOV([rsp + hole("offset")], x.rdx),
        ),
    )
    yield (
        "copy",
        sequence(
            lambda hole: x.MOV(x.rdx, [rbp + hole("from")]),
            lambda hole: x.MOV([rbp + hole("slot")], x.rdx),
        ),
    )
    yield (
        "argument.copy",
        sequence(
            lambda hole: x.MOV(x.rdx, [rbp + hole("from")]),
            lambda hole: x.MOV([rsp + hole("offset")], x.rdx),
        ),
    )
    yield (
        "result.copy",
        sequence(
            lambda hole: x.MOV(x.rdx, [rsp + hole("offset")]),
            lambda hole: x.MOV([rbp + hole("slot")], x.rdx),
        ),
    )
    for name, register in (("float", x.xmm0), ("float.xmm1", x.xmm1)):
        yield (
            f"{name}.const",
            sequence(
                lambda hole: x.MOV(x.rdx, wide(hole)),
                with_register(x.MOVQ, register, x.rdx),
            ),
        )
    yield "global.get", lambda hole: x.MOV(x.rax, [x.r15 + hole("offset")])
    yield "global.set", lambda hole: x.MOV([x.r15 + hole("offset")], x.rax)
    yield (
        "global.imported.get",
        sequence(
            lambda hole: x.MOV(x.rcx, [x.r15 + hole("offset")]),
            lambda hole: x.MOV(x.rax, [x.rcx]),
        ),
    )
    yield (
        "global.imported.set",
        sequence(
            lambda hole: x.MOV(x.rcx, [x.r15 + hole("offset")]),
            lambda hole: x.MOV([x.rcx], x.rax),
        ),
    )
    yield "global.float.get", lambda hole: x.MOVSD(x.xmm0, [x.r15 + hole("offset")])
    yield "global.float.set", lambda hole: x.MOVSD([x.r15 + hole("offset")], x.xmm0)
    yield "vmctx.address", lambda hole: x.LEA(x.rax, [x.r15 + hole("offset")])
    for condition, move in (
        ("o", x.CMOVO), ("no", x.CMOVNO), ("c", x.CMOVC), ("nc", x.CMOVNC), ("z", x.CMOVZ),
        ("nz", x.CMOVNZ), ("be", x.CMOVBE), ("a", x.CMOVA), ("l", x.CMOVL), ("ge", x.CMOVGE),
        ("le", x.CMOVLE), ("g", x.CMOVG),
    ):  # fmt: skip
        yield f"select.{condition}", _select(x, move)
    for condition, set_byte in (
        ("z", x.SETZ), ("nz", x.SETNZ), ("c", x.SETC), ("nc", x.SETNC), ("be", x.SETBE),
        ("a", x.SETA), ("l", x.SETL), ("ge", x.SETGE), ("le", x.SETLE), ("g", x.SETG),
    ):  # fmt: skip
        yield (
            f"flag.{condition}",
            sequence(
                _set(set_byte),
                lambda hole: x.MOVZX(x.eax, x.al),
            ),
        )


def _set(set_byte: Any) -> Body:
    import peachpy.x86_64 as x

    return lambda hole: set_byte(x.al)


def _select(x: Any, move: Any) -> Body:
    def body(hole: Hole) -> None:
        from peachpy.x86_64.registers import rbp

        x.MOV(x.rax, [rbp + hole("first")])
        move(x.rax, [rbp + hole("second")])

    return body
