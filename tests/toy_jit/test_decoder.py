"""The binary format, section by section: what is read, and what is refused, at which byte."""

from __future__ import annotations

import pickle
import time
from random import Random

import pytest
import wasm_builder as wasm
from wasm_builder import END, EXTERNREF, F32, F64, FUNCREF, I32, I64, i32, module, u
from wasm_functions import validate_module

from asm_libcalls.toy_jit.errors import InvalidModule, LimitExceeded, MalformedModule
from asm_libcalls.toy_jit.frontend import opcodes as op
from asm_libcalls.toy_jit.frontend import reader as leb128
from asm_libcalls.toy_jit.frontend.decoder import decode_module
from asm_libcalls.toy_jit.frontend.module import (
    Export,
    FuncType,
    GlobalType,
    Import,
    Limits,
    TableType,
    type_names,
)

EMPTY = wasm.functype()


def refusal(binary: bytes) -> InvalidModule:
    with pytest.raises(InvalidModule) as caught:
        validate_module(binary)
    assert 0 <= caught.value.offset <= len(binary)
    return caught.value


def test_error_says_what_and_where_and_can_be_pickled():
    error = refusal(module(types=[b"\x61\x00\x00"]))
    assert (error.what, error.offset) == ("malformed function type", 11)
    assert str(error) == "malformed function type: at byte 0xb"
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.what, copy.offset) == (MalformedModule, error.what, error.offset)


# -- header, sections


def test_smallest_module():
    assert decode_module(wasm.HEADER).functions == []


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_any_bytes_like_object_will_do(kind):
    assert len(decode_module(kind(wasm.EVERYTHING)).functions) == 4


@pytest.mark.parametrize("other", [8, "asm", None])
def test_nothing_else_will_do(other):
    with pytest.raises(TypeError):
        decode_module(other)


@pytest.mark.parametrize(
    ("binary", "what", "offset"),
    [
        (b"", "unexpected end", 0),
        (b"\0as", "unexpected end", 0),
        (b"\0ASM\1\0\0\0", "magic header not detected", 0),
        (b"asm\0\1\0\0\0", "magic header not detected", 0),
        (b"\0asm", "unexpected end", 4),
        (b"\0asm\1\0\0", "unexpected end", 4),
        (b"\0asm\2\0\0\0", "unknown binary version", 4),
    ],
)
def test_header(binary, what, offset):
    error = refusal(binary)
    assert (error.what, error.offset) == (what, offset)


@pytest.mark.parametrize("id_", [14, 0x7F, 0x80, 0xFF])
def test_unknown_section(id_):
    assert refusal(wasm.HEADER + wasm.section(id_, b"")).what == "malformed section id"


def test_sections_have_one_order_with_data_count_between_element_and_code():
    order = [1, 2, 3, 4, 5, 6, 7, 9, 12, 10, 11]
    content = {id_: wasm.section(id_, b"\x00") for id_ in order}
    assert decode_module(wasm.HEADER + b"".join(content.values())).data_count == 0
    for first in range(len(order)):
        for second in range(first + 1):
            pair = content[order[first]] + content[order[second]]  # swapped, or twice the same
            error = refusal(wasm.HEADER + pair)
            assert error.what == "unexpected content after last section"
            assert error.offset == len(wasm.HEADER) + len(content[order[first]])


@pytest.mark.parametrize("id_", range(13))
def test_section_size_is_exact(id_):
    too_large = wasm.HEADER + bytes([id_]) + u(100) + bytes(99)
    assert refusal(too_large).what == "length out of bounds"
    if id_ not in (0, 8):
        assert refusal(wasm.HEADER + wasm.section(id_, b"\x00\x00")).what == "section size mismatch"
        assert refusal(wasm.HEADER + wasm.section(id_, b"")).what.startswith("unexpected end")


def test_custom_sections_are_allowed_anywhere_and_have_a_name():
    sections = b"".join(
        wasm.custom("x", b"\xff") + wasm.section(id_, b"\x00") for id_ in (1, 2, 3, 4, 5, 6, 7, 9)
    )
    decode_module(wasm.HEADER + sections + wasm.custom("") + wasm.custom("x"))
    for content, what in (
        (b"", "unexpected end"),
        (b"\x02a", "length out of bounds"),
        (b"\x01\x80", "malformed UTF-8"),
    ):
        assert refusal(wasm.HEADER + wasm.section(0, content)).what.startswith(what)


# -- integers and names


@pytest.mark.parametrize(
    ("encoded", "bits", "value"),
    [
        ("00", 32, 0),
        ("7f", 32, 127),
        ("8001", 32, 128),
        ("8000", 32, 0),
        ("ffffffff0f", 32, 0xFFFF_FFFF),
        ("8080808000", 32, 0),
        ("01", 1, 1),
    ],
)
def test_unsigned(encoded, bits, value):
    code = bytes.fromhex(encoded)
    assert leb128.unsigned(code + b"\xff", 0, len(code), bits) == (value, len(code))


@pytest.mark.parametrize(
    ("encoded", "bits", "value"),
    [
        ("7f", 32, -1),
        ("40", 32, -64),
        ("3f", 32, 63),
        ("ffffffff07", 32, 0x7FFF_FFFF),
        ("8080808078", 32, -0x8000_0000),
        ("ffffffff7f", 32, -1),
        ("ffffffff0f", 33, 0xFFFF_FFFF),
        ("8080808070", 33, -(1 << 32)),
        ("ffffffffffffffffff00", 64, (1 << 63) - 1),
        ("8080808080808080807f", 64, -(1 << 63)),
    ],
)
def test_signed(encoded, bits, value):
    code = bytes.fromhex(encoded)
    assert leb128.signed(code + b"\xff", 0, len(code), bits) == (value, len(code))


@pytest.mark.parametrize(
    ("read", "encoded", "bits", "what", "offset"),
    [
        (leb128.unsigned, "ffffffff10", 32, "integer too large", 4),
        (leb128.unsigned, "ffffffff1f", 32, "integer too large", 4),
        (leb128.unsigned, "808080808000", 32, "integer representation too long", 5),
        (leb128.unsigned, "02", 1, "integer too large", 0),
        (leb128.unsigned, "8000", 1, "integer representation too long", 1),
        (leb128.unsigned, "8080", 32, "unexpected end of section or function", 2),
        (leb128.signed, "ffffffff0f", 32, "integer too large", 4),
        (leb128.signed, "8080808070", 32, "integer too large", 4),
        (leb128.signed, "ffffffff4f", 32, "integer too large", 4),
        (leb128.signed, "808080808000", 32, "integer representation too long", 5),
        (leb128.signed, "ffffffff1f", 33, "integer too large", 4),
        (leb128.signed, "80808080808080808001", 64, "integer too large", 9),
        (leb128.signed, "8080808080808080807e", 64, "integer too large", 9),
        (leb128.signed, "8080808080808080808000", 64, "integer representation too long", 10),
        (leb128.signed, "", 64, "unexpected end of section or function", 0),
    ],
)
def test_integers_refused(read, encoded, bits, what, offset):
    code = bytes.fromhex(encoded)
    with pytest.raises(MalformedModule) as caught:
        read(code + b"\x00", 0, len(code), bits)
    assert (caught.value.what, caught.value.offset) == (what, offset)


def by_the_grammar(code, pos, end, bits, is_signed):
    """Read an integer byte by byte (spec 2.0, section 5.2.2): what and where, or value and end."""
    if not bits > 0:
        return "integer representation too long", pos
    if pos == end:
        return "unexpected end of section or function", end
    byte = code[pos]
    if bits < 7:
        low, high = (-1 << bits - 1, 1 << bits - 1) if is_signed else (0, 1 << bits)
        number = (byte & 0x7F ^ 0x40) - 0x40 if is_signed else byte & 0x7F
        if not low <= number < high:
            return "integer too large", pos
    if byte < 0x80:
        return (byte ^ 0x40) - 0x40 if is_signed else byte, pos + 1
    rest, behind = by_the_grammar(code, pos + 1, end, bits - 7, is_signed)
    return (rest if isinstance(rest, str) else (rest << 7) + (byte & 0x7F)), behind


@pytest.mark.parametrize("bits", [32, 33, 64])
@pytest.mark.parametrize("read", [leb128.unsigned, leb128.signed])
def test_any_bytes_are_read_by_the_grammar(read, bits):
    random = Random(bits)
    kinds = (range(256), range(0x80, 256), (0x80, 0xFF), (0, 0x7F, 0x40, 0x3F, 0x0F, 0x10, 1))
    for _ in range(4000):
        code = bytes(random.choice(random.choice(kinds)) for _ in range(random.randrange(13)))
        pos = random.randrange(len(code) + 1)
        end = random.randrange(pos, len(code) + 1)
        try:
            found = read(code, pos, end, bits)
        except MalformedModule as error:
            found = error.what, error.offset
        assert found == by_the_grammar(code, pos, end, bits, read is leb128.signed), (code, pos)


@pytest.mark.parametrize(
    "encoded",
    ["80", "c080", "c1bf", "e08080", "eda080", "edbfbf", "f0808080", "f4908080", "f8", "fe", "c2"],
)
def test_names_are_utf8(encoded):
    name = wasm.sized(bytes.fromhex(encoded))
    for binary in (
        module(types=[EMPTY], imports=[name + b"\x00\x00\x00"]),
        module(types=[EMPTY], imports=[b"\x00" + name + b"\x00\x00"]),
        module(memories=[b"\x00\x00"], exports=[name + b"\x02\x00"]),
    ):
        assert refusal(binary).what == "malformed UTF-8 encoding"


def test_name_section():
    def names(*subsections):
        content = b"".join(wasm.section(id_, content) for id_, content in subsections)
        decoded = decode_module(wasm.HEADER + wasm.custom("name", content))
        return decoded.name, decoded.function_names

    of_module = (0, wasm.name("modül"))
    of_functions = (1, wasm.vector([u(0) + wasm.name("f"), u(700) + wasm.name("g")]))
    of_locals = (2, b"\xff")
    assert names(of_module, of_functions, of_locals) == ("modül", {0: "f", 700: "g"})
    for malformed in ((1, b"\xff\xff\xff\xff\x0f"), (1, b"\x01\x00\x01\xff"), (0, b"\x05a")):
        assert names(of_module, malformed) == (None, {})


# -- types, imports, exports


def test_everything_is_decoded():
    decoded = validate_module(wasm.EVERYTHING)
    assert decoded.types[2] == FuncType(bytes([I32, I64]), bytes([I64, I32]))
    assert [repr(decoded.types[1]), str(type_names(bytes([F64, FUNCREF])))] == [
        "<FuncType [i32] -> []>",
        "[f64 funcref]",
    ]
    assert decoded.imports == [
        Import("m", "print", "func", decoded.types[1]),
        Import("m", "table", "table", TableType(FUNCREF, Limits(1, 2))),
        Import("m", "base", "global", GlobalType(I32, False)),
        Import("m", "object", "global", GlobalType(EXTERNREF, False)),
    ]
    assert [function.type_index for function in decoded.functions] == [1, 0, 2, 3]
    assert decoded.tables == [
        TableType(FUNCREF, Limits(1, 2)),
        TableType(EXTERNREF, Limits(3, None)),
    ]
    assert decoded.memories == [Limits(1, 0x1_0000)]
    assert [(global_.type.value, global_.type.mutable) for global_ in decoded.globals] == [
        (I32, False),
        (EXTERNREF, False),
        (I64, True),
        (F32, False),
        (F64, False),
        (FUNCREF, True),
    ]
    assert [global_.init for global_ in decoded.globals] == [
        None,
        None,
        (op.I64_CONST, -(1 << 63)),
        (op.F32_CONST, 0x7FA0_0000),  # a signalling NaN, whose bits survive
        (op.F64_CONST, 1 << 63),
        (op.REF_FUNC, 1),
    ]
    assert (decoded.imported_functions, decoded.imported_tables) == (1, 1)
    assert (decoded.imported_memories, decoded.imported_globals) == (0, 2)
    assert decoded.exports == [
        Export("", "func", 1),
        Export("mem", "memory", 0),
        Export("tab", "table", 1),
        Export("glo", "global", 2),
        Export("ünï", "func", 2),
    ]
    assert (decoded.start, decoded.data_count) == (1, 3)
    assert [
        (element.type, element.mode, element.table, element.offset, element.init)
        for element in decoded.elements
    ] == [
        (FUNCREF, "active", 0, (op.I32_CONST, 0), [(op.REF_FUNC, 1)]),
        (FUNCREF, "passive", 0, None, [(op.REF_FUNC, 1), (op.REF_FUNC, 2)]),
        (FUNCREF, "active", 0, (op.GLOBAL_GET, 0), [(op.REF_FUNC, 2)]),
        (FUNCREF, "declarative", 0, None, [(op.REF_FUNC, 3)]),
        (FUNCREF, "active", 0, (op.I32_CONST, 1), [(op.REF_FUNC, 0)]),
        (EXTERNREF, "passive", 0, None, [(op.REF_NULL, EXTERNREF)]),
        (EXTERNREF, "active", 1, (op.I32_CONST, 2), [(op.GLOBAL_GET, 1)]),
        (FUNCREF, "declarative", 0, None, [(op.REF_NULL, FUNCREF)]),
    ]
    assert [(data.init, data.mode, data.memory, data.offset) for data in decoded.data] == [
        (b"zero", "active", 0, (op.I32_CONST, 3)),
        (b"one", "passive", 0, None),
        (b"two", "active", 0, (op.I32_CONST, 9)),
    ]
    assert decoded.references == {0, 1, 2, 3}
    first = decoded.functions[1]
    assert wasm.sized(decoded.binary[first.start : first.end]).endswith(wasm.INSTRUCTIONS + END)


@pytest.mark.parametrize(
    ("binary", "what"),
    [
        (module(types=[b"\x60\x01\x40\x00"]), "malformed value type"),
        (module(types=[b"\x60\x00\x02\x7f\xff"]), "malformed value type"),
        (module(types=[b"\xe0\x7f\x00\x00"]), "malformed function type"),
        (module(imports=[wasm.imported(0, u(0))]), "unknown type 0"),
        (module(imports=[wasm.imported(5, b"\x00\x00")]), "malformed import kind"),
        (module(imports=[wasm.imported(1, b"\x7f\x00\x00")]), "malformed reference type"),
        (module(imports=[wasm.imported(2, b"\x10\x00\x00")]), "integer too large"),
        (module(imports=[wasm.imported(2, b"\x81\x00\x00\x00")]), "integer representation too"),
        (module(imports=[wasm.imported(3, b"\x7f\x02")]), "malformed mutability"),
        (module(types=[EMPTY], functions=[1], code=[wasm.body(b"")]), "unknown type 1"),
        (module(tables=[b"\x70\x01\x02\x01"]), "size minimum must not be greater than maximum"),
        (module(tables=[b"\x70\x08\x01\x01"]), "integer too large"),
        (module(memories=[b"\x00\x81\x80\x04"]), "memory size must be at most 65536 pages (4GiB)"),
        (module(memories=[b"\x01\x00\x81\x80\x04"]), "memory size must be at most 65536 pages"),
        (module(memories=[b"\x01\x01\x00"]), "size minimum must not be greater than maximum"),
        (module(exports=[wasm.exported("f", 0, 0)]), "unknown function 0"),
        (module(exports=[wasm.exported("t", 1, 0)]), "unknown table 0"),
        (module(exports=[wasm.exported("m", 2, 0)]), "unknown memory 0"),
        (module(exports=[wasm.exported("g", 3, 0)]), "unknown global 0"),
        (module(exports=[wasm.exported("x", 5, 0)]), "malformed export kind"),
        (
            module(
                memories=[b"\x00\x00"],
                tables=[b"\x70\x00\x00"],
                exports=[wasm.exported("x", 1, 0), wasm.exported("x", 2, 0)],
            ),
            "duplicate export name",
        ),
        (module(start=0), "unknown function 0"),
        (
            module(types=[wasm.functype([I32])], imports=[wasm.imported(0, u(0))], start=0),
            "start function",
        ),
        (
            module(types=[wasm.functype([], [I32])], imports=[wasm.imported(0, u(0))], start=0),
            "start function",
        ),
        (module(types=[EMPTY], functions=[0]), "function and code section have inconsistent"),
        (module(code=[wasm.body(b"")]), "function and code section have inconsistent lengths"),
        (
            module(types=[EMPTY], functions=[0], code=[wasm.body(b"")] * 2),
            "function and code section have inconsistent lengths",
        ),
        (module(data_count=1), "data count and data section have inconsistent lengths"),
        (module(data_count=2, data=[b"\x01\x00"]), "data count and data section have inconsis"),
        (module(data_count=0, data=[b"\x01\x00"]), "data count and data section have inconsis"),
    ],
)
def test_refused(binary, what):
    assert refusal(binary).what.startswith(what)


def test_largest_limits():
    tables = [b"\x70\x01\x00\xff\xff\xff\xff\x0f"]
    decoded = decode_module(module(tables=tables, memories=[b"\x01\x80\x80\x04\x80\x80\x04"]))
    assert decoded.tables[0].limits == Limits(0, 0xFFFF_FFFF)
    assert decoded.memories == [Limits(0x1_0000, 0x1_0000)]
    assert decoded.memories[0] != TableType(0x1_0000, decoded.memories[0])
    assert repr(decoded.memories[0]) == "Limits(maximum=65536, minimum=65536)"


# -- segments and constant expressions


@pytest.mark.parametrize(
    ("segment", "what"),
    [
        (b"\x08", "malformed elements segment kind"),
        (b"\x01\x01\x00", "malformed element kind"),
        (b"\x05\x7f\x00", "malformed reference type"),
        (b"\x02\x02" + i32(0) + END + b"\x00\x00", "unknown table 2"),
        (b"\x00" + i32(0) + END + b"\x01\x09", "unknown function 9"),
        (b"\x02\x01" + i32(0) + END + b"\x00\x00", "type mismatch"),  # functions into externref
        (b"\x06\x00" + i32(0) + END + b"\x6f\x00", "type mismatch"),
        (b"\x04" + i32(0) + END + b"\x01\xd0\x6f" + END, "type mismatch"),
        (b"\x05\x70\x01\x41\x00" + END, "type mismatch"),
        (b"\x00\x42\x00" + END + b"\x00", "type mismatch"),
        (b"\x07\x70\xff\xff\xff\xff\x0f", "length out of bounds"),
    ],
)
def test_element_segments_refused(segment, what):
    tables = [b"\x70\x00\x00", b"\x6f\x00\x00"]
    assert refusal(module(tables=tables, elements=[segment])).what.startswith(what)


@pytest.mark.parametrize("flags", [0, 4])
def test_short_element_segments_need_table_0(flags):
    segment = bytes([flags]) + i32(0) + END + b"\x00"
    assert refusal(module(elements=[segment])).what == "unknown table 0"


@pytest.mark.parametrize(
    ("segment", "what"),
    [
        (b"\x03\x00", "malformed data segment kind"),
        (b"\x80\x80\x80\x80\x10", "integer too large"),
        (b"\x02\x01" + i32(0) + END + b"\x00", "unknown memory 1"),
        (b"\x00\x42\x00" + END + b"\x00", "type mismatch"),
        (b"\x01\x01", "length out of bounds"),
    ],
)
def test_data_segments_refused(segment, what):
    assert refusal(module(memories=[b"\x00\x00"], data=[segment])).what.startswith(what)


def test_active_data_needs_a_memory_and_passive_does_not():
    assert refusal(module(data=[b"\x00" + i32(0) + END + b"\x00"])).what == "unknown memory 0"
    assert decode_module(module(data=[b"\x01\x01a"])).data[0].mode == "passive"


@pytest.mark.parametrize(
    ("expression", "what"),
    [
        (b"", "type mismatch"),
        (i32(1) + i32(2), "type mismatch"),
        (wasm.i64(1), "type mismatch"),
        (b"\xd0\x70", "type mismatch"),
        (b"\xd0\x7f", "malformed reference type"),
        (b"\xd2\x07", "unknown function 7"),
        (b"\x23\x01", "constant expression required"),  # mutable
        (b"\x23\x02", "unknown global 2"),  # defined here, just before
        (b"\x23\x03", "unknown global 3"),  # itself
        (b"\x01", "constant expression required"),
        (i32(1) + b"\x45", "constant expression required"),
        (b"\x6a", "type mismatch"),
        (i32(1) + b"\x6a", "type mismatch"),
        (i32(1) + wasm.i64(1) + b"\x6a", "type mismatch"),
        (wasm.i64(1) + wasm.i64(1) + b"\x7c", "type mismatch"),
        (i32(1) + i32(1) + b"\x6d", "constant expression required"),  # i32.div_s
        (b"\xfc\x00", "constant expression required"),
        (b"\x27", "illegal opcode 27"),
        (b"\x41\x80\x80\x80\x80\x10", "integer too large"),
        (b"\x43\x00\x00", "unexpected end of section or function"),
    ],
)
def test_constant_expressions_refused(expression, what):
    imports = [wasm.imported(3, b"\x7f\x00"), wasm.imported(3, b"\x7f\x01")]
    globals_ = [b"\x7f\x00" + i32(0) + END, b"\x7f\x00" + expression + END]
    error = refusal(module(imports=imports, globals_=globals_))
    assert error.what.startswith(what)


def test_functions_that_ref_func_may_name():
    functions = [b"\x00\x0b"] * 6
    binary = module(
        types=[EMPTY],
        functions=[0] * 6,
        tables=[b"\x70\x00\x00"],
        globals_=[b"\x70\x00\xd2\x01" + END],
        exports=[wasm.exported("f", 0, 2)],
        start=0,
        elements=[b"\x03\x00\x01\x03", b"\x05\x70\x01\xd2\x04" + END],
        code=[wasm.sized(function) for function in functions],
    )
    assert decode_module(binary).references == {1, 2, 3, 4}  # not the start function, nor calls


# -- hostile input


@pytest.mark.parametrize("id_", [1, 2, 3, 4, 5, 6, 7, 9, 10, 11])
def test_a_count_that_cannot_be_costs_nothing(id_):
    started = time.thread_time()  # of this thread alone, however busy the machine is
    binary = wasm.HEADER + wasm.section(id_, b"\xff\xff\xff\xff\x0f" + bytes(1000))
    assert refusal(binary).what == "length out of bounds"
    assert time.thread_time() - started < 1


def test_arity_limit():
    for arity in (1000, 1001):
        for types in ([wasm.functype([I32] * arity)], [wasm.functype([], [F64] * arity)]):
            if arity == 1000:
                decode_module(module(types=types))
            else:
                assert type(refusal(module(types=types))) is LimitExceeded


def is_accepted(binary: bytes) -> bool:
    """Say whether `binary` is a module; only InvalidModule says that it is not."""
    try:
        validate_module(binary)
    except InvalidModule as error:
        offset = error.offset
    else:
        return True
    assert 0 <= offset <= len(binary)
    return False


def test_every_truncation_is_refused():
    binary = wasm.EVERYTHING
    accepted = [length for length in range(len(binary)) if is_accepted(binary[:length])]
    # A module may end where a section does; from the third section on, functions lack their code.
    assert [binary[length] for length in accepted] == [1, 2, 3]


def test_every_damaged_byte_gives_a_module_or_a_refusal():
    binary = wasm.EVERYTHING
    accepted = 0
    for offset in range(len(binary)):
        for value in (0x00, 0x01, 0x0B, 0x40, 0x7F, 0x80, 0xFF, binary[offset] ^ 1):
            damaged = binary[:offset] + bytes([value]) + binary[offset + 1 :]
            accepted += is_accepted(damaged)
    assert len(binary) < accepted < 4 * len(binary)  # the rest was really refused
