"""Pages are never writable and executable at once, also where the system refuses a step."""

import itertools
import platform
import re
import sys

import pytest
from process_maps import mapping_of

# Every function call and return in libc.py and pages.py, while the package is imported, looks at
# the mappings: so each mmap and mprotect is seen before and after.
WATCH = """
    import sys
    from process_maps import offenders

    moments, found = [], []

    def look(frame, event, argument):
        path = frame.f_code.co_filename
        if event in ("call", "return") and path.endswith(("libc.py", "pages.py", "backend.py")):
            moments.append(frame.f_code.co_name)
            found.extend(offenders())

    before = offenders()
    sys.setprofile(look)
    import asm_libcalls
    sys.setprofile(None)
    for libcall in asm_libcalls.LIBCALLS.values():
        if libcall.backend == "x86_64":  # a callback of ctypes is where libffi wants it
            libcall.address, libcall.fallback.address
            assert asm_libcalls.f64_nearest(2.5) == 2.0
    after = offenders()

    assert before == found == after == [], (before, found, after)
    report = asm_libcalls.backend_report()
    if report["x86_64"] == "loaded":
        assert moments.count("mmap") >= 4 and moments.count("_load_anonymous") >= 4, moments
"""

# From here on the kernel refuses PROT_EXEC on memory that was not executable from its start.
DENY_WRITE_EXECUTE = """
    import ctypes, errno
    if ctypes.CDLL(None, use_errno=True).prctl(65, 1, 0, 0, 0):  # PR_SET_MDWE, Linux 6.3
        print("skip:", errno.errorcode[ctypes.get_errno()])
        raise SystemExit
"""

# From here on the kernel refuses every new executable mapping, by a seccomp filter of mmap and
# mprotect; what has to be mapped (extension modules) is imported before.
DENY_EXECUTE = """
    import ctypes, errno, platform, struct
    try:
        import peachpy.x86_64.function
    except ImportError:
        pass

    def instruction(code, if_true, if_false, k):
        return struct.pack("HBBI", code, if_true, if_false, k)

    program = b"".join([
        instruction(0x20, 0, 0, 0),  # load the number of the system call
        instruction(0x15, 1, 0, 9),  # mmap?
        instruction(0x15, 0, 3, 10),  # mprotect?
        instruction(0x20, 0, 0, 16 + 8 * 2),  # load the low half of its third argument
        instruction(0x45, 0, 1, 4),  # PROT_EXEC?
        instruction(0x06, 0, 0, 0x00050000 | errno.EPERM),
        instruction(0x06, 0, 0, 0x7FFF0000),  # allow
    ])
    program_buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(program_buffer))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_ulong]
    # PR_SET_NO_NEW_PRIVS, then PR_SET_SECCOMP with a filter.
    if prctl(38, 1, None, 0, 0) or prctl(22, 2, header, 0, 0):
        print("skip:", errno.errorcode[ctypes.get_errno()])
        raise SystemExit
"""

linux_on_x86_64 = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64",
    reason="the numbers of these system calls are those of Linux on x86-64",
)


def run_or_skip(child, what, code, **options):
    done = child(code, **options)
    if done.stdout.startswith("skip:"):
        pytest.skip(f"the kernel does not let us try {what} ({done.stdout[5:].strip()})")
    return done


def test_nothing_is_writable_and_executable(child):
    child(WATCH)


def test_nothing_is_in_this_process(machine_code):
    loaded = machine_code.loaded
    code = mapping_of(loaded.address)
    assert code.permissions == "r-xp"
    assert code.end >= loaded.address + len(loaded.image.code)
    for offset in loaded.image.slots.values():
        assert mapping_of(loaded.address + offset).permissions == "rw-p"


def test_every_routine_starts_on_16_bytes(machine_code):
    loaded = machine_code.loaded
    routines = {name: at for name, (at, _) in loaded.image.routines.items()}
    routines |= {name: stencil.offset for name, stencil in loaded.image.stencils.items()}
    assert len(routines) >= 15
    assert loaded.address % 4096 == 0
    assert {name: at for name, at in routines.items() if at % 16} == {}


def test_nothing_falls_through_from_one_routine_into_the_next(machine_code):
    """The bytes between routines are traps (int3)."""
    image = machine_code.loaded.image
    places = [*image.routines.values(), *((s.offset, s.size) for s in image.stencils.values())]
    spans = sorted((at, at + size) for at, size in places)
    for (_, end), (start, _) in itertools.pairwise(spans):
        assert end <= start
    assert set(image.code[spans[-1][1] :]) <= {0xCC}


@linux_on_x86_64
def test_memfd_where_written_memory_may_not_become_executable(child, machine_code):
    """Under PR_SET_MDWE everything is served too."""
    run_or_skip(
        child,
        "PR_SET_MDWE",
        DENY_WRITE_EXECUTE
        + """
    from process_maps import mapping_of, offenders
    import asm_libcalls

    report = asm_libcalls.backend_report()
    assert "(memfd; no anonymous memory: " in report["pages"], report["pages"]
    sdiv = asm_libcalls.LIBCALLS["i64_sdiv"]
    assert sdiv.backend == "x86_64"
    assert mapping_of(sdiv.address).permissions == "r-xp"
    assert "memfd:asm_libcalls" in mapping_of(sdiv.address).name
    assert offenders() == []
    assert asm_libcalls.f64_nearest(2.5) == 2.0 and asm_libcalls.i64_sdiv(-7, 2) == -3
    try:
        asm_libcalls.catch_traps(sdiv.address, sdiv.signature)(1, 0)
    except asm_libcalls.IntegerDivisionByZero:
        pass
    else:
        raise SystemExit("no trap")
""",
    )


@linux_on_x86_64
def test_fallback_where_no_memory_may_be_executable(child, machine_code):
    run_or_skip(
        child,
        "a seccomp filter",
        DENY_EXECUTE
        + """
    import asm_libcalls

    report = asm_libcalls.backend_report()
    assert "no executable memory" in report["x86_64"], report["x86_64"]
    assert "mprotect" in report["x86_64"] and "Operation not permitted" in report["x86_64"]
    assert {row["backend"] for row in report["libcalls"].values()} == {"fallback"}
    assert report["libcalls"]["f64_ceil"]["reason"] == report["x86_64"]
    assert asm_libcalls.f64_nearest(2.5) == 2.0 and asm_libcalls.i64_sdiv(-7, 2) == -3
    try:
        asm_libcalls.i64_sdiv(1, 0)
    except asm_libcalls.IntegerDivisionByZero:
        pass
    else:
        raise SystemExit("no trap")
    # Whether ctypes still has callbacks is libffi's affair; if not, the error must say so.
    try:
        assert asm_libcalls.LIBCALLS["i64_sdiv"].cfunc(-7, 2) == -3
    except MemoryError as error:
        assert "executable memory" in str(error), repr(error)
""",
    )


@linux_on_x86_64
def test_asking_for_machine_code_where_no_memory_may_be_executable(child, machine_code):
    run_or_skip(
        child,
        "a seccomp filter",
        DENY_EXECUTE
        + """
    try:
        import asm_libcalls
    except ImportError as error:
        assert type(error).__name__ == "BackendUnavailable"
        assert "ASM_LIBCALLS_BACKEND=x86_64" in str(error)
        assert "no executable memory" in str(error), error
    else:
        raise SystemExit("no error")
""",
        variables={"ASM_LIBCALLS_BACKEND": "x86_64"},
    )


REFUSE = """
    import os
    os.environ["ASM_LIBCALLS_BACKEND"] = "fallback"
    import errno, sys
    import asm_libcalls
    from asm_libcalls.emitter import libc
    from asm_libcalls.binding import Binding

    mmap, mprotect = libc.mmap, libc.mprotect
    refused = set(REFUSED)

    def refusing_mprotect(address, length, protection):
        if "mprotect" in refused and protection & libc.PROT_EXEC:
            raise OSError(errno.EACCES, "mprotect: refused by the test")
        mprotect(address, length, protection)

    def refusing_mmap(length, protection, **options):
        executable = protection & libc.PROT_EXEC
        if ("mmap" in refused and executable) or ("memory" in refused and not executable):
            raise OSError(errno.ENOMEM, "mmap: refused by the test")
        return mmap(length, protection, **options)

    def refusing_memfd_create(name, *flags):
        raise OSError(errno.ENOSYS, "memfd_create: refused by the test")

    libc.mprotect, libc.mmap = refusing_mprotect, refusing_mmap
    if "memfd" in refused:
        os.memfd_create = refusing_memfd_create
    if "no memfd" in refused:
        del os.memfd_create

    files = len(os.listdir("/proc/self/fd"))
    binding = Binding("auto")
    assert len(os.listdir("/proc/self/fd")) == files, "a file was left open"
    print(binding.x86_64.loaded.way if binding.x86_64 else binding.x86_64_reason)
    assert binding.libcalls["i64_sdiv"](-7, 2) == -3
    assert binding.libcalls["f64_nearest"](2.5) == 2.0
"""


@pytest.mark.parametrize(
    ("refused", "expected"),
    [
        ((), r"anonymous"),
        (("mprotect",), r"memfd"),
        (("mprotect", "mmap"), r"no executable memory: .*mprotect: refused.*mmap: refused"),
        (
            ("mprotect", "memfd"),
            r"no executable memory: .*mprotect: refused.*memfd_create: refused",
        ),
        (("mprotect", "no memfd"), r"no executable memory: .*mprotect: refused.*no memfd_create"),
        (("memory",), r"no executable memory: .*mmap: refused.*mmap: refused"),
    ],
    ids=lambda value: "+".join(value) or "nothing" if isinstance(value, tuple) else "",
)
def test_refusals(refused, expected, child, machine_code):
    """Each way to executable memory refused in turn, as a hardened system would."""
    done = child(REFUSE.replace("REFUSED", repr(refused)))
    assert re.fullmatch(expected + r".*\n", done.stdout), done.stdout
