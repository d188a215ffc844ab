"""Forks while other threads import modules of the package."""

import pytest

pytestmark = pytest.mark.usefixtures("machine_code")

PRELUDE = """
    import os, signal, sys, threading, warnings
    warnings.simplefilter("ignore", DeprecationWarning)  # of a fork with threads, from 3.12 on
    import asm_libcalls
    from asm_libcalls import HeapOutOfBounds, Instance, Memory, memory_fill
    from asm_libcalls.native import imports_at_fork
    from forks import check, in_child

    begun, proceed = threading.Event(), threading.Event()

    def wait_in_the_middle(frame, event, argument):
        if frame.f_code.co_name != WHERE or event != "call":
            return
        found = {**frame.f_globals, **frame.f_locals}
        module = found[{"<module>": "__name__", "get_code": "fullname"}.get(WHERE, "name")]
        if module.startswith("asm_libcalls."):
            begun.set()
            proceed.wait(60)

    def begin(importing):
        threading.setprofile(wait_in_the_middle)
        thread = threading.Thread(target=importing)
        thread.start()
        threading.setprofile(None)
        assert begun.wait(60)
        return thread

    def trap(instance=Instance([Memory(1, 1)])):
        try:
            memory_fill(instance, 0, 65536, 0, 1)
        except HeapOutOfBounds as error:
            assert error.trace is not None

    def report():
        asm_libcalls.BackendReport

    def toy_jit():
        import asm_libcalls.toy_jit
        asm_libcalls.toy_jit.Module(bytes.fromhex("00 61 73 6d 01 00 00 00"))

    def work():
        signal.alarm(60)  # instead of waiting for ever
        trap()
        report()
        toy_jit()
"""

IN_FUNCTION = pytest.mark.parametrize("function", ["report", "toy_jit"])
AT = pytest.mark.parametrize("where", ["_find_and_load_unlocked", "get_code", "<module>"])


@IN_FUNCTION
@AT
def test_a_fork_waits_for_another_thread_that_imports_a_module(child, where, function):
    child(
        PRELUDE
        + f"""
    WHERE = {where!r}
    thread = begin({function})
    threading.Timer(0.3, proceed.set).start()
    process = in_child(work)
    assert proceed.is_set()
    check(process)
    thread.join()
    """
    )


def test_a_fork_that_waits_lets_the_other_thread_count_references(child):
    child(
        PRELUDE
        + """
    import time
    from asm_libcalls import VMExternRef

    WHERE = "<module>"
    with VMExternRef(1) as reference:
        memory_fill(Instance([Memory(1, 1)]), 0, 0, 0, 1)

        class proceed:
            counted = False

            def wait(seconds):
                time.sleep(0.3)
                reference.clone().drop()
                proceed.counted = True

        thread = begin(report)
        process = in_child(work)
        assert proceed.counted
        check(process)
        thread.join()
    """
    )


@IN_FUNCTION
@AT
def test_a_child_imports_anew_what_another_thread_was_importing(child, where, function):
    """A fork does not wait for ever, and an import may begin after it has waited."""
    child(
        PRELUDE
        + f"""
    WHERE = {where!r}
    imports_at_fork.LONGEST_WAIT = 0.1
    thread = begin({function})
    check(in_child(work))
    proceed.set()
    thread.join()
    work()
    """
    )


def test_an_import_of_the_thread_that_forks_goes_on_in_the_child(child, tmp_path):
    (tmp_path / "forks_in_import.py").write_text(
        "import asm_libcalls, forks\n"
        "process = forks.in_child(lambda: asm_libcalls.toy_jit.Module)\n"
        "forks.check(process)\n"
    )
    child("import forks_in_import; assert forks_in_import.process")


def test_a_fork_waits_for_no_lock_that_an_error_keeps(child):
    child("""
    import sys, time
    import asm_libcalls
    from forks import check, in_child

    try:
        from asm_libcalls import nothing
    except ImportError as error:
        kept = error
    lock = sys.modules["_frozen_importlib"]._get_module_lock("asm_libcalls.nothing")
    before = time.monotonic()
    check(in_child(lambda: asm_libcalls.f64_ceil(0.5)))
    assert time.monotonic() - before < 4
    """)
