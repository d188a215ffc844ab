"""Make random WebAssembly modules that are valid, and that end.

    random_modules.make(random.Random(7))       -> the binary format of one

They use all of WebAssembly 2.0, but imports and exports have no vectors in their types, because
wasmtime-py cannot pass them. Loops and functions use fuel, which the exported function ``refuel``
resets: so a call ends, by a trap if need be. Everything that two implementations are compared by is
exported. No result depends on the bits of a NaN that an instruction made: before a store, a
reinterpretation or a copysign it becomes the canonical one, and in the lanes of a vector at once.
"""

from __future__ import annotations

from asm_libcalls.toy_jit.frontend.module import FUNCREF, I32, V128
from random_bodies import BodyMaker
from random_spaces import PAGE, IndexSpaces
from wasm_encoding import END, NUMBERS, REFERENCES, s, sized, u, vector

TYPE_CHECKING = False
if TYPE_CHECKING:
    from random import Random

FUEL = 400
"""Iterations of loops, and calls of functions, before a trap."""


def make(random: Random) -> bytes:
    """Return a random module in the binary format."""
    return _ModuleMaker(random).make()


class _ModuleMaker(IndexSpaces):
    """A module that is being made."""

    def make(self) -> bytes:
        """Choose everything, and encode it."""
        random = self.random
        imports = self._imports()
        imported = len(self.functions)
        memories = []
        if not self.pages and random.random() < 0.9:
            self.pages = random.choice((1, 1, 1, 2, 3))
            largest = random.choice((self.pages, self.pages + 2))
            memories.append(b"\x01" + u(self.pages) + u(largest))
        tables = []
        for _ in range(random.randint(0, 3)):
            element, size = random.choice(REFERENCES), random.randint(0, 12)
            self.tables.append(element)
            tables.append(bytes([element, 1]) + u(size) + u(size + random.randint(0, 8)))
        for _ in range(random.randint(1, 5)):
            self.functions.append(self.some_functype(inside=random.random() < 0.4))
        refuel = len(self.functions)
        self.functions.append(((), ()))
        globals_ = self._globals()
        data = self._data()
        elements = self._elements()
        code = [self._body(i) for i in range(imported, refuel)]
        code.append(sized(u(0) + b"\x41" + s(FUEL) + b"\x24" + u(self.fuel) + END))
        start = b""
        plain = [i for i in range(refuel) if self.functions[i] == ((), ())]
        if plain and random.random() < 0.1:
            start = u(random.choice(plain))
        exports = [
            *((f"f{i}", 0, i) for i in range(refuel) if V128 not in sum(self.functions[i], ())),
            ("refuel", 0, refuel),
            *((f"t{i}", 1, i) for i in range(len(self.tables))),
            *(("m", 2, 0) for _ in range(bool(self.pages))),
            *((f"g{i}", 3, i) for i, known in enumerate(self.globals) if known[0] != V128),
        ]
        declared = [u(self.type_index(*functype)) for functype in self.functions[imported:]]
        sections = [
            (2, vector(imports)),
            (3, vector(declared)),
            (4, vector(tables)),
            (5, vector(memories)),
            (6, vector(globals_)),
            (7, vector([sized(n.encode()) + bytes([kind]) + u(i) for n, kind, i in exports])),
            (8, start),
            (9, vector(elements)),
            (12, u(len(data))),
            (10, vector(code)),
            (11, vector(data)),
        ]
        types = vector(
            [b"\x60" + sized(bytes(params)) + sized(bytes(rest)) for params, rest in self.types]
        )
        # The types that the code uses are known only now, and their section is the first.
        return b"\0asm\1\0\0\0" + b"".join(
            bytes([id_]) + sized(content) for id_, content in [(1, types), *sections] if content
        )

    def _imports(self) -> list[bytes]:
        random = self.random
        imports: list[bytes] = []

        def add(kind: int, description: bytes) -> None:
            imports.append(
                sized(b"host") + sized(b"%d" % len(imports)) + bytes([kind]) + description
            )

        for _ in range(random.choice((0, 0, 1, 2, 4))):
            self.functions.append(self.some_functype(inside=False))
            add(0, u(self.type_index(*self.functions[-1])))
        for _ in range(random.choice((0, 0, 1, 3))):
            value_type, mutable = random.choice((*NUMBERS, *REFERENCES)), random.random() < 0.5
            self.globals.append((value_type, mutable))
            add(3, bytes([value_type, mutable]))
        if random.random() < 0.2:
            self.pages = 1
            add(2, b"\x01\x01\x04")
        if random.random() < 0.2:
            self.tables.append(random.choice(REFERENCES))
            add(1, bytes([self.tables[-1], 1]) + u(4) + u(10))
        return imports

    def _globals(self) -> list[bytes]:
        random = self.random
        imported = list(self.globals)
        globals_ = []
        for _ in range(random.randint(0, 6)):
            value_type, mutable = random.choice(self.values()), random.random() < 0.7
            same = [i for i, known in enumerate(imported) if known == (value_type, False)]
            init = self.constant(value_type)
            if same and random.random() < 0.5:
                init = b"\x23" + u(random.choice(same))
            globals_.append(bytes([value_type, mutable]) + init + END)
            self.globals.append((value_type, mutable))
        self.fuel = len(self.globals)
        self.globals.append((I32, True))
        globals_.append(bytes([I32, 1]) + b"\x41" + s(FUEL) + END)
        return globals_

    def _data(self) -> list[bytes]:
        random = self.random
        data = []
        for _ in range(random.choice((0, 1, 2, 3))):
            content = random.randbytes(random.choice((0, 1, 5, 40)))
            if self.pages and random.random() < 0.6:
                last = self.pages * PAGE - len(content)
                # One in fifty does not fit.
                at = (
                    last + random.randint(1, 9)
                    if random.random() < 0.02
                    else random.randint(0, last)
                )
                data.append(b"\x00\x41" + s(at) + END + sized(content))
            else:
                data.append(b"\x01" + sized(content))
        self.data = len(data)
        return data

    def _elements(self) -> list[bytes]:
        random = self.random
        elements = []
        for _ in range(random.choice((0, 1, 2, 4))):
            element = random.choice(REFERENCES)
            items = [self.constant(element) + END for _ in range(random.randint(0, 5))]
            tables = [i for i, known in enumerate(self.tables) if known == element]
            if tables and random.random() < 0.5:
                # A table may be smaller: then instantiation traps.
                at = b"\x41" + s(random.choice((0, 0, 0, 1, 3))) + END
                encoding = (
                    b"\x06" + u(random.choice(tables)) + at + bytes([element]) + vector(items)
                )
            elif element == FUNCREF and random.random() < 0.5:
                indices = [u(random.randrange(len(self.functions))) for _ in items]
                encoding = b"\x01\x00" + vector(indices)
            else:
                mode = random.choice((b"\x05", b"\x05", b"\x07"))
                encoding = mode + bytes([element]) + vector(items)
            elements.append(encoding)
            self.elements.append(element)
        if self.vectors:  # not all functions are exported, and each may be referred to
            indices = [u(i) for i in range(len(self.functions))]
            elements.append(b"\x03\x00" + vector(indices))
            self.elements.append(FUNCREF)
        return elements

    def _body(self, index: int) -> bytes:
        return BodyMaker(self, *self.functions[index]).make()
