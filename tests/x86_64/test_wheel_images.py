"""The images that a wheel brings: they are used without PeachPy, if they can be trusted."""

from __future__ import annotations

import os
import platform
import shutil
import stat
import sys
from pathlib import Path

import pytest
from cached_images import NO_PEACHPY, assert_assembled, assert_from_file, backend_file, flip
from child_process import environment, run_child
from elf_files import ElfFile

from asm_libcalls.binding import default_binding
from asm_libcalls.x86_64 import image_kinds

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="not Linux on x86-64"
)


@pytest.fixture(scope="session")
def wheel(package, tmp_path_factory):
    """A copy of the package with images inside, as a wheel brings them."""
    home = tmp_path_factory.mktemp("wheel") / "home"
    shutil.copytree(package, home, ignore=shutil.ignore_patterns("__pycache__"))
    folder = home / "asm_libcalls" / "x86_64" / "image-files"
    folder.mkdir()
    path = os.pathsep.join([str(home), environment()["PYTHONPATH"]])
    run_child(
        f"""
        from asm_libcalls.x86_64.code_cache import write_package_images
        write_package_images({str(folder)!r})
        """,
        folder=home,  # before PYTHONPATH, for `-c`
        variables={"PYTHONPATH": path},
    )
    return home


@pytest.fixture
def installed(wheel, tmp_path):
    """A copy of it that a test may damage."""
    home = tmp_path / "installed"
    shutil.copytree(wheel, home)
    return home


def package_file(home: Path) -> Path:
    """Return the file that this CPU takes."""
    features = default_binding().x86_64.cpu.features
    levels = image_kinds.levels_of(features)
    if not levels:
        pytest.skip("this CPU is older than every level that a wheel has images for")
    return home / "asm_libcalls" / "x86_64" / "image-files" / f"backend.{levels[0]}.image"


def test_a_wheel_has_an_image_for_every_level(wheel):
    names = {path.name for path in (wheel / "asm_libcalls/x86_64/image-files").iterdir()}
    expected = set()
    for name, kind in image_kinds.IMAGES.items():
        levels = image_kinds.LEVELS if kind.for_cpu else [""]
        expected |= {".".join(filter(None, (name, level, "image"))) for level in levels}
    assert names == expected


def test_a_wheel_is_accelerated_without_peachpy(probe, wheel, cache):
    code = """
    import asm_libcalls
    from asm_libcalls.toy_jit.codegen import templates

    host = asm_libcalls.HostFunction(lambda n: n + 1, "(i64) -> i64")
    assert asm_libcalls.native_function(host.address, "(i64) -> i64")(41) == 42
    assert len(templates.TEMPLATES) > 100
    """
    result = probe(cache, before=NO_PEACHPY + code, home=wheel)
    assert_from_file(result, package_file(wheel))
    assert not cache.exists()


def test_a_wheel_brings_the_library_for_other_tools(probe, wheel, cache, tmp_path):
    code = f"""
    from asm_libcalls.cli import main
    assert main(["build-library", {str(tmp_path / "a.so")!r}, "--cpu-level", "x86-64-v4"]) == 0
    """
    probe(cache, before=NO_PEACHPY + code, home=wheel)
    image = wheel / "asm_libcalls/x86_64/image-files/library.x86-64-v4-erms.image"
    made, kept = (ElfFile(path.read_bytes()) for path in (tmp_path / "a.so", image))
    assert (made.soname(), kept.soname()) == ("a.so", None)
    for section in (".text", ".note.gnu.property", ".contents", ".hash"):
        assert made.data(section) == kept.data(section)


def test_off_means_the_images_of_a_wheel_too(probe, wheel):
    assert_assembled(probe("off", home=wheel))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (flip(-1), "digest"),
        (lambda path: os.truncate(path, 5000), "bytes, not"),
        (lambda path: path.chmod(0o646), "others may write it (mode 646)"),
        (lambda path: path.chmod(0o664), "others may write it (mode 664)"),
        (lambda path: path.parent.chmod(0o777), "others may write it (mode 777)"),
    ],
    ids=["altered", "truncated", "world-writable", "group-writable", "world-writable folder"],
)
def test_a_damaged_image_of_a_wheel_is_not_used(damage, reason, probe, installed, cache):
    path = package_file(installed)
    for each in installed.rglob("*.py"):
        each.chmod(0o644)
    damage(path)
    result = probe(cache, home=installed)
    assert any(reason in refusal for refusal in result["refusals"]), result["refusals"]
    # The next level's image serves, or what is assembled and kept.
    assert f"file {path}" not in result["assembler"]
    no_other = path.parent.stat().st_mode & stat.S_IWOTH or path.name.endswith("v2.image")
    assert result["way"] == ("anonymous" if no_other else "library")


def test_a_group_that_may_write_the_package_may_write_its_images(probe, installed, cache):
    """Where the installer's umask is 002."""
    path = package_file(installed)
    for each in (*installed.rglob("*.py"), *installed.rglob("*.image"), path.parent):
        each.chmod(each.stat().st_mode | stat.S_IWGRP)
    assert_from_file(probe(cache, home=installed), path)


def test_the_images_of_a_wheel_belong_to_its_modules(probe, installed, cache):
    """They serve whatever the sources are, and not for a package of another version."""
    path = installed / "asm_libcalls" / "x86_64" / "rounding.py"
    path.write_text(path.read_text() + "# changed\n")
    os.utime(path, (1_700_000_000, 1_700_000_000))
    assert_from_file(probe(cache, home=installed), package_file(installed))
    path = installed / "asm_libcalls" / "__init__.py"
    path.write_text(path.read_text().replace('__version__ = "', '__version__ = "9.', 1))
    os.utime(path, (1_700_000_000, 1_700_000_000))
    result = probe(cache, home=installed)
    assert result["assembler"].startswith("PeachPy ")
    assert any("other sources" in refusal for refusal in result["refusals"])
    path = backend_file(cache)
    again = probe(cache, home=installed)
    assert again["assembler"].startswith(f"image (file {path}, ")
