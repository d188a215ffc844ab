"""Functions that count in the memory of their instance; each count is lost if two threads run."""

from jit_modules import MEMORY, Function, instantiate

# Each adds to the word at 0, and reads it before and writes it after something else.
INCREMENT = "i32.const 00 i32.const 00 i32.load 02 00 i32.const 01 i32.add i32.store 02 00"
FUNCTIONS = {
    "once": Function("->", INCREMENT),
    "often": Function(
        "i32 ->",
        f"loop 40 {INCREMENT} local.get 00 i32.const 01 i32.sub local.tee 00 br_if 00 end",
    ),
    "trap": Function("->", f"{INCREMENT} unreachable"),
    "host": Function(
        "->",
        "i32.const 00 i32.load 02 00 local.set 00 call 00 "
        "i32.const 00 local.get 00 i32.const 01 i32.add i32.store 02 00",
        locals="i32",
    ),
    "two": Function("-> i32 i32", f"{INCREMENT} i32.const 01 i32.const 02"),
}


def counting(host=lambda: None, **parts):
    """Make an instance of them."""
    return instantiate(FUNCTIONS, {"host": "->"}, {"host": host}, **MEMORY, **parts)


def word(instance):
    """Return the count."""
    return int.from_bytes(bytes(memoryview(instance.memory))[:4], "little")
