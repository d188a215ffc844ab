"""Where the frames cannot be walked to the canary, nothing is collected."""

from __future__ import annotations

import ctypes
import threading

import pytest
from gc_frames import HOLD, HOLD_MAPS, Host, Thing, borrowed, call_host, hold_body
from native_code import (
    CALL_SLOT,
    LEA,
    MOV,
    NativeCode,
    rbp,
    rsp,
)
from peachpy.x86_64 import POP, PUSH, RET

import asm_libcalls
from asm_libcalls import (
    catch_traps,
    gc,
)
from asm_libcalls.native.stack_walker import stack_frames

pytestmark = pytest.mark.usefixtures("machine_code")


class TestWalkThatFindsNoEntry:
    def check(self, instance, host, run):
        value, ref = borrowed(instance, Thing())
        seen = []

        def collect():
            assert stack_frames() is None
            gc(instance)
            seen.append(ref() is not None)

        host.do = collect
        run(value)
        assert set(seen) == {True}
        gc(instance)
        assert ref() is None

    @pytest.mark.parametrize(
        "garbage", [0, 1, 8, 0x1234, (1 << 64) - 8, 1 << 63, 0x7FFF_FFFF_F000], ids=hex
    )
    def test_garbage_in_rbp(self, instance, host, garbage):
        def lose_frame() -> None:
            PUSH(rbp)
            MOV(rbp, garbage)
            CALL_SLOT("host")
            POP(rbp)
            RET()

        code = NativeCode({"lose": lose_frame}, {"host": host.address})
        self.check(instance, host, lambda value: catch_traps(code["lose"], "()")())

    @pytest.mark.parametrize("distance", [0, 8, 1, 4, -8, -64])
    def test_rbp_that_points_into_the_stack_elsewhere(self, instance, host, distance):
        def lose_frame() -> None:
            PUSH(rbp)
            LEA(rbp, [rsp + distance])
            CALL_SLOT("host")
            POP(rbp)
            RET()

        code = NativeCode({"lose": lose_frame}, {"host": host.address})
        if distance == 0:
            # A real frame pointer, then: the walk is whole, and finds nothing.
            seen = []
            host.do = lambda: seen.append(list(stack_frames()))
            catch_traps(code["lose"], "()")()
            assert len(seen[0]) == 1
        else:
            self.check(instance, host, lambda value: catch_traps(code["lose"], "()")())

    def test_left_through_a_plain_ctypes_callback(self, instance, host, registry):
        callback = ctypes.CFUNCTYPE(None)(host.call)
        address = ctypes.cast(callback, ctypes.c_void_p).value
        code = NativeCode({"hold": hold_body}, {"host": address})
        code.register(registry, "hold", HOLD_MAPS)
        function = catch_traps(code["hold"], HOLD)
        self.check(instance, host, lambda value: function(instance.vmctx, value, 0))

    def test_left_through_a_plain_ctypes_callback_that_enters_again(self, instance, host, registry):
        """The inner activation has a departure, and the outer one's frames are unknown."""
        inner = NativeCode({"call": lambda: call_host("host")}, {"host": host.address})
        callback = ctypes.CFUNCTYPE(None)(catch_traps(inner["call"], "()"))
        address = ctypes.cast(callback, ctypes.c_void_p).value
        code = NativeCode({"hold": hold_body}, {"host": address})
        code.register(registry, "hold", HOLD_MAPS)
        function = catch_traps(code["hold"], HOLD)
        self.check(instance, host, lambda value: function(instance.vmctx, value, 0))

    @pytest.mark.parametrize("prototype", [ctypes.CFUNCTYPE, ctypes.PYFUNCTYPE])
    def test_entered_by_a_plain_ctypes_call(self, instance, host, hold, prototype):
        pointer = ctypes.c_size_t
        function = prototype(pointer, pointer, pointer, pointer)(hold["hold"])
        self.check(instance, host, lambda value: function(instance.vmctx, value, 0))

    def test_entered_by_a_plain_ctypes_call_inside_a_host_function(self, instance, host, hold):
        """The outer activation has left for Python; frames above that belong to no activation."""
        pointer = ctypes.c_size_t
        function = ctypes.CFUNCTYPE(pointer, pointer, pointer, pointer)(hold["hold"])
        outer = Host()
        code = NativeCode({"call": lambda: call_host("outer")}, {"outer": outer.address})

        def run(value):
            def in_host():
                function(instance.vmctx, value, 0)
                assert len(list(stack_frames())) == 1  # and after it, all is known again

            outer.do = in_host
            catch_traps(code["call"], "()")()

        self.check(instance, host, run)

    def test_entered_by_a_plain_ctypes_call_on_a_fresh_thread(self, instance, host, hold):
        pointer = ctypes.c_size_t
        function = ctypes.CFUNCTYPE(pointer, pointer, pointer, pointer)(hold["hold"])

        def run(value):
            thread = threading.Thread(target=function, args=(instance.vmctx, value, 0))
            thread.start()
            thread.join()

        self.check(instance, host, run)

    def test_entered_by_the_fallback(self, instance, fallback, host):
        """The frames of its ctypes calls and callbacks cannot be walked."""
        address, release = fallback.host_address(host.call, asm_libcalls.Signature("()"), False)
        code = NativeCode({"hold": hold_body}, {"host": address})
        signature = asm_libcalls.Signature(HOLD)
        self.check(
            instance,
            host,
            lambda value: fallback.entry.call(code["hold"], signature, [instance.vmctx, value, 0]),
        )
        # Also where a plain ctypes call entered.
        pointer = ctypes.c_size_t
        function = ctypes.CFUNCTYPE(pointer, pointer, pointer, pointer)(code["hold"])
        self.check(instance, host, lambda value: function(instance.vmctx, value, 0))
        release()

    def test_one_bad_activation_among_good_ones(self, instance, host, hold):
        def lose_frame() -> None:
            PUSH(rbp)
            MOV(rbp, 0x1234)
            CALL_SLOT("host")
            POP(rbp)
            RET()

        code = NativeCode({"lose": lose_frame}, {"host": host.address})
        seen = []

        def run(value):
            collect = host.do

            def in_bad():
                host.do = collect
                catch_traps(hold["hold"], HOLD)(instance.vmctx, value, 0)
                seen.append(1)

            host.do = in_bad
            catch_traps(code["lose"], "()")()

        self.check(instance, host, run)
        assert seen == [1]
