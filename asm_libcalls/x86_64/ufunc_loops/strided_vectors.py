"""Loads and stores of eight 64-bit elements at equal distances, as one vector."""

from __future__ import annotations

from typing import Any

from peachpy.x86_64 import (
    LEA, VEXTRACTF128, VEXTRACTF64X4, VINSERTF128, VINSERTF64X4, VMOVDQA64, VMOVHPD, VMOVSD, rax,
    rdx, xmm4, xmm5, xmm6, xmm7, ymm4, ymm6, zmm4,
)  # fmt: skip


def _places(pointer: Any, step: Any) -> list[Any]:
    # The addresses of eight elements: an address holds one register and another times 1, 2, 4 or 8.
    LEA(rax, [pointer + step * 4])
    LEA(rdx, [step + step * 2])
    return [
        place
        for base in (pointer, rax)
        for place in (base, base + step * 1, base + step * 2, base + rdx * 1)
    ]


def pack(zmm: Any, pointer: Any, step: Any) -> None:
    """Load eight elements, and move the pointer beyond them. Clobbers rax, rdx, xmm4 to xmm7."""
    places = iter(_places(pointer, step))
    for xmm in (xmm4, xmm5, xmm6, xmm7):
        VMOVSD(xmm, [next(places)])
        VMOVHPD(xmm, xmm, [next(places)])
    VINSERTF128(ymm4, ymm4, xmm5, 1)
    VINSERTF128(ymm6, ymm6, xmm7, 1)
    VINSERTF64X4(zmm, zmm4, ymm6, 1)
    LEA(pointer, [pointer + step * 8])


def unpack(pointer: Any, step: Any, zmm: Any) -> None:
    """Store eight elements, and move the pointer beyond them. Clobbers rax, rdx, xmm4 to xmm7."""
    places = iter(_places(pointer, step))
    VMOVDQA64(zmm4, zmm)
    VEXTRACTF128(xmm5, ymm4, 1)
    VEXTRACTF64X4(ymm6, zmm4, 1)
    VEXTRACTF128(xmm7, ymm6, 1)
    for xmm in (xmm4, xmm5, xmm6, xmm7):
        VMOVSD([next(places)], xmm)
        VMOVHPD([next(places)], xmm)
    LEA(pointer, [pointer + step * 8])
