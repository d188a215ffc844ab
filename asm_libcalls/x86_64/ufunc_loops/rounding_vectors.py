"""The instructions that round vectors of floats, with one interface for all instruction sets.

This module has the differences between the instruction sets; ``ufunc_loops/rounding.py`` has the
loops.

Source: Intel SDM volume 2, ROUNDPS, VRNDSCALEPS and PREFETCHW.
"""

from __future__ import annotations

from typing import Any

import peachpy.x86_64 as x86

from asm_libcalls.x86_64.cpu import ICE_LAKE

REQUIRES = frozenset({"sse4_1"})
"""CPU features without which NumPy's own loops serve."""


def places(pointer: Any, step: Any, step_3: Any) -> tuple[Any, ...]:
    """Return the addresses of four elements, a step apart; `step_3` is three steps."""
    return (pointer, pointer + step * 1, pointer + step * 2, pointer + step_3 * 1)


class Isa:
    """The instructions of one instruction set, SSE4.1 in this base class."""

    prefix = ""  # of the names of its instructions
    vector_bytes = 16
    packed_bytes = 16  # bytes of such a vector: 16 or 32
    loads_every_second = False  # whether it has load_every_second
    masks_every_second = False  # whether it has begin_masking and round_every_second
    has_prefetch = False  # whether PREFETCHW can be executed (some CPUs run it as a no-op)

    def __init__(self, size: int, immediate: int) -> None:
        self.size = size
        self.immediate = immediate
        self.precision = {4: "S", 8: "D"}[size]
        self.xmm = (x86.xmm0, x86.xmm1, x86.xmm2, x86.xmm3, x86.xmm4, x86.xmm5)
        self.vector: tuple[Any, ...] = self.xmm  # at least six, as wide as the vectors
        # four, in which elements from anywhere are packed
        self.packed: tuple[Any, ...] = self.xmm[:4]
        self.distant: Isa = self  # the instructions for arrays beyond the first-level cache

    def instruction(self, name: str) -> Any:
        """Return the instruction for this precision: ``ROUNDP`` is ``ROUNDPS`` or ``VROUNDPD``."""
        return getattr(x86, self.prefix + name + self.precision)

    def begin(self) -> None:
        """Prepare registers, on each path that rounds single elements."""

    def end(self) -> None:
        """Leave the routine."""
        x86.RET()

    def load_rounded(self, vector: Any, address: Any) -> None:
        """Round a whole vector from memory."""
        self.instruction("MOVUP")(vector, [address])
        self.instruction("ROUNDP")(vector, vector, self.immediate)

    def store(self, address: Any, vector: Any) -> None:
        """Store a whole vector."""
        self.instruction("MOVUP")([address], vector)

    def stream(self, address: Any, vector: Any) -> None:
        """Store a whole vector to an aligned address, non-temporally."""
        self.instruction("MOVNTP")([address], vector)

    def load_rounded_one(self, xmm: Any, address: Any) -> None:
        """Round one element from memory."""
        # Not in ROUNDSS, which waits for the old upper half of xmm.
        self.instruction("MOVS")(xmm, [address])
        self.instruction("ROUNDS")(xmm, xmm, self.immediate)

    def store_one(self, address: Any, xmm: Any) -> None:
        """Store one element."""
        self.instruction("MOVS")([address], xmm)

    def begin_packing(self) -> None:
        """Prepare registers for :meth:`load_packed`."""

    def load_packed(self, i: int, pointer: Any, step: Any, step_3: Any) -> None:
        """Load as many elements as packed[i] holds, `step` bytes apart, and advance `pointer`."""
        lanes = 16 // self.size
        for lane, address in enumerate(places(pointer, step, step_3)[:lanes]):
            self.load_lane(self.xmm[i], lane, address)
        x86.LEA(pointer, [pointer + step * lanes])

    def load_lane(self, xmm: Any, lane: int, address: Any) -> None:
        """Load one element; into lane 0 it clears the others."""
        if lane == 0:
            self.instruction("MOVS")(xmm, [address])
        elif self.size == 8:
            x86.MOVHPD(xmm, [address])
        else:
            x86.INSERTPS(xmm, [address], lane << 4)

    def load_every_second(self, i: int, pointer: Any) -> None:
        """Load packed[i] with every second element from `pointer` on, and advance it."""
        raise NotImplementedError

    def begin_masking(self) -> None:
        """Prepare registers for :meth:`round_every_second`."""
        raise NotImplementedError

    def round_every_second(self, source: Any, target: Any) -> None:
        """Round every second element of a vector to the same places of another one."""
        raise NotImplementedError

    def round_packed(self, i: int) -> None:
        """Round packed[i] in place."""
        self.instruction("ROUNDP")(self.packed[i], self.packed[i], self.immediate)

    def round_four(self, sources: tuple[Any, ...], targets: tuple[Any, ...]) -> None:
        """Round four elements from anywhere to anywhere; all loads precede all stores."""
        for xmm, source in zip(self.xmm, sources, strict=False):
            self.load_rounded_one(xmm, source)
        for xmm, target in zip(self.xmm, targets, strict=False):
            self.store_one(target, xmm)

    def store_packed(self, address: Any, i: int) -> None:
        """Store packed[i]."""
        self.instruction("MOVUP")([address], self.packed[i])


class _Avx(Isa):
    """256-bit vectors; three operands, and unaligned memory in any of them."""

    prefix = "V"
    vector_bytes = 32
    has_prefetch = True

    def __init__(self, size: int, immediate: int) -> None:
        super().__init__(size, immediate)
        self.vector = (x86.ymm0, x86.ymm1, x86.ymm2, x86.ymm3, x86.ymm4, x86.ymm5)
        self.xmm_zero = x86.xmm15

    def begin(self) -> None:
        # Source of the upper lanes of VROUNDSS's result; nothing else writes this register.
        x86.VXORPS(self.xmm_zero, self.xmm_zero, self.xmm_zero)

    def end(self) -> None:
        x86.VZEROUPPER()
        x86.RET()

    def load_rounded(self, vector: Any, address: Any) -> None:
        self.instruction("ROUNDP")(vector, [address], self.immediate)

    def load_rounded_one(self, xmm: Any, address: Any) -> None:
        self.instruction("ROUNDS")(xmm, self.xmm_zero, [address], self.immediate)

    def load_lane(self, xmm: Any, lane: int, address: Any) -> None:
        if lane == 0:
            super().load_lane(xmm, lane, address)
        elif self.size == 8:
            x86.VMOVHPD(xmm, xmm, [address])
        else:
            x86.VINSERTPS(xmm, xmm, [address], lane << 4)


class _Avx512(_Avx):
    """512-bit vectors."""

    vector_bytes = 64

    def __init__(self, size: int, immediate: int) -> None:
        super().__init__(size, immediate)
        self.vector = (x86.zmm0, x86.zmm1, x86.zmm2, x86.zmm3, x86.zmm4, x86.zmm5)
        # Zen 4 is one or two percent faster with vectors half as wide beyond the first-level cache.
        self.distant = _Avx(size, immediate)

    def load_rounded(self, vector: Any, address: Any) -> None:
        self.instruction("RNDSCALEP")(vector, [address], self.immediate)


class _IceLake(_Avx512):
    """Packs 32 bytes, by loads into lanes that a mask selects; a shuffle could use one port only.

    The registers are beyond those with dirty upper halves.
    """

    packed_bytes = 32

    def __init__(self, size: int, immediate: int) -> None:
        super().__init__(size, immediate)
        self.packed = (x86.ymm16, x86.ymm17, x86.ymm18, x86.ymm19)
        masks = (x86.k1, x86.k2, x86.k3, x86.k4, x86.k5, x86.k6, x86.k7)
        self.masks = masks[: self.packed_bytes // size - 1]  # of the lanes from 1 on
        # for f64 neither is faster
        self.loads_every_second = self.masks_every_second = size == 4

    def begin_packing(self) -> None:
        for lane, mask in enumerate(self.masks, start=1):
            x86.MOV(x86.eax, 1 << lane)
            x86.KMOVW(mask, x86.eax)

    def load_packed(self, i: int, pointer: Any, step: Any, step_3: Any) -> None:
        for first in range(0, self.packed_bytes // self.size, 4):
            for lane, address in enumerate(places(pointer, step, step_3), start=first):
                self.load_lane(self.packed[i], lane, address)
            x86.LEA(pointer, [pointer + step * 4])

    def load_every_second(self, i: int, pointer: Any) -> None:
        vector, behind = self.packed[i], [pointer + self.packed_bytes]
        x86.VMOVUPS(vector, [pointer])
        # In each half: the even elements of one vector, then those of the other.
        x86.VSHUFPS(vector, vector, behind, 0b10_00_10_00)
        x86.VPERMQ(vector, vector, 0b11_01_10_00)  # and in order
        x86.ADD(pointer, 2 * self.packed_bytes)

    def begin_masking(self) -> None:
        x86.MOV(x86.eax, 0x5555)
        x86.KMOVW(x86.k1, x86.eax)

    def round_every_second(self, source: Any, target: Any) -> None:
        vector, mask = x86.zmm16, x86.k1
        self.instruction("MOVUP")(vector(mask.z), [source])
        self.instruction("RNDSCALEP")(vector, vector, self.immediate)
        self.instruction("MOVUP")(x86.zword[target](mask), vector)

    def load_lane(self, vector: Any, lane: int, address: Any) -> None:
        element = (x86.dword if self.size == 4 else x86.qword)[address]
        if lane == 0:
            self.instruction("MOVS")(vector.as_xmm, element)
        else:
            self.instruction("BROADCASTS")(vector(self.masks[lane - 1]), element)

    def round_four(self, sources: tuple[Any, ...], targets: tuple[Any, ...]) -> None:
        if self.size == 4:  # storing them would take four more shuffles
            super().round_four(sources, targets)
            return
        low, high = self.packed[0], self.packed[1].as_xmm
        for lane, source in enumerate(sources):
            self.load_lane(low, lane, source)
        self.round_packed(0)
        x86.VEXTRACTF64X2(high, low, 1)
        for xmm, (first, second) in ((low.as_xmm, targets[:2]), (high, targets[2:])):
            x86.VMOVSD([first], xmm)
            x86.VMOVHPD([second], xmm)

    def round_packed(self, i: int) -> None:
        self.instruction("RNDSCALEP")(self.packed[i], self.packed[i], self.immediate)


_LEVELS = (
    (frozenset({"avx512f", "avx512vl", ICE_LAKE}), _IceLake),
    (frozenset({"avx512f"}), _Avx512),
    (frozenset({"avx"}), _Avx),
    (REQUIRES, Isa),
)


def best_isa(features: frozenset[str]) -> type[Isa]:
    """Return the instruction set with the widest vectors that these CPU features allow."""
    return next(isa for needed, isa in _LEVELS if needed <= features)
