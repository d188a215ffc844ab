"""Make the code of random functions; see :mod:`random_modules`."""

from __future__ import annotations

from asm_libcalls.toy_jit.frontend import opcodes as op
from asm_libcalls.toy_jit.frontend.module import FUNCREF, I32
from random_operands import SCALAR_STORES, STORES, TYPES, OperandMaker
from random_spaces import CANONICAL
from wasm_encoding import END, REFERENCES, s, sized, u, vector

_EMPTY = b"\x40"


class BodyMaker(OperandMaker):
    """The statements of a function that is being made."""

    def make(self) -> bytes:
        """Return the function's entry in the code section."""
        self._use_fuel()
        self.labels.append((0, self.results))
        self._sequence(self.results)
        groups = vector([u(1) + bytes([value_type]) for value_type in self.own_locals])
        return sized(groups + bytes(self.code) + END)

    def _sequence(self, results: tuple[int, ...]) -> None:
        """Emit statements, and have the results of the block on the stack at its end."""
        base = self.base()
        for _ in range(self.random.randint(1, 12)):
            self.budget -= 1
            if self.budget <= 0:
                break
            if self._statement():
                if self.random.random() < 0.3:
                    self._dead_code()
                self.stack[base:] = results
                return
        while len(self.stack) - base > len(results) or (
            self.stack[base:] != [*results[: len(self.stack) - base]]
        ):
            self.emit(op.DROP)
            self.stack.pop()
        for value_type in results[len(self.stack) - base :]:
            self.taken = len(self.stack)
            self.value(value_type)

    def _dead_code(self) -> None:
        """Emit unreachable code: operands there may be of any type."""
        del self.stack[self.base() :]
        for _ in range(self.random.randint(1, 4)):
            choice = self.random.random()
            if choice < 0.3 and not self.stack[self.base() :]:
                # Its operands are of the unknown type.
                opcode = self.random.choice(self.fixed)
                self.emit(opcode, *self.immediates(opcode))
                self.emit(op.DROP)
            elif choice < 0.4 and not self.stack[self.base() :]:
                self.emit(op.DROP)
            elif self._statement():
                del self.stack[self.base() :]
        while len(self.stack) > self.base():
            self.emit(op.DROP)
            self.stack.pop()

    def _statement(self) -> bool:
        """Emit a statement; return whether what follows is unreachable."""
        random = self.random
        self.taken = self.base()
        kinds, weights = zip(*_STATEMENTS.items(), strict=True)
        kind = random.choices(kinds, weights)[0]
        return bool(getattr(self, f"_emit_{kind}")())

    def _emit_operation(self) -> None:
        depth = self.random.choice((1, 2, 2, 2, 6))  # the last for more operands than registers
        self.apply(self.random.choice(self.fixed), depth)

    def _emit_value(self) -> None:
        self.value(self.random.choice(self.module.values()))

    def _emit_drop(self) -> None:
        if len(self.stack) > self.base():
            self.emit(op.DROP)
            self.stack.pop()

    def _emit_nop(self) -> None:
        self.emit(op.NOP)

    def _emit_select(self) -> None:
        value_type = self.random.choice(self.module.values())
        self.operands((value_type, value_type, I32))
        if value_type in REFERENCES or self.random.random() < 0.3:
            self.emit(op.SELECT_T, u(1), bytes([value_type]))
        else:
            self.emit(op.SELECT)
        self.replace(2, ())
        self.stack[-1] = value_type

    def _emit_local(self) -> None:
        scratch = len(self.scratch)
        if len(self.locals) == scratch:
            return
        index = self.random.randrange(len(self.locals) - scratch)
        self.operands((self.locals[index],))
        if self.random.random() < 0.4:
            self.emit(op.LOCAL_TEE, u(index))
        else:
            self.emit(op.LOCAL_SET, u(index))
            self.stack.pop()

    def _emit_global(self) -> None:
        settable = [
            i for i, (_, mutable) in enumerate(self.module.globals)
            if mutable and i != self.module.fuel
        ]  # fmt: skip
        if settable:
            index = self.random.choice(settable)
            self.operands((self.module.globals[index][0],))
            self.emit(op.GLOBAL_SET, u(index))
            self.stack.pop()

    def _emit_reference(self) -> None:
        self.operands((self.random.choice(REFERENCES),))
        self.emit(op.REF_IS_NULL)
        self.replace(1, (I32,))

    def _emit_store(self) -> None:
        if not self.module.pages:
            return
        opcode = self.random.choice(STORES if self.module.vectors else SCALAR_STORES)
        value_type = TYPES[opcode][0][1]
        self.address()
        self.value(value_type)
        if value_type in CANONICAL:
            self.canonical(value_type)
        self.emit(opcode, *self.immediates(opcode))
        self.replace(2, ())

    def _emit_memory(self) -> None:
        module, random = self.module, self.random
        if not module.pages:
            return
        choice = random.choice(("size", "grow", "fill", "copy", "init", "drop"))
        if choice == "size":
            self.emit(op.MEMORY_SIZE, b"\0")
            self.stack.append(I32)
        elif choice == "grow":
            self.masked(1)
            self.emit(op.MEMORY_GROW, b"\0")
        elif choice in ("fill", "copy"):
            self.address()
            self.address()
            self.masked(random.choice((7, 255, 4095)))
            self.emit(*((op.MEMORY_FILL, b"\0") if choice == "fill" else (op.MEMORY_COPY, b"\0\0")))
            self.replace(3, ())
        elif module.data:
            index = u(random.randrange(module.data))
            if choice == "drop":
                self.emit(op.DATA_DROP, index)
                return
            self.address()
            self.masked(7)
            self.masked(7)
            self.emit(op.MEMORY_INIT, index, b"\0")
            self.replace(3, ())

    def _emit_table(self) -> None:
        module, random = self.module, self.random
        if not module.tables:
            return
        table = random.randrange(len(module.tables))
        element = module.tables[table]
        choice = random.choice(("set", "size", "grow", "fill", "copy", "init", "drop"))
        segments = [i for i, known in enumerate(module.elements) if known == element]
        if choice == "set":
            self.index()
            self.value(element)
            self.emit(op.TABLE_SET, u(table))
            self.replace(2, ())
        elif choice == "size":
            self.emit(op.TABLE_SIZE, u(table))
            self.stack.append(I32)
        elif choice == "grow":
            self.operands((element,))
            self.masked(3)
            self.emit(op.TABLE_GROW, u(table))
            self.replace(2, (I32,))
        elif choice == "fill":
            self.index()
            self.value(element)
            self.masked(3)
            self.emit(op.TABLE_FILL, u(table))
            self.replace(3, ())
        elif choice == "copy":
            source = random.choice([i for i, known in enumerate(module.tables) if known == element])
            self.index()
            self.index()
            self.masked(3)
            self.emit(op.TABLE_COPY, u(table), u(source))
            self.replace(3, ())
        elif segments:
            segment = u(random.choice(segments))
            if choice == "drop":
                self.emit(op.ELEM_DROP, segment)
                return
            self.index()
            self.masked(1)
            self.masked(3)
            self.emit(op.TABLE_INIT, segment, u(table))
            self.replace(3, ())

    # -- control

    def _use_fuel(self) -> None:
        fuel = u(self.module.fuel)
        self.emit(op.GLOBAL_GET, fuel)
        self.emit(op.OPCODES["i32.eqz"])
        self.emit(op.IF, _EMPTY)
        self.emit(op.UNREACHABLE)
        self.emit(op.END)
        self.emit(op.GLOBAL_GET, fuel)
        self.emit(op.I32_CONST, s(1))
        self.emit(op.OPCODES["i32.sub"])
        self.emit(op.GLOBAL_SET, fuel)

    def _emit_block(self) -> None:
        random = self.random
        if len(self.labels) > 6:
            return
        opcode = random.choice((op.BLOCK, op.LOOP, op.LOOP, op.IF))
        results = self.module.some_types(random.choice((0, 1, 1, 3)))
        own = self.stack[self.base() :]
        count = random.choice((0, 0, min(len(own), random.randint(0, 3))))
        params = tuple(own[len(own) - count :])
        if opcode == op.IF:
            self.taken = len(self.stack)
            self.value(I32)
            self.stack.pop()
        if not params and len(results) < 2 and random.random() < 0.8:
            blocktype = bytes(results) or _EMPTY
        else:
            blocktype = s(self.module.type_index(params, results))
        self.emit(opcode, blocktype)
        height = len(self.stack) - count
        self.labels.append((height, params if opcode == op.LOOP else results))
        if opcode == op.LOOP:
            self._use_fuel()
        self._sequence(results)
        if opcode == op.IF and (params != results or random.random() < 0.7):
            self.emit(op.ELSE)
            self.stack[height:] = params
            self._sequence(results)
        self.labels.pop()
        self.emit(op.END)

    def _label(self) -> tuple[bytes, tuple[int, ...]]:
        depth = self.random.randrange(len(self.labels))
        return u(depth), self.labels[-1 - depth][1]

    def _emit_branch_if(self) -> None:
        label, carried = self._label()
        self.operands((*carried, I32))
        self.emit(op.BR_IF, label)
        self.stack.pop()

    def _emit_branch(self) -> bool:
        label, carried = self._label()
        self.operands(carried)
        self.emit(op.BR, label)
        return True

    def _emit_branch_table(self) -> bool:
        default, carried = self._label()
        same = [i for i, (_, other) in enumerate(reversed(self.labels)) if other == carried]
        targets = [u(self.random.choice(same)) for _ in range(self.random.randint(0, 5))]
        self.operands((*carried, I32))
        if self.random.random() < 0.7:
            self.emit(op.I32_CONST, s(7))
            self.emit(op.OPCODES["i32.and"])
        self.emit(op.BR_TABLE, vector(targets), default)
        return True

    def _emit_return(self) -> bool:
        self.operands(self.results)
        self.emit(op.RETURN)
        return True

    def _emit_unreachable(self) -> bool:
        self.emit(op.UNREACHABLE)
        return True

    def _emit_call(self) -> None:
        index = self.random.randrange(len(self.module.functions))
        params, results = self.module.functions[index]
        self.operands(params)
        self.emit(op.CALL, u(index))
        self.replace(len(params), results)

    def _emit_call_indirect(self) -> None:
        module, random = self.module, self.random
        tables = [i for i, element in enumerate(module.tables) if element == FUNCREF]
        if not tables:
            return
        params, results = random.choice(module.functions)
        self.operands(params)
        self.taken = len(self.stack)
        self.value(I32)
        if random.random() < 0.9:
            self.emit(op.I32_CONST, s(3))
            self.emit(op.OPCODES["i32.and"])
        type_index = u(module.type_index(params, results))
        self.emit(op.CALL_INDIRECT, type_index, u(random.choice(tables)))
        self.replace(len(params) + 1, results)


_STATEMENTS = {
    "operation": 30, "value": 12, "drop": 6, "nop": 1, "select": 5, "local": 20, "global": 5,
    "reference": 2, "store": 8, "memory": 5, "table": 5, "block": 16, "branch_if": 6, "branch": 1,
    "branch_table": 1, "return": 0.6, "unreachable": 0.2, "call": 4, "call_indirect": 3,
}  # fmt: skip
"""What a statement may be, and how often."""
