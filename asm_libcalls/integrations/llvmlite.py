"""llvmlite: the libcalls as symbols that LLVM's code can call, in MCJIT and in ORC.

MCJIT resolves symbols that were added for the whole process (:func:`add_symbols`). ORC resolves
symbols in the libraries linked into an LLJIT, so each library imports the symbols of its code
(:func:`import_symbols`). :func:`declare` adds a declaration to a module's IR.

The libcalls of both tables are available: those of WebAssembly compilers, and those that LLVM
itself calls for 128-bit integers, half precision and powers (:mod:`asm_libcalls.llvm`).

In MCJIT an unresolved symbol is address 0, and a call of it crashes. :func:`finalize` raises an
error before. A libcall that traps unwinds to the innermost :func:`asm_libcalls.catch_traps` of the
thread, so compiled code that may trap must be entered through one.
"""

from __future__ import annotations

import ctypes
import weakref

import llvmlite.binding
import llvmlite.ir

from asm_libcalls.binding import default_binding
from asm_libcalls.emitter import code_names
from asm_libcalls.emitter.elf_symbols import defined_functions, undefined_symbols
from asm_libcalls.integrations.attributes import declare_pure
from asm_libcalls.llvm.binding import default_llvm_binding
from asm_libcalls.signatures import Signature
from asm_libcalls.signatures.arguments import describe, printable, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from asm_libcalls.emitter.code_names import Function
    from asm_libcalls.libcall import Libcall
    from asm_libcalls.signatures import ValueType

__all__ = ["add_symbols", "declare", "finalize", "import_symbols"]

_RUNTIME = {"asm_libcalls_raise_trap": (Signature("(u32)"), ("code",))}
"""Signature and parameters' names of each runtime symbol; none of them returns."""


def add_symbols(*names: str, replace: bool = False) -> dict[str, int]:
    """Make symbols known to every MCJIT engine of this process.

    Call it before code that uses the symbols is finalized. Calling it again changes nothing.

    Parameters
    ----------
    *names : str
        Symbols of :func:`asm_libcalls.symbols`, :func:`asm_libcalls.llvm.symbols` and
        :func:`asm_libcalls.runtime_symbols`, or names of libcalls; by default all of them.
    replace : bool, optional
        Whether to replace other definitions. By default, LLVM's libcalls keep a definition in LLVM
        or in the process, of another compiler-rt, libgcc or numba.

    Returns
    -------
    dict of str to int
        The symbols that are ours now, and their addresses.

    Raises
    ------
    ValueError
        A symbol is unknown, or LLVM has another function for a symbol of the first table.
        (Wasmtime's C library uses a few of these names for other functions, for example
        ``wasmtime_table_grow``.) Nothing is added then.
    """
    chosen = _choose(names, "add_symbols()", replace)
    for symbol, address in chosen.items():
        known = llvmlite.binding.address_of_symbol(symbol)
        if known not in (None, address) and not replace:
            raise ValueError(
                f"add_symbols(): {symbol} is known to LLVM already, as {known:#x}; ours is at "
                f"{address:#x}"
            )
    for symbol, address in chosen.items():
        llvmlite.binding.add_symbol(symbol, address)
    return chosen


def import_symbols(builder: Any, *names: str, replace: bool = False) -> Any:
    """Make symbols known to the code of one library of an ORC LLJIT.

    Parameters
    ----------
    builder : llvmlite.binding.JITLibraryBuilder
    *names : str
        As in :func:`add_symbols`.
    replace : bool, optional
        As in :func:`add_symbols`.

    Returns
    -------
    llvmlite.binding.JITLibraryBuilder
        `builder`, so that ``.export_symbol(...).link(...)`` can follow.

    Raises
    ------
    ValueError
        There is no such symbol.
    """
    for symbol, address in _choose(names, "import_symbols()", replace).items():
        builder.import_symbol(symbol, address)
    return builder


def declare(module: Any, name: str) -> Any:
    """Declare a libcall in a module, with its type and the attributes that let LLVM optimise.

    The result of a numeric libcall that cannot trap depends on its arguments alone: LLVM may merge
    such calls, remove those without a use, and move them out of loops. LLVM keeps all other calls
    in place.

    Parameters
    ----------
    module : llvmlite.ir.Module
    name : str
        A libcall, by its name or its symbol, or a symbol of
        :func:`asm_libcalls.runtime_symbols`, also where no machine code serves.

    Returns
    -------
    llvmlite.ir.Function
        The declaration; the existing one if the module has it already.

    Raises
    ------
    ValueError
        There is no such symbol, or the module uses it for something else.
    """
    if not isinstance(module, llvmlite.ir.Module):
        raise TypeError(f"declare(): module must be an llvmlite.ir.Module, got {describe(module)}")
    libcall = _find(name)
    if libcall is not None:
        symbol, signature = libcall.symbol, libcall.signature
        parameters = libcall.declaration.parameters
    elif name in _RUNTIME:
        symbol, (signature, parameters) = name, _RUNTIME[name]
    else:
        raise ValueError(f"declare(): there is no libcall or runtime symbol {shown(name)}")
    type_ = _function_type(signature)
    known = module.globals.get(symbol)
    if known is not None:
        if not isinstance(known, llvmlite.ir.Function) or known.function_type != type_:
            raise ValueError(f"declare(): the module has another {symbol}")
        return known
    function = llvmlite.ir.Function(module, type_, symbol)
    for argument, parameter in zip(function.args, parameters, strict=True):
        argument.name = parameter
    # A trap does not unwind in LLVM's sense: it jumps and does not return.
    function.attributes.add("nounwind")
    if libcall is None:
        function.attributes.add("noreturn")
    elif not libcall.declaration.exceptions and all(
        t.kind != "pointer" for t in signature.parameters
    ):
        declare_pure(function, is_total=True)
    return function


def finalize(engine: Any) -> dict[str, int]:
    """Compile and link the modules of an MCJIT engine; raise if a symbol has no definition.

    Call it in place of ``engine.finalize_object()``. It reads the compiled objects, so it finds
    the calls that LLVM itself has inserted too (``__divti3``). Modules that were compiled before
    are not checked.

    It also names the functions, in the traces of traps (:attr:`Trap.trace`) and in perf's map. The
    names go when the engine is dropped. A trace walks through functions with a frame pointer only:
    give them the attribute ``"frame-pointer"="all"``. (LLVM itself registers its code with gdb.)

    Parameters
    ----------
    engine : llvmlite.binding.ExecutionEngine

    Returns
    -------
    dict of str to int
        The C address of each function that the compiled modules define, by its name.

    Raises
    ------
    LookupError
        Symbols are defined neither by the engine's modules nor by LLVM's table nor by the process.
        None of the new code may be called.
    """
    if not isinstance(engine, llvmlite.binding.ExecutionEngine):
        raise TypeError(f"finalize(): engine must be an ExecutionEngine, got {describe(engine)}")
    objects = _compile(engine)
    process = ctypes.CDLL(None)
    missing = [
        symbol
        for symbol in sorted({name for content in objects for name in undefined_symbols(content)})
        if not llvmlite.binding.address_of_symbol(symbol)
        and not hasattr(process, symbol)
        and not engine.get_global_value_address(symbol)
    ]
    if missing:
        ours = [symbol for symbol in missing if symbol in _RUNTIME or _find(symbol) is not None]
        hint = f"; add_symbols() has {', '.join(ours)}" if ours else ""
        raise LookupError(f"finalize(): no definition of {', '.join(missing)}{hint}")
    addresses: dict[str, int] = {}
    for content in objects:
        names: list[Function] = []
        for name, size in defined_functions(content):
            address = engine.get_function_address(name)
            if address:
                addresses[name] = address
                names.append((address, size, printable(name), None))
        if names:
            _announce(engine, names)
    return addresses


def _compile(engine: Any) -> list[bytes]:
    """Finalize an engine, and return the objects that it was made of."""
    objects: list[bytes] = []
    notify = getattr(engine, "_object_cache_notify", None)
    get_buffer = getattr(engine, "_object_cache_getbuffer", None)

    def note(module: Any, content: bytes) -> None:
        objects.append(content)
        if notify is not None:
            notify(module, content)

    def get(module: Any) -> bytes | None:
        content: bytes | None = None if get_buffer is None else get_buffer(module)
        if content is not None:
            objects.append(content)
        return content

    engine.set_object_cache(note, get)
    try:
        engine.finalize_object()
    finally:
        engine.set_object_cache(notify, get_buffer)
    return objects


def _announce(engine: Any, names: list[Function]) -> None:
    start = min(address for address, *_ in names)
    code_names.announce(start, lambda: names, in_traces=True)
    weakref.finalize(engine, code_names.withdraw, start).atexit = False


def _choose(names: tuple[str, ...], where: str, replace: bool) -> dict[str, int]:
    """Return symbols and addresses; without `replace`, no LLVM libcall that others define."""
    known = default_binding().runtime_symbols()
    chosen = {name: known[name] for name in names or known if name in known}
    for name in names or (*default_binding().libcalls, *default_llvm_binding().libcalls):
        libcall = _find(name)
        if libcall is not None:
            of_llvm = libcall.name in default_llvm_binding().libcalls
            if of_llvm and not names and libcall.symbol not in default_llvm_binding().symbols():
                continue  # it has no address here
            if replace or not (of_llvm and _others_have(libcall)):
                chosen[libcall.symbol] = libcall.address
        elif name not in chosen:
            raise ValueError(f"{where}: there is no symbol {shown(name)}")
    return chosen


def _find(name: str) -> Libcall | None:
    """Return a libcall of either table by its name or its symbol."""
    for binding in (default_binding(), default_llvm_binding()):
        for libcall in binding.libcalls.values():
            if name in (libcall.name, libcall.symbol):
                return libcall
    return None


def _others_have(libcall: Libcall) -> bool:
    """Return whether LLVM, or the process, has another function for a libcall's symbol."""
    known = llvmlite.binding.address_of_symbol(libcall.symbol)
    if known is not None:
        return bool(known != libcall.address)
    return hasattr(ctypes.CDLL(None), libcall.symbol)


def _function_type(signature: Signature) -> Any:
    result = signature.result
    return llvmlite.ir.FunctionType(
        llvmlite.ir.VoidType() if result is None else _type(result),
        [_type(t) for t in signature.parameters],
    )


def _type(value_type: ValueType) -> Any:
    if value_type.kind == "pointer":
        return llvmlite.ir.IntType(8).as_pointer()
    if value_type.kind == "integer":
        return llvmlite.ir.IntType(value_type.bits)
    if value_type.name == "bf16":
        return BFloatType()
    ir = llvmlite.ir
    return {16: ir.HalfType, 32: ir.FloatType, 64: ir.DoubleType}[value_type.bits]()


class BFloatType(llvmlite.ir.Type):  # type: ignore[misc]
    """LLVM's ``bfloat``, which ``llvmlite.ir`` lacks."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BFloatType)

    def __hash__(self) -> int:
        return hash(BFloatType)
