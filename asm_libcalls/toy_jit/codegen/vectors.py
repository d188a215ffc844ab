"""VectorEmitter: the places of a v128, and stencils whose registers the compiler chooses.

A function with vectors has operand slots of 16 bytes, so that a vector fits each of them. Its
parameters, results and other locals have 8 bytes, or 16 for a v128, in the order of their types.
A v128 has its own kinds of places:

========================== =====================================================================
``("vslot", -32)``         in the frame, at ``[rbp - 32]``
``("vargument", 8)``       an outgoing argument, at ``[rsp + 8]``
``("vconst", 1 << 64)``    a known value, loaded from behind the functions of the module
``("v5",)``                in the whole xmm5. v14 is the accumulator
========================== =====================================================================

Registers that no local has are for vectors; a float operand has the accumulator or its slot.
A result of type v128 is returned in memory, as several results are.

A register for operands that holds none may still have the value of a local's slot or of a constant.
Such values are noted and read from the register. At control flow merges and after calls, none is
known.
"""

from __future__ import annotations

from asm_libcalls.toy_jit.codegen.calls import Emitter
from asm_libcalls.toy_jit.codegen.copies import INSTRUCTION_COPIES
from asm_libcalls.toy_jit.codegen.registers import ACCUMULATORS, FLOATS, as_vector
from asm_libcalls.toy_jit.codegen.stencils.direct_vectors import COMMUTATIVE
from asm_libcalls.toy_jit.codegen.templates import has_avx
from asm_libcalls.toy_jit.frontend.module import V128

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from asm_libcalls.toy_jit.codegen.function_code import Place
    from asm_libcalls.toy_jit.frontend.body import Body

_FIRST, _SECOND, _THIRD = ACCUMULATORS["v"]
_NOT_KNOWN = (-1, -1, ())
_SHORT = {0: "move.zero", (1 << 128) - 1: "move.ones"}  # constants that need no memory


class VectorEmitter(Emitter):
    """Emitter for functions with vectors."""

    # of the last instruction that made a vector, whose target register can still be changed: the
    # begin and end of its code, and the arguments of form()
    produced: tuple[int, int, tuple[Any, ...]] = _NOT_KNOWN

    # -- the frame

    def offsets(self, types: bytes) -> tuple[list[tuple[str, int]], int]:
        """Return the prefixes and offsets of values in memory, and their size; see Emitter."""
        offset = 0
        found = []
        for valtype in types:
            found.append(("v" if valtype == V128 else "", offset))
            offset += 16 if valtype == V128 else 8
        return found, offset

    def lay_out(self, body: Body, parameters: int) -> None:
        """Assign the slots of the locals and operands."""
        types = body.local_types
        offsets, _ = self.offsets(types[:parameters])
        self.homes = [(prefix + "slot", 16 + offset) for prefix, offset in offsets]
        others: dict[int, Place] = {}
        bottom = -8
        for is_vector, size in ((True, 16), (False, 8)):  # vectors first, to align all of them
            for i, valtype in enumerate(types[parameters:]):
                if (valtype == V128) == is_vector:
                    bottom = (bottom - size) // size * size
                    others[i] = ("vslot" if is_vector else "slot", bottom)
        self.homes += [others[i] for i in range(len(others))]
        self.cleared = (-8 - bottom) // 8
        bottom = bottom // 16 * 16
        self.slots = [("slot", bottom - 16 * (i + 1)) for i in range(body.max_height + 1)]
        self.produced = _NOT_KNOWN

    def free_registers(self, taken: frozenset[str]) -> dict[str, list[Place]]:
        """Return the registers that no local has, by the accumulator of their kind."""
        free = super().free_registers(taken)
        rest = [r for r in FLOATS if r not in taken and as_vector(r) not in taken]
        free["xmm0"] = []  # a float leaves the accumulator for its slot
        free[_FIRST] = [(as_vector(r),) for r in rest]
        return free

    def slot(self, height: int, place: Place) -> Place:
        """Return the slot at a height, in the form for a value at a place."""
        slot = self.slots[height]
        return ("vslot", slot[1]) if place[0][0] == "v" else slot

    def clear(self, height: int, types: bytes) -> None:
        """Set the state at a control flow merge; see Places."""
        super().clear(height, types)
        self.forget()
        for i, valtype in enumerate(types, height):
            if valtype == V128:
                self.stack[i] = ("vslot", self.stack[i][1])

    def forget(self) -> None:
        """Forget the known values of registers too."""
        # `known`: registers that have the same values as these places. `known_in` has the places
        # by register. Both have the most recently used last.
        self.known: dict[Place, str] = {}
        self.known_in: dict[str, Place] = {}
        super().forget()

    # -- emitting

    def move(self, target: Place, source: Place) -> None:
        """Copy a value. Changes no flags, and of registers only the target, rdx and xmm1."""
        if target[0][0] != "v":
            super().move(target, source)
            return
        if target == source:
            return
        register = self.known.get(source)
        if register is not None:
            source = (register,)
        to, at = target[0], source[0]
        if to not in ("vslot", "vargument"):
            self.overwrite(to)
            if at in ("vslot", "vargument"):
                self.form("move." + at[1:], to, offset=source[1])
            elif at == "const":  # 0, of any type
                self.form("move.zero", right=to)
            elif at == "vconst" and source[1] in _SHORT:
                self.form(_SHORT[source[1]], right=to)
            elif at == "vconst":
                self.with_constant("v128.load", source[1], to)
            else:
                self.form("move.register", to, right=at)
            return
        if at in ("vslot", "vargument", "vconst", "const"):
            self.move((_THIRD,), source)
            at = _THIRD
        self.form("move.to." + to[1:], at, offset=target[1])

    def produce(
        self,
        name: str,
        left: str = "",
        right: str = "",
        index: str = "",
        offset: int = 0,
        value: int = 0,
    ) -> None:
        """Emit one instruction that makes a vector, in a register for operands, and push that."""
        register = self.vector_register()
        start = len(self.code)
        key = name, register, left, right, index, offset, value  # as form() does, which is slower
        self.code += INSTRUCTION_COPIES.kept.get(key) or INSTRUCTION_COPIES.add(key)
        self.produced = start, len(self.code), key
        self.push_register(register)

    def retarget(self, register: str) -> bool:
        """Make the last instruction write another register, if it made the last result."""
        start, end, key = self.produced
        if end != len(self.code):
            return False
        del self.code[start:]
        name, _, *others = key
        self.form(name, register, *others)
        self.produced = _NOT_KNOWN
        if self.layout.marks:  # the current instruction begins here
            self.layout.marks[-1] = len(self.code)
        return True

    # -- operands

    def overwrite(self, register: str) -> None:
        """Forget the known value of a register."""
        place = self.known_in.pop(register, None)
        if place is not None:
            del self.known[place]

    def vector_register(self, but: str = "", otherwise: str = "") -> str:
        """Return a register for a vector that holds no operand, and is not `but`.

        If none is free, return `otherwise` or, without that, spill an operand.
        """
        held, known_in, all_ = self.held, self.known_in, self.free[_FIRST]
        register: str
        if len(known_in) < len(all_):
            for (register,) in all_:
                if register not in known_in and register not in held and register != but:
                    return register
        for register in known_in:
            if register not in held and register != but:
                self.overwrite(register)
                return register
        if otherwise or _FIRST not in self.held:
            return otherwise or _FIRST
        height = min(height for register, height in self.held.items() if register[0] == "v")
        register = self.stack[height][0]
        self.spill(height)
        return register

    def in_register(self, place: Place, otherwise: str, but: str = "") -> str:
        """Return the register that has a vector, or load it into one that is not `but`."""
        if place[0] not in ("vslot", "vconst"):
            return str(place[0])
        register = self.known.get(place, "")
        if not register:
            is_kept = place[0] == "vconst" or place in self.local_places
            register = self.vector_register(but, otherwise) if is_kept else otherwise
            self.move((register,), place)
        if register != otherwise:
            self.note(place, register)
        return register

    def note(self, place: Place, register: str) -> None:
        """Note that a register has the same value as a place, and is the last one used."""
        self.overwrite(register)
        self.known[place] = register
        self.known_in[register] = place

    def set_local(self, local: Place, register: str) -> None:
        """Note that a local now has the value of a register, if that is one for operands."""
        old = self.known.get(local)
        if old is not None:
            self.overwrite(old)
        if local[0] == "vslot" and (register,) in self.free[_FIRST]:
            self.note(local, register)

    def operate(self, name: str, left: Place, right: Place, value: int = 0) -> None:
        """Emit an instruction on two vectors that have been popped; push its result.

        `value` is the instruction's immediate, if it has one.
        """
        if has_avx():
            if name in COMMUTATIVE and left[0] == "vslot" and right[0] != "vslot":
                left, right = right, left
            # Registers of popped operands count as free, so the right one's is excluded here.
            first = self.in_register(left, _THIRD, self.known.get(right) or right[0])
            in_memory = right[0] == "vslot" and right not in self.known
            if in_memory:
                self.produce(name + ".vslot", first, offset=right[1], value=value)
            else:
                second = self.in_register(right, _SECOND, first)
                self.produce(name, first, second, value=value)
            return
        second = self.in_register(right, _SECOND, left[0])
        if left in (*self.free[_FIRST], (_FIRST,)):
            register = left[0]
        else:
            register = self.vector_register()
            if second == register:
                self.move((_SECOND,), right)
                second = _SECOND
        self.move((register,), left)
        self.form(name, register, right=second, value=value)
        self.push_register(register)
