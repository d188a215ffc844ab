"""Features of this CPU and operating system, read with ``cpuid`` and ``xgetbv``; its cache's size.

A feature is reported only if it can be used: the AVX families need the operating system to save
their registers, as XCR0 says.

Source: Intel SDM volume 1, 14.3 (AVX) and 15.2 (AVX-512), volume 2, CPUID and XGETBV; AMD APM
volume 3, appendix E.
"""

from __future__ import annotations

from asm_libcalls.emitter import libc
from asm_libcalls.signatures import c_types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from asm_libcalls.emitter.image import Routine
    from asm_libcalls.emitter.pages import LoadedImage

# Each feature's bit: leaf, subleaf, register (0 eax, 1 ebx, 2 ecx, 3 edx), bit, and the state
# needed in XCR0 (1: SSE and AVX; 2: AVX-512 as well).
FEATURES: dict[str, tuple[int, int, int, int, int]] = {
    "sse3": (1, 0, 2, 0, 0),
    "ssse3": (1, 0, 2, 9, 0),
    "sse4_1": (1, 0, 2, 19, 0),
    "sse4_2": (1, 0, 2, 20, 0),
    "popcnt": (1, 0, 2, 23, 0),
    "fma3": (1, 0, 2, 12, 1),
    "f16c": (1, 0, 2, 29, 1),
    "avx": (1, 0, 2, 28, 1),
    "bmi": (7, 0, 1, 3, 0),
    "avx2": (7, 0, 1, 5, 1),
    "bmi2": (7, 0, 1, 8, 0),
    "erms": (7, 0, 1, 9, 0),
    "avx512f": (7, 0, 1, 16, 2),
    "avx512dq": (7, 0, 1, 17, 2),
    "avx512ifma": (7, 0, 1, 21, 2),
    "avx512cd": (7, 0, 1, 28, 2),
    "avx512bw": (7, 0, 1, 30, 2),
    "avx512vl": (7, 0, 1, 31, 2),
    "fsrm": (7, 0, 3, 4, 0),
    "lzcnt": (0x80000001, 0, 2, 5, 0),
}
"""Features, by PeachPy's names if PeachPy has one."""

SLOW_DIVIDE_64 = "slow_divide_64"
"""A tuning rather than a feature, by LLVM's name: a 64-bit division takes 35 to 95 cycles, even of
small operands, and a 32-bit one about 25. This holds for Intel's CPUs up to Skylake, Intel's small
cores up to Goldmont Plus, and AMD's CPUs before Zen. Later CPUs are fast with small operands.

Source: Intel SDM volume 4, table 2-1 (models); uops.info (DIV and IDIV, r64 and r32).
"""

WIDE_MOVES = "wide_moves"
"""A tuning: ranges of bytes are copied and filled by 64-byte vectors. AMD's Zen 5 with full-width
data paths, and Intel's CPUs with AVX-512 since Ice Lake, which are those with FSRM.

Source: measurements (``byte_tuning.py``); AMD Zen 5 optimization guide (models of 512-bit paths).
"""

ICE_LAKE = "ice_lake"
"""A tuning: what is best on Intel's CPUs with AVX-512 since Ice Lake, which are those with FSRM.
Ranges of bytes (``byte_tuning.py``), strided floats and small divisors (``ufunc_loops``) depend on
it. The features decide, not the model: some hypervisors report that of another CPU."""

TUNINGS = frozenset({SLOW_DIVIDE_64, WIDE_MOVES, ICE_LAKE})
"""Names among the features that choose between instructions; every CPU runs the result if it has
the other features."""

TUNING_VARIABLE = "ASM_LIBCALLS_TUNING"

_ZEN_5_FULL_WIDTH = (range(0x20), range(0x40, 0x50))
"""The models of AMD's family 26 whose data paths have 512 bits: servers, and desktops."""

_SLOW_DIVIDE_64_MODELS = frozenset(
    (
        *(0x0F, 0x16, 0x17, 0x1D),  # Core 2
        *(0x1A, 0x1E, 0x1F, 0x2E, 0x25, 0x2C, 0x2F),  # Nehalem, Westmere
        *(0x2A, 0x2D, 0x3A, 0x3E),  # Sandy Bridge, Ivy Bridge
        *(0x3C, 0x3F, 0x45, 0x46, 0x3D, 0x47, 0x4F, 0x56),  # Haswell, Broadwell
        *(0x4E, 0x55, 0x5E, 0x8E, 0x9E, 0xA5, 0xA6),  # Skylake and its server, to Comet Lake
        *(0x1C, 0x26, 0x27, 0x35, 0x36),  # Bonnell, Saltwell
        *(0x37, 0x4A, 0x4C, 0x4D, 0x5A, 0x5D, 0x75),  # Silvermont, Airmont
        *(0x5C, 0x5F, 0x7A),  # Goldmont, Goldmont Plus
        *(0x57, 0x85),  # Knights Landing, Knights Mill
    )
)

_OSXSAVE = 1 << 27
_XCR0_MASKS = {1: 0b110, 2: 0b1110_0110}


class Cpu:
    """A CPU model, with the features that the operating system enables."""

    __slots__ = ("family", "features", "model", "vendor")

    def __init__(self, vendor: str, family: int, model: int, features: frozenset[str]) -> None:
        self.vendor = vendor  # for example `"AuthenticAMD"`
        self.family = family
        self.model = model
        self.features = features  # names out of FEATURES, and SLOW_DIVIDE_64 if it applies


def routines() -> list[Routine]:
    """Assemble the probes ``cpuid`` and ``xgetbv``."""
    from peachpy.x86_64 import CPUID, LOAD, MOV, RETURN, XGETBV, GeneralPurposeRegister64
    from peachpy.x86_64.registers import eax, ebx, ecx, edx

    from asm_libcalls.x86_64.assembler import function

    def cpuid(leaf: object, subleaf: object, registers: object) -> None:
        reg_leaf, reg_subleaf = GeneralPurposeRegister64(), GeneralPurposeRegister64()
        reg_registers = GeneralPurposeRegister64()
        LOAD.ARGUMENT(reg_leaf, leaf)
        LOAD.ARGUMENT(reg_subleaf, subleaf)
        LOAD.ARGUMENT(reg_registers, registers)
        MOV(eax, reg_leaf.as_dword)
        MOV(ecx, reg_subleaf.as_dword)
        CPUID()
        for i, register in enumerate((eax, ebx, ecx, edx)):
            MOV([reg_registers + 4 * i], register)
        RETURN()

    def xgetbv(registers: object) -> None:
        reg_registers = GeneralPurposeRegister64()
        LOAD.ARGUMENT(reg_registers, registers)
        MOV(ecx, 0)
        XGETBV()
        MOV([reg_registers], eax)
        MOV([reg_registers + 4], edx)
        RETURN()

    return [
        function("cpuid", "(u64, u64, pointer)", cpuid, ("cpuid",)),
        function("xgetbv", "(pointer)", xgetbv, ("cpuid",)),
    ]


def detect(probes: LoadedImage) -> Cpu:
    """Return this CPU's description, read by the loaded probes."""
    return _decode(*_readers(probes))


def brand(probes: LoadedImage) -> str:
    """Return this CPU's marketing name, or ""; detecting the features does without it."""
    cpuid, _ = _readers(probes)
    if cpuid(0x80000000)[0] < 0x80000004:
        return ""
    text = b"".join(
        part.to_bytes(4, "little")
        for leaf in (0x80000002, 0x80000003, 0x80000004)
        for part in cpuid(leaf)
    )
    return " ".join(text.rstrip(b"\0").decode("latin-1").split())


def _readers(probes: LoadedImage) -> tuple[Callable[..., tuple[int, ...]], Callable[[], int]]:
    """Return functions that read a leaf of ``cpuid``, and XCR0."""
    registers = (c_types.c_uint32 * 4)()
    number, pointer = c_types.c_uint64, c_types.c_void_p
    run_cpuid = libc.function_at(probes.routine("cpuid"), None, number, number, pointer)
    run_xgetbv = libc.function_at(probes.routine("xgetbv"), None, pointer)

    answers: dict[tuple[int, int], tuple[int, ...]] = {}

    def cpuid(leaf: int, subleaf: int = 0) -> tuple[int, ...]:
        # Each leaf is read once: in a virtual machine cpuid exits to the hypervisor, which takes up
        # to 20 microseconds.
        if (leaf, subleaf) not in answers:
            run_cpuid(leaf, subleaf, c_types.addressof(registers))
            answers[leaf, subleaf] = tuple(registers)
        return answers[leaf, subleaf]

    def xcr0() -> int:
        run_xgetbv(c_types.addressof(registers))
        return registers[0] | registers[1] << 32

    return cpuid, xcr0


def _decode(cpuid: Callable[..., tuple[int, ...]], xcr0: Callable[[], int]) -> Cpu:
    highest, ebx, ecx, edx = cpuid(0)
    vendor = b"".join(part.to_bytes(4, "little") for part in (ebx, edx, ecx)).decode("latin-1")
    version, _, leaf_1_ecx, _ = cpuid(1)
    # xgetbv is an illegal instruction until the operating system has enabled it.
    state = xcr0() if leaf_1_ecx & _OSXSAVE else 0
    saved = {0: True} | {k: state & mask == mask for k, mask in _XCR0_MASKS.items()}
    features = frozenset(
        name
        for name, (leaf, subleaf, register, bit, needs) in FEATURES.items()
        # Every x86-64 CPU has leaf 0x80000001, which says that it is one.
        if (leaf & 0x80000000 or leaf <= highest)
        and cpuid(leaf, subleaf)[register] >> bit & 1
        and saved[needs]
    )
    base_family, base_model = version >> 8 & 15, version >> 4 & 15
    family = base_family + (version >> 20 & 0xFF if base_family == 15 else 0)
    model = base_model | ((version >> 16 & 15) << 4 if base_family in (6, 15) else 0)
    if _divides_slowly(vendor, family, model):
        features |= {SLOW_DIVIDE_64}
    features |= _byte_tunings(vendor, family, model, features)
    return Cpu(vendor, family, model, features)


def _divides_slowly(vendor: str, family: int, model: int) -> bool:
    if vendor == "GenuineIntel":
        return family == 15 or (family == 6 and model in _SLOW_DIVIDE_64_MODELS)
    return vendor == "AuthenticAMD" and family < 0x17


def _byte_tunings(vendor: str, family: int, model: int, features: frozenset[str]) -> frozenset[str]:
    if not features >= {"avx2", "avx512vl", "avx512bw", "fsrm", "erms"}:
        return frozenset()
    if vendor == "GenuineIntel":
        return frozenset({WIDE_MOVES, ICE_LAKE})
    full_width = family == 0x1A and any(model in models for models in _ZEN_5_FULL_WIDTH)
    return frozenset({WIDE_MOVES} if vendor == "AuthenticAMD" and full_width else ())


def tuned(features: frozenset[str], asked: str) -> frozenset[str]:
    """Return features with other tunings, for measuring.

    `asked` is the value of ``ASM_LIBCALLS_TUNING``: names of tunings after ``+`` or ``-``, with
    commas in between, for example ``"+wide_moves,-ice_lake"``. Raise ValueError for anything else.
    """
    for word in filter(None, (word.strip() for word in asked.split(","))):
        sign, name = word[0], word[1:]
        if sign not in "+-" or name not in TUNINGS:
            raise ValueError(
                f"{TUNING_VARIABLE} must be names after + or -, with commas in between, out of "
                f"{', '.join(sorted(TUNINGS))}; got {word!r}"
            )
        features = features | {name} if sign == "+" else features - {name}
    return features


def last_level_cache(folder: str = "/sys/devices/system/cpu/cpu0/cache") -> int:
    """Return the bytes of the outermost data or unified cache, from sysfs; 32 MiB if unknown."""
    from pathlib import Path

    sizes = []
    for cache in Path(folder).glob("index*"):
        try:
            if (cache / "type").read_text().strip() != "Instruction":
                level = int((cache / "level").read_text())
                sizes.append((level, _bytes((cache / "size").read_text().strip())))
        except (OSError, ValueError):  # hidden by a hypervisor, or another format
            continue
    return max(sizes)[1] if sizes else 32 << 20


def _bytes(size: str) -> int:
    units = {"K": 10, "M": 20, "G": 30}
    return int(size[:-1]) << units[size[-1]] if size[-1:] in units else int(size)
