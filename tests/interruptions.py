"""Run Python in the middle of other Python, at every point where the interpreter would.

CPython runs signal handlers, collections (from 3.12 on) and other threads at the *eval breaker*:
after a call, at the beginning of a function, and at a jump backwards. :func:`at_point` traces
opcodes and calls an intruder at the n-th of these points in the package's code.
"""

import dis
import gc
import sys

import asm_libcalls

_CHECKED = {
    opcode
    for name, opcode in dis.opmap.items()
    if name.startswith(("CALL", "RESUME", "JUMP_BACKWARD", "POP_JUMP_BACKWARD"))
    and not name.endswith("NO_INTERRUPT")
}


def at_point(number, operation, intruder, package="asm_libcalls"):
    """Call `operation`, and `intruder` at the n-th point in between.

    Return whether that point exists, and the outcome of the operation, a result or an exception.
    """
    seen = 0
    previous = {}

    def trace(frame, event, argument):
        nonlocal seen
        if not frame.f_globals.get("__name__", "").startswith(package):
            return None
        frame.f_trace_opcodes = True
        if event == "return":
            previous.pop(id(frame), None)
        if event != "opcode":
            return trace
        before = previous.get(id(frame))
        previous[id(frame)] = frame.f_code.co_code[frame.f_lasti]
        if before is None or before in _CHECKED:
            seen += 1
            if seen == number + 1:
                intruder()
        return trace

    def in_generator():
        # An exception from a trace function at the end of an `except` block leaves the one that is
        # handled there in `sys.exc_info`; a generator has its own. A signal handler's does not.
        yield operation()

    outer, collects = sys.gettrace(), gc.isenabled()
    # A collection by chance would run the package's callbacks, which have points too.
    gc.disable()
    try:
        sys.settrace(trace)
        try:
            outcome = next(in_generator())
        finally:
            sys.settrace(outer)
    except Exception as error:
        outcome = error
    finally:
        if collects:
            gc.enable()
    return seen > number, outcome


def at_every_point(scene, check, most=2000, package="asm_libcalls"):
    """Call an intruder at each point of an operation in turn, each time in a new scene.

    `scene` returns an operation and an intruder. `check` is called with the outcome after each, and
    the number of the point. Return how many points there were.
    """
    for number in range(most):
        operation, intruder = scene()
        reached, outcome = at_point(number, operation, intruder, package)
        if not reached:
            return number
        check(outcome, number)
    raise AssertionError(f"more than {most} points")


def _trace_once():
    """CPython 3.12 does not report the opcodes of the first call that is traced."""
    at_point(sys.maxsize, lambda: asm_libcalls.Table("externref", 1).close(), None)


_trace_once()
