"""Operations that need memory or pages of the system, for tests that refuse them.

Each operation ends as usual, or with a MemoryError or OSError, or says with -1 that it did not
happen; nothing that was there before is lost. Runs in child processes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jit_modules import Function, build
from process_maps import offenders

import asm_libcalls
from asm_libcalls import Global, HostFunction, Instance, Memory, Table, VMExternRef, toy_jit

BINARY = build(
    {
        "grow": Function("i32 -> i32", "local.get 00 memory.grow 00"),
        "divide": Function("i32 i32 -> i32", "local.get 00 local.get 01 i32.div_s"),
        "host": Function("-> i64", "call 00"),
    },
    {"make": "-> i64"},
    memories=[b"\x01\x01\x08"],
)


class Operations:
    """Objects that were made before a refusal, and operations on them."""

    def __init__(self) -> None:
        self.thing = object()
        self.memory = Memory(1, 100)
        self.table = Table("externref", 4)
        self.table[1] = self.thing
        self.instance = Instance([self.memory], [self.table], [Global("externref", self.thing)])
        memoryview(self.memory)[:5] = b"kept!"
        self.module = toy_jit.Module(BINARY)
        self.imports = {"m": {"make": lambda: 1 << 40}}
        self.compiled = toy_jit.Instance(self.module, self.imports)

    def all(self) -> dict[str, Callable[[], Any]]:
        """Return the operations by name."""
        return {
            "a memory": lambda: Memory(1, 2),
            "a large memory": lambda: Memory(0),
            "a growing memory": lambda: self.memory.grow(1),
            "memory32_grow": lambda: asm_libcalls.memory32_grow(self.instance, 1, 0),
            "memory.grow": lambda: self.compiled.exports["grow"](1),
            "a table": lambda: Table("externref", 100),
            "a growing table": lambda: self.table.grow(1, self.thing),
            "a table that grows much": lambda: self.table.grow(9_000_000),
            "an instance": lambda: Instance(imports={"memories": [self.memory]}),
            "a reference": lambda: VMExternRef(self.thing).drop(),
            "code": lambda: asm_libcalls.load_code(b"\xc3"),
            "code that is freed": lambda: asm_libcalls.Code(b"\xc3", {"f": (0, 1)}).close(),
            "a host function": lambda: HostFunction(print, "()").close(),
            "many host functions": self.many_hosts,
            "a module": lambda: toy_jit.Module(BINARY),
            "a compiled instance": lambda: toy_jit.Instance(self.module, self.imports),
            "a call": lambda: self.compiled.exports["divide"](-(2**31), 3),
            "a call of Python": self.compiled.exports["host"],
            "a trap": self.trap,
            "a collection": lambda: asm_libcalls.gc(self.instance),
            "a function": lambda: asm_libcalls.catch_traps(
                asm_libcalls.LIBCALLS["i64_sdiv"].address, "(i64, i64) -> i64"
            )(-(2**60), 3),
        }

    def many_hosts(self) -> None:
        """Use up the free thunks."""
        made = []
        try:
            for _ in range(300):
                made.append(HostFunction(print, "()"))  # noqa: PERF401 - those made are closed
        finally:
            for host in made:
                host.close()

    def trap(self) -> None:
        """Trap, with a backtrace."""
        try:
            self.compiled.exports["divide"](1, 0)
        except asm_libcalls.IntegerDivisionByZero as error:
            trap = error
        assert str(trap.wasm_backtrace[0]).startswith("divide at byte")

    def try_it(self, operation: Callable[[], Any]) -> str:
        """Do something; return how it ended."""
        try:
            result = operation()
        except (MemoryError, OSError) as error:
            return f"{type(error).__name__}: {error}"
        return "refused" if isinstance(result, int) and result in (-1, 0xFFFFFFFF) else "done"

    def check(self) -> None:
        """Check that nothing was lost, and that everything works."""
        assert bytes(memoryview(self.memory)[:5]) == b"kept!"
        assert self.memory.size == len(self.memory) >> 16
        assert self.table[1] is self.thing
        assert all(self.table[i] in (None, self.thing) for i in range(min(len(self.table), 50)))
        assert asm_libcalls.memory32_size(self.instance, 0) == self.memory.size
        assert self.compiled.exports["divide"](7, 2) == 3
        assert self.compiled.exports["host"]() == 1 << 40
        self.trap()
        assert asm_libcalls.i64_sdiv(-7, 2) == -3
        assert asm_libcalls.f64_nearest(2.5) == 2.0
        assert offenders() == []
