"""Suite: LLVM's libcalls at the C address, from a loop in machine code, against libgcc's.

Those that F16C has an instruction for are compared with a function of that instruction alone, too.
A call, a return and the loop take six to seven cycles at least, and hide a short function entirely.
"""

from __future__ import annotations

import ctypes
import random
import struct
from functools import partial
from typing import TYPE_CHECKING

from asm_libcalls.benchmark.timing import OURS, Candidate, Case, repeat
from asm_libcalls.llvm.binding import default_llvm_binding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from asm_libcalls.benchmark.peers import Peers
    from asm_libcalls.libcall import Libcall

SUITE = "llvm"
ONE_INSTRUCTION = {
    "truncsfhf2": bytes.fromhex("c4e3791dc000c3"),  # vcvtps2ph xmm0, xmm0, 0; ret
    "extendhfsf2": bytes.fromhex("c4e27913c0c3"),  # vcvtph2ps xmm0, xmm0; ret
}
"""Functions of one instruction of F16C."""
COUNT = 4096
"""Records of one run."""


def cases(peers: Peers, quick: bool) -> Iterator[Case]:
    """Make the cases; none if no machine code serves."""
    binding = default_llvm_binding()
    if binding.loaded is None:
        peers.note(f"suite {SUITE} is left out: {binding.reason}")
        return
    from asm_libcalls.x86_64.call_loops import NativeLoops

    loop = NativeLoops().record_function()
    try:
        libgcc: Any = ctypes.CDLL("libgcc_s.so.1")
    except OSError as error:
        peers.note(f"suite {SUITE} is left out: {error}")
        return
    has_f16c = binding.x86_64 is not None and "f16c" in binding.x86_64.cpu.features
    single = _load_one_instruction() if has_f16c else {}
    for libcall in binding.libcalls.values():
        addresses = {OURS: libcall.address}
        theirs = getattr(libgcc, libcall.symbol, None)
        if theirs is not None:
            addresses["libgcc"] = ctypes.cast(theirs, ctypes.c_void_p).value or 0
        else:
            peers.note(f"{libcall.symbol} has no peer: libgcc has none")
        if libcall.name in single:
            addresses["one instruction"] = single[libcall.name]
        for kind, operands in _operands(libcall):
            records = _records(libcall, operands)
            yield Case(
                SUITE,
                f"{libcall.name} {kind}",
                0,
                COUNT,
                tuple(
                    Candidate(
                        label, repeat(loop, (address, ctypes.addressof(records), COUNT), records)
                    )
                    for label, address in addresses.items()
                ),
            )


def _load_one_instruction() -> dict[str, int]:
    from asm_libcalls.emitter import pages
    from asm_libcalls.emitter.image import Routine, link

    routines = [Routine(name, code, len(code)) for name, code in ONE_INSTRUCTION.items()]
    image = pages.load(link(routines))
    image.keep()
    return {name: image.routine(name) for name in ONE_INSTRUCTION}


def _operands(libcall: Libcall) -> Iterator[tuple[str, Callable[[random.Random], tuple[int, ...]]]]:
    family, parameter = libcall.declaration.family, libcall.signature.parameters[0]
    is_signed = parameter.kind == "integer" and parameter.signed
    if family == "division":
        yield "64 by 32 bits", lambda r: (_wide(r, 33, 63), _wide(r, 2, 32))
        yield "128 by 64 bits, one digit", lambda r: (_wide(r, 65, 100), _wide(r, 63, 63))
        yield "128 by 64 bits, two digits", lambda r: (_wide(r, 100, 126), _wide(r, 8, 30))
        yield "128 by 128 bits", lambda r: (_wide(r, 110, 126), _wide(r, 66, 109))
        yield "128 bits by a power of two", lambda r: (_wide(r, 126, 126), 1 << r.randrange(1, 126))
        if is_signed:
            yield "negative by positive", lambda r: (-_wide(r, 33, 63), _wide(r, 2, 32))
            yield "positive by negative", lambda r: (_wide(r, 33, 63), -_wide(r, 2, 32))
    elif family == "multiplication":
        bits = parameter.bits
        yield "half the bits", lambda r: (_wide(r, 2, bits // 2 - 1), _wide(r, 2, bits // 2 - 1))
        yield "all bits", lambda r: (_wide(r, bits - 8, bits - 1), _wide(r, bits // 4, bits // 2))
    elif family == "shifts":
        yield "any count", lambda r: (r.getrandbits(128), r.randrange(128))
    elif family == "powi":
        powers = {"squares": (2, 2), "cubes": (3, 3), "inverse squares": (-2, -2), "any": (-50, 50)}
        for kind, exponents in powers.items():
            yield kind, partial(_base_and_exponent, parameter.name, exponents)
    elif parameter.kind == "integer" and parameter.bits == 128:
        yield "small", lambda r: (_wide(r, 1, 20),)
        yield "60 bits", lambda r: (_wide(r, 58, 62),)
        yield "64 bits", lambda r: (_wide(r, 64, 64),)
        yield "120 bits", lambda r: (_wide(r, 66, 126),)
        if is_signed:
            yield "negative 60 bits", lambda r: (-_wide(r, 58, 62),)
            yield "negative 120 bits", lambda r: (-_wide(r, 66, 126),)
    elif family == "conversions":
        largest = 15 if parameter.name == "f16" else 62
        yield "below 1", lambda r: (_float(parameter.name, r.uniform(0, 1)),)
        yield (
            "small",
            lambda r: (_float(parameter.name, r.uniform(1, 2) * 2.0 ** r.randrange(largest)),),
        )
        if libcall.signature.result is not None and libcall.signature.result.signed:
            yield "negative", lambda r: (_float(parameter.name, r.uniform(-40000, -1)),)
        if parameter.name != "f16":
            yield (
                "large",
                lambda r: (_float(parameter.name, r.uniform(1, 2) * 2.0 ** r.randrange(64, 126)),),
            )
    else:
        name = "f16" if parameter.kind == "integer" else parameter.name
        yield "normal", lambda r: (_float(name, r.uniform(1, 2) * 2.0 ** r.randrange(-14, 15)),)
        yield "subnormal", lambda r: (_float(name, r.uniform(1, 2) * 2.0 ** r.randrange(-24, -14)),)


def _base_and_exponent(
    name: str, exponents: tuple[int, int], source: random.Random
) -> tuple[int, int]:
    return _float(name, source.uniform(0.9, 1.1)), source.randint(*exponents) & 0xFFFFFFFF


def _wide(source: random.Random, shortest: int, longest: int) -> int:
    bits = source.randint(shortest, longest)
    return source.getrandbits(bits) | 1 << (bits - 1)


def _float(name: str, value: float) -> int:
    if name == "bf16":
        return _float("f32", value) >> 16
    code = {"f16": "<e", "f32": "<f", "f64": "<d"}[name]
    return int.from_bytes(struct.pack(code, value), "little")


_stored = ctypes.create_string_buffer(16)
"""Buffer for second results."""


def _records(libcall: Libcall, make: Callable[[random.Random], tuple[int, ...]]) -> Any:
    from asm_libcalls.x86_64.call_loops import RECORD_WORDS

    source = random.Random(1)
    stored = ctypes.addressof(_stored)
    words = (ctypes.c_uint64 * (COUNT * RECORD_WORDS))()
    for at in range(0, len(words), RECORD_WORDS):
        integers: list[int] = []
        values = (*make(source), stored)
        for value_type, pattern in zip(libcall.signature.parameters, values, strict=False):
            if value_type.kind == "float":
                words[at + RECORD_WORDS - 1] = pattern
            else:
                words_of = pattern & (1 << 64) - 1, pattern >> 64 & (1 << 64) - 1
                integers += words_of[: len(value_type.classes)]
        for i, word in enumerate(integers):
            words[at + i] = word
    return words
