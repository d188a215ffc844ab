"""``native_function``: makes Python builtins of C functions.

:func:`native_function` takes a C address and its signature, and makes an object of CPython's
builtin function type. Its machine code checks and unboxes the arguments (ints, floats, NumPy
scalars, memory), calls the address and boxes the result. Other arguments (any other number, an
integer out of range, a wrong count) go to a Python function that converts them or raises.

Where that is not possible (another CPU, PyPy, a CPython whose objects have an unknown layout), it
makes a Python function of the same name, signature and behaviour, which is slower.
:func:`why_not_builtin` returns the reason.
"""

from __future__ import annotations

import sys

from asm_libcalls.calling_convention import assign
from asm_libcalls.native import process
from asm_libcalls.native.specification import Specification, check_parameter_names, checked_name
from asm_libcalls.signatures import Signature
from asm_libcalls.x86_64.python_functions import EVERYTHING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from asm_libcalls.emitter.pages import LoadedImage
    from asm_libcalls.native.process import NativeInterface


def native_function(
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
) -> Any:
    """Make a Python function of a C function.

    Parameters
    ----------
    address : int
        A C function that follows the platform's ABI. An address of a :class:`Code` keeps the code.
        Any other address must stay callable as long as the result (a callable that keeps its code
        alive can be given as `slow`). This is not checked: another address is undefined behaviour,
        as in C.
    signature : str
        Its signature, for example ``"(f64, i32) -> f64"``.
    name : str, optional
        The function's name: an identifier, or several with dots between them.
    doc : str, optional
        Its docstring.
    module : str, optional
        The ``__module__`` of the result, by which it is pickled. By default the caller's module.
    parameters : sequence of str, optional
        The parameters' names, for errors and for :func:`inspect.signature`; by default ``a``,
        ``b``, ``c``, ...
    slow : callable, optional
        Called with the original arguments if machine code does not convert one of them, or their
        count is wrong. It converts ints (bools and other subclasses too) that fit, exact floats and
        NumPy scalars. For a pointer it also converts None, ctypes pointers, and memory: of bytes
        (if const), bytearrays, memoryviews, NumPy arrays, and objects of the types that were passed
        last. The default converts all that :class:`Signature` describes, or raises with the names
        of function and argument.
    catch : bool, optional
        Whether the callee may trap, or call back into Python. A trap is raised as :class:`Trap`, a
        callback's exception unchanged. False saves some 20 ns, and is only for callees that do
        neither: a trap would find no entry to unwind to.
    release_gil : bool, optional
        Whether other Python threads run during the call: for callees that take long or wait.
        Functions of CPython's API need the GIL.

    Returns
    -------
    builtin_function_or_method
        Takes positional arguments only. Integers may be given in the signed or the unsigned
        reading of their type; ``u32`` and ``u64`` results are read as unsigned.
        :class:`Signature` says what a pointer may be given as; a result is an address.

    Raises
    ------
    TypeError, ValueError, OverflowError
        An argument is not as described.
    RuntimeError
        Native code cannot be called at all: ctypes cannot be imported here.

    Notes
    -----
    A function that is dropped is freed, also as part of a reference cycle. Its machine code,
    some 200 bytes for each different list of types (and 300 for each pointer), is shared and stays.

    Examples
    --------
    >>> import ctypes
    >>> libm = ctypes.CDLL("libm.so.6")
    >>> address = ctypes.cast(libm.ldexp, ctypes.c_void_p).value
    >>> ldexp = native_function(address, "(f64, i32) -> f64", name="ldexp", parameters=("x", "i"))
    >>> ldexp(0.75, 4)
    12.0
    """
    if module is None:
        module = sys._getframe(1).f_globals.get("__name__")
    specification = Specification(
        address,
        signature,
        name=name,
        doc=doc,
        module=module,
        parameters=parameters,
        slow=slow,
        catch=catch,
        release_gil=release_gil,
    )
    if parameters is not None:
        check_parameter_names(specification.parameters, "native_function()")
    checked_name(specification.name, "native_function(): name")
    return native_functions([specification])[0]


def native_functions(
    specifications: Iterable[Specification], interface: NativeInterface | None = None
) -> list[Any]:
    """Make many functions at once: their code shares pages."""
    interface = interface or process.interface
    specifications = list(specifications)
    maker = interface.function_maker()
    # The latter in a finalizer at interpreter exit, where nothing can be imported.
    if isinstance(maker, str) or sys.is_finalizing():
        return [_python_function(s, _slow(s, interface)) for s in specifications]
    from asm_libcalls.x86_64.python_functions.function_objects import Unsupported, full_text
    from asm_libcalls.x86_64.python_functions.function_shapes import Shape
    from asm_libcalls.x86_64.trampolines import ENTER, ENTER_HOLDING_GIL

    def shape_of(s: Specification) -> Shape | None:
        """Return the shape of a function; None if it is made in Python."""
        enter, guard = "", s.guard
        if not _is_unboxed(s.signature):
            if not s.signature.parameters:  # a builtin without arguments has no slow path
                return None
            guard = EVERYTHING
        elif s.guard or s.inline:
            pass
        elif s.release_gil:
            enter = ENTER
        elif s.catch or assign(s.signature.parameters).stack:
            enter = ENTER_HOLDING_GIL
        return Shape.of(s.signature, enter, guard, s.inline, s.vmctx_of, s.references)

    shapes = [(s, shape_of(s)) for s in specifications]
    try:
        machine = [(s, shape) for s, shape in shapes if shape is not None]
        closable = [shape.leaving_all() for s, shape in machine if s.owner is not None]
        maker.prepare([shape for _, shape in machine] + closable)
    except (OSError, Unsupported):  # a process may be denied new executable pages at any time
        return [_python_function(s, _slow(s, interface)) for s in specifications]
    made = []
    for s, shape in shapes:
        slow = _slow(s, interface)
        if shape is None:
            made.append(_python_function(s, slow))
            continue
        function = maker.objects.make(
            maker.code_of(shape),
            s.address,
            len(s.parameters),
            slow,
            s.name,
            full_text(s.name, s.parameters, s.doc),
            s.module,
            permanent=s.permanent,
        )
        if s.owner is not None:
            # Its slow path then says that the code is closed.
            s.owner.code.when_closed(function.__self__, _leaving(maker, shape))
        made.append(function)
    return made


def routine_functions(loaded: LoadedImage, signatures: dict[str, str], module: str) -> list[Any]:
    """Make functions of an image's routines, which neither trap nor call Python, by their names.

    The functions are never freed.
    """
    return native_functions(
        Specification(
            loaded.routine(name), signature, name=name, module=module, catch=False, permanent=True
        )
        for name, signature in signatures.items()
    )


def _leaving(maker: Any, shape: Any) -> Callable[[Any], None]:
    """Return a function that lets a function of a shape, given its self, take its slow path."""
    return lambda owner: maker.objects.set_code(owner, maker.code_of(shape.leaving_all()))


def _is_unboxed(signature: Signature) -> bool:
    """Return whether builtins convert these types from and to Python objects in machine code."""
    types = [t for t in (*signature.parameters, signature.result) if t]
    return all(t.bits <= 64 and not (t.kind == "float" and t.bits < 32) for t in types)


def why_not_builtin(interface: NativeInterface | None = None) -> str:
    """Return why :func:`native_function` makes no builtins here; "" where it does."""
    maker = (interface or process.interface).function_maker()
    refusal: str = maker if isinstance(maker, str) else maker.refusal()
    return refusal


def _slow(specification: Specification, interface: NativeInterface) -> Callable[..., Any]:
    """Return the function of the slow path; of code that can be closed, it keeps the memory."""
    slow, owner = _slow_of_open(specification, interface), specification.owner
    if owner is None:
        return slow
    where = specification.callee().title

    def slow_if_open(*arguments: Any) -> Any:
        owner.check_open(where)
        return slow(*arguments)

    slow_if_open.__name__ = slow_if_open.__qualname__ = specification.name
    return slow_if_open


def _slow_of_open(specification: Specification, interface: NativeInterface) -> Callable[..., Any]:
    if specification.slow is not None:
        return specification.slow
    entry = interface.entry if specification.release_gil else None
    if entry is None:
        entry = interface.entry_holding_gil()  # raises where ctypes is missing
    # No reference to the function object here: it is freed when its last user drops it.
    name, address, signature = specification.name, specification.address, specification.signature
    callee = specification.callee()

    def call(patterns: list[int]) -> int:
        return entry.call(address, signature, patterns)

    def call_patterns(*arguments: Any) -> Any:
        return signature.call(call, arguments, callee)

    call_patterns.__name__ = call_patterns.__qualname__ = name
    maker = interface.function_maker()
    if isinstance(maker, str) or sys.is_finalizing() or not _is_unboxed(signature):
        return call_patterns
    made: list[Any] = []

    def slow(*arguments: Any) -> Any:
        held: list[Any] = []
        try:
            converted = signature.to_exact(arguments, callee, held)
            if not made:
                # Another function of the same code, which costs less than the entry from Python.
                exact = object.__new__(Specification)
                exact.__dict__.update(vars(specification))
                exact.slow = call_patterns
                made.append(native_functions([exact], interface)[0])
            return made[0](*converted)
        finally:
            if held:
                from asm_libcalls.signatures import pointers

                pointers.release(held)

    slow.__name__ = slow.__qualname__ = name
    return slow


def _python_function(specification: Specification, slow: Callable[..., Any]) -> Any:
    """Make a Python function with the builtin's name, signature and docstring."""
    # Compiled, as in namedtuple, so that it has the signature and refuses keywords.
    parameters = ", ".join(specification.parameters)
    source = f"lambda {parameters}{', /' if parameters else ''}: __slow__({parameters})"
    function = eval(source, {"__slow__": slow, "__builtins__": {}})
    function.__name__ = function.__qualname__ = specification.name
    function.__module__ = specification.module
    function.__doc__ = specification.doc
    return function
