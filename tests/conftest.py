"""Fixtures of all tests: both implementations side by side, and Python in child processes.

A test of behaviour takes the fixture ``binding`` and so runs twice in one process: over what serves
by default, and over the fallback alone.
"""

from __future__ import annotations

import ctypes
import gc
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import deserialized_modules
import hypothesis
import pytest
from child_process import run_child

from asm_libcalls.binding import Binding, default_binding
from asm_libcalls.emitter.image import Routine
from asm_libcalls.emitter.pages import LoadedImage
from asm_libcalls.libcall import Libcall
from asm_libcalls.native.entry import MachineEntry
from asm_libcalls.x86_64.backend import Backend

# In continuous integration every run tries the same cases; elsewhere new ones, and a failure prints
# how to try them again.
# No deadline: the time of an example depends on other processes.
_UNTIMED: Any = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}
hypothesis.settings.register_profile("ci", derandomize=True, **_UNTIMED)
hypothesis.settings.register_profile("local", print_blob=True, **_UNTIMED)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")

# A shell starts what runs in its background with Ctrl-C ignored, and children inherit that; tests
# that interrupt a child need it as it is for a program at a terminal.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

SEED_VARIABLE = "ASM_LIBCALLS_TEST_SEED"


def pytest_configure(config: pytest.Config) -> None:
    default = "0" if os.environ.get("CI") else str(random.SystemRandom().getrandbits(32))
    # Workers, which are started with this environment, have the seed that the header shows.
    os.environ[SEED_VARIABLE] = os.environ.get(SEED_VARIABLE) or default
    config.stash[_seed] = int(os.environ[SEED_VARIABLE])
    if os.environ.get(deserialized_modules.VARIABLE):
        deserialized_modules.replace_modules(pytest.MonkeyPatch())


_seed = pytest.StashKey[int]()


def pytest_collection_finish() -> None:
    """Freeze the thousands of collected tests, so that collections need not look at them."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _what_other_files_left_is_frozen() -> None:
    """Collect it, and freeze the rest: tests that collect thousands of times would take minutes."""
    gc.collect()
    gc.freeze()


def pytest_report_header(config: pytest.Config) -> list[str]:
    binding = default_binding()
    served = sum(libcall.backend == "x86_64" for libcall in binding.libcalls.values())
    return [
        f"random cases: {SEED_VARIABLE}={config.stash[_seed]}",
        f"x86_64: {served} libcalls" + (f" ({binding.x86_64_reason})" if not served else ""),
    ]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Report the outcome of each file of the official WebAssembly spec tests."""
    lines = [
        value
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, ())
        for name, value in getattr(report, "user_properties", ())
        if name == "spec"
    ]
    if lines:
        terminalreporter.section("WebAssembly spec tests")
        for line in sorted(map(str, lines)):
            terminalreporter.line(line)


@pytest.fixture
def random_cases(request: pytest.FixtureRequest) -> random.Random:
    """A generator whose seed the report's header shows."""
    return random.Random(request.config.stash[_seed])


@pytest.fixture(scope="session")
def accelerated() -> Binding:
    """The default binding: machine code, where it can run."""
    default = default_binding()
    return default if default.requested == "auto" else Binding("auto")


@pytest.fixture(scope="session")
def fallback() -> Binding:
    """The fallback alone."""
    return Binding("fallback")


@pytest.fixture(params=["auto", "fallback"])
def binding(request: pytest.FixtureRequest, accelerated: Binding, fallback: Binding) -> Binding:
    """Each of the two."""
    return accelerated if request.param == "auto" else fallback


@pytest.fixture(scope="session")
def machine_code(accelerated: Binding) -> Backend:
    """The loaded x86-64 backend; without it there is nothing to test."""
    if accelerated.x86_64 is None:
        pytest.skip(f"no machine code: {accelerated.x86_64_reason}")
    return accelerated.x86_64


@pytest.fixture(scope="session")
def machine_entry(accelerated: Binding, machine_code: Backend) -> MachineEntry:
    """How Python enters native code there."""
    assert isinstance(accelerated.entry, MachineEntry)
    return accelerated.entry


@pytest.fixture(scope="session")
def load_routines(machine_code: Backend) -> Callable[..., LoadedImage]:
    """Put routines of a test on executable pages, with a raise that the entry understands."""
    pytest.importorskip("peachpy", reason="routines of tests are assembled by PeachPy")
    from asm_libcalls.emitter import pages
    from asm_libcalls.emitter.image import link
    from asm_libcalls.x86_64.backend import slot_value
    from asm_libcalls.x86_64.trampolines import enter_and_raise

    ours = machine_code.loaded
    key = ctypes.c_uint64.from_address(ours.address + ours.image.slots["activations_key"]).value

    def load(*routines: Routine, slots: dict[str, int] | None = None) -> LoadedImage:
        loaded = pages.load(link([*enter_and_raise.routines(), *routines]))
        for name in loaded.image.slots:
            if name not in (slots or {}):
                loaded.set_slot(name, slot_value(name))
        for name, value in {"activations_key": key, **(slots or {})}.items():
            loaded.set_slot(name, value)
        loaded.keep()
        return loaded

    return load


@pytest.fixture
def slow_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the libcalls that came to Python, by their checked call."""
    seen = []
    original = Libcall._patterns

    def spy(self: Libcall, arguments: Any) -> Any:
        seen.append(self.name)
        return original(self, arguments)

    monkeypatch.setattr(Libcall, "_patterns", spy)
    return seen


@pytest.fixture
def child(tmp_path: Path) -> Callable[..., Any]:
    """Run Python code in a child process of its own folder; see :func:`run_child`."""

    def run(code: str, **options: Any) -> Any:
        return run_child(code, folder=tmp_path, **options)

    return run
