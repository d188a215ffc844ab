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

    names = (
        reference_counts.COUNT_UP, reference_counts.COUNT_DOWN, reference_counts.COUNT_OVER,
    )  # fmt: skip
    loaded = load_routines(*reference_counts.routines(), *map(wrapper, names))
    signature = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)

    def run(name, cells, first=0, count=None, replaced=0):
        array = (ctypes.c_size_t * (len(cells) + 2))(1, *cells, 1)  # a 1 may not be followed
        function = signature(loaded.routine(f"carry_of.{name}"))
        start = ctypes.addressof(array) + 8
        count = len(cells) if count is None else count
        carry = function(start + 8 * first, count, start + 8 * replaced)
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


def overlaps():
    source = random.Random(6)
    for length in range(14):
        for letters in ("ab", "abc.", "aaaaaaab", "abcdefgh."):
            for distance in (length, -length, length + 3, 1, -1, 2, -3, 5, 0):
                yield "".join(source.choices(letters, k=length + abs(distance))), length, distance


@pytest.mark.parametrize(("text", "length", "distance"), sorted({*overlaps()}))
def test_counts_of_what_replaces_and_is_replaced(count, text, length, distance):
    boxes = {letter: ctypes.c_size_t(0) for letter in "abcdefgh"}
    cells = [ctypes.addressof(boxes[letter]) if letter != "." else 0 for letter in text]
    first, replaced = max(-distance, 0), max(distance, 0)
    gained, lost = text[first : first + length], text[replaced : replaced + length]
    change = {k: gained.count(k) - lost.count(k) for k in boxes}
    # As many owners as the array has of each; then one that would be left without; then plenty.
    for few in ("", *sorted({*text} - {"."}), *boxes):
        for letter, box in boxes.items():
            box.value = text.count(letter) if few in ("", letter) else 100
        before = {k: box.value for k, box in boxes.items()}
        after = {k: before[k] + change[k] for k in boxes}
        some_lost = any(after[k] == 0 for k in lost if k != ".")
        carry = count(reference_counts.COUNT_OVER, cells, first, length, replaced)
        assert carry == some_lost
        assert {k: box.value for k, box in boxes.items()} == (before if carry else after)
