"""Change one thing at a time in the code, and run the tests that should notice it.

    python tools/mutation_test.py                          every module of MODULES, some 40 minutes
    python tools/mutation_test.py asm_libcalls/runtime/memory.py   one of them
    python tools/mutation_test.py asm_libcalls/runtime/memory.py --only 17,18    some mutants again

A *mutant* is a module with one change: a comparison, an operator, a condition or a number is
another one, or a statement is gone. An instruction of PeachPy is a statement too, and a
conditional jump may become its neighbour. Each runs in a process of its own, which is forked after
the tests' imports and finds the mutant in place of the module. A test run that fails has *killed*
the mutant. A survivor shows a missing test, or a change without an effect; docs/proof.md names
kinds of the latter.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib.abc
import importlib.util
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent

_REFERENCES = (
    "runtime/test_reference_functions.py checks/test_engine.py "
    "-k 'not system_refuses and not random and not fallback'"
)

MODULES = {
    "asm_libcalls/fallback/integers.py": "test_integers.py -k fallback",
    "asm_libcalls/fallback/rounding.py": "test_rounding.py -k fallback",
    "asm_libcalls/fallback/memories.py": "checks/test_engine.py runtime/test_memory.py "
    "runtime/test_instance.py",
    "asm_libcalls/fallback/tables.py": "checks/test_engine.py runtime/test_tables.py "
    "runtime/test_instance.py "
    "runtime/test_misuse.py",
    "asm_libcalls/fallback/externrefs.py": "checks/test_engine.py runtime/test_externref.py "
    "runtime/test_global.py "
    "runtime/test_gc.py",
    "asm_libcalls/x86_64/reference_counts.py": "x86_64/test_reference_counts.py",
    "asm_libcalls/x86_64/tables.py": _REFERENCES,
    "asm_libcalls/x86_64/externrefs.py": "toy_jit/test_lifetime.py::"
    "test_table_get_calls_python_only_where_the_activations_table_is_full " + _REFERENCES,
    "asm_libcalls/x86_64/memory_growth.py": _REFERENCES,
    "asm_libcalls/x86_64/leaving.py": _REFERENCES,
    "asm_libcalls/x86_64/byte_tuning.py": "x86_64/test_byte_tuning.py -k 'choice or model'",
    "asm_libcalls/runtime/kept_instances.py": "runtime/test_reference_functions.py",
    "asm_libcalls/native/ctypes_callbacks.py": "native/test_ctypes_callbacks.py",
    "asm_libcalls/ufuncs/fallback_loops.py": "ufuncs/test_ufuncs.py -k 'fallback or callback'",
    "asm_libcalls/runtime/growable.py": "runtime/test_memory.py runtime/test_tables.py "
    "runtime/test_misuse.py",
    "asm_libcalls/runtime/memory.py": "runtime/test_memory.py runtime/test_misuse.py",
    "asm_libcalls/runtime/table.py": "runtime/test_tables.py checks/test_engine.py "
    "runtime/test_misuse.py",
    "asm_libcalls/runtime/instance.py": "runtime/test_instance.py test_vmcontext.py "
    "runtime/test_misuse.py "
    "runtime/test_gc.py runtime/test_memory_functions.py",
    "asm_libcalls/runtime/instance_block.py": "runtime/test_instance.py test_vmcontext.py",
    "asm_libcalls/runtime/instance_arguments.py": "runtime/test_instance.py runtime/test_misuse.py",
    "asm_libcalls/runtime/externref_boxes.py": "runtime/test_externref.py runtime/test_gc.py "
    "runtime/test_ownership.py",
    "asm_libcalls/runtime/releasing.py": "runtime/test_releasing.py runtime/test_gc.py",
    "asm_libcalls/runtime/element_segment.py": "runtime/test_instance.py runtime/test_tables.py "
    "runtime/test_misuse.py",
    "asm_libcalls/runtime/global_.py": "runtime/test_global.py runtime/test_misuse.py",
    "asm_libcalls/runtime/arguments.py": "runtime/test_misuse.py runtime/test_memory_functions.py",
    "asm_libcalls/signatures/value_types.py": "signatures/test_numbers.py",
    "asm_libcalls/x86_64/memories.py": "x86_64/test_memory_routines.py "
    "runtime/test_memory_functions.py -k 'test_memory_functions or sse2 and not (erms "
    "or copies or fills or keeps or outside or 4_gib)'",
}
"""The modules to change, and their tests; fast ones, since each mutant runs them."""

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt), ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,), ast.In: (ast.NotIn,), ast.NotIn: (ast.In,),
}  # fmt: skip
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.Mod: ast.Mult,
}  # fmt: skip
_JUMPS = {"JA": ("JAE", "JNA")}


class Mutant:
    """A changed module."""

    def __init__(self, line: int, change: str, tree: ast.Module) -> None:
        self.line = line
        self.change = change  # for people
        self.tree = tree


def mutants(source: str) -> Iterator[Mutant]:
    """Yield every mutant of a module, always in the same order."""
    whole = ast.parse(source)
    for path in _places(whole, ()):
        original = _at(whole, path)
        for new in _changes(original):
            tree = copy.deepcopy(whole)
            _put(tree, path, ast.copy_location(new, original))
            was, is_ = (" ".join(ast.unparse(node).split()) for node in (original, new))
            line = getattr(original, "lineno", 0)
            yield Mutant(line, f"{was:.70} -> {is_:.70}", ast.fix_missing_locations(tree))


_Path = tuple[tuple[str, int | None], ...]


def _places(node: ast.AST, path: _Path) -> Iterator[_Path]:
    """Yield the paths to all nodes but those that have no effect on tests."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "type_comment"):
            continue
        for number, child in enumerate(value) if isinstance(value, list) else ((None, value),):
            if not isinstance(child, ast.AST) or _is_for_people(child):
                continue
            yield (*path, (field, number))
            yield from _places(child, (*path, (field, number)))


def _is_for_people(node: ast.AST) -> bool:
    if isinstance(node, ast.If):
        return ast.unparse(node.test) == "TYPE_CHECKING"
    if isinstance(node, ast.Assign):
        return ast.unparse(node.targets[0]) in ("TYPE_CHECKING", "__all__")
    text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return text or isinstance(node, (ast.JoinedStr, ast.Import, ast.ImportFrom, ast.Assert))


def _at(node: ast.AST, path: _Path) -> ast.AST:
    for field, number in path:
        found = getattr(node, field)
        node = found if number is None else found[number]
    return node


def _put(tree: ast.AST, path: _Path, new: ast.AST) -> None:
    parent, (field, number) = _at(tree, path[:-1]), path[-1]
    if number is None:
        setattr(parent, field, new)
    else:
        getattr(parent, field)[number] = new


def _changes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the replacements of a node."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        for other in _COMPARISONS[type(node.ops[0])]:
            yield ast.Compare(node.left, [other()], node.comparators)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    elif isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        yield ast.BinOp(node.left, _OPERATORS[type(node.op)](), node.right)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        yield node.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield ast.Constant(node.value + 1)
    elif isinstance(node, ast.IfExp):
        yield ast.IfExp(node.test, node.orelse, node.body)
    elif isinstance(node, (ast.If, ast.While)):
        changed = copy.deepcopy(node)
        changed.test = ast.UnaryOp(ast.Not(), changed.test)
        yield changed
    elif isinstance(node, (ast.Expr, ast.Raise, ast.Return, ast.AugAssign, ast.Break)):
        yield ast.Pass()
    elif isinstance(node, ast.Name) and node.id in _JUMPS:
        for jump in _JUMPS[node.id]:
            yield ast.parse(f"__import__('peachpy.x86_64').x86_64.{jump}", mode="eval").body


class _Importer(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """An importer before all others, which loads the mutant of one module."""

    def __init__(self, path: Path, tree: ast.Module) -> None:
        self.path = path
        self.name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        self.code = compile(tree, str(path), "exec")

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(name, self.path, loader=self)

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave that to Python."""

    def exec_module(self, module: ModuleType) -> None:
        exec(self.code, module.__dict__)


def _in_fork(work: Callable[[], int]) -> int:
    """Start a process that ends with what `work` returns; return its id."""
    process = os.fork()
    if process:
        return process
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nothing, descriptor)
    code = 1
    try:
        code = work()
    finally:
        os._exit(code)


def _test(path: Path, tree: ast.Module, tests: str) -> int:
    import shlex

    import pytest

    if "x86_64" in path.parts:
        os.environ["ASM_LIBCALLS_CACHE"] = "off"  # cached images are of the unchanged sources
        os.environ["ASM_LIBCALLS_BACKEND"] = "x86_64"  # without it, tests of machine code skip
    sys.meta_path.insert(0, _Importer(path, tree))
    os.chdir(ROOT / "tests")
    return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *shlex.split(tests)]))


def _run(jobs: Sequence[Callable[[], int]], at_once: int, most: float) -> Iterator[tuple[int, str]]:
    """Run each in a process, and yield its number and how it ended."""
    running: dict[int, tuple[int, float]] = {}
    waiting = list(enumerate(jobs))[::-1]
    while waiting or running:
        while waiting and len(running) < at_once:
            number, work = waiting.pop()
            running[_in_fork(work)] = number, time.monotonic()
        time.sleep(0.02)
        for process, (number, begin) in list(running.items()):
            if time.monotonic() - begin > most:
                os.killpg(process, signal.SIGKILL)
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                del running[process]
                code = os.waitstatus_to_exitcode(status)
                yield number, {0: "survived", -signal.SIGKILL: "took too long"}.get(code, "killed")


def examine(name: str, only: Sequence[int], at_once: int) -> Counter[str]:
    """Try the mutants of one module, and say which survive."""
    path, tests = ROOT / name, MODULES[name]
    found = list(mutants(path.read_text("utf-8")))
    begin = time.monotonic()
    unchanged = [lambda: _test(path, ast.parse(path.read_text("utf-8")), tests)]
    if list(_run(unchanged, 1, 600)) != [(0, "survived")]:
        raise SystemExit(f"{name}: the tests fail without a change: {tests}")
    most = 20 + 5 * (time.monotonic() - begin)
    chosen = list(only) or list(range(len(found)))
    jobs = [lambda n=n: _test(path, found[n].tree, tests) for n in chosen]
    outcomes: Counter[str] = Counter()
    for at, how in _run(jobs, at_once, most):
        number = chosen[at]
        outcomes[how] += 1
        if how != "killed":
            _say(f"  {how}: mutant {number}, line {found[number].line}: {found[number].change}")
    _say(f"{name}: {outcomes['survived']} of {sum(outcomes.values())} mutants survived")
    return outcomes


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("modules", nargs="*", choices=[*MODULES, []], help="by default all")
    parser.add_argument("--only", default="", help="numbers of mutants, with commas")
    parser.add_argument("--jobs", type=int, default=1, help="how many processes at a time")
    options = parser.parse_args(arguments)
    only = [int(number) for number in options.only.split(",") if number]
    os.environ["CI"] = "true"  # the same random cases for every mutant
    sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tools")]
    for what in ("pytest", "numpy", "peachpy.x86_64.function"):  # what no fork has to load then
        importlib.import_module(what)
    total: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as cache:  # mutants whose images differ do not use it
        os.environ["ASM_LIBCALLS_CACHE"] = cache
        for name in options.modules or MODULES:
            total += examine(name, only, options.jobs)
    everything = sum(total.values())
    score = 100 * (everything - total["survived"]) / everything
    _say(f"{everything} mutants, {total['survived']} survived: {score:.1f} % were noticed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
