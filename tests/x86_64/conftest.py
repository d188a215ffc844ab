"""Fixtures of the code cache: a copy of the package, and processes with a cache of their own."""

import json
import os
import shutil

import pytest
from cached_images import PROBE
from child_process import PACKAGE_HOME, environment


@pytest.fixture(scope="session")
def package(tmp_path_factory, machine_code):
    """A copy of the package: its sources do not change while the tests run, or just before."""
    pytest.importorskip("peachpy", reason="there is nothing to assemble an image with")
    home = tmp_path_factory.mktemp("package")
    shutil.copytree(
        PACKAGE_HOME / "asm_libcalls",
        home / "asm_libcalls",
        ignore=shutil.ignore_patterns("__pycache__", "*.image"),
    )
    for path in home.rglob("*.py"):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return home


@pytest.fixture
def probe(package, child):
    """Run the probe over the copy, with a cache folder or what else the environment says."""

    def run(cache, before="", code=PROBE, home=package, **variables):
        path = os.pathsep.join([str(home), environment()["PYTHONPATH"]])
        done = child(
            before + code,
            variables={
                "ASM_LIBCALLS_CACHE": None if cache is None else str(cache),
                "PYTHONPATH": path,
                **variables,
            },
        )
        return json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def filled(probe, cache):
    """A cache folder with images in it."""
    assert probe(cache)["refusals"] == []
    return cache
