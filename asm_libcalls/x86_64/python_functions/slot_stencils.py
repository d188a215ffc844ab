"""Stencils of slot functions: CPython builtins that call compiled WebAssembly with slots.

C's calling convention has no place for several results, vectors, and the references of Python
objects. So such a function is called through an *entry*, ``entry(vmctx, code, slots, count)``. The
arguments are in slots of 8 bytes, and the call replaces them by the results
(:class:`~asm_libcalls.x86_64.python_functions.slot_shapes.SlotShape`). The C address in the
:class:`FunctionState` is that of the ``VMCallerCheckedAnyfunc``.

An externref argument gets a box (:mod:`asm_libcalls.runtime.externref_boxes`), of which the call
owns a count. Machine code takes one of its spare boxes, and puts the object into the box's cell, as
Python code does. With the GIL that is atomic. Without it, ``store_stencils.py`` makes a step of it.
Boxes are made after the other arguments were converted. However the call ends, it drops them.

The other stencils, and the frame, are those of ``function_stencils.py`` that hold buffers::

    [check_count] take enter_holding hold_nothing* (object_*_held (slot_* | push_*))*
    (object_*_held slot_externref)* [enter_store_of_function] call_slots result_*
    [make_tuple put_result*] [leave_store_of_function] drop_box* leave_slots
"""

from __future__ import annotations

from asm_libcalls.activation import NativeCall
from asm_libcalls.vmcontext import VMCallerCheckedAnyfunc, VMExternBox, VMSpareBoxes
from asm_libcalls.x86_64.python_functions.object_layouts import KNOWN_KEEPERS, FunctionState

_COUNT, _VALUE = VMExternBox.ref_count.offset, VMExternBox.value.offset
_BOXES = VMSpareBoxes.boxes.offset
_CELL, _KEY = VMExternBox.cell.offset, VMExternBox.key.offset
_INTEGERS = NativeCall.integers.offset


def _decrement(register: str) -> str:
    return f"mov rdi, {register}; call $Py_DecRef"


_KEEPS = "; ".join(
    f"cmp rcx, [rdx + {FunctionState.keepers.offset + 8 * i}]; jz .kept"
    for i in range(KNOWN_KEEPERS)
)

STENCILS = {
    # Arguments; push_* serve for i64 and floats.
    "slot_i32": "call $unbox; jc >slow; mov eax, eax; mov [rsp + offset], rax",
    "slot_v128": """
        call $unbox; jc >slow; mov [rsp + offset], rax; mov [rsp + offset_high], rdx
    """,
    # A function of an instance that is kept already. rdx: the function's state.
    "slot_funcref": f"""
        xor ecx, ecx; mov r10, $_Py_NoneStruct; cmp rax, r10; jz .store
        mov rcx, [rax + object_type]
        mov r10, $funcref_class; cmp rcx, r10; jz .known
        mov r10, $callable_class; cmp rcx, r10; jnz >slow
        .known:
        mov rcx, [rax + instance_member]; mov rdx, [rbx + module_state]
        test rcx, rcx; jz >slow
        {_KEEPS}
        jmp >slow
        .kept:
        mov rax, [rax + funcref_member]; test rax, rax; jz >slow
        call $unbox; jc >slow; mov rcx, rax
        .store:
        mov [rsp + offset], rcx
    """,
    "slot_externref": """
        xor ecx, ecx; mov r10, $_Py_NoneStruct; cmp rax, r10; jz .store
        mov rdi, rax; call $make_box
        cmp rax, 1; jz >slow
        mov [rsp + box], rax; mov rcx, rax
        .store:
        mov [rsp + offset], rcx
    """,

    # The call. rbx becomes the status, as in "call_entered".
    "call_slots": f"""
        mov rax, [rbx + module_state]; mov rax, [rax + {FunctionState.address.offset}]
        mov rcx, [rax + {VMCallerCheckedAnyfunc.vmctx.offset}]; mov [rsp + {_INTEGERS}], rcx
        mov rcx, [rax + {VMCallerCheckedAnyfunc.func_ptr.offset}]
        mov [rsp + {_INTEGERS + 8}], rcx
        lea rcx, [rsp + slots]; mov [rsp + {_INTEGERS + 16}], rcx
        mov qword[rsp + {_INTEGERS + 24}], slot_count
        mov rcx, $slots_entry; mov [rsp + {NativeCall.address.offset}], rcx
        mov qword[rsp + {NativeCall.stack_count.offset}], 0
        mov rdi, rsp; call $enter
        mov rbx, rax
        call $PyErr_Occurred; test rax, rax; jnz >exception
        test rbx, rbx; jnz >raise
    """,

    # Results: each becomes an object before anything is allocated that the garbage collector
    # tracks. (A collection may drop references that no frame holds.)
    "result_i32": "movsxd rdi, dword[rsp + offset]; call $PyLong_FromLongLong",
    "result_i64": "mov rdi, [rsp + offset]; call $PyLong_FromLongLong",
    "result_f32": """
        movss xmm0, [rsp + offset]; cvtss2sd xmm0, xmm0; call $PyFloat_FromDouble
    """,
    "result_f64": "movsd xmm0, [rsp + offset]; call $PyFloat_FromDouble",
    # Of 16 bytes, the lowest first. The fourth argument, for the older function: unsigned.
    "result_v128": """
        lea rdi, [rsp + offset]; mov esi, 16; mov edx, 1; xor ecx, ecx; call $from_bytes
    """,
    "result_externref": f"""
        mov rax, $_Py_NoneStruct; mov rcx, [rsp + offset]; test rcx, rcx; jz .null
        mov rax, [rcx + {_VALUE}]
        .null:
        mov r12, rax; mov rdi, rax; call $Py_IncRef; mov rax, r12
    """,
    "result_funcref": """
        mov rdi, [rsp + offset]; call $find_function
    """,
    "keep_result": "test rax, rax; jz >fail; mov [rsp + object], rax",
    "result_none": """
        mov rdi, $_Py_NoneStruct; mov [rsp + object], rdi; call $Py_IncRef
    """,
    "make_tuple": "mov edi, count; call $PyTuple_New; test rax, rax; jz >fail; mov rbx, rax",
    "put_result": """
        mov rdi, rbx; mov esi, number; mov rdx, [rsp + object]; mov qword[rsp + object], 0
        call $PyTuple_SetItem
    """,
    "keep_tuple": "mov [rsp + object], rbx",

    # Every way out.
    "drop_box": """
        mov rdi, [rsp + box]; test rdi, rdi; jz .none
        call $drop_box; test rax, rax; jz .none
        mov rdi, rax; call $Py_DecRef
        .none:
    """,
    "drop_object": "mov rdi, [rsp + object]; call $Py_DecRef",
    "leave_slots": "mov rax, [rsp + object]; add rsp, frame; pop r12; pop rbx; ret",

    # PyObject *find_function(anyfunc): the FuncRef in the dict of weak references to all.
    "find_function": f"""
        push rbx; push r12; push r13
        mov r13, $_Py_NoneStruct; test rdi, rdi; jz .null
        call $PyLong_FromUnsignedLongLong; test rax, rax; jz .done; mov rbx, rax
        mov rdi, $functions; mov rsi, rbx; call $PyObject_GetItem; test rax, rax; jz .unknown
        mov r12, rax; mov rdi, rax; call $PyObject_CallNoArgs; mov r13, rax
        {_decrement("r12")}
        mov rax, $_Py_NoneStruct; cmp r13, rax; jnz .found
        .unknown:
        call $PyErr_Clear
        mov rdi, $from_raw; mov rsi, rbx; xor edx, edx; xor eax, eax
        call $PyObject_CallFunctionObjArgs; mov r13, rax
        .found:
        {_decrement("rbx")}
        mov rax, r13; jmp .done
        .null:
        mov rdi, r13; call $Py_IncRef; mov rax, r13
        .done:
        pop r13; pop r12; pop rbx; ret
    """,

    # VMExternBox *make_box(PyObject *): a box with a count of the caller's. 1: Python must do it.
    "make_box": f"""
        push rbx; push r12; push rax
        mov rbx, rdi
        mov rdi, [rdi + object_type]; mov rsi, $externref_class; cmp rdi, rsi; jz .own
        call $PyType_IsSubtype; test eax, eax; jnz .own
        mov rcx, $spare_boxes; mov rax, [rcx]; test rax, rax; jz .python
        mov r12, [rcx + rax * 8 + {_BOXES - 8}]; dec qword[rcx]
        mov qword[r12 + {_COUNT}], 1; mov [r12 + {_VALUE}], rbx
        mov rcx, [r12 + {_CELL}]; mov [rcx + cell_contents], rbx
        mov rdi, rbx; call $Py_IncRef
        mov rax, r12; jmp .done
        .own:
        mov rax, [rbx + externref_member]; test rax, rax; jz .python
        call $unbox; jc .python; test rax, rax; jz .python
        inc qword[rax + {_COUNT}]; jmp .done
        .python:
        mov eax, 1
        .done:
        pop rcx; pop r12; pop rbx; ret
    """,

    # PyObject *drop_box(VMExternBox *): give a count back; with the last one, return the object,
    # which the caller owns then, else NULL.
    "drop_box_routine": f"""
        cmp qword[rdi + {_COUNT}], 1; jbe .last
        dec qword[rdi + {_COUNT}]; xor eax, eax; ret
        .last:
        mov rcx, [rdi + {_CELL}]; mov rax, [rcx + cell_contents]; test rax, rax; jz .none
        mov qword[rcx + cell_contents], 0
        mov qword[rdi + {_COUNT}], 0; mov qword[rdi + {_VALUE}], 0
        push rax; call $spare_box; pop rax
        .none:
        ret
    """,

    # void spare_box(VMExternBox *): keep a box for the next argument, or free it.
    "spare_box": f"""
        mov rcx, $spare_boxes; mov rax, [rcx]; cmp rax, {VMSpareBoxes.MOST}; jz .full
        mov [rcx + rax * 8 + {_BOXES}], rdi; inc qword[rcx]; ret
        .full:
        push rax
        mov rsi, [rdi + {_KEY}]; mov rdi, $free_boxes; call $PyList_Append
        test eax, eax; jz .freed
        call $PyErr_Clear
        .freed:
        pop rax; ret
    """,
}  # fmt: skip
