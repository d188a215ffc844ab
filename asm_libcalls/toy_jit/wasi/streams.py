"""Standard streams: descriptors for the arguments stdin, stdout and stderr of Preview1."""

from __future__ import annotations

import codecs
import io
import sys

from asm_libcalls.signatures.arguments import bytes_of, integer, shown
from asm_libcalls.toy_jit.wasi import abi
from asm_libcalls.toy_jit.wasi.abi import FileType, Right
from asm_libcalls.toy_jit.wasi.descriptors import Descriptor, HostDescriptor
from asm_libcalls.toy_jit.wasi.errors import Errno, WasiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from asm_libcalls.toy_jit.wasi.descriptors import Waiter


def standard_stream(given: Any, name: str) -> Descriptor:
    """Make the descriptor of ``"stdin"``, ``"stdout"`` or ``"stderr"``.

    For stdin, None (it is empty) or bytes may be given, for the others None (Python's own); or a
    file descriptor, a file, or any object with ``read`` or ``write``.
    """
    reads = name == "stdin"
    if given is None:
        if reads:
            return _Reader(io.BytesIO())
        return _Writer(name, lambda: getattr(sys, name))
    if reads and isinstance(given, (bytes, bytearray, memoryview)):
        return _Reader(io.BytesIO(given))
    if isinstance(given, int) and not isinstance(given, bool):
        try:
            return HostDescriptor(given, owned=False, readable=reads, writable=not reads)
        except (OSError, OverflowError) as error:
            raise ValueError(
                f"Preview1(): {name}: {shown(given)} is not an open file descriptor"
            ) from error
    method = "read" if reads else "write"
    if not callable(getattr(given, method, None)):
        kinds = "bytes, " if reads else ""
        raise TypeError(
            f"Preview1(): {name} must be None, {kinds}a file descriptor, or have {method}(), "
            f"got {type(given).__name__}"
        )
    host = _fileno(given)
    if host is None:
        return _Reader(given) if reads else _Writer(name, lambda: given)
    if not reads:
        given.flush()
    return HostDescriptor(host, owned=False, readable=reads, writable=not reads, keeps=given)


def _fileno(file: Any) -> int | None:
    try:
        return int(file.fileno())
    except (AttributeError, OSError, ValueError, TypeError):
        return None


class _Stream(Descriptor):
    """A stream in Python. An OSError of its methods becomes an error number in the caller."""

    def __init__(self, natural: int, is_terminal: bool) -> None:
        filetype = FileType.CHARACTER_DEVICE if is_terminal else FileType.UNKNOWN
        super().__init__(filetype, natural)

    def call(self, file: Any, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function that uses the stream."""
        try:
            return function(*arguments)
        except ValueError as error:
            if isinstance(error, io.UnsupportedOperation) or getattr(file, "closed", False):
                raise WasiError(Errno.BADF) from error
            raise


class _Reader(_Stream):
    def __init__(self, file: Any) -> None:
        super().__init__(abi.STREAM_RIGHTS & ~Right.FD_WRITE, False)
        self._keeps = file  # a text file closes its buffer when it is collected
        file = getattr(file, "buffer", file) if isinstance(file, io.TextIOBase) else file
        self._file = file
        self._read = getattr(file, "read1", file.read)
        self._left = b""

    def read(self, call: Waiter, buffers: Sequence[memoryview], offset: int | None = None) -> int:
        """Read data left from the last call; if none is left, call the stream's method."""
        if offset is not None:
            raise WasiError(Errno.SPIPE)
        wanted = sum(map(len, buffers))
        if not wanted:
            return 0
        if not self._left:
            data = self.call(self._file, self._read, wanted)
            if data is None:  # a non-blocking stream without data
                raise WasiError(Errno.AGAIN)
            if isinstance(data, str):
                data = data.encode("utf-8", "surrogateescape")
            self._left = bytes_of(data, "Preview1(): stdin: the result of read()")
        taken = 0
        for buffer in buffers:
            part = self._left[taken : taken + len(buffer)]
            buffer[: len(part)] = part
            taken += len(part)
        self._left = self._left[taken:]
        return taken


class _Writer(_Stream):
    """Writes to the stream that `target` returns at each call: ``sys.stdout`` may be replaced."""

    def __init__(self, name: str, target: Callable[[], Any]) -> None:
        self._name = name
        self._target = target
        file = target()
        is_terminal = bool(file is not None and hasattr(file, "isatty") and file.isatty())
        super().__init__(abi.STREAM_RIGHTS & ~Right.FD_READ, is_terminal)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def write(self, call: Waiter, buffers: Sequence[memoryview], offset: int | None = None) -> int:
        """Write, and flush Python's buffer."""
        if offset is not None:
            raise WasiError(Errno.SPIPE)
        file = self._target()
        if file is None:  # sys.stdout and sys.stderr may be None
            raise WasiError(Errno.BADF)
        host = _fileno(file)
        if host is not None:
            self.call(file, file.flush)
            direct = HostDescriptor(host, owned=False, readable=False)
            direct.flags = self.flags
            return direct.write(call, buffers)
        data = b"".join(buffers)
        return self.call(file, self._write, file, data)  # type: ignore[no-any-return]

    def _write(self, file: Any, data: bytes) -> int:
        written: Any = None
        if not isinstance(file, io.TextIOBase):
            written = file.write(data)
        elif hasattr(file, "buffer"):
            file.flush()
            file.buffer.write(data)
            file.buffer.flush()
        else:
            file.write(self._decoder.decode(data))
        if hasattr(file, "flush"):
            file.flush()
        if not isinstance(written, int):
            return len(data)
        where = f"Preview1(): {self._name}: the result of write()"
        return integer(written, where, highest=len(data))
