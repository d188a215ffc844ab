"""Stencils of native functions: CPython builtins that call any C address.

CPython calls the builtin like any other: ``(self, argument)`` with METH_O, ``(self, arguments,
count)`` with METH_FASTCALL, ``(self, NULL)`` with METH_NOARGS. `self` is a module object of the
function's own, whose C state is a :class:`FunctionState`: the C address, and the Python function of
the slow path. So the code depends only on the *shape* of a function. All functions of one shape
share one routine, composed from the stencils below and never freed.

The fast path takes what ``unboxing.py`` reads: floats, ints, NumPy scalars, addresses. A libcall on
an instance takes the Instance, whose member has the vmctx. A reference is None, or a VMExternRef or
FuncRef with such a member. Reading them runs no Python code. The fast path is of two kinds:

*bare*
    for leaf routines. On the stack: ``self``; r11: the arguments; rax: the current object; then
    the C argument registers, which no stencil in between clobbers. A straight-line routine of the
    image is copied in place of the call, or a stencil is used (``memories.py`` has some)::

        enter_bare take
        (object_* (integer_K | float64_K | float32_K | vmctx | reference_K))* [guard]
        (call_bare | routine | stencil) leave_bare box_*

    In a build without the GIL, a stencil on a vmctx runs between enter_store and leave_store
    (``store_stencils.py``).

*entered*
    for callees that may trap, raise, or release the GIL: arguments go into a ``NativeCall`` on the
    stack, and ``asm_libcalls_enter`` (or its variant that holds the GIL) makes the call. rbx:
    ``self``, later the status::

        enter_entered take (object_* spill_*)* call_entered leave_entered box_*

If that refuses an argument, a function with pointers to memory tries again, *holding* buffers:
those of exact bytes, bytearrays and memoryviews, of ``held_buffers.known_types``, whose slots run
no Python code, and the pages of a Memory. Its frame has a ``Py_buffer`` for each such pointer. Each
buffer, and the count of each externref, is released on every way out. r12: the arguments::

    enter_holding hold_nothing* (object_*_held (hold_* | spill_* | push_*))* call_entered
    release* leave_holding box_*

All other arguments take the slow path: ``PyObject_VectorcallDict(slow, arguments, count, NULL)``
with the original arguments.

Source: CPython ``Include/methodobject.h``; System V ABI for AMD64, 3.2.3.
"""

from __future__ import annotations

from collections.abc import Iterator

from asm_libcalls.calling_convention import FLOAT_REGISTERS, INTEGER_REGISTERS
from asm_libcalls.activation import NativeCall
from asm_libcalls.emitter.image import Routine
from asm_libcalls.signatures.held_buffers import ANY_CONTIGUOUS, WRITABLE, known_types
from asm_libcalls.vmcontext import VMExternData
from asm_libcalls.x86_64.python_functions import KNOWN_TYPES, STENCIL_PREFIX, readable_types
from asm_libcalls.x86_64.python_functions.function_shapes import STACK_ARGUMENTS
from asm_libcalls.x86_64.python_functions.object_layouts import FunctionState


def routines() -> Iterator[Routine]:
    """Assemble the common routines of all native functions, and the stencils."""
    from asm_libcalls.x86_64.assembler.text import body
    from asm_libcalls.x86_64.python_functions import object_routines, slot_stencils, store_stencils
    from asm_libcalls.x86_64.stencils.assembling import assemble

    yield from object_routines.routines()
    texts = {**_STENCILS, **slot_stencils.STENCILS, **store_stencils.STENCILS}
    for name, text in texts.items():
        yield assemble(STENCIL_PREFIX + name, body(text), has_effects=True)


_UNBOX = "call $unbox; jc >slow"
# Offsets in objects are holes; ``ObjectLayout.holes`` has their numbers.
_SPILL_INTEGER = f"{_UNBOX}; mov [rsp + offset], rax"
_SPILL_FLOAT = "movups [rsp + offset], xmm0"


def _load_float(register: str, bits: int) -> str:
    """Return code that loads a float, an int of some 60 bits or a NumPy scalar from rax."""
    return f"""
        mov r10, $PyFloat_Type; cmp [rax + object_type], r10; jnz .other
        movsd {register}, [rax + float_value]; jmp .loaded
        .other:
        {_UNBOX}; movq {register}, rax
        .loaded:
        {f"cvtsd2ss {register}, {register}" if bits == 32 else ""}
    """


_DIVISOR_NOT_ZERO = "test rsi, rsi; jz >slow"
# rdi: the slow path's function, or `raise_collected` after the garbage collector has cleared it.
_LOAD_SLOW = f"""
    mov rdi, [rdi + module_state]; mov rdi, [rdi + {FunctionState.slow.offset}]
    mov rax, $raise_collected; test rdi, rdi; cmovz rdi, rax
    xor ecx, ecx
"""

_STENCILS = {
    "check_count": "cmp rdx, count; jnz >call_slow",
    "enter_bare": "push rdi",  # self, and 16-byte alignment for calls
    "enter_entered": "push rbx; sub rsp, frame; mov rbx, rdi",

    # Arguments.
    "take": "mov r11, rsi",
    "object_one": "mov rax, r11",
    "object_vector": "mov rax, [r11 + argument]",
    "spill_integer": _SPILL_INTEGER,
    # All 16 bytes of a float register are stored, because the entry loads 16: a load wider than the
    # store before it stalls (Intel optimization manual, "Store Forwarding").
    "spill_float64": f"{_load_float('xmm0', 64)}; {_SPILL_FLOAT}",
    "spill_float32": f"{_load_float('xmm0', 32)}; {_SPILL_FLOAT}",
    # On the stack a float has 8 bytes.
    "push_integer": _SPILL_INTEGER,
    "push_float64": f"{_load_float('xmm0', 64)}; movsd [rsp + offset], xmm0",
    "push_float32": f"{_load_float('xmm0', 32)}; movsd [rsp + offset], xmm0",
    # The address in a member of an Instance, which is 0 or unset if the instance is closed.
    "vmctx": f"""
        mov r10, $vmctx_class; cmp [rax + object_type], r10; jnz >slow
        mov rax, [rax + vmctx_member]; test rax, rax; jz >slow
        {_UNBOX}; test rax, rax; jz >slow
        mov rdi, rax
    """,

    # Guards, which keep a bare call from trapping.
    "divisor_not_zero": _DIVISOR_NOT_ZERO,
    # The negation overflows for -2**63 alone.
    "quotient_fits": f"""
        {_DIVISOR_NOT_ZERO}
        cmp rsi, -1; jne .fits; mov rax, rdi; neg rax; jo >slow
        .fits:
    """,

    # The call. al is the number of vector registers in use, for variadic callees.
    "call_bare": f"""
        mov r10, [rsp]; mov r10, [r10 + module_state]; mov eax, 8
        call [r10 + {FunctionState.address.offset}]
    """,
    "leave_bare": "add rsp, 8",
    # rbx becomes the status; the caller keeps self alive. The error indicator is set if a callback
    # or a C function of CPython has raised.
    "call_entered": f"""
        mov rax, [rbx + module_state]; mov rax, [rax + {FunctionState.address.offset}]
        mov [rsp + {NativeCall.address.offset}], rax
        lea rax, [rsp + {STACK_ARGUMENTS}]; mov [rsp + {NativeCall.stack_arguments.offset}], rax
        mov qword[rsp + {NativeCall.stack_count.offset}], stack_count
        mov rdi, rsp; call $enter
        mov rbx, rax
        call $PyErr_Occurred; test rax, rax; jnz >exception
        test rbx, rbx; jnz >raise
    """,
    "leave_entered": f"""
        mov rax, [rsp + {NativeCall.integer_results.offset}]
        movsd xmm0, [rsp + {NativeCall.float_result.offset}]
        add rsp, frame; pop rbx
    """,
    # Call raise_status(status), which returns NULL, and continue with "fail".
    "raise": """
        mov rdi, rbx; call $PyLong_FromUnsignedLongLong; test rax, rax; jz .no_memory
        mov rbx, rax; mov [rsp], rax
        mov rdi, $raise_status; mov rsi, rsp; mov edx, 1; xor ecx, ecx
        call $PyObject_VectorcallDict
        mov rdi, rbx; call $Py_DecRef
        .no_memory:
    """,
    # The error of a host function, which has unwound native frames, gets a note of those by
    # note_exception(error). Its three parts are where the call's registers were.
    "exception": """
        test rbx, rbx; jz >fail
        mov rdi, rsp; lea rsi, [rsp + 8]; lea rdx, [rsp + 16]; call $PyErr_Fetch
        mov rdi, rsp; lea rsi, [rsp + 8]; lea rdx, [rsp + 16]; call $PyErr_NormalizeException
        mov rdi, $note_exception; lea rsi, [rsp + 8]; mov edx, 1; xor ecx, ecx
        call $PyObject_VectorcallDict; test rax, rax; jz .failed
        mov rdi, rax; call $Py_DecRef; jmp .restore
        .failed:
        call $PyErr_Clear
        .restore:
        mov rdi, [rsp]; mov rsi, [rsp + 8]; mov rdx, [rsp + 16]; call $PyErr_Restore
        jmp >fail
    """,
    "fail": "xor eax, eax; add rsp, frame; pop rbx; ret",

    # The result.
    "box_none_counted": "mov rax, $_Py_NoneStruct; inc qword[rax]; ret",
    "box_none_immortal": "mov rax, $_Py_NoneStruct; ret",
    "box_i8": "movsx rdi, al; jmp $PyLong_FromLongLong",
    "box_u8": "movzx edi, al; jmp $PyLong_FromLongLong",
    "box_i16": "movsx rdi, ax; jmp $PyLong_FromLongLong",
    "box_u16": "movzx edi, ax; jmp $PyLong_FromLongLong",
    "box_bool": "movzx edi, al; jmp $PyBool_FromLong",
    "box_i32": "movsxd rdi, eax; jmp $PyLong_FromLongLong",
    "box_u32": "mov edi, eax; jmp $PyLong_FromLongLong",
    "box_i64": "mov rdi, rax; jmp $PyLong_FromLongLong",
    "box_u64": "mov rdi, rax; jmp $PyLong_FromUnsignedLongLong",
    "box_f32": "cvtss2sd xmm0, xmm0; jmp $PyFloat_FromDouble",
    "box_f64": "jmp $PyFloat_FromDouble",

    # Objects of the classes of callable_types.py: the function that a member of the object has.
    "forward": """
        mov rdi, [rdi + function_member]; mov rax, $raise_collected; test rdi, rdi; cmovz rdi, rax
        jmp $PyObject_Vectorcall
    """,

    # The slow path. One argument becomes an array of one; its push also aligns the stack.
    "slow_bare": "pop rdi",
    "slow_entered": "mov rdi, rbx; add rsp, frame; pop rbx",
    "slow_vector": "mov rsi, r11; mov edx, count",
    "call_slow": f"{_LOAD_SLOW}; jmp $PyObject_VectorcallDict",
    "call_slow_one": f"""
        {_LOAD_SLOW}; push r11; mov rsi, rsp; mov edx, 1
        call $PyObject_VectorcallDict
        pop rdx; ret
    """,
}  # fmt: skip

# A reference: its address, and in r9 its kind, 0 for null. The address in the member is 0 or unset
# once the reference is dropped.
_REFERENCE = f"""
    mov r10, $_Py_NoneStruct; xor r9d, r9d; cmp rax, r10; jz .null
    mov r10, $externref_class; mov r9d, externref_kind; cmp [rax + object_type], r10; jnz .other
    mov rax, [rax + externref_member]; jmp .unbox
    .other:
    mov r10, $funcref_class; mov r9d, funcref_kind; cmp [rax + object_type], r10; jnz >slow
    mov rax, [rax + funcref_member]
    .unbox:
    test rax, rax; jz >slow
    {_UNBOX}; test rax, rax; jz >slow; jmp .done
    .null:
    xor eax, eax
    .done:
"""

# Holding buffers. `exporter` is the buffer's member that is null if nothing is held.
_STENCILS |= {
    "enter_holding": "push rbx; push r12; sub rsp, frame; mov rbx, rdi; mov r12, r11",
    "hold_nothing": "mov qword[rsp + exporter], 0",
    "object_one_held": "mov rax, r12",
    "object_vector_held": "mov rax, [r12 + argument]",
    "release": """
        cmp qword[rsp + exporter], 0; jz .nothing
        lea rdi, [rsp + buffer]; call $PyBuffer_Release
        .nothing:
    """,
    "leave_holding": f"""
        mov rax, [rsp + {NativeCall.integer_results.offset}]
        movsd xmm0, [rsp + {NativeCall.float_result.offset}]
        add rsp, frame; pop r12; pop rbx
    """,
    # An exporter may run code when it is released: the error waits where the call's registers were.
    "keep_error": "mov rdi, rsp; lea rsi, [rsp + 8]; lea rdx, [rsp + 16]; call $PyErr_Fetch",
    "fail_holding": """
        mov rdi, [rsp]; mov rsi, [rsp + 8]; mov rdx, [rsp + 16]; call $PyErr_Restore
        xor eax, eax; add rsp, frame; pop r12; pop rbx; ret
    """,
    # The slow path refuses the argument again, with its name.
    "clear_error": "call $PyErr_Clear",
    "slow_holding": "mov rdi, rbx; mov r11, r12; add rsp, frame; pop r12; pop rbx",
}
# An object that a member keeps while it is open, and its address: a buffer whose exporter it is.
_KEPT = f"""
    call $find_type; jc >slow; cmp r10b, {readable_types.KEPT_MEMBER}; jnz >slow
    mov rdx, r10; shr r10, {readable_types.OFFSET_SHIFT}; movzx ecx, r10w
    mov rdi, [rax + rcx * 1]; test rdi, rdi; jz >slow
    mov rcx, $_Py_NoneStruct; cmp rdi, rcx; jz >slow
    shr rdx, {readable_types.PLACE_SHIFT}; movzx ecx, dl
    mov rax, [rdi + rcx * 8]; test rax, rax; jz >slow
    call $unbox; jc >slow
    mov [rsp + buffer], rax; mov [rsp + exporter], rdi; call $Py_IncRef
    mov rax, [rsp + buffer]; jmp .known
"""
_COUNT = VMExternData.ref_count.offset
_STENCILS["release_box"] = f"""
    mov rdi, [rsp + box]; test rdi, rdi; jz .nothing
    cmp qword[rdi + {_COUNT}], 1; jbe .last; dec qword[rdi + {_COUNT}]; jmp .nothing
    .last:
    call $PyLong_FromUnsignedLongLong; test rax, rax; jz .failed
    mov [rsp + box], rax
    mov rdi, ${readable_types.RELEASE}; mov rdi, [rdi]; lea rsi, [rsp + box]
    mov edx, 1; xor ecx, ecx; call $PyObject_VectorcallDict
    mov rdi, rax; test rax, rax; jz .raised; call $Py_DecRef; jmp .released
    .raised:
    xor edi, edi; call $PyErr_WriteUnraisable
    .released:
    mov rdi, [rsp + box]; call $Py_DecRef; jmp .nothing
    .failed:
    call $PyErr_Clear
    .nothing:
"""
for _source, _reload in (("one", "mov rax, r12"), ("vector", "mov rax, [r12 + argument]")):
    for _access, _flags, _types in (
        ("readable", ANY_CONTIGUOUS, ("PyBytes_Type", "PyByteArray_Type", "PyMemoryView_Type")),
        ("writable", ANY_CONTIGUOUS | WRITABLE, ("PyByteArray_Type", "PyMemoryView_Type")),
    ):
        _is_known = "; ".join(
            f"cmp r10, [rcx + {8 * _i}]; jz .hold" for _i in range(len(known_types))
        )
        _is_one = "; ".join(f"mov rcx, ${_type}; cmp r10, rcx; jz .hold" for _type in _types)
        _STENCILS[f"hold_{_access}_{_source}"] = f"""
            call $unbox; jnc .known
            {_reload}; mov r10, [rax + object_type]
            {_is_one}
            mov rcx, ${KNOWN_TYPES}
            {_is_known}
            {_KEPT}
            .hold:
            mov rdi, rax; lea rsi, [rsp + buffer]; mov edx, {_flags}
            call $PyObject_GetBuffer; test eax, eax; jnz >slow
            mov rax, [rsp + buffer]
            .known:
            mov [rsp + offset], rax
        """
    _STENCILS[f"hold_externref_{_source}"] = f"""
        call $unbox; jnc .known
        {_reload}
        call $find_type; jc >slow; cmp r10b, {readable_types.EXTERNREF_MEMBER}; jnz >slow
        shr r10, {readable_types.OFFSET_SHIFT}; movzx ecx, r10w
        mov rax, [rax + rcx * 1]; test rax, rax; jz >slow
        call $unbox_64; jc >slow; test rax, rax; jz >slow
        inc qword[rax + {_COUNT}]; mov [rsp + box], rax
        .known:
        mov [rsp + offset], rax
    """

for _i, _register in enumerate(INTEGER_REGISTERS):
    _STENCILS[f"integer_{_i}"] = f"{_UNBOX}; mov {_register}, rax"
    _STENCILS[f"reference_{_i}"] = f"{_REFERENCE} mov {_register}, rax"
for _i, _register in enumerate(FLOAT_REGISTERS):
    _STENCILS[f"float64_{_i}"] = _load_float(_register, 64)
    _STENCILS[f"float32_{_i}"] = _load_float(_register, 32)
