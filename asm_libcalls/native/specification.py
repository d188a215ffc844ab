"""The arguments of ``native_function`` and ``catch_traps``, checked."""

from __future__ import annotations

from asm_libcalls.signatures import VALUE_TYPES, Callee, Signature
from asm_libcalls.signatures.arguments import counted, describe, items_of, number_of, shown
from asm_libcalls.x86_64.python_functions import EVERYTHING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from asm_libcalls.emitter.code_address import CodeAddress

MAXIMUM_PARAMETERS = 255
"""A limit, because each parameter takes code and stack."""


class Specification:
    """The checked arguments of :func:`.native_function`, for :func:`.native_functions`.

    The first ones are as in :func:`.native_function`, but `module` is None if no module is given.
    `caller` is the function in errors about them. `guard`, `inline`, `vmctx_of` and `references`
    are as in :class:`~asm_libcalls.x86_64.python_functions.function_shapes.Shape`; with a guard,
    `catch` can be False, because calls that would trap go to the slow path. `permanent` is as in
    :meth:`~asm_libcalls.x86_64.python_functions.function_objects.FunctionObjects.make`.
    """

    def __init__(
        self,
        address: int,
        signature: str,
        *,
        name: str | None = None,
        doc: str | None = None,
        module: str | None = None,
        parameters: Sequence[str] | None = None,
        slow: Callable[..., Any] | None = None,
        catch: bool = True,
        release_gil: bool = False,
        caller: str = "native_function()",
        guard: str = "",
        inline: str = "",
        vmctx_of: tuple[type, str] | None = None,
        references: tuple[tuple[type, str], ...] = (),
        permanent: bool = False,
    ) -> None:
        where = f"{caller}: "
        self.address = _checked_address(address, f"{where}address")
        self.owner: CodeAddress | None = None
        if type(address) is not int:
            from asm_libcalls.emitter.code_address import CodeAddress

            if isinstance(address, CodeAddress):
                self.owner = address
                address.check_open(caller)
        if not self.address and guard != EVERYTHING and not inline:
            raise ValueError(f"{where}address must not be null")
        self.signature = Signature.of(signature, f"{where}signature")
        if name is None:
            name = f"function_at_{self.address:#x}"
        if doc is None:
            doc = f"Call the C function {self.signature} at {self.address:#x}."
        self.name = _text(name, f"{where}name")
        self.doc = _text(doc, f"{where}doc")
        self.module = None if module is None else _text(module, f"{where}module")
        self.parameters = _parameter_names(parameters, self.signature, f"{where}parameters")
        if slow is not None and not callable(slow):
            raise TypeError(f"{where}slow must be callable, got {type(slow).__name__}")
        self.names_in_errors: Callee | None = None  # those of `name` and `parameters`
        self.slow = slow
        self.catch = bool(catch)
        self.release_gil = bool(release_gil)
        self.guard = guard
        self.inline = inline
        self.vmctx_of = vmctx_of
        self.references = references
        self.permanent = permanent

    def callee(self) -> Callee:
        """Return the names in errors."""
        return self.names_in_errors or Callee.named(self.name, self.parameters)


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{where} must be a str, got {type(value).__name__}")
    if "\0" in value:
        raise ValueError(f"{where} must not contain a null character, got {shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{where} must be encodable as UTF-8, got {shown(value)}") from None
    return value if type(value) is str else str.__str__(value)


def _checked_address(address: Any, where: str) -> int:
    if address is not None and hasattr(type(address), "__index__"):
        return VALUE_TYPES["pointer"].to_bits(address, where)
    from asm_libcalls.signatures import pointers

    hint = ""
    if hasattr(type(address), "__native_address__"):
        has_one = isinstance(getattr(address, "address", None), int)
        hint = ": give its .address" if has_one else ": it is a function already"
    elif pointers.address_in_ctypes(address) is not None:
        hint = ": ctypes.cast(it, ctypes.c_void_p).value is its address"
    raise TypeError(f"{where} must be an address (int), got {describe(address)}{hint}")


def checked_name(name: object, where: str) -> str:
    """Return the name of a function, an identifier or several with dots between, or raise."""
    text = _text(name, where)
    if not all(part.isidentifier() for part in text.split(".")):
        raise ValueError(
            f"{where} must be an identifier, or several with dots between, got {shown(name)}"
        )
    return text


def default_parameter_names(count: int) -> tuple[str, ...]:
    """Return names for parameters that have none: letters, if there are enough."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    if count <= len(letters):
        return tuple(letters[:count])
    return tuple(f"argument_{i + 1}" for i in range(count))


def _parameter_names(
    given: Sequence[str] | None, signature: Signature, where: str
) -> tuple[str, ...]:
    count = len(signature.parameters)
    if count > MAXIMUM_PARAMETERS:
        raise ValueError(
            f"{where.partition(':')[0]}: signature has {count} parameters, "
            f"at most {MAXIMUM_PARAMETERS} are supported"
        )
    if given is None:
        return default_parameter_names(count)
    names = items_of(given, where, "a sequence of str", count)
    if len(names) != count:
        raise ValueError(
            f"{where} must be {counted(count, 'name')} for {signature}, "
            f"got {number_of(names, count)}"
        )
    return tuple(names)


def check_parameter_names(names: tuple[str, ...], caller: str) -> None:
    """Raise TypeError or ValueError unless parameters of these names can be in one function."""
    from keyword import iskeyword

    where = f"{caller}: parameters"
    for i, name in enumerate(names):
        if not isinstance(name, str):
            raise TypeError(f"{where} must be str, got {type(name).__name__}")
        if not name.isidentifier() or iskeyword(name) or name in names[:i]:
            raise ValueError(f"{where} must be different identifiers, got {shown(name)}")
