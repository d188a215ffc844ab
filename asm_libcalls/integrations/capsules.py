"""The numeric libcalls as PyCapsules, in the form in which Cython modules export C functions.

``__pyx_capi__`` has a capsule for each: its pointer is the C address, its name the C signature. So
SciPy's ``LowLevelCallable.from_cython``, ``numba.extending.get_cython_function_address`` and
Cython's ``cimport`` (by ``capsules.pxd``) use this module like a Cython module.

The capsules hold bare C functions: a divisor of 0 ends the process, as in C, unless native code was
entered through :func:`asm_libcalls.catch_traps`.
"""

from __future__ import annotations

import ctypes

from asm_libcalls.binding import default_binding
from asm_libcalls.integrations.numeric import NUMERIC
from asm_libcalls.signatures.arguments import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asm_libcalls.signatures import Signature

__all__ = ["c_signature", "capsule"]

_names: dict[str, bytes] = {}  # a capsule only borrows its name
_new = ctypes.pythonapi["PyCapsule_New"]
_new.restype = ctypes.py_object
_new.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)


def c_signature(signature: Signature) -> str:
    """Return a signature as Cython spells it, for example ``"double (double)"``."""
    result = "void" if signature.result is None else signature.result.c_name
    return f"{result} ({', '.join(t.c_name for t in signature.parameters)})"


def capsule(name: str) -> object:
    """Return a new capsule of a numeric libcall.

    Parameters
    ----------
    name : str
        For example ``"f64_ceil"``.

    Returns
    -------
    PyCapsule
        ``scipy.LowLevelCallable`` takes it as it is.

    Raises
    ------
    ValueError
        No numeric libcall has this name.
    """
    if name not in NUMERIC:
        raise ValueError(f"capsule(): name must be one of {', '.join(NUMERIC)}, got {shown(name)}")
    libcall = default_binding().libcalls[name]
    text = _names.setdefault(name, c_signature(libcall.signature).encode())
    made: object = _new(libcall.address, text, None)
    return made


__pyx_capi__ = {name: capsule(name) for name in NUMERIC}
