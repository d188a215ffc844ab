"""Fixtures of the tests of WASI."""

import pytest

from asm_libcalls.toy_jit.wasi import beneath


@pytest.fixture(params=["openat2", "walk"])
def resolver(request, monkeypatch):
    """Both ways to resolve a path: by the kernel's openat2, and step by step without it."""
    kernel = beneath._kernel
    if request.param == "openat2" and not kernel.has_openat2:
        pytest.skip("this kernel has no openat2: Linux 5.6 has")
    monkeypatch.setattr(kernel, "has_openat2", request.param == "openat2")
    yield request.param
    assert kernel.has_openat2 == (request.param == "openat2")  # it was this way to the end
