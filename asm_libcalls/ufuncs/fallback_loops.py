"""The ufuncs' fallback: inner loops of NumPy, or callbacks that use NumPy's operations.

If a loop of NumPy computes exactly what a libcall does, its address is taken from NumPy's ufunc:
rounding, the unsigned divisions and ``fmod``. The other loops are ctypes callbacks, called once for
each array, that compute with NumPy on views of the operands. Either way the result is a real ufunc.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from asm_libcalls.emitter import libc
from asm_libcalls.libcalls import DECLARATIONS
from asm_libcalls.traps import IntegerDivisionByZero, IntegerOverflow
from asm_libcalls.ufuncs.objects import Loop, loop_of


def fallback_loop(libcall: str, dtypes: Sequence[str]) -> Loop:
    """Return the inner loop of a libcall for these types: NumPy's own, else a callback.

    The types are those that the libcall computes with.
    """
    return borrowed_loop(libcall, dtypes) or callback_loop(libcall, dtypes)


# NumPy's ufuncs that agree with a libcall in every element and every flag. The floor division of
# signed integers does not, as it rounds down; nor do the shifts, which give 0 beyond 63.
_NUMPY_UFUNCS: dict[str, np.ufunc] = {
    **{
        f"{value_type}_{name}": ufunc
        for value_type in ("f32", "f64")
        for name, ufunc in (
            ("ceil", np.ceil),
            ("floor", np.floor),
            ("trunc", np.trunc),
            ("nearest", np.rint),
        )
    },
    "i64_srem": np.fmod,
    "i64_udiv": np.floor_divide,
    "i64_urem": np.remainder,
}


def borrowed_loop(libcall: str, dtypes: Sequence[str]) -> Loop | None:
    """Return NumPy's own loop; None if it has none or the layout of its ufuncs is unknown."""
    ufunc = _NUMPY_UFUNCS.get(libcall)
    return None if ufunc is None else loop_of(ufunc, dtypes)


def _sdiv(a: Any, b: Any) -> Any:
    quotient = np.floor_divide(a, b)
    rounded_down = (quotient * b != a) & ((a < 0) != (b < 0)) & (b != 0)
    return quotient + rounded_down


_KERNELS: dict[str, Callable[..., Any]] = {
    **_NUMPY_UFUNCS,
    "i64_sdiv": _sdiv,
    "i64_ishl": lambda x, count: np.left_shift(x, count & x.dtype.type(63)),
    "i64_sshr": lambda x, count: np.right_shift(x, count & x.dtype.type(63)),
    "i64_ushr": lambda x, count: np.right_shift(x, count & x.dtype.type(63)),
}


def callback_loop(libcall: str, dtypes: Sequence[str]) -> Loop:
    """Return a loop that computes a libcall with NumPy, on views of the operands."""
    dtype = np.dtype(dtypes[0])
    kernel = _KERNELS[libcall]
    divides = libcall.endswith(("div", "rem"))
    module = importlib.import_module(DECLARATIONS[libcall].module("fallback"))
    one = getattr(module, libcall)
    patterns = np.dtype(f"u{dtype.itemsize}")

    def loop(arguments: Any, count: Any, steps: Any, data: Any) -> None:
        n = count[0]
        if n <= 0:
            return
        *inputs, output = (_view(arguments[i], n, steps[i], dtype) for i in range(len(dtypes)))
        with _flags_added() as raise_flag, np.errstate(all="ignore"):
            if any(_feeds(output, operand) for operand in inputs):
                _one_by_one(one, [*inputs, output], patterns, raise_flag)
                return
            if divides:
                a, b = inputs
                if not b.all():
                    raise_flag("divide")
                if libcall == "i64_sdiv" and ((a == np.iinfo(a.dtype).min) & (b == -1)).any():
                    raise_flag("over")
            output[...] = kernel(*inputs)

    prototype = ctypes.CFUNCTYPE(
        None,
        ctypes.POINTER(ctypes.c_void_p),
        ctypes.POINTER(ctypes.c_ssize_t),
        ctypes.POINTER(ctypes.c_ssize_t),
        ctypes.c_void_p,
    )
    native = prototype(loop)
    libc.never_free(native)
    return Loop(dtypes, ctypes.cast(native, ctypes.c_void_p).value or 0)


class _Operand:
    def __init__(self, interface: dict[str, Any]) -> None:
        self.__array_interface__ = interface


def _view(address: int, count: int, step: int, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    interface = {
        "data": (address, False),
        "shape": (count,),
        "strides": (step,),
        "typestr": dtype.str,
        "version": 3,
    }
    return np.asarray(_Operand(interface))


def _feeds(output: Any, operand: Any) -> bool:
    """Return whether an element's result may be the operand of a later one, as in a reduction."""
    if output.size == 1:
        return False
    same_place = output.ctypes.data == operand.ctypes.data and output.strides == operand.strides
    if same_place and output.strides[0]:
        return False
    return bool(np.may_share_memory(output, operand))


def _one_by_one(
    function: Callable[..., int], operands: list[Any], patterns: Any, raise_flag: Any
) -> None:
    *inputs, output = (operand.view(patterns) for operand in operands)
    for i in range(output.size):
        arguments = [int(operand[i]) for operand in inputs]
        try:
            output[i] = function(*arguments)
        except IntegerDivisionByZero:
            raise_flag("divide")
            output[i] = 0
        except IntegerOverflow:
            raise_flag("over")
            output[i] = 1 << 63


_libm: list[Any] = []


@contextlib.contextmanager
def _flags_added() -> Iterator[Callable[[str], None]]:
    """Yield a function that raises a floating-point exception flag; preserve earlier flags.

    NumPy's operations inside clear the flags, but NumPy reads them only after the last call of the
    loop. C's constants for the flags differ between CPUs, so operations raise them: the pole of a
    logarithm, and an exponential that overflows.
    """
    if not _libm:
        process = ctypes.CDLL(None)
        _libm.append(process if hasattr(process, "feholdexcept") else ctypes.CDLL("libm.so.6"))
        for name in ("log", "exp"):
            function = getattr(_libm[0], name)
            function.argtypes, function.restype = [ctypes.c_double], ctypes.c_double
    libm = _libm[0]
    environment = ctypes.create_string_buffer(256)  # larger than any fenv_t
    raised: set[str] = set()
    libm.feholdexcept(environment)
    try:
        yield raised.add
    finally:
        libm.feholdexcept(ctypes.create_string_buffer(256))  # drop the flags raised inside
        if "divide" in raised:
            libm.log(0.0)
        if "over" in raised:
            libm.exp(1e9)
        libm.feupdateenv(environment)
