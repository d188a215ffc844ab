"""Native code whose frames hold externrefs, and a host function in which a test collects them."""

from __future__ import annotations

import weakref

from native_code import (
    MOV,
    call,
    frame,
    rax,
    rbp,
    rdx,
    rsi,
    slot_at,
)

import asm_libcalls
from asm_libcalls import (
    HostFunction,
    Instance,
    VMExternRef,
)


class Thing:
    """Something with a weakref."""


class Host:
    """A host function for native code to call; what it does is set by the test."""

    def __init__(self, signature: str = "()") -> None:
        self.do = lambda *arguments: None
        self.function = HostFunction(self.call, signature)
        self.address = self.function.address

    def call(self, *arguments):
        return self.do(*arguments)


def borrowed(instance: Instance, value: object) -> tuple[int, weakref.ref[object]]:
    """Return a raw pointer as compiled code has it: the activations table alone owns it."""
    ref = VMExternRef(value)
    asm_libcalls.activations_table_insert_with_gc(instance, ref)
    address = ref.as_raw()
    ref.drop()
    return address, weakref.ref(value)


def hold_body() -> None:
    """Hold two references: (vmctx, a, b). Call the host with both, then with the first alone."""
    with frame(2):
        MOV([rbp + slot_at(0)], rsi)
        MOV([rbp + slot_at(1)], rdx)
        call("host", "both")
        call("host", "first")
        MOV(rax, [rbp + slot_at(0)])


HOLD = "(vmctx, pointer, pointer) -> pointer"
HOLD_MAPS = {"both": [0, 1], "first": [0]}


def call_host(symbol: str) -> None:
    with frame(0):
        call(symbol)
