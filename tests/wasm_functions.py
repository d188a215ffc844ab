"""A function in a module with something of everything around it, and its validated instructions."""

from __future__ import annotations

import json
import os
from pathlib import Path

import wasm_builder as wasm
from wasm_builder import END, EXTERNREF, F32, F64, FUNCREF, I32, I64, i32, module

from asm_libcalls.toy_jit.frontend import opcodes as op
from asm_libcalls.toy_jit.frontend.budget import Budget
from asm_libcalls.toy_jit.frontend.decoder import decode_module
from asm_libcalls.toy_jit.frontend.module import V128, Module
from asm_libcalls.toy_jit.frontend.operands import FUNCTION
from asm_libcalls.toy_jit.frontend.validator import validate_function
from wasm_encoding import encoded

SPEC_TESTS = os.environ.get("WASM_SPEC_TESTS")
NO_SPEC_TESTS = (
    "set WASM_SPEC_TESTS to a folder of NAME/NAME.json (or several, as PATH has them), made by "
    "wabt's `wast2json` from NAME.wast of github.com/WebAssembly/testsuite"
)


def validate_module(binary):
    """Decode and validate a whole module."""
    decoded = decode_module(binary)
    budget = Budget(len(decoded.binary))
    for index in range(decoded.imported_functions, len(decoded.functions)):
        validate_function(decoded, index, budget)
    return decoded


def spec_files():
    folders = SPEC_TESTS.split(os.pathsep) if SPEC_TESTS else []
    return sorted(path for folder in folders for path in Path(folder).glob("*/*.json"))


def spec_modules(path):
    """Yield the commands of a file that have a binary module, and the module."""
    for command in json.loads(path.read_text())["commands"]:
        if command.get("filename", "").endswith(".wasm"):
            yield command, (path.parent / command["filename"]).read_bytes()


TYPES = {
    "i32": I32, "i64": I64, "f32": F32, "f64": F64, "v128": V128, "funcref": FUNCREF,
    "externref": EXTERNREF,
}  # fmt: skip


# Types: 0 [] -> [], 1 [i32] -> [i32], 2 [i32 i64] -> [i64 i32], 3 [] -> [i32 i32].
# Globals: 0 mutable i32, 1 immutable i32, 2 mutable externref.  Tables: 0 funcref, 1 externref.
# Functions: 0 of type 2, 1 the one under test, 2 (which nothing declares) of type 0.
# Its locals: 0 i32, 1 i64, 2 f32, 3 f64, 4 funcref, 5 externref, 6 v128.
LOCALS = [(1, type_) for type_ in (I32, I64, F32, F64, FUNCREF, EXTERNREF, V128)]


def with_context(code: bytes, results: tuple[int, ...] = (), **changes) -> bytes:
    parts = {
        "types": [
            wasm.functype(),
            wasm.functype([I32], [I32]),
            wasm.functype([I32, I64], [I64, I32]),
            wasm.functype([], [I32, I32]),
            wasm.functype([], results),
        ],
        "functions": [2, 4, 0],
        "tables": [b"\x70\x00\x08", b"\x6f\x00\x08"],
        "memories": [b"\x00\x01"],
        "globals_": [
            b"\x7f\x01" + i32(0) + END,
            b"\x7f\x00" + i32(0) + END,
            b"\x6f\x01\xd0\x6f" + END,
        ],
        "elements": [b"\x01\x00\x02\x00\x01", b"\x05\x6f\x01\xd0\x6f" + END],
        "data_count": 1,
        "code": [wasm.body(b"\x00"), wasm.body(code, LOCALS), wasm.body(b"")],
        "data": [b"\x01\x01a"],
    }
    return module(**{**parts, **changes})


def code(text: str) -> bytes:
    """Bytes from opcodes by name and numbers in hexadecimal: ``"i32.const 05 drop"``."""
    parts = []
    for word in text.split():
        opcode = op.OPCODES.get(word)
        if opcode is None:
            parts.append(bytes.fromhex(word))
        else:
            parts.append(encoded(opcode))
    return b"".join(parts)


def stream(text: str, results: tuple[int, ...] = ()):
    """The instructions of function 1: by name, with offsets from where its code begins."""
    binary = with_context(code(text), results)
    decoded = decode_module(binary)
    body = validate_function(decoded, 1)
    assert body.start == decoded.functions[1].end - 1 - len(code(text))
    return [(op.NAMES[opcode], *others) for opcode, *others in body.instructions]


def is_reached(name, immediate) -> bool:
    """Whether control falls through to an instruction of a stream."""
    if name == "else":
        return immediate.reaches_else
    return name != "end" or immediate.reaches_end


def check_streams(binary: bytes) -> None:
    decoded = decode_module(binary)
    for index in range(decoded.imported_functions, len(decoded.functions)):
        check_stream(decoded, index)


def check_stream(decoded: Module, index: int) -> None:
    """Follow the stream as a compiler would, and compare what it says with what is computed."""
    body = validate_function(decoded, index)
    height = 0
    open_frames = []
    jumped_to = set()  # frames, by identity, whose end control comes to from elsewhere
    live = True
    for opcode, immediate, _ in body.instructions:
        assert live == is_reached(op.NAMES[opcode], immediate)
        assert height <= body.max_height
        signature = op.SIGNATURES[opcode]
        if signature:
            height += len(signature[2]) - signature[1]
        elif opcode >= op.VECTORS:
            params, pushed = op.TYPES[opcode]
            height += len(pushed) - len(params)
        elif opcode in (op.BLOCK, op.LOOP, op.IF):
            height -= opcode == op.IF
            assert immediate.height == height - len(immediate.params)
            open_frames.append(immediate)
        elif opcode == op.ELSE:
            assert open_frames[-1] is immediate
            if live:
                jumped_to.add(immediate)
            height, live = immediate.height + len(immediate.params), True
        elif opcode == op.END:
            if immediate.opcode != FUNCTION:
                assert open_frames.pop() is immediate
            if live:
                assert height == immediate.height + len(immediate.results)
            assert immediate.targeted == (immediate in jumped_to)
            if immediate.opcode != op.LOOP:
                live |= immediate in jumped_to
            live |= immediate.opcode == op.IF and not immediate.has_else
            height = immediate.height + len(immediate.results)
        elif opcode in (op.CALL, op.CALL_INDIRECT):
            functype = immediate[-2]
            height += len(functype.results) - len(functype.params) - (opcode == op.CALL_INDIRECT)
        elif opcode in (op.RETURN, op.UNREACHABLE):
            live = False
        elif opcode in (op.BR, op.BR_IF, op.BR_TABLE):
            targets = immediate if opcode == op.BR_TABLE else (immediate,)
            assert all(frame in open_frames or frame.opcode == FUNCTION for frame in targets)
            jumped_to.update(targets)
            live = opcode == op.BR_IF
            height -= opcode == op.BR_IF
        else:
            height += EFFECTS[op.NAMES[opcode]]
    assert opcode == op.END
    assert open_frames == []


# What instructions without a fixed type do to the height.
EFFECTS = {
    name: effect
    for effect, names in (
        (+1, "i32.const i64.const f32.const f64.const local.get global.get ref.null ref.func"),
        (+1, "memory.size table.size"),
        (0, "local.tee memory.grow table.get ref.is_null data.drop elem.drop"),
        (-1, "drop local.set global.set table.grow"),
        (-2, "select table.set"),
        (-3, "memory.init memory.copy memory.fill table.init table.copy table.fill"),
    )
    for name in names.split()
}
