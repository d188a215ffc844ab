"""The package, deleted from sys.modules and imported again, has the modules of before."""

import shutil

from child_process import PACKAGE_HOME

FORGET = """
import gc, os, sys

def forget():
    for name in [name for name in sys.modules if name.partition(".")[0] == "asm_libcalls"]:
        del sys.modules[name]
    gc.collect()
"""


def test_nothing_is_there_twice(child):
    child(
        FORGET
        + """
def use():
    import asm_libcalls
    from asm_libcalls import toy_jit
    assert asm_libcalls.i64_sdiv(-7, 2) == -3
    try:
        asm_libcalls.i64_sdiv(1, 0)
    except asm_libcalls.IntegerDivisionByZero:
        pass
    asm_libcalls.Instance(memories=[asm_libcalls.Memory(1)]).close()
    with asm_libcalls.HostFunction(abs, "(i64) -> i64"):
        pass
    if asm_libcalls.LIBCALLS["i64_sdiv"].backend == "x86_64":
        toy_jit.Module(b"\\0asm\\1\\0\\0\\0")
    import asm_libcalls.checks.engine
    assert asm_libcalls.checks.engine is sys.modules["asm_libcalls.checks.engine"]
    return asm_libcalls

def there():
    with open("/proc/self/maps") as maps:
        return len(list(maps)), len(gc.get_objects())

first = use()
forget(); use(); forget(); use()
before = there()
for _ in range(10):
    forget()
    again = use()
after = there()
assert again is not first and again.Trap is first.Trap
assert after[0] - before[0] < 5 and after[1] - before[1] < 500, (before, after)
"""
    )


def test_another_backend_is_another_import(child):
    child(
        FORGET
        + """
import asm_libcalls as first
forget()
os.environ["ASM_LIBCALLS_BACKEND"] = "fallback"
import asm_libcalls as second
assert second.Trap is not first.Trap
assert {each.backend for each in second.LIBCALLS.values()} == {"fallback"}
assert second.i64_sdiv(-7, 2) == -3 == first.i64_sdiv(-7, 2)
"""
    )


def test_changed_sources_are_imported(child, tmp_path):
    package = tmp_path / "asm_libcalls"
    shutil.copytree(PACKAGE_HOME / "asm_libcalls", package)
    child(
        FORGET
        + f"""
sys.path.insert(0, {str(tmp_path)!r})
import asm_libcalls as first
forget()
os.utime({str(package / "traps.py")!r}, (first._imported + 100, first._imported + 100))
import asm_libcalls as second
assert first.__file__ == second.__file__ and second.Trap is not first.Trap
""",
        variables={"PYTHONPATH": str(tmp_path)},
    )
