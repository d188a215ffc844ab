"""Modules of npm packages do a real job, by toy_jit and by Wasmtime, with the same results.

``tools/npm_modules.py`` fetches them; ``NPM_MODULES`` names its folder.
"""

import os
from pathlib import Path

import pytest
from npm_jobs import IMPORTS, JOBS

from asm_libcalls import toy_jit
from asm_libcalls.toy_jit.wasi import Preview1
from npm_modules import MODULES

FOLDER = os.environ.get("NPM_MODULES")

pytestmark = [
    pytest.mark.skipif(
        FOLDER is None,
        reason="set NPM_MODULES to the folder that `python tools/npm_modules.py FOLDER` made",
    ),
    pytest.mark.usefixtures("machine_code"),
]


def not_called(name):
    def not_called(host, *arguments):
        raise AssertionError(f"{name}{arguments} is called, which the job does not know")

    return not_called


class ToyHost:
    """A module in toy_jit."""

    def __init__(self, path, functions):
        self.seen = []
        self.module = toy_jit.Module.from_file(path)
        self.functions = functions
        self._exports = None

    @property
    def exports(self):
        if self._exports is None:
            imports = {}
            for each in self.module.imports:
                name = f"{each.module}.{each.name}"
                function = self.functions.get(name, not_called(name))
                imports.setdefault(each.module, {})[each.name] = lambda *words, function=function: (
                    function(self, *words)
                )
            self._exports = toy_jit.Instance(self.module, imports).exports
        return self._exports

    @property
    def memory(self):
        memories = [e.name for e in self.module.exports if e.kind == "memory"]
        return memoryview(self.exports[memories[0]])

    def call(self, name, *arguments):
        return self.exports[name](*arguments)

    def value(self, name):
        return self.exports[name].value

    def read(self, address, size):
        return bytes(self.memory[address : address + size])

    def write(self, address, data):
        self.memory[address : address + len(data)] = data

    def run(self, arguments, folder):
        with Preview1(args=arguments, preopens={"/data": folder}) as wasi:
            return wasi.start(toy_jit.Instance(self.module, wasi))


class WasmtimeHost:
    """A module in Wasmtime."""

    def __init__(self, path, functions):
        import wasmtime

        self.wasmtime = wasmtime
        self.seen = []
        self.functions = functions
        self.engine = wasmtime.Engine()
        self.store = wasmtime.Store(self.engine)
        self.module = wasmtime.Module.from_file(self.engine, str(path))
        self._exports = None

    @property
    def exports(self):
        if self._exports is None:
            imports = []
            for each in self.module.imports:
                name = f"{each.module}.{each.name}"
                function = self.functions.get(name, not_called(name))
                call = lambda *words, function=function: function(self, *words)  # noqa: E731
                imports.append(self.wasmtime.Func(self.store, each.type, call))
            instance = self.wasmtime.Instance(self.store, self.module, imports)
            self._exports = instance.exports(self.store)
        return self._exports

    @property
    def memory(self):
        return next(e for e in self.exports.values() if isinstance(e, self.wasmtime.Memory))

    def call(self, name, *arguments):
        return self.exports[name](self.store, *arguments)

    def value(self, name):
        return self.exports[name].value(self.store)

    def read(self, address, size):
        return bytes(self.memory.read(self.store, address, address + size))

    def write(self, address, data):
        self.memory.write(self.store, data, address)

    def run(self, arguments, folder):
        config = self.wasmtime.WasiConfig()
        config.argv = arguments
        config.preopen_dir(str(folder), "/data")
        self.store.set_wasi(config)
        linker = self.wasmtime.Linker(self.engine)
        linker.define_wasi()
        instance = linker.instantiate(self.store, self.module)
        try:
            instance.exports(self.store)["_start"](self.store)
        except self.wasmtime.ExitTrap as end:
            return end.code
        return 0


def test_there_is_a_job_for_each_module():
    assert set(JOBS) == set(MODULES)
    assert set(IMPORTS) <= set(JOBS)


@pytest.mark.parametrize("name", JOBS)
def test_a_job_gives_what_wasmtime_gives(name):
    pytest.importorskip("wasmtime")
    path = Path(FOLDER) / f"{name}.wasm"
    results = [JOBS[name](kind(path, IMPORTS.get(name, {}))) for kind in (ToyHost, WasmtimeHost)]
    assert results[0] == results[1]
