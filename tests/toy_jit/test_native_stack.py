"""The native stack: WebAssembly leaves Python's part, however it recurses."""

import subprocess
import sys

import pytest
from child_process import TESTS, run_program
from deep_recursion import OPERATIONS

pytestmark = pytest.mark.usefixtures("machine_code")


def run(*arguments, prefix=()):
    script = TESTS / "deep_recursion.py"
    done = run_program(*prefix, sys.executable, script, *arguments)
    return [line.split() for line in done.stdout.splitlines()]


@pytest.mark.parametrize("limit", [1000, 12_000])
def test_host_functions_do_what_plain_python_does(limit):
    found = {name: (int(plain), int(deep)) for name, plain, deep in run("compare", 0, limit)}
    assert set(found) == set(OPERATIONS)
    assert all(deep == 4 * plain for plain, deep in found.values()), found
    if limit > 1000:
        assert sum(plain for plain, _ in found.values()) >= len(OPERATIONS) // 2


@pytest.mark.parametrize("kibibytes", [64, 96, 128, 256, 1024])
def test_host_functions_of_threads_with_small_stacks(kibibytes):
    found = run("compare", kibibytes, 12_000)  # the value or a RecursionError, and no signal
    assert [name for name, _, _ in found] == [*OPERATIONS]


@pytest.mark.parametrize("kibibytes", [0, 64, 256])
def test_nested_calls_share_what_there_is(kibibytes):
    assert run("nest", kibibytes, 3) == [[name] for name in OPERATIONS]


def test_a_stack_without_a_limit_is_not_used_up():
    prefix = ("sh", "-c", 'ulimit -s unlimited && exec "$@"', "sh")
    if subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode:
        pytest.skip("the hard limit of the stack is not unlimited")
    found = run("compare", 0, 12_000, prefix=prefix)
    assert [name for name, _, _ in found] == [*OPERATIONS]


NATIVE_RECURSION = """
import sys, threading
import asm_libcalls

def call(depth):
    depths.append(depth)
    {enter}(depth + 1)

depths = []
host = asm_libcalls.HostFunction(call, "(i64)")
{enter} = asm_libcalls.{way}(host.address, "(i64)")
sys.setrecursionlimit(1_000_000)

def work():
    try:
        {enter}(0)
    except RecursionError:
        print(len(depths) > {least})

threading.stack_size({stack} << 10)
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


@pytest.mark.parametrize("way", ["catch_traps", "native_function"])
@pytest.mark.parametrize("stack", [128, 256, 8192])
def test_recursion_of_any_native_code_through_host_functions_ends(child, way, stack):
    # CPython 3.12 counts calls from C, and ends them by a limit of its own.
    least = min(stack // 16, 300 if sys.version_info[:2] == (3, 12) else 512)
    code = NATIVE_RECURSION.format(enter="enter", way=way, stack=stack, least=least)
    assert child(code).stdout == "True\n"
