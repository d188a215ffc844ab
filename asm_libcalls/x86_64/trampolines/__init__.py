"""Trampolines in machine code: into native code, out of it by a trap, and from it into Python.

This file has the names of their routines and slots, because the modules that assemble them import
PeachPy.
"""

from __future__ import annotations

ENTER = "asm_libcalls_enter"
"""``int64_t enter(NativeCall *)``: make a call with the GIL released; return its status."""

ENTER_HOLDING_GIL = "asm_libcalls_enter_holding_gil"
"""``asm_libcalls_enter`` for short calls, and for callees that need the GIL."""

RAISE_TRAP = "asm_libcalls_raise_trap"
"""``void raise(uint32_t code)``: end the innermost activation with a trap; does not return."""

RAISE_DIVISION_BY_ZERO = "asm_libcalls_raise_division_by_zero"
"""``asm_libcalls_raise_trap`` for libcalls that divide by zero if nothing catches the trap."""

CALL_PYTHON = "asm_libcalls_call_python"
"""The body of the thunks; also the slot with its address in an image of thunks."""

MAKE_THREAD_RECORD = "asm_libcalls_make_thread_record"
"""``ThreadRecord *make()``: make this thread's record; NULL if there is no memory."""

FREE_THREAD_RECORD = "asm_libcalls_free_thread_record"
"""``void free(ThreadRecord *)``: the destructor of the pthread key."""

STACK_LIMIT = "asm_libcalls_stack_limit"
"""``size_t limit(ThreadRecord *)``: compute the stack limit of native code that was just entered on
this thread."""

CHECK_STACK = "asm_libcalls_check_stack"
"""``void check(vmctx, stack_pointer)``: called with a stack pointer below an instance's limit. It
traps below the activation's limit; else the instance's VMInterrupts get the activation's limit."""

FIND_DEPARTURE = "asm_libcalls_find_departure"
"""``Departure *find(ThreadRecord *, owner)``: find the newest departure of an owner, or NULL."""

TAKE_STORE = "asm_libcalls_take_store"
LEAVE_STORE = "asm_libcalls_leave_store"
STORE_DEPTH = "asm_libcalls_store_depth"
WAKE_STORE = "asm_libcalls_wake_store"
"""The routines of a store's lock; see ``store_locks.py``."""

STORE_LOOKS = 100
"""How often a thread looks again, with a ``pause`` each, before it waits: for some microseconds."""

TAKE_STEPS = "asm_libcalls_take_steps"
LEAVE_STEPS = "asm_libcalls_leave_steps"
END_STEP = "asm_libcalls_end_step"
STEPS_DEPTH = "asm_libcalls_steps_depth"
"""The routines of the lock of all steps; see ``step_lock.py``."""

PYTHON = "python."
"""Prefix of the slots with the addresses of Python functions, for libcalls that leave for them."""

IN_STEP = ".in_step"
"""Suffix of routines and stencils that take the lock of all steps, for builds without the GIL."""

STEP_LOCK = "step_lock"
"""The slot of the address of that lock."""

RECORD_READERS = "record_readers"
"""The slot of the address of the counts of threads that are reading a host call record; 0 with the
GIL, where nothing can be closed meanwhile."""

READER_COUNTS, READER_COUNT_SIZE = 64, 64
"""How many counts there are, and their distance in bytes, a cache line."""

ACTIVATIONS_KEY = "activations_key"
"""The slot of the pthread key whose values are thread records."""

GREENLET_GETCURRENT = "greenlet_getcurrent"
"""The slot of the C function that returns the running greenlet; 0 while that is unknown."""

READABLE_TYPES = "readable_types"
"""The slot of the address of the table of ``readable_types.py``; 0 until builtins are made."""

CALLABLES = ("raise_status", "note_exception", "raise_collected")
"""The slots of the Python functions that builtins call; 0 until builtins are made."""
