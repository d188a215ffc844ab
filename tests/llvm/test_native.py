"""LLVM's libcalls as compiled code calls them: signals, MXCSR, the rest of registers."""

from __future__ import annotations

import ctypes
import signal

import pytest
from llvm_routines import load_for

from asm_libcalls import llvm
from asm_libcalls.checks.engine import checker_of
from asm_libcalls.llvm.libcalls import DECLARATIONS

DIVISIONS = [name for name, row in DECLARATIONS.items() if row.traps]


@pytest.mark.parametrize("name", DIVISIONS)
def test_a_zero_divisor_at_the_bare_address_is_the_instruction_s(name, child, machine_code):
    """Nothing catches a trap there, so it is what compiler-rt's division does: SIGFPE."""
    done = child(
        f"""
        import ctypes, resource
        import asm_libcalls

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        address = asm_libcalls.llvm.symbols()["__{name}"]
        words = [ctypes.c_uint64] * 4
        function = ctypes.CFUNCTYPE(ctypes.c_uint64, *words, ctypes.c_void_p)(address)
        print(function(7, 0, 2, 0, None), flush=True)
        function(7, 0, 0, 0, None)
        print("alive", flush=True)
        """,
        exit_status=-signal.SIGFPE,
    )
    assert done.stdout == ("3\n" if "div" in name else "1\n")


class Record(ctypes.Structure):
    """A call with MXCSR set, and its results."""

    _fields_ = [
        ("integers", ctypes.c_uint64 * 4),
        ("float", ctypes.c_uint64),
        ("upper", ctypes.c_uint64),  # half of xmm0
        ("target", ctypes.c_uint64),
        ("mxcsr", ctypes.c_uint32),
        ("after", ctypes.c_uint32),
        ("results", ctypes.c_uint64 * 2),
        ("float_result", ctypes.c_uint64),
    ]


def call_with_mxcsr() -> None:
    """Write (Record *)."""
    from peachpy import x86_64 as p
    from peachpy.x86_64.registers import rsp

    def at(field: str) -> int:
        return int(getattr(Record, field).offset)

    p.PUSH(p.rbx)
    p.SUB(rsp, 16)
    p.MOV(p.rbx, p.rdi)
    p.STMXCSR([rsp])
    p.LDMXCSR([p.rbx + at("mxcsr")])
    p.MOVUPS(p.xmm0, [p.rbx + at("float")])
    for i, register in enumerate((p.rdi, p.rsi, p.rdx, p.rcx)):
        p.MOV(register, [p.rbx + 8 * i])
    p.MOV(p.rax, [p.rbx + at("target")])
    p.CALL(p.rax)
    p.STMXCSR([p.rbx + at("after")])
    p.LDMXCSR([rsp])
    p.MOV([p.rbx + at("results")], p.rax)
    p.MOV([p.rbx + at("results") + 8], p.rdx)
    p.MOVQ([p.rbx + at("float_result")], p.xmm0)
    p.ADD(rsp, 16)
    p.POP(p.rbx)
    p.RET()


def invoke(run, record, libcall, case, rest=0) -> int:
    """Call it; `rest` has the bits of xmm0 and of integer registers beyond the arguments."""
    integers = []
    for value_type, argument in zip(libcall.signature.parameters, case, strict=True):
        pattern = argument | rest << value_type.bits
        if value_type.kind == "float":
            record.float = pattern & (1 << 64) - 1
            record.upper = pattern >> 64 & (1 << 64) - 1
        else:
            integers.append(pattern & (1 << 64) - 1)
            if value_type.bits > 64:
                integers.append(pattern >> 64 & (1 << 64) - 1)
    record.integers[: len(integers)] = integers
    run(ctypes.addressof(record))
    result = libcall.signature.result
    if result.kind == "float":
        pattern = record.float_result
        if result.bits == 16:
            assert record.results[0] & 0xFFFFFFFF == pattern & 0xFFFF, "eax has it too"
    else:
        pattern = record.results[0] | record.results[1] << 64
    return pattern & result.mask


ROUNDED = [
    name
    for name, row in DECLARATIONS.items()
    if row.family in ("conversions", "half_precision", "powi")
]
NEAREST, DOWN, UP, ZERO = (0x1F80 | mode << 13 for mode in range(4))
FLUSHED = 0x8040  # flush to zero, denormals are zeros


@pytest.fixture(scope="module")
def run(load_routines):
    from asm_libcalls.x86_64.assembler import sequence

    stub = load_routines(sequence("call_with_mxcsr", call_with_mxcsr))
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(stub.routine("call_with_mxcsr"))


@pytest.fixture(scope="module", params=["served", "every CPU"])
def address_of(request, load_routines):
    if request.param == "served":
        return lambda libcall: libcall.address
    image = load_for(load_routines, frozenset())
    return lambda libcall: image.routine(libcall.symbol)


@pytest.mark.parametrize("name", ROUNDED)
def test_mxcsr_does_not_matter(name, run, address_of):
    libcall = llvm.LIBCALLS[name]
    record = Record(target=address_of(libcall))
    cases = list(checker_of(libcall).edge_cases(libcall))
    flushed = 0 if libcall.declaration.family == "powi" else FLUSHED
    for mode in (NEAREST, DOWN, UP, ZERO, UP | flushed):
        record.mxcsr = mode
        for case in cases[:: len(cases) // 200 + 1]:
            expected = libcall.fallback.call_bits(*case)
            assert invoke(run, record, libcall, case) == expected, [hex(p) for p in case]
            assert record.after & ~0x3F == mode


RESTS = (
    0x7F800001_7F800001_7F800001_7F800001,  # signalling NaNs of f32
    0x7C017C01_7C017C01_7C017C01_7C017C01,  # and of f16
    0x7149F2CA_7149F2CA_7149F2CA_7149F2CA,  # 1e30, which no f16 can be
    0x00000001_00000001_00000001_00000001,  # subnormal
)


@pytest.mark.parametrize("name", ROUNDED)
def test_the_rest_of_a_register_does_not_matter(name, run, address_of):
    """A caller leaves anything there. Neither the result nor MXCSR's exceptions show it."""
    libcall = llvm.LIBCALLS[name]
    record = Record(target=address_of(libcall), mxcsr=NEAREST)
    cases = list(checker_of(libcall).edge_cases(libcall))
    for case in cases[:: len(cases) // 100 + 1]:
        expected = invoke(run, record, libcall, case), record.after
        for rest in RESTS:
            found = invoke(run, record, libcall, case, rest), record.after
            assert found == expected, ([hex(p) for p in case], hex(rest))


@pytest.mark.parametrize("name", [n for n in ROUNDED if n.startswith(("float", "fix"))])
def test_integers_from_and_to_floats_raise_no_exceptions(name, run, address_of):
    """Not even unmasked ones: the process would end."""
    libcall = llvm.LIBCALLS[name]
    record = Record(target=address_of(libcall), mxcsr=0)
    for case in checker_of(libcall).edge_cases(libcall):
        assert invoke(run, record, libcall, case) == libcall.fallback.call_bits(*case)
        assert record.after == 0


def test_a_rounding_mode_matters_to_what_does_not_care_for_it(load_routines, machine_code):
    """The stub sets it indeed: libgcc's conversion, a bare ``cvtsi2sd``, follows it."""
    from asm_libcalls.emitter.image import Routine
    from asm_libcalls.x86_64.assembler import sequence

    code = b"\xf2\x48\x0f\x2a\xc7\xc3"  # cvtsi2sd xmm0, rdi; ret
    stub = load_routines(
        sequence("call_with_mxcsr", call_with_mxcsr), Routine("bare", code, len(code))
    )
    run = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(stub.routine("call_with_mxcsr"))
    record = Record(target=stub.routine("bare"))
    found = set()
    for mode in (NEAREST, UP):
        record.mxcsr = mode
        found.add(invoke(run, record, llvm.LIBCALLS["floattidf"], [(1 << 53) + 1]))
    assert len(found) == 2
