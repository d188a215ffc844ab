"""Half precision over all bit patterns: the machine code against NumPy.

Each libcall is called at its C address, from a loop in machine code: the one that serves, and the
one of a wheel's x86-64-v2 image, which has neither F16C nor AVX. NumPy has float16; bfloat16 is the
upper half of a float32, rounded as an integer. The results for NaNs are computed here.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from asm_libcalls.checks.exhaustive import BLOCK, blocks, compare
from asm_libcalls.llvm.binding import default_llvm_binding

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from asm_libcalls.checks.exhaustive import Exhaustive, Ways
    from asm_libcalls.emitter.pages import LoadedImage

OLDEST = "x86-64-v2"


def verify_exhaustively(
    name: str, tell: Callable[[str, int], None] = lambda name, done: None, step: int = 1
) -> Exhaustive:
    """Convert every number with one of :data:`FUNCTIONS` and compare.

    The check ends at the first difference. `tell` is called now and then with the name and the
    number of patterns done. One of every `step` blocks of 32768 patterns is checked.

    Raise RuntimeError if no machine code serves, and Unavailable if there is no x86-64-v2 image and
    no PeachPy to assemble one.
    """
    from asm_libcalls.x86_64.call_loops import NativeLoops

    libcall = default_llvm_binding().libcalls[name]
    if libcall.backend != "x86_64":
        raise RuntimeError(f"no machine code serves {name}: {libcall.reason}")
    loop, oracle, bits = FUNCTIONS[name]
    call_each = NativeLoops().function(loop)
    result = libcall.signature.result
    assert result is not None
    mask, out = np.uint32(result.mask), np.empty(BLOCK, dtype=np.uint32)

    def call(address: int, patterns: Any) -> Any:
        call_each(address, patterns.ctypes.data, out.ctypes.data, patterns.size)
        return out & mask

    ways: Ways = {
        "libcall": functools.partial(call, libcall.address),
        OLDEST: functools.partial(call, _oldest().routine(libcall.symbol)),
    }
    starts = range(0, 1 << bits, BLOCK * step)
    batches = ((ways, patterns, oracle(patterns)) for patterns in blocks(starts))
    return compare(name, ways, batches, tell)


@functools.cache
def _oldest() -> LoadedImage:
    """Return the image for the oldest CPUs that wheels support."""
    from asm_libcalls.x86_64 import code_cache
    from asm_libcalls.x86_64.image_kinds import LEVELS

    loaded = code_cache.load("llvm", LEVELS[OLDEST])
    loaded.keep()
    return loaded


_TINY, _HUGE, _INFINITY = (127 - 27) << 23, (127 + 17) << 23, 0xFF << 23
"""Patterns of f32: of 2**-27, which is an eighth of the least f16; of 2**17; of infinity."""


def _is_nan(patterns: Any) -> Any:
    return (patterns & np.uint32(0x7FFFFFFF)) > np.uint32(_INFINITY)


def _to_half(patterns: Any) -> Any:
    magnitudes = patterns & np.uint32(0x7FFFFFFF)
    sign = patterns >> np.uint32(16) & np.uint32(0x8000)
    # Where NumPy reports an overflow or an underflow, it takes ten times as long.
    if magnitudes.max() < _TINY:
        return sign
    if magnitudes.min() > _HUGE and magnitudes.max() <= _INFINITY:
        return sign | np.uint32(0x7C00)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        wanted = patterns.view(np.float32).astype(np.float16).view(np.uint16).astype(np.uint32)
    quiet = sign | np.uint32(0x7E00)
    quiet |= patterns >> np.uint32(13) & np.uint32(0x3FF)
    return np.where(_is_nan(patterns), quiet, wanted)


def _from_half(patterns: Any) -> Any:
    halves = patterns.astype(np.uint16)
    with np.errstate(invalid="ignore"):
        wanted = halves.view(np.float16).astype(np.float32).view(np.uint32)
    nan = (patterns & np.uint32(0x8000)) << np.uint32(16) | np.uint32(0x7F800000)
    nan |= (patterns & np.uint32(0x3FF)) << np.uint32(13)
    return np.where((patterns & np.uint32(0x7FFF)) > np.uint32(0x7C00), nan, wanted)


def _to_bfloat(patterns: Any) -> Any:
    upper = patterns >> np.uint32(16)
    wanted = (patterns + np.uint32(0x7FFF) + (upper & np.uint32(1))) >> np.uint32(16)
    inexact = (patterns & np.uint32(0xFFFF)) != 0
    quiet = upper | inexact.astype(np.uint32) << np.uint32(6)
    return np.where(_is_nan(patterns), quiet, wanted)


def _from_bfloat(patterns: Any) -> Any:
    return patterns << np.uint32(16)


FUNCTIONS: dict[str, tuple[str, Callable[[Any], Any], int]] = {
    "truncsfhf2": ("(f32) -> f32", _to_half, 32),
    "extendhfsf2": ("(f32) -> f32", _from_half, 16),
    "gnu_f2h_ieee": ("(f32) -> u32", _to_half, 32),
    "gnu_h2f_ieee": ("(u32) -> f32", _from_half, 16),
    "truncsfbf2": ("(f32) -> f32", _to_bfloat, 32),
    "extendbfsf2": ("(f32) -> f32", _from_bfloat, 16),
}
"""By name: the loop that calls it, the oracle on an array of patterns, and a pattern's bits."""
