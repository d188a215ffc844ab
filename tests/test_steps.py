"""Steps are atomic, also where a Python trace function is active, as in a debugger."""

import ast
import dis
import importlib
import operator
from pathlib import Path

import pytest

import asm_libcalls

PACKAGE = Path(asm_libcalls.__file__).parent


def steps_of(path):
    """Yield the functions of a module that are steps, without the lock of builds without a GIL."""
    tree = ast.parse(path.read_text("utf-8"))
    names = [(node, node.name) for node in tree.body if hasattr(node, "name")]
    for node, name in names:
        names += [(each, f"{name}.{each.name}") for each in getattr(node, "body", [])
                  if isinstance(node, ast.ClassDef) and hasattr(each, "name")]  # fmt: skip
        if "step" in [ast.unparse(each) for each in getattr(node, "decorator_list", [])]:
            module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
            function = operator.attrgetter(name)(importlib.import_module(module))
            yield f"{module}.{name}", getattr(function, "__wrapped__", function)


STEPS = dict(each for path in sorted(PACKAGE.rglob("*.py")) for each in steps_of(path))


def test_steps_are_found():
    assert len(STEPS) > 30
    assert "asm_libcalls.runtime.table.Table._commit" in STEPS


@pytest.mark.parametrize("name", STEPS)
def test_a_step_makes_no_call_and_is_on_one_line(name):
    """Python runs other code at calls, at backward jumps, and trace functions at new lines."""
    instructions = [*dis.get_instructions(STEPS[name])]
    assert not [e for e in instructions if "CALL" in e.opname or "BACKWARD" in e.opname]
    assert len({line for _, _, line in STEPS[name].__code__.co_lines()}) == 1


BEGIN = """
import sys, threading
from asm_libcalls import Table, VMExternRef

class Thing:
    pass

sys.setswitchinterval(1e-6)
"""


def test_threads_with_stores_of_their_own_under_a_trace_function(child):
    child(
        BEGIN
        + """
problems = []

def tracer(frame, event, argument):
    return tracer

def work():
    try:
        table = Table("externref", 4)
        for i in range(500):
            thing = Thing()
            table[i % 4] = thing
            assert table[i % 4] is thing
            reference = VMExternRef(thing)
            assert reference.value is thing
            reference.drop()
    except BaseException as error:
        problems.append(repr(error))

threading.settrace(tracer)
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not problems, problems
"""
    )


@pytest.mark.parametrize("seed", [1, 2])
def test_threads_that_a_trace_function_ends(child, seed):
    """The recipe for threads that can be ended; a debugger's ``quit`` does the same."""
    child(
        BEGIN
        + f"""
import random

random.seed({seed})
sys.unraisablehook = lambda report: None

def work(lines):
    def tracer(frame, event, argument):
        nonlocal lines
        lines -= event == "line"
        if not lines:
            raise SystemExit
        return tracer

    sys.settrace(tracer)
    table = Table("externref", 4)
    for i in range(100):
        table[i % 4] = Thing()
        table[i % 4]
        table.grow(1, Thing())
        table.close()
        table = Table("externref", 4)

kept = Table("externref", 64)
things = [Thing() for _ in range(64)]
for n in range(2000):
    kept[n % 64] = things[n % 64]
    thread = threading.Thread(target=work, args=(random.randrange(1, 3000),))
    thread.start()
    thread.join()
    assert all(kept[k] is things[k] for k in range(min(n + 1, 64))), n
"""
    )
