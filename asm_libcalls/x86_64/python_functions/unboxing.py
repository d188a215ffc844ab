"""Routines that read C values from Python objects: numbers, addresses, and None as null.

Each is called with an object in rax. It returns the value in rax and clears CF, or it sets CF if it
does not read this object. It clobbers only r10, since argument registers are in use. Reading runs
no Python code.

Exact ints and floats come first. Subclasses of int have the same layout: bools and the members of
enumerations. Objects of other types are read as ``readable_types.py`` has learned: a table has the
description of their layout by the type's address.

Each integer layout of ``object_layouts.py`` has its own code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from peachpy.x86_64 import (
    ADD, AND, BT, CLC, CMOVS, CMP, CVTSI2SD, CVTSS2SD, DEC, IMUL, INC, JA, JAE, JC, JE, JMP, JNC,
    JNE, JNS, JNZ, JS, JZ, LABEL, LEA, MOV, MOVQ, MOVSX, MOVSXD, MOVUPS, MOVZX, NEG, OR, POP, PUSH,
    RET, SHL, SHR, SUB, TEST, XOR, XORPS, Label, al, ax, byte, cl, eax, ecx, r10, r10b, r10d, r10w,
    rax, rcx, xmm0,
)  # fmt: skip
from peachpy.x86_64.registers import rsp

from asm_libcalls.emitter.image import Routine
from asm_libcalls.x86_64.python_functions import described_objects, readable_types
from asm_libcalls.x86_64.python_functions.described_objects import (
    read_signed, refuse_at, shift_as_described,
)  # fmt: skip
from asm_libcalls.x86_64.python_functions.object_layouts import INTEGER_LAYOUTS, IntegerLayout
from asm_libcalls.x86_64.assembler import sequence
from asm_libcalls.x86_64.assembler.instructions import CALL_ROUTINE, LOAD_SLOT, TAIL_JUMP


def routines() -> Iterator[Routine]:
    """Assemble the routines."""
    yield from described_objects.routines()
    for layout in INTEGER_LAYOUTS.values():
        for body in (_unbox_64, _unbox_60, _unbox_real, _unbox_32):
            yield _routine(body.__name__.lstrip("_"), layout, body)
        for name, kinds in _POINTERS.items():
            yield _routine(f"unbox_{name}", layout, partial(_unbox_pointer, kinds=kinds))
        for name, narrow in _NARROW.items():
            yield _routine(f"unbox_{name}", layout, partial(_unbox_narrow, narrow=narrow))
        yield _routine("unbox_bool", layout, _unbox_bool)


def _routine(name: str, layout: IntegerLayout, body: Callable[[IntegerLayout], None]) -> Routine:
    return sequence(f"{name}_{layout.name}", partial(body, layout))


# --- integers -------------------------------------------------------------------------------------


def _check_int(layout: IntegerLayout, other: Any) -> None:
    LOAD_SLOT(r10, "PyLong_Type")
    CMP([rax + layout.object_type], r10)
    JNE(other)


def _enter_int(layout: IntegerLayout) -> tuple[Any, Any]:
    """Jump if the type is not int; return the labels that :func:`_other_types` takes."""
    other, is_int = Label("other"), Label("is_int")
    _check_int(layout, other)
    LABEL(is_int)
    return other, is_int


def _other_types(layout: IntegerLayout, other: Any, there: Any) -> None:
    """Jump back if the type is a subclass of int; Python ignores an ``__index__`` of its own."""
    LABEL(other)
    MOV(r10, [rax + layout.object_type])
    TEST(byte[r10 + layout.type_flags + 3], readable_types.INT_SUBCLASS >> 24)
    JNZ(there)


def _unbox_compact(layout: IntegerLayout, more: Any) -> None:
    """Return an integer of at most one digit; else jump to `more`, the digit count in r10."""
    many = Label("many")
    MOV(r10, [rax + layout.size])
    if layout.tagged:
        CMP(r10, 2 << 3)
        JAE(many)
        AND(r10d, 3)
        NEG(r10)
        INC(r10)  # the sign as a factor: 1 - (tag & 3)
    else:
        INC(r10)
        CMP(r10, 2)
        JA(many)
        DEC(r10)  # -1, 0 or 1: the size is the sign
    MOV(eax, [rax + layout.digits])  # the digit of zero is undefined
    IMUL(rax, r10)
    RET()  # the product fits, so CF is clear
    LABEL(many)
    if layout.tagged:
        SHR(r10, 3)
    else:
        SUB(r10, 1)
        NEG(r10)
        CMOVS(r10, [rax + layout.size])
    CMP(r10, 3)
    JA(more)


def _test_sign(layout: IntegerLayout) -> None:
    """Clear ZF for a negative integer, and clear CF."""
    offset, mask = layout.sign
    TEST(byte[rax + offset], mask)


def _unbox_two_digits(layout: IntegerLayout) -> None:
    """Read an integer of two digits into rax; ZF is clear after it if it must be negated."""
    MOV(r10d, [rax + layout.digits + 4])
    SHL(r10, 30)
    _test_sign(layout)
    MOV(eax, [rax + layout.digits])
    LEA(rax, [rax + r10 * 1])


def _return_two_digits(layout: IntegerLayout) -> None:
    negative = Label("negative")
    _unbox_two_digits(layout)
    JNZ(negative)
    RET()
    LABEL(negative)
    NEG(rax)
    CLC()
    RET()


def _unbox_64(layout: IntegerLayout) -> None:
    no, three, most_negative = Label("no"), Label("three"), Label("most_negative")
    labels = _enter_int(layout)
    _unbox_compact(layout, no)
    JE(three)
    _return_two_digits(layout)
    LABEL(three)
    MOV(r10d, [rax + layout.digits + 8])
    CMP(r10d, 1 << 64 - 60)
    JAE(no)
    PUSH(rcx)
    MOV(ecx, [rax + layout.digits + 4])
    SHL(r10, 60)
    SHL(rcx, 30)
    OR(r10, rcx)
    MOV(ecx, [rax + layout.digits])
    OR(r10, rcx)
    POP(rcx)
    _test_sign(layout)
    MOV(rax, r10)
    JNZ(most_negative)
    RET()
    LABEL(most_negative)
    NEG(rax)
    JNS(no)  # below -2**63
    CLC()
    RET()
    _other_types(layout, *labels)
    TAIL_JUMP(f"read_integer_{layout.name}")
    refuse_at(no)


def _unbox_60(layout: IntegerLayout) -> None:
    """Read an integer of at most 60 bits and a sign, or a NumPy integer below 2**63."""
    no = Label("no")
    labels = _enter_int(layout)
    _unbox_compact(layout, no)
    JE(no)  # three digits
    _return_two_digits(layout)
    _other_types(layout, *labels)
    read_signed(layout, no)
    RET()
    refuse_at(no)


def _unbox_32(layout: IntegerLayout) -> None:
    no, fits, positive, check = map(Label, ("no", "fits", "positive", "check"))
    labels = _enter_int(layout)
    _unbox_compact(layout, no)
    JE(no)
    _unbox_two_digits(layout)
    JZ(positive)
    NEG(rax)
    LABEL(positive)
    LABEL(check)
    MOVSXD(r10, eax)
    CMP(r10, rax)
    JE(fits)
    MOV(r10d, eax)
    CMP(r10, rax)
    JNE(no)
    LABEL(fits)
    RET()  # equal, so CF is clear
    _other_types(layout, *labels)
    read_signed(layout, no)
    JMP(check)
    refuse_at(no)


_NARROW: dict[str, Callable[[], object]] = {
    "i8": lambda: MOVSX(r10, al),
    "u8": lambda: MOVZX(r10d, al),
    "i16": lambda: MOVSX(r10, ax),
    "u16": lambda: MOVZX(r10d, ax),
}


def _unbox_narrow(layout: IntegerLayout, narrow: Callable[[], object]) -> None:
    """Return it extended to 64 bits by its sign: a caller passes 32 bits of it."""
    no = Label("no")
    CALL_ROUTINE(f"unbox_32_{layout.name}")
    JC(no)
    narrow()
    CMP(r10, rax)
    JNE(no)
    RET()  # equal, so CF is clear
    refuse_at(no)


def _unbox_bool(layout: IntegerLayout) -> None:
    yes, no, other = Label("yes"), Label("no"), Label("other")
    LOAD_SLOT(r10, "_Py_TrueStruct")
    CMP(rax, r10)
    JE(yes)
    LOAD_SLOT(r10, "_Py_FalseStruct")
    CMP(rax, r10)
    JNE(other)
    XOR(eax, eax)
    RET()
    LABEL(yes)
    MOV(eax, 1)
    RET()  # equal, so CF is clear
    LABEL(other)
    CALL_ROUTINE(f"unbox_32_{layout.name}")
    JC(no)
    CMP(rax, 1)
    JA(no)
    CLC()
    RET()
    refuse_at(no)


# --- floats ---------------------------------------------------------------------------------------


def _unbox_real(layout: IntegerLayout) -> None:
    """Return the bits of a double, of an object that is no exact float."""
    no, other, single, convert = Label("no"), Label("other"), Label("single"), Label("convert")
    PUSH(rax)
    CALL_ROUTINE(f"unbox_60_{layout.name}")
    JC(other)
    ADD(rsp, 8)
    MOVUPS([rsp - 16], xmm0)  # an argument; leaf code may write below rsp
    XORPS(xmm0, xmm0)  # no dependency on its old value
    CVTSI2SD(xmm0, rax)
    LABEL(convert)
    MOVQ(rax, xmm0)
    MOVUPS(xmm0, [rsp - 16])
    CLC()
    RET()
    LABEL(other)
    POP(rax)
    CALL_ROUTINE(f"find_type_{layout.name}")
    JC(no)
    CMP(r10b, readable_types.FLOAT_32)
    JE(single)
    CMP(r10b, readable_types.FLOAT_64)
    JNE(no)
    MOV(rax, [rax + layout.value])
    RET()  # equal, so CF is clear
    LABEL(single)
    MOVUPS([rsp - 16], xmm0)
    XORPS(xmm0, xmm0)
    CVTSS2SD(xmm0, [rax + layout.value])
    JMP(convert)
    refuse_at(no)


# --- pointers -------------------------------------------------------------------------------------

_POINTERS = {
    "pointer": (readable_types.POINTER, readable_types.BYREF, readable_types.POINTER_MEMBER),
    "vmctx": (readable_types.VMCTX_MEMBER,),
    "anyfunc": (readable_types.ANYFUNC_MEMBER,),
    "reference": (),
}


def _unbox_pointer(layout: IntegerLayout, kinds: tuple[int, ...]) -> None:
    no, null, other, unsigned = map(Label, ("no", "null", "other", "unsigned"))
    LOAD_SLOT(r10, "_Py_NoneStruct")
    CMP(rax, r10)
    JE(null)
    _check_int(layout, other)
    _test_sign(layout)
    JNZ(no)
    TAIL_JUMP(f"unbox_64_{layout.name}")
    LABEL(null)
    XOR(eax, eax)
    RET()
    LABEL(other)
    CALL_ROUTINE(f"find_type_{layout.name}")
    JC(no)
    for kind in kinds:
        following = Label(f"not_{kind}")
        CMP(r10b, kind)
        JNE(following)
        _READ_ADDRESS[kind](layout, no)
        LABEL(following)
    CMP(r10b, readable_types.INTEGER)
    JNE(no)
    BT(r10, readable_types.BOOL_BIT)
    JC(no)
    shift_as_described(layout)
    BT(r10, readable_types.SIGNED_BIT)
    JNC(unsigned)
    TEST(rax, rax)
    JS(no)
    LABEL(unsigned)
    CLC()
    RET()
    refuse_at(no)


def _load_at_offset(layout: IntegerLayout) -> None:
    """Load the word of the object at the offset in the description."""
    SHR(r10, readable_types.OFFSET_SHIFT)
    MOVZX(r10d, r10w)
    MOV(rax, [rax + r10 * 1])


def _read_pointer(layout: IntegerLayout, no: Any) -> None:
    """Read a pointer of ctypes, which is in memory of its own."""
    _load_at_offset(layout)
    MOV(rax, [rax])
    CLC()
    RET()


def _read_byref(layout: IntegerLayout, no: Any) -> None:
    """Read what ``ctypes.byref`` returns, and refuse other arguments of that type."""
    PUSH(rcx)
    MOV(rcx, r10)
    SHR(rcx, readable_types.PLACE_SHIFT)
    MOVZX(ecx, cl)
    MOVZX(ecx, byte[rax + rcx * 1])
    PUSH(r10)
    SHR(r10, readable_types.TAG_SHIFT)
    CMP(r10b, cl)
    POP(r10)
    POP(rcx)
    JNE(no)
    _load_at_offset(layout)
    CLC()
    RET()


def _read_member(layout: IntegerLayout, no: Any) -> None:
    """Read an int in a member, which is 0 or unset once the object is closed."""
    _load_at_offset(layout)
    TEST(rax, rax)
    JZ(no)
    CALL_ROUTINE(f"unbox_64_{layout.name}")
    JC(no)
    TEST(rax, rax)
    JZ(no)
    RET()  # TEST cleared CF


_READ_ADDRESS = {
    readable_types.POINTER: _read_pointer,
    readable_types.BYREF: _read_byref,
    readable_types.VMCTX_MEMBER: _read_member,
    readable_types.ANYFUNC_MEMBER: _read_member,
    readable_types.POINTER_MEMBER: _read_member,
}
