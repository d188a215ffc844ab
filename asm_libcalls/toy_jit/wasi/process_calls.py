"""Calls on the process: arguments, environment, clocks, random numbers, exit."""

from __future__ import annotations

import os
import time

from asm_libcalls.toy_jit.wasi.abi import U32
from asm_libcalls.toy_jit.wasi.errors import Errno, WasiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from asm_libcalls.toy_jit.wasi.call import Call, CallTable

_RANDOM_AT_ONCE = 1 << 20


class Exit(SystemExit):
    """The guest has called ``proc_exit``. Uncaught, it ends Python, as a SystemExit.

    Attributes
    ----------
    code : int
        Its exit code; 0 is success.
    """

    code: int


# -- arguments and environment


def _write_sizes(call: Call, strings: Sequence[bytes], count: int, size: int) -> None:
    call.memory.write_u32(count, len(strings))
    call.memory.write_u32(size, sum(len(string) + 1 for string in strings))


def _write_strings(call: Call, strings: Sequence[bytes], pointers: int, buffer: int) -> None:
    for string in strings:
        call.memory.range(buffer, len(string) + 1)[:] = string + b"\0"
        call.memory.write_u32(pointers, buffer)
        pointers += U32.size
        buffer += len(string) + 1


# -- clocks

_CLOCKS = (
    time.CLOCK_REALTIME,
    time.CLOCK_MONOTONIC,
    time.CLOCK_PROCESS_CPUTIME_ID,
    time.CLOCK_THREAD_CPUTIME_ID,
)


def _clock(clock: int) -> int:
    if clock >= len(_CLOCKS):
        raise WasiError(Errno.INVAL)
    return _CLOCKS[clock]


def now(clock: int) -> int:
    """Return the time of a clock, in nanoseconds."""
    return time.clock_gettime_ns(_clock(clock))


def _clock_res_get(call: Call, clock: int, result: int) -> None:
    seconds = time.clock_getres(_clock(clock))
    call.memory.write_u64(result, max(1, round(seconds * 1e9)))


def _clock_time_get(call: Call, clock: int, precision: int, result: int) -> None:
    call.memory.write_u64(result, now(clock))


# -- the rest


def _random_get(call: Call, address: int, length: int) -> None:
    target = call.memory.range(address, length)
    for start in range(0, length, _RANDOM_AT_ONCE):
        part = target[start : start + _RANDOM_AT_ONCE]
        part[:] = os.urandom(len(part))
        call.check()


def _sched_yield(call: Call) -> None:
    os.sched_yield()
    call.check()


def _proc_exit(call: Call, code: int) -> None:
    raise Exit(code)


CALLS: CallTable = {
    "args_get": (lambda call, *to: _write_strings(call, call.system.args, *to), "ii"),
    "args_sizes_get": (lambda call, *to: _write_sizes(call, call.system.args, *to), "ii"),
    "environ_get": (lambda call, *to: _write_strings(call, call.system.environ, *to), "ii"),
    "environ_sizes_get": (lambda call, *to: _write_sizes(call, call.system.environ, *to), "ii"),
    "clock_res_get": (_clock_res_get, "ii"),
    "clock_time_get": (_clock_time_get, "iIi"),
    "random_get": (_random_get, "ii"),
    "sched_yield": (_sched_yield, ""),
    "proc_exit": (_proc_exit, "i"),
}
