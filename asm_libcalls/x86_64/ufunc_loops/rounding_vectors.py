"""The instructions that round vectors of floats, with one interface for all instruction sets.

This module has the differences between the instruction sets; ``ufunc_loops/rounding.py`` has the
loops.

Source: Intel SDM volume 2, ROUNDPS, VRNDSCALEPS and PREFETCHW.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["REQUIRES", "Isa", "best_isa"]

REQUIRES = frozenset({"sse4_1"})
"""CPU features without which NumPy's own loops serve."""


class Isa:
    """The instructions of one instruction set, SSE4.1 in this base class.

    Attributes
    ----------
    vector_bytes : int
    vector : tuple of registers
        At least six, as wide as the vectors.
    distant : Isa
        The instructions for arrays beyond the first-level cache.
    has_prefetch : bool
        Whether PREFETCHW can be executed (some CPUs run it as a no-op).
    """

    vector_bytes = 16
    has_prefetch = False

    def __init__(self, size: int, immediate: int) -> None:
        import peachpy.x86_64 as x86

        self.x86 = x86
        self.size = size
        self.immediate = immediate
        self.precision = {4: "S", 8: "D"}[size]
        self.xmm = (x86.xmm0, x86.xmm1, x86.xmm2, x86.xmm3, x86.xmm4, x86.xmm5)
        self.vector: tuple[Any, ...] = self.xmm
        self.distant: Isa = self

    def instruction(self, name: str) -> Any:
        """Return the instruction for this precision: ``ROUNDP`` is ``ROUNDPS`` or ``ROUNDPD``."""
        return getattr(self.x86, name + self.precision)

    def begin(self) -> None:
        """Prepare registers, on each path that rounds single elements."""

    def end(self) -> None:
        """Leave the routine."""
        self.x86.RET()

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
        self.instruction("MOVS")(
            xmm, [address]
        )  # not in ROUNDSS: it waits for xmm's old upper half
        self.instruction("ROUNDS")(xmm, xmm, self.immediate)

    def store_one(self, address: Any, xmm: Any) -> None:
        """Store one element."""
        self.instruction("MOVS")([address], xmm)

    def load_packed(self, xmm: Any, addresses: list[Any]) -> None:
        """Load as many elements as an xmm register holds, from any addresses."""
        first, *others = addresses
        self.instruction("MOVS")(xmm, [first])
        for lane, address in enumerate(others, start=1):
            if self.size == 8:
                self.x86.MOVHPD(xmm, [address])
            else:
                self.x86.INSERTPS(xmm, [address], lane << 4)

    def round_xmm(self, xmm: Any) -> None:
        """Round an xmm register in place."""
        self.instruction("ROUNDP")(xmm, xmm, self.immediate)

    def store_xmm(self, address: Any, xmm: Any) -> None:
        """Store an xmm register."""
        self.instruction("MOVUP")([address], xmm)


class Avx(Isa):
    """256-bit vectors; three operands, and unaligned memory in any of them."""

    vector_bytes = 32
    has_prefetch = True

    def __init__(self, size: int, immediate: int) -> None:
        super().__init__(size, immediate)
        x86 = self.x86
        self.vector = (x86.ymm0, x86.ymm1, x86.ymm2, x86.ymm3, x86.ymm4, x86.ymm5)
        self.xmm_zero = x86.xmm15

    def begin(self) -> None:
        # Source of the upper lanes of VROUNDSS's result; nothing else writes this register.
        self.x86.VXORPS(self.xmm_zero, self.xmm_zero, self.xmm_zero)

    def end(self) -> None:
        self.x86.VZEROUPPER()
        self.x86.RET()

    def load_rounded(self, vector: Any, address: Any) -> None:
        self.instruction("VROUNDP")(vector, [address], self.immediate)

    def store(self, address: Any, vector: Any) -> None:
        self.instruction("VMOVUP")([address], vector)

    def stream(self, address: Any, vector: Any) -> None:
        self.instruction("VMOVNTP")([address], vector)

    def load_rounded_one(self, xmm: Any, address: Any) -> None:
        self.instruction("VROUNDS")(xmm, self.xmm_zero, [address], self.immediate)

    def store_one(self, address: Any, xmm: Any) -> None:
        self.instruction("VMOVS")([address], xmm)

    def load_packed(self, xmm: Any, addresses: list[Any]) -> None:
        first, *others = addresses
        self.instruction("VMOVS")(xmm, [first])
        for lane, address in enumerate(others, start=1):
            if self.size == 8:
                self.x86.VMOVHPD(xmm, xmm, [address])
            else:
                self.x86.VINSERTPS(xmm, xmm, [address], lane << 4)

    def round_xmm(self, xmm: Any) -> None:
        self.instruction("VROUNDP")(xmm, xmm, self.immediate)

    def store_xmm(self, address: Any, xmm: Any) -> None:
        self.instruction("VMOVUP")([address], xmm)


class Avx512(Avx):
    """512-bit vectors."""

    vector_bytes = 64

    def __init__(self, size: int, immediate: int) -> None:
        super().__init__(size, immediate)
        x86 = self.x86
        self.vector = (x86.zmm0, x86.zmm1, x86.zmm2, x86.zmm3, x86.zmm4, x86.zmm5)
        # Zen 4 is one or two percent faster with vectors half as wide beyond the first-level cache.
        self.distant = Avx(size, immediate)

    def load_rounded(self, vector: Any, address: Any) -> None:
        self.instruction("VRNDSCALEP")(vector, [address], self.immediate)


_LEVELS = (
    (frozenset({"avx512f"}), Avx512),
    (frozenset({"avx"}), Avx),
    (REQUIRES, Isa),
)


def best_isa(features: frozenset[str]) -> type[Isa]:
    """Return the instruction set with the widest vectors that these CPU features allow."""
    return next(isa for needed, isa in _LEVELS if needed <= features)
