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
from asm_libcalls.toy_jit.frontend.instructions import BLOCK_TYPES, validate_instruction
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
    operand_types,
)
from asm_libcalls.toy_jit.frontend.operands import FUNCTION, Operands
from asm_libcalls.toy_jit.frontend.reader import Reader, signed, unsigned

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

    Nine of ten instructions, with short immediates and valid, are done here, in code that control
    can reach. All others, and all that are wrong, go through their rules.
    """
    reader, vals, ctrls, module = stacks.reader, stacks.vals, stacks.ctrls, stacks.module
    local_types, functions, globals_ = stacks.local_types, module.functions, module.globals
    short_forms = _KINDS if module.memories else _KINDS_WITHOUT_MEMORY
    start, data = reader.pos, reader.data
    # Lists, since Python reads their items faster than those of bytes. Behind the end is no byte.
    code = [*data[start : reader.end], *_NO_BYTES]
    gets, sets, tees = ([effect[t] for t in local_types] for effect in (PUSH, POP, PEEK))
    instructions: list[Instruction] = []
    append = instructions.append
    uses = LocalUses()
    use = uses.indices.append
    # Without an instruction on vectors, a v128 may still come from a global or a function.
    vectors = V128 in local_types or module.has_vectors
    pos, live, bottom = 0, True, 0  # `bottom` is the innermost frame's height
    most = 0  # the largest number of operands so far, above `bottom`
    types = EMPTY  # of the innermost frame's operands, which are then not in `vals`
    kinds = short_forms  # or _NO_SHORT_FORMS: then all operands are in `vals`
    count = len(local_types)
    while True:
        opcode = code[pos]
        kind = kinds[opcode]
        if kind == _LOCAL_GET:
            index, size = code[pos + 1], 2
            if index >= 0x80:
                index, end = unsigned(data, start + pos + 1, reader.end)
                size = end - start - pos
            if index < count:
                after = types.after[gets[index]] or types.find(gets[index])
                if after is not None:
                    append((opcode, index, pos))
                    use(index)
                    types = after
                    pos += size
                    if types.depth > most:
                        most = types.depth
                    continue
        elif kind == _NUMERIC:
            after = types.after[opcode] or types.find(opcode)
            if after is not None:
                append((opcode, None, pos))
                types = after
                pos += 1
                continue
        elif kind == _CONST:
            after = types.after[opcode] or types.find(opcode)
            if after is not None:
                value, size = code[pos + 1], 2
                if value >= 0x40:  # negative, or of several bytes
                    bits = 32 if opcode == op.I32_CONST else 64
                    value, end = signed(data, start + pos + 1, reader.end, bits)
                    size = end - start - pos
                append((opcode, value, pos))
                types = after
                pos += size
                if types.depth > most:
                    most = types.depth
                continue
        elif kind == _ACCESS:
            after = types.after[opcode] or types.find(opcode)
            if after is not None and code[pos + 1] <= op.ALIGNMENTS[opcode]:
                value, size = code[pos + 2], 3
                if value >= 0x80:
                    value, end = unsigned(data, start + pos + 2, reader.end)
                    size = end - start - pos
                append((opcode, value, pos))
                types = after
                pos += size
                continue
        elif kind == _LOCAL_SET:
            index, size = code[pos + 1], 2
            if index >= 0x80:
                index, end = unsigned(data, start + pos + 1, reader.end)
                size = end - start - pos
            if index < count:
                effect = sets[index] if opcode == op.LOCAL_SET else tees[index]
                after = types.after[effect] or types.find(effect)
                if after is not None:
                    append((opcode, index, pos))
                    use(index)
                    types = after
                    pos += size
                    continue
        elif kind == _BRANCH:
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
                        kinds, live = _NO_SHORT_FORMS, False
                    continue
        elif kind == _END:
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
                        kinds = _NO_SHORT_FORMS
                    else:
                        types = after
                        del vals[bottom:]
                pos += 1
                continue
        elif kind == _BLOCK:
            functype = _block_type(code[pos + 1])
            after = types
            if opcode == op.IF:
                after = types.after[_POP_I32] or types.find(_POP_I32)
            if functype is not None and after is not None:
                stacks.offset = start + pos
                vals += after.types
                frame = stacks.enter(opcode, functype)
                if opcode == op.LOOP:
                    frame.references = stacks.references()
                    uses.begin_loop(len(instructions), frame)
                append((opcode, frame, pos))
                types = EMPTY
                most += bottom
                bottom = frame.height
                most -= bottom
                pos += 2
                continue
        elif kind == _GLOBAL:
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
        elif kind == _DROP:
            after = types.find(POP[types.types[-1]]) if types.depth else None
            if after is not None:
                append((opcode, types.types[-1], pos))
                types = after
                pos += 1
                continue
        elif kind == _CALL:
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
        elif kind == _SELECT:
            have = types.types
            if len(have) > 2 and have[-2] in NUMBERS:
                effect = SELECT[have[-2]]
                after = types.after[effect] or types.find(effect)
                if after is not None:
                    append((opcode, have[-2], pos))
                    types = after
                    pos += 1
                    continue
        elif kind == _LIBCALL:
            after = types.after[opcode] or types.find(opcode)
            if after is not None:
                append((opcode, None, pos))
                use(LIBCALL_ON_NUMBERS)
                types = after
                pos += 1
                continue
        elif kind == _VECTOR:
            number, end = unsigned(data, start + pos + 1, reader.end)
            opcode = op.VECTORS + number
            if opcode in _VECTORS:
                after = types.after[opcode] or types.find(opcode)
                if after is not None:
                    append((opcode, None, pos))
                    types = after
                    pos = end - start
                    vectors = True
                    continue
        elif kind == _LEAVE:
            target = ctrls[0] if opcode == op.RETURN else None
            if target is None or types.types.endswith(target.label):
                append((opcode, target, pos))
                pos += 1
                stacks.set_unreachable()
                kinds, live = _NO_SHORT_FORMS, False
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
                    after = operand_types(bytes(vals[bottom : bottom + MOST + 1]))
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
        kinds = _NO_SHORT_FORMS
        if live:
            after = operand_types(bytes(vals[bottom : bottom + MOST + 1]))
            if after is not None:
                types, kinds = after, short_forms
                del vals[bottom:]


# -- the short forms of frequent instructions, which _validate does itself

_NO_BYTES = (0x100, 0x100, 0x100)  # an opcode, and two bytes behind it

(
    _OTHER, _LOCAL_GET, _LOCAL_SET, _CONST, _ACCESS, _NUMERIC, _BRANCH, _END, _BLOCK, _CALL,
    _GLOBAL, _DROP, _SELECT, _LIBCALL, _LEAVE, _VECTOR,
) = range(16)  # fmt: skip

# the instructions on vectors that have no immediates
_VECTORS = frozenset(
    opcode
    for opcode, signature in enumerate(op.SIGNATURES)
    if opcode >= op.VECTORS and signature and opcode not in op.ALIGNMENTS and opcode not in CALLS
)

_POP_I32 = POP[I32]
_block_type = BLOCK_TYPES.get
_PLAIN_BLOCKS = (op.BLOCK, op.LOOP)  # their END needs no more than the results

_KINDS_BY_OPCODE = {
    op.LOCAL_GET: _LOCAL_GET, op.CALL: _CALL, op.END: _END, op.DROP: _DROP, op.SELECT: _SELECT,
    op.VECTOR_PREFIX: _VECTOR,
    **dict.fromkeys((op.LOCAL_SET, op.LOCAL_TEE), _LOCAL_SET),
    **dict.fromkeys((op.I32_CONST, op.I64_CONST), _CONST),
    **dict.fromkeys((op.UNREACHABLE, op.RETURN), _LEAVE),
    **dict.fromkeys((op.BR, op.BR_IF), _BRANCH),
    **dict.fromkeys((op.GLOBAL_GET, op.GLOBAL_SET), _GLOBAL),
    **dict.fromkeys((op.BLOCK, op.LOOP, op.IF), _BLOCK),
}  # fmt: skip


def _kind(opcode: int) -> int:
    if op.SIGNATURES[opcode] is not None:
        if opcode in CALLS:
            return _LIBCALL
        return _ACCESS if opcode in op.ALIGNMENTS else _NUMERIC
    return _KINDS_BY_OPCODE.get(opcode, _OTHER)


_KINDS = [*map(_kind, range(0x100)), _OTHER]
_KINDS_WITHOUT_MEMORY = [_OTHER if kind == _ACCESS else kind for kind in _KINDS]
_NO_SHORT_FORMS = [_OTHER] * len(_KINDS)
