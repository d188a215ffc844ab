"""The routines that count the owners of all references in an array, against a model."""

import ctypes
import random

import pytest

pytest.importorskip("peachpy", reason="the routines are assembled by PeachPy")

from asm_libcalls.x86_64 import reference_counts

PATTERNS = (
    *("", "a", ".", "ab", "aaa", "aaaa", "....", "aaab", "aaba", "abaa", "baaa", "aabb", "abab"),
    *("aaaaa", "aaaaaaaa", "aaaabbbb", "a.a.", ".aaaa", "aaaa.", "aaaab", "abcdaaaa", "aaaa" * 5),
)


@pytest.fixture(scope="module")
def count(load_routines):
    """Calls a routine with an array of addresses; returns whether CF was set."""
    from peachpy.x86_64 import RET, SBB, eax

    from asm_libcalls.x86_64.assembler import sequence
    from asm_libcalls.x86_64.assembler.instructions import CALL_ROUTINE

    def wrapper(name):
        def body():
            CALL_ROUTINE(name)
            SBB(eax, eax)
            RET()

        return sequence(f"carry_of.{name}", body)

    names = (reference_counts.COUNT_UP, reference_counts.COUNT_DOWN)
    loaded = load_routines(*reference_counts.routines(), *map(wrapper, names))
    signature = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_size_t)

    def run(name, cells):
        array = (ctypes.c_size_t * (len(cells) + 2))(1, *cells, 1)  # a 1 may not be followed
        function = signature(loaded.routine(f"carry_of.{name}"))
        carry = function(ctypes.addressof(array) + 8, len(cells))
        assert list(array) == [1, *cells, 1]
        return carry != 0

    return run


def cases():
    yield from PATTERNS
    source = random.Random(5)
    for length in range(30):
        for letters in ("ab", "abc.", "aaaaaaab", "abcdefgh."):
            yield "".join(source.choices(letters, k=length))


@pytest.mark.parametrize("text", sorted({*cases()}))
def test_counts(count, text):
    boxes = {letter: ctypes.c_size_t(100) for letter in "abcdefgh"}
    cells = [ctypes.addressof(boxes[letter]) if letter != "." else 0 for letter in text]
    count(reference_counts.COUNT_UP, cells)
    assert {k: box.value for k, box in boxes.items()} == {k: 100 + text.count(k) for k in boxes}
    assert not count(reference_counts.COUNT_DOWN, cells)
    assert {box.value for box in boxes.values()} == {100}
    for few in {*text} - {"."}:  # as many owners as the array has, then one more
        boxes[few].value = text.count(few)
        assert count(reference_counts.COUNT_DOWN, cells)
        expected = {k: text.count(k) if k == few else 100 for k in boxes}
        assert {k: box.value for k, box in boxes.items()} == expected
        boxes[few].value += 1
        assert not count(reference_counts.COUNT_DOWN, cells)
        assert {k: box.value + text.count(k) for k, box in boxes.items()} == {
            k: expected[k] + (k == few) for k in boxes
        }
        for box in boxes.values():
            box.value = 100
