"""Compile the functions of a module, link their code, and load it.

The code contains offsets of the module's VMContext and, once it is loaded, addresses of this
process, but nothing of an instance. So the instances of a module share it.
"""

from __future__ import annotations

from asm_libcalls.toy_jit.codegen.compiler import FunctionCompiler
from asm_libcalls.toy_jit.codegen.copies import fill_in
from asm_libcalls.toy_jit.codegen.layout import CodeLayout
from asm_libcalls.toy_jit.codegen.templates import load_vectors
from asm_libcalls.toy_jit.frontend.validator import validate_function
from asm_libcalls.toy_jit.link.code_tables import tables_of
from asm_libcalls.toy_jit.link.compiled_code import CompiledCode
from asm_libcalls.trap_codes import TrapCode
from asm_libcalls.x86_64.trampolines import CHECK_STACK, RAISE_TRAP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from asm_libcalls.toy_jit.frontend.module import Module
    from asm_libcalls.toy_jit.options import CompileOptions


def compile_module(
    module: Module, options: CompileOptions, addresses: Mapping[str, int]
) -> CompiledCode:
    """Validate and compile every function of a decoded module, link and load the code.

    `addresses` are the C addresses that the code may call, by symbol. Raise InvalidModule if a
    function is not valid, or beyond a limit of the options.
    """
    layout = CodeLayout(module, options)
    compiler = FunctionCompiler(layout)
    for index in range(module.imported_functions, len(module.functions)):
        function = module.functions[index]
        body = validate_function(module, index, layout.budget)
        if body.vectors:
            load_vectors(function.start)
            # Late import: most modules have no vectors.
            from asm_libcalls.toy_jit.codegen.vector_compiler import VectorFunctionCompiler

            VectorFunctionCompiler(layout).compile(body, function.type)
        else:
            compiler.compile(body, function.type)
    _link(compiler)
    tables, counts_libcalls = tables_of(layout), options.count_libcalls
    return CompiledCode(module, layout.code, tables, addresses, counts_libcalls)


def _link(compiler: FunctionCompiler) -> None:
    """Emit stubs and constants behind the functions, and fill in the distances of calls."""
    layout, code = compiler.layout, compiler.code
    targets: dict[str, int] = {}
    compiler.traps = []
    for trap in TrapCode:
        targets[f"trap.{trap.name}"] = len(code)
        compiler.emit_symbol("stub.trap", RAISE_TRAP, int(trap))
    targets["interrupt"] = len(code)
    compiler.emit_symbol("stub.interrupt", "toy_jit_interrupted")
    targets["trap.overflow"] = len(code)
    compiler.emit_symbol("stub.overflow", CHECK_STACK)
    layout.stubs = targets
    for at, role, _ in compiler.traps:
        layout.calls[role].append(at)
    for callee, patches in layout.calls.items():
        target = layout.functions[callee][0] if isinstance(callee, int) else targets[callee]
        for at in patches:
            fill_in(code, at, target - at - 4)
    for value, patches in layout.constants.items():
        code += b"\xcc" * (-len(code) % 16)  # the loads require this alignment
        compiler.land(patches)
        code += value.to_bytes(16, "little")
