"""Assembles PeachPy code to routines: leaf functions, and sequences that manage the stack.

PeachPy keeps the active function in a global variable, so assembling is neither re-entrant nor
thread-safe. ``code_cache.py`` has a lock for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from asm_libcalls.x86_64.find_assembler import require_assembler

require_assembler()  # before the first import of PeachPy, for an error that says how to get it

import peachpy
import peachpy.x86_64.uarch
from peachpy.stream import InstructionStream
from peachpy.x86_64 import abi, isa
from peachpy.x86_64 import registers as peachpy_registers
from peachpy.x86_64.function import Function
from peachpy.x86_64.instructions import BranchInstruction
from peachpy.x86_64.pseudo import LABEL

from asm_libcalls.signatures import Signature
from asm_libcalls.emitter import call_frames
from asm_libcalls.emitter.image import Reference, Routine
from asm_libcalls.x86_64.assembler.instructions import _Reference

_PEACHPY_TYPES = {
    "int32_t": peachpy.int32_t,
    "uint32_t": peachpy.uint32_t,
    "int64_t": peachpy.int64_t,
    "uint64_t": peachpy.uint64_t,
    "float": peachpy.float_,
    "double": peachpy.double_,
}


def _peachpy_type(c_name: str) -> Any:
    return _PEACHPY_TYPES.get(c_name) or peachpy.ptr()


def registers(names: Sequence[str]) -> tuple[Any, ...]:
    """Return PeachPy's registers by name, for example those of ``INTEGER_REGISTERS``."""
    return tuple(getattr(peachpy_registers, name) for name in names)


def target(*extensions: str) -> Any:
    """Return a PeachPy target: baseline x86-64 and the named extensions.

    PeachPy refuses any other instruction, so each routine declares what it needs of the CPU.
    """
    result = peachpy.x86_64.uarch.default
    for name in extensions:
        result = result + getattr(isa, name)
    return result


def function(
    name: str,
    signature: str,
    body: Callable[..., None],
    extensions: Sequence[str] = (),
    *,
    wide_vectors: bool = False,
) -> Routine:
    """Assemble a leaf routine from its body, written with virtual registers.

    `body` gets one PeachPy argument for each parameter of the C signature. It emits the
    instructions: ``LOAD.ARGUMENT`` for every argument first, and a ``RETURN`` or a tail jump at the
    end of each path. `extensions` are CPU features beyond baseline x86-64, by PeachPy's names
    (``"sse4_1"``). With `wide_vectors`, it uses ymm or zmm registers, and so must end in
    ``vzeroupper``.
    """
    parsed = Signature(signature)
    arguments = tuple(
        peachpy.Argument(_peachpy_type(t.c_name), name=f"argument_{i}")
        for i, t in enumerate(parsed.parameters)
    )
    result = None if parsed.result is None else _peachpy_type(parsed.result.c_name)
    microarchitecture = target(*extensions)
    peachpy_function = Function(name, arguments, result, target=microarchitecture)
    if microarchitecture.has_avx and not wide_vectors:
        # PeachPy ends every function that uses AVX in vzeroupper unless the caller is declared to
        # be AVX code. Scalar VEX instructions leave no dirty upper halves. (Without AVX this must
        # stay unset: PeachPy would refuse every SSE instruction.)
        peachpy_function.avx_environment = True
    with peachpy_function:
        body(*arguments)
    encoded = peachpy_function.finalize(abi.system_v_x86_64_abi).encode()
    instructions = bytes(encoded.code_section.content)
    constants = bytes(encoded.const_section.content)
    alignment = max(16, encoded.const_section.alignment if constants else 16)
    constants_at = -(-len(instructions) // alignment) * alignment if constants else 0
    code = bytearray(instructions)
    if constants:
        code += b"\xcc" * (constants_at - len(instructions)) + constants
        for relocation in encoded.code_section.relocations:
            at = relocation.offset
            distance = constants_at + relocation.symbol.offset - relocation.program_counter
            code[at : at + 4] = distance.to_bytes(4, "little", signed=True)
    return Routine(
        name,
        bytes(code),
        len(instructions),
        _references(encoded._instructions),
        None,
        alignment,
        call_frames.frames(encoded._instructions),
        is_straight=not constants and _is_straight(encoded._instructions),
    )


def sequence(
    name: str, body: Callable[[], object], *, framed: bool = False, stencil: list[Any] | None = None
) -> Routine:
    """Assemble a routine from exactly the instructions that `body` emits, on physical registers.

    Its labels become symbols of the image, named ``ROUTINE.LABEL``. Code jumps to a `framed`
    routine after it has pushed its caller's rbp and set rbp. With a `stencil` list it is a stencil:
    it is not run in the image and has no call frames. Its encoded instructions are appended.
    """
    with InstructionStream() as stream:
        body()
    labels, size = _lay_out(stream.instructions)
    code = b"".join(bytes(i.bytecode) for i in stream.instructions if i.bytecode)
    assert len(code) == size
    symbols = {f"{name}.{label}": at for label, at in labels.items()}
    if stencil is None:
        frames = call_frames.frames(stream.instructions, framed=framed)
    else:
        frames = ()
        stencil += stream.instructions
    references = _references(stream.instructions)
    straight = stencil is None and _is_straight(stream.instructions)
    return Routine(name, code, size, references, symbols, frames=frames, is_straight=straight)


def _lay_out(instructions: Sequence[Any]) -> tuple[dict[str, int], int]:
    # A branch starts short and becomes long if its label is too far. Lengthening only pushes other
    # labels further away, so the passes end.
    _check_labels(instructions)
    labels: dict[Any, int] = {}
    long_branches: set[int] = set()
    while True:
        address, settled = 0, True
        for i, instruction in enumerate(instructions):
            if isinstance(instruction, LABEL):
                settled = settled and labels.get(instruction.identifier) == address
                labels[instruction.identifier] = address
                continue
            if isinstance(instruction, BranchInstruction) and instruction.label_name:
                label_at = labels.get(instruction.label_name)
                is_long, instruction.bytecode = instruction._encode_label_branch(
                    address, label_at, long_encoding=i in long_branches
                )
                settled = settled and label_at is not None
                if is_long and i not in long_branches:
                    long_branches.add(i)
                    settled = False
            else:
                instruction.bytecode = instruction.encode()
            address += len(instruction.bytecode or b"")
        if settled:
            return {_text(label): at for label, at in labels.items()}, address


def _check_labels(instructions: Sequence[Any]) -> None:
    # Labels are compared by identity: two labels with the same name differ.
    defined: set[Any] = set()
    for instruction in instructions:
        if isinstance(instruction, LABEL):
            if instruction.identifier in defined:
                raise ValueError(f"the label {_text(instruction.identifier)} is defined twice")
            defined.add(instruction.identifier)
    for instruction in instructions:
        wanted = isinstance(instruction, BranchInstruction) and instruction.label_name
        if wanted and wanted not in defined:
            raise ValueError(f"the label {_text(wanted)} is not defined")


def _text(label: tuple[Any, ...]) -> str:
    return ".".join(map(str, label))


def _is_straight(instructions: Sequence[Any]) -> bool:
    """Return whether there is one ``ret``, at the end, and neither a branch nor a reference."""
    *others, last = [i for i in instructions if i.bytecode]
    return last.name == "RET" and not any(
        i.name in ("RET", "CALL") or isinstance(i, (BranchInstruction, _Reference)) for i in others
    )


def _references(instructions: Sequence[Any]) -> tuple[Reference, ...]:
    references = []
    offset = 0
    for instruction in instructions:
        offset += len(instruction.bytecode or b"")
        if isinstance(instruction, _Reference):
            references.append(Reference(offset - 4, instruction.symbol, instruction.is_slot))
    return tuple(references)
