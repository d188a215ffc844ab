"""Decode and validate function bodies, in one pass, into lists of instructions for the compiler.

:func:`validate_function` is the only reader of instructions. It follows the algorithm of the spec
(2.0, appendix A.3) and returns a :class:`~.body.Body`, whose `instructions` are what
:mod:`.body` describes.
"""

from __future__ import annotations

from asm_libcalls.toy_jit.errors import LimitExceeded, MalformedModule
from asm_libcalls.toy_jit.frontend import opcodes as op
from asm_libcalls.toy_jit.frontend.body import Body
from asm_libcalls.toy_jit.frontend.budget import Budget
from asm_libcalls.toy_jit.frontend.instruction_rules import BLOCK_TYPES, validate_instruction
from asm_libcalls.toy_jit.frontend.local_uses import (
    CALL,
    CALLS,
    LIBCALL_ON_NUMBERS,
    LOCALS,
    LocalUses,
)
from asm_libcalls.toy_jit.frontend.module import EXTERNREF, I32, V128, FuncType
from asm_libcalls.toy_jit.frontend.operand_types import (
    EMPTY,
    MOST,
    NUMBERS,
    PEEK,
    POP,
    PUSH,
    SELECT,
    OperandTypes,
    operand_types,
)
from asm_libcalls.toy_jit.frontend.operands import FUNCTION, Frame, Operands
from asm_libcalls.toy_jit.frontend.reader import Reader, signed, unsigned
from asm_libcalls.toy_jit.frontend.short_forms import (
    KINDS,
    KINDS_WITHOUT_MEMORY,
    NO_BYTES,
    NO_KINDS,
    SHORT_ACCESS,
    SHORT_BLOCK,
    SHORT_BRANCH,
    SHORT_CALL,
    SHORT_CONST,
    SHORT_DROP,
    SHORT_END,
    SHORT_GLOBAL,
    SHORT_LEAVE,
    SHORT_LIBCALL,
    SHORT_LOCAL,
    SHORT_NUMERIC,
    SHORT_SELECT,
    SHORT_VECTOR,
    VECTORS,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asm_libcalls.toy_jit.frontend.body import Instruction
    from asm_libcalls.toy_jit.frontend.module import Module

MAX_SLOTS = 50_000  # locals (parameters included), and operands, of a function


def validate_function(module: Module, index: int, budget: Budget | None = None) -> Body:
    """Decode and validate a function of a decoded module, which is not an import.

    Raise InvalidModule if the function is malformed, invalid, or beyond a limit of the budget.
    """
    function = module.functions[index]
    reader = Reader(module.binary, function.start, function.end)
    budget = budget or Budget(len(module.binary))
    local_types = function.type.params + _locals(reader, len(function.type.params), budget)
    stacks = Operands(module, reader, local_types, budget)
    stacks.enter(FUNCTION, FuncType(b"", function.type.results))
    body = _validate(stacks)
    if reader.pos != function.end:
        raise MalformedModule("section size mismatch", reader.pos)
    return body


def _locals(reader: Reader, count: int, budget: Budget) -> bytes:
    """Read the declarations of locals; `count` parameters precede them."""
    start = reader.pos
    groups = [(reader.u32(), reader.value_type()) for _ in range(reader.length())]
    declared = sum(repeat for repeat, _ in groups)
    if declared >= 1 << 32:
        raise MalformedModule("too many locals", start)
    if count + declared > MAX_SLOTS:
        raise LimitExceeded(f"more than {MAX_SLOTS} locals", start)
    budget.use("max_locals", count + declared, start)
    return b"".join(bytes([valtype]) * repeat for repeat, valtype in groups)


def _validate(stacks: Operands) -> Body:
    """Validate instructions up to the END of the function.

    Nine of ten instructions are handled here: the frequent ones, in reachable code. All others, and
    all invalid ones, go through their rules.
    """
    reader, vals, ctrls, module = stacks.reader, stacks.vals, stacks.ctrls, stacks.module
    local_types, functions, globals_ = stacks.local_types, module.functions, module.globals
    short_forms = KINDS if module.memories else KINDS_WITHOUT_MEMORY
    start, data = reader.pos, reader.data
    # A list, because CPython reads its items faster than those of bytes.
    code = [*data[start : reader.end], *NO_BYTES]
    # by opcode and index of a local: the effect
    effects_of = [*_OTHER_EFFECTS, *([*map(effect, local_types)] for effect in _LOCAL_EFFECTS)]
    instructions: list[Instruction] = []
    append = instructions.append
    uses = LocalUses()
    use = uses.indices.append
    # Without an instruction on vectors, a v128 may still come from a global or a function.
    vectors = V128 in local_types or module.has_vectors
    pos, live, bottom = 0, True, 0  # `bottom` is the innermost frame's height
    most = 0  # the largest number of operands so far, above `bottom`
    types = EMPTY  # of the innermost frame's operands, which are then not in `vals`
    kinds = short_forms  # or NO_KINDS: then all operands are in `vals`
    count = len(local_types)
    of_one_byte = min(count, 0x80)  # indices of locals
    while True:
        opcode = code[pos]
        kind = kinds[opcode]
        if kind == SHORT_LOCAL:
            index = code[pos + 1]
            end = pos + 2
            if index >= of_one_byte:
                index, end = unsigned(data, start + pos + 1, reader.end)
                end -= start
            if index < count:
                effect = effects_of[opcode][index]
                after = types.after[effect] or types.find(effect)
                if after is not None:
                    append((opcode, index, pos))
                    use(index)
                    types = after
                    pos = end
                    if types.depth > most:
                        most = types.depth
                    continue
        elif kind == SHORT_NUMERIC:
            after = types.after[opcode] or types.find(opcode)
            if after is not None:
                append((opcode, None, pos))
                types = after
                pos += 1
                continue
        elif kind == SHORT_CONST:
            after = types.after[opcode] or types.find(opcode)
            if after is not None:
                value = code[pos + 1]
                if value < 0x40:
                    append((opcode, value, pos))
                    pos += 2
                else:  # negative, or of several bytes
                    bits = 32 if opcode == op.I32_CONST else 64
                    value, end = signed(data, start + pos + 1, reader.end, bits)
                    append((opcode, value, pos))
                    pos = end - start
                types = after
                if types.depth > most:
                    most = types.depth
                continue
        elif kind == SHORT_ACCESS:
            after = types.after[opcode] or types.find(opcode)
            if after is not None and code[pos + 1] <= op.ALIGNMENTS[opcode]:
                value = code[pos + 2]
                if value < 0x80:
                    append((opcode, value, pos))
                    pos += 3
                else:
                    value, end = unsigned(data, start + pos + 2, reader.end)
                    append((opcode, value, pos))
                    pos = end - start
                types = after
                continue
        elif kind == SHORT_BRANCH:
            depth = code[pos + 1]
            after = types
            if opcode == op.BR_IF:
                after = types.after[_POP_I32] or types.find(_POP_I32)
            if depth < 0x80 and depth < len(ctrls) and after is not None:
                frame = ctrls[-1 - depth]
                if after.types.endswith(frame.label):
                    frame.targeted = True
                    append((opcode, frame, pos))
                    types = after
                    pos += 2
                    if opcode == op.BR:
                        stacks.set_unreachable()
                        kinds, live = NO_KINDS, False
                    continue
        elif kind == SHORT_END:
            frame = ctrls[-1]
            results, begun_by = frame.results, frame.opcode
            is_block = begun_by in _PLAIN_BLOCKS or (
                begun_by == op.IF and (frame.has_else or results == frame.params)
            )
            if is_block and types.types == results:
                if begun_by == op.LOOP:
                    uses.end_loop(len(instructions))
                append((opcode, frame, pos))
                ctrls.pop()
                most += bottom
                bottom = ctrls[-1].height
                most -= bottom
                if len(vals) > bottom:
                    after = operand_types(bytes(vals[bottom : bottom + MOST + 1]) + results)
                    if after is None:
                        vals += results
                        kinds = NO_KINDS
                    else:
                        types = after
                        del vals[bottom:]
                pos += 1
                continue
        elif kind == SHORT_BLOCK:
            functype = _block_type(code[pos + 1])
            after = types
            if opcode == op.IF:
                after = types.after[_POP_I32] or types.find(_POP_I32)
            if functype is not None and after is not None:
                if after.depth:
                    vals += after.types
                frame = Frame(opcode, functype, len(vals), live=True)
                ctrls.append(frame)
                if opcode == op.LOOP:
                    stacks.offset = start + pos
                    frame.references = stacks.references()
                    uses.begin_loop(len(instructions), frame)
                append((opcode, frame, pos))
                types = EMPTY
                most += bottom
                bottom = frame.height
                most -= bottom
                pos += 2
                continue
        elif kind == SHORT_GLOBAL:
            index = code[pos + 1]
            if index < 0x80 and index < len(globals_) and EXTERNREF not in types.types:
                globaltype = globals_[index].type
                effects = POP if opcode == op.GLOBAL_SET else PUSH
                effect = effects[globaltype.value]
                after = types.after[effect] or types.find(effect)
                if (
                    after is not None
                    and (effects is PUSH or globaltype.mutable)
                    and EXTERNREF not in vals
                ):
                    append((opcode, (index, ()), pos))
                    types = after
                    pos += 2
                    most = max(most, types.depth)
                    continue
        elif kind == SHORT_DROP:
            if types.depth:
                effect = POP[types.types[-1]]
                after = types.after[effect] or types.find(effect)
                if after is not None:
                    append((opcode, types.types[-1], pos))
                    types = after
                    pos += 1
                    continue
        elif kind == SHORT_CALL:
            index, size = code[pos + 1], 2
            if index >= 0x80:
                index, end = unsigned(data, start + pos + 1, reader.end)
                size = end - start - pos
            if index < len(functions):
                functype = functions[index].type
                params, have = functype.params, types.types
                if have.endswith(params) and EXTERNREF not in have and EXTERNREF not in vals:
                    after = operand_types(have[: len(have) - len(params)] + functype.results)
                    if after is not None:
                        append((opcode, (index, functype, ()), pos))
                        use(CALL)
                        types = after
                        pos += size
                        most = max(most, types.depth)
                        continue
        elif kind == SHORT_SELECT:
            have = types.types
            if len(have) > 2 and have[-2] in NUMBERS:
                effect = SELECT[have[-2]]
                after = types.after[effect] or types.find(effect)
                if after is not None:
                    append((opcode, have[-2], pos))
                    types = after
                    pos += 1
                    continue
        elif kind == SHORT_LIBCALL:
            after = types.after[opcode] or types.find(opcode)
            if after is not None:
                append((opcode, None, pos))
                use(LIBCALL_ON_NUMBERS)
                types = after
                pos += 1
                continue
        elif kind == SHORT_VECTOR:
            number, end = unsigned(data, start + pos + 1, reader.end)
            opcode = op.VECTORS + number
            if opcode in VECTORS:
                after = types.after[opcode] or types.find(opcode)
                if after is not None:
                    append((opcode, None, pos))
                    types = after
                    pos = end - start
                    vectors = True
                    continue
        elif kind == SHORT_LEAVE:
            target = ctrls[0] if opcode == op.RETURN else None
            if target is None or types.types.endswith(target.label):
                append((opcode, target, pos))
                pos += 1
                stacks.set_unreachable()
                kinds, live = NO_KINDS, False
                continue
        if not live and opcode == op.END and len(ctrls) > 1:
            frame = ctrls[-1]
            is_loop, passes = frame.opcode == op.LOOP, frame.opcode == op.IF and not frame.has_else
            if frame.unreachable and len(vals) == bottom and not (passes and frame.results):
                if frame.live:
                    frame.reaches_end = False
                    if is_loop:
                        uses.end_loop(len(instructions))
                    append((op.END, frame, pos))
                    live = stacks.live = passes or (frame.targeted and not is_loop)
                ctrls.pop()
                vals += frame.results
                most = max(bottom + most, len(vals))
                bottom = ctrls[-1].height
                most -= bottom
                if live:
                    after = _types_above(vals, bottom)
                    if after is not None:
                        types, kinds = after, short_forms
                        del vals[bottom:]
                pos += 1
                continue
        if kinds is short_forms:
            vals += types.types
        max_height = max(bottom + most, len(vals))
        if max_height > MAX_SLOTS:
            raise LimitExceeded(f"more than {MAX_SLOTS} operands", start + pos)
        stacks.live = live
        opcode, immediate = validate_instruction(stacks, start + pos)
        if opcode in (op.ELSE, op.END):  # in the list if their block is live
            if not live:
                setattr(immediate, "reaches_else" if opcode == op.ELSE else "reaches_end", False)
            live = immediate.live
        if live and opcode != op.NOP:
            append((opcode, immediate, pos))
            if opcode in LOCALS:
                use(immediate)
            elif opcode in CALLS:
                use(CALLS[opcode])
            elif opcode == op.LOOP:
                uses.begin_loop(len(instructions) - 1, immediate)
            elif opcode == op.END and immediate.opcode == op.LOOP:
                uses.end_loop(len(instructions) - 1)
        if opcode >= op.VECTORS:
            vectors = True
        if not ctrls:
            return Body(instructions, start, local_types, max_height, vectors, uses)
        pos, live, bottom = reader.pos - start, stacks.live, ctrls[-1].height
        most = max(max_height, len(vals)) - bottom
        kinds = NO_KINDS
        if live:
            after = _types_above(vals, bottom)
            if after is not None:
                types, kinds = after, short_forms
                del vals[bottom:]


def _types_above(vals: bytearray, bottom: int) -> OperandTypes | None:
    """Return the types of the innermost frame's operands, or None if these are more than MOST."""
    if len(vals) == bottom:
        return EMPTY
    return operand_types(bytes(vals[bottom : bottom + MOST + 1]))


_OTHER_EFFECTS = [[0]] * op.LOCAL_GET
_LOCAL_EFFECTS = [effects.__getitem__ for effects in (PUSH, POP, PEEK)]  # in the opcodes' order
_POP_I32 = POP[I32]
_PLAIN_BLOCKS = (op.BLOCK, op.LOOP)  # their END needs no more than the results
_block_type = BLOCK_TYPES.get
