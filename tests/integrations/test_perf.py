"""The map that names our machine code for Linux perf, and perf reading it."""

import importlib
import itertools
import os
import re
import shutil
import sys
import sysconfig
from pathlib import Path

import pytest
import wasm_builder as wasm
from child_process import run_program, run_python

from asm_libcalls import LIBCALLS
from asm_libcalls.integrations.numeric import NUMERIC


@pytest.fixture
def maps():
    """Reads the map of a child, and removes it."""
    paths = []

    def read(output):
        path = Path(output.split()[0])
        paths.append(path)
        lines = path.read_text().splitlines()
        return [(int(a, 16), int(b, 16), c) for a, b, c in (li.split(" ", 2) for li in lines)]

    if sys.platform != "linux":
        pytest.skip("perf is of Linux")
    yield read
    for path in paths:
        path.unlink(missing_ok=True)


SPIN = wasm.module(
    types=[wasm.functype([wasm.I64])],
    functions=[0],
    exports=[wasm.exported("spin", 0, 0)],
    code=[
        wasm.body(
            b"\x03\x40"  # loop
            b"\x20\x00\x42\x03\x7f\x1a"  # local.get 0, i64.const 3, i64.div_s, drop
            b"\x20\x00\x42\x01\x7d\x22\x00"  # local.get 0, i64.const 1, i64.sub, local.tee 0
            b"\x50\x45\x0d\x00\x0b"  # i64.eqz, i32.eqz, br_if 0, end
        )
    ],
)

MAP_PROGRAM = f"""
import asm_libcalls
from asm_libcalls.integrations import perf
print(perf.enable())
assert perf.enable() == perf.map_file() and perf.is_enabled()
asm_libcalls.i64_sdiv  # makes the code of the function objects
from asm_libcalls import toy_jit
spin = toy_jit.Instance(toy_jit.Module({SPIN!r})).exports["spin"]
spin(3)
perf.write_entry(0x1000, 16, "mine\\nand mine")
print(asm_libcalls.LIBCALLS["i64_sdiv"].address)
"""


def check_map(entries, address):
    names = {name: (start, size) for start, size, name in entries}
    assert names["wasmtime_i64_sdiv"][0] == address
    assert names["wasmtime_i64_sdiv"][1] > 10
    assert {libcall.symbol for libcall in LIBCALLS.values() if libcall.name in NUMERIC} <= {*names}
    assert "asm_libcalls_enter" in names
    assert names["wasm::spin"][1] > 20
    assert names["mine\\nand mine"] == (0x1000, 16)
    assert "asm_libcalls::code" not in names
    assert all(size for _, size, _ in entries)
    # No two overlap: perf would show either.
    ours = sorted({(start, size) for start, size, name in entries if not name.startswith("py::")})
    assert all(a + n <= b for (a, n), (b, _) in itertools.pairwise(ours))


def test_the_map_names_libcalls_and_wasm_functions(child, maps, machine_code):
    done = child(MAP_PROGRAM)
    check_map(maps(done.stdout), int(done.stdout.split()[1]))


@pytest.mark.skipif(sys.version_info < (3, 12), reason="-X perf is there from 3.12 on")
def test_the_map_is_shared_with_cpython(child, maps, machine_code):
    if not sysconfig.get_config_var("PY_HAVE_PERF_TRAMPOLINE"):
        pytest.skip("this CPython has no perf trampoline")
    done = child(MAP_PROGRAM, options=["-X", "perf"])
    entries = maps(done.stdout)
    check_map(entries, int(done.stdout.split()[1]))
    assert sum(name.startswith("py::") for _, _, name in entries) > 10


def test_the_environment_asks_for_the_map(child, maps, machine_code):
    code = """
        import asm_libcalls, os, sys
        path = f"{os.sep}tmp{os.sep}perf-{os.getpid()}.map"
        print(path, os.path.exists(path), "asm_libcalls.integrations.perf" in sys.modules)
        """
    for value, asked in (("1", True), ("0", False), ("", False), (None, False)):
        done = child(code, variables={"ASM_LIBCALLS_PERF_MAP": value})
        assert done.stdout.split()[1:] == [str(asked)] * 2
        if asked:
            assert "wasmtime_f64_ceil" in {name for _, _, name in maps(done.stdout)}


def test_a_forked_child_has_a_map_of_its_own(child, maps, machine_code):
    done = child(
        """
        import os
        import asm_libcalls
        from asm_libcalls.integrations import perf
        parent = perf.enable()
        before = os.path.getsize(parent)
        pid = os.fork()
        if not pid:
            perf.write_entry(0x1000, 1, "child")
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert os.path.getsize(parent) == before
        os.unlink(parent)
        print(parent.replace(str(os.getpid()), str(pid)))
        """
    )
    names = [name for _, _, name in maps(done.stdout)]
    assert {"wasmtime_i64_sdiv", "child"} <= {*names}


def test_a_map_that_is_a_link_is_not_written(child, tmp_path, machine_code):
    target = tmp_path / "target"
    target.write_text("precious")
    done = child(
        """
        import os, warnings
        import asm_libcalls
        from asm_libcalls.integrations import perf
        os.symlink("target", perf.map_file())
        try:
            perf.enable()
        except OSError:
            print("refused", perf.is_enabled())
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            perf.enable_or_warn()
        print([w.category.__name__ for w in caught])
        os.unlink(perf.map_file())
        print(os.path.exists(perf.enable()))
        os.unlink(perf.map_file())
        """
    )
    assert done.stdout == "refused False\n['RuntimeWarning']\nTrue\n"
    assert target.read_text() == "precious"


def test_entries_are_checked():
    perf = importlib.import_module("asm_libcalls.integrations.perf")
    with pytest.raises(TypeError, match=r"write_entry\(\): address must be an int, got str"):
        perf.write_entry("1", 1, "x")
    with pytest.raises(ValueError, match=r"write_entry\(\): size must be in 1 \.\. 2\*\*64-1, got"):
        perf.write_entry(1, 0, "x")
    with pytest.raises(TypeError, match=r"write_entry\(\): name must be a str, got bytes"):
        perf.write_entry(1, 1, b"x")
    with pytest.raises(ValueError, match=r"write_entry\(\): name must not be empty"):
        perf.write_entry(1, 1, " ")


def perf_report(code, folder, **variables):
    """Record a child and return what perf reports; skip where perf is not there, or may not."""
    perf = shutil.which("perf")
    if perf is None:
        pytest.skip("perf is not installed")
    recorded = run_program(
        *(perf, "record", "-e", "cpu-clock", "-F", "499", "-o", "data", sys.executable, "-c", code),
        folder=folder,
        variables=variables,
        exit_status=None,
    )
    if recorded.returncode:
        pytest.skip(f"perf cannot record here: {recorded.stderr.strip().splitlines()[-1]}")
    options = ("-i", "data", "--stdio", "--sort", "symbol,pid")
    shown = run_program(perf, "report", *options, folder=folder)
    for pid in set(re.findall(r"^ *[\d.]+% .*?(\d+):", shown.stdout, re.M)):
        Path(f"{os.sep}tmp{os.sep}perf-{pid}.map").unlink(missing_ok=True)
    return shown.stdout + shown.stderr


SPIN_PROGRAM = f"""
import time
now = time.time
time.time = lambda: now() + 10  # the sources may have been changed just now
import asm_libcalls
from asm_libcalls.x86_64 import code_cache
from asm_libcalls import toy_jit
toy_jit.Instance(toy_jit.Module({SPIN!r})).exports["spin"](50_000_000)
"""


def test_perf_shows_the_names(tmp_path, machine_code):
    shown = perf_report(SPIN_PROGRAM, tmp_path, ASM_LIBCALLS_PERF_MAP="1")
    assert "wasm::spin" in shown, shown
    assert "wasmtime_i64_sdiv" in shown, shown


def test_perf_finds_the_names_of_cached_code_in_its_file(tmp_path, machine_code):
    """Without a map, which is off by default."""
    pytest.importorskip("peachpy", reason="there is nothing to fill a cache with")
    variables = {"ASM_LIBCALLS_CACHE": str(tmp_path / "cache"), "ASM_LIBCALLS_PERF_MAP": None}
    fill = SPIN_PROGRAM.replace("50_000_000", "1")
    run_python("-c", fill, variables=variables)
    shown = perf_report(SPIN_PROGRAM, tmp_path, **variables)
    assert "wasmtime_i64_sdiv" in shown, shown
    assert "wasm::spin" not in shown, shown
