"""Images as shared objects: valid for dynamic linkers, debuggers and their tools."""

from __future__ import annotations

import shutil
import struct

import pytest
from child_process import run_program
from elf_files import ElfFile

from asm_libcalls.emitter import image_file
from asm_libcalls.emitter.image import Image, link
from asm_libcalls.x86_64.image_kinds import IMAGES, LEVELS, architecture_level

KEY = bytes(range(image_file.KEY_SIZE))
LOAD, DYNAMIC, EH_FRAME, STACK = 1, 2, 0x6474E550, 0x6474E551
EXECUTE, WRITE, READ = 1, 2, 4
PAGE = 4096


def made(name: str, level: str) -> tuple[Image, bytes]:
    pytest.importorskip("peachpy", reason="there is nothing to assemble an image with")
    kind = IMAGES[name]
    image = link(kind.assemble(LEVELS[level]))
    packed = image_file.pack(
        image, KEY, "", level=architecture_level(LEVELS[level]), exports=kind.exported()
    )
    return image, packed


@pytest.fixture(
    params=[(n, lv) for n in IMAGES for lv in ("x86-64-v2", "x86-64-v4-erms")], ids=".".join
)
def case(request):
    return made(*request.param)


def test_what_is_mapped(case):
    image, content = case
    elf = ElfFile(content)
    assert (elf.type, elf.machine, elf.entry) == (3, 62, 0)
    loads = [segment for segment in elf.segments if segment.kind == LOAD]
    assert [segment.flags for segment in loads] == [READ, READ | EXECUTE, READ | WRITE]
    end = 0
    for segment in loads:
        assert segment.offset == segment.address  # so congruent, whatever a page is
        assert segment.file_size == segment.size
        assert segment.alignment == PAGE
        assert segment.address // PAGE >= -(-end // PAGE)  # no two share a page
        end = segment.address + segment.size
    _, code, data = loads
    assert content[code.offset : code.offset + code.size] == image.code
    assert data.address - code.address == len(image.code)  # the slots are where code looks for them
    assert not any(elf.data(".data"))
    assert len(elf.data(".data")) >= image.size - len(image.code)
    (stack,) = (segment for segment in elf.segments if segment.kind == STACK)
    assert stack.flags == READ | WRITE
    for section in elf.sections[1:]:
        assert not section.alignment or section.offset % section.alignment == 0
        if section.flags & 2:
            assert any(
                s.address <= section.address
                and section.address + section.size <= s.address + s.size
                for s in loads
            ), section
        else:
            assert section.address == 0


def test_what_the_dynamic_linker_reads(case):
    _, content = case
    elf = ElfFile(content)
    entries = dict(struct.iter_unpack("<qQ", elf.data(".dynamic")))
    assert entries == {
        4: elf.section(".hash").address,
        5: elf.section(".dynstr").address,
        6: elf.section(".dynsym").address,
        10: elf.section(".dynstr").size,
        11: 24,
        0: 0,
    }  # no library is needed, nothing relocated, nothing run
    (dynamic,) = (segment for segment in elf.segments if segment.kind == DYNAMIC)
    assert dynamic.address == elf.section(".dynamic").address
    for symbol in elf.symbols(".dynsym"):
        assert elf.look_up(symbol.name) == symbol
        assert (symbol.binding, symbol.kind) == (1, 2)
    assert elf.look_up("wasmtime_f64_sqrt") is None


def test_symbols(case):
    image, content = case
    elf = ElfFile(content)
    symbols = elf.symbols(".symtab")
    first_global = elf.section(".symtab").info - 1
    assert all(symbol.binding == 0 for symbol in symbols[:first_global])
    assert all(symbol.binding == 1 for symbol in symbols[first_global:])
    assert {s for s in symbols if s.binding} == set(elf.symbols(".dynsym"))
    code_at = elf.section(".text").address
    places = {(s.address - code_at, s.size) for s in symbols if s.kind == 2}
    assert places == {image.routines[name] for name in image.frames}
    slots = {s.name: s.address - code_at for s in symbols if s.kind == 1}
    assert slots == {f"slot.{name}": at for name, at in image.slots.items()}


def test_names():
    _, content = made("backend", "x86-64-v3")
    names = {symbol.name for symbol in ElfFile(content).symbols(".dynsym")}
    assert {"wasmtime_f64_ceil", "wasmtime_memory_copy", "asm_libcalls_enter"} <= names
    assert "asm_libcalls::function_state_clear" in names
    assert not any("builtin." in name for name in names)  # stencils


def test_frames_can_be_found(case):
    """The index has every function, in order, and leads to its description."""
    image, content = case
    elf = ElfFile(content)
    index_at, frames_at = elf.section(".eh_frame_hdr").address, elf.section(".eh_frame").address
    (segment,) = (segment for segment in elf.segments if segment.kind == EH_FRAME)
    assert segment.address == index_at
    index = elf.data(".eh_frame_hdr")
    assert index[:4] == b"\x01\x1b\x03\x3b"
    distance, count = struct.unpack_from("<iI", index, 4)
    assert index_at + 4 + distance == frames_at
    rows = [struct.unpack_from("<ii", index, 12 + 8 * i) for i in range(count)]
    assert rows == sorted(rows)
    found = set()
    for function, description in rows:
        at = index_at + description
        size, common, start, length = struct.unpack_from("<IIiI", content, at)
        assert size % 8 == 4  # and the four bytes that hold it
        assert at + 4 - common == frames_at
        assert at + 8 + start == index_at + function
        found.add((index_at + function - elf.section(".text").address, length))
    assert found == {image.routines[name] for name in image.frames}


def test_the_cpu_that_it_needs():
    for level, features in LEVELS.items():
        needed = int(level[len("x86-64-v")])
        assert architecture_level(features) == needed
        _, content = made("backend", level)
        *_, bits, _ = struct.unpack("<8I", ElfFile(content).data(".note.gnu.property"))
        assert bits == (1 << needed) - 1
    assert architecture_level(frozenset({"sse3"})) == 1
    assert architecture_level(LEVELS["x86-64-v4-erms"] - {"erms"}) == 4


@pytest.mark.parametrize(
    "tool", ["readelf -aW", "readelf -wF", "eu-elflint --gnu-ld", "objdump -dr"]
)
def test_tools_find_nothing_wrong(tool, case, tmp_path):
    program, *options = tool.split()
    if shutil.which(program) is None:
        pytest.skip(f"no {program}")
    path = tmp_path / "image.so"
    path.write_bytes(case[1])
    done = run_program(program, *options, path)
    assert done.stderr == ""
    if program == "eu-elflint":
        assert done.stdout == "No errors\n"


def test_the_same_image_is_the_same_file():
    assert made("backend", "x86-64-v2")[1] == made("backend", "x86-64-v2")[1]
