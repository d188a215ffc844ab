"""numba's cache, in processes of a checkout that is not installed: nothing calls ``init`` for them.

LLVM resolves a symbol that it does not know to address 0.
"""

import pytest

pytest.importorskip("numba", reason="numba is not installed (the extra `integrations`)")

MODULES = {
    "a rounding": """
@njit(cache=True)
def call(x):
    return asm_libcalls.f64_ceil(x)
""",
    "a division": """
@njit(cache=True)
def call(x):
    return asm_libcalls.i64_sdiv(int(x), 2)
""",
    "a shift in a function that is called": """
@njit(cache=True)
def inner(x):
    return asm_libcalls.i64_ishl(int(x), 2)

@njit(cache=True)
def call(x):
    return inner(x) + 1
""",
    "a function without a cache that is called": """
@njit
def inner(x):
    return asm_libcalls.f64_floor(x)

@njit(cache=True)
def call(x):
    return inner(x) + 1
""",
    "a generator": """
@njit(cache=True)
def each(x):
    for i in range(3):
        yield asm_libcalls.f64_trunc(x + i)

@njit(cache=True)
def call(x):
    total = 0.0
    for value in each(x):
        total += value
    return total
""",
    "a parallel loop": """
@njit(cache=True, parallel=True)
def over(array):
    for i in prange(len(array)):
        array[i] = asm_libcalls.f64_nearest(array[i])
    return array.sum()

def call(x):
    return over(numpy.full(10, x))
""",
    "a ufunc": """
@vectorize(["float64(float64)"], cache=True)
def call(x):
    return asm_libcalls.f64_ceil(x)
""",
    "a generalised ufunc": """
@guvectorize(["float64[:], float64[:]"], "(n) -> (n)", cache=True)
def over(array, result):
    for i in range(len(array)):
        result[i] = asm_libcalls.f64_ceil(array[i])

def call(x):
    return over(numpy.full(3, x)).sum()
""",
    "a C callback": """
@cfunc("float64(float64)", cache=True)
def callback(x):
    return asm_libcalls.f64_ceil(x)

call = callback.ctypes
""",
}

PRELUDE = """
import asm_libcalls, numpy
from numba import cfunc, guvectorize, njit, prange, vectorize
"""

PROGRAM = """
import os, sys
sys.path.insert(0, FOLDER)
import numba.core.entrypoints
numba.core.entrypoints._already_initialized = True  # as if it had no entry point
import asm_libcalls
if CALL_INIT:
    from asm_libcalls.integrations import numba as integration
    integration.init()
elif BROKEN:
    sys.modules["asm_libcalls.integrations.numba"] = None
for name in sorted(os.listdir(FOLDER)):
    if not name.endswith(".py"):
        continue
    process = os.fork()  # in a process of its own: nothing that was loaded before helps
    if not process:
        try:
            module = __import__(name.removesuffix(".py"))
            print(name, module.call(2.5), flush=True)
        except ImportError as error:
            print(name, type(error).__name__, flush=True)
        os._exit(0)
    _, status = os.waitpid(process, 0)
    assert status == 0, (name, status)
"""


def test_code_of_a_process_that_called_init(child, tmp_path):
    folder = tmp_path / "modules"
    folder.mkdir()
    for number, (what, text) in enumerate(MODULES.items()):
        (folder / f"m{number}.py").write_text(f'"""With {what}."""\n{PRELUDE}{text}')

    def run(call_init, broken=False):
        program = PROGRAM.replace("FOLDER", repr(str(folder)))
        program = program.replace("CALL_INIT", str(call_init)).replace("BROKEN", str(broken))
        variables = {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "NUMBA_NUM_THREADS": "2"}
        return child(program, variables=variables, timeout=500).stdout.splitlines()

    results = ["3.0", "1", "9", "3.0", "9.0", "20.0", "3.0", "9.0", "3.0"]
    expected = [f"m{i}.py {result}" for i, result in enumerate(results)]
    assert run(call_init=True) == expected
    files = sorted(each.name for each in (tmp_path / "cache").rglob("*.nbc"))
    assert len(files) >= len(MODULES)
    assert run(call_init=False) == expected
    assert sorted(each.name for each in (tmp_path / "cache").rglob("*.nbc")) == files  # not anew
    # Where the integration cannot be imported, that is an error, and no crash.
    refused = [line.split()[1] for line in run(call_init=False, broken=True)]
    assert refused == ["ModuleNotFoundError"] * len(MODULES)
