"""The ABI, in both directions: registers, modes and flags after a trap; arguments and results.

The routines here break what a callee must keep, then trap: it is the entry that must restore it.
"""

from __future__ import annotations

import ctypes

import pytest

import asm_libcalls
from asm_libcalls.activation import NativeCall
from asm_libcalls.calling_convention import FLOAT_REGISTERS, INTEGER_REGISTERS, assign
from asm_libcalls.signatures import VALUE_TYPES, Signature, ValueType

MINUS_ONE = (1 << 64) - 1


def trapping(name: str, code: bytes):
    """Make a routine of raw bytes that then raises INTEGER_OVERFLOW."""
    from asm_libcalls.emitter.image import Reference, Routine

    # mov edi, 6; jmp asm_libcalls_raise_trap
    code += b"\xbf\x06\0\0\0" + b"\xe9\0\0\0\0"
    reference = Reference(len(code) - 4, "asm_libcalls_raise_trap", False)
    return Routine(name, code, len(code), (reference,))


def plain(name: str, code: bytes):
    from asm_libcalls.emitter.image import Routine

    return Routine(name, code, len(code))


def test_callee_saved_registers_survive_a_trap(load_routines, machine_code, machine_entry):
    from native_code import SAVED, compare_saved, mark_saved
    from peachpy.x86_64 import ADD, CALL, CMP, MOV, POP, PUSH, RET, SUB, eax, rax, rcx, rdi, rsi
    from peachpy.x86_64.registers import rsp

    from asm_libcalls.x86_64.assembler import sequence
    from asm_libcalls.x86_64.assembler.instructions import TAIL_JUMP

    def clobber():
        for register in SAVED:
            MOV(register, -1)
        MOV(eax, 6)
        MOV(rdi, rax)
        TAIL_JUMP("asm_libcalls_raise_trap")

    def probe():  # (NativeCall *, enter) -> mask of registers that enter changed
        for register in SAVED:
            PUSH(register)
        SUB(rsp, 8)
        mark_saved()
        CALL(rsi)
        compare_saved(lambda: CMP(rsp, rsp))  # MXCSR is not compared here
        MOV(rax, rcx)
        ADD(rsp, 8)
        for register in reversed(SAVED):
            POP(register)
        RET()

    loaded = load_routines(sequence("clobber", clobber), sequence("probe", probe))
    run = ctypes.PYFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_void_p)(
        loaded.routine("probe")
    )
    call = NativeCall(address=loaded.routine("clobber"))
    for _ in range(3):
        changed = run(ctypes.addressof(call), machine_code.loaded.routine("asm_libcalls_enter"))
        assert [str(r) for i, r in enumerate(SAVED) if changed >> i & 1] == []
    with pytest.raises(asm_libcalls.IntegerOverflow):
        machine_entry.call(loaded.routine("clobber"), Signature("()"), ())


def test_floating_point_modes_survive_a_trap(load_routines, machine_entry):
    loaded = load_routines(
        # push 0x5f80 (round up); ldmxcsr [rsp]; fldcw [rsp + 8 - 8] with 0x0b7f (round up); pop
        trapping("break_modes", bytes.fromhex("68805f0000 0fae1424 c704247f0b0000 d92c24 58")),
        plain("mxcsr", bytes.fromhex("50 0fae1c24 58 c3")),  # push; stmxcsr [rsp]; pop rax; ret
        plain("x87", bytes.fromhex("50 d93c24 58 c3")),  # push; fnstcw [rsp]; pop rax; ret
    )

    def modes():
        mxcsr = machine_entry.call(loaded.routine("mxcsr"), Signature("() -> u32"), ())
        control = machine_entry.call(loaded.routine("x87"), Signature("() -> u32"), ())
        return mxcsr & 0xFFC0, control & 0xFFFF  # without MXCSR's exception flags

    before = modes()
    with pytest.raises(asm_libcalls.IntegerOverflow):
        machine_entry.call(loaded.routine("break_modes"), Signature("()"), ())
    assert modes() == before == (0x1F80, 0x037F)


def test_direction_flag_is_clear_after_a_trap(load_routines, machine_code):
    loaded = load_routines(
        trapping("set_direction", b"\xfd"),  # std
        # (NativeCall *, enter) -> flags after it, and clear for Python whatever they were:
        # sub rsp, 8; call rsi; pushfq; pop rax; cld; add rsp, 8; ret
        plain("flags_after", bytes.fromhex("4883ec08 ffd6 9c 58 fc 4883c408 c3")),
    )
    run = ctypes.PYFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_void_p)(
        loaded.routine("flags_after")
    )
    call = NativeCall(address=loaded.routine("set_direction"))
    enter = machine_code.loaded.routine("asm_libcalls_enter")
    assert not run(ctypes.addressof(call), enter) & 1 << 10


@pytest.mark.parametrize("pushes", range(4))
def test_trap_from_a_stack_of_any_alignment(pushes, load_routines, machine_entry):
    loaded = load_routines(trapping("pushes", b"\x50" * pushes + b"\x66\x50" * (pushes & 1)))
    with pytest.raises(asm_libcalls.IntegerOverflow):
        machine_entry.call(loaded.routine("pushes"), Signature("()"), ())


# Arguments by the ABI, through C functions.

snprintf = ctypes.cast(ctypes.CDLL(None).snprintf, ctypes.c_void_p).value


@pytest.mark.parametrize("integers_", [0, 1, 2, 3, 4, 9, 20])
@pytest.mark.parametrize("floats", [0, 1, 7, 8, 9, 10, 20])
def test_arguments_in_registers_and_on_the_stack(integers_, floats, binding):
    """A variadic function finds them all, in order; it breaks on a misaligned stack."""
    types, values, texts = [], [], []
    for i in range(max(integers_, floats)):
        if i < integers_:
            types.append(("i64", "%ld"))
            values.append((-(10**15)) * (i + 1))
            texts.append(str(values[-1]))
        if i < floats:
            types.append(("f64", "%.3f"))
            values.append(0.125 + i)
            texts.append(f"{values[-1]:.3f}")
    buffer = ctypes.create_string_buffer(4096)
    format_ = ctypes.create_string_buffer(" ".join(f for _, f in types).encode())
    signature = Signature(
        f"({', '.join(['pointer', 'u64', 'pointer', *(t for t, _ in types)])}) -> i32"
    )
    given = [ctypes.addressof(buffer), len(buffer), ctypes.addressof(format_), *values]
    patterns = [t.to_bits(v, "") for t, v in zip(signature.parameters, given, strict=True)]
    length = binding.entry.call(snprintf, signature, patterns)
    assert buffer.value.decode() == " ".join(texts)
    assert length == len(buffer.value)


def test_too_many_arguments(accelerated, machine_entry):
    signature = Signature(f"({', '.join(['i64'] * 1007)}) -> i64")
    with pytest.raises(ValueError, match="1007 parameters: too many"):
        machine_entry.call(accelerated.libcalls["i64_ishl"].address, signature, [0] * 1007)
    most = Signature(f"({', '.join(['i64'] * 1006)}) -> i64")
    got = machine_entry.call(accelerated.libcalls["i64_ishl"].address, most, [3, 2] + [0] * 1004)
    assert got == 12


@pytest.mark.parametrize("bits", [0x7F800001, 0xFFBFFFFF, 0x7FC00000, 0x80000000, 0x00000001])
def test_f32_keeps_its_bits(bits, binding, load_routines):
    """Through a function that gives back its argument, signalling or not."""
    identity = load_routines(plain("identity", b"\xc3")).routine("identity")
    assert binding.entry.call(identity, Signature("(f32) -> f32"), (bits,)) == bits


@pytest.mark.parametrize("bits", [0x7FF0000000000001, 0xFFF7FFFFFFFFFFFF, 1 << 63])
def test_f64_keeps_its_bits(bits, binding, load_routines):
    identity = load_routines(plain("identity", b"\xc3")).routine("identity")
    assert binding.entry.call(identity, Signature("(f64) -> f64"), (bits,)) == bits


def test_narrow_results_have_no_upper_half(binding, load_routines):
    """``mov rax, rdi; ret`` leaves all 64 bits, of which an i32 is the low half."""
    loaded = load_routines(plain("wide", b"\x48\x89\xf8\xc3"))
    address = loaded.routine("wide")
    assert binding.entry.call(address, Signature("(u64) -> u32"), (MINUS_ONE - 1,)) == 0xFFFFFFFE
    assert binding.entry.call(address, Signature("(u64)"), (5,)) == 0


# Values that are wider than a register, or narrower than an f32.

WIDE = {
    name: VALUE_TYPES.get(name) or ValueType(name, bits, kind, False, name, "")
    for name, bits, kind in (
        ("u128", 128, "integer"),
        ("f16", 16, "float"),
        ("v128", 128, "vector"),
    )
}


@pytest.fixture
def wide_types(monkeypatch):
    """Signatures have these types."""
    for name, value_type in WIDE.items():
        monkeypatch.setitem(VALUE_TYPES, name, value_type)


# Each by hand from the System V ABI, 3.2.3: what goes where ("i" rdi.., "f" xmm0.., "s" [rsp..]).
ASSIGNMENTS = [
    ("()", ""),
    ("(u128)", "i0"),
    ("(i64, u128, i64)", "i0 i1 i3"),
    ("(u128, u128, u128)", "i0 i2 i4"),
    ("(u128, u128, u128, i64)", "i0 i2 i4 s0"),
    # One register is left: the i128 goes whole to the stack, and the next integer takes it.
    ("(i64, i64, i64, i64, i64, u128, i64)", "i0 i1 i2 i3 i4 s0 i5"),
    ("(i64, i64, i64, i64, i64, u128, i64, i64, u128)", "i0 i1 i2 i3 i4 s0 i5 s2 s4"),
    ("(u128, u128, u128, i64, u128, i64)", "i0 i2 i4 s0 s2 s4"),
    ("(f16, i32, v128, f64)", "f0 i0 f1 f2"),
    ("(v128, v128, v128, v128, f64, f64, f64, f64, f16, v128, f32)",
     "f0 f1 f2 f3 f4 f5 f6 f7 s0 s2 s4"),
    ("(f32, pointer, vmctx, f64)", "f0 i0 i1 f1"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), ASSIGNMENTS)
def test_where_arguments_are(text, expected, wide_types):
    signature = Signature(text)
    assignment = assign(signature.parameters)
    letters = {"integers": "i", "floats": "f", "stack": "s"}
    assert [f"{letters[p.bank]}{p.number}" for p in assignment.places] == expected.split()
    ends = [
        p.number + len(t.classes)
        for p, t in zip(assignment.places, signature.parameters, strict=True)
        if p.bank == "stack"
    ]
    assert assignment.stack == max(ends, default=0)


@pytest.mark.parametrize("text", [text for text, _ in ASSIGNMENTS if text != "()"])
def test_wide_arguments_arrive_whole(text, wide_types, load_routines, machine_entry):
    """The callee stores all argument registers, and the stack, where a test can look at them."""
    from peachpy.x86_64 import AND, LEA, MOV, MOVUPS, RET, rax
    from peachpy.x86_64.registers import rsp

    from asm_libcalls.x86_64.assembler import registers, sequence
    from asm_libcalls.x86_64.assembler.instructions import LOAD_SLOT

    places = {"integers": 0, "floats": 6, "stack": 6 + 16}  # in words of the buffer

    def spill():
        LOAD_SLOT(rax, "buffer")
        for i, register in enumerate(registers(INTEGER_REGISTERS)):
            MOV([rax + 8 * i], register)
        for i, register in enumerate(registers(FLOAT_REGISTERS)):
            MOVUPS([rax + 8 * places["floats"] + 16 * i], register)
        r10, r11 = registers(("r10", "r11"))
        for i in range(6):
            MOV(r10, [rsp + 8 + 8 * i])
            MOV([rax + 8 * places["stack"] + 8 * i], r10)
        LEA(r11, [rsp + 8])
        AND(r11, 15)
        MOV([rax + 8 * places["stack"] + 48], r11)
        RET()

    buffer = (ctypes.c_uint64 * 32)()
    loaded = load_routines(sequence("spill", spill), slots={"buffer": ctypes.addressof(buffer)})
    signature = Signature(text)
    patterns = [
        int.from_bytes(bytes(range(16 * i + 1, 16 * i + 17)), "little") & t.mask
        for i, t in enumerate(signature.parameters)
    ]
    machine_entry.call(loaded.routine("spill"), signature, patterns)
    found = []
    for place, t in zip(assign(signature.parameters).places, signature.parameters, strict=True):
        at = places[place.bank] + place.number * (2 if place.bank == "floats" else 1)
        found.append((buffer[at] | buffer[at + 1] << 64) & t.mask)
    assert found == patterns
    assert buffer[places["stack"] + 6] == 0  # the stack was aligned


@pytest.mark.parametrize("name", WIDE)
def test_wide_results(name, wide_types, load_routines, machine_entry):
    from peachpy.x86_64 import MOV, MOVUPS, RET, rax, rdx, xmm0

    from asm_libcalls.x86_64.assembler import sequence
    from asm_libcalls.x86_64.assembler.instructions import LOAD_SLOT

    buffer = (ctypes.c_uint64 * 2)(0x1122334455667788, 0x99AABBCCDDEEFF00)

    def results():
        LOAD_SLOT(rdx, "buffer")
        MOVUPS(xmm0, [rdx])
        MOV(rax, [rdx])
        MOV(rdx, [rdx + 8])
        RET()

    loaded = load_routines(sequence("results", results), slots={"buffer": ctypes.addressof(buffer)})
    found = machine_entry.call(loaded.routine("results"), Signature(f"() -> {name}"), [])
    assert found == 0x99AABBCCDDEEFF001122334455667788 & WIDE[name].mask


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("(i64) -> void", "a function without a result has no '->'"),
        ("(void) -> i32", "a function without parameters has an empty list"),
        ("(unsigned  int)", "C's unsigned int is u32 here"),
        ("(uint16_t)", "C's uint16_t is u16 here"),
        ("(char *)", r"C's char \* is a pointer here"),
        ("(i63)", "expected one of i8, u8, .*reference"),
    ],
)
def test_unknown_types_get_a_hint(text, hint):
    with pytest.raises(ValueError, match=f"unknown type .*, {hint}"):
        Signature(text)


def test_size_t_is_usize():
    assert Signature("( size_t )->size_t") == "(usize) -> usize"
