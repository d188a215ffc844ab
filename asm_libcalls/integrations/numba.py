"""numba: ``@njit`` code, cached or not, calls the numeric libcalls of the package directly.

numba calls :func:`init` through the entry point group ``numba_extensions``, before it compiles code
or loads it from a cache. In a checkout that is not installed, call it yourself.

Compiled code calls a symbol, which LLVM resolves when the code is loaded, so cached code contains
no address. LLVM resolves an unknown symbol to 0. So each function that calls one has a constant
that is an object of this module. The object calls :func:`init` when numba reads the function from a
cache, before numba loads the code. The symbols differ from those of the C ABI, so that they are
unique in the process. Compiled code tests for traps before the call and raises the exception of the
Python function, so a libcall never unwinds numba's frames.
"""

from __future__ import annotations

import llvmlite.binding
import llvmlite.ir
import numba.core.cgutils
import numba.core.types as types
import numba.extending

import asm_libcalls
from asm_libcalls.integrations.attributes import declare_pure
from asm_libcalls.integrations.numeric import NUMERIC
from asm_libcalls.libcalls import DECLARATIONS
from asm_libcalls.traps import IntegerDivisionByZero, IntegerOverflow

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from asm_libcalls.libcalls import Declaration
    from asm_libcalls.signatures import ValueType

__all__ = ["init"]

_SYMBOL_PREFIX = "asm_libcalls_numba_"
_MINIMUM = -(2**63)

_known: set[str] = set()


class _Needed:
    """A constant of functions that call our symbols, in their caches."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _make_known, ()


_needed = _Needed()


def _make_known() -> _Needed:
    """Make the symbols known; numba calls this when it reads a function from a cache."""
    init()
    return _needed


def init() -> None:
    """Make the numeric libcalls known to numba. Calling it again changes nothing."""
    for name in NUMERIC:
        if name not in _known:
            llvmlite.binding.add_symbol(_SYMBOL_PREFIX + name, asm_libcalls.LIBCALLS[name].address)
            _overload(getattr(asm_libcalls, name), DECLARATIONS[name])
            _known.add(name)


def _overload(function: Any, declaration: Declaration) -> None:
    kinds = [t.kind for t in declaration.signature.parameters]
    implementation = _implementation(declaration)

    def choose(*given: Any) -> Any:
        return implementation if _takes(kinds, given) else None

    # Inlined code that may raise gives a prange loop a second exit, so numba runs it in order. A
    # call would run in parallel and lose its exception: the wrapper of a parallel loop sets it on
    # the worker's thread and continues.
    inline = "always" if declaration.exceptions else "never"
    numba.extending.overload(function, inline=inline)(_with_names(choose, len(kinds)))


def _with_names(function: Callable[..., Any], count: int) -> Callable[..., Any]:
    """Return a function whose one or two parameters have names, by which numba passes types."""

    def unary(x: Any) -> Any:
        return function(x)

    def binary(x: Any, y: Any) -> Any:
        return function(x, y)

    return unary if count == 1 else binary


def _takes(kinds: list[str], given: tuple[Any, ...]) -> bool:
    """Return whether the Python function takes arguments of these numba types."""
    for kind, type_ in zip(kinds, given, strict=True):
        integral = isinstance(type_, (types.Integer, types.Boolean, types.IntEnumMember))
        if not (integral or (kind == "float" and isinstance(type_, types.Float))):
            return False
    return True


def _implementation(declaration: Declaration) -> Callable[..., Any]:
    """Return what numba compiles in place of a call: tests for traps, then the bare call."""
    call = _intrinsic(declaration)
    if not declaration.exceptions:
        return _with_names(call, len(declaration.signature.parameters))
    # Integers are cast to the type of the C parameter, so the tests see the values that C sees.
    cast = _numba_type(declaration.signature.parameters[0])
    if IntegerOverflow in declaration.exceptions:

        def quotient(x: Any, y: Any) -> Any:
            dividend = cast(x)
            divisor = cast(y)
            if divisor == 0:
                raise IntegerDivisionByZero
            if divisor == -1 and dividend == _MINIMUM:
                raise IntegerOverflow
            return call(dividend, divisor)

        return quotient

    def divide(x: Any, y: Any) -> Any:
        divisor = cast(y)
        if divisor == 0:
            raise IntegerDivisionByZero
        return call(x, divisor)

    return divide


def _intrinsic(declaration: Declaration) -> Any:
    signature = declaration.signature
    parameters = [_numba_type(t) for t in signature.parameters]
    assert signature.result is not None
    result = _numba_type(signature.result)
    symbol = _SYMBOL_PREFIX + declaration.name

    def generate(context: Any, builder: Any, call_signature: Any, arguments: Any) -> Any:
        values = []
        for argument, type_, parameter in zip(
            arguments, call_signature.args, parameters, strict=True
        ):
            given = type_.dtype if isinstance(type_, types.IntEnumMember) else type_
            value = context.cast(builder, argument, type_, given)
            # A large integer for an f32 is rounded twice: by Python's float(), then to 32 bits.
            through = types.float64 if parameter == types.float32 != given else given
            as_python = context.cast(builder, value, given, through)
            values.append(context.cast(builder, as_python, through, parameter))
        llvm_type = context.get_value_type
        function_type = llvmlite.ir.FunctionType(llvm_type(result), [*map(llvm_type, parameters)])
        function = numba.core.cgutils.get_or_insert_function(builder.module, function_type, symbol)
        # The guarded call returns, and its result depends on its arguments alone. LLVM may move a
        # call without a guard out of loops, but none before its guard.
        declare_pure(function, is_total=not declaration.exceptions)
        constants = context.environment.consts
        if not any(each is _needed for each in constants):
            constants.append(_needed)
        return builder.call(function, values)

    # An intrinsic's parameters have names too, and the first one is numba's own.
    if len(parameters) == 1:
        return numba.extending.intrinsic(lambda context, x: (result(x), generate))
    return numba.extending.intrinsic(lambda context, x, y: (result(x, y), generate))


def _numba_type(value_type: ValueType) -> Any:
    prefix = "float" if value_type.kind == "float" else "int" if value_type.signed else "uint"
    return getattr(types, f"{prefix}{value_type.bits}")
