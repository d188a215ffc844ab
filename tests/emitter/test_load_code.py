"""load_code: a JIT's bytes on executable pages, and its errors."""

from __future__ import annotations

import array
import os
import struct

import pytest
from process_maps import mapping_of

import asm_libcalls
from asm_libcalls.emitter import libc
from asm_libcalls.x86_64 import backend

ADD = bytes.fromhex("8d0437 c3")  # lea eax, [rdi + rsi]; ret
ADD_SIGNATURE = "(u32, u32) -> u32"


@pytest.fixture(autouse=True)
def machine():
    try:
        backend.check_machine()
    except backend.Unavailable as reason:
        pytest.skip(f"no machine code: {reason}")


def run(address: int, *arguments: int) -> int:
    return asm_libcalls.catch_traps(address, ADD_SIGNATURE)(*arguments)


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview, lambda b: array.array("I", b)])
def test_loads_what_is_bytes_like(make):
    assert run(asm_libcalls.load_code(make(ADD)), 40, 2) == 42


def test_takes_the_bytes_of_a_view_with_gaps():
    spread = bytes(byte for pair in zip(ADD, b"\xcc" * len(ADD), strict=True) for byte in pair)
    assert run(asm_libcalls.load_code(memoryview(spread)[::2]), 1, 2) == 3


def test_pages_are_executable_and_not_writable():
    address = asm_libcalls.load_code(ADD)
    assert address % libc.PAGE_SIZE == 0
    assert mapping_of(address).permissions.startswith("r-x")


def test_each_piece_has_its_own_pages_and_none_moves():
    addresses = [asm_libcalls.load_code(ADD + bytes([0xCC] * i)) for i in range(5)]
    assert len(set(addresses)) == 5
    assert [run(address, i, i) for i, address in enumerate(addresses)] == [0, 2, 4, 6, 8]


def test_code_longer_than_a_page_and_constants_relative_to_rip():
    constant = 10_000
    # mov eax, [rip + distance from the end of this instruction]; ret
    code = b"\x8b\x05" + struct.pack("<i", constant - 6) + b"\xc3"
    code = code.ljust(constant, b"\xcc") + struct.pack("<I", 0xDEADBEEF)
    assert run(asm_libcalls.load_code(code), 0, 0) == 0xDEADBEEF


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        ("\xc3", TypeError, "code must be bytes-like, got str"),
        (195, TypeError, "code must be bytes-like, got int"),
        (None, TypeError, "code must be bytes-like, got NoneType"),
        (b"", ValueError, "code must not be empty"),
    ],
)
def test_refuses_what_is_no_code(code, error, message):
    with pytest.raises(error, match=message):
        asm_libcalls.load_code(code)


def test_says_so_where_no_memory_may_be_executable(monkeypatch):
    def refuse(*arguments: object, **keywords: object) -> None:
        raise PermissionError(13, "refused for the test")

    monkeypatch.setattr(libc, "mprotect", refuse)
    monkeypatch.setattr(os, "memfd_create", refuse)
    with pytest.raises(OSError, match=r"refuses executable memory.*refused for the test"):
        asm_libcalls.load_code(ADD)


def test_says_so_on_another_machine(monkeypatch):
    monkeypatch.setattr(backend.os, "uname", lambda: os.uname_result(("", "", "", "", "aarch64")))
    with pytest.raises(OSError, match=r"load_code\(\): this Python runs on aarch64"):
        asm_libcalls.load_code(ADD)


def test_serves_beside_the_fallback(child):
    done = child(
        """
        import asm_libcalls
        address = asm_libcalls.load_code(bytes.fromhex("8d0437c3"))
        print(asm_libcalls.catch_traps(address, "(i32, i32) -> i32")(40, 2))
        """,
        variables={"ASM_LIBCALLS_BACKEND": "fallback"},
    )
    assert done.stdout == "42\n"


FRAMED = bytes.fromhex("55 4889e5 8d0437 5d c3")  # push rbp; mov rbp, rsp; lea; pop rbp; ret


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (FRAMED, "41 0e108602 43 0c0610 0703070c070d070e070f"),
        (b"\xf3\x0f\x1e\xfa" + FRAMED, "45 0e108602 43 0c0610 0703070c070d070e070f"),
        (FRAMED.replace(b"\x89\xe5", b"\x8b\xec"), "41 0e108602 43 0c0610 0703070c070d070e070f"),
        (ADD, None),
    ],
)
def test_functions_are_named(code, expected):
    """With a frame pointer, where the caller is at each instruction is known too."""
    from asm_libcalls.emitter import code_names

    names = {"first": (0, len(code)), "a\nb": (16 + len(code), len(code))}
    address = asm_libcalls.load_code(code + bytes(16) + code, names)
    assert run(address, 40, 2) == run(address + 16 + len(code), 40, 2) == 42
    frames = None if expected is None else bytes.fromhex(expected)
    assert list(code_names.sources[address]()) == [
        (address, len(code), "first", frames),
        (address + 16 + len(code), len(code), "a\\nb", frames),
    ]


@pytest.mark.parametrize("functions", [None, {}])
def test_without_names_nothing_is_announced(functions):
    from asm_libcalls.emitter import code_names

    assert asm_libcalls.load_code(ADD, functions) not in code_names.sources


@pytest.mark.parametrize(
    ("functions", "error", "message"),
    [
        ([("f", (0, 4))], TypeError, "must be a mapping of names to .offset, size., got list"),
        ({1: (0, 4)}, TypeError, "name must be a str that is not empty: 1"),
        ({" ": (0, 4)}, TypeError, "name must be a str"),
        ({"f": 3}, TypeError, "'f' must be at .offset, size., got 3"),
        ({"f": (0, "4")}, TypeError, "'f' must be at .offset, size., got .0, '4'."),
        ({"f": (0, 5)}, ValueError, "within the code of 4 bytes, got offset 0 and size 5"),
        ({"f": (0, 0)}, ValueError, "got offset 0 and size 0"),
        ({"f": (-1, 2)}, ValueError, "got offset -1 and size 2"),
        ({"f": (0.0, 4)}, ValueError, "got offset 0.0 and size 4"),
    ],
)
def test_what_is_said_of_functions_is_checked(functions, error, message):
    with pytest.raises(error, match=r"load_code\(\): .*" + message):
        asm_libcalls.load_code(ADD, functions)
