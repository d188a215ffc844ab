"""A guest that makes single WASI calls, also such as no compiler emits."""

import struct

import wasm_builder as wasm

from asm_libcalls import toy_jit
from asm_libcalls.toy_jit.wasi import Preview1
from asm_libcalls.toy_jit.wasi.abi import Right
from asm_libcalls.toy_jit.wasi.errors import Errno

MODULE = "wasi_snapshot_preview1"
ALL_RIGHTS = (1 << 30) - 1
FOLLOW = 1
RESULT = 8  # where results of calls go
HEAP = 1024

with Preview1() as _wasi:
    CALLS = {name: function.wasm_type for name, function in _wasi[MODULE].items()}


def binary(pages=1, calls=CALLS):
    """Make a module that exports, for each call, a function which makes it."""
    types = [wasm.functype(t.params, t.results) for t in calls.values()]
    bodies = []
    for i, functype in enumerate(calls.values()):
        arguments = b"".join(b"\x20" + wasm.u(p) for p in range(len(functype.params)))
        bodies.append(wasm.body(arguments + b"\x10" + wasm.u(i)))
    names = [wasm.name(MODULE) + wasm.name(name) for name in calls]
    return wasm.module(
        types=types,
        imports=[name + b"\0" + wasm.u(i) for i, name in enumerate(names)],
        functions=range(len(calls)),
        memories=[b"\0" + wasm.u(pages)] if pages else [],
        exports=[wasm.exported(name, 0, len(calls) + i) for i, name in enumerate(calls)],
        code=bodies,
    )


_modules = {}


class Guest:
    """An instance that makes calls, with pages of memory or none; `options` are Preview1's."""

    def __init__(self, pages=1, **options):
        if pages not in _modules:
            _modules[pages] = toy_jit.Module(binary(pages))
        self.wasi = Preview1(**options)
        self.instance = toy_jit.Instance(_modules[pages], self.wasi)
        self._top = HEAP

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.wasi.close()

    # -- memory

    @property
    def memory(self):
        return memoryview(self.instance.memory)

    def put(self, data):
        """Put bytes into memory; return the address."""
        self._top = -(-self._top // 8) * 8
        at, self._top = self._top, self._top + len(data)
        self.memory[at : self._top] = data
        return at

    def u32(self, at=RESULT):
        return struct.unpack_from("<I", self.memory, at)[0]

    def u64(self, at=RESULT):
        return struct.unpack_from("<Q", self.memory, at)[0]

    # -- calls

    def call(self, name, *arguments):
        """Make a call; a bytes argument becomes its address and length. Return the Errno."""
        self._top = HEAP
        words = []
        for argument in arguments:
            if isinstance(argument, (bytes, str)):
                data = argument.encode() if isinstance(argument, str) else argument
                words += [self.put(data), len(data)]
            else:
                words.append(argument)
        return Errno(self.instance.exports[name](*words) or 0)

    def ok(self, name, *arguments):
        """Make a call that succeeds."""
        found = self.call(name, *arguments)
        assert found == Errno.SUCCESS, f"{name}{arguments}: {found!r}"

    def open(self, path, oflags=0, *, fd=3, follow=FOLLOW, reads=True, writes=False, flags=0):
        """Open a path; return the descriptor, or the Errno."""
        rights = ALL_RIGHTS if writes else ALL_RIGHTS & ~Right.FD_WRITE
        rights &= -1 if reads else ~(Right.FD_READ | Right.FD_READDIR)
        found = self.call("path_open", fd, follow, path, oflags, rights, ALL_RIGHTS, flags, RESULT)
        return found if found else self.u32()

    def write(self, fd, data, offset=None):
        """Write bytes; return how many, or the Errno."""
        self._top = HEAP
        vector = self.put(struct.pack("<II", 32768, len(data)))
        self.memory[32768 : 32768 + len(data)] = data
        if offset is None:
            found = Errno(self.instance.exports["fd_write"](fd, vector, 1, RESULT))
        else:
            found = Errno(self.instance.exports["fd_pwrite"](fd, vector, 1, offset, RESULT))
        return found if found else self.u32()

    def read(self, fd, size=4096):
        """Read bytes; return them, or the Errno."""
        self._top = HEAP
        vector = self.put(struct.pack("<II", 32768, size))
        found = Errno(self.instance.exports["fd_read"](fd, vector, 1, RESULT))
        return found if found else bytes(self.memory[32768 : 32768 + self.u32()])

    def names(self, fd):
        """List the names in a folder."""
        names, cookie = [], 0
        while True:
            self.ok("fd_readdir", fd, 32768, 512, cookie, RESULT)
            data = bytes(self.memory[32768 : 32768 + self.u32()])
            at = 0
            while at + 24 <= len(data):
                following, _, length, _ = struct.unpack_from("<QQII", data, at)
                if at + 24 + length > len(data):
                    break
                names.append(data[at + 24 : at + 24 + length].decode())
                cookie, at = following, at + 24 + length
            if len(data) < 512:
                return names
