"""NumPy inner loops for float rounding: the vector forms of what `rounding` does to one number.

The loop function is NumPy's ``PyUFuncGenericFunction``, ``(char **args, intp *n, intp *steps, void
*data)``; steps are in bytes, of any sign, and may be 0. One body serves every instruction set; what
differs between them is in :class:`_Isa`.

Overlap. NumPy hands over operands that do not overlap, that are the same array, or whose input is
read ahead of the output, because it counts on one element being read after the one before it is
written. Every way below keeps to that: no element is loaded after a later one is stored.

Source: Intel SDM volume 2, ROUNDPS and VRNDSCALEPS (the immediates agree where the scale is 0);
NumPy reference, "Universal functions (ufunc) C-API".
"""

from __future__ import annotations

from functools import partial

from asm_libcalls.x86_64.rounding import DIRECTIONS, INEXACT_SUPPRESSED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from asm_libcalls.x86_64.image import Routine

__all__ = ["REQUIRES", "routines"]

REQUIRES = frozenset({"sse4_1"})
"""CPU features without which NumPy's own loops serve."""

_SIZES = {"f32": 4, "f64": 8}


class _Isa:
    """The instructions of one instruction set, with the same arguments for all of them.

    Attributes
    ----------
    vector_bytes : int
    vector : tuple of registers
        At least six, as wide as the vectors.
    """

    vector_bytes = 16

    def __init__(self, size: int, immediate: int) -> None:
        import peachpy.x86_64 as x86

        self.x86 = x86
        self.size = size
        self.immediate = immediate
        self.precision = {4: "S", 8: "D"}[size]
        self.xmm = (x86.xmm0, x86.xmm1, x86.xmm2, x86.xmm3, x86.xmm4, x86.xmm5)
        self.vector: tuple[Any, ...] = self.xmm

    def instruction(self, name: str) -> Any:
        """Return the instruction for this precision: ``ROUNDP`` is ``ROUNDPS`` or ``ROUNDPD``."""
        return getattr(self.x86, name + self.precision)

    def begin(self) -> None:
        """Prepare registers; on each path that rounds single elements."""

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
        """Store a whole vector past the caches, to an aligned address."""
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
        """Load as many elements as an xmm register holds from anywhere."""
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


class _Avx(_Isa):
    """256-bit vectors; three operands, and unaligned memory in any of them."""

    vector_bytes = 32

    def __init__(self, size: int, immediate: int) -> None:
        super().__init__(size, immediate)
        x86 = self.x86
        self.vector = (x86.ymm0, x86.ymm1, x86.ymm2, x86.ymm3, x86.ymm4, x86.ymm5)
        self.xmm_zero = x86.xmm15

    def begin(self) -> None:
        # The upper lanes of VROUNDSS's result; a register that nothing else writes.
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


class _Avx512(_Avx):
    """512-bit vectors."""

    vector_bytes = 64

    def __init__(self, size: int, immediate: int) -> None:
        super().__init__(size, immediate)
        x86 = self.x86
        self.vector = (x86.zmm0, x86.zmm1, x86.zmm2, x86.zmm3, x86.zmm4, x86.zmm5)

    def load_rounded(self, vector: Any, address: Any) -> None:
        self.instruction("VRNDSCALEP")(vector, [address], self.immediate)


_LEVELS = (
    (frozenset({"avx512f"}), _Avx512),
    (frozenset({"avx"}), _Avx),
    (REQUIRES, _Isa),
)


def routines(features: frozenset[str]) -> Iterator[Routine]:
    """Assemble the loops for a CPU with these features, named ``f32_ceil_loop`` and so on."""
    from asm_libcalls.x86_64.assembler import sequence

    isa = next(isa for needed, isa in _LEVELS if needed <= features)
    for value_type, size in _SIZES.items():
        for verb, direction in DIRECTIONS.items():
            instructions = isa(size, direction | INEXACT_SUPPRESSED)
            yield sequence(f"{value_type}_{verb}_loop", partial(_loop, instructions))


def _loop(isa: _Isa) -> None:
    from peachpy.x86_64 import (
        ADD, AND, CMP, JAE, JB, JE, JG, JL, JMP, JNE, JNZ, LABEL, LEA, MOV, RET, SFENCE, SHL, SUB,
        TEST, Label, r8, r9, r10, r11, rax, rcx, rdi, rdx, rsi,
    )  # fmt: skip

    size, width = isa.size, isa.vector_bytes
    reg_in, reg_out, reg_n, reg_in_step, reg_out_step = rdi, rsi, rcx, r8, r9
    reg_streaming = r11
    many, gather, scatter, done = (Label(n) for n in ("many", "gather", "scatter", "done"))

    MOV(reg_streaming, rcx)
    MOV(reg_n, [rsi])
    MOV(reg_in_step, [rdx])
    MOV(reg_out_step, [rdx + 8])
    MOV(reg_out, [rdi + 8])
    MOV(reg_in, [rdi])
    isa.begin()
    CMP(reg_n, 1)
    JG(many)
    JL(done)
    isa.load_rounded_one(isa.xmm[0], reg_in)
    isa.store_one(reg_out, isa.xmm[0])
    LABEL(done)
    RET()

    LABEL(many)
    CMP(reg_in_step, size)
    JNE(gather)
    CMP(reg_out_step, size)
    JNE(scatter)
    CMP(reg_n, width // size)
    JL(scatter)

    # Contiguous, at least one vector. The first and the last vector are loaded before anything is
    # stored and stored after everything is loaded, so that they may overlap what is between them;
    # and what is between begins where the output is aligned to whole vectors.
    stream, not_streaming, singles, last = (
        Label(n) for n in ("stream", "not_streaming", "singles", "last")
    )
    reg_bytes, reg_first, reg_skip = reg_n, r10, rdx
    block, head, tail = isa.vector[0], isa.vector[4], isa.vector[5]
    SHL(reg_bytes, size.bit_length() - 1)  # elements to bytes
    isa.load_rounded(head, reg_in)
    isa.load_rounded(tail, reg_in + reg_bytes * 1 - width)
    MOV(reg_first, reg_out)
    MOV(rax, reg_out)
    AND(rax, width - 1)
    MOV(reg_skip, width)
    SUB(reg_skip, rax)
    AND(reg_skip, -size)  # whole elements, even if the output is not aligned to them
    ADD(reg_in, reg_skip)
    ADD(reg_out, reg_skip)
    SUB(reg_bytes, reg_skip)
    CMP(reg_bytes, reg_streaming)
    JAE(stream)
    LABEL(not_streaming)
    CMP(reg_bytes, 4 * width)
    JB(singles)
    _quads(isa, isa.store)
    LABEL(singles)
    CMP(reg_bytes, width)
    JB(last)
    isa.load_rounded(block, reg_in)
    isa.store(reg_out, block)
    ADD(reg_in, width)
    ADD(reg_out, width)
    SUB(reg_bytes, width)
    JMP(singles)
    LABEL(last)
    isa.store(reg_out + reg_bytes * 1 - width, tail)
    isa.store(reg_first, head)
    isa.end()

    # More than the caches hold: stores that go past them save reading the output's lines first.
    # Not in place, where those lines are read anyway; and such a store must be aligned.
    LABEL(stream)
    CMP(reg_in, reg_out)
    JE(not_streaming)
    TEST(reg_out, width - 1)
    JNZ(not_streaming)
    _quads(isa, isa.stream)
    SFENCE()  # these stores are not in order with those of other threads until then
    JMP(singles)

    # From anywhere to contiguous: elements are packed into xmm registers on the way in.
    LABEL(gather)
    CMP(reg_out_step, size)
    JNE(scatter)
    gather_loop, gather_rest = Label("gather_loop"), Label("gather_rest")
    lanes = 16 // size
    reg_next, reg_in_step_3 = rax, r10
    LEA(reg_in_step_3, [reg_in_step + reg_in_step * 2])
    offsets = (None, reg_in_step * 1, reg_in_step * 2, reg_in_step_3 * 1)[:lanes]
    SUB(reg_n, 2 * lanes)
    JB(gather_rest)
    LABEL(gather_loop)
    isa.load_packed(isa.xmm[0], [reg_in if o is None else reg_in + o for o in offsets])
    LEA(reg_next, [reg_in + reg_in_step * lanes])
    isa.load_packed(isa.xmm[1], [reg_next if o is None else reg_next + o for o in offsets])
    LEA(reg_in, [reg_next + reg_in_step * lanes])
    for i in range(2):
        isa.round_xmm(isa.xmm[i])
        isa.store_xmm(reg_out + 16 * i, isa.xmm[i])
    ADD(reg_out, 32)
    SUB(reg_n, 2 * lanes)
    JAE(gather_loop)
    LABEL(gather_rest)
    ADD(reg_n, 2 * lanes)
    JE(done)

    # From anywhere to anywhere, and the elements that are left of the way above.
    LABEL(scatter)
    scatter_loop, scatter_rest, scatter_one = (
        Label(n) for n in ("scatter_loop", "scatter_rest", "scatter_one")
    )
    reg_out_step_3 = r11
    LEA(reg_in_step_3, [reg_in_step + reg_in_step * 2])
    LEA(reg_out_step_3, [reg_out_step + reg_out_step * 2])
    SUB(reg_n, 4)
    JB(scatter_rest)
    LABEL(scatter_loop)
    for i, offset in enumerate((None, reg_in_step * 1, reg_in_step * 2, reg_in_step_3 * 1)):
        isa.load_rounded_one(isa.xmm[i], reg_in if offset is None else reg_in + offset)
    for i, offset in enumerate((None, reg_out_step * 1, reg_out_step * 2, reg_out_step_3 * 1)):
        isa.store_one(reg_out if offset is None else reg_out + offset, isa.xmm[i])
    LEA(reg_in, [reg_in + reg_in_step * 4])
    LEA(reg_out, [reg_out + reg_out_step * 4])
    SUB(reg_n, 4)
    JAE(scatter_loop)
    LABEL(scatter_rest)
    ADD(reg_n, 4)
    JE(done)
    LABEL(scatter_one)
    isa.load_rounded_one(isa.xmm[0], reg_in)
    isa.store_one(reg_out, isa.xmm[0])
    ADD(reg_in, reg_in_step)
    ADD(reg_out, reg_out_step)
    SUB(reg_n, 1)
    JNZ(scatter_one)
    RET()


def _quads(isa: _Isa, store: Callable[[Any, Any], None]) -> None:
    """Round four vectors at a time, while there are as many; at least four to begin with."""
    from peachpy.x86_64 import ADD, CMP, JAE, LABEL, SUB, Label, rcx, rdi, rsi

    loop = Label(f"{store.__name__}_loop")
    LABEL(loop)
    for i, vector in enumerate(isa.vector[:4]):
        # Each is stored as soon as it is rounded. Four loads and then four stores are slower on
        # Zen 4 by a tenth in the second-level cache and by half in the third.
        isa.load_rounded(vector, rdi + i * isa.vector_bytes)
        store(rsi + i * isa.vector_bytes, vector)
    ADD(rdi, 4 * isa.vector_bytes)
    ADD(rsi, 4 * isa.vector_bytes)
    SUB(rcx, 4 * isa.vector_bytes)
    CMP(rcx, 4 * isa.vector_bytes)
    JAE(loop)
