"""The public class Module: a compiled module, whose code its instances share."""

from __future__ import annotations

from asm_libcalls.libcalls import DECLARATIONS
from asm_libcalls.owned.objects import Owned, unmade
from asm_libcalls.signatures.arguments import bytes_of, counted, printable
from asm_libcalls.toy_jit.frontend.decoder import decode_module
from asm_libcalls.toy_jit.frontend.external_types import exports_of, imports_of
from asm_libcalls.toy_jit.link.compiled_code import CompiledCode
from asm_libcalls.toy_jit.link.linker import compile_module
from asm_libcalls.toy_jit.options import CompileOptions
from asm_libcalls.toy_jit.runtime import interrupts
from asm_libcalls.toy_jit.runtime.compiled_instance import CompiledInstance
from asm_libcalls.toy_jit.runtime.slots import runtime_addresses

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from typing import Any

    from asm_libcalls.toy_jit.frontend import module as decoded_module
    from asm_libcalls.toy_jit.frontend.external_types import ExportType, ImportType


def _check_options(options: Any, where: str) -> None:
    if options is not None and not isinstance(options, CompileOptions):
        raise TypeError(
            f"{where}: options must be what compile_options() returns, got {type(options).__name__}"
        )


class Module(Owned):
    """A compiled module.

    Parameters
    ----------
    wasm : bytes-like
        The binary format.
    options : CompileOptions, optional
        From :func:`compile_options`.

    Attributes
    ----------
    decoded : asm_libcalls.toy_jit.frontend.module.Module
        The decoded module.

    Raises
    ------
    InvalidModule
        The module is malformed or not valid. The message names the reason and the byte.
    TypeError
        `wasm` is not bytes-like.
    """

    decoded: decoded_module.Module = unmade()
    _code: CompiledCode | None = unmade()
    _closes_when_dropped = False  # its instances keep the code
    _relied_on: tuple[str, ...] = "code", "decoded"

    def __init__(self, wasm: Any, options: CompileOptions | None = None) -> None:
        self._begin()
        try:
            binary = bytes_of(wasm, "Module(): wasm")
        except TypeError as error:
            if isinstance(wasm, str) or hasattr(wasm, "__fspath__"):
                raise TypeError(f"{error}; Module.from_file() reads a file") from None
            raise
        _check_options(options, "Module()")
        self.decoded = decode_module(binary)
        self._options = options or CompileOptions()
        self._code = compile_module(self.decoded, self._options, runtime_addresses())
        self._finish()

    @property
    def code(self) -> CompiledCode:
        """The machine code, which all instances share; ValueError if the module is closed."""
        code = self._code
        if code is None:
            self._check_open()
            raise AssertionError
        return code

    def close(self) -> None:
        """Release the code, and refuse new instances; twice is a no-op.

        Existing instances keep the code. It is unmapped with the last one.
        """
        super().close()

    def _release(self) -> None:
        self._code = None

    @classmethod
    def from_file(
        cls, path: str | os.PathLike[str], options: CompileOptions | None = None
    ) -> Module:
        """Compile a file.

        Parameters
        ----------
        path : str or path-like
            A module in the binary format. If the name ends in ``.wat``, the text format, which
            wabt's ``wat2wasm`` or the package wasmtime converts.
        options : CompileOptions, optional

        Raises
        ------
        OSError
            The file cannot be read.
        InvalidModule
            As of the class.
        ValueError
            The text format is wrong.
        RuntimeError
            No converter of the text format is installed.
        """
        from pathlib import Path

        _check_options(options, "Module.from_file()")
        file = Path(path)
        if file.suffix == ".wat":
            from asm_libcalls.toy_jit.text_format import convert

            return cls(convert(file.read_bytes(), str(file)), options)
        with file.open("rb") as opened:
            content = opened.read(8)
            if content[:4] == b"\0asm":  # a device without an end is refused for its beginning
                content += opened.read()
        return cls(content, options)

    def serialize(self) -> bytes:
        """Return the compiled module as bytes, for :meth:`deserialize`.

        This version of the package can load them, on CPUs that have all features of this one that
        compiled code uses.

        Raises
        ------
        ValueError
            The module is closed.
        """
        from asm_libcalls import __version__
        from asm_libcalls.toy_jit.link.serialized import pack

        return pack(self.decoded, self.code, self._options, __version__)

    @classmethod
    def deserialize(cls, data: Any, options: CompileOptions | None = None) -> Module:
        """Make a module of the bytes of :meth:`serialize`, also of another process.

        It behaves as the module that was serialized. **Load only bytes that you would run as a
        program**: they contain machine code, which is not validated. Their digest detects damage,
        but not a change on purpose.

        Parameters
        ----------
        data : bytes-like
        options : CompileOptions, optional
            The options that the module must have been compiled with. By default any.

        Raises
        ------
        DeserializeError
            The bytes are no serialized module, truncated or damaged, of another version of the
            package, or for a CPU with features that this one has not; or `options` differ.
        TypeError
            `data` is not bytes-like, or `options` are of another type.
        """
        from asm_libcalls import __version__
        from asm_libcalls.toy_jit.link.serialized import unpack

        _check_options(options, "Module.deserialize()")
        content = bytes_of(data, "Module.deserialize(): data")
        decoded, code, tables, made_with = unpack(memoryview(content), options, __version__)
        module = cls.__new__(cls)
        module._begin()
        module.decoded, module._options = decoded, made_with
        module._code = CompiledCode(
            decoded, code, tables, runtime_addresses(), made_with.count_libcalls
        )
        module._finish()
        return module

    @property
    def imports(self) -> tuple[ImportType, ...]:
        """The imports, in the module's order: `module`, `name`, `kind` and `type` of each."""
        return imports_of(self.decoded)

    @property
    def exports(self) -> tuple[ExportType, ...]:
        """The exports, in the module's order: `name`, `kind` and `type` of each."""
        return exports_of(self.decoded)

    def __repr__(self) -> str:
        name = f" {printable(self.decoded.name)}" if self.decoded.name else ""
        return f"<Module{name}: {counted(len(self.decoded.functions), 'function')}>"

    def libcall_counts(self) -> dict[str, int]:
        """Return how often the code of this module has called each libcall, by libcall name.

        Raises
        ------
        ValueError
            The module was compiled without ``compile_options(count_libcalls=True)``.
        """
        counters = self.code.counters
        if counters is None:
            raise ValueError(
                "libcall_counts(): the Module must be compiled with "
                "compile_options(count_libcalls=True)"
            )
        return dict(zip(DECLARATIONS, counters, strict=True))

    def interrupt(self) -> None:
        """Make the running code of all instances of this module trap with Interrupt.

        That includes a start function, whose instance has not been returned yet. An instance that
        is not running traps at its next call.
        """
        code = self.code
        for runtime in interrupts.stoppable_instances():
            if isinstance(runtime, CompiledInstance) and runtime.code is code:
                runtime.ask_to_trap()
