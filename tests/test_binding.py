"""The choice of the backend: as asked, as the machine can, and with the reason.

Each failure is caused in a child process, from its start.
"""

from __future__ import annotations

import platform
import sys
from importlib import metadata

import pytest
from child_process import PACKAGE_HOME

from asm_libcalls.binding import Binding

# Every libcall, called as a user would: enough to see that what serves, serves.
USE = """
    import asm_libcalls

    def use():
        assert asm_libcalls.f32_nearest(2.5) == 2.0
        assert asm_libcalls.f64_ceil(-0.5) == 0.0
        assert asm_libcalls.LIBCALLS["f64_ceil"].call_bits(0xBFE0000000000000) == 1 << 63
        assert asm_libcalls.i64_sdiv(-7, 2) == -3
        assert asm_libcalls.i64_udiv(-1, 1) == 2**64 - 1
        try:
            asm_libcalls.i64_srem(1, 0)
        except ZeroDivisionError as trap:
            assert isinstance(trap, asm_libcalls.Trap)
        else:
            raise SystemExit("no trap")

    use()
"""

CHECK_FALLBACK = (
    USE
    + """
    report = asm_libcalls.backend_report()
    print(report["x86_64"])
    assert {row["backend"] for row in report["libcalls"].values()} == {"fallback"}
    assert {row["reason"] for row in report["libcalls"].values()} == {report["x86_64"]}
    assert asm_libcalls.runtime_symbols() == {}
    sdiv = asm_libcalls.LIBCALLS["i64_sdiv"]
    assert asm_libcalls.catch_traps(sdiv.address, sdiv.signature)(-7, 2) == -3
    assert len(asm_libcalls.symbols()) == len(asm_libcalls.LIBCALLS)
"""
)

CHECK_REFUSAL = """
    try:
        import asm_libcalls
    except ImportError as error:
        assert type(error).__name__ == "BackendUnavailable", error
        assert type(error).__module__ == "asm_libcalls.binding"
        assert error.__cause__ is not None
        start, _, reason = str(error).partition(", but machine code cannot serve: ")
        assert start == "ASM_LIBCALLS_BACKEND=x86_64", error
        print(reason)
    else:
        raise SystemExit("no error")
"""

# A finder before all others, which decides what `import peachpy` finds.
FINDER = """
    import sys
    import importlib.abc, importlib.machinery

    class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == WHAT:
                return importlib.machinery.ModuleSpec(name, self, is_package=True)

        def create_module(self, spec):
            return None

        def exec_module(self, module):
            exec(SOURCE, module.__dict__)

    sys.meta_path.insert(0, Finder())
"""


def finder(what: str, source: str) -> str:
    """Return code after which importing `what` runs `source`."""
    return FINDER.replace("WHAT", repr(what)).replace("SOURCE", repr(source))


# PeachPy as it may be found, and the reason that is given then.
PEACHPY = {
    "missing": (
        finder("peachpy", "raise ModuleNotFoundError(\"No module named 'peachpy'\")"),
        "PeachPy is not installed, or not for this Python (No module named 'peachpy'); install it",
    ),
    # The package index's 0.0.1 is for Python 2.
    "for Python 2": (
        finder("peachpy", "print 'hello'"),
        "PeachPy is broken: SyntaxError: ",
    ),
    "another package of the name": (
        finder("peachpy", "from functools import no_such_thing"),
        "PeachPy is not installed, or not for this Python (cannot import name 'no_such_thing'",
    ),
    "broken at import": (
        finder("peachpy", "import string; string.uppercase"),
        "PeachPy is broken: AttributeError: module 'string' has no attribute 'uppercase'",
    ),
    "empty": (
        finder("peachpy", ""),
        "machine code could not be made: ",
    ),
    "broken at assembly": (
        """
    import peachpy.x86_64.function
    def finalize(self, abi):
        raise AttributeError("broken by the test")
    peachpy.x86_64.function.Function.finalize = finalize
    """,
        "machine code could not be made: AttributeError: broken by the test",
    ),
    "an error of PeachPy's own at assembly": (
        """
    import peachpy.x86_64.function
    from peachpy.x86_64.function import Function
    from peachpy import RegisterAllocationError
    def finalize(self, abi):
        raise RegisterAllocationError("broken by the test")
    Function.finalize = finalize
    """,
        "machine code could not be made: RegisterAllocationError: broken by the test",
    ),
    "an assertion at encoding": (
        """
    import peachpy.x86_64.instructions
    def encode(self):
        assert not "broken by the test"
    peachpy.x86_64.instructions.Instruction.encode = encode
    """,
        "machine code could not be made: AssertionError: ",
    ),
}


@pytest.fixture(params=PEACHPY)
def peachpy(request, machine_code):
    """Code that spoils PeachPy, and how the reason begins."""
    pytest.importorskip("peachpy", reason="there is no PeachPy to spoil")
    return PEACHPY[request.param]


def test_without_peachpy_the_fallback_serves(peachpy, child):
    spoil, reason = peachpy
    done = child(spoil + CHECK_FALLBACK)
    assert done.stdout.startswith(reason)


@pytest.mark.parametrize("kind", [*PEACHPY][:4])
def test_the_assembler_says_how_to_get_peachpy(kind, child):
    spoil, reason = PEACHPY[kind]
    done = child(
        spoil
        + """
    try:
        from asm_libcalls.x86_64.assembler import sequence
    except ImportError as error:
        print(error.name, error, sep="|")
    """,
        variables={"ASM_LIBCALLS_BACKEND": "fallback"},
    )
    name, message = done.stdout.split("|")
    assert name == "peachpy"
    assert message.startswith(f"asm_libcalls.x86_64.assembler: {reason}")
    if "not installed" in reason:
        assert "https://github.com/Maratyszcza/PeachPy" in message
        assert "Debian's python3-peachpy" in message


def test_asking_for_machine_code_without_peachpy(peachpy, child):
    spoil, reason = peachpy
    done = child(spoil + CHECK_REFUSAL, variables={"ASM_LIBCALLS_BACKEND": "x86_64"})
    assert done.stdout.startswith(reason)


def test_asking_for_the_fallback_touches_no_assembler(child):
    spoil = finder("peachpy", "raise SystemExit('peachpy was imported')")
    done = child(spoil + CHECK_FALLBACK, variables={"ASM_LIBCALLS_BACKEND": "fallback"})
    assert done.stdout == "the fallback was asked for\n"


def test_the_report_says_what_it_runs_on(child):
    """Without importing NumPy."""
    done = child("""
        import sys
        import asm_libcalls
        report = asm_libcalls.backend_report()
        assert "numpy" not in sys.modules
        print(report["system"], report["numpy"], report["python"], sep="\\n")
    """)
    assert done.stdout.splitlines() == [
        " ".join([platform.system(), platform.release(), *platform.libc_ver()]).strip(),
        metadata.version("numpy"),
        f"CPython {platform.python_version()}",
    ]


@pytest.mark.parametrize("value", [None, "", "auto"])
def test_auto(value, child, accelerated):
    done = child(
        USE
        + """
    report = asm_libcalls.backend_report()
    print(report["requested"], report["x86_64"], asm_libcalls.LIBCALLS["i64_sdiv"].backend)
    """,
        variables={"ASM_LIBCALLS_BACKEND": value},
    )
    expected = "loaded" if accelerated.x86_64 else accelerated.x86_64_reason
    assert done.stdout.split() == [
        "auto",
        *expected.split(),
        accelerated.libcalls["i64_sdiv"].backend,
    ]


def test_x86_64(child, machine_code):
    if any(machine_code.families.values()):
        pytest.skip(f"this CPU cannot run every family: {machine_code.families}")
    done = child(
        USE
        + """
    print(asm_libcalls.backend_report()["requested"], asm_libcalls.LIBCALLS["f64_ceil"].backend)
    """,
        variables={"ASM_LIBCALLS_BACKEND": "x86_64"},
    )
    assert done.stdout == "x86_64 x86_64\n"


@pytest.mark.parametrize("value", ["python", "X86_64", "fallback "])
def test_unknown_backend(value, child):
    child(
        f"""
        try:
            import asm_libcalls
        except ValueError as error:
            assert str(error) == (
                "ASM_LIBCALLS_BACKEND must be one of auto, x86_64, fallback, got {value!r}"
            ), error
        else:
            raise SystemExit("no error")
        """,
        variables={"ASM_LIBCALLS_BACKEND": value},
    )
    with pytest.raises(ValueError, match="ASM_LIBCALLS_BACKEND must be one of"):
        Binding(value)


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="not Linux on x86-64"
)
def test_machine_code_is_there_where_it_should_be(accelerated):
    """Otherwise the tests that need it would be skipped silently."""
    pytest.importorskip("peachpy", reason="nothing to assemble with")
    assert accelerated.x86_64 is not None, accelerated.x86_64_reason
    assert accelerated.x86_64_reason == ""


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            "os.uname = lambda: os.uname_result(('Linux', '', '', '', 'aarch64'))",
            "this Python runs on aarch64 (64 bits), not on x86-64",
        ),
        ("sys.maxsize = 2**31 - 1", "this Python runs on x86_64 (32 bits), not on x86-64"),
        ("sys.platform = 'freebsd14'", "the system is freebsd14"),
    ],
    ids=["another CPU", "32 bits", "another system"],
)
def test_another_machine(change, reason, child, machine_code):
    code = f"""
    import os, sys, ctypes
    os.uname()
    {change}
    """
    done = child(code + CHECK_FALLBACK)
    assert done.stdout.startswith(reason)
    done = child(code + CHECK_REFUSAL, variables={"ASM_LIBCALLS_BACKEND": "x86_64"})
    assert done.stdout.startswith(reason)


def test_a_cpu_feature_is_missing(child, machine_code):
    """The reason names it, and asking for x86_64 names the family."""
    spoil = """
    import importlib.abc, sys

    class Import(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            if name == "asm_libcalls.binding":
                sys.meta_path.remove(self)
                from asm_libcalls.x86_64 import cpu
                del cpu.FEATURES["sse4_1"], cpu.FEATURES["avx"]

    sys.meta_path.insert(0, Import())
    """
    child(
        spoil
        + USE
        + """
    libcalls = asm_libcalls.LIBCALLS
    assert libcalls["f64_ceil"].backend == libcalls["f32_nearest"].backend == "fallback"
    assert libcalls["f64_ceil"].reason == "the CPU lacks sse4_1", libcalls["f64_ceil"].reason
    assert libcalls["i64_sdiv"].backend == "x86_64"
    """
    )
    done = child(
        spoil + CHECK_REFUSAL.replace("assert error.__cause__ is not None", ""),
        variables={"ASM_LIBCALLS_BACKEND": "x86_64"},
    )
    assert done.stdout == "rounding: the CPU lacks sse4_1\n"


def test_no_pthread_key(child, machine_code):
    """Another library has taken all of them."""
    done = child(
        """
    import ctypes
    key = ctypes.c_uint()
    while ctypes.CDLL(None).pthread_key_create(ctypes.byref(key), None) == 0:
        pass
    """
        + CHECK_FALLBACK
    )
    assert done.stdout.startswith("no pthread key for the list of activations: ")


def test_without_ctypes(child):
    """Python can be built without it, and an isolated subinterpreter cannot import it."""
    done = child(
        finder("_ctypes", "raise ImportError('no _ctypes here')")
        + USE
        + """
    report = asm_libcalls.backend_report()
    print(report["x86_64"])
    assert {row["backend"] for row in report["libcalls"].values()} == {"fallback"}
    for use in (
        lambda: asm_libcalls.LIBCALLS["i64_sdiv"].address,
        lambda: asm_libcalls.symbols(),
        lambda: asm_libcalls.catch_traps(1, "()"),
    ):
        try:
            use()
        except RuntimeError as error:
            assert "ctypes cannot be imported" in str(error), error
        else:
            raise SystemExit("no error")
    """
    )
    assert done.stdout == "ctypes cannot be imported: no _ctypes here\n"


def test_what_import_leaves_out(child):
    """Start-up stays short: none of these is needed to call a libcall."""
    child(
        """
    import sys
    before = set(sys.modules)
    """
        + USE
        + """
    heavy = {"numpy", "hypothesis", "pytest", "rich", "capstone", "asm_libcalls.cli"}
    assert heavy & set(sys.modules) == set(), heavy & set(sys.modules)
    """
    )


def test_import_writes_nothing(child, tmp_path):
    done = child(USE, options=["-B"])
    assert (done.stdout, done.stderr) == ("", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options", [["-O"], ["-OO"], ["-W", "error"], ["-I"], ["-X", "dev"]], ids="".join
)
def test_options_of_python(options, child, accelerated):
    done = child(
        f"""
    import sys
    sys.path.insert(0, {str(PACKAGE_HOME)!r})  # -I ignores PYTHONPATH
    """
        + USE
        + """
    print(asm_libcalls.LIBCALLS["i64_sdiv"].backend)
    """,
        options=options,
    )
    assert done.stdout.split() == [accelerated.libcalls["i64_sdiv"].backend]
    assert done.stderr == ""


def test_warnings_of_peachpy_are_not_the_users(child, tmp_path, accelerated):
    """Where PeachPy's .pyc files are missing, its escape sequences warn when it is compiled."""
    done = child(
        USE
        + """
    print(asm_libcalls.LIBCALLS["i64_sdiv"].backend)
    """,
        options=["-W", "error", "-B"],
        variables={"PYTHONPYCACHEPREFIX": str(tmp_path / "none")},
    )
    assert done.stdout.split() == [accelerated.libcalls["i64_sdiv"].backend]
    assert done.stderr == ""


@pytest.mark.parametrize("backend", ["auto", "fallback"])
def test_fork(backend, child):
    """A child calls, traps and asks for new addresses as its parent does."""
    child(
        USE
        + """
    import os, threading

    sdiv = asm_libcalls.LIBCALLS["i64_sdiv"]
    function = asm_libcalls.catch_traps(sdiv.address, sdiv.signature)

    def trap():
        try:
            function(1, 0)
        except asm_libcalls.IntegerDivisionByZero:
            return
        os._exit(1)

    trap()
    for _ in range(5):
        process = os.fork()
        if not process:
            use()
            trap()
            thread = threading.Thread(target=trap)
            thread.start()
            thread.join()
            asm_libcalls.LIBCALLS["i64_urem"].fallback.address
            os._exit(0)
        assert os.waitpid(process, 0)[1] == 0
    trap()
    """,
        variables={"ASM_LIBCALLS_BACKEND": backend},
    )


def test_at_exit(child):
    """Objects that outlive the modules may still call."""
    child(
        USE
        + """
    import atexit, sys

    class Late:
        def __init__(self):
            self.call = asm_libcalls.f64_nearest
            sdiv = asm_libcalls.LIBCALLS["i64_sdiv"]
            self.function = asm_libcalls.catch_traps(sdiv.address, sdiv.signature)
            self.write = sys.__stdout__.write
            self.trap = asm_libcalls.Trap

        def __call__(self):
            assert self.call(2.5) == 2.0
            try:
                self.function(1, 0)
            except self.trap:
                self.write("called\\n")

    late = Late()
    atexit.register(late)
    """
    )
