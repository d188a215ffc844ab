"""Stack maps: a registry finds those of a return address."""

from __future__ import annotations

import pytest
from in_threads import in_threads, switching_every

from asm_libcalls import (
    StackMapRegistry,
)


class TestRegistry:
    def test_looks_up_return_addresses(self):
        registry = StackMapRegistry()
        registry.register(1000, 100, {5: [-8, -16], 100: [-24], 60: ()})
        registry.register(1100, 10, {1: [8]})
        assert registry.lookup(1005) == (-8, -16)
        assert registry.lookup(1060) == ()
        assert registry.lookup(1100) == (-24,)  # the call was the last instruction of its range
        assert registry.lookup(1101) == (8,)
        for nothing in (0, 999, 1000, 1004, 1110, 1111, 5000):
            assert registry.lookup(nothing) is None
        assert "2 code ranges" in repr(registry)

    def test_unregister(self):
        registry = StackMapRegistry()
        registry.register(1000, 10, {10: [-8]})
        registry.register(2000, 10, {10: [-8]})
        registry.unregister(1000)
        assert registry.lookup(1010) is None
        assert registry.lookup(2010) == (-8,)
        registry.register(1000, 10, {10: [-16]})
        assert registry.lookup(1010) == (-16,)
        for start in (1001, 0, 3000):
            with pytest.raises(ValueError, match=f"no range of code begins at {start:#x}"):
                registry.unregister(start)

    @pytest.mark.parametrize(
        ("start", "size", "maps", "message"),
        [
            (0, 10, {}, r"start must be in 1 \.\. 2\*\*64-1, got 0"),
            (-5, 10, {}, r"start must be in 1 \.\. 2\*\*64-1, got -5"),
            (1000, 0, {}, r"size must be in 1 \.\. 2\*\*64-1, got 0"),
            (1000, 10, {0: []}, r"a key of maps must be in 1 \.\. 10, got 0"),
            (1000, 10, {11: []}, r"a key of maps must be in 1 \.\. 10, got 11"),
            (4999, 10, {}, "overlaps the one at 0x1388"),
            (5000, 1, {}, "overlaps the one at 0x1388"),
            (5001, 1, {}, "0x1389 is inside the range at 0x1388"),
            (5099, 100, {}, "inside the range at 0x1388"),
            (1, 10**6, {}, "overlaps the one at 0x1388"),
        ],
    )
    def test_refuses(self, start, size, maps, message):
        registry = StackMapRegistry()
        registry.register(5000, 100, {})
        with pytest.raises(ValueError, match=message):
            registry.register(start, size, maps)
        assert "1 code range>" in repr(registry)

    @pytest.mark.parametrize(
        ("start", "size", "maps", "message"),
        [
            ("a", 8, {}, r"start must be an address \(int\), got str 'a'"),
            (1000, None, {}, r"size must be a number of bytes \(int\), got NoneType None"),
            (1000, 8, None, "maps must be a mapping .*, got NoneType None"),
            (1000, 8, [(1, [-8])], "maps must be a mapping .*, got list"),
            (1000, 8, {"x": [-8]}, r"a key of maps must be .* \(int\), got str 'x'"),
            (1000, 8, {1.5: [-8]}, r"a key of maps must be .* \(int\), got float 1.5"),
            (1000, 8, {1: -8}, "the slots .* at 1 must be offsets in a sequence, got int -8"),
            (1000, 8, {1: ["x"]}, r"the slots .* at 1 must be offsets \(int\), got str 'x'"),
        ],
    )
    def test_refuses_other_types(self, start, size, maps, message):
        registry = StackMapRegistry()
        with pytest.raises(TypeError, match=rf"^register\(\): {message}"):
            registry.register(start, size, maps)
        assert "0 code ranges" in repr(registry)

    def test_neighbours_touch(self):
        registry = StackMapRegistry()
        for start in (1000, 1020, 1010, 990):
            registry.register(start, 10, {5: [start]})
        assert [registry.lookup(s + 5) for s in (990, 1000, 1010, 1020)] == [
            (990,), (1000,), (1010,), (1020,)]  # fmt: skip

    def test_many_threads_register_and_look_up(self):
        registry = StackMapRegistry()
        registry.register(1 << 40, 10, {5: [-8]})

        def work(number: int) -> None:
            for i in range(150):
                start = (i * 8 + number + 1) * 100
                registry.register(start, 100, {50: [start]})
                assert registry.lookup(start + 50) == (start,)
                assert registry.lookup((1 << 40) + 5) == (-8,)
                if i % 3 == 0:
                    registry.unregister(start)
                    assert registry.lookup(start + 50) is None

        with switching_every(1e-6):
            in_threads(work, range(8))
        assert "801 code ranges" in repr(registry)
