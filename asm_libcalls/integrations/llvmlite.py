"""llvmlite: the libcalls as symbols that LLVM's code can call, in MCJIT and in ORC.

MCJIT finds what was told to the whole process, once (:func:`add_symbols`). ORC looks into the
libraries that were linked into its LLJIT, so each library imports what its code uses
(:func:`import_symbols`). :func:`declare` puts the declaration into a module's IR.

A symbol that LLVM can not resolve is address 0 in MCJIT, without an error until it is called. A
libcall that traps unwinds to the innermost :func:`asm_libcalls.catch_traps` of the thread, so
compiled code that may trap must be entered through one.
"""

from __future__ import annotations

import llvmlite.binding
import llvmlite.ir

from asm_libcalls.binding import default_binding
from asm_libcalls.integrations.numeric import NUMERIC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from asm_libcalls.binding import Libcall
    from asm_libcalls.signatures import ValueType

__all__ = ["add_symbols", "declare", "import_symbols"]


def add_symbols(*names: str) -> dict[str, int]:
    """Make symbols known to every MCJIT engine of this process.

    It must happen before the code that uses them is finalized. Calling it again changes nothing.

    Parameters
    ----------
    *names : str
        Symbols of :func:`asm_libcalls.symbols` and :func:`asm_libcalls.runtime_symbols`, or names
        of libcalls; by default all of them.

    Returns
    -------
    dict of str to int
        The symbols and their addresses.

    Raises
    ------
    ValueError
        There is no such symbol, or LLVM knows another function by it. (Wasmtime's C library has
        a few of the same names for other functions, ``wasmtime_table_grow`` among them.) Nothing
        is added then.
    """
    chosen = _choose(names, "add_symbols()")
    for symbol, address in chosen.items():
        known = llvmlite.binding.address_of_symbol(symbol)
        if known not in (None, address):
            raise ValueError(
                f"add_symbols(): {symbol} is known to LLVM already, as {known:#x}; ours is at "
                f"{address:#x}"
            )
    for symbol, address in chosen.items():
        llvmlite.binding.add_symbol(symbol, address)
    return chosen


def import_symbols(builder: Any, *names: str) -> Any:
    """Make symbols known to the code of one library of an ORC LLJIT.

    Parameters
    ----------
    builder : llvmlite.binding.JITLibraryBuilder
    *names : str
        As in :func:`add_symbols`.

    Returns
    -------
    llvmlite.binding.JITLibraryBuilder
        `builder`, to go on with ``.export_symbol(...).link(...)``.

    Raises
    ------
    ValueError
        There is no such symbol.
    """
    for symbol, address in _choose(names, "import_symbols()").items():
        builder.import_symbol(symbol, address)
    return builder


def declare(module: Any, name: str) -> Any:
    """Declare a libcall in a module, with its type and the attributes that let LLVM optimise.

    A numeric libcall that can not trap depends on its arguments alone: LLVM may merge its calls, or
    move them out of loops. All others LLVM leaves where they are.

    Parameters
    ----------
    module : llvmlite.ir.Module
    name : str
        A libcall, by its name or its symbol.

    Returns
    -------
    llvmlite.ir.Function
        The declaration; the module's own, if it has one already.

    Raises
    ------
    ValueError
        There is no such libcall, or the module has another thing by its symbol.
    """
    libcalls = default_binding().libcalls
    found = {each.symbol: each for each in libcalls.values()}
    libcall = libcalls.get(name) or found.get(name)
    if libcall is None:
        raise ValueError(f"declare(): there is no libcall {name!r}")
    type_ = _function_type(libcall)
    known = module.globals.get(libcall.symbol)
    if known is not None:
        if not isinstance(known, llvmlite.ir.Function) or known.function_type != type_:
            raise ValueError(f"declare(): the module has another {libcall.symbol}")
        return known
    function = llvmlite.ir.Function(module, type_, libcall.symbol)
    for argument, parameter in zip(function.args, libcall.declaration.parameters, strict=True):
        argument.name = parameter
    # A trap jumps: it is no unwinding that LLVM could see, but it does not return either.
    function.attributes.add("nounwind")
    if libcall.name in NUMERIC and not libcall.declaration.traps:
        function.attributes.add("readnone")
    return function


def _choose(names: tuple[str, ...], where: str) -> dict[str, int]:
    binding = default_binding()
    known = {**binding.symbols(), **binding.runtime_symbols()} if not names else {}
    for name in names:
        libcall = binding.libcalls.get(name)
        symbol = name if libcall is None else libcall.symbol
        known[symbol] = _address(symbol, where)
    return known


def _address(symbol: str, where: str) -> int:
    binding = default_binding()
    for libcall in binding.libcalls.values():  # asked one by one: an address may cost a callback
        if libcall.symbol == symbol:
            return libcall.address
    try:
        return binding.runtime_symbols()[symbol]
    except KeyError:
        raise ValueError(f"{where}: there is no symbol {symbol!r}") from None


def _function_type(libcall: Libcall) -> Any:
    result = libcall.signature.result
    return llvmlite.ir.FunctionType(
        llvmlite.ir.VoidType() if result is None else _type(result),
        [_type(t) for t in libcall.signature.parameters],
    )


def _type(value_type: ValueType) -> Any:
    if value_type.kind == "pointer":
        return llvmlite.ir.IntType(8).as_pointer()
    if value_type.kind == "integer":
        return llvmlite.ir.IntType(value_type.bits)
    return llvmlite.ir.FloatType() if value_type.bits == 32 else llvmlite.ir.DoubleType()
