"""The code cache: images in files are used, and only those that can be trusted.

Every case runs in child processes with a cache folder of their own.
"""

import errno
import os
import platform
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cached_images import NO_PEACHPY, assert_assembled, assert_from_file, backend_file, flip
from child_process import environment

from asm_libcalls.emitter import image_file
from asm_libcalls.emitter.image import CODE_PAGE
from asm_libcalls.steps import HAS_GIL

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="not Linux on x86-64"
)


def test_the_second_process_maps_what_the_first_assembled(probe, cache):
    assert_assembled(probe(cache))
    path = backend_file(cache)
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert {stat.S_IMODE(each.stat().st_mode) for each in cache.iterdir()} == {0o600}
    assert_from_file(probe(cache), path)
    assert_from_file(probe(cache, before=NO_PEACHPY), path)
    assert_from_file(probe(cache, ASM_LIBCALLS_BACKEND="x86_64"), path)


def test_its_pages_are_the_files_and_never_writable_and_executable(probe, filled):
    code = """
    import sys
    from process_maps import mapping_of, offenders

    found = []

    def look(frame, event, argument):
        path = frame.f_code.co_filename
        if event in ("call", "return") and path.endswith(("libc.py", "pages.py", "code_cache.py")):
            found.extend(offenders())

    sys.setprofile(look)
    import asm_libcalls
    sys.setprofile(None)
    loaded = asm_libcalls._binding.x86_64.loaded
    assert found == offenders() == [], found
    code = mapping_of(loaded.address)
    assert code.permissions == "r-xp" and code.name.endswith(".image"), code
    for offset in loaded.image.slots.values():
        assert mapping_of(loaded.address + offset).permissions == "rw-p"
    """
    assert_from_file(probe(filled, before=code), backend_file(filled))


def test_the_file_works_where_written_memory_may_not_become_executable(probe, filled):
    deny = """
    import ctypes
    if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0):  # PR_SET_MDWE, Linux 6.3
        print('{"skip": 1}')
        raise SystemExit
    """
    result = probe(filled, before=deny)
    if "skip" in result:
        pytest.skip("the kernel has no PR_SET_MDWE")
    assert_from_file(result, backend_file(filled))


def test_everything_else_comes_from_files_too(probe, cache):
    """The ufuncs' loops, the thunks and the compiler's stencils: no PeachPy in the second run."""
    pytest.importorskip("numpy")
    code = """
    import asm_libcalls
    from asm_libcalls import ufuncs
    from asm_libcalls.toy_jit.codegen import templates

    assert set(ufuncs.BACKENDS.values()) == {"x86_64"}, ufuncs.BACKENDS
    assert ufuncs.sdiv(-7, 2) == -3
    host = asm_libcalls.HostFunction(lambda n: n + 1, "(i64) -> i64")
    assert asm_libcalls.native_function(host.address, "(i64) -> i64")(41) == 42
    assert len(templates.TEMPLATES) > 100
    print(list(templates.TEMPLATES))
    """
    first = probe(cache, before=code)
    assert first["peachpy"]
    assert first["refusals"] == []
    kinds = {path.name.partition("-")[0] for path in cache.glob("*.image")}
    assert kinds == {"backend", "cpu", "thunks", "toy_jit", "ufuncs"}
    second = probe(cache, before=NO_PEACHPY + code)
    assert not second["peachpy"]
    assert second["refusals"] == []


@pytest.mark.skipif(not HAS_GIL, reason="a build without the GIL needs the locks of threading")
def test_start_up_imports_little(package, filled, child):
    """Modules of Python that take longer to import than a numeric libcall takes to be ready."""
    done = child(
        """
    import ctypes, sys

    class Empty(ctypes.Structure):
        _fields_ = []

    before = set(sys.modules)
    import asm_libcalls
    assert asm_libcalls.f64_ceil(1.5) == 2.0 and asm_libcalls.i64_sdiv(-7, 2) == -3
    assert asm_libcalls.LIBCALLS["i64_sdiv"].backend == "x86_64"
    slow = {"collections", "contextlib", "dataclasses", "enum", "functools", "importlib", "inspect"}
    slow |= {"operator", "pathlib", "re", "tempfile", "threading", "typing", "warnings"}
    print(sorted(slow & set(sys.modules) - before))
    assert asm_libcalls.TrapCode(7) is asm_libcalls.IntegerDivisionByZero().code
    """,
        options=["-S"],  # site packages import what they like
        variables={"ASM_LIBCALLS_CACHE": str(filled), "PYTHONPATH": str(package)},
    )
    assert done.stdout == "[]\n"


def test_the_same_code_as_assembled(probe, filled):
    code = """
    import sys
    from asm_libcalls.x86_64 import code_cache, cpu
    from asm_libcalls.emitter.image import link
    from asm_libcalls.x86_64.image_kinds import IMAGES

    this_cpu = cpu.detect(code_cache.load("cpu"))
    for name, kind in IMAGES.items():
        features = this_cpu.features if kind.for_cpu else frozenset()
        code_cache.load(name, features)
        loaded = code_cache.load(name, features)
        assert loaded.origin.startswith("image (file"), loaded.origin
        made = link(kind.assemble(features))
        assert loaded.image.code == made.code
        assert loaded.image.routines == made.routines
        assert loaded.image.slots == made.slots
        assert loaded.image.size == made.size
        for routine, (_, size) in made.routines.items():
            at = made.routines[routine][0]
            assert loaded.code(routine) == made.code[at : at + size]
    """
    probe(filled, before=code)


DIGEST_AT = image_file._IDENTITY_AT


def replace_by(make):
    def damage(path):
        content = path.read_bytes()
        path.unlink()
        make(path, content)

    return damage


DAMAGE = {
    "an altered code byte": (flip(2 * CODE_PAGE + 10), "digest"),
    "an altered last byte": (flip(-1), "digest"),
    "an altered symbol": (flip(0x840), "digest"),
    "an altered segment": (flip(90), "digest"),
    "an altered digest": (flip(DIGEST_AT + 20), "digest"),
    "an altered key": (flip(DIGEST_AT + 40), "other sources"),
    "an altered size": (flip(DIGEST_AT + 65), "bytes, not"),
    "another format": (flip(3), "no image file of this version"),
    "empty": (lambda path: path.write_bytes(b""), "ends after 0 bytes"),
    "truncated in its header": (lambda path: os.truncate(path, 50), "ends after 50 bytes"),
    "truncated in its tables": (lambda path: os.truncate(path, 800), "bytes, not"),
    "truncated in its code": (
        lambda path: os.truncate(path, path.stat().st_size - 1),
        "bytes, not",
    ),
    "longer": (lambda path: path.write_bytes(path.read_bytes() + b"\0"), "bytes, not"),
    "writable by the group": (lambda path: path.chmod(0o620), "others may write it (mode 620)"),
    "writable by others": (lambda path: path.chmod(0o602), "others may write it (mode 602)"),
    "a folder": (replace_by(lambda path, _: path.mkdir()), "no regular file"),
    "a pipe": (replace_by(lambda path, _: os.mkfifo(path)), "no regular file"),
    "a link into nowhere": (replace_by(lambda path, _: path.symlink_to("nowhere")), None),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_file_is_not_used_and_made_again(what, probe, filled):
    damage, reason = DAMAGE[what]
    path = backend_file(filled)
    damage(path)
    assert_assembled(probe(filled), reason)
    if path.is_dir():  # is not ours to remove
        return
    assert_from_file(probe(filled), path)


def test_an_image_of_another_cpu_or_source_is_not_used(probe, filled, tmp_path):
    """Even under the right name."""
    path = backend_file(filled)
    (other,) = filled.glob("cpu-*.image")
    path.write_bytes(other.read_bytes())
    assert_assembled(probe(filled), "other sources, or for another CPU")


def test_other_sources_are_another_key(probe, package, filled, tmp_path):
    home = tmp_path / "other"
    shutil.copytree(package, home)
    changed = home / "asm_libcalls" / "x86_64" / "integers.py"
    changed.write_text(changed.read_text() + "# changed\n")
    os.utime(changed, (1_700_000_000, 1_700_000_000))  # as large as before would not matter either
    assert_assembled(probe(filled, home=home))
    assert len(list(filled.glob("backend-*.image"))) == 2


def test_nothing_is_kept_of_sources_that_have_just_changed(probe, package, cache, tmp_path):
    """The code in memory may be that of other sources than the key's."""
    home = tmp_path / "changing"
    shutil.copytree(package, home)
    (home / "asm_libcalls" / "x86_64" / "integers.py").touch()
    assert_assembled(probe(cache, home=home), "have just been changed")
    assert not cache.exists()


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o703, 0o1777], ids=oct)
def test_a_folder_that_others_may_write_is_not_used(mode, probe, filled):
    filled.chmod(mode)
    before = sorted(filled.iterdir())
    assert_assembled(probe(filled), "others may write it")
    assert sorted(filled.iterdir()) == before
    filled.chmod(0o755)  # that others read it is harmless
    assert_from_file(probe(filled), backend_file(filled))


@pytest.mark.parametrize("what", ["folder", "file"])
def test_what_belongs_to_somebody_else_is_not_used(what, probe, filled):
    path = backend_file(filled)
    try:
        os.chown(filled if what == "folder" else path, 12345, -1)
    except PermissionError:
        pytest.skip("only root can give files away")
    assert_assembled(probe(filled), "belongs to user 12345, not to 0")


def test_where_others_could_exchange_the_folder_the_dynamic_linker_is_left_out(probe, tmp_path):
    """It opens paths; we map the file that was checked."""
    cache = tmp_path / "theirs" / "cache"
    assert_assembled(probe(cache))
    cache.parent.chmod(0o777)
    assert_from_file(probe(cache), backend_file(cache), way="file")
    cache.parent.chmod(0o1777)  # where no user can rename files of others, as in /tmp
    assert_from_file(probe(cache), backend_file(cache))


def test_through_a_link(probe, filled, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(filled)
    assert_from_file(probe(link), backend_file(link))


def test_one_image_of_a_process_is_the_library_and_others_have_slots_of_their_own(probe, filled):
    code = """
    import asm_libcalls
    from asm_libcalls.x86_64 import code_cache

    backend = asm_libcalls._binding.x86_64
    first = backend.loaded
    others = [code_cache.load("backend", backend.cpu.features) for _ in range(2)]
    assert [first.way, *(each.way for each in others)] == ["library", "file", "file"]
    key = first.slot("activations_key")
    others[0].set_slot("activations_key", 12345)
    assert first.slot("activations_key") == key != others[1].slot("activations_key")
    """
    probe(filled, before=code)


def test_the_dynamic_linker_knows_the_routines(probe, filled):
    code = """
    import ctypes
    import asm_libcalls

    class Info(ctypes.Structure):
        _fields_ = [("file", ctypes.c_char_p), ("base", ctypes.c_size_t),
                    ("name", ctypes.c_char_p), ("address", ctypes.c_size_t)]

    dladdr = ctypes.CDLL(None).dladdr
    dladdr.argtypes = [ctypes.c_size_t, ctypes.c_void_p]
    address = asm_libcalls.LIBCALLS["i64_sdiv"].address
    info = Info()
    assert dladdr(address + 3, ctypes.addressof(info))
    assert (info.name, info.address) == (b"wasmtime_i64_sdiv", address), (info.name, info.address)
    assert info.file.endswith(b".image"), info.file
    try:
        ctypes.CDLL(None).wasmtime_i64_sdiv
    except AttributeError:
        pass
    else:
        raise SystemExit("other libraries find our symbols")
    """
    probe(filled, before=code)


@pytest.mark.parametrize("refused", ["dlopen", "dlinfo", "dlopen, mmap"])
def test_without_a_dynamic_linker_that_loads_it(refused, probe, filled):
    code = f"""
    from asm_libcalls.emitter import libc

    def refusing(*arguments, **options):
        raise OSError("refused by the test")

    if "dlopen" in {refused!r}:
        libc.open_library = refusing
    prototype = libc.prototype
    libc.prototype = lambda name, *rest: (
        (lambda *a: 1) if name in {refused!r} else prototype(name, *rest)
    )
    mmap = libc.mmap
    libc.mmap = lambda length, protection, **options: (
        refusing() if "mmap" in {refused!r} and "file" in options
        else mmap(length, protection, **options)
    )
    """
    # Importing libc imports the package, which loads everything; so it is loaded again here.
    code += """
    import ctypes, importlib, json
    import asm_libcalls
    from asm_libcalls.emitter import shared_object
    from asm_libcalls.x86_64 import code_cache
    importlib.reload(shared_object)
    loaded = code_cache.load("backend", asm_libcalls._binding.x86_64.cpu.features)
    sdiv = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
    assert sdiv(loaded.routine("i64_sdiv"))(-7, 2) == -3
    print(json.dumps({"way": loaded.way, "refusal": loaded.refusals[0]}))
    """
    reason = "dlinfo: no link map" if refused == "dlinfo" else "refused by the test"
    way = "anonymous" if "mmap" in refused else "file"
    assert probe(filled, code=code) == {"way": way, "refusal": f"no library: {reason}"}


def test_a_file_exchanged_while_it_is_read_is_not_used(probe, filled):
    """Between the check and the mapping: another content in the same file."""
    exchange = """
    from asm_libcalls.emitter import pages, shared_object
    load_file, load_library = pages._load_file, shared_object.load
    tried = []

    def exchange(code, file, offset):
        import os
        tried.append(file)
        with open(f"/proc/self/fd/{file}", "r+b") as other:
            other.seek(offset)
            other.write(b"\\xcc" * len(code))

    def exchanged_file(loaded, file, offset):
        exchange(loaded.image.code, file, offset)
        load_file(loaded, file, offset)

    def exchanged_library(path, code_at, code, claim_at):
        with open(path) as file:
            exchange(code, file.fileno(), code_at)
        return load_library(path, code_at, code, claim_at)

    pages._load_file, shared_object.load = exchanged_file, exchanged_library
    """
    # Importing pages imports the package; so the loading is repeated here.
    code = (
        exchange
        + """
    from asm_libcalls.x86_64 import code_cache
    import asm_libcalls
    cpu = asm_libcalls._binding.x86_64.cpu
    loaded = code_cache.load("backend", cpu.features)
    assert loaded.way == "anonymous", loaded.way
    assert len(tried) == 2, tried
    assert loaded.code("i64_sdiv") == asm_libcalls._binding.x86_64.loaded.image.code[
        slice(*(lambda at, size: (at, at + size))(*loaded.image.routines["i64_sdiv"]))
    ]
    print("{}")
    """
    )
    probe(filled, code=code)


def test_off(probe, cache, tmp_path):
    home = tmp_path / "home"
    result = probe("off", HOME=str(home), XDG_CACHE_HOME=None)
    assert_assembled(result)
    assert result["folder"] == ""
    assert not home.exists()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"XDG_CACHE_HOME": "{}/xdg"}, "{}/xdg/asm_libcalls"),
        ({"XDG_CACHE_HOME": ""}, "{}/home/.cache/asm_libcalls"),
        ({"XDG_CACHE_HOME": "relative"}, "{}/home/.cache/asm_libcalls"),
        ({"ASM_LIBCALLS_CACHE": "{}/asked/for"}, "{}/asked/for"),
        ({"ASM_LIBCALLS_CACHE": "relative"}, "{}/relative"),
        ({"ASM_LIBCALLS_CACHE": ""}, "{}/home/.cache/asm_libcalls"),
    ],
)
def test_where_it_is(variables, expected, probe, tmp_path):
    (tmp_path / "home").mkdir()
    changes = {"HOME": f"{tmp_path}/home", "XDG_CACHE_HOME": None}
    changes.update({name: value.format(tmp_path) for name, value in variables.items()})
    result = probe(None, **changes)
    assert result["folder"] == expected.format(tmp_path)
    assert_assembled(result)
    folder = Path(result["folder"])
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert_from_file(probe(None, **changes), backend_file(folder))


def test_a_tilde_is_the_home_folder(probe, tmp_path):
    """A path that no shell has expanded: from a unit file, or in quotes."""
    result = probe("~/cache", HOME=str(tmp_path))
    assert result["folder"] == f"{tmp_path}/cache"
    assert backend_file(tmp_path / "cache")


@pytest.mark.parametrize("where", ["a file", "below a file", "no home"])
def test_where_no_folder_can_be_made(where, probe, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    path = {"a file": file, "below a file": file / "cache", "no home": "/proc/1/cache"}[where]
    result = probe(path)
    assert_assembled(result, str(path))


NOT_KEPT = """
    import sys
    import warnings
    import asm_libcalls
    from asm_libcalls import llvm  # a second image: no second warning
    asm_libcalls.LIBCALLS["i64_sdiv"].address, llvm.LIBCALLS["divti3"].address
    sys.stderr.flush()
    print(asm_libcalls.backend_report()["x86_64"])
"""


@pytest.mark.parametrize("how", ["unusable", "unusable, warnings are errors", "off", "usable"])
def test_a_user_is_told_once_that_nothing_can_be_kept(how, package, child, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    where = {"off": "off", "usable": str(tmp_path / "cache")}.get(how, str(file / "cache"))
    path = os.pathsep.join([str(package), environment()["PYTHONPATH"]])
    done = child(
        NOT_KEPT,
        options=["-W", "error"] if how.endswith("errors") else [],
        variables={"ASM_LIBCALLS_CACHE": where, "PYTHONPATH": path},
    )
    assert done.stdout == "loaded\n"
    if how == "unusable":
        assert done.stderr.count("RuntimeWarning") == 1
        assert (
            f"cannot keep its machine code, so each start assembles it again: {where}: Not a"
            in (done.stderr)
        )
        assert "ASM_LIBCALLS_CACHE" in done.stderr
    else:
        assert done.stderr == ""


@pytest.mark.parametrize(
    "how", ["auto", "auto, warnings are errors", "fallback", "another machine"]
)
def test_a_user_is_told_once_that_no_machine_code_serves(how, package, child, tmp_path):
    """The image of a wheel or of the cache cannot be used, and nothing can assemble another."""
    folder = tmp_path / "cache"
    folder.mkdir()
    folder.chmod(0o777)
    other = """
    import os, types
    os.uname = lambda: types.SimpleNamespace(machine="riscv64")
    """
    code = """
    import asm_libcalls
    from asm_libcalls import llvm
    assert asm_libcalls.f64_ceil(1.5) == 2.0 and llvm.divti3(-7, 2) == -3
    assert asm_libcalls.LIBCALLS["f64_ceil"].backend == "fallback"
    """
    done = child(
        NO_PEACHPY + (other if how == "another machine" else "") + code,
        options=["-W", "error"] if how.endswith("errors") else [],
        variables={
            "ASM_LIBCALLS_CACHE": str(folder),
            "ASM_LIBCALLS_BACKEND": "fallback" if how == "fallback" else "auto",
            "PYTHONPATH": os.pathsep.join([str(package), environment()["PYTHONPATH"]]),
        },
    )
    if how == "auto":
        assert done.stderr.count("RuntimeWarning") == 1
        assert f"Python functions serve: {folder}" in done.stderr
        assert "others may write it (mode 777);" in done.stderr
        assert "PeachPy is not installed" in done.stderr
    else:
        assert done.stderr == ""


def test_a_read_only_folder(probe, cache):
    """Existing images are used, new ones cannot be kept; an immutable mount stops root."""
    cache.mkdir(mode=0o500)
    refuse = (
        ""
        if os.geteuid()
        else """
    import errno, os
    os_open = os.open

    def read_only(path, flags, *rest, **options):
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, "Read-only file system")
        return os_open(path, flags, *rest, **options)

    os.open = read_only
    """
    )
    result = probe(cache, before=refuse)
    assert_assembled(result, str(cache))
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("at", ["write", "fchmod", "rename", "open"])
def test_a_full_disk(at, probe, cache):
    full = f"""
    import errno, os
    own = os.{at}
    calls = []

    def full(*arguments, **options):
        if {at!r} == "open" and not arguments[1] & os.O_CREAT:
            return own(*arguments, **options)
        if {at!r} == "write" and not calls:
            calls.append(1)
            return own(arguments[0], arguments[1][:100])  # the first bytes still fit
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    os.{at} = full
    """
    assert_assembled(probe(cache, before=full), os.strerror(errno.ENOSPC))
    assert [path for path in cache.iterdir() if path.suffix != ".digest"] == []
    assert_assembled(probe(cache))
    assert_from_file(probe(cache), backend_file(cache))


def test_a_process_that_was_ended_while_it_wrote(probe, cache):
    """Its temporary file is no image, and is removed after an hour."""
    end = """
    import os
    os.rename = lambda *arguments, **options: os._exit(0)
    print("{}", flush=True)
    """
    probe(cache, before=end)
    (left,) = cache.iterdir()
    assert left.name.endswith(".unfinished")
    assert_assembled(probe(cache))
    assert left.exists()
    os.utime(left, (1_700_000_000, 1_700_000_000))
    backend_file(cache).unlink()
    assert_assembled(probe(cache))
    assert not left.exists()


def test_many_processes_at_once(package, cache):
    path = os.pathsep.join([str(package), environment()["PYTHONPATH"]])
    code = (
        "import asm_libcalls\n"
        "assert asm_libcalls.LIBCALLS['i64_sdiv'].backend == 'x86_64'\n"
        "assert asm_libcalls.i64_sdiv(-7, 2) == -3\n"
        "from asm_libcalls.x86_64 import code_cache\n"
        "assert code_cache.refusals == [], code_cache.refusals\n"
    )
    variables = environment(ASM_LIBCALLS_CACHE=str(cache), PYTHONPATH=path)
    running = [
        subprocess.Popen([sys.executable, "-c", code], env=variables, cwd=cache.parent)
        for _ in range(6)
    ]
    assert [process.wait(timeout=300) for process in running] == [0] * 6
    assert {path.suffix for path in cache.iterdir()} <= {".image", ".digest"}
    assert len(list(cache.glob("*.image"))) == 2


def test_the_oldest_files_go(probe, cache):
    cache.mkdir(mode=0o700)
    for i in range(110):
        path = cache / f"backend-{i}.image"
        path.write_bytes(b"")
        os.utime(path, (1_600_000_000 + i, 1_600_000_000 + i))
    kept = cache / "README"
    kept.write_text("somebody's")
    probe(cache)
    names = {path.name for path in cache.iterdir()}
    assert len(names) == 101
    assert "README" in names
    assert "backend-0.image" not in names
    assert "backend-109.image" in names
