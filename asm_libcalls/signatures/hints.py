"""Hints in the error messages of signatures: type names of other languages, and usual mistakes."""

from __future__ import annotations

from asm_libcalls.signatures.arguments import shown
from asm_libcalls.signatures.value_types import VALUE_TYPES

# C's names of types, and the names here on x86-64 and AArch64.
_C_NAMES = {
    "signed char": "i8", "unsigned char": "u8", "short": "i16", "unsigned short": "u16",
    "int": "i32", "unsigned": "u32", "unsigned int": "u32",
    "long": "i64", "unsigned long": "u64", "long long": "i64", "unsigned long long": "u64",
    "ssize_t": "i64", "ptrdiff_t": "i64", "intptr_t": "i64", "uintptr_t": "usize",
    "float": "f32", "double": "f64", "_Bool": "bool", "__int128": "i128",
    **{f"{sign}int{bits}_t": f"{letter}{bits}"
       for sign, letter in (("", "i"), ("u", "u")) for bits in (8, 16, 32, 64)},
}  # fmt: skip


_NUMPY_NAMES = {
    **{f"{sign}int{bits}": f"{letter}{bits}"
       for sign, letter in (("", "i"), ("u", "u")) for bits in (8, 16, 32, 64)},
    "float16": "f16", "float32": "f32", "float64": "f64", "intp": "i64", "uintp": "usize",
}  # fmt: skip


def what_is_wrong(name: str, text: str, is_result: bool) -> str:
    """Return what is wrong with the name of a type in the text of a signature."""
    if name == "void":
        hint = (
            "a function without a result has no '->', for example \"(i64)\""
            if is_result
            else 'a function without parameters has an empty list, for example "() -> i64"'
        )
    elif not name:
        hint = "write one comma between two types" if "," in text else "write a type after '->'"
        return f"a type is missing, {hint}"
    elif name in _C_NAMES:
        hint = f"C's {name} is {_C_NAMES[name]} here"
    elif name in _NUMPY_NAMES:
        hint = f"NumPy's {name} is {_NUMPY_NAMES[name]} here"
    elif name.startswith("(") and is_result:
        hint = "write the result without parentheses"
    elif "*" in name:
        kind = "const pointer" if name.startswith("const ") else "pointer"
        hint = f"C's {name} is a {kind} here"
    elif name.lower() in VALUE_TYPES:
        hint = f"types are in lower case, {name.lower()!r}"
    elif " " in name and name.rpartition(" ")[0] in {**VALUE_TYPES, **_C_NAMES}:
        hint = "write the type of a parameter alone, without its name"
    else:
        hint = f"expected one of {', '.join(VALUE_TYPES)}"
    return f"unknown type {shown(name)}, {hint}"
