"""The instructions that the validator does without their rules: the result is that of the rules."""

from pathlib import Path
from random import Random

import pytest
from wasm_functions import code, with_context

import fuzz_coverage
import mutated_modules
import random_modules
from asm_libcalls.toy_jit import InvalidModule
from asm_libcalls.toy_jit.frontend import local_uses, operand_types, validator
from asm_libcalls.toy_jit.frontend import opcodes as op
from asm_libcalls.toy_jit.frontend.decoder import decode_module
from asm_libcalls.toy_jit.frontend.operands import Frame

PROGRAMS = [
    path.read_bytes()
    for path in sorted(Path(__file__).resolve().parents[1].joinpath("programs").glob("*.wasm"))
]


def described(value):
    if isinstance(value, Frame):
        return vars(value)
    if isinstance(value, tuple):
        return tuple(map(described, value))
    return value


def uses_of(body):
    """Return what LocalUses.weigh does, from the list of instructions."""
    uses = [0] * (len(body.local_types) + 2)
    weights, has_loops = [1], False
    for opcode, immediate, _ in body.instructions:
        if opcode in local_uses.LOCALS:
            uses[immediate] += weights[-1]
        elif opcode in local_uses.CALLS:
            uses[local_uses.CALLS[opcode]] += weights[-1]
        elif opcode in (op.BLOCK, op.LOOP, op.IF):
            is_loop = opcode == op.LOOP and immediate.targeted
            has_loops |= is_loop
            weights.append(min(8**6, weights[-1] * 8) if is_loop else weights[-1])
        elif opcode == op.END:
            weights.pop()
    return uses, has_loops


def outcome(binary):
    """Return what validation says of each function, in a form that compares."""
    try:
        module = decode_module(binary)
    except InvalidModule as error:
        return str(error)
    outcomes = []
    for index in range(module.imported_functions, len(module.functions)):
        try:
            body = validator.validate_function(module, index)
        except InvalidModule as error:
            outcomes.append(str(error))
        else:
            instructions = [tuple(map(described, each)) for each in body.instructions]
            uses = body.uses.weigh(len(body.local_types))
            assert uses == uses_of(body)
            outcomes.append(
                (instructions, body.start, body.local_types, body.max_height, body.vectors, uses)
            )
    return outcomes


def validate_by_rules(monkeypatch):
    kinds = [0] * len(validator.KINDS)
    monkeypatch.setattr(validator, "KINDS", kinds)
    monkeypatch.setattr(validator, "KINDS_WITHOUT_MEMORY", kinds)


def damaged(count):
    random = Random(5)
    return [mutated_modules.mutate(random, PROGRAMS) for _ in range(count)]


@pytest.mark.parametrize(
    "binaries",
    [
        pytest.param(lambda: PROGRAMS, id="programs"),
        pytest.param(
            lambda: [path.read_bytes() for path in sorted(fuzz_coverage.CORPUS.glob("*.wasm"))],
            id="corpus",
        ),
        pytest.param(lambda: [random_modules.make(Random(i)) for i in range(60)], id="random"),
        pytest.param(lambda: damaged(60), id="damaged"),
    ],
)
def test_all_are_validated_as_by_their_rules(binaries, monkeypatch):
    binaries = binaries()
    found = [outcome(binary) for binary in binaries]
    validate_by_rules(monkeypatch)
    assert found == [outcome(binary) for binary in binaries]


def test_what_is_kept_may_be_dropped_at_any_time(monkeypatch):
    found = [outcome(binary) for binary in PROGRAMS]
    monkeypatch.setattr(operand_types, "_MOST_KEPT", 2)
    assert found == [outcome(binary) for binary in PROGRAMS]


@pytest.mark.parametrize("operands", [operand_types.MOST - 1, operand_types.MOST, 60])
@pytest.mark.parametrize(
    "inner",
    ["", "block 40 end", "block 40 br 00 end", "i32.const 01 i64.const 02 call 00 drop drop"],
)
def test_a_block_may_have_more_operands_than_are_kept(operands, inner, monkeypatch):
    text = f"{'i32.const 07 ' * operands}{inner} {'drop ' * operands}"
    binary = with_context(code(text))
    found = outcome(binary)
    validate_by_rules(monkeypatch)
    assert not any(isinstance(each, str) for each in found)
    assert found == outcome(binary)
