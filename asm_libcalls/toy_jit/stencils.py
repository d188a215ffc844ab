"""The stencils of the compiler, written in PeachPy: one or a few instructions each, with holes.

They are assembled once, when the first module is compiled; compiling copies them. What they agree
on (System V callee-saved registers, so that a libcall keeps them):

======== ===========================================================================================
rbp      frame pointer; locals and operands are 8-byte slots at [rbp + disp32]
rsp      16-aligned; arguments of a call are at [rsp + 8*i], for the callee at [rbp + 16 + 8*i]
r15      vmctx
r14      base of memory 0, which never moves
r13      address of memory 0's VMMemoryDefinition, for its current length
rax      the accumulator of integers and references; an i32 in it is zero-extended
xmm0     the accumulator of floats
others   locals and operands, as :mod:`asm_libcalls.toy_jit.registers` says
rcx      the second operand, or an address; xmm1 the second float
rdx      scratch
======== ===========================================================================================

A hole is named for what goes in: ``slot`` (a displacement from rbp), ``value``, ``offset``, and
``low`` and ``high`` for the halves of 64 bits. A jump out of a stencil names its role: ``target``,
or ``trap.CODE``.
"""

from __future__ import annotations

from asm_libcalls.entry import ThreadRecord
from asm_libcalls.traps import TrapCode
from asm_libcalls.vmcontext import (
    InstanceHeader,
    VMCallerCheckedAnyfunc,
    VMInterrupts,
    VMMemoryDefinition,
    VMTableDefinition,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from asm_libcalls.x86_64.image import Routine

    Body = Callable[[Callable[[str], int]], None]

__all__ = ["ENTER", "PREFIX", "STACK_LIMIT_SLOT", "routines"]

PREFIX = "toy_jit."
ENTER = "toy_jit.enter"
"""The one routine here that is no stencil."""

STACK_LIMIT_SLOT = "toy_jit_stack_limit"
"""The slot of a C function that works out the stack limit of its thread."""

_LENGTH = VMMemoryDefinition.current_length.offset
_SIGN_64 = 1 << 63
_TWO_TO_63 = {"f32": 0x5F000000, "f64": 0x43E0000000000000}
_MINUS_TWO_TO_63 = {"f32": 0xDF000000, "f64": 0xC3E0000000000000}


def routines(features: frozenset[str]) -> Iterator[Routine]:
    """Assemble all stencils for a CPU with these features."""
    from asm_libcalls.x86_64 import stencils
    from asm_libcalls.x86_64.assembler import sequence

    yield sequence(ENTER, _enter)
    for family in (
        _moves(), _pinned(), _integers(features), _floats(), _conversions(), _memory(), _control()
    ):  # fmt: skip
        for name, body in family:
            yield stencils.assemble(PREFIX + name, body)


def _trap(condition: str, code: TrapCode) -> None:
    from asm_libcalls.x86_64.instructions import JUMP_IF

    JUMP_IF(condition, f"trap.{code.name}")


def _wide(hole: Callable[[str], int]) -> int:
    return hole("low") | hole("high") << 32


def _moves() -> Iterator[tuple[str, Body]]:
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
    yield "const.wide", lambda hole: x.MOV(x.rax, _wide(hole))
    yield "const.rcx", lambda hole: x.MOV(x.ecx, hole("value"))
    yield "const.rcx.wide", lambda hole: x.MOV(x.rcx, _wide(hole))
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
        def body(hole: Callable[[str], int]) -> None:
            for step in steps:
                step(hole)

        return body

    yield (
        "store.const.wide",
        sequence(
            lambda hole: x.MOV(x.rdx, _wide(hole)),
            lambda hole: x.MOV([rbp + hole("slot")], x.rdx),
        ),
    )
    yield (
        "argument.const.wide",
        sequence(
            lambda hole: x.MOV(x.rdx, _wide(hole)),
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
                lambda hole: x.MOV(x.rdx, _wide(hole)),
                lambda hole, register=register: x.MOVQ(register, x.rdx),
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
                lambda hole, set_byte=set_byte: set_byte(x.al),
                lambda hole: x.MOVZX(x.eax, x.al),
            ),
        )


def pinned_registers() -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return the registers that hold locals and operands: integers, and floats.

    Compiled code changes all of them (rbx and r12 are saved where Python enters).
    """
    import peachpy.x86_64 as x

    integers = (x.rsi, x.rdi, x.r8, x.r9, x.r10, x.r11, x.rbx, x.r12)
    floats = (x.xmm2, x.xmm3, x.xmm4, x.xmm5, x.xmm6, x.xmm7, x.xmm8, x.xmm9, x.xmm10, x.xmm11,
              x.xmm12, x.xmm13)  # fmt: skip
    return integers, floats


def _pinned() -> Iterator[tuple[str, Body]]:
    """Use a local or operand in its register: ``.rK`` for integers, ``.xK`` for floats."""
    import peachpy.x86_64 as x
    from peachpy.x86_64.registers import rbp, rsp

    integers, floats = pinned_registers()
    for k, register in enumerate(integers):
        half = register.as_dword
        yield f"load.r{k}", _with_register(x.MOV, x.rax, register)
        yield f"store.r{k}", _with_register(x.MOV, register, x.rax)
        yield f"load.rcx.r{k}", _with_register(x.MOV, x.rcx, register)
        yield f"to_rdx.r{k}", _with_register(x.MOV, x.rdx, register)
        yield f"from_rdx.r{k}", _with_register(x.MOV, register, x.rdx)
        yield f"zero.r{k}", _with_register(x.XOR, half, half)
        yield f"const.r{k}", _with_const(x.MOV, half)
        yield f"spill.r{k}", lambda hole, r=register: x.MOV([rbp + hole("slot")], r)
        yield f"fill.r{k}", lambda hole, r=register: x.MOV(r, [rbp + hole("slot")])
        yield f"argument.r{k}", lambda hole, r=register: x.MOV([rsp + hole("offset")], r)
        for bits, a, b in ((32, x.eax, half), (64, x.rax, register)):
            for verb, instruction in (
                ("add", x.ADD), ("sub", x.SUB), ("and", x.AND), ("or", x.OR), ("xor", x.XOR),
                ("mul", x.IMUL), ("cmp", x.CMP),
            ):  # fmt: skip
                yield f"i{bits}.{verb}.r{k}", _with_register(instruction, a, b)
    for k, register in enumerate(floats):
        yield f"float.load.x{k}", _with_register(x.MOVAPS, x.xmm0, register)
        yield f"float.store.x{k}", _with_register(x.MOVAPS, register, x.xmm0)
        yield f"float.load.xmm1.x{k}", _with_register(x.MOVAPS, x.xmm1, register)
        yield f"float.from_xmm1.x{k}", _with_register(x.MOVAPS, register, x.xmm1)
        yield f"to_rdx.x{k}", _with_register(x.MOVQ, x.rdx, register)
        yield f"from_rdx.x{k}", _with_register(x.MOVQ, register, x.rdx)
        yield f"load.x{k}", _with_register(x.MOVQ, x.rax, register)
        yield f"store.x{k}", _with_register(x.MOVQ, register, x.rax)
        yield f"zero.x{k}", _with_register(x.XORPS, register, register)
        yield f"spill.x{k}", lambda hole, r=register: x.MOVSD([rbp + hole("slot")], r)
        yield f"fill.x{k}", lambda hole, r=register: x.MOVSD(r, [rbp + hole("slot")])
        yield f"argument.x{k}", lambda hole, r=register: x.MOVSD([rsp + hole("offset")], r)
        for name, instructions in (
            ("f32", (x.ADDSS, x.SUBSS, x.MULSS, x.DIVSS, x.UCOMISS)),
            ("f64", (x.ADDSD, x.SUBSD, x.MULSD, x.DIVSD, x.UCOMISD)),
        ):
            for verb, instruction in zip(
                ("add", "sub", "mul", "div", "cmp"), instructions, strict=True
            ):
                yield f"{name}.{verb}.x{k}", _with_register(instruction, x.xmm0, register)
    yield "to_rdx.slot", lambda hole: x.MOV(x.rdx, [rbp + hole("slot")])
    yield "from_rdx.slot", lambda hole: x.MOV([rbp + hole("slot")], x.rdx)
    yield "const.rdx.wide", lambda hole: x.MOV(x.rdx, _wide(hole))


def _select(x: Any, move: Any) -> Body:
    def body(hole: Callable[[str], int]) -> None:
        from peachpy.x86_64.registers import rbp

        x.MOV(x.rax, [rbp + hole("first")])
        move(x.rax, [rbp + hole("second")])

    return body


def _integers(features: frozenset[str]) -> Iterator[tuple[str, Body]]:
    """``OP.slot``, ``OP.const`` and ``OP.rcx``: rax OP= the second operand."""
    import peachpy.x86_64 as x
    from peachpy.x86_64.registers import rbp

    for bits, a, c, d, memory in (
        (32, x.eax, x.ecx, x.edx, x.dword),
        (64, x.rax, x.rcx, x.rdx, x.qword),
    ):
        name = f"i{bits}"
        for verb, instruction in (
            ("add", x.ADD), ("sub", x.SUB), ("and", x.AND), ("or", x.OR), ("xor", x.XOR),
            ("mul", x.IMUL), ("cmp", x.CMP),
        ):  # fmt: skip
            yield f"{name}.{verb}.slot", _with_slot(instruction, a, memory, rbp)
            yield f"{name}.{verb}.rcx", _with_register(instruction, a, c)
            if verb == "mul":
                yield f"{name}.mul.const", lambda hole, a=a: x.IMUL(a, a, hole("value"))
            else:
                # The encoding with any register, so that the hole is there in all of them.
                yield f"{name}.{verb}.const", _with_const(instruction, a)
        for verb, instruction in (
            ("shl", x.SHL), ("shr_s", x.SAR), ("shr_u", x.SHR), ("rotl", x.ROL), ("rotr", x.ROR),
        ):  # fmt: skip
            yield f"{name}.{verb}.rcx", _with_register(instruction, a, x.cl)
        yield f"{name}.test", _with_register(x.TEST, a, a)
        yield from _bit_counts(name, bits, a, c, d, features)
        yield f"{name}.extend8_s", _with_register(x.MOVSX, a, x.al)
        yield f"{name}.extend16_s", _with_register(x.MOVSX, a, x.ax)
    yield "i64.extend32_s", lambda hole: x.MOVSXD(x.rax, x.eax)
    yield "i32.wrap", lambda hole: x.MOV(x.eax, x.eax)
    for verb in ("div_s", "div_u", "rem_s", "rem_u"):
        yield f"i32.{verb}.rcx", _divide(verb)


def _with_slot(instruction: Any, a: Any, memory: Any, rbp: Any) -> Body:
    return lambda hole: instruction(a, memory[rbp + hole("slot")])


def _with_register(instruction: Any, a: Any, c: Any) -> Body:
    return lambda hole: instruction(a, c)


def _with_const(instruction: Any, a: Any) -> Body:
    return lambda hole: instruction(a, hole("value"))


def _bit_counts(
    name: str, bits: int, a: Any, c: Any, d: Any, features: frozenset[str]
) -> Iterator[tuple[str, Body]]:
    import peachpy.x86_64 as x

    def clz(hole: Callable[[str], int]) -> None:
        # bsr gives the index of the highest bit, and nothing for 0.
        x.BSR(c, a)
        x.MOV(d, 2 * bits - 1)
        x.CMOVZ(c, d)
        x.XOR(c, bits - 1)
        x.MOV(a, c)

    def ctz(hole: Callable[[str], int]) -> None:
        x.BSF(c, a)
        x.MOV(d, bits)
        x.CMOVZ(c, d)
        x.MOV(a, c)

    def popcnt(hole: Callable[[str], int]) -> None:
        # Sums of neighbouring bits, pairs and nibbles, side by side (Hacker's Delight, 5-1).
        ones = (1 << bits) - 1
        x.MOV(c, a)
        x.SHR(c, 1)
        x.MOV(d, ones // 3)
        x.AND(c, d)
        x.SUB(a, c)
        x.MOV(d, ones // 5)
        x.MOV(c, a)
        x.AND(c, d)
        x.SHR(a, 2)
        x.AND(a, d)
        x.ADD(a, c)
        x.MOV(c, a)
        x.SHR(c, 4)
        x.ADD(a, c)
        x.MOV(d, ones // 17)
        x.AND(a, d)
        x.MOV(d, ones // 255)
        x.IMUL(a, d)
        x.SHR(a, bits - 8)

    yield f"{name}.clz", _with_register(x.LZCNT, a, a) if "lzcnt" in features else clz
    yield f"{name}.ctz", _with_register(x.TZCNT, a, a) if "bmi" in features else ctz
    yield f"{name}.popcnt", _with_register(x.POPCNT, a, a) if "popcnt" in features else popcnt


def _divide(verb: str) -> Body:
    def body(hole: Callable[[str], int]) -> None:
        import peachpy.x86_64 as x

        divide, done = x.Label("divide"), x.Label("done")
        x.TEST(x.ecx, x.ecx)
        _trap("z", TrapCode.INTEGER_DIVISION_BY_ZERO)
        if verb.endswith("_u"):
            x.XOR(x.edx, x.edx)
            x.DIV(x.ecx)
        else:
            x.CMP(x.ecx, -1)
            x.JNE(divide)
            if verb == "div_s":
                x.CMP(x.eax, -(1 << 31))
                _trap("z", TrapCode.INTEGER_OVERFLOW)
            else:
                x.XOR(x.edx, x.edx)  # every integer is a multiple of -1
                x.JMP(done)
            x.LABEL(divide)
            x.CDQ()
            x.IDIV(x.ecx)
            if verb == "rem_s":
                x.LABEL(done)
        if verb.startswith("rem"):
            x.MOV(x.eax, x.edx)

    return body


def _floats() -> Iterator[tuple[str, Body]]:
    """``OP.slot`` and ``OP.xmm1``: xmm0 OP= the second operand."""
    import peachpy.x86_64 as x
    from peachpy.x86_64.registers import rbp

    for name, bits, memory, operations, compare in (
        ("f32", 32, x.dword, (x.ADDSS, x.SUBSS, x.MULSS, x.DIVSS, x.SQRTSS), x.UCOMISS),
        ("f64", 64, x.qword, (x.ADDSD, x.SUBSD, x.MULSD, x.DIVSD, x.SQRTSD), x.UCOMISD),
    ):
        verbs = ("add", "sub", "mul", "div")
        for verb, instruction in (*zip(verbs, operations, strict=False), ("cmp", compare)):
            yield f"{name}.{verb}.slot", _with_slot(instruction, x.xmm0, memory, rbp)
            yield f"{name}.{verb}.xmm1", _with_register(instruction, x.xmm0, x.xmm1)
        # The operands the other way round, for a < b as b > a: above is false for a NaN.
        yield f"{name}.cmp.swapped", _with_register(compare, x.xmm1, x.xmm0)
        yield f"{name}.sqrt", _with_register(operations[4], x.xmm0, x.xmm0)
        yield f"{name}.abs", _on_bits(bits, x.BTR)
        yield f"{name}.neg", _on_bits(bits, x.BTC)
        yield f"{name}.copysign", _copysign(bits)
        yield f"{name}.min", _extremum(name, smallest=True)
        yield f"{name}.max", _extremum(name, smallest=False)
        yield f"{name}.eq", _equal(unequal=False)
        yield f"{name}.ne", _equal(unequal=True)


def _on_bits(bits: int, instruction: Any) -> Body:
    def body(hole: Callable[[str], int]) -> None:
        import peachpy.x86_64 as x

        x.MOVQ(x.rdx, x.xmm0)
        instruction(x.rdx if bits == 64 else x.edx, bits - 1)
        x.MOVQ(x.xmm0, x.rdx)

    return body


def _copysign(bits: int) -> Body:
    def body(hole: Callable[[str], int]) -> None:
        import peachpy.x86_64 as x

        c, d = (x.rcx, x.rdx) if bits == 64 else (x.ecx, x.edx)
        x.MOVQ(x.rdx, x.xmm0)
        x.MOVQ(x.rcx, x.xmm1)
        x.BTR(d, bits - 1)
        x.SHR(c, bits - 1)
        x.SHL(c, bits - 1)
        x.OR(d, c)
        x.MOVQ(x.xmm0, x.rdx)

    return body


def _extremum(name: str, smallest: bool) -> Body:
    def body(hole: Callable[[str], int]) -> None:
        import peachpy.x86_64 as x

        double = name == "f64"
        differ, nan, done = x.Label("differ"), x.Label("nan"), x.Label("done")
        (x.UCOMISD if double else x.UCOMISS)(x.xmm0, x.xmm1)
        x.JNE(differ)
        x.JP(nan)
        # Equal: only zeros of different sign matter. The smaller one has the sign bit.
        (x.ORPS if smallest else x.ANDPS)(x.xmm0, x.xmm1)
        x.JMP(done)
        x.LABEL(nan)
        (x.ADDSD if double else x.ADDSS)(x.xmm0, x.xmm1)  # the sum with a NaN is a quiet one
        x.JMP(done)
        x.LABEL(differ)
        minimum, maximum = (x.MINSD, x.MAXSD) if double else (x.MINSS, x.MAXSS)
        (minimum if smallest else maximum)(x.xmm0, x.xmm1)
        x.LABEL(done)

    return body


def _equal(unequal: bool) -> Body:
    # After a comparison: ZF is set for equal and for unordered, PF for unordered.
    def body(hole: Callable[[str], int]) -> None:
        import peachpy.x86_64 as x

        if unequal:
            x.SETP(x.al)
            x.SETNE(x.cl)
            x.OR(x.al, x.cl)
        else:
            x.SETNP(x.al)
            x.SETE(x.cl)
            x.AND(x.al, x.cl)
        x.MOVZX(x.eax, x.al)

    return body


def _conversions() -> Iterator[tuple[str, Body]]:
    import peachpy.x86_64 as x

    for source, to_integer in (("f32", x.CVTTSS2SI), ("f64", x.CVTTSD2SI)):
        for bits in (32, 64):
            for sign in ("s", "u"):
                yield f"i{bits}.trunc_{source}_{sign}", _truncate(source, to_integer, bits, sign)
                yield (
                    f"i{bits}.trunc_sat_{source}_{sign}",
                    _saturate(source, to_integer, bits, sign),
                )
    for target, to_float in (("f32", x.CVTSI2SS), ("f64", x.CVTSI2SD)):
        # The conversion keeps the rest of xmm0: clear it, or wait for whatever was there.
        yield f"{target}.convert_i32_s", _convert(to_float, x.eax)
        yield f"{target}.convert_i32_u", _convert(to_float, x.rax)
        yield f"{target}.convert_i64_s", _convert(to_float, x.rax)
        yield f"{target}.convert_i64_u", _convert_u64(target, to_float)
    yield "f32.demote_f64", lambda hole: x.CVTSD2SS(x.xmm0, x.xmm0)
    yield "f64.promote_f32", lambda hole: x.CVTSS2SD(x.xmm0, x.xmm0)
    yield "i32.reinterpret_f32", lambda hole: x.MOVD(x.eax, x.xmm0)


def _convert(instruction: Any, register: Any) -> Body:
    def body(hole: Callable[[str], int]) -> None:
        import peachpy.x86_64 as x

        x.XORPS(x.xmm0, x.xmm0)
        instruction(x.xmm0, register)

    return body


def _convert_u64(target: str, instruction: Any) -> Body:
    def body(hole: Callable[[str], int]) -> None:
        import peachpy.x86_64 as x

        large, done = x.Label("large"), x.Label("done")
        x.XORPS(x.xmm0, x.xmm0)
        x.TEST(x.rax, x.rax)
        x.JS(large)
        instruction(x.xmm0, x.rax)
        x.JMP(done)
        # Half of it, with the lost bit ored into the lowest one, rounds as the whole does.
        x.LABEL(large)
        x.MOV(x.rcx, x.rax)
        x.SHR(x.rcx, 1)
        x.AND(x.eax, 1)
        x.OR(x.rcx, x.rax)
        instruction(x.xmm0, x.rcx)
        (x.ADDSS if target == "f32" else x.ADDSD)(x.xmm0, x.xmm0)
        x.LABEL(done)

    return body


def _load_xmm1(pattern: int) -> None:
    import peachpy.x86_64 as x

    x.MOV(x.rdx, pattern)
    x.MOVQ(x.xmm1, x.rdx)


def _truncate(source: str, to_integer: Any, bits: int, sign: str) -> Body:
    """``cvttsd2si`` gives MIN for what it can not convert; find out why, and trap."""

    def body(hole: Callable[[str], int]) -> None:
        import peachpy.x86_64 as x

        from asm_libcalls.x86_64.instructions import JUMP_IF

        compare = x.UCOMISS if source == "f32" else x.UCOMISD
        large, done = x.Label("large"), x.Label("done")
        if bits == 32:
            # In 64 bits every i32 and u32 is exact: it fits if its low half gives it back.
            to_integer(x.rax, x.xmm0)
            if sign == "s":
                x.MOVSXD(x.rcx, x.eax)
            else:
                x.MOV(x.ecx, x.eax)
            x.CMP(x.rax, x.rcx)
            x.JE(done)
            compare(x.xmm0, x.xmm0)
            _trap("p", TrapCode.BAD_CONVERSION_TO_INTEGER)
            JUMP_IF("np", f"trap.{TrapCode.INTEGER_OVERFLOW.name}")
            x.LABEL(done)
            x.MOV(x.eax, x.eax)
        elif sign == "s":
            to_integer(x.rax, x.xmm0)
            x.CMP(x.rax, 1)
            x.JNO(done)  # it is not MIN
            _load_xmm1(_MINUS_TWO_TO_63[source])
            compare(x.xmm0, x.xmm1)
            _trap("p", TrapCode.BAD_CONVERSION_TO_INTEGER)
            _trap("nz", TrapCode.INTEGER_OVERFLOW)
            x.LABEL(done)
        else:
            _load_xmm1(_TWO_TO_63[source])
            compare(x.xmm0, x.xmm1)
            _trap("p", TrapCode.BAD_CONVERSION_TO_INTEGER)
            x.JAE(large)
            to_integer(x.rax, x.xmm0)
            x.TEST(x.rax, x.rax)
            _trap("s", TrapCode.INTEGER_OVERFLOW)
            x.JMP(done)
            x.LABEL(large)
            (x.SUBSS if source == "f32" else x.SUBSD)(x.xmm0, x.xmm1)
            to_integer(x.rax, x.xmm0)
            x.TEST(x.rax, x.rax)
            _trap("s", TrapCode.INTEGER_OVERFLOW)
            x.BTC(x.rax, 63)
            x.LABEL(done)

    return body


def _saturate(source: str, to_integer: Any, bits: int, sign: str) -> Body:
    def body(hole: Callable[[str], int]) -> None:
        import peachpy.x86_64 as x

        compare = x.UCOMISS if source == "f32" else x.UCOMISD
        nan, large, done = x.Label("nan"), x.Label("large"), x.Label("done")
        lowest = 0 if sign == "u" else 1 << (bits - 1)
        highest = (1 << bits) - 1 - lowest
        a = x.eax if bits == 32 else x.rax

        def clamp() -> None:
            x.XORPS(x.xmm1, x.xmm1)
            compare(x.xmm0, x.xmm1)
            x.MOV(a, highest)
            x.JA(done)
            x.MOV(a, lowest)

        compare(x.xmm0, x.xmm0)
        x.JP(nan)
        if bits == 64 and sign == "u":
            _load_xmm1(_TWO_TO_63[source])
            compare(x.xmm0, x.xmm1)
            x.JAE(large)
            to_integer(x.rax, x.xmm0)
            x.TEST(x.rax, x.rax)
            x.JNS(done)
            x.XOR(x.eax, x.eax)
            x.JMP(done)
            x.LABEL(large)
            (x.SUBSS if source == "f32" else x.SUBSD)(x.xmm0, x.xmm1)
            to_integer(x.rax, x.xmm0)
            x.BTC(x.rax, 63)
            x.JC(nan)  # bit 63 was set: 2**64 or more; rax is made -1 there
            x.JMP(done)
            x.LABEL(nan)
            # From a NaN, 0; from too large a number, all ones.
            x.XOR(x.eax, x.eax)
            compare(x.xmm0, x.xmm0)
            x.JP(done)
            x.DEC(x.rax)
        else:
            to_integer(x.rax, x.xmm0)
            if bits == 64:
                x.CMP(x.rax, 1)
                x.JNO(done)
            else:
                if sign == "s":
                    x.MOVSXD(x.rcx, x.eax)
                else:
                    x.MOV(x.ecx, x.eax)
                x.CMP(x.rax, x.rcx)
                x.JE(done)
            clamp()
            x.JMP(done)
            x.LABEL(nan)
            x.XOR(x.eax, x.eax)
        x.LABEL(done)
        if bits == 32:
            x.MOV(x.eax, x.eax)

    return body


def _memory() -> Iterator[tuple[str, Body]]:
    """Load from [rax], store to [rcx]: ``end`` is offset + size, checked against the length."""
    import peachpy.x86_64 as x

    loads = {
        "i32.load": lambda at: x.MOV(x.eax, x.dword[at]),
        "i64.load": lambda at: x.MOV(x.rax, x.qword[at]),
        "f32.load": lambda at: x.MOVSS(x.xmm0, x.dword[at]),
        "f64.load": lambda at: x.MOVSD(x.xmm0, x.qword[at]),
        "i32.load8_s": lambda at: x.MOVSX(x.eax, x.byte[at]),
        "i32.load8_u": lambda at: x.MOVZX(x.eax, x.byte[at]),
        "i32.load16_s": lambda at: x.MOVSX(x.eax, x.word[at]),
        "i32.load16_u": lambda at: x.MOVZX(x.eax, x.word[at]),
        "i64.load8_s": lambda at: x.MOVSX(x.rax, x.byte[at]),
        "i64.load8_u": lambda at: x.MOVZX(x.eax, x.byte[at]),
        "i64.load16_s": lambda at: x.MOVSX(x.rax, x.word[at]),
        "i64.load16_u": lambda at: x.MOVZX(x.eax, x.word[at]),
        "i64.load32_s": lambda at: x.MOVSXD(x.rax, x.dword[at]),
        "i64.load32_u": lambda at: x.MOV(x.eax, x.dword[at]),
    }
    for name, load in loads.items():
        yield name, _access(x.rax, x.rcx, load)
    stores = {
        "store8": lambda at: x.MOV(x.byte[at], x.al),
        "store16": lambda at: x.MOV(x.word[at], x.ax),
        "store32": lambda at: x.MOV(x.dword[at], x.eax),
        "store64": lambda at: x.MOV(x.qword[at], x.rax),
        "f32.store": lambda at: x.MOVSS(x.dword[at], x.xmm0),
        "f64.store": lambda at: x.MOVSD(x.qword[at], x.xmm0),
    }
    for name, store in stores.items():
        yield f"memory.{name}", _access(x.rcx, x.rdx, store)
    # An offset that a displacement can not hold goes into the address, which is then 33 bits.
    for name, register in (("rax", x.rax), ("rcx", x.rcx)):
        yield f"memory.offset.{name}", _large_offset(register)


def _access(address: Any, scratch: Any, access: Callable[[Any], object]) -> Body:
    def body(hole: Callable[[str], int]) -> None:
        import peachpy.x86_64 as x

        x.LEA(scratch, [address + hole("end")])
        x.CMP(scratch, [x.r13 + _LENGTH])
        _trap("a", TrapCode.HEAP_OUT_OF_BOUNDS)
        access(x.r14 + address * 1 + hole("offset"))

    return body


def _large_offset(register: Any) -> Body:
    def body(hole: Callable[[str], int]) -> None:
        import peachpy.x86_64 as x

        x.MOV(x.rdx, _wide(hole))
        x.ADD(register, x.rdx)

    return body


def _control() -> Iterator[tuple[str, Body]]:
    import peachpy.x86_64 as x
    from peachpy.x86_64.registers import rbp, rsp

    from asm_libcalls.x86_64.instructions import CALL_ROUTINE, JUMP_IF, LOAD_ADDRESS, TAIL_JUMP

    anyfunc, table = VMCallerCheckedAnyfunc, VMTableDefinition

    for condition in JUMP_IF.conditions:
        yield f"jump.{condition}", lambda hole, c=condition: JUMP_IF(c, "target")
    yield "jump", lambda hole: TAIL_JUMP("target")
    yield "call", lambda hole: CALL_ROUTINE("target")

    def prologue(hole: Callable[[str], int]) -> None:
        x.PUSH(rbp)
        x.MOV(rbp, rsp)
        x.SUB(rsp, hole("frame"))
        x.MOV([rbp - 8], x.r15)
        check(hole)

    def check(hole: Callable[[str], int]) -> None:
        x.MOV(x.rdx, [x.r15])  # VMInterrupts, the first field of a VMContext
        x.CMP(rsp, [x.rdx])
        JUMP_IF("c", "target")

    def epilogue(hole: Callable[[str], int]) -> None:
        x.MOV(rsp, rbp)
        x.POP(rbp)
        x.RET()

    def clear(hole: Callable[[str], int]) -> None:
        x.XOR(x.edx, x.edx)
        x.MOV(x.ecx, hole("value"))
        again = x.Label("again")
        x.LABEL(again)
        x.MOV([rbp + x.rcx * 8 + hole("offset")], x.rdx)
        x.DEC(x.rcx)
        x.JNZ(again)

    def call_other(hole: Callable[[str], int]) -> None:
        """Call the code at rax with the vmctx in rcx, and come back to this one's."""
        same = x.Label("same")
        x.CMP(x.rcx, x.r15)
        x.JE(same)
        x.MOV(x.rdx, [x.r15])
        x.MOV(x.r15, x.rcx)
        x.MOV(x.rcx, [x.rdx + VMInterrupts.native_stack_limit.offset])
        _set_stack_limit()
        _load_memory()
        x.LABEL(same)
        x.CALL(x.rax)

    def come_back(hole: Callable[[str], int]) -> None:
        back = x.Label("back")
        x.CMP(x.r15, [rbp - 8])
        x.JE(back)
        x.MOV(x.r15, [rbp - 8])
        _load_memory()
        x.LABEL(back)

    def load_import(hole: Callable[[str], int]) -> None:
        x.MOV(x.rax, [x.r15 + hole("body")])
        x.MOV(x.rcx, [x.r15 + hole("vmctx")])

    def load_indirect(hole: Callable[[str], int]) -> None:
        """Load the code and vmctx of the element rax of the table at rcx."""
        x.CMP(x.eax, [x.rcx + table.current_elements.offset])
        _trap("nc", TrapCode.UNDEFINED_ELEMENT)
        x.MOV(x.rcx, [x.rcx + table.base.offset])
        x.MOV(x.rcx, [x.rcx + x.rax * 8])
        x.TEST(x.rcx, x.rcx)
        _trap("z", TrapCode.INDIRECT_CALL_TO_NULL)
        x.CMP(x.dword[x.rcx + anyfunc.type_index.offset], hole("value"))
        _trap("nz", TrapCode.BAD_SIGNATURE)
        x.MOV(x.rax, [x.rcx + anyfunc.func_ptr.offset])
        x.MOV(x.rcx, [x.rcx + anyfunc.vmctx.offset])

    def table_get(hole: Callable[[str], int]) -> None:
        x.CMP(x.eax, [x.rcx + table.current_elements.offset])
        _trap("nc", TrapCode.TABLE_OUT_OF_BOUNDS)
        x.MOV(x.rcx, [x.rcx + table.base.offset])
        x.MOV(x.rax, [x.rcx + x.rax * 8])

    def branch_table(hole: Callable[[str], int]) -> None:
        """Jump by a table of distances that follows; rax is the index, the last is the default."""
        x.MOV(x.ecx, hole("value"))
        x.CMP(x.eax, x.ecx)
        x.CMOVA(x.eax, x.ecx)
        LOAD_ADDRESS(x.rcx, "target")
        x.MOVSXD(x.rax, x.dword[x.rcx + x.rax * 4])
        x.ADD(x.rax, x.rcx)
        x.JMP(x.rax)

    yield "prologue", prologue
    yield "check", check
    yield "epilogue", epilogue
    yield "clear", clear
    yield "call.other", call_other
    yield "call.back", come_back
    yield "call.import", load_import
    yield "call.indirect", load_indirect
    yield "call.rax", lambda hole: x.CALL(x.rax)
    yield "table.get", table_get
    yield "table.size", lambda hole: x.MOV(x.eax, [x.rcx + table.current_elements.offset])
    yield "table.defined", lambda hole: x.LEA(x.rcx, [x.r15 + hole("offset")])
    yield "table.imported", lambda hole: x.MOV(x.rcx, [x.r15 + hole("offset")])
    yield "branch_table", branch_table

    # Libcalls: System V arguments, then a call through the builtin array or to an address.
    yield "libcall.vmctx", lambda hole: x.MOV(x.rdi, x.r15)
    registers = ((x.rdi, x.edi), (x.rsi, x.esi), (x.rdx, x.edx), (x.rcx, x.ecx), (x.r8, x.r8d),
                 (x.r9, x.r9d))  # fmt: skip
    for i, (register, half) in enumerate(registers):
        yield f"libcall.{i}.rax", lambda hole, r=register: x.MOV(r, x.rax)
        yield f"libcall.{i}.slot", lambda hole, r=register: x.MOV(r, [rbp + hole("slot")])
        yield f"libcall.{i}.const", lambda hole, r=half: x.MOV(r, hole("value"))
    yield "libcall.builtin", lambda hole: x.CALL([x.r15 + hole("offset")])
    yield "i64.from_call", lambda hole: x.MOV(x.eax, x.eax)

    def trap_stub(hole: Callable[[str], int]) -> None:
        # Called from the site, so that the return address on the stack says which it was.
        x.MOV(x.edi, hole("value"))
        x.MOV(x.rax, _wide(hole))
        x.JMP(x.rax)

    def interrupt_stub(hole: Callable[[str], int]) -> None:
        """Find out why rsp is below the stack limit: too deep, or somebody asked us to stop."""
        overflow = x.Label("overflow")
        x.MOV(x.rdx, [x.r15])
        x.CMP(rsp, [x.rdx + VMInterrupts.native_stack_limit.offset])
        x.JB(overflow)
        x.SUB(rsp, 8)  # the call has pushed 8 bytes
        x.MOV(x.rdi, x.r15)
        x.MOV(x.rax, _wide(hole))
        x.CALL(x.rax)
        x.ADD(rsp, 8)
        x.RET()
        x.LABEL(overflow)
        # The frame may reach far below the limit: give it back, but for the return address.
        x.POP(x.rax)
        x.MOV(rsp, rbp)
        x.PUSH(x.rax)
        TAIL_JUMP("target")

    yield "stub.trap", trap_stub
    yield "stub.interrupt", interrupt_stub

    # The same for one signature, from System V registers; see toy_jit.adapters.
    def adapter_begin(hole: Callable[[str], int]) -> None:
        x.PUSH(rbp)
        x.MOV(rbp, rsp)
        for register in (x.rbx, x.r12, x.r13, x.r14, x.r15):
            x.PUSH(register)
        x.SUB(rsp, hole("frame"))

    def adapter_end(hole: Callable[[str], int]) -> None:
        x.MOV(x.r15, _wide(hole))
        _load_stack_limit()
        _load_memory()
        x.MOV(x.rax, hole("code_low") | hole("code_high") << 32)
        x.CALL(x.rax)
        x.LEA(rsp, [rbp - 40])
        for register in (x.r15, x.r14, x.r13, x.r12, x.rbx):
            x.POP(register)
        x.POP(rbp)
        x.RET()

    yield "adapter.begin", adapter_begin
    yield "adapter.end", adapter_end
    for i, (register, half) in enumerate(registers):
        yield f"adapter.i64.{i}", lambda hole, r=register: x.MOV([rsp + hole("offset")], r)
        yield f"adapter.i32.{i}", _adapt_i32(half, register)
    floats = (x.xmm0, x.xmm1, x.xmm2, x.xmm3, x.xmm4, x.xmm5, x.xmm6, x.xmm7)
    for i, xmm in enumerate(floats):
        yield f"adapter.float.{i}", lambda hole, r=xmm: x.MOVSD([rsp + hole("offset")], r)


def _adapt_i32(half: Any, register: Any) -> Body:
    def body(hole: Callable[[str], int]) -> None:
        import peachpy.x86_64 as x
        from peachpy.x86_64.registers import rsp

        x.MOV(half, half)  # the upper half of an argument of 32 bits is anything
        x.MOV([rsp + hole("offset")], register)

    return body


def _load_memory() -> None:
    """Load r13 and r14 for the instance at r15."""
    import peachpy.x86_64 as x

    x.MOV(x.r13, [x.r15 + InstanceHeader.offset_from_vmctx("memories")])
    x.MOV(x.r13, [x.r13])
    x.MOV(x.r14, [x.r13 + VMMemoryDefinition.base.offset])


def _set_stack_limit() -> None:
    """Let the instance at r15 stop at the stack pointer in rcx; clobbers rdx."""
    import peachpy.x86_64 as x

    asked_to_stop = x.Label("asked_to_stop")
    x.MOV(x.rdx, [x.r15])
    x.MOV([x.rdx + VMInterrupts.native_stack_limit.offset], x.rcx)
    x.CMP(x.qword[x.rdx + VMInterrupts.stack_limit.offset], -1)
    x.JE(asked_to_stop)
    x.MOV([x.rdx + VMInterrupts.stack_limit.offset], x.rcx)
    x.LABEL(asked_to_stop)


def _load_stack_limit() -> None:
    """Let the instance at r15 stop where this thread's stack gets short."""
    import peachpy.x86_64 as x

    from asm_libcalls.x86_64.entry import load_thread_record
    from asm_libcalls.x86_64.instructions import CALL_SLOT

    known = x.Label("limit_known")
    load_thread_record()
    x.MOV(x.rcx, [x.rax + ThreadRecord.stack_limit.offset])
    x.TEST(x.rcx, x.rcx)
    x.JNZ(known)
    CALL_SLOT(STACK_LIMIT_SLOT)
    x.MOV(x.rcx, x.rax)
    x.LABEL(known)
    _set_stack_limit()


def _enter() -> None:
    """``enter(vmctx, code, slots, count)``: call a function as compiled code does.

    The slots are its arguments, and then its results if they are several; one result comes
    back in slots[count] (rax) and slots[count + 1] (xmm0).
    """
    import peachpy.x86_64 as x
    from peachpy.x86_64.registers import rbp, rsp

    copy, copied, back, done = map(x.Label, ("copy", "copied", "back", "done"))
    x.PUSH(rbp)
    x.MOV(rbp, rsp)
    for register in (x.rbx, x.r12, x.r13, x.r14, x.r15, x.rdx, x.rcx):
        x.PUSH(register)
    x.MOV(x.r15, x.rdi)
    x.MOV(x.r14, x.rsi)
    x.MOV(x.rbx, x.rdx)
    x.MOV(x.r12, x.rcx)
    x.LEA(x.rax, [x.rcx * 8 + 15 + 8])  # seven registers were pushed: 8 more keep rsp aligned
    x.AND(x.rax, -16)
    x.SUB(x.rax, 8)
    x.SUB(rsp, x.rax)
    x.LABEL(copy)
    x.TEST(x.rcx, x.rcx)
    x.JZ(copied)
    x.DEC(x.rcx)
    x.MOV(x.rax, [x.rbx + x.rcx * 8])
    x.MOV([rsp + x.rcx * 8], x.rax)
    x.JMP(copy)
    x.LABEL(copied)
    _load_stack_limit()
    x.MOV(x.rax, x.r14)
    _load_memory()
    x.CALL(x.rax)
    x.MOV(x.rbx, [rbp - 48])  # compiled code changes rbx and r12
    x.MOV(x.r12, [rbp - 56])
    x.MOV([x.rbx + x.r12 * 8], x.rax)
    x.MOVSD([x.rbx + x.r12 * 8 + 8], x.xmm0)
    x.LABEL(back)
    x.TEST(x.r12, x.r12)
    x.JZ(done)
    x.DEC(x.r12)
    x.MOV(x.rax, [rsp + x.r12 * 8])
    x.MOV([x.rbx + x.r12 * 8], x.rax)
    x.JMP(back)
    x.LABEL(done)
    x.LEA(rsp, [rbp - 40])
    for register in (x.r15, x.r14, x.r13, x.r12, x.rbx):
        x.POP(register)
    x.POP(rbp)
    x.RET()
