"""``Preview1``: the imports of one program, and its configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType

from asm_libcalls.owned import NotCopied, refuse_again
from asm_libcalls.owned.objects import unmade
from asm_libcalls.signatures.arguments import describe, items_of, shown
from asm_libcalls.toy_jit.frontend.module import I32, I64, FuncType
from asm_libcalls.toy_jit.runtime.callers import calling_runtime
from asm_libcalls.toy_jit.runtime.imports import WASI
from asm_libcalls.toy_jit.wasi import descriptor_calls, path_calls, poll_calls, process_calls
from asm_libcalls.toy_jit.wasi.abi import DIRECTORY_RIGHTS, FILE_RIGHTS
from asm_libcalls.toy_jit.wasi.call import Call
from asm_libcalls.toy_jit.wasi.descriptors import DescriptorTable, HostDescriptor
from asm_libcalls.toy_jit.wasi.errors import Errno, WasiError, errno_of
from asm_libcalls.toy_jit.wasi.guest_memory import GuestMemory
from asm_libcalls.toy_jit.wasi.process_calls import Exit
from asm_libcalls.toy_jit.wasi.streams import standard_stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from asm_libcalls.toy_jit.instance import Instance
    from asm_libcalls.toy_jit.wasi.call import CallTable


def _no_system(call: Call, *_: int) -> None:
    raise WasiError(Errno.NOSYS)


_CALLS: CallTable = {
    **process_calls.CALLS,
    **descriptor_calls.CALLS,
    **path_calls.CALLS,
    **poll_calls.CALLS,
    "proc_raise": (_no_system, "i"),
}
_TYPES = {"i": I32, "I": I64}
_MASKS = {"i": 0xFFFF_FFFF, "I": 0xFFFF_FFFF_FFFF_FFFF}


class Preview1(NotCopied, Mapping[str, Mapping[str, "Callable[..., Any]"]]):
    """WASI preview 1, as imports for an :class:`~asm_libcalls.toy_jit.Instance`.

    A program has access to what it is given here, to clocks and random numbers, and to nothing else
    of the host::

        with toy_jit.wasi.Preview1(args=["prog"], preopens={"/data": "some/folder"}) as wasi:
            code = wasi.start(toy_jit.Instance(module, wasi))

    Each run of a program needs its own Preview1, which has its descriptors. Together with other
    imports: ``{**wasi, "env": {...}}``.

    Parameters
    ----------
    args : iterable of str or bytes
        The arguments, the name of the program first.
    env : mapping of str or bytes to str or bytes
        The environment.
    stdin : optional
        Bytes, a file descriptor, a file, or an object with ``read``. None: it is empty.
    stdout, stderr : optional
        A file descriptor, a file, or an object with ``write``, which is called with bytes unless it
        is a text stream. None: Python's own.
    preopens : mapping of str or bytes to path
        Folders of the host, by the guest's names for them. The program may read and change files in
        them, but no others.

    Raises
    ------
    TypeError, ValueError
        An argument has a wrong type or value.
    OSError
        A folder cannot be opened.

    Notes
    -----
    A call returns an error number. It raises only :class:`Exit` (``proc_exit``), Interrupt, and
    exceptions of signal handlers and of the streams' methods. (An OSError of these is an error
    number, as is the use of a closed stream.) Interrupts and signal handlers also end a call that
    waits (``poll_oneoff``, reading from a pipe or a terminal), but not a ``read`` method of a
    Python object.

    A Python file is used through its descriptor: data in its read buffer is lost.
    """

    args: list[bytes] = unmade()
    _descriptors: DescriptorTable = unmade()
    _imports: Mapping[str, Mapping[str, Callable[..., Any]]] = unmade()
    _closed = _has_run = False
    _shared = "descriptors"

    def __init__(
        self,
        *,
        args: Iterable[str | bytes] = (),
        env: Mapping[str | bytes, str | bytes] | Mapping[str, str] | None = None,
        stdin: Any = None,
        stdout: Any = None,
        stderr: Any = None,
        preopens: Mapping[str, str | os.PathLike[str]] | None = None,
    ) -> None:
        refuse_again(self, "args")
        given = items_of(args, "Preview1(): args", "a sequence of str or bytes")
        self.args = [_string(a, f"args[{i}]") for i, a in enumerate(given)]
        self.environ = [_variable(*item) for item in _items(env, "env")]
        self._descriptors = DescriptorTable()
        try:
            for name, given in (("stdin", stdin), ("stdout", stdout), ("stderr", stderr)):
                self._descriptors.add(standard_stream(given, name))
            for guest, host in _items(preopens, "preopens"):
                self._descriptors.add(_preopen(guest, host))
        except BaseException:
            self.close()
            raise
        functions = {name: self._function(*entry) for name, entry in _CALLS.items()}
        functions["proc_exit"].wasm_type = FuncType(bytes([I32]), b"")
        self._imports = {WASI: MappingProxyType(functions)}

    # -- a mapping of imports

    def __getitem__(self, module: str) -> Mapping[str, Callable[..., Any]]:
        self._check_open()
        return self._imports[module]

    def __iter__(self) -> Iterator[str]:
        self._check_open()
        return iter(self._imports)

    def __len__(self) -> int:
        self._check_open()
        return len(self._imports)

    def __repr__(self) -> str:
        return f"<Preview1 {b' '.join(self.args).decode(errors='replace')!r}>"

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    # -- running

    def start(self, instance: Instance) -> int:
        """Run a program: call its ``_start``, and return its exit code.

        Raises
        ------
        ValueError
            The instance exports no ``_start`` (a library exports ``_initialize``), or this
            Preview1 is closed or has run a program.
        Trap
            The program trapped.
        """
        try:
            self._start(instance, "start()")()
        except Exit as end:
            return end.code
        return 0

    async def start_async(self, instance: Instance, *, time_limit: float | None = None) -> int:
        """Run a program in a worker thread, and await its exit code.

        See :meth:`~asm_libcalls.toy_jit.Func.call_async`. Called directly, that would end asyncio's
        loop with :class:`Exit`, as any SystemExit that leaves a task does.

        Raises
        ------
        ValueError, Trap
            As of :meth:`start`.
        asyncio.CancelledError
            The task was cancelled.
        """
        try:
            await self._start(instance, "start_async()").call_async(time_limit=time_limit)
        except Exit as end:
            return end.code
        return 0

    def initialize(self, instance: Instance) -> None:
        """Call a library's ``_initialize``, if it has one: once, before its other functions.

        Raises
        ------
        ValueError
            The instance is a program: it exports ``_start``.
        """
        exports = self._exports(instance, "initialize()")
        if "_start" in exports:
            raise ValueError("initialize(): the Instance exports _start: it is a program")
        function = exports.get("_initialize")
        if function is not None:
            function()

    def close(self) -> None:
        """Close the program's descriptors and the preopened folders; twice is a no-op."""
        self._closed = True
        self._descriptors.close_all()

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("the Preview1 is closed")

    def _exports(self, instance: Instance, caller: str) -> Mapping[str, Any]:
        exports = getattr(instance, "exports", None)
        if not isinstance(exports, Mapping):
            raise TypeError(
                f"{caller}: instance must be a toy_jit.Instance, got {type(instance).__name__}"
            )
        self._check_open()
        return exports

    def _start(self, instance: Instance, caller: str) -> Any:
        function = self._exports(instance, caller).get("_start")
        if function is None:
            raise ValueError(f"{caller}: the Instance exports no _start")
        if self._has_run:
            raise ValueError(f"{caller}: this Preview1 has run a program: each run needs its own")
        self._has_run = True
        return function

    def __enter__(self) -> Preview1:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # -- calls

    def _function(self, function: Callable[..., None], letters: str) -> Any:
        masks = [_MASKS[letter] for letter in letters]

        def call(*arguments: int) -> int:
            runtime = calling_runtime()
            memory = None if runtime is None or not runtime.memories else runtime.memories[0]
            call = Call(runtime, GuestMemory(memory), self._descriptors, self)
            unsigned = (a & mask for a, mask in zip(arguments, masks, strict=True))
            try:
                function(call, *unsigned)
            except WasiError as error:
                return int(error.number)
            except OSError as error:
                if error.errno is None:  # not the host's; of a signal handler, such as TimeoutError
                    raise
                return int(errno_of(error))
            except MemoryError:
                return int(Errno.NOMEM)
            return 0

        types = bytes(_TYPES[letter] for letter in letters)
        call.wasm_type = FuncType(types, bytes([I32]))  # type: ignore[attr-defined]
        return call


def _items(given: Any, name: str) -> list[tuple[Any, Any]]:
    if given is None:
        return []
    if not isinstance(given, Mapping):
        raise TypeError(f"Preview1(): {name} must be a mapping, got {type(given).__name__}")
    return items_of(given.items(), f"Preview1(): {name}", "a mapping")


def _string(value: Any, name: str) -> bytes:
    if isinstance(value, str):
        value = value.encode("utf-8", "surrogateescape")
    if not isinstance(value, bytes):
        raise TypeError(f"Preview1(): {name} must be a str or bytes, got {type(value).__name__}")
    if 0 in value:
        raise ValueError(f"Preview1(): {name} must not have a NUL: {shown(value)}")
    return value


def _variable(name: Any, value: Any) -> bytes:
    encoded = _string(name, "a name in env")
    if not encoded or b"=" in encoded:
        raise ValueError(f"Preview1(): {shown(name)} is not a name of an environment variable")
    return encoded + b"=" + _string(value, f"env[{name!r}]")


def _preopen(guest: Any, host: Any) -> HostDescriptor:
    name = _string(guest, "a name in preopens")
    if not name:
        raise ValueError("Preview1(): a name in preopens must not be empty")
    try:
        path = os.fspath(host)
    except TypeError:
        raise TypeError(
            f"Preview1(): preopens[{shown(guest)}] must be a path, got {describe(host)}"
        ) from None
    descriptor = HostDescriptor(
        os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC),
        owned=True,
        inheriting=DIRECTORY_RIGHTS | FILE_RIGHTS,
    )
    descriptor.preopened = name
    return descriptor
