"""A lazy import that an exception interrupts, as a signal handler's does, works the next time."""

import pytest

_SCRIPT = """
import os, sys
import asm_libcalls
from interruptions import at_point

class Interrupted(Exception):
    pass

def interrupt():
    raise Interrupted

name = {name!r}

def operation():
    return getattr(asm_libcalls, name)

def attempt(point):
    reached, outcome = at_point(point, operation, interrupt, package=("asm_libcalls", "importlib"))
    if isinstance(outcome, Exception) and not isinstance(outcome, Interrupted):
        raise outcome
    assert operation() is operation()
    if name == "native_function":
        address = asm_libcalls.symbols().get("wasmtime_i64_sdiv")
        if address:
            assert operation()(address, "(i64, i64) -> i64")(7, 2) == 3
    elif name == "Memory":
        assert operation()(1).size == 1
    return reached

point = 0
while True:
    child = os.fork()
    if not child:
        try:
            status = 0 if attempt(point) else 7
        except BaseException as error:
            sys.stderr.write(f"point {{point}}: {{error!r}}\\n")
            status = 1
        os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 7), point
    if status == 7:
        break
    point += {stride}
assert point > {stride}
"""


@pytest.mark.parametrize("name", ["native_function", "Memory", "toy_jit"])
def test_the_next_use_works(child, name):
    stride = 9 if name == "native_function" else 40  # each point is a process of its own
    child(_SCRIPT.format(name=name, stride=stride))


def test_an_interrupted_import_of_the_ufuncs_leaves_no_mapping(child, tmp_path):
    pytest.importorskip("numpy")
    child(
        """
        import contextlib, gc, sys
        import asm_libcalls
        from interruptions import at_point
        from process_maps import mappings

        class Struck(BaseException):
            pass

        def strike():
            raise Struck

        def operation():
            import asm_libcalls.ufuncs

        def executable():
            return sum("x" in each.permissions for each in mappings())

        import asm_libcalls.ufuncs  # writes its image to the cache

        for name in [each for each in sys.modules if each.startswith("asm_libcalls.ufuncs")]:
            del sys.modules[name]
        point, reached = 0, True
        while reached:
            before = executable()
            with contextlib.suppress(Struck):
                reached, _ = at_point(point, operation, strike, "asm_libcalls.ufuncs")
            for name in [each for each in sys.modules if each.startswith("asm_libcalls.ufuncs")]:
                del sys.modules[name]
            gc.collect()
            assert executable() == before, point
            point += 97
        assert point > 300
        """,
        variables={"ASM_LIBCALLS_CACHE": str(tmp_path)},
    )
