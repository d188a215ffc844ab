"""Subinterpreters, by the API of each version of Python; for child processes of tests."""

import importlib
import sys
import time

for _name in ("_interpreters", "_xxsubinterpreters"):  # of 3.13, and before
    try:
        _module = importlib.import_module(_name)
    except ImportError:
        continue
    break


def create(kind):
    """Make one of a kind: ``"legacy"``, or ``"isolated"``, which has a GIL of its own."""
    if sys.version_info >= (3, 13):
        return _module.create(kind)
    if sys.version_info >= (3, 12):
        return _module.create(isolated=kind == "isolated")
    return _module.create(isolated=False)  # else it can have no threads


def run(interpreter, code):
    """Run code in it, with this one's ``sys.path``; raise RuntimeError with what it raised."""
    code = f"import sys; sys.path[:] = {sys.path!r}\n{code}"
    try:
        failure = _module.run_string(interpreter, code)
    except Exception as error:
        raise RuntimeError(str(error)) from error
    if failure is not None:  # from 3.13 on
        raise RuntimeError(failure.errdisplay)


def destroy(interpreter):
    """End it, which runs its exit functions."""
    until = time.monotonic() + 120
    while True:
        try:
            return _module.destroy(interpreter)
        except RuntimeError:
            # Before 3.12 it waits for no thread; that of time limits ends within a second.
            if sys.version_info >= (3, 12) or time.monotonic() > until:
                raise
        time.sleep(0.05)


def use(kind, code):
    """Make one, run code in it, and end it."""
    interpreter = create(kind)
    try:
        run(interpreter, code)
    finally:
        destroy(interpreter)
