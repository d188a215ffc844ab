"""The memory of Code: bounded, never writable and executable, and never reused after a fork."""

from __future__ import annotations

import ctypes
import itertools
import os
from pathlib import Path

import pytest
from process_maps import mapping_of

from asm_libcalls import Code, native_function
from asm_libcalls.emitter import code_arena, code_names, libc

pytestmark = pytest.mark.usefixtures("machine_code")

ADD = bytes.fromhex("8d0437 c3")  # lea eax, [rdi + rsi]; ret
SIGNATURE = "(i32, i32) -> i32"
INT3 = b"\xcc"


@pytest.fixture(autouse=True)
def _no_perf(monkeypatch):
    monkeypatch.setattr(code_names, "perf_is_wanted", bool)  # another test may have enabled it


def content(address: int, size: int = 4) -> bytes:
    return ctypes.string_at(int(address), size)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


# --- memory ---------------------------------------------------------------------------------------


def test_seventy_thousand_pieces(child):
    child("""
        import os
        from pathlib import Path
        from process_maps import mappings, offenders
        from asm_libcalls import Code, native_function

        def resident():
            return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

        def files():
            return len(os.listdir("/proc/self/fd"))

        def piece(i):
            # mov eax, i; ret
            return Code(b"\\xb8" + i.to_bytes(4, "little") + b"\\xc3", {f"f{i}": (0, 6)})

        with piece(1) as code:
            assert native_function(code.address, "() -> u32")() == 1
        before = resident(), len(mappings()), files()
        for i in range(70_000):
            with piece(i) as code:
                if i % 100 == 0:
                    assert native_function(code.address, "() -> u32")() == i
        after = resident(), len(mappings()), files()
        assert after[0] - before[0] < 4 << 20, (before, after)
        assert after[1:] == before[1:], (before, after)

        after = []
        for _ in range(2):  # the first round leaves CPython's allocator with pages in parts
            window = []  # many at a time, freed in another order
            for i in range(35_000):
                window.append(piece(i))
                if len(window) == 3000:
                    assert native_function(window[i % 3000].address, "() -> u32")() > 0
                    for code in window[::2]:
                        code.close()
                    del window[::2]
            used = {address // 4096 for address in (int(code.address) for code in window)}
            assert len(used) < len(window), "pieces share pages"
            assert len(mappings()) < before[1] + 12 and files() < before[2] + 12
            window.clear()
            after.append(resident())
        assert after[1] - after[0] < 2 << 20, (before, after)
        after = resident(), len(mappings()), files()
        assert after[0] - before[0] < 12 << 20, (before, after)
        assert after[1] <= before[1] + 1 and after[2] <= before[2] + 1, (before, after)
        assert offenders() == []
        """)


def test_what_is_freed_is_used_again_in_any_order(random_cases):
    made: dict[Code, bytes] = {}
    for _ in range(2000):
        if made and random_cases.random() < 0.5:
            code = random_cases.choice(list(made))
            code.close()
            del made[code]
        else:
            code = Code(random_cases.randbytes(random_cases.choice((1, 64, 65, 300, 5000))))
            made[code] = content(code.address, code.size)
    spans = sorted((int(code.address), code.address + code.size) for code in made)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    assert all(content(code.address, code.size) == bytes_ for code, bytes_ in made.items())
    for region in code_arena._regions:
        ranges = region.free
        assert ranges == sorted(ranges)
        assert all(a[1] < b[0] for a, b in itertools.pairwise(ranges))  # joined
        for at, end in ranges:
            assert set(content(region.address + at, end - at)) == {0xCC}


def test_no_mapping_is_ever_writable_and_executable(child):
    """Looked at before and after every call of libc.py, and of the arena."""
    child("""
        import gc, sys
        from process_maps import mapping_of, offenders
        from asm_libcalls import Code, native_function
        from asm_libcalls.emitter import code_arena

        moments, found = [], []

        def look(frame, event, argument):
            path = frame.f_code.co_filename
            if event in ("call", "return") and path.endswith(("libc.py", "code_arena.py")):
                moments.append(frame.f_code.co_name)
                found.extend(offenders())

        sys.setprofile(look)
        made = [Code(bytes.fromhex("8d0437c3").ljust(5000, b"\\xcc")) for _ in range(40)]
        permissions = {mapping_of(code.address).permissions for code in made}
        for code in made:
            assert native_function(code.address, "(i32, i32) -> i32")(40, 2) == 42
            code.close()
        gc.collect()  # without the GIL, functions are freed by the collector
        sys.setprofile(None)
        assert permissions == {"r-xs"}, permissions
        assert found == []
        assert {"mmap", "_write", "_free", "unmap"} <= {*moments}, {*moments}
        """)


WITHOUT_MEMFD = """
    import errno, gc, seccomp
    from asm_libcalls import Code, catch_traps, native_function
    from process_maps import mapping_of, mappings, offenders

    # The first piece has a region; the next ones are too large for it, or find no other.
    kept = [Code(b"\\xcc" * 65536)]
    native_function(kept[0].address, "(i32, i32) -> i32")
    try:
        seccomp.refuse(errno.EPERM, REFUSED)
    except OSError as error:
        print("skip:", error)
        raise SystemExit
    made = [Code(bytes.fromhex("8d0437c3").ljust(size, b"\\xcc")) for size in (4, 70_000, 3 << 20)]
    for code in made:
        address = int(code.address)
        assert mapping_of(address).permissions == "r-xp"
        assert address % 4096 == 0
        function = native_function(code.address, "(i32, i32) -> i32")
        assert function(40, 2) == 42
        code.close()
        try:
            function(1, 2)
        except ValueError:
            pass
        else:
            raise SystemExit("no error")
    assert offenders() == []
    del made, code, function
    gc.collect()
    assert not any(m.start <= address < m.end for m in mappings())
"""


@pytest.mark.parametrize(
    "refused",
    ['"memfd_create"', '"mmap", protection=seccomp.PROT_EXEC'],
    ids=["memfd_create", "PROT_EXEC of mmap"],
)
def test_where_no_memfd_is_to_be_had_each_piece_has_its_own_pages(child, refused):
    done = child(WITHOUT_MEMFD.replace("REFUSED", refused))
    if done.stdout.startswith("skip:"):
        pytest.skip(f"the kernel does not let us try: {done.stdout}")


def test_where_no_memory_may_be_executable_it_says_so(child):
    done = child("""
        import errno, seccomp
        import asm_libcalls
        from asm_libcalls import Code
        from asm_libcalls.emitter import code_arena
        try:
            seccomp.refuse(errno.EPERM, "mmap", "mprotect", protection=seccomp.PROT_EXEC)
        except OSError as error:
            print("skip:", error)
            raise SystemExit
        try:
            Code(b"\\xc3")
        except OSError as error:
            print(error)
        """)
    if done.stdout.startswith("skip:"):
        pytest.skip(f"the kernel does not let us try: {done.stdout}")
    assert "refuses executable memory" in done.stdout


def test_where_written_memory_may_not_become_executable(child):
    done = child("""
        import ctypes
        if ctypes.CDLL(None, use_errno=True).prctl(65, 1, 0, 0, 0):  # PR_SET_MDWE, Linux 6.3
            print("skip")
            raise SystemExit
        from asm_libcalls import Code, native_function
        from process_maps import mapping_of, offenders
        for _ in range(2):
            with Code(bytes.fromhex("8d0437c3")) as code:
                assert mapping_of(code.address).permissions == "r-xs"
                assert native_function(code.address, "(i32, i32) -> i32")(40, 2) == 42
        assert offenders() == []
        """)
    if done.stdout.startswith("skip"):
        pytest.skip("the kernel has no PR_SET_MDWE")


def test_another_file_under_the_descriptor_is_not_written(child, tmp_path):
    """Programs that become daemons close all descriptors, and open files of their own."""
    path = tmp_path / "of others"
    child(f"""
        import os
        from asm_libcalls import Code, native_function
        from asm_libcalls.emitter import code_arena

        def make():
            return Code(bytes.fromhex("8d0437c3"))

        old = make(), make()
        (region,) = code_arena._regions
        file = region.file
        other = os.open({str(path)!r}, os.O_RDWR | os.O_CREAT)
        os.write(other, b"kept" * 100)
        os.dup2(other, file)
        old[0].close()
        new = make()
        os.close(other)
        assert region.file == -1
        assert os.pread(file, 1000, 0) == b"kept" * 100
        for code in (old[1], new):
            assert native_function(code.address, "(i32, i32) -> i32")(40, 2) == 42
        os.closerange(3, 1000)
        last = make()
        for code in (old[1], new, last):
            assert native_function(code.address, "(i32, i32) -> i32")(40, 2) == 42
            code.close()
        """)


def test_a_limit_of_the_size_of_files(child):
    """RLIMIT_FSIZE holds for memfds too."""
    child("""
        import resource
        from asm_libcalls import Code, native_function
        old = Code(bytes.fromhex("8d0437c3"))
        native_function(old.address, "(i32, i32) -> i32")
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        for _ in range(3):
            new = Code(bytes.fromhex("8d0437c3"))
            for code in (old, new):
                assert native_function(code.address, "(i32, i32) -> i32")(40, 2) == 42
        old.close()
        """)


# --- forks ----------------------------------------------------------------------------------------

FORKS = """
    import ctypes, gc, os, sys, warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    import forks
    from asm_libcalls import Code, native_function
    from asm_libcalls.emitter import code_arena
    from forks import check
    from process_maps import mappings

    def constant(number):
        return Code(b"\\xb8" + number.to_bytes(4, "little") + b"\\xc3")  # mov eax, number; ret

    def value(code):
        return native_function(code.address, "() -> u32")()

    def in_child(function):
        return forks.in_child(function, lambda: FORK)

    class Baton:
        # Lets two processes do things one after the other.
        def __init__(self):
            self.pipe = os.pipe()
        def give(self):
            os.write(self.pipe[1], b"x")
        def take(self):
            assert os.read(self.pipe[0], 1) == b"x"

    old = [constant(i) for i in range(100)]
    assert value(old[7]) == 7
    places = {int(code.address) for code in old}
    free = code_arena._regions[0]
"""


@pytest.mark.parametrize("way", ["os.fork()", "ctypes.PyDLL(None).fork()"], ids=["Python", "C"])
@pytest.mark.parametrize("first", ["parent", "child"])
def test_space_of_before_a_fork_is_never_written_again(child, way, first):
    child(
        FORKS.replace("FORK", way)
        + f"""
    first = {first!r}
    done, seen = Baton(), Baton()

    def free_and_reuse(base):
        # In this process the old pieces go, and many new ones come.
        for code in old[1::2]:
            code.close()
        new = [constant(base + i) for i in range(3000)]
        region = (free.address, free.address + free.size)
        for code in new:
            assert not region[0] <= code.address < region[1]
        assert [value(code) for code in new[::100]] == list(range(base, base + 3000, 100))
        return new

    def check_old():
        for i, code in enumerate(old):
            assert value(code) == i

    def in_parent():
        if first == "parent":
            kept = free_and_reuse(10_000)
            done.give()
            seen.take()
        else:
            done.take()
            check_old()
            seen.give()

    def in_fork():
        if first == "parent":
            done.take()
            check_old()
            kept = free_and_reuse(20_000)
            seen.give()
        else:
            kept = free_and_reuse(20_000)
            done.give()
            seen.take()
        for code in old[::2]:
            code.close()
        gc.collect()
        assert not any(m.start <= free.address < m.end for m in mappings()), "it is not used"

    process = in_child(in_fork)
    in_parent()
    check(process)
    if first == "child":
        check_old()
    count = len(mappings())
    for code in old:
        code.close()
    gc.collect()
    assert len(mappings()) < count
    assert value(constant(5)) == 5
"""
    )


def test_many_forks(child):
    """Each leaves a region behind, as long as it has pieces."""
    child(
        FORKS.replace("FORK", "os.fork()")
        + """
    before = len(mappings()), len(os.listdir("/proc/self/fd"))
    for i in range(60):
        check(in_child(lambda: old.append(constant(i))))
        with constant(i) as code:
            assert value(code) == i
    kept = []
    for i in range(60):
        check(in_child(lambda: [code.close() for code in [*kept, *old]]))
        kept.append(constant(i))
    assert [value(code) for code in kept] == list(range(60))
    assert len(os.listdir("/proc/self/fd")) <= before[1] + 1
    for code in kept:
        code.close()
    gc.collect()
    assert len(mappings()) <= before[0] + 2
"""
    )


def test_forks_while_other_threads_load_and_free(child):
    child(
        FORKS.replace("FORK", "os.fork()")
        + """
    import threading, time
    stop = threading.Event()
    errors = []

    def work(number):
        i = 0
        try:
            while not stop.is_set():
                i = (i + 1) % 1000
                with constant(number * 1000 + i) as code:
                    assert value(code) == number * 1000 + i
        except BaseException as error:
            errors.append(error)
            raise

    def in_fork():
        for i in range(200):
            with constant(50_000 + i) as code:
                assert value(code) == 50_000 + i
        for i, code in enumerate(old):
            assert value(code) == i

    value(old[1])
    sys.setswitchinterval(1e-5)
    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads: thread.start()
    for _ in range(15):
        check(in_child(in_fork))
    stop.set()
    for thread in threads: thread.join()
    assert not errors, errors
"""
    )


# --- the arena's own parts ------------------------------------------------------------------------


def test_a_write_that_does_not_arrive_is_noticed(monkeypatch):
    """The region is given up, and its pieces stay."""
    old = Code(ADD)
    monkeypatch.setattr(os, "pwrite", lambda file, content, at: len(content))
    new = Code(ADD)
    assert mapping_of(new.address).permissions == "r-xp"  # on its own pages
    monkeypatch.undo()
    for code in (old, new):
        assert native_function(code.address, SIGNATURE)(40, 2) == 42
        code.close()
    assert mapping_of(Code(ADD).address) is not None


def test_forks_are_counted_where_the_c_library_tells_nobody(child):
    child("""
        import os
        from asm_libcalls.emitter import code_arena, libc

        real = libc.prototype
        def prototype(name, *types):
            if "atfork" in name:
                raise AttributeError(name)
            return real(name, *types)
        libc.prototype = prototype
        assert code_arena._forks() == 0
        for i in range(3):
            process = os.fork()
            if not process:
                os._exit(code_arena._forks())
            assert os.waitpid(process, 0)[1] >> 8 == code_arena._forks() == i + 1
        """)


def test_a_region_that_cannot_be_mapped_leaves_no_file_open(monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError("refused by the test")

    def mmap_no_file(length, protection, **options):
        return (refuse if protection & libc.PROT_EXEC else mmap)(length, protection, **options)

    mmap = libc.mmap
    files = open_files()
    monkeypatch.setattr(libc, "mmap", mmap_no_file)
    code = Code(ADD.ljust(2 << 20, INT3))
    assert mapping_of(code.address).permissions == "r-xp"
    assert open_files() == files
    monkeypatch.setattr(libc, "mprotect", refuse)
    with pytest.raises(OSError, match="refuses executable memory"):
        Code(ADD.ljust(2 << 20, INT3))
    assert open_files() == files
