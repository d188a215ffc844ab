"""NumPy's own tests of ceil, floor, trunc and rint, with ours in their place."""

import importlib.util
import re

import pytest

RUN = """
    import os, sys
    import numpy as np
    import pytest
    from numpy._core import fromnumeric, numeric, umath
    from asm_libcalls import ufuncs

    ours = {"ceil": ufuncs.ceil, "floor": ufuncs.floor, "trunc": ufuncs.trunc,
            "rint": ufuncs.nearest}
    replaced = 0
    for module in (np, np._core, numeric, fromnumeric, umath):
        for name, ufunc in ours.items():
            if hasattr(module, name):
                setattr(module, name, ufunc)
                replaced += 1
    assert replaced >= 8, replaced
    folder = os.path.dirname(np.__file__)
    tests = os.path.join(folder, "_core", "tests", "FILE")
    sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", folder,
                          "-W", "ignore", tests]))
"""


@pytest.mark.parametrize(
    ("file", "backend", "fewest"),
    [
        ("test_umath.py", "auto", 2500),
        ("test_umath.py", "fallback", 2500),
        ("test_ufunc.py", "auto", 500),
    ],
)
def test_numpys_tests_pass(child, file, backend, fewest):
    if importlib.util.find_spec("numpy._core.tests.test_umath") is None:
        pytest.skip("this NumPy has no tests, or is older than 2.0")
    done = child(
        RUN.replace("FILE", file), variables={"ASM_LIBCALLS_BACKEND": backend}, timeout=300
    )
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None, done.stdout[-2000:]
    assert int(passed[1]) >= fewest
