"""System calls and allocations are refused while the package works.

It still works, or says why it does not (MemoryError, OSError, -1); objects from before are
unchanged; no page is ever writable and executable; nothing crashes. Refusals while the package is
*imported* are tested in emitter/test_memory_protection.py (pages),
x86_64/test_code_cache.py (files) and test_binding.py (PeachPy, pthreads, ctypes).
"""

import importlib.util
import json
import platform
import sys

import pytest

from asm_libcalls.steps import HAS_GIL

pytestmark = [
    pytest.mark.usefixtures("machine_code"),
    pytest.mark.skipif(
        sys.platform != "linux" or platform.machine() != "x86_64",
        reason="the numbers of these system calls are those of Linux on x86-64",
    ),
]

PRELUDE = """
    import errno, json, resource, sys
    from operations import Operations

    unraisable = []
    sys.unraisablehook = unraisable.append  # a function of Python needs memory for its frame
    operations = Operations()
    for operation in operations.all().values():  # imports what there is to import
        operation()
    operations.check()
"""

TRY_ALL = """
    outcomes = {}
    for name, operation in operations.all().items():
        outcomes[name] = operations.try_it(operation)
        operations.check()
    heard = [repr(each.exc_value) for each in unraisable]
    print(json.dumps([outcomes, heard]), flush=True)
"""

# CPython 3.15 aborts at its own end ("_PyMem_ArenaFree: munmap(...) failed").
LEAVE = {"munmap": "\n    import os; os._exit(0)"} if sys.version_info >= (3, 15) else {}

NO_ROOM = "MemoryError: no address space for a memory of"
NO_CODE = "OSError: [Errno 12] the system refuses executable memory"
NO_EXECUTION = "PermissionError: [Errno 1] the system refuses executable memory"
GROWING = dict.fromkeys(
    ["a growing memory", "a growing table", "memory32_grow", "memory.grow"], "refused"
)
MEMORIES = dict.fromkeys(["a memory", "a large memory", "a compiled instance"], NO_ROOM)
NO_TABLE = {"a table": "MemoryError: no address space for a table of"}
TABLE = {"a table that grows much": "refused"}  # it is at its limit

# What is refused, and how the operations end that do not end as usual.
REFUSALS = {
    "mmap": (
        "seccomp.refuse(errno.ENOMEM, 'mmap')",
        {**MEMORIES, **TABLE, **NO_TABLE, "code": NO_CODE, "a module": NO_CODE},
    ),
    "mprotect": (
        "seccomp.refuse(errno.ENOMEM, 'mprotect')",
        {
            **GROWING, **TABLE, "a memory": "MemoryError: no memory for 1 pages",
            "a table": "MemoryError: no memory for a table of",
            "a compiled instance": "MemoryError: no memory for 1 pages",
        },
    ),
    "mmap and mprotect": (
        "seccomp.refuse(errno.ENOMEM, 'mmap', 'mprotect')",
        {**MEMORIES, **GROWING, **TABLE, **NO_TABLE, "code": NO_CODE, "a module": NO_CODE},
    ),
    "memfd_create": ("seccomp.refuse(errno.ENOSYS, 'memfd_create')", TABLE),
    "mprotect to executable": (
        "seccomp.refuse(errno.EPERM, 'mprotect', protection=seccomp.PROT_EXEC)", TABLE,
    ),
    "executable pages": (
        "seccomp.refuse(errno.EPERM, 'mmap', 'mprotect', protection=seccomp.PROT_EXEC)",
        {**TABLE, "code": NO_EXECUTION, "a module": NO_EXECUTION},
    ),
    "executable anonymous pages and memfd_create": (
        "seccomp.refuse(errno.EPERM, 'mprotect', 'memfd_create', protection=seccomp.PROT_EXEC)",
        {**TABLE, "code": NO_EXECUTION, "a module": NO_EXECUTION},
    ),
    "munmap": ("seccomp.refuse(errno.ENOMEM, 'munmap')", TABLE),
    "write and execute, by PR_SET_MDWE": (
        "import ctypes\n    if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0): raise OSError('prctl')",
        TABLE,
    ),
    "1 GiB more of addresses": (
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30),) * 2)",
        {**TABLE, "a large memory": NO_ROOM},
    ),
}  # fmt: skip


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """A code cache, so that children need not assemble."""
    return {"ASM_LIBCALLS_CACHE": str(tmp_path_factory.mktemp("cache"))}


@pytest.mark.parametrize("what", REFUSALS)
def test_the_system_refuses(what, child, cache):
    refuse, expected = REFUSALS[what]
    done = child(
        PRELUDE
        + f"""
    import seccomp
    try:
        {refuse.replace(chr(10), chr(10) + "    ")}
    except OSError as error:
        print(json.dumps(str(error)))
        raise SystemExit
"""
        + TRY_ALL
        + LEAVE.get(what, ""),
        variables=cache,
    )
    report = json.loads(done.stdout)
    if isinstance(report, str):
        pytest.skip(f"the kernel does not let us refuse {what}: {report}")
    outcomes, heard = report
    assert done.stderr == ""
    assert len(outcomes) == 21
    for name, outcome in outcomes.items():
        assert outcome.startswith(expected.get(name, "done")), (name, outcome)
    # Pages that cannot be unmapped are kept, and reported.
    assert (heard != []) == (what == "munmap"), heard
    assert all("munmap of" in one for one in heard)


@pytest.mark.skipif(
    importlib.util.find_spec("_testcapi") is None, reason="this Python has no set_nomemory"
)
@pytest.mark.skipif(
    (3, 12) <= sys.version_info < (3, 14),
    reason="CPython 3.12.1 and 3.13.0 crash by themselves where a generator gets no memory",
)
def test_no_allocation_of_python_is_one_that_may_not_fail(child, cache):
    """Each allocation of each operation fails, one after the other.

    When all fail from one on, CPython itself loops without end, or stops reporting.
    """
    done = child(
        PRELUDE
        + """
    import _testcapi, gc, os, traceback

    sys.unraisablehook = lambda unraisable: None
    def is_memory_error(error):
        if isinstance(error, (MemoryError, OSError)):
            return True
        if type(error).__name__ == "ArgumentError":  # what ctypes makes of it
            return "MemoryError" in str(error)
        # CPython itself forgets to say so in some places; in `refuse_again` the AttributeError.
        last = traceback.extract_tb(error.__traceback__)[-1]
        ours = "asm_libcalls" in last.filename and last.name != "refuse_again"
        return isinstance(error, SystemError) and not ours

    failed = 0
    gc.disable()
    operations = Operations()  # with a small table
    everything = operations.all()
    del everything["a table that grows much"], everything["many host functions"]
    for name, operation in everything.items():
        number, done = 0, 0
        while done < 3 and number < 1200:
            number += 1
            if number % 50 == 0:
                gc.collect()  # instances hold thunks; loading more raises errors that it forgets
            _testcapi.set_nomemory(number, number + 1)
            try:
                operation()
            except BaseException as error:
                _testcapi.remove_mem_hooks()
                assert is_memory_error(error), (name, number, repr(error))
                failed, done = failed + 1, 0
            else:
                _testcapi.remove_mem_hooks()
                done += 1
        gc.collect()
        operations.check()
    print(failed)
    """,
        variables=cache,
        timeout=300,
    )
    assert int(done.stdout) > 1000
    # CPython drops a bytearray whose memory was refused before it sets that object's count of
    # exports, and prints this if it finds a number there.
    of_python = "SystemError: deallocated bytearray object has exported buffers"
    assert {*done.stderr.splitlines()} <= {of_python}


@pytest.mark.skipif(
    importlib.util.find_spec("_testcapi") is None, reason="this Python has no set_nomemory"
)
@pytest.mark.skipif(not HAS_GIL, reason="set_nomemory ends CPython 3.13 without the GIL by SIGSEGV")
@pytest.mark.parametrize("libcall", ["table_fill", "table_copy", "table_init", "close"])
def test_a_table_whose_change_finds_no_memory_has_live_references(child, libcall):
    child(
        f"""
    import gc, sys, _testcapi
    import asm_libcalls as A

    class Thing:
        pass

    sys.unraisablehook = lambda unraisable: None
    failed = 0
    for number in range(1, 600):
        table, other = A.Table("externref", 100), A.Table("externref", 100)
        segment = A.ElementSegment("externref", [Thing()] * 100)
        instance = A.Instance(tables=[table, other], elements=[segment])
        A.table_fill(instance, 0, 0, A.VMExternRef(Thing()), 100)  # without another owner
        A.table_fill(instance, 1, 0, A.VMExternRef(Thing()), 100)
        new = A.VMExternRef(Thing())
        change = {{
            "table_fill": lambda: A.table_fill(instance, 0, 0, new, 100),
            "table_copy": lambda: A.table_copy(instance, 0, 1, 0, 0, 100),
            "table_init": lambda: A.table_init(instance, 0, 0, 0, 0, 100),
            "close": segment.close,
        }}[{libcall!r}]
        try:
            _testcapi.set_nomemory(number, number + 1)
            try:
                change()
            finally:
                _testcapi.remove_mem_hooks()
        except MemoryError:
            failed += 1
        new.drop()
        gc.collect()
        made = [A.VMExternRef(Thing()) for _ in range(50)]  # in boxes that were freed
        values = {{id(table[i]) for i in range(100)}}  # KeyError, if one is not live
        assert not values & {{id(each.value) for each in made}}, number
        instance.close()
    assert failed > 5, failed
        """,
        timeout=300,
    )


IMPORT = """
    import errno, os, sys
    import ctypes, seccomp, struct
    try:
        import peachpy.x86_64.function  # its extension modules need executable pages too
    except ImportError:
        pass
    try:
        seccomp.refuse(errno.{error}, {names!r}, protection={protection})
    except OSError as error:
        print("skip", error)
        raise SystemExit
    import asm_libcalls
    from process_maps import offenders

    assert asm_libcalls.f64_nearest(2.5) == 2.0 and asm_libcalls.i64_sdiv(-7, 2) == -3
    assert offenders() == []
    report = asm_libcalls.backend_report()
    print(report["x86_64"])
    print(report["pages"])
"""


@pytest.mark.parametrize(
    ("name", "protection", "pages", "warning"),
    [
        ("mprotect", 4, "(memfd; no anonymous memory: [Errno 1] mprotect of ", ""),
        ("memfd_create", 0, "(anonymous)", ""),
        ("mkdir", 0, "(anonymous)", "cannot keep its machine code"),
        ("fchmod", 0, "(anonymous)", "cannot keep its machine code"),
        ("renameat", 0, "(anonymous)", "cannot keep its machine code"),
    ],
)
def test_the_import_goes_another_way(name, protection, pages, warning, child, tmp_path):
    """With an empty cache, whose folder or file cannot be made."""
    code = IMPORT.format(error="EPERM", names=name, protection=protection)
    done = child(code, variables={"ASM_LIBCALLS_CACHE": str(tmp_path / "cache")})
    if done.stdout.startswith("skip"):
        pytest.skip(done.stdout)
    assert done.stdout.startswith("loaded\n")
    assert pages in done.stdout
    assert warning in done.stderr
    assert done.stderr.count("Warning") == bool(warning)
