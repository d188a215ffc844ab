"""Jobs for modules of npm packages, one each, done as the package's JavaScript does them.

A job gets a :class:`Host`, which runs a module by one engine or the other, and returns the result,
which must be the same for both. Where Python can do the job too, it checks the result.
"""

from __future__ import annotations

import hashlib
import struct
import tempfile
from pathlib import Path
from typing import Any, Protocol

TEXT = (
    b"The quick brown fox jumps over the lazy dog. "
    b"Pack my box with five dozen liquor jugs; how vexingly quick daft zebras jump! "
) * 200
MIXED = TEXT[:5000] + bytes(range(256)) * 20 + hashlib.sha512(b"seed").digest() * 30


class Host(Protocol):
    """A module in an engine."""

    def call(self, name: str, *arguments: Any) -> Any:
        """Call an export; integers are signed."""

    def value(self, name: str) -> Any:
        """Return the value of an exported global."""

    def read(self, address: int, size: int) -> bytes:
        """Read the memory."""

    def write(self, address: int, data: bytes) -> None:
        """Write the memory."""

    def run(self, arguments: list[str], folder: Path) -> int:
        """Run a program for WASI, whose /data is the folder; return its exit code."""


def words(host: Host, address: int, count: int) -> tuple[int, ...]:
    """Read words of 32 bits."""
    return struct.unpack(f"<{count}I", host.read(address, 4 * count))


# -- Rust, with wasm-bindgen: results that are slices go through a place on the stack


def bindgen(host: Host, name: str, data: bytes, *arguments: int) -> bytes:
    place = host.call("__wbindgen_add_to_stack_pointer", -16)
    at = host.call("__wbindgen_malloc", len(data))
    host.write(at, data)
    host.call(name, place, at, len(data), *arguments)
    start, size = words(host, place, 2)
    result = host.read(start, size)
    host.call("__wbindgen_free", start, size)
    host.call("__wbindgen_add_to_stack_pointer", 16)
    return result


def round_trip(host: Host, compress: str, decompress: str, *arguments: int) -> list[bytes]:
    packed = [bindgen(host, compress, data, *arguments) for data in (b"x", TEXT, MIXED)]
    for data, compressed in zip((b"x", TEXT, MIXED), packed, strict=True):
        assert bindgen(host, decompress, compressed) == data
    assert len(packed[1]) < len(TEXT) / 10
    return packed


def lz4(host: Host) -> Any:
    return round_trip(host, "compress", "decompress")


def snappy(host: Host) -> Any:
    return round_trip(host, "compress_raw", "decompress_raw")


def brotli(host: Host) -> Any:
    return round_trip(host, "compress", "decompress", 128)  # the heap's place of undefined


def source_map(host: Host) -> Any:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

    def number(value: int) -> str:
        rest, text = (-value << 1 | 1 if value < 0 else value << 1), ""
        while True:
            rest, digit = rest >> 5, rest & 31
            text += alphabet[digit | 32 if rest else digit]
            if not rest:
                return text

    steps = [number(3) + "A" + number(line) + number(2) for line in range(4)]
    lines = [",".join([step] * 9) for step in steps]
    mappings = ";".join(lines * 30).encode()
    at = host.call("allocate_mappings", len(mappings))
    host.write(at, mappings)
    parsed = host.call("parse_mappings", at)
    assert parsed
    seen: list[tuple[Any, ...]] = host.seen  # type: ignore[attr-defined]
    host.call("compute_column_spans", parsed)
    host.call("by_generated_location", parsed)
    assert len(seen) == 9 * 4 * 30
    host.call("by_original_location", parsed)
    host.call("free_mappings", parsed)
    return seen


# -- C and C++, with Emscripten, which gives short names to exports


def argon2(host: Host) -> Any:
    host.call("d")  # __wasm_call_ctors
    results = []
    for kind in (0, 1, 2):
        password, salt, size, encoded_size = b"password", b"somesalt", 32, 200
        places = []
        for data in (password, salt, bytes(size), bytes(encoded_size)):
            at = host.call("f", len(data))  # malloc
            host.write(at, data)
            places.append(at)
        error = host.call(
            "e", 2, 256, 1, places[0], len(password), places[1], len(salt), places[2], size,
            places[3], encoded_size, kind, 0x13,
        )  # fmt: skip
        assert error == 0
        results.append((host.read(places[2], size), host.read(places[3], encoded_size)))
    name = results[2][1].split(b"\0")[0]
    assert name.startswith(b"$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$")
    return results


def zstd(host: Host) -> Any:
    host.call("g")  # __wasm_call_ctors
    results = []
    for data in (b"x", TEXT, MIXED):
        source, capacity = host.call("s", len(data)), len(data) + 1000
        target, back = host.call("s", capacity), host.call("s", len(data))
        host.write(source, data)
        size = host.call("m", target, capacity, source, len(data), 7)
        results.append(host.read(target, size))
        assert host.call("r", back, len(data), target, size) == len(data)
        assert host.read(back, len(data)) == data
        for at in (source, target, back):
            host.call("t", at)
    assert results[0][:4] == b"\x28\xb5\x2f\xfd"
    return results


def oniguruma(host: Host) -> Any:
    host.call("__wasm_call_ctors")
    host.call("_embind_initialize_bindings")
    constants = dict(host.seen)  # type: ignore[attr-defined]

    def put(data: bytes) -> int:
        at: int = host.call("omalloc", len(data))
        host.write(at, data)
        return at

    patterns = [rb"(?<year>\d{4})-(\d\d)", rb"\b[A-Z]\w+(?=\s)", rb"(a+)+\1b", rb"(?i)quick|brown"]
    pointers = put(struct.pack(f"<{len(patterns)}I", *map(put, patterns)))
    sizes = put(struct.pack(f"<{len(patterns)}I", *map(len, patterns)))
    scanner = host.call(
        "createOnigScanner", pointers, sizes, len(patterns), 0, constants["ONIG_SYNTAX_DEFAULT"]
    )
    assert scanner
    text = b"Born on 1969-07 in Houston Texas, the QUICK aaaaab and 2026-11 Brown\n" + TEXT[:200]
    at, found, start = put(text), [], 0
    while result := host.call("findNextOnigScannerMatch", scanner, 1, at, len(text), start, 0):
        index, count = words(host, result, 2)
        ends = words(host, result + 8, 2 * count)
        found.append((index, ends))
        start = max(start + 1, ends[1])
    assert found[0][0] == 1
    assert [text[a:b] for _, (a, b, *_) in found][1:3] == [b"1969-07", b"Houston"]
    return found


def harfbuzz(host: Host) -> Any:
    host.call("__wasm_call_ctors")
    results = []
    for text in ("Hello, world", "שלום עולם", "नमस्ते", "e\u0301 \U0001f600"):
        data = text.encode()
        at, length_at = host.call("malloc", len(data)), host.call("malloc", 4096)
        host.write(at, data)
        buffer = host.call("hb_buffer_create")
        host.call("hb_buffer_add_utf8", buffer, at, len(data), 0, -1)
        host.call("hb_buffer_guess_segment_properties", buffer)
        infos = host.call("hb_buffer_get_glyph_infos", buffer, length_at)
        (count,) = words(host, length_at, 1)
        assert count == len(text)
        found = host.read(infos, 20 * count)
        assert list(struct.unpack("<" + "I16x" * count, found)) == [ord(letter) for letter in text]
        results.append(found)
        host.call("hb_buffer_destroy", buffer)
    return results


# -- Zig, Go, AssemblyScript


def md4w(host: Host) -> Any:
    text = (
        b"# Title\n\nSome *text* with `code`, [a link](https://a.b/c?d=e&f) and a list:\n\n- one\n"
    )
    text += b"- **two**\n\n| a | b |\n|---|:-:|\n| 1 | 2 |\n\n```c\nint x;\n```\n" * 20
    place = host.call("allocMem", len(text))
    host.write(place & 0xFFFFFFFF, text)
    result = host.call("render", place, 0x0F07, 2 * len(text), 0, 0)
    output = b"".join(each for (each,) in host.seen)  # type: ignore[attr-defined]
    output += host.read(result & 0xFFFFFFFF, result >> 32)
    assert output.startswith(b"<h1>Title ")
    assert b'<td align="center">2</td>' in output
    return output


def gofmt(host: Host) -> Any:
    host.call("_initialize")
    results = []
    for source in (
        b'package main\nimport ("fmt";"os")\nfunc main(){if x:=1;x>0{fmt.Println( "a",x )}}\n',
        b'package p\ntype T struct{A int;Long string `json:"x"`}\nvar  _ =T{A:1,\nLong:"y"}',
        b"package broken\nfunc {",
    ):
        host.write(host.call("alloc", len(source)), source)
        kind = host.call("format")
        results.append((kind, host.read(host.call("output_ptr"), host.call("output_len"))))
        host.call("dispose")
    assert b'\tif x := 1; x > 0 {\n\t\tfmt.Println("a", x)\n' in results[0][1]
    assert results[2][0] not in (0, 1)
    return results


def as_sha256(host: Host) -> Any:
    results = []
    for data in (b"", b"abc", MIXED[:512], TEXT):
        host.call("init")
        size = host.value("INPUT_LENGTH")
        for start in range(0, len(data), size):
            host.write(host.value("input"), data[start : start + size])
            host.call("update", host.value("input"), len(data[start : start + size]))
        host.call("final", host.value("output"))
        results.append(host.read(host.value("output"), 32))
        assert results[-1] == hashlib.sha256(data).digest()
    return results


def as_sha256_simd(host: Host) -> Any:
    """Four messages of 64 bytes at once, one in each lane."""
    messages = [MIXED[5000 + 64 * i : 5064 + 64 * i] for i in range(4)]
    host.write(host.value("input"), b"".join(messages))
    host.call("batchHash4UintArray64s", host.value("output"))
    result = host.read(host.value("output"), 128)
    assert result == b"".join(hashlib.sha256(message).digest() for message in messages)
    return [result, *as_sha256(host)]


# -- WASI


def flite(host: Host) -> Any:
    """Speak: a program that writes a file, and says on its output what it knows."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "text").write_text("Hello world. This is a test of 1, 2, 3.")
        assert host.run(["flite", "/data/text", "-o", "/data/out.wav"], folder) == 0
        sound = (folder / "out.wav").read_bytes()
    assert sound.startswith(b"RIFF")
    assert len(sound) > 50_000
    return sound


JOBS = {
    "source_map": source_map, "lz4": lz4, "snappy": snappy, "brotli": brotli, "argon2": argon2,
    "argon2_simd": argon2, "zstd": zstd, "oniguruma": oniguruma, "harfbuzz": harfbuzz,
    "md4w": md4w, "gofmt": gofmt, "as_sha256": as_sha256, "as_sha256_simd": as_sha256_simd,
    "flite": flite,
}  # fmt: skip


def _note(host: Any, *arguments: int) -> None:
    host.seen.append(arguments)


def _note_chunk(host: Any, place: int) -> None:
    host.seen.append((host.read(place & 0xFFFFFFFF, (place >> 32) & 0xFFFFFFFF),))


def _note_constant(host: Any, name: int, kind: int, value: float) -> None:
    data = host.read(name, 64)
    host.seen.append((data[: data.index(b"\0")].decode(), int(value)))


def _one(host: Any, *_: Any) -> int:
    return 1


def _nothing(host: Any, *_: Any) -> None:
    return None


def _copy(host: Any, target: int, source: int, size: int) -> int:
    host.write(target & 0xFFFFFFFF, host.read(source & 0xFFFFFFFF, size))
    return target


_EMBIND = [
 "env._embind_register_void", "env._embind_register_bool",
    "env._embind_register_integer", "env._embind_register_float", "env._embind_register_bigint",
    "env._embind_register_std_string", "env._embind_register_std_wstring",
    "env._embind_register_emval", "env._embind_register_memory_view",
]  # fmt: skip

IMPORTS: dict[str, dict[str, Any]] = {
    "source_map": {"env.mapping_callback": _note},
    "md4w": {"env.emitChunk": _note_chunk},
    "brotli": {"__wbindgen_placeholder__.__wbindgen_is_undefined": _one},
    "argon2": {"a.a": _copy},
    "argon2_simd": {"a.a": _copy},
    "oniguruma": {
        **dict.fromkeys(_EMBIND, _nothing),
        "env._embind_register_constant": _note_constant,
        "env.emscripten_memcpy_big": lambda host, *words: (_copy(host, *words), None)[1],
    },
}
"""By job and name: what its imports do, called with the host first. The others are not called."""
