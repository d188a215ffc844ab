"""Guard pages: the page before a memory faults, and no routine accesses memory past its image.

For ranges of memories, size by size, ``test_no_byte_outside_is_even_read`` does the same.
"""

import signal
from pathlib import Path

import pytest

import fuzz_coverage

pytestmark = pytest.mark.usefixtures("machine_code")


@pytest.mark.parametrize("access", ["ctypes.string_at(before, 1)", "ctypes.memset(before, 0, 1)"])
def test_before_a_memory_every_access_faults(access, child):
    """Behind one too: that is in ``runtime/test_memory.py``."""
    child(
        f"""
        import ctypes, resource
        from asm_libcalls import Memory

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        memories = [Memory(1, 1) for _ in range(20)]  # beside each other, most likely
        for memory in memories:
            ctypes.memset(memory.base, 1, len(memory))
        before = memories[10].base - 1
        {access}
        """,
        exit_status=-signal.SIGSEGV,
    )


GUARDED = """
    # Whatever is mapped anew has a page on either side that faults.
    from asm_libcalls.emitter import libc

    mmap, guarded = libc.mmap, []

    def guarded_mmap(length, protection, **options):
        if options.get("address"):
            return mmap(length, protection, **options)
        pages = -(-length // libc.PAGE_SIZE) * libc.PAGE_SIZE
        start = mmap(pages + 2 * libc.PAGE_SIZE, libc.PROT_NONE)
        address = start + libc.PAGE_SIZE
        options["flags"] = options.get("flags", libc.MAP_PRIVATE | libc.MAP_ANONYMOUS)
        options["flags"] |= libc.MAP_FIXED
        guarded.append(mmap(length, protection, address=address, **options))
        return address

    libc.mmap = guarded_mmap
"""


def test_no_routine_leaves_its_image(child):
    """Every libcall's cases, a ufunc, and compiled modules, all of it between guard pages."""
    child(
        f"    TOOLS = {str(Path(fuzz_coverage.__file__).parent)!r}"
        + GUARDED
        + """
    import sys
    sys.path.append(TOOLS)
    import asm_libcalls, fuzz_coverage
    from asm_libcalls import ufuncs
    from asm_libcalls.checks.engine import self_check

    for libcall in asm_libcalls.LIBCALLS.values():
        assert self_check(libcall).passed, libcall
    assert ufuncs.sdiv(range(-500, 500), 7)[0] == -71
    ran = 0
    for path in fuzz_coverage.CORPUS.glob("*.wasm"):
        ran += fuzz_coverage.examine(path.read_bytes()) == "ran"
    assert ran > 10
    assert len(guarded) > 3 + ran
    """,
        options=["-X", "faulthandler"],
    )
