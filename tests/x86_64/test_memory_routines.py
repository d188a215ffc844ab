"""The memory libcalls as machine code, on VMContexts made by hand, with every variant of the code.

Copies are compared with slices of bytes, in all of the memory, so an extra byte is found.
"""

import ctypes
import platform
import re
import shutil
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("peachpy", reason="the variants are assembled by PeachPy")

from child_process import TESTS
from memory_cases import (
    DISTANCES,
    GARBAGE,
    NOISE,
    PAGE,
    check_copies,
    check_fills,
    expected_copy,
    function,
)
from raw_vmcontext import GuardedPages, RawVMContext

from asm_libcalls import HeapOutOfBounds
from asm_libcalls.emitter import libc
from asm_libcalls.libcalls import DECLARATIONS
from asm_libcalls.vmcontext import InstanceHeader, VMDataSegment, VMMemoryDefinition
from asm_libcalls.x86_64 import cpu, memories, memory_growth
from asm_libcalls.x86_64.bytes import copying, filling, vectors
from asm_libcalls.x86_64.python_functions import STENCIL_PREFIX

VARIANTS = {
    "sse2": frozenset(),
    "sse2-erms": frozenset({"erms"}),
    "avx2": frozenset({"avx2"}),
    "avx2-erms": frozenset({"avx2", "erms"}),
    "avx512": frozenset({"avx2", "avx512vl", "avx512bw"}),
    "avx512-erms": frozenset({"avx2", "avx512vl", "avx512bw", "erms"}),
    "avx512-wide": frozenset({"avx2", "avx512vl", "avx512bw", cpu.WIDE_MOVES}),
    "avx512-wide-erms": frozenset({"avx2", "avx512vl", "avx512bw", "erms", cpu.WIDE_MOVES}),
    "avx512-wide-ice_lake": frozenset(
        {"avx2", "avx512vl", "avx512bw", "erms", cpu.WIDE_MOVES, cpu.ICE_LAKE}
    ),
    "avx2-ice_lake": frozenset({"avx2", "erms", cpu.ICE_LAKE}),
    "sse2-ice_lake": frozenset({"erms", cpu.ICE_LAKE}),
}
WASM_PAGE = 1 << 16
TOP = (1 << 32) - 1


@pytest.fixture(scope="module", params=VARIANTS)
def features(request):
    return VARIANTS[request.param]


@pytest.fixture(scope="module")
def loaded(features, machine_code, load_routines):
    """One variant on executable pages, if this CPU can run it."""
    missing = features - machine_code.cpu.features - cpu.TUNINGS
    if missing:
        pytest.skip(f"the CPU lacks {', '.join(sorted(missing))}")
    return load_routines(*memories.routines(features))


@pytest.fixture
def call(loaded, machine_entry):
    """Call a libcall with patterns of whole registers, traps caught."""

    def run(name, *patterns):
        return machine_entry.call(loaded.routine(name), DECLARATIONS[name].signature, patterns)

    return run


def test_every_variant_assembles(features):
    names = {routine.name for routine in memories.routines(features)}
    served = {name for name, row in DECLARATIONS.items() if row.family == "memories"}
    stencils = {STENCIL_PREFIX + name for name in served}
    others = {copying.MOVE_BYTES, filling.FILL_BYTES, memory_growth.MAKE_ACCESSIBLE}
    assert names == others | served | stencils


def test_every_variant_uses_what_its_cpu_has(features):
    """Encodings as another disassembler reads them: Capstone 5."""
    capstone = pytest.importorskip("capstone", reason="needs the disassembler of the cli extra")
    disassembler = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    lines = {
        routine.name: [
            f"{mnemonic} {operands}"
            for _, _, mnemonic, operands in disassembler.disasm_lite(routine.code, 0)
        ]
        for routine in memories.routines(features)
    }
    everything = [line for routine in lines.values() for line in routine]
    avx512 = "avx512vl" in features
    for line in everything:
        assert "zmm" not in line or cpu.WIDE_MOVES in features
        assert "avx2" in features or not line.startswith("v")
        for number in re.findall(r"\bymm(\d+)", line):
            assert (int(number) >= 16) == avx512, line
    assert ("vzeroupper " in everything) == ("avx2" in features and not avx512)
    strings = {name: [x for x in code if x.startswith("rep ")] for name, code in lines.items()}
    assert any("zmm" in line for line in everything) == (cpu.WIDE_MOVES in features)
    with_movsb = "erms" in features and (
        "avx2" not in features or features & {cpu.WIDE_MOVES, cpu.ICE_LAKE} != set()
    )
    assert (
        strings.pop(copying.MOVE_BYTES) == ["rep movsb byte ptr [rdi], byte ptr [rsi]"] * with_movsb
    )
    with_stosb = "erms" in features
    assert strings.pop(filling.FILL_BYTES) == ["rep stosb byte ptr [rdi], al"] * with_stosb
    assert not any(strings.values())


def test_copies_of_every_small_size(loaded):
    check_copies(loaded, range(301), (0, 1, 8, 17, 31), DISTANCES)


def test_copies_at_every_alignment(loaded):
    check_copies(loaded, (1, 15, 33, 64, 100, 256, 257, 300, 512, 520), range(65), (0, 1, 31, 64))


# Around the sizes where the code changes, and the ends of pages at which it looks.
LONG = sorted(
    {
        size + around
        for size in (384, 512, 640, 1024, vectors.LONG_FROM, 3000, PAGE, 2 * PAGE, 9000, 32768)
        for around in (-129, -128, -1, 0, 1, 15, 127, 128)
    }
)


def test_long_copies(loaded):
    distances = (0, 1, 16, 31, 63, 64, 127, 128, 500, 2000, PAGE - 20, PAGE, PAGE + 1, 2 * PAGE)
    check_copies(loaded, LONG, (0, 5, PAGE - 70), distances)


def test_fills_of_every_small_size(loaded):
    check_fills(loaded, range(301), (0, 1, 2, 8, 15, 16, 31, 33))


def test_long_fills(loaded):
    check_fills(loaded, [*LONG, 40000, 131072], (0, 1, 31, 64, PAGE - 100, PAGE - 1))


def test_fills_of_words(features, machine_code, load_routines):
    """For tables: as many words as it takes for each path, and nothing beside them."""
    if features - machine_code.cpu.features - cpu.TUNINGS:
        pytest.skip("the CPU lacks a feature")
    best = vectors.Vectors(features)
    loaded = load_routines(vectors.routine(filling.FILL_WORDS, filling.fill_words, best))
    signature = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64)
    fill = signature(loaded.routine(filling.FILL_WORDS))
    word, other = 0x1122_3344_5566_7788, 0xAAAA_AAAA_AAAA_AAAA
    pages = GuardedPages(3 << 20)
    counts = [*range(140), *range(250, 262), 500, 511, 512, 513, 600, 1000, 1024, 5000]
    for count in counts:
        for first in (1, 2, 3, 4, 7, 8, 500, 512):
            cells = (ctypes.c_uint64 * (count + 2)).from_address(pages.address + 8 * (first - 1))
            cells[:] = [other] * (count + 2)
            fill(ctypes.addressof(cells) + 8, word, count)
            assert cells[:] == [other, *[word] * count, other], (count, first)
    count = (2 << 20) // 8 + 5
    cells = (ctypes.c_uint64 * (count + 2)).from_address(pages.address + 8)
    fill(ctypes.addressof(cells) + 8, word, count)
    assert {*cells[1:-1]} == {word}
    assert word not in (cells[0], cells[-1])


@given(st.data())
def test_copies_of_any_size(loaded, data):
    length = len(NOISE)
    size = data.draw(st.integers(0, 70_000), "size")
    dst = data.draw(st.integers(0, length - size), "dst")
    near = st.integers(max(0, dst - 2 * size), min(length - size, dst + 2 * size))
    src = data.draw(st.one_of(near, st.integers(0, length - size)), "src")
    pages = GuardedPages(length)
    pages.write(NOISE)
    context = RawVMContext([(pages.address, length)])
    function(loaded, "memory_copy")(context.vmctx, 0, dst, 0, src, size)
    assert pages.read() == expected_copy(NOISE, dst, src, size)


@pytest.mark.parametrize("size", [vectors.STREAM_FROM - 1, vectors.STREAM_FROM + 12345])
@pytest.mark.parametrize(
    "distance", [-(18 << 20), -5000, -1, 1, 4099, 18 << 20], ids=lambda d: f"{d:+}"
)
def test_huge_copies(loaded, size, distance):
    length = 37 << 20
    pages = GuardedPages(length)
    content = bytearray((NOISE + b"prime") * (length // len(NOISE) + 1))[:length]
    pages.write(bytes(content))
    context = RawVMContext([(pages.address, length)])
    dst, src = (7, 7 - distance) if distance < 0 else (7 + distance, 7)
    function(loaded, "memory_copy")(context.vmctx, 0, dst, 0, src, size)
    content[dst : dst + size] = content[src : src + size]
    assert pages.read() == content


def test_huge_fills(loaded):
    length = 3 << 20
    pages = GuardedPages(length)
    context = RawVMContext([(pages.address, length)])
    size = (2 << 20) + 77
    function(loaded, "memory_fill")(context.vmctx, 0, 33, 0xA5, size)
    assert pages.read() == bytes(33) + b"\xa5" * size + bytes(length - 33 - size)


def test_no_byte_outside_is_even_read(child, features, machine_code):
    missing = features - machine_code.cpu.features - cpu.TUNINGS
    if missing:
        pytest.skip(f"the CPU lacks {', '.join(sorted(missing))}")
    done = child(f"""
        from asm_libcalls.emitter import pages
        from asm_libcalls.emitter.image import link
        from asm_libcalls.x86_64 import memories
        from asm_libcalls.x86_64.trampolines import enter_and_raise
        from memory_cases import check_beside_guards

        routines = [*enter_and_raise.routines(), *memories.routines(frozenset({sorted(features)}))]
        sizes = [*range(301), *{LONG}, 70000]
        print(check_beside_guards(pages.load(link(routines)), sizes) > 1000)
        """)
    assert done.stdout == "True\n"


LENGTH = 2 * WASM_PAGE
BOUNDS = {  # dst or src, len, and whether it is inside
    "empty at the start": (0, 0, True),
    "empty at the end": (LENGTH, 0, True),
    "empty one past the end": (LENGTH + 1, 0, False),
    "empty at 2**32 - 1": (TOP, 0, False),
    "one byte at the end": (LENGTH - 1, 1, True),
    "one byte past the end": (LENGTH, 1, False),
    "all": (0, LENGTH, True),
    "all and one": (0, LENGTH + 1, False),
    "a sum of 2**32": (LENGTH, (1 << 32) - LENGTH, False),
    "a sum of 2**32 + 1": (LENGTH, (1 << 32) - LENGTH + 1, False),
    "both 2**32 - 1": (TOP, TOP, False),
    "one byte at 2**32 - 1": (TOP, 1, False),
    "2**32 - 1 bytes": (1, TOP, False),
}


@pytest.fixture
def guarded():
    """A memory of two pages full of noise, and its twin."""
    pages = GuardedPages(LENGTH), GuardedPages(LENGTH)
    pages[0].write(NOISE[:LENGTH])
    pages[1].write(NOISE[LENGTH : 2 * LENGTH])
    return pages


@pytest.mark.parametrize("upper", [0, GARBAGE], ids=["", "garbage above"])
@pytest.mark.parametrize(("at", "size", "inside"), BOUNDS.values(), ids=BOUNDS)
def test_bounds(call, guarded, at, size, inside, upper):
    ours, other = guarded
    context = RawVMContext(
        [(other.address, LENGTH), (ours.address, LENGTH)],
        imported=1,
        segments=[(other.address, LENGTH), (ours.address, LENGTH)],
    )
    vmctx, at, size = context.vmctx, upper | at, upper | size
    zero, one = upper, upper | 1
    ours_before, other_before = ours.read(), other.read()
    position, length = at & TOP, (size & TOP if inside else 0)  # of what changes

    def check(name, *arguments, changed):
        if inside:
            call(name, vmctx, *arguments)
        else:
            with pytest.raises(HeapOutOfBounds):
                call(name, vmctx, *arguments)
        expected = [ours_before, other_before]
        if inside:
            which, content = changed
            expected[which] = content
        assert [ours.read(), other.read()] == expected
        ours.write(ours_before)
        other.write(other_before)

    filled = ours_before[:position] + b"\x77" * length + ours_before[position + length :]
    check("memory_fill", zero, at, upper | 0xFF77, size, changed=(0, filled))
    filled = other_before[:position] + b"\x77" * length + other_before[position + length :]
    check("imported_memory_fill", zero, at, upper | 0xFF77, size, changed=(1, filled))
    # The destination is out of bounds, then the source; the other one is far inside.
    elsewhere = LENGTH - length
    endless = LENGTH if inside else 1 << 40  # bytes, as the check sees it
    context.definitions[0].current_length = context.segments[0].length = endless
    into = (
        ours_before[:position]
        + other_before[elsewhere : elsewhere + length]
        + ours_before[position + length :]
    )
    check("memory_copy", one, at, zero, upper | elsewhere, size, changed=(0, into))
    check("memory_init", one, zero, at, upper | elsewhere, size, changed=(0, into))
    context.definitions[0].current_length = context.segments[0].length = LENGTH
    context.definitions[1].current_length = endless
    out_of = (
        ours_before[:elsewhere]
        + other_before[position : position + length]
        + ours_before[elsewhere + length :]
    )
    check("memory_copy", one, upper | elsewhere, zero, at, size, changed=(0, out_of))
    check("memory_init", one, zero, upper | elsewhere, at, size, changed=(0, out_of))
    # Within each memory.
    context.definitions[1].current_length = LENGTH
    for index, which, before in ((zero, 1, other_before), (one, 0, ours_before)):
        into = before[:position] + before[:length] + before[position + length :]
        check("memory_copy", index, at, index, zero, size, changed=(which, into))
        out_of = before[position : position + length] + before[length:]
        check("memory_copy", index, zero, index, at, size, changed=(which, out_of))


def test_a_memory_of_4_gib(call):
    """The largest memory there is, almost all of it inaccessible: sums of 2**32 are inside."""
    length = 1 << 32
    start = libc.mmap(length, libc.PROT_NONE, flags=libc.MAP_PRIVATE | libc.MAP_ANONYMOUS
                      | libc.MAP_NORESERVE)  # fmt: skip
    last = start + length - WASM_PAGE
    libc.mprotect(last, WASM_PAGE, libc.PROT_READ | libc.PROT_WRITE)
    context = RawVMContext([(start, length)])
    at = length - WASM_PAGE
    call("memory_fill", context.vmctx, 0, TOP, 0x11, 1)
    call("memory_copy", context.vmctx, 0, at, 0, TOP, 1)
    call("memory_copy", context.vmctx, 0, at + 1, 0, at, WASM_PAGE - 1)
    assert ctypes.string_at(last, 2) == b"\x11\x11"
    assert ctypes.c_uint8.from_address(start + TOP).value == 0
    assert call("memory32_size", context.vmctx, 0) == 65536
    for arguments in ((0, TOP, 0, at, 2), (0, at, 0, TOP, 2)):
        with pytest.raises(HeapOutOfBounds):
            call("memory_copy", context.vmctx, *arguments)
    with pytest.raises(HeapOutOfBounds):
        call("memory_fill", context.vmctx, 0, TOP, 0, 2)
    libc.munmap([(start, length)])


def test_an_empty_memory(call):
    """Its base may be null: nothing of it is touched."""
    context = RawVMContext([(0, 0)], segments=[(0, 0)])
    vmctx = context.vmctx
    call("memory_fill", vmctx, 0, 0, 1, 0)
    call("memory_copy", vmctx, 0, 0, 0, 0, 0)
    call("memory_init", vmctx, 0, 0, 0, 0, 0)
    assert call("memory32_size", vmctx, 0) == 0
    for name, arguments in (
        ("memory_fill", (0, 0, 1, 1)),
        ("memory_copy", (0, 0, 0, 0, 1)),
        ("memory_init", (0, 0, 0, 0, 1)),
    ):
        with pytest.raises(HeapOutOfBounds):
            call(name, vmctx, *arguments)


def test_the_memory_that_the_index_names(call):
    """Four memories, two of them imported: memory indices, and defined ones for the others."""
    pages = [GuardedPages(PAGE) for _ in range(4)]
    sizes = [3, 5, 7, 65535]
    context = RawVMContext([(p.address, PAGE) for p in pages], imported=2)
    for i, definition in enumerate(context.definitions):
        definition.current_length = sizes[i] * WASM_PAGE + i
    vmctx = context.vmctx
    for i in range(4):
        call("imported_memory_fill", vmctx, GARBAGE | i, 10, 0x10 + i, 3)
        assert call("imported_memory32_size", vmctx, GARBAGE | i) == sizes[i]
    for i in range(2):
        call("memory_fill", vmctx, GARBAGE | i, 20, 0x20 + i, 3)
        assert call("memory32_size", vmctx, GARBAGE | i) == sizes[2 + i]
    for dst in range(4):
        for src in range(4):
            call("memory_copy", vmctx, dst, 100 + 3 * src, src, 10, 3)
    for i, page in enumerate(pages):
        assert page.read(10, 3) == bytes([0x10 + i] * 3)
        assert page.read(20, 3) == (bytes([0x20 + i - 2] * 3) if i >= 2 else bytes(3))
        assert page.read(100, 12) == bytes([0x10 + src for src in range(4) for _ in range(3)])


def test_data_segments(call):
    pages = GuardedPages(PAGE)
    rows = [NOISE[i * 100 : i * 100 + 40] for i in range(3)]
    buffers = [ctypes.create_string_buffer(row, len(row)) for row in rows]
    context = RawVMContext(
        [(pages.address, PAGE)],
        segments=[(ctypes.addressof(b), len(r)) for b, r in zip(buffers, rows, strict=True)],
    )
    for i, row in enumerate(rows):
        call("memory_init", context.vmctx, 0, i, 50 * i, 0, 40)
        assert pages.read(50 * i, 40) == row
    before = pages.read()
    for _ in range(2):  # dropping twice does nothing more
        call("data_drop", context.vmctx, GARBAGE | 1)
        assert [segment.length for segment in context.segments] == [40, 0, 40]
        assert [s.base for s in context.segments] == [ctypes.addressof(b) for b in buffers]
        call("memory_init", context.vmctx, 0, 1, PAGE, 0, 0)
        for arguments in ((0, 0, 1), (0, 1, 0)):
            with pytest.raises(HeapOutOfBounds):
                call("memory_init", context.vmctx, 0, 1, *arguments)
        assert pages.read() == before
    call("memory_init", context.vmctx, 0, 2, 200, 39, 1)
    assert pages.read(200, 1) == rows[2][39:]


def test_what_the_abi_keeps(loaded, load_routines, features):
    """Callee-saved registers, the stack pointer, DF and MXCSR, on every path through the movers."""
    from native_code import SAVED, compare_saved, mark_saved
    from peachpy.x86_64 import (
        ADD, CALL, CMP, LDMXCSR, MOV, POP, PUSH, RET, STMXCSR, SUB, dword, eax, ecx, rax,
    )  # fmt: skip
    from peachpy.x86_64.registers import rsp

    from asm_libcalls.x86_64.assembler import sequence

    mxcsr = 0x5F80  # every exception masked, round up

    def probe():  # (six arguments, address) -> mask of what the callee changed
        for register in SAVED:
            PUSH(register)
        MOV(rax, [rsp + 8 * (len(SAVED) + 1)])
        SUB(rsp, 24)
        STMXCSR([rsp + 4])
        MOV(dword[rsp], mxcsr)
        LDMXCSR([rsp])
        mark_saved()
        CALL(rax)

        def compare_mxcsr():
            STMXCSR([rsp])
            CMP(dword[rsp], mxcsr)

        compare_saved(compare_mxcsr)
        LDMXCSR([rsp + 4])
        MOV(eax, ecx)
        ADD(rsp, 24)
        for register in reversed(SAVED):
            POP(register)
        RET()

    def flags():  # -> the flags register
        from asm_libcalls.emitter.image import Routine

        return Routine("flags", b"\x9c\x58\xc3", 3)  # pushfq; pop rax; ret

    tools = load_routines(sequence("probe", probe), flags())
    run = ctypes.CFUNCTYPE(ctypes.c_uint32, *[ctypes.c_uint64] * 7)(tools.routine("probe"))
    read_flags = ctypes.CFUNCTYPE(ctypes.c_uint64)(tools.routine("flags"))
    length = 34 << 20
    pages = GuardedPages(length)
    context = RawVMContext([(pages.address, length)], segments=[(pages.address, length)])
    vmctx = context.vmctx
    sizes = (0, 1, 3, 5, 12, 20, 40, 80, 200, 1000, 2000, 3000, PAGE, 5000, 2 << 20, 16 << 20)
    for size in sizes:
        for dst, src in ((0, 17 << 20), (17 << 20, 0), (5, 6), (6, 5), (100, 9000), (9, 9)):
            for name, arguments in (
                ("memory_copy", (0, dst, 0, src, size)),
                ("memory_init", (0, 0, dst, src, size)),
                ("memory_fill", (0, dst, 1, size, 0)),
            ):
                changed = run(vmctx, *arguments, loaded.routine(name))
                assert (changed, read_flags() >> 10 & 1) == (0, 0), (name, size, dst, src)
    for name in ("memory32_size", "imported_memory32_size", "data_drop"):
        assert run(vmctx, 0, 0, 0, 0, 0, loaded.routine(name)) == 0, name


def test_offsets_come_from_the_structures():
    """The fields that the routines read, one by one."""
    assert VMMemoryDefinition.base.offset == 0
    assert VMDataSegment.length.offset == ctypes.sizeof(ctypes.c_size_t)
    header = ctypes.sizeof(InstanceHeader)
    assert [InstanceHeader.memory_pointers_offset(i) for i in (-1, 0, 1)] == [
        -header,
        -header - 16,
        -header - 32,
    ]


@pytest.mark.parametrize(
    ("cpu", "chosen"), [("Nehalem", []), ("IvyBridge", ["erms"]), ("Haswell", ["avx2", "erms"])]
)
def test_on_another_cpu(child, machine_code, cpu, chosen):
    qemu = shutil.which("qemu-x86_64-static") or shutil.which("qemu-x86_64")
    if qemu is None or platform.machine() != "x86_64":
        pytest.skip("no qemu-x86_64-static: install Debian's package qemu-user-static")
    done = child(
        f"import runpy; runpy.run_path({str(TESTS / 'memory_cases.py')!r}, run_name='__main__')",
        command=[qemu, "-cpu", cpu, sys.executable],
        timeout=300,
    )
    cases, *features = done.stdout.split()
    assert int(cases) > 3000
    assert features == chosen
