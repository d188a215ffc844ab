"""Write ``docs/abi_reference.md``: the C side of the package, from the declarations themselves.

    python tools/make_abi_reference.py            writes the file
    python tools/make_abi_reference.py --check    exits with 1 if it is not up to date

The libcalls come from the table, trap codes from their enumeration, structures from ctypes, types
from the signatures. The loaded backend tells which libcalls are machine code, so this needs a
machine where machine code serves every family. A test makes the page again and compares.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from asm_libcalls import LIBCALLS, vmcontext
from asm_libcalls.binding import default_binding
from asm_libcalls.libcalls import BUILTIN_SLOTS, DECLARATIONS, Declaration
from asm_libcalls.llvm.libcalls import DECLARATIONS as LLVM_DECLARATIONS
from asm_libcalls.signatures import MEMORY_POINTERS, VALUE_TYPES, ValueType
from asm_libcalls.signatures.value_types import CONST_POINTER
from asm_libcalls.trap_codes import TrapCode
from asm_libcalls.traps import Trap

PAGE = Path(__file__).resolve().parent.parent / "docs" / "abi_reference.md"

HEADER = """\
<!-- Made by tools/make_abi_reference.py from the declarations: do not edit. -->

# ABI reference

The C functions that a JIT calls, and the structures in memory. They are those of Wasmtime 0.22
(`wasmtime_runtime::libcalls`), by the platform's C calling convention. This page is made from the
declarations that the package itself uses.

- A libcall's *symbol* is `wasmtime_` and its name. `asm_libcalls.symbols()` has all addresses, and
  `LIBCALLS[name].address` has one. They stay valid until the process ends.
- `vmctx` is the `VMContext*` of the calling instance. Integers of 32 bits are unsigned.
- Machine code follows the System V ABI for AMD64: it preserves `rbx`, `rbp` and `r12` to `r15`,
  and may change any other register.
- A call that traps does not return: {doc}`traps`.
"""

LLVM = """\
## LLVM's libcalls

{mod}`asm_libcalls.llvm` has the second table. A *symbol* is `__` and the name, and
`asm_libcalls.llvm.symbols()` has all addresses. The functions have compiler-rt's names, and its
results, also out of range.

- An `__int128` is in two integer registers, its low half first, or whole on the stack; a result
  is in `rax` and `rdx`. A `_Float16` or a `__bf16` is the low 16 bits of `xmm0`; a result of 16
  bits is in `eax` as well.
- Results are rounded to nearest, ties to even, whatever MXCSR says.
- A zero divisor traps. Without an entry to unwind to ({doc}`traps`), it ends the process by SIGFPE.
- A float that is too large for an integer, an infinity or a NaN becomes the largest integer or, if
  its sign is set, the smallest. (From 2**127 to below 2**128, a signed result wraps around.)
- A NaN that is converted to a narrower type becomes quiet, and keeps the upper part of its payload.
  In a wider type it stays as it is.
"""

RUNTIME = """\
## Runtime symbols

`asm_libcalls.runtime_symbols()` has the other functions for generated code. It is empty where no
machine code is loaded.

```c
/* Unwinds to this thread's innermost entry. The code is a TrapCode, or any number of a JIT. */
_Noreturn void asm_libcalls_raise_trap(uint32_t code);
```
"""

LAYOUT = """\
## The VMContext

These are the parts of a VMContext, in order from the vmctx, without padding between them (so
pointers are unaligned after an odd number of signature ids). {class}`~asm_libcalls.VMOffsets`
computes the offsets for given counts. The names of its methods are Wasmtime's.

| part | entries of | offset by |
| --- | --- | --- |
"""

PARTS = (
    ("interrupts", "`VMInterrupts *`", "vmctx_interrupts"),
    (
        "activations table",
        "`VMExternRefActivationsTable *`",
        "vmctx_externref_activations_table",
    ),
    ("stack map registry", "`void *`", "vmctx_stack_map_registry"),
    ("signature ids", "`uint32_t`", "vmctx_vmshared_signature_id"),
    ("imported functions", "`VMFunctionImport`", "vmctx_vmfunction_import"),
    ("imported tables", "`VMTableImport`", "vmctx_vmtable_import"),
    ("imported memories", "`VMMemoryImport`", "vmctx_vmmemory_import"),
    ("imported globals", "`VMGlobalImport`", "vmctx_vmglobal_import"),
    ("tables", "`VMTableDefinition`", "vmctx_vmtable_definition"),
    ("memories", "`VMMemoryDefinition`", "vmctx_vmmemory_definition"),
    ("globals", "`VMGlobalDefinition`, 16-aligned", "vmctx_vmglobal_definition"),
    ("anyfuncs", "`VMCallerCheckedAnyfunc`, imported functions first", "vmctx_anyfunc"),
    ("builtin array", "address of a libcall", "vmctx_builtin_function"),
)

# The targets of pointers in structures, where they are not `void`.
POINTERS = {
    ("VMFunctionImport", "vmctx"): "VMContext",
    ("VMTableImport", "vmctx"): "VMContext",
    ("VMTableImport", "from_"): "VMTableDefinition",
    ("VMMemoryImport", "vmctx"): "VMContext",
    ("VMMemoryImport", "from_"): "VMMemoryDefinition",
    ("VMGlobalImport", "from_"): "VMGlobalDefinition",
    ("VMTableDefinition", "base"): "void *",  # of references
    ("VMMemoryDefinition", "base"): "uint8_t",
    ("VMCallerCheckedAnyfunc", "vmctx"): "VMContext",
}
# What stands for a pointer as an argument, by its `__native_address__`.
OWNERS = {
    "vmctx": "an {class}`~asm_libcalls.Instance`",
    "anyfunc": "a {class}`~asm_libcalls.FuncRef`",
    "externref": "a {class}`~asm_libcalls.VMExternRef`, the box of an object",
    "reference": "a {class}`~asm_libcalls.VMExternRef` or a {class}`~asm_libcalls.FuncRef`",
}
# Fields as wide as a pointer that are numbers.
SIZES = ("stack_limit", "native_stack_limit", "current_length", "ref_count")

# Each is before the structures that point to it, as C needs.
STRUCTURES = (
    "VMInterrupts",
    "VMTableDefinition",
    "VMMemoryDefinition",
    "VMGlobalDefinition",
    "VMFunctionImport",
    "VMTableImport",
    "VMMemoryImport",
    "VMGlobalImport",
    "VMCallerCheckedAnyfunc",
    "VMExternData",
)


def machine_code_names() -> set[str]:
    """Return the libcalls that are machine code; SystemExit if a family cannot be served here."""
    backend = default_binding().x86_64
    reasons = ["no machine code"] if backend is None else [*filter(None, backend.families.values())]
    if reasons:
        raise SystemExit(f"this page cannot be made here: {'; '.join(reasons)}")
    return {name for name, libcall in LIBCALLS.items() if libcall.backend == "x86_64"}


def signature_text(row: Declaration) -> str:
    """Return a row's signature with the parameters' names."""
    parameters = ", ".join(
        name if t.name == name else f"{name}: {t.name}"
        for name, t in zip(row.parameters, row.signature.parameters, strict=True)
    )
    result = "" if row.signature.result is None else f" → {row.signature.result.name}"
    return f"({parameters}){result}"


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    header = list(header)
    yield f"| {' | '.join(header)} |"
    yield f"|{' --- |' * len(header)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def libcalls_section(machine_code: set[str]) -> Iterator[str]:
    """Yield the section of all libcalls, by family."""
    yield "## Libcalls"
    yield ""
    yield from table(
        ("name", "parameters → result", "traps", "served by"),
        (
            (
                f"`{row.name}`",
                f"`{signature_text(row)}`",
                ", ".join(f"`{code.name}`" for code in row.traps) or "none",
                f"`{'x86_64' if row.name in machine_code else 'fallback'}/{row.family}.py`",
            )
            for row in DECLARATIONS.values()
        ),
    )
    yield "At the address is the machine code of `x86_64/`, on a CPU with the features that the"
    yield "family needs, or else a *thunk*: a few instructions that call the Python function of"
    yield "`fallback/`, and then return or unwind. Every libcall has such a function. The machine"
    yield "code of tables, externrefs and growth *leaves* for it, before anything has changed, if a"
    yield "trap is due, an object is destroyed, references are collected, or a limiter is asked."
    yield ""
    yield from prototypes(DECLARATIONS.values())


def prototypes(rows: Iterable[Declaration]) -> Iterator[str]:
    """Yield a section of prototypes for each family."""
    rows = list(rows)
    for family in dict.fromkeys(row.family for row in rows):
        yield f"### {family.replace('_', ' ').capitalize()}"
        yield ""
        yield "```c"
        for row in rows:
            if row.family == family:
                yield f"/* {row.instruction}: {row.doc} */"
                yield row.c_declaration
        yield "```"
        yield ""


def llvm_section() -> Iterator[str]:
    """Yield the section of the second table."""
    yield LLVM
    yield from table(
        ("name", "parameters → result", "LLVM", "served by"),
        (
            (
                f"`{row.name}`",
                f"`{signature_text(row)}`",
                f"`{row.instruction}`",
                f"`llvm/x86_64/{row.family}.py`",
            )
            for row in LLVM_DECLARATIONS.values()
        ),
    )
    yield from prototypes(LLVM_DECLARATIONS.values())


def builtin_section() -> Iterator[str]:
    """Yield the section of the builtin array."""
    yield "## The builtin array"
    yield ""
    yield "The last part of a VMContext has the addresses of the libcalls that work on an instance,"
    yield "in Wasmtime's order. Slot *i* is at `vmctx + offsets.vmctx_builtin_function(i)`. The"
    yield "numeric libcalls are not in it: code is linked to them by symbol."
    yield ""
    rows = (
        (
            str(slot.index),
            f"`{slot.libcall}`" + f", of `{slot.reference_type}`" * bool(slot.reference_type),
        )
        for slot in BUILTIN_SLOTS
    )
    yield from table(("slot", "libcall"), rows)
    yield "`table_grow` and `table_fill` have a slot for each reference type; both do the same."
    yield ""


def trap_section() -> Iterator[str]:
    """Yield the section of trap codes."""
    yield "## Trap codes"
    yield ""
    yield from table(
        ("code", "name", "exception", "message"),
        (
            (
                str(int(code)),
                f"`{code.name}`",
                f"{{class}}`~asm_libcalls.{type(Trap(code)).__name__}`",
                str(Trap(code)),
            )
            for code in TrapCode
        ),
    )


def passed_in(value_type: ValueType) -> str:
    """Return the registers that a type is passed in."""
    if value_type.classes[0] == "SSE":
        return "`xmm0` to `xmm7`"
    two = "two of " if len(value_type.classes) > 1 else ""
    return f"{two}`rdi` `rsi` `rdx` `rcx` `r8` `r9`"


def python_type(value_type: ValueType) -> str:
    """Return what an argument and a result are in Python."""
    if value_type.kind == "float":
        return "float"
    if value_type.name in MEMORY_POINTERS:
        return (
            f"{'a buffer' if value_type.name == CONST_POINTER else 'a writable buffer'}, int, None"
        )
    if value_type.kind == "pointer":
        owners = OWNERS[value_type.name]
        return f"{owners}, or its address (int); None is null; a result is the address"
    if value_type.name == "bool":
        return "bool"
    reading = "signed" if value_type.signed else "unsigned"
    return f"int; a result is {reading}"


def types_section() -> Iterator[str]:
    """Yield the section of the types of a signature."""
    yield "## Types in signatures"
    yield ""
    yield 'A signature is written `"(vmctx, u32, f64) -> i64"`: {class}`~asm_libcalls.Signature`.'
    yield ""
    yield from table(
        ("type", "C", "passed in", "in Python"),
        (
            (f"`{t.name}`", f"`{t.c_name.strip()}`", passed_in(t), python_type(t))
            for t in VALUE_TYPES.values()
        ),
    )


def field_declaration(structure: str, name: str, kind: Any) -> str:
    """Return the C declaration of a structure's field."""
    python_name, name = name, name.rstrip("_")  # `from` is no name in Python
    if issubclass(kind, ctypes.Array):
        bits = ctypes.sizeof(kind._type_) * 8
        return f"uint{bits}_t {name}[{kind._length_}];"
    if kind is ctypes.c_uint32:
        return f"uint32_t {name};"
    if name in SIZES:
        return f"size_t {name};"
    target = POINTERS.get((structure, python_name), "void ")
    space = "" if target.endswith(("*", " ")) else " "
    return f"{target}{space}*{name};"


def layout_section() -> Iterator[str]:
    """Yield the section of the VMContext and its structures."""
    for name, kind, method in PARTS:
        yield f"| {name} | {kind} | {{meth}}`~asm_libcalls.VMOffsets.{method}` |"
    yield ""
    yield "```c"
    yield "typedef struct VMContext VMContext;"
    for structure in STRUCTURES:
        fields = getattr(vmcontext, structure)
        yield ""
        yield f"typedef struct {{  /* {ctypes.sizeof(fields)} bytes */"
        for name, field_type in fields._fields_:
            offset = getattr(fields, name).offset
            declaration = field_declaration(structure, name, field_type)
            if not name.startswith("_"):
                yield f"    {declaration:<36} /* +{offset} */"
        yield f"}} {structure};"
    offsets = vmcontext.VMOffsets()
    yield ""
    yield "typedef struct {  /* the fields that compiled code uses */"
    for name, at in (
        ("next", offsets.vm_extern_ref_activation_table_next()),
        ("end", offsets.vm_extern_ref_activation_table_end()),
    ):
        yield f"    {f'VMExternData **{name};':<36} /* +{at} */"
    yield "} VMExternRefActivationsTable;"
    yield "```"


def make_page() -> str:
    """Return the page."""
    lines = [
        HEADER,
        *libcalls_section(machine_code_names()),
        *builtin_section(),
        *llvm_section(),
        RUNTIME,
        *trap_section(),
        *types_section(),
        LAYOUT.rstrip("\n"),
        *layout_section(),
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the page, or check it; return the exit code."""
    parser = argparse.ArgumentParser(description="Write the ABI reference of the documentation.")
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    check = parser.parse_args().check
    page = make_page()
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == page:
        return 0
    if check:
        print(f"{PAGE} is out of date: run python {Path(__file__).name}", file=sys.stderr)
        return 1
    PAGE.write_text(page, encoding="utf-8")
    print(f"wrote {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
