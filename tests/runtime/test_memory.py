"""Linear memories: a stable reservation, its buffer in Python, page-exact limits, the limiter."""

from __future__ import annotations

import array
import copy
import ctypes
import gc
import io
import pickle
import sys
import weakref
from pathlib import Path

import numpy
import process_maps
import pytest

import asm_libcalls
from asm_libcalls import Instance, Memory
from asm_libcalls.emitter import libc
from asm_libcalls.emitter.libc import PAGE_SIZE
from asm_libcalls.vmcontext import MAXIMUM_PAGES, WASM_PAGE_SIZE

REFUSED = 0xFFFFFFFF


def grow_in_python(memory, delta):
    result = memory.grow(delta)
    return REFUSED if result == -1 else result


def grow_by_libcall(memory, delta):
    return asm_libcalls.memory32_grow(Instance([memory]), delta, 0)


def grow_by_fallback(memory, delta):
    return asm_libcalls.LIBCALLS["memory32_grow"].fallback(Instance([memory]), delta, 0)


def grow_imported_at_address(memory, delta):
    libcall = asm_libcalls.LIBCALLS["imported_memory32_grow"]
    instance = Instance(imports={"memories": [memory]})
    return asm_libcalls.catch_traps(libcall.address, libcall.signature)(instance.vmctx, delta, 0)


@pytest.fixture(
    params=[grow_in_python, grow_by_libcall, grow_by_fallback, grow_imported_at_address],
    ids=lambda function: function.__name__,
)
def grow(request):
    return request.param


def refuse(*arguments, **keywords):
    raise OSError(12, "refused for the test")


def test_no_address_space(monkeypatch):
    monkeypatch.setattr(libc, "mmap", refuse)
    with pytest.raises(MemoryError, match=r"no address space for a memory of 3 pages: .*refused"):
        Memory(1, 3)


def test_no_memory_at_first(monkeypatch):
    monkeypatch.setattr(libc, "mprotect", refuse)
    with pytest.raises(MemoryError, match="no memory for 1 pages"):
        Memory(1, 3)


def test_no_memory_to_grow(monkeypatch, grow):
    memory = Memory(1, 3, limiter=lambda *_: True)  # so that Python asks the system
    memoryview(memory)[0] = 7
    with monkeypatch.context() as context:
        context.setattr(libc, "mprotect", refuse)
        assert grow(memory, 1) == REFUSED
    assert (memory.size, len(memory), memoryview(memory)[0]) == (1, WASM_PAGE_SIZE, 7)
    assert memory.grow(1) == 1


class TestLimits:
    @pytest.mark.parametrize(
        ("minimum", "maximum", "delta", "result"),
        [
            (0, 0, 0, 0),
            (0, 0, 1, REFUSED),
            (0, 1, 1, 0),
            (1, 1, 0, 1),
            (1, 1, 1, REFUSED),
            (1, 2, 1, 1),
            (1, 2, 2, REFUSED),
            (3, 10, 7, 3),
            (3, 10, 8, REFUSED),
            (0, None, MAXIMUM_PAGES, 0),
            (0, None, MAXIMUM_PAGES + 1, REFUSED),
            (1, None, MAXIMUM_PAGES - 1, 1),
            (1, None, MAXIMUM_PAGES, REFUSED),
            (1, None, 0xFFFFFFFF, REFUSED),  # a 32-bit sum would be 0
            (2, 5, 0xFFFFFFFE, REFUSED),
            (0, MAXIMUM_PAGES, MAXIMUM_PAGES, 0),
        ],
    )
    def test_grow_is_page_exact(self, grow, minimum, maximum, delta, result):
        memory = Memory(minimum, maximum)
        assert grow(memory, delta) == result
        assert memory.size == (minimum if result == REFUSED else minimum + delta)
        assert len(memory) == memory.size * WASM_PAGE_SIZE

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ((2, 1), ValueError, "minimum must not be above maximum, got 2 > 1"),
            ((-1,), ValueError, r"minimum must be in 0 \.\. 65536 pages of 64 KiB, got -1"),
            ((65537,), ValueError, "minimum must be in 0"),
            ((0, 65537), ValueError, "maximum must be in 0"),
            (
                (1.0,),
                TypeError,
                r"minimum must be a number of pages of 64 KiB \(int\), got float 1.0",
            ),
            (("1",), TypeError, "minimum must be a number of pages"),
            ((None,), TypeError, "minimum must be a number of pages"),
            ((0, "1"), TypeError, "maximum must be a number of pages"),
        ],
    )
    def test_refuses(self, arguments, error, message):
        with pytest.raises(error, match=message):
            Memory(*arguments)

    def test_the_largest_memory(self):
        memory = Memory(MAXIMUM_PAGES)
        assert len(memory) == 1 << 32
        view = memoryview(memory)
        assert len(view) == 1 << 32
        view[-1] = 7
        instance = Instance([memory])
        asm_libcalls.memory_copy(instance, 0, 0, 0, 0xFFFFFFFF, 1)
        assert view[0] == 7
        with pytest.raises(asm_libcalls.HeapOutOfBounds):
            asm_libcalls.memory_fill(instance, 0, 0xFFFFFFFF, 1, 2)
        assert asm_libcalls.memory32_size(instance, 0) == MAXIMUM_PAGES
        assert asm_libcalls.memory32_grow(instance, 1, 0) == REFUSED
        assert asm_libcalls.memory32_grow(instance, 0, 0) == MAXIMUM_PAGES

    def test_grow_in_python_checks_its_argument(self):
        memory = Memory(1)
        for bad, error in ((-1, ValueError), (1 << 32, ValueError), ("1", TypeError)):
            with pytest.raises(error, match=r"Memory\.grow\(\): delta"):
                memory.grow(bad)
        assert memory.size == 1

    def test_the_system_refuses(self, child):
        """Where the system has no memory left, a grow is refused and nothing else happens."""
        child(
            """
            import resource
            from asm_libcalls import Instance, Memory, memory32_grow
            memory = Memory(1, 1000, limiter=lambda *_: True)  # so that Python asks the system
            instance = Instance([memory])
            from asm_libcalls.emitter import libc
            mprotect = libc.mprotect
            def refuse(address, length, protection):
                raise OSError(12, "Cannot allocate memory")
            libc.mprotect = refuse
            assert memory.grow(1) == -1
            assert memory32_grow(instance, 1, 0) == 0xFFFFFFFF
            assert memory.size == 1
            try:
                Memory(1)
            except MemoryError as error:
                assert "no memory for 1 pages" in str(error), error
            else:
                raise AssertionError
            libc.mprotect = mprotect
            assert memory.grow(1) == 1
            resource.setrlimit(resource.RLIMIT_AS, (2 << 30, -1))
            try:
                Memory(0)
            except MemoryError as error:
                assert "no address space for a memory of 65536 pages" in str(error), error
            else:
                raise AssertionError
            Memory(0, 100)
            """
        )


class TestReservation:
    def test_the_base_never_moves(self):
        memory = Memory(0)
        base = memory.base
        for _ in range(20):
            memory.grow(50)
            assert memory.base == base
        assert memory.size == 1000

    def test_behind_the_size_nothing_is_accessible(self):
        memory = Memory(3, 10)
        end = memory.base + 3 * WASM_PAGE_SIZE
        inside, outside = process_maps.mapping_of(end - 1), process_maps.mapping_of(end)
        assert inside.permissions == "rw-p"
        assert outside.permissions == "---p"
        assert outside.end >= memory.base + 10 * WASM_PAGE_SIZE + PAGE_SIZE
        memory.grow(7)
        behind = process_maps.mapping_of(memory.base + 10 * WASM_PAGE_SIZE)
        assert behind.permissions == "---p"

    @pytest.mark.parametrize("offset", ["3 * 65536", "10 * 65536 - 1", "10 * 65536"])
    @pytest.mark.parametrize("access", ["at.value", "at.value = 1"])
    def test_access_behind_the_size_is_a_fault(self, child, offset, access):
        child(
            f"""
            import ctypes
            from asm_libcalls import Memory
            memory = Memory(3, 10)
            at = ctypes.c_uint8.from_address(memory.base + {offset} - (1 if {offset} < 0 else 0))
            {access}
            """,
            exit_status=-11,
        )

    def test_fresh_pages_are_zero(self):
        memory = Memory(1, 3)
        memoryview(memory)[:] = b"\xff" * WASM_PAGE_SIZE
        memory.grow(2)
        view = numpy.frombuffer(memory, "u1")
        assert view[:WASM_PAGE_SIZE].min() == 255
        assert view[WASM_PAGE_SIZE:].max() == 0

    def test_no_memory_is_used_before_it_is_touched(self):
        before = resident_pages()
        memories = [Memory(MAXIMUM_PAGES) for _ in range(20)]
        assert (resident_pages() - before) * PAGE_SIZE < 32 << 20
        del memories

    def test_reservations_are_given_back(self):
        for _ in range(3):
            gc.collect()
            before = len(process_maps.mappings())
            memories = [Memory(1, 100) for _ in range(200)]
            assert len(process_maps.mappings()) > before + 200
            del memories
            assert len(process_maps.mappings()) < before + 50


def resident_pages() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1])


class TestBuffer:
    def test_is_a_writable_view_of_the_bytes(self):
        memory = Memory(1)
        view = memoryview(memory)
        assert (view.format, view.itemsize, view.nbytes, view.ndim, view.readonly) == (
            "B", 1, WASM_PAGE_SIZE, 1, False)  # fmt: skip
        assert view.c_contiguous
        view[3] = 200
        view[10:13] = b"abc"
        assert ctypes.string_at(memory.base + 3, 10) == b"\xc8\0\0\0\0\0\0abc"
        ctypes.memset(memory.base, 9, 2)
        assert view[:4].tolist() == [9, 9, 0, 200]

    def test_every_kind_of_reader_and_writer(self):
        memory = Memory(1)
        assert io.BytesIO(b"read into").readinto(memory) == 9
        assert bytes(memory)[:9] == b"read into"
        assert bytearray(memory)[:4] == b"read"
        stream = io.BytesIO()
        assert stream.write(memory) == WASM_PAGE_SIZE
        assert b"".join([memory, b"!"]).startswith(b"read into\0")
        assert array.array("B", bytes(memory))[1] == ord("e")
        assert (ctypes.c_char * 4).from_buffer(memory).raw == b"read"
        floats = numpy.frombuffer(memory, "<f8")
        floats[1] = 1.5
        assert memoryview(memory)[8:16] == b"\0\0\0\0\0\0\xf8?"
        assert memoryview(memory).cast("I").shape == (WASM_PAGE_SIZE // 4,)

    def test_numpy_shares_the_memory(self):
        memory = Memory(1, 4)
        view = numpy.frombuffer(memory, "u1")
        assert view.flags.writeable
        view[100] = 42
        instance = Instance([memory])
        asm_libcalls.memory_copy(instance, 0, 200, 0, 100, 1)
        assert view[200] == 42
        assert view.ctypes.data == memory.base

    def test_a_view_from_before_a_grow_stays_and_shares(self, grow):
        memory = Memory(1, 4)
        old = memoryview(memory)
        arrays = numpy.frombuffer(memory, "u1")
        assert grow(memory, 2) == 1
        new = memoryview(memory)
        assert (len(old), len(arrays), len(new)) == (65536, 65536, 3 * 65536)
        old[5] = 1
        new[6] = 2
        arrays[7] = 3
        assert [view[5:8].tolist() for view in (old, new, arrays)] == [[1, 2, 3]] * 3

    def test_views_outlive_close_and_the_memory_itself(self):
        memory = Memory(1)
        base = memory.base
        view, numbers = memoryview(memory), numpy.frombuffer(memory, "u1")
        part = view[10:20]
        view[10] = 7
        memory.close()
        del memory, view
        gc.collect()
        others = [Memory(1) for _ in range(50)]
        assert base not in {other.base for other in others}
        assert part[0] == 7
        numbers[11] = 8
        assert part[1] == 8
        mapping = process_maps.mapping_of(base)
        assert mapping.permissions == "rw-p"
        del part, numbers
        gc.collect()
        # Its address may be in another mapping now, but it is no memory any more.
        assert not any(m.start == base and m.permissions == "rw-p"
                       for m in process_maps.mappings())  # fmt: skip

    @pytest.mark.parametrize(
        "make",
        [
            memoryview,
            numpy.asarray,
            lambda memory: numpy.frombuffer(memory, "u1"),
            (ctypes.c_uint8 * 8).from_buffer,
        ],
    )
    @pytest.mark.parametrize("derived", [False, True])
    def test_a_view_alone_keeps_the_pages_of_a_closed_memory(self, make, derived):
        class Derived(Memory):
            pass

        memory = (Derived if derived else Memory)(1)
        base = memory.base
        view = make(memory)
        memory.close()
        assert process_maps.mapping_of(base).permissions == "rw-p"
        del memory
        gc.collect()
        assert process_maps.mapping_of(base).permissions == "rw-p"
        view[0] = 7
        assert view[0] == 7

    def test_empty(self):
        memory = Memory(0, 1)
        view = memoryview(memory)
        assert (view.nbytes, view.readonly) == (0, False)
        assert bytes(memory) == b""
        assert numpy.frombuffer(bytearray(memory), "u1").size == 0
        assert len(memory) == 0
        assert memory.grow(1) == 0
        assert len(memoryview(memory)) == 65536

    def test_a_view_does_not_keep_the_memory_object(self):
        memory = Memory(1)
        ref = weakref.ref(memory)
        view = memoryview(memory)
        del memory
        gc.collect()
        if sys.version_info < (3, 12):
            assert ref() is None  # from 3.12 on, a view is of the object that __buffer__ belongs to
        view[0] = 1

    def test_thousands_of_views_leave_nothing(self):
        memory = Memory(1)
        for _ in range(3):
            for _ in range(5000):
                memoryview(memory).release()
                numpy.frombuffer(memory, "u1")
            gc.collect()
        before = resident_pages()
        for _ in range(20000):
            memoryview(memory).release()
        assert (resident_pages() - before) * PAGE_SIZE < 1 << 20

    def test_a_subclass_is_a_buffer_too(self):
        class Named(Memory):
            pass

        memory = Named(1)
        memoryview(memory)[0] = 5
        assert bytes(memory)[0] == 5

    def test_closed(self):
        memory = Memory(1)
        memory.close()
        machine_code = asm_libcalls.backend_report()["x86_64"] == "loaded"
        if sys.version_info >= (3, 12) or machine_code:
            with pytest.raises(ValueError, match="the Memory is closed"):
                memoryview(memory)
            with pytest.raises(ValueError, match="the Memory is closed"):
                bytearray(memory)
        else:
            # A ctypes callback cannot raise.
            for use in (memoryview, bytearray, bytes):
                with pytest.raises(SystemError, match="without setting an exception"):
                    use(memory)
            with pytest.raises(TypeError):
                io.BytesIO(b"abc").readinto(memory)

    @pytest.mark.parametrize("make_copy", [copy.copy, copy.deepcopy, pickle.dumps])
    def test_is_not_copied(self, make_copy):
        """Two that own one reservation would unmap it twice."""
        memory = Memory(1)
        with pytest.raises(TypeError, match="Memory objects cannot be copied or pickled"):
            make_copy(memory)


class TestLimiter:
    def test_is_asked_before_each_grow(self, grow):
        asked = []

        def limiter(current, desired, maximum):
            asked.append((current, desired, maximum))
            return True

        memory = Memory(1, 5, limiter=limiter)
        assert asked == []
        assert grow(memory, 2) == 1
        assert asked == [(1, 3, 5)]

    def test_is_not_asked_beyond_the_maximum(self, grow):
        memory = Memory(1, 5, limiter=lambda *sizes: pytest.fail(f"asked for {sizes}"))
        assert grow(memory, 5) == REFUSED

    def test_no_maximum_is_none(self, grow):
        asked = []
        memory = Memory(0, limiter=lambda *sizes: asked.append(sizes) or True)
        assert grow(memory, 0) == 0
        assert asked == [(0, 0, None)]

    @pytest.mark.parametrize("answer", [False, None, 0, ""])
    def test_refuses(self, grow, answer):
        memory = Memory(1, 5, limiter=lambda *sizes: answer)
        assert grow(memory, 1) == REFUSED
        assert memory.size == 1

    @pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), MemoryError("no")])
    def test_what_it_raises_arrives_unchanged(self, grow, error):
        def limiter(*sizes):
            raise error

        memory = Memory(1, 5, limiter=limiter)
        with pytest.raises(type(error)) as caught:
            grow(memory, 1)
        assert caught.value is error
        assert memory.size == 1
        memory.limiter = None
        assert memory.grow(1) == 1

    def test_its_answer_may_raise(self, grow):
        class Undecided:
            def __bool__(self):
                raise OSError("undecided")

        memory = Memory(1, 5, limiter=lambda *sizes: Undecided())
        with pytest.raises(OSError, match="undecided"):
            grow(memory, 1)
        assert memory.size == 1

    def test_that_grows_itself_is_asked_again(self, grow):
        asked = []

        def limiter(current, desired, maximum):
            asked.append((current, desired))
            if len(asked) == 1:
                assert memory.grow(2) == 1
            return desired <= 4

        memory = Memory(1, 10, limiter=limiter)
        assert grow(memory, 1) == 3
        assert asked == [(1, 2), (1, 3), (3, 4)]
        assert memory.size == 4

    def test_that_grows_itself_can_refuse_what_comes_of_it(self, grow):
        def limiter(current, desired, maximum):
            if desired == 2:
                memory.grow(2)
            return desired <= 3

        memory = Memory(1, 10, limiter=limiter)
        assert grow(memory, 1) == REFUSED
        assert memory.size == 3

    def test_that_grows_to_the_maximum_itself(self, grow):
        def limiter(current, desired, maximum):
            if desired == 2:
                memory.grow(2)
            return True

        memory = Memory(1, 3, limiter=limiter)
        assert grow(memory, 1) == REFUSED
        assert memory.size == 3

    def test_that_never_ends_is_python_s_recursion(self, grow):
        memory = Memory(0, limiter=lambda *sizes: memory.grow(0) or True)
        with pytest.raises(RecursionError):
            grow(memory, 1)
        assert memory.size == 0

    def test_that_closes_the_memory(self, grow):
        memory = Memory(1, 5, limiter=lambda *sizes: memory.close() or True)
        with pytest.raises(ValueError, match="the Memory is closed"):
            grow(memory, 1)
        assert memory.closed

    def test_that_is_not_callable(self):
        with pytest.raises(TypeError, match="limiter must be callable, got 5"):
            Memory(1, limiter=5)


class TestClose:
    def test_is_idempotent_and_says_so_afterwards(self):
        memory = Memory(1)
        memory.close()
        memory.close()
        assert memory.closed
        assert repr(memory) == "<Memory closed>"
        for use in (
            lambda: memory.base,
            lambda: memory.grow(1),
            lambda: memory.definition_address,
            lambda: Instance([memory]),
            memory.share_definition,
        ):
            with pytest.raises(ValueError, match="closed"):
                use()

    def test_in_an_instance_its_definition_is_empty(self):
        memory = Memory(1)
        instance = Instance([memory])
        at = instance.vmctx + instance.offsets.vmctx_vmmemory_definition(0)
        memory.close()
        assert list((ctypes.c_uint64 * 2).from_address(at)) == [0, 0]

    def test_repr(self):
        assert repr(Memory(2, 5)) == "<Memory of 2 pages, maximum 5>"


# Bytes by offset.


def test_read_and_write():
    memory = Memory(1, maximum=2)
    memory.write(10, b"hello")
    memory.write(12, array.array("H", [0x5958]))
    memory.write(WASM_PAGE_SIZE - 2, memoryview(b"__ab")[2:])
    assert memory.read(9, 7) == b"\0heXYo\0"
    assert memory.read(WASM_PAGE_SIZE - 2, 2) == b"ab"
    assert memory.read(WASM_PAGE_SIZE, 0) == b""
    memory.write(WASM_PAGE_SIZE, b"")
    memory.write(20, numpy.arange(3, dtype="u4"))
    assert memory.read(20, 12) == bytes([0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0])
    memory.write(11, memoryview(memory)[10:15])  # overlapping, as memmove
    assert memory.read(10, 6) == b"hheXYo"
    memory.grow(1)
    memory.write(WASM_PAGE_SIZE - 1, b"xy")
    assert memory.read(WASM_PAGE_SIZE - 1, 2) == b"xy"


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((WASM_PAGE_SIZE, 1), IndexError, "out of bounds"),
        ((WASM_PAGE_SIZE + 1, 0), IndexError, "out of bounds"),
        ((2**64, 2**64), IndexError, "out of bounds"),
        ((-1, 1), ValueError, r"Memory\.\w+\(\): offset must not be negative, got -1"),
        ((1.0, 1), TypeError, r"Memory\.\w+\(\): offset must be an integer, got float"),
        ((0, -1), ValueError, r"Memory\.read\(\): size must not be negative, got -1"),
        ((0, None), TypeError, r"Memory\.read\(\): size must be an integer, got NoneType"),
    ],
)
def test_ranges_that_are_refused(arguments, error, words):
    memory = Memory(1)
    with pytest.raises(error, match=words):
        memory.read(*arguments)
    offset, size = arguments
    if size == 1 or size == 0:
        with pytest.raises(error, match=words):
            memory.write(offset, bytes(size))
    memory.write(WASM_PAGE_SIZE - 1, b"z")
    with pytest.raises(asm_libcalls.HeapOutOfBounds):
        memory.write(WASM_PAGE_SIZE - 1, b"ab")
    assert memory.read(WASM_PAGE_SIZE - 1, 1) == b"z"


@pytest.mark.parametrize(
    "data", ["text", 5, None, [1, 2], memoryview(b"abcd")[::2]], ids=lambda d: type(d).__name__
)
def test_data_that_is_no_buffer(data):
    with pytest.raises(TypeError, match=r"Memory\.write\(\): data must be a contiguous buffer"):
        Memory(1).write(0, data)


def test_a_closed_memory_is_neither_read_nor_written():
    memory = Memory(1)
    memory.close()
    with pytest.raises(ValueError, match="the Memory is closed"):
        memory.read(0, 1)
    with pytest.raises(ValueError, match="the Memory is closed"):
        memory.write(0, b"a")
