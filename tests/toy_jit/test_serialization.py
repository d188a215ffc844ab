"""Module.serialize and Module.deserialize: the same behaviour, in any process, or a clear error."""

import json
import mmap
import os
import struct

import pytest
from in_threads import in_threads
from jit_modules import Function, build
from serialized_modules import compiled, use

import asm_libcalls
from asm_libcalls import toy_jit
from asm_libcalls.toy_jit.link import serialized
from asm_libcalls.toy_jit.link.listing import listing

pytestmark = pytest.mark.usefixtures("machine_code")

DeserializeError = toy_jit.DeserializeError
deserialize = toy_jit.Module.deserialize


@pytest.fixture(scope="module")
def data():
    return compiled().serialize()


def describe(module):
    return {
        "repr": repr(module),
        "imports": module.imports,
        "exports": module.exports,
        "binary": module.decoded.binary,
        "data": [segment.init for segment in module.decoded.data],
        "names": [module.decoded.function_name(i) for i in range(len(module.decoded.functions))],
    }


# -- the same behaviour


def test_it_behaves_as_the_module_that_was_serialized(data):
    module, loaded = compiled(), deserialize(data)
    assert describe(loaded) == describe(module)
    seen = use(loaded)
    assert seen == use(module)
    assert seen["lane"] == 108
    code, (inner, outer) = seen["trap of caller"]
    assert code == "HEAP_OUT_OF_BOUNDS"
    assert inner.startswith("load at byte 0x")
    assert outer.startswith("caller at byte 0x")


def test_a_start_function_runs():
    called = []
    module = toy_jit.Module(build({"f": Function("->", "call 00")}, {"g": "->"}, start=1))
    toy_jit.Instance(deserialize(module.serialize()), {"m": {"g": lambda: called.append(1)}})
    assert called == [1]


def test_the_bytes_are_the_same_again(data):
    assert deserialize(data).serialize() == data
    assert compiled().serialize() == data


def test_another_process(data, child, tmp_path):
    module = deserialize(data)
    (tmp_path / "module").write_bytes(data)
    (tmp_path / "expected").write_text(json.dumps(use(module)))
    child(
        f"""
        import json
        from pathlib import Path

        from jit_modules import Function, instantiate
        from serialized_modules import compiled, use

        from asm_libcalls import toy_jit

        instantiate({{"f": Function("f32 f64 -> f32", "local.get 00")}})  # has the first type here
        data = Path("module").read_bytes()
        module = toy_jit.Module.deserialize(data)
        assert module.code.address != {module.code.address}
        assert use(module) == json.loads(Path("expected").read_text())
        # No address is in it: not here, where there are others, and not in the one above.
        assert module.serialize() == data
        assert compiled().serialize() == data
        """
    )


def test_stack_maps(data):
    module = toy_jit.Module(
        build({"f": Function("externref -> externref", "call 00 local.get 00")}, {"g": "->"})
    )
    loaded = deserialize(module.serialize())
    assert loaded.code.tables.stack_maps == module.code.tables.stack_maps != {}
    instance = toy_jit.Instance(loaded, {"m": {"g": lambda: asm_libcalls.gc(instance.runtime)}})
    thing = object()
    assert instance.exports["f"](thing) is thing


def test_counters_of_libcalls():
    loaded = deserialize(compiled(count_libcalls=True).serialize())
    other = deserialize(loaded.serialize())
    divide = toy_jit.Instance(loaded, {"m": {"double": abs}}).exports["divide"]
    divide(7, 2), divide(8, 2)
    assert loaded.libcall_counts()["i64_sdiv"] == 2
    assert other.libcall_counts()["i64_sdiv"] == 0


def test_a_listing():
    pytest.importorskip("capstone", reason="pip install capstone, to disassemble")
    module = compiled(listing=True)
    loaded = deserialize(module.serialize())
    index = module.decoded.imported_functions
    for i in range(index, len(module.decoded.functions)):
        pairs = zip(listing(module, i), listing(loaded, i), strict=True)
        assert all(a[1:2] + a[3:] == b[1:2] + b[3:] for a, b in pairs)
    assert any(line.comment == "wasmtime_i64_sdiv" for line in listing(loaded, index))


def test_the_code_is_freed_with_the_module(data):
    from asm_libcalls.runtime.instance import DEFAULT_STACK_MAP_REGISTRY

    before = len(DEFAULT_STACK_MAP_REGISTRY._ranges)
    loaded = deserialize(data)
    assert len(DEFAULT_STACK_MAP_REGISTRY._ranges) == before + 1
    loaded.close()
    assert len(DEFAULT_STACK_MAP_REGISTRY._ranges) == before


def test_in_threads(data):
    first, *others = in_threads(lambda _: use(deserialize(data)), range(8))
    assert all(other == first for other in others)


@pytest.mark.parametrize("kind", [bytearray, memoryview, "mmap"])
def test_any_bytes_like_object(data, kind):
    if kind == "mmap":
        with mmap.mmap(-1, len(data)) as mapped:
            mapped[:] = data
            loaded = deserialize(mapped)
    else:
        loaded = deserialize(kind(data))
    assert use(loaded)["divide"] == -3


def test_a_subclass():
    class Own(toy_jit.Module):
        pass

    assert type(Own.deserialize(compiled().serialize())) is Own


# -- clear errors


def changed(data, **header):
    """Return the bytes with other values in the header, and the right digest."""
    begin = serialized._BEGIN
    end = begin + struct.unpack_from("<Q", data, begin - 8)[0]
    text = json.dumps({**json.loads(data[begin:end]), **header}).encode()
    body = struct.pack("<Q", len(text)) + text + data[end:]
    head = serialized._HEAD.pack(serialized.MAGIC, serialized.FORMAT, begin - 8 + len(body))
    return head + serialized.digest(head, body) + body


def test_changed_does_what_it_says(data):
    assert changed(data) == data


@pytest.mark.parametrize(
    ("bytes_", "message"),
    [
        (b"", "it is not a serialized module: it begins with b''"),
        (b"\x7fELF\2\1\1\0", "it is not a serialized module: it begins with b'.x7fELF"),
        (b"\0asm\1\0\0\0", r"a WebAssembly module; Module\(wasm\) compiles it"),
        (serialized.MAGIC[:7], "it is truncated, to 7 bytes"),
        (serialized.MAGIC, "it is truncated, to 16 bytes"),
    ],
)
def test_something_else(bytes_, message):
    with pytest.raises(DeserializeError, match=message):
        deserialize(bytes_)


def test_truncated_at_any_byte(data):
    for size in (*range(400), *range(400, len(data), 97), len(data) - 1):
        with pytest.raises(DeserializeError):
            deserialize(data[:size])


def test_any_byte_flipped(data):
    for at in (*range(400), *range(400, len(data), 89), len(data) - 1):
        damaged = bytearray(data)
        damaged[at] ^= 1 << at % 8
        with pytest.raises(DeserializeError):
            deserialize(damaged)


def test_bytes_behind_it(data):
    with pytest.raises(DeserializeError, match="it is damaged"):
        deserialize(data + b"\0")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"version": "0.0.1"}, "it was made by asm_libcalls 0.0.1, and this is "),
        ({"runtime": "00"}, "by another build of asm_libcalls of the same version"),
        ({"features": ["amx", "sse4_1", "x87"]}, "for a CPU with amx, x87, which this one has not"),
    ],
)
def test_made_for_something_else(data, header, message):
    with pytest.raises(DeserializeError, match=message):
        deserialize(changed(data, **header))


def test_another_format(data):
    other = data[:16] + struct.pack("<I", 77) + data[20:]
    with pytest.raises(DeserializeError, match="it has format 77, and this version reads"):
        deserialize(other)


def test_fewer_features_are_no_hindrance(data):
    assert use(deserialize(changed(data, features=[])))["divide"] == -3


def test_options():
    data = compiled(inline=True, max_locals=100).serialize()
    deserialize(data, toy_jit.compile_options(inline=True, max_locals=100))
    with pytest.raises(DeserializeError, match="compiled with inline=True, and the options have"):
        deserialize(data, toy_jit.compile_options(max_locals=100))
    with pytest.raises(DeserializeError, match="'max_locals': 100"):
        deserialize(data, toy_jit.compile_options(inline=True))


def test_wrong_types(data):
    with pytest.raises(TypeError, match="data must be bytes-like, got str"):
        deserialize("module.bin")
    with pytest.raises(TypeError, match=r"options must be what compile_options\(\) returns"):
        deserialize(data, {"inline": True})


def test_a_closed_module(data):
    loaded = deserialize(data)
    loaded.close()
    with pytest.raises(ValueError, match="closed"):
        loaded.serialize()


def test_a_serialized_module_is_no_webassembly(data):
    with pytest.raises(toy_jit.InvalidModule, match="magic header"):
        toy_jit.Module(data)


def test_random_bytes():
    for size in (1, 16, 64, 1000):
        with pytest.raises(DeserializeError):
            deserialize(os.urandom(size))
