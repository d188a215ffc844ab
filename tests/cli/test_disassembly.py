"""Disassembly of code in memory, with the names of everything in an image."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from itertools import pairwise

import pytest

from asm_libcalls import LIBCALLS
from asm_libcalls.cli.disassembly import Instruction, disassemble
from asm_libcalls.emitter.image import CODE_PAGE, Image, Reference, Routine, link
from asm_libcalls.emitter.pages import LoadedImage
from asm_libcalls.x86_64.backend import Backend

pytest.importorskip("capstone", reason="the disassembler, of the extra cli")


@pytest.fixture
def loaded() -> Iterator[LoadedImage]:
    """Two routines with every kind of reference, in ordinary memory: nothing runs them."""
    first = Routine(
        "first",
        bytes.fromhex(
            "488b3d 00000000"  # mov rdi, [rip + slot]
            "e8 00000000"  # call second
            "75 f9"  # jne -7, into the call
            "e9 00000000"  # jmp second.inside
            "ff25 00000000"  # jmp [rip + other slot]
            "bf 07000000"  # mov edi, 7: a number, no address
            "e9 00001000"  # jmp far behind the image
        ),
        35,
        (
            Reference(3, "slot_a", is_slot=True),
            Reference(8, "second", is_slot=False),
            Reference(15, "second.inside", is_slot=False),
            Reference(21, "slot_b", is_slot=True),
        ),
    )
    # 0x06 is no instruction in 64-bit mode.
    second = Routine("second", bytes.fromhex("90 c3 06 06"), 4, (), {"second.inside": 1})
    image = link([first, second])
    memory = ctypes.create_string_buffer(image.code.ljust(image.size, b"\0"), image.size)
    result = LoadedImage(image, ctypes.addressof(memory), "buffer")
    result.set_slot("slot_a", 0x1234)
    yield result
    del memory


def test_references_have_names(loaded: LoadedImage) -> None:
    found = disassemble(loaded, "first")
    outside = loaded.address + 35 + 0x100000
    assert [(i.text, i.comment) for i in found] == [
        ("mov rdi, qword ptr [rip + 0xff9]", "slot slot_a = 0x1234"),
        ("call second", ""),
        ("jne first+0x7", ""),
        ("jmp second.inside", ""),
        ("jmp qword ptr [rip + 0xfef]", "slot slot_b = 0x0"),
        ("mov edi, 7", ""),
        (f"jmp {outside:#x}", ""),
    ]
    assert [i.offset for i in found] == [0, 7, 12, 14, 19, 25, 30]
    assert all(i.address == loaded.address + i.offset for i in found)


def test_labels_stand_where_they_are_and_unknown_bytes_are_not_hidden(loaded: LoadedImage) -> None:
    start = loaded.routine("second")
    assert disassemble(loaded, "second") == [
        Instruction(start, 0, "", b"\x90", "nop", ""),
        Instruction(start + 1, 1, "second.inside", b"\xc3", "ret", ""),
        Instruction(start + 2, 2, "", b"\x06\x06", "(unknown)", ""),
    ]


def test_the_end_of_the_code_is_no_part_of_the_last_routine() -> None:
    code = Routine("only", bytes.fromhex("e9 f70f0000"), 5)  # jmp to the end of the code page
    image: Image = link([code])
    memory = ctypes.create_string_buffer(image.code, image.size)
    loaded = LoadedImage(image, ctypes.addressof(memory), "buffer")
    assert len(image.code) == CODE_PAGE
    assert disassemble(loaded, "only")[0].text == "jmp only+0xffc"
    image.code = image.code[:0xFFC]
    assert disassemble(loaded, "only")[0].text == f"jmp {loaded.address + 0xFFC:#x}"


def test_an_unknown_routine_is_a_key_error(loaded: LoadedImage) -> None:
    with pytest.raises(KeyError, match="third"):
        disassemble(loaded, "third")


@pytest.mark.parametrize("name", [n for n, c in LIBCALLS.items() if c.backend == "x86_64"])
def test_every_routine_is_known_to_the_disassembler(name: str, machine_code: Backend) -> None:
    """capstone reads every byte of PeachPy's, and each routine leaves at its end."""
    routine = machine_code.routine_of(name)
    code = machine_code.loaded.code(routine)
    found = disassemble(machine_code.loaded, routine)
    assert b"".join(i.code for i in found) == code
    assert found[0].address == LIBCALLS[name].address
    assert not any(i.text == "(unknown)" for i in found)
    assert found[-1].text.split()[0] in ("ret", "jmp")


def test_traps_are_jumps_to_the_raise(machine_code: Backend) -> None:
    found = disassemble(machine_code.loaded, "i64_sdiv")
    leaving = [before.text for before, i in pairwise(found)
               if i.text == "jmp asm_libcalls_raise_trap"]  # fmt: skip
    assert sorted(leaving) == ["mov edi, 6", "mov edi, 7"]


def test_without_capstone_the_import_fails(
    loaded: LoadedImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "capstone", None)
    with pytest.raises(ImportError, match="capstone"):
        disassemble(loaded, "first")
