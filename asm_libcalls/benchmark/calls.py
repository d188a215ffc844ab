"""Suite: one call from Python: numbers in and a number out, or a few bytes moved."""

from __future__ import annotations

import ctypes
import enum
import fractions
import itertools
import math
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import asm_libcalls
from asm_libcalls.benchmark import export_types
from asm_libcalls.benchmark.timing import OURS, Candidate, Case

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from asm_libcalls.benchmark.peers import Peers
    from asm_libcalls.libcall import Libcall

SUITE = "calls"
UNROLLED = 20
"""Calls in each turn of the timing loop, so many that the loop's own cost is negligible."""

Calls = dict[str, tuple[Callable[..., Any], tuple[Any, ...]]]
"""Functions with their arguments, by the candidate's label."""


class _Operation(NamedTuple):
    libcall: str
    arguments: tuple[float, ...]
    # Functions of Python, NumPy and numba that do about the same. `math.fabs` is the cheapest
    # builtin that takes and returns a float.
    python: dict[str, Callable[..., Any]]
    numpy: str
    numba: str
    kind: str = ""  # of arguments


_FABS = {"math.fabs": math.fabs}
_FLOORDIV = {"operator.floordiv": operator.floordiv}
_SMALL, _LARGE, _UNSIGNED = (7, 2), (2**61 + 12345, 2**33 + 7), (2**63 + 12345, 2**33 + 7)
_OPERATIONS = (
    _Operation("f64_ceil", (2.5,), {"math.ceil": math.ceil, **_FABS}, "ceil", "math.ceil(a)"),
    _Operation("f64_nearest", (2.5,), {"round": round, **_FABS}, "rint", "round(a)"),
    _Operation("f32_floor", (2.5,), {"math.floor": math.floor, **_FABS}, "floor", "math.floor(a)"),
    _Operation("i64_sdiv", _SMALL, _FLOORDIV, "floor_divide", "a // b", "small"),
    _Operation("i64_sdiv", _LARGE, _FLOORDIV, "floor_divide", "a // b", "beyond 2^30"),
    _Operation("i64_srem", _LARGE, {"operator.mod": operator.mod}, "fmod", "a % b", "beyond 2^30"),
    _Operation("i64_udiv", _UNSIGNED, _FLOORDIV, "floor_divide", "a // b", "beyond 2^30"),
    _Operation(
        "i64_ishl", (12345, 40), {"operator.lshift": operator.lshift}, "left_shift", "a << b"
    ),
)

_SCALARS = {"f32": "float32", "f64": "float64", "i64": "int64", "u64": "uint64"}


def cases(peers: Peers, quick: bool) -> Iterator[Case]:
    """Make the cases."""
    yield from (_operation(peers, operation) for operation in _OPERATIONS)
    libcall = asm_libcalls.LIBCALLS["i64_ishl"]
    if libcall.backend == "fallback":
        peers.note(f"calls of C functions are left out: {libcall.reason}")
    else:
        cython = peers.cython("asm_libcalls_benchmark", _CYTHON)
        yield from _entries(peers, cython)
        yield from _buffers(peers, cython)
        yield from _other_arguments(peers)
        yield _case("an export of toy_jit", export_types.functions())
        yield _traps()
    yield from _memories(peers)


def _operation(peers: Peers, operation: _Operation) -> Case:
    libcall = asm_libcalls.LIBCALLS[operation.libcall]
    functions = {
        OURS: getattr(asm_libcalls, libcall.name),
        "asm_libcalls through ctypes": libcall.signature.ctypes_prototype()(libcall.address),
    }
    if peers.cffi is not None:
        functions["asm_libcalls through cffi"] = _through_cffi(peers, libcall)
    if libcall.backend != "fallback":
        functions["the fallback"] = libcall.fallback
    functions |= operation.python
    if peers.numba is not None:
        parameters = ", ".join("ab"[: len(operation.arguments)])
        function = eval(f"lambda {parameters}: {operation.numba}", {"math": math})
        functions["numba"] = peers.numba.njit(function)
    calls = _with(operation.arguments, functions)
    scalars = tuple(
        getattr(peers.numpy, _SCALARS[parameter.name])(value)
        for parameter, value in zip(libcall.signature.parameters, operation.arguments, strict=True)
    )
    calls["NumPy scalar"] = getattr(peers.numpy, operation.numpy), scalars
    return _case(f"{libcall.name} {operation.kind}".strip(), calls)


_CYTHON = """\
from libc.stdint cimport int64_t, uint64_t

ctypedef int64_t (*of_numbers)(int64_t, int64_t) noexcept nogil
ctypedef uint64_t (*of_pointer)(const void *) noexcept
cdef of_numbers shift
cdef of_pointer identity

def set_shift(size_t address):
    global shift
    shift = <of_numbers>address

def set_identity(size_t address):
    global identity
    identity = <of_pointer>address

def holding(int64_t x, int64_t count):
    return shift(x, count)

def releasing(int64_t x, int64_t count):
    cdef int64_t result
    with nogil:
        result = shift(x, count)
    return result

def of_buffer(const unsigned char[::1] memory):
    return identity(&memory[0])
"""

# Both are i64.shl; the second has a loop, so its calls release the GIL.
_WASM = bytes.fromhex(
    "0061736d 01000000 0107 01 60 02 7e7e 01 7e 0303 02 00 00 0711 02 05 7368696674 00 00"
    "05 6c6f6f7073 00 01 0a18 02 07 00 2000 2001 86 0b 0e 00 0340 4100 0d00 0b 2000 2001 86 0b"
)

_IDENTITY = bytes.fromhex("4889f8 c3")  # machine code that returns its argument

_WASM_DIVIDES = bytes.fromhex(
    "0061736d 01000000 0107 01 60 02 7e7e 01 7e 0302 01 00 070a 01 06 646976696465 00 00"
    "0a09 01 07 00 2000 2001 7f 0b"
)


def _entries(peers: Peers, cython: Any) -> Iterator[Case]:
    """Make a case of every way into one C function that takes and returns i64."""
    libcall = asm_libcalls.LIBCALLS["i64_ishl"]
    address, signature = libcall.address, libcall.signature
    prototype = ctypes.PYFUNCTYPE(*[ctypes.c_int64] * 3)
    native_function, arguments = asm_libcalls.native_function, (12345, 40)
    keeping: dict[str, Callable[..., Any]] = {
        OURS: native_function(address, signature),
        "native_function, catch=False": native_function(address, signature, catch=False),
        "LIBCALLS[name]": libcall,
        "LIBCALLS[name].cfunc": libcall.cfunc,
        "ctypes.PyDLL": prototype(address),
    }
    releasing: dict[str, Callable[..., Any]] = {
        OURS: native_function(address, signature, release_gil=True),
        "catch_traps": asm_libcalls.catch_traps(address, signature),
        "ctypes.CDLL": signature.ctypes_prototype()(address),
    }
    from asm_libcalls import toy_jit

    exports = toy_jit.Instance(toy_jit.Module(_WASM)).exports
    keeping["an export of toy_jit"] = exports["shift"]
    releasing["an export with a loop"] = exports["loops"]
    if peers.cffi is not None:
        releasing["cffi"] = _through_cffi(peers, libcall)
    if cython is not None:
        cython.set_shift(address)
        keeping["Cython"], releasing["Cython, nogil"] = cython.holding, cython.releasing
    for kind, functions in (("GIL kept", keeping), ("GIL released", releasing)):
        yield _case(f"a C function, {kind}", _with(arguments, functions))


def _buffers(peers: Peers, cython: Any) -> Iterator[Case]:
    """Make a case of each kind of memory that is passed as a pointer, beside an address."""
    address = asm_libcalls.load_code(_IDENTITY)
    keeping = asm_libcalls.native_function(address, "(const pointer) -> u64")
    catching = asm_libcalls.catch_traps(address, "(const pointer) -> u64")
    through_ctypes = ctypes.PYFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)(address)
    text, array = b"some bytes", peers.numpy.zeros(10, peers.numpy.uint8)
    own = bytearray(text)
    # The memory, and the function that makes of it what ctypes takes, or None.
    to_ctypes: dict[str, tuple[Any, Callable[..., Any] | None]] = {
        "bytes": (text, None),
        "bytearray": (own, (ctypes.c_char * len(own)).from_buffer),
        "NumPy array": (array, lambda array: array.ctypes.data),
    }
    for name, (memory, convert) in to_ctypes.items():
        keeping(memory)  # the first NumPy array makes its type known
        ways: dict[str, Callable[[int], None]] = {
            OURS: _caller(keeping, (memory,)),
            "an int": _caller(keeping, (array.ctypes.data,)),
            "catch_traps": _caller(catching, (memory,)),
            "catch_traps, an int": _caller(catching, (array.ctypes.data,)),
            "ctypes": _caller(through_ctypes, (memory,), convert),
        }
        if peers.cffi is not None:
            ffi = peers.cffi.FFI()
            function = ffi.cast("uint64_t(*)(const void *)", address)
            ways["cffi, from_buffer"] = _caller(function, (memory,), ffi.from_buffer)
        if cython is not None:
            cython.set_identity(address)
            ways["Cython, a typed memoryview"] = _caller(cython.of_buffer, (memory,))
        candidates = tuple(Candidate(label, run) for label, run in ways.items())
        yield Case(SUITE, f"a {name} as a pointer", 0, UNROLLED, candidates)


class _Color(enum.IntEnum):
    RED = 1


def _other_arguments(peers: Peers) -> Iterator[Case]:
    """Make a case of each type whose arguments are objects of other types, beside an exact one."""
    address = asm_libcalls.load_code(_IDENTITY)
    numpy, number = peers.numpy, ctypes.c_int(5)
    memory = asm_libcalls.Memory(1)
    instance = asm_libcalls.Instance([memory])
    objects = {
        "i64": {
            OURS: 5,
            "True": True,
            "IntEnum": _Color.RED,
            "numpy.int64": numpy.int64(5),
            "numpy.uint8": numpy.uint8(5),
            "numpy.bool": numpy.True_,
        },
        "f64": {
            OURS: 5.0,
            "an int": 5,
            "an int of 60 bits": 2**59 + 1,
            "True": True,
            "numpy.float64": numpy.float64(5),
            "numpy.float32": numpy.float32(5),
            "numpy.int64": numpy.int64(5),
            "Fraction": fractions.Fraction(1, 3),
        },
        "pointer": {
            OURS: ctypes.addressof(number),
            "byref": ctypes.byref(number),
            "c_void_p": ctypes.c_void_p(5),
            "POINTER": ctypes.pointer(number),
            "Memory": memory,
            "HostFunction": asm_libcalls.HostFunction(abs, "(i64) -> i64"),
        },
        "vmctx": {OURS: instance.vmctx, "Instance": instance},
        "externref": {OURS: None, "VMExternRef": asm_libcalls.VMExternRef(5)},
    }
    for kind, arguments in objects.items():
        result = kind if kind == "f64" else "i64"
        function = asm_libcalls.native_function(address, f"({kind}) -> {result}")
        for argument in arguments.values():
            function(argument)  # makes its type known
        yield _case(
            f"an object as {kind}",
            {label: (function, (argument,)) for label, argument in arguments.items()},
        )


def _traps() -> Case:
    """Make a case of a caught division by zero."""
    from asm_libcalls import toy_jit

    address = asm_libcalls.symbols()["wasmtime_i64_sdiv"]
    functions: dict[str, Callable[..., Any]] = {
        OURS: asm_libcalls.native_function(address, "(i64, i64) -> i64"),
        "catch_traps": asm_libcalls.catch_traps(address, "(i64, i64) -> i64"),
        "i64_sdiv": asm_libcalls.i64_sdiv,
        "an export of toy_jit": toy_jit.Instance(toy_jit.Module(_WASM_DIVIDES)).exports["divide"],
        "operator.floordiv": operator.floordiv,
    }
    catching = {label: _catching(function) for label, function in functions.items()}
    return _case("a caught division by zero", _with((1, 0), catching))


def _catching(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(a: int, b: int) -> None:
        try:
            function(a, b)
        except ZeroDivisionError:
            return

    return call


def _memories(peers: Peers) -> Iterator[Case]:
    memory = asm_libcalls.Memory(1)
    instance = asm_libcalls.Instance([memory])
    own = memoryview(bytearray(len(memory)))
    array = peers.numpy.frombuffer(memory, dtype=peers.numpy.uint8)
    setitem = operator.setitem
    for size in (16, 4096):
        source, target = 64, 64 + 2 * size
        to, from_ = slice(target, target + size), slice(source, source + size)
        pointers = (memory.base + target, memory.base + source, size)
        copies: Calls = {
            OURS: (asm_libcalls.memory_copy, (instance, 0, target, 0, source, size)),
            "ctypes.memmove": (ctypes.memmove, pointers),
            "bytearray slice": (setitem, (own, to, own[from_])),
            "NumPy": (peers.numpy.copyto, (array[to], array[from_])),
        }
        yield _case(f"memory_copy {size} bytes", copies)
        fills: Calls = {
            OURS: (asm_libcalls.memory_fill, (instance, 0, target, 7, size)),
            "ctypes.memset": (ctypes.memset, (memory.base + target, 7, size)),
            "bytearray slice": (setitem, (own, to, bytes([7]) * size)),
            "NumPy": (array[to].fill, (7,)),
        }
        yield _case(f"memory_fill {size} bytes", fills)


def _with(arguments: tuple[Any, ...], functions: Mapping[str, Callable[..., Any]]) -> Calls:
    return {label: (function, arguments) for label, function in functions.items()}


def _case(name: str, calls: Calls) -> Case:
    candidates = (Candidate(label, _caller(*call)) for label, call in calls.items())
    return Case(SUITE, name, 0, UNROLLED, tuple(candidates))


def _through_cffi(peers: Peers, libcall: Libcall) -> Any:
    """Return cffi's function of a libcall's C address."""
    from asm_libcalls.integrations.cffi import pointer

    assert peers.cffi is not None
    return pointer(peers.cffi.FFI(), libcall.name)


def _caller(
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    convert: Callable[..., Any] | None = None,
) -> Callable[[int], None]:
    """Return a function that repeats a call with these arguments, as written-out Python would.

    With `convert` each call converts its one argument first.
    """
    names = [f"a{i}" for i in range(len(arguments))]
    scope: dict[str, Any] = dict(zip(names, arguments, strict=True))
    scope |= {"repeat": itertools.repeat, "function": function, "convert": convert}
    # Local names: they are faster than global ones.
    head = (
        f"def run(times, {', '.join(f'{n}={n}' for n in scope)}):\n for _ in repeat(None, times):\n"
    )
    call = f"  function({', '.join(names) if convert is None else 'convert(a0)'})\n"
    exec(head + call * UNROLLED, scope)
    run: Callable[[int], None] = scope["run"]
    return run
