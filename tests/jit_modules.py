"""Small modules for the tests of toy_jit, written by the names of their instructions."""

import wasm_builder as wasm
from wasm_functions import TYPES, code

from asm_libcalls import toy_jit


def types(text):
    return [TYPES[name] for name in text.split()]


class Function:
    """A function of a module, with a signature such as ``"i32 i64 -> f32"``.

    The body has instructions by name, and immediates in hexadecimal; see ``wasm_functions.code``.
    `locals` are its further locals.
    """

    def __init__(self, signature, body, locals=""):  # noqa: A002 (WebAssembly's name)
        self.params, self.results = map(types, signature.split("->"))
        self.body = body
        self.locals = types(locals)


def build(functions, imports=None, **parts):
    """Make a module of functions by export name; one whose name begins with "_" is not exported.

    `imports` are the signatures of functions that it imports, by their name in the module "m", and
    `parts` further sections, as ``wasm_builder.module`` takes them.
    """
    imported = [tuple(map(types, text.split("->"))) for text in (imports or {}).values()]
    signatures = [*imported, *((f.params, f.results) for f in functions.values())]
    first = len(imported)
    exports = [
        wasm.exported(name, 0, first + i)
        for i, name in enumerate(functions)
        if not name.startswith("_")
    ]
    return wasm.module(
        types=[wasm.functype(*signature) for signature in signatures],
        imports=[wasm.imported(0, wasm.u(i), name) for i, name in enumerate(imports or ())],
        functions=[first + i for i in range(len(functions))],
        exports=[*exports, *parts.pop("exports", ())],
        code=[wasm.body(code(f.body), [(1, t) for t in f.locals]) for f in functions.values()],
        **parts,
    )


def instantiate(functions, imports=None, given=None, **parts):
    """Make a module and an instance of it, with what is `given` for the imports from "m"."""
    module = toy_jit.Module(build(functions, imports, **parts))
    return toy_jit.Instance(module, {"m": given or {}})


MEMORY = {"memories": [b"\x00\x01"]}  # one page
FUNCREFS = {"tables": [b"\x70\x00\x08"]}  # eight of them
EXTERNREFS = {"tables": [b"\x6f\x00\x08"]}
