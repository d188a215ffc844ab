"""Suite: copying and filling linear memory at fifteen places of the operands modulo 4096.

Each C function is called from a loop in machine code, ours with its checks and glibc's without. The
figure of a place is the least of many samples, taken in turn, since one call of a few nanoseconds
is disturbed more often than not. A case is an operation and a size; its figures are the median of
the places, the least and the greatest.

Where the instance's VMContext is in its page matters too: a load of the checks waits for an earlier
store to the same place in another page. So three instances take turns, with VMContexts at distant
places.
"""

from __future__ import annotations

import ctypes
import random
import time
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from asm_libcalls import LIBCALLS, Instance, Memory
from asm_libcalls.activation import NativeCall
from asm_libcalls.benchmark.memory import native_loop_or_why
from asm_libcalls.benchmark.timing import OURS, Figure, Spread, Timed, spread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from asm_libcalls.benchmark.memory import Loop
    from asm_libcalls.benchmark.peers import Peers

SUITE = "places"
GLIBC = "glibc"

PLACES = (
    *((0, 0), (0, 1), (1, 0), (0, 16), (16, 0), (32, 32), (64, 0), (0, 64), (33, 7), (63, 65)),
    *((200, 0), (0, 2048), (2048, 1), (4095, 4033), (4050, 4090)),
)
"""Destination and source modulo 4096. Where they overlap, the destination follows from the
source."""

SIZES = (
    *(1, 3, 4, 8, 15, 16, 31, 32, 33, 63, 64, 65, 96, 128, 129, 192, 256, 257, 384, 512, 513, 768),
    *(1024, 1536, 2048, 2500, 3072, 4096, 6144, 8192, 12288, 16384, 24576, 32768, 65536, 131072),
    *(1 << 18, 1 << 20, 1 << 22, 1 << 24, 1 << 26),
)
QUICK_SIZES = (64, 1024)

SMALL = 1024
"""Below this size in bytes, a note has a difference instead of a ratio."""

# Distance from source to destination; None for disjoint ranges.
_COPIES = {"copy apart": None, "copy overlapping upwards": 24, "copy overlapping downwards": -24}

PAGE = 4096
_CALL_AT = 3440  # in a page, where few of these ranges end
_DISTANT = range(500, 3600)


class _Pair(NamedTuple):
    """Ours and glibc's call of the same work."""

    ours: NativeCall
    glibc: NativeCall


class _Setting(NamedTuple):
    memory: Memory
    instance: Instance

    def close(self) -> None:
        self.instance.close()
        self.memory.close()


_Times = tuple[str, int, "Sequence[tuple[float, ...]]"]
"""Operation, size, and ours and glibc's nanoseconds at each place."""


def measure(peers: Peers, quick: bool, tell: Callable[[str], None], only: str) -> list[Timed]:
    """Measure the cases whose names contain `only`; nothing if no machine code serves.

    The greatest differences become notes.
    """
    loop = native_loop_or_why(peers, SUITE, "memory_copy")
    if loop is None:
        return []
    measured: list[Timed] = []
    found: list[_Times] = []
    sizes = QUICK_SIZES if quick else SIZES
    per_nanosecond = _ticks_per_nanosecond(loop, peers)
    for name in (*_COPIES, "init", "fill"):
        for size in sizes if only in name else ():
            tell(f"{SUITE}: {name} {size}")
            rounds = 6 if quick else 30
            settings = _settings(size)
            pairs = [_pairs(peers, name, size, setting) for setting in settings]
            least = _least(loop, pairs, rounds)
            times = [tuple(ticks / per_nanosecond for ticks in pair) for pair in least]
            ours, glibc = zip(*times, strict=True)
            figures = {
                OURS: Figure(_range(ours), Spread(1.0, 1.0, 1.0)),
                GLIBC: Figure(_range(glibc), _range([a / b for a, b in times])),
            }
            measured.append(Timed(SUITE, name, size, rounds, figures))
            found.append((name, size, times))
            del pairs
            for setting in settings:
                setting.close()
    for note in extremes(found):
        peers.note(note)
    return measured


def extremes(found: Sequence[_Times]) -> Iterator[str]:
    """Yield the greatest difference of small sizes, and the greatest ratio of others, by operation.

    Each with its size and place.
    """
    for name in dict.fromkeys(name for name, *_ in found):
        for small in (True, False):
            values = [
                (ours - glibc if small else ours / glibc, size, place)
                for operation, size, times in found
                if operation == name and (size < SMALL) == small
                for place, (ours, glibc) in zip(PLACES, times, strict=True)
            ]
            if values:
                value, size, (to, source) = max(values, key=itemgetter(0))
                below = f"below {SMALL} bytes at most {value:+.1f} ns"
                others = f"from {SMALL} bytes at most {value:.2f} of {GLIBC}"
                most = below if small else others
                yield f"{SUITE}: {name}, {most}: {size} bytes at {to}, {source}"


def _range(values: Sequence[float]) -> Spread:
    return Spread(spread(values).median, min(values), max(values))


def _ticks_per_nanosecond(loop: Loop, peers: Peers) -> float:
    call = NativeCall(address=peers.c_function("abs"))
    begin = time.perf_counter_ns()
    ticks = loop(call, 10_000_000) * 10_000_000
    return ticks / (time.perf_counter_ns() - begin)


def _settings(size: int) -> list[_Setting]:
    """Return instances whose VMContexts are far from each other in their pages; one if large."""
    settings: list[_Setting] = []
    refused: list[_Setting] = []
    while len(settings) < (3 if size <= 1 << 20 else 1):
        memory = Memory(-(-(2 * size + 8 * PAGE) // 65536))
        segment = bytes(range(256)) * (-(-(size + 2 * PAGE) // 256))
        setting = _Setting(memory, Instance(memories=[memory], data=[segment]))
        offsets = [(setting.instance.vmctx - other.instance.vmctx) % PAGE for other in settings]
        if all(offset in _DISTANT for offset in offsets) or len(refused) > 40:
            ctypes.memset(memory.base, 1, len(memory))  # so that every page is mapped
            settings.append(setting)
        else:
            refused.append(setting)  # kept, so that the next one is elsewhere
    for setting in refused:
        setting.close()
    return settings


def _pairs(peers: Peers, name: str, size: int, setting: _Setting) -> list[_Pair]:
    vmctx, base = setting.instance.vmctx, setting.memory.base
    pairs = []
    for to, from_ in PLACES:
        target = PAGE + to
        if name == "fill":
            ours = _call(LIBCALLS["memory_fill"].address, (vmctx, 0, target, 7, size))
            glibc = _call(peers.c_function("memset"), (base + target, 7, size))
        elif name == "init":
            segment = setting.instance.data_segment(0)[0]
            source = (from_ - segment) % PAGE
            ours = _call(LIBCALLS["memory_init"].address, (vmctx, 0, 0, target, source, size))
            glibc = _call(peers.c_function("memmove"), (base + target, segment + source, size))
        else:
            distance = _COPIES[name]
            source = 2 * PAGE + from_
            if distance is None:
                target = -(-(source + size) // PAGE) * PAGE + to
            else:
                target = source + distance
            ours = _call(LIBCALLS["memory_copy"].address, (vmctx, 0, target, 0, source, size))
            glibc = _call(peers.c_function("memmove"), (base + target, base + source, size))
        pairs.append(_Pair(ours, glibc))
    return pairs


def _call(address: int, arguments: tuple[int, ...]) -> NativeCall:
    """Return a call that is read at the same place in a page, whatever it calls."""
    block = (ctypes.c_uint8 * (2 * PAGE))()
    offset = (_CALL_AT - ctypes.addressof(block)) % PAGE
    call: NativeCall = NativeCall.from_buffer(block, offset)
    call.address = address
    for i, argument in enumerate(arguments):
        call.integers[i] = argument
    return call


def _least(loop: Loop, pairs: Sequence[Sequence[_Pair]], rounds: int) -> list[tuple[float, float]]:
    """Return the least ticks of a call, by place, of the pairs of each setting in turn."""
    once = min(loop(pairs[0][0].ours, 1) for _ in range(3))
    times = max(1, min(2000, int(30_000 / once)))
    if times == 1:
        rounds = max(3, min(rounds, int(1e8 / once)))
    least = [[float("inf")] * 2 for _ in PLACES]
    chance = random.Random(rounds)
    order = [(place, which) for place in range(len(PLACES)) for which in (0, 1)]
    for turn in range(rounds):
        chance.shuffle(order)
        for place, which in order:
            call = pairs[turn % len(pairs)][place][which]
            if times > 1:
                loop(call, 1)
            least[place][which] = min(least[place][which], loop(call, times))
    return [(ours, glibc) for ours, glibc in least]
