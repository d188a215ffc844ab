"""Stencils of native functions in builds without the GIL: stores, and steps that count references.

A builtin enters the store of an instance after its arguments were converted, and leaves it when the
result is there. Its slow path leaves the store first. If another thread is inside, the slow path is
taken, which waits. ``store_locks.py`` describes the protocol of the lock.

Steps of Python change the same data as the routines of boxes (``slot_stencils.py``). So each of
these is called by a routine that is a step (``step_lock.py``).
"""

from __future__ import annotations

from asm_libcalls.vmcontext import InstanceHeader, VMCallerCheckedAnyfunc
from asm_libcalls.x86_64.python_functions.object_layouts import FunctionState
from asm_libcalls.x86_64.trampolines import END_STEP, STEP_LOCK, STORE_LOOKS, TAKE_STEPS, WAKE_STORE
from asm_libcalls.x86_64.trampolines.lock_layouts import StoreLock

_STORE = InstanceHeader.offset_from_vmctx("store")
_OWNER, _DEPTH = StoreLock.owner.offset, StoreLock.depth.offset


def _enter(lock: str, busy: str) -> str:
    """Return code that enters the store of the vmctx in rdi; r11: the thread pointer."""
    return f"""
        mov {lock}, [rdi + {_STORE}]; load_thread r11; xor eax, eax
        lock; cmpxchg [{lock} + {_OWNER}], r11; jz .taken
        mov r10d, {STORE_LOOKS}
        .inside:; xor rax, r11; test rax, {~StoreLock.BITS}; jz .nested
        .look:; dec r10d; jz >{busy}
        pause; cmp qword[{lock} + {_OWNER}], 0; jnz .look
        xor eax, eax; lock; cmpxchg [{lock} + {_OWNER}], r11; jnz .inside
        .taken:; mov [{lock} + {StoreLock.entered.offset}], rsp
        .nested:; inc qword[{lock} + {_DEPTH}]
    """


def _leave(lock: str) -> str:
    """Return code that leaves a store; the code after it runs only if a thread must be woken."""
    return f"""
        dec qword[{lock} + {_DEPTH}]; jnz .left
        lock; and qword[{lock} + {_OWNER}], {StoreLock.BITS}; jz .left
    """


def _in_step(routine: str, busy: str) -> str:
    """Return a routine that calls another one, with its argument, in a step."""
    return f"""
        push rbx; mov rbx, rdi
        mov rdi, ${STEP_LOCK}; call ${TAKE_STEPS}; test rax, rax; jz .busy
        mov rdi, rbx; call ${routine}; mov rbx, rax
        mov rdi, ${STEP_LOCK}; call ${END_STEP}
        mov rax, rbx; pop rbx; ret
        .busy:
        {busy}
    """


_WAKE = f"mov rdi, rbx; call ${WAKE_STORE}"

STENCILS = {
    # Around a bare call. The instance was merged into another store, or closed, if its store has
    # changed meanwhile.
    "enter_store": f"""
        push rbx; push r11
        {_enter("rbx", "store_busy")}
        mov r11, [rsp]
        cmp rbx, [rdi + {_STORE}]; jnz >slow_inside
    """,
    "leave_store": f"""
        {_leave("rbx")}; mov [rsp], rax; {_WAKE}; mov rax, [rsp]
        .left:; pop r11; pop rbx
    """,
    "slow_inside": f"{_leave('rbx')}; {_WAKE}; .left:",
    "store_busy": "pop r11; pop rbx",

    # Of a slot function: its frame has the address of the lock, 0 outside.
    "enter_store_of_function": f"""
        mov rdi, [rbx + module_state]; mov rdi, [rdi + {FunctionState.address.offset}]
        mov rdi, [rdi + {VMCallerCheckedAnyfunc.vmctx.offset}]
        {_enter("rcx", "slow")}
        mov [rsp + store], rcx
        cmp rcx, [rdi + {_STORE}]; jnz >slow
    """,
    "leave_store_of_function": f"""
        mov rdi, [rsp + store]; test rdi, rdi; jz .left
        mov qword[rsp + store], 0
        {_leave("rdi")}
        call ${WAKE_STORE}
        .left:
    """,

    # Where another thread is in a step for long, Python makes the box.
    "make_box_in_step": _in_step("make_box", "mov eax, 1; pop rbx; ret"),
    # Or it drops the box: release_box(address).
    "drop_box_in_step": _in_step(
        "drop_box",
        """
        mov rdi, rbx; xor ebx, ebx; sub rsp, 16
        call $PyLong_FromUnsignedLongLong; test rax, rax; jz .failed
        mov [rsp], rax; mov rbx, rax
        mov rdi, $release_box; mov rsi, rsp; mov edx, 1; xor ecx, ecx
        call $PyObject_VectorcallDict
        test rax, rax; jz .raised
        mov rdi, rax; call $Py_DecRef; jmp .released
        .raised:
        xor edi, edi; call $PyErr_WriteUnraisable
        .released:
        mov rdi, rbx; call $Py_DecRef; jmp .done
        .failed:
        call $PyErr_Clear
        .done:
        xor eax, eax; add rsp, 16; pop rbx; ret
        """,
    ),
}  # fmt: skip
