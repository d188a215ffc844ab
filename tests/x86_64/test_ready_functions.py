"""The functions of numeric libcalls whose code an image has, beside those that are composed."""

import sys

import pytest

import asm_libcalls
from asm_libcalls import LIBCALLS
from asm_libcalls.checks.engine import checker_of
from asm_libcalls.functions import make_functions
from asm_libcalls.native import process
from asm_libcalls.steps import HAS_GIL
from asm_libcalls.x86_64.python_functions import object_layouts

NUMERIC = [name for name, libcall in LIBCALLS.items() if not libcall.takes_instance]


def test_the_image_has_each_function_for_this_python(machine_code):
    if sys.version_info[:2] > object_layouts.NEWEST_TESTED or (
        not HAS_GIL and sys.version_info >= (3, 14)
    ):
        pytest.skip("this Python's layout was not tested")
    routines = machine_code.loaded.image.routines
    layout = object_layouts.found()
    assert [name for name in NUMERIC if layout.routine(name) not in routines] == [
        name for name in NUMERIC if LIBCALLS[name].backend != "x86_64"
    ]


def test_a_first_call_composes_nothing(child):
    child("""
        import sys
        import asm_libcalls
        from asm_libcalls.native import process
        if not isinstance(process.interface.function_objects(), str):
            assert asm_libcalls.f64_ceil(1.5) == 2.0 and asm_libcalls.i64_sdiv(7, -2) == -3
            made = "asm_libcalls.x86_64.python_functions.function_"
            assert made + "objects" in sys.modules and made + "maker" not in sys.modules
        """)


@pytest.mark.parametrize("name", NUMERIC)
def test_composed_functions_return_the_same(machine_code, monkeypatch, name):
    """As where the image has no code for this Python's objects."""
    ready = getattr(asm_libcalls, name)
    binding = LIBCALLS[name]._binding
    objects = process.interface.function_objects()
    if isinstance(objects, str):
        pytest.skip(f"no builtins here: {objects}")
    monkeypatch.setattr(type(objects.layout), "routine", lambda self, name: "no such routine")
    composed = make_functions(binding, name)[name]
    assert composed is not ready
    assert type(composed) is type(ready) is type(len)
    assert (composed.__doc__, composed.__text_signature__) == (
        ready.__doc__,
        ready.__text_signature__,
    )
    libcall = LIBCALLS[name]
    cases = list(checker_of(libcall).edge_cases(libcall))
    for patterns in cases[:: max(1, len(cases) // 200)]:
        arguments = [
            kind.from_bits(bits)
            for kind, bits in zip(libcall.signature.parameters, patterns, strict=True)
        ]
        assert outcome(composed, arguments) == outcome(ready, arguments)
    for wrong in ([], [None] * len(arguments), ["x"] * len(arguments), [2**64] * 3):
        assert outcome(composed, wrong) == outcome(ready, wrong)


def outcome(function, arguments):
    try:
        return repr(function(*arguments))
    except (TypeError, OverflowError, asm_libcalls.Trap) as error:
        return type(error), str(error)
