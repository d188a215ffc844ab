"""The key of an image is of all sources that it is made from; the levels of CPUs."""

from __future__ import annotations

import platform
import shutil
import sys
from pathlib import Path

import pytest
from child_process import PACKAGE_HOME

from asm_libcalls.x86_64 import image_kinds
from asm_libcalls.x86_64.cpu import FEATURES, TUNINGS

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="not Linux on x86-64"
)


# Modules that importing the package or loading an image imports, without an effect on its code.
NOT_IN_THE_CODE = {
    "__init__.py", "binding.py", "libcall.py", "native", "owned", "report.py",
    "unraisable.py",
    "toy_jit/__init__.py", "toy_jit/errors.py",
    "llvm/__init__.py", "llvm/binding.py", "llvm/libcalls.py",
}  # fmt: skip


def test_every_source_of_an_image_is_in_its_key(package, child):
    """The modules that assembling imports are in the folders that the key is made of."""
    done = child("""
    import sys
    from asm_libcalls.x86_64.image_kinds import IMAGES, LEVELS

    for name, kind in IMAGES.items():
        list(kind.assemble(LEVELS["x86-64-v3"]))
        for module in sys.modules:
            if module.partition(".")[0] == "asm_libcalls":
                print(name, module, sys.modules[module].__file__)
        others = ("asm_libcalls.toy_jit", "asm_libcalls.llvm")
        for module in [m for m in sys.modules if m.startswith(others)]:
            del sys.modules[module]
    """)
    root = PACKAGE_HOME / "asm_libcalls"
    seen = set()
    for line in done.stdout.splitlines():
        name, _, path = line.split(" ", 2)
        inside = Path(path).resolve().relative_to(root.resolve())
        if not {str(inside), inside.parts[0]} & {*image_kinds.MODULES, *NOT_IN_THE_CODE}:
            folders = image_kinds.IMAGES[name].folders
            assert any(str(folder) in folders for folder in inside.parents), line
        seen.add(name)
    assert seen == set(image_kinds.IMAGES)


NESTED = sorted(
    {
        path.parent.relative_to(PACKAGE_HOME / "asm_libcalls").as_posix()
        for kind in image_kinds.IMAGES.values()
        for folder in kind.folders
        for path in (PACKAGE_HOME / "asm_libcalls" / folder).rglob("*.py")
    }
)
"""Every folder that has sources of an image, those in other folders too."""


def test_there_are_folders_in_folders():
    assert {"x86_64", "x86_64/stencils", "emitter", "toy_jit/codegen/stencils"} <= set(NESTED)


@pytest.mark.parametrize("folder", NESTED)
@pytest.mark.parametrize("change", ["edited", "added", "removed", "in a new folder"])
def test_the_key_is_of_all_sources_in_all_folders(change, folder, tmp_path, monkeypatch):
    """A source is changed in a copy, and the keys of those images change that are made from it."""
    from asm_libcalls.x86_64 import code_cache, source_digest

    home = tmp_path / "asm_libcalls"
    shutil.copytree(
        PACKAGE_HOME / "asm_libcalls", home, ignore=shutil.ignore_patterns("__pycache__", "*.image")
    )

    def keys() -> dict[str, bytes]:
        monkeypatch.setattr(source_digest, "_digests", {})
        found = {name: code_cache._key(name, frozenset(), str(home)) for name in image_kinds.IMAGES}
        assert None not in found.values()
        return found

    before = keys()
    assert keys() == before
    first = min((home / folder).glob("*.py"))
    if change == "edited":
        first.write_text(first.read_text() + "# edited\n")
    elif change == "added":
        (home / folder / "added.py").write_text("")
    elif change == "removed":
        first.unlink()
    else:
        (home / folder / "new" / "newer").mkdir(parents=True)
        (home / folder / "new" / "newer" / "added.py").write_text("")
    after = keys()
    concerned = {
        name
        for name, kind in image_kinds.IMAGES.items()
        if any(f"{folder}/".startswith(f"{whole}/") for whole in kind.folders)
    }
    assert concerned
    assert {name for name in before if before[name] != after[name]} == concerned


@pytest.mark.parametrize("module", image_kinds.MODULES)
def test_the_key_is_of_the_layouts_that_all_images_share(module, tmp_path, monkeypatch):
    from asm_libcalls.x86_64 import code_cache, source_digest

    home = tmp_path / "asm_libcalls"
    shutil.copytree(PACKAGE_HOME / "asm_libcalls", home)
    before = {name: code_cache._key(name, frozenset(), str(home)) for name in image_kinds.IMAGES}
    (home / module).write_text((home / module).read_text() + "# edited\n")
    monkeypatch.setattr(source_digest, "_digests", {})
    for name in image_kinds.IMAGES:
        assert code_cache._key(name, frozenset(), str(home)) not in (None, before[name])


def test_levels():
    known = {*FEATURES, *TUNINGS}
    for name, features in image_kinds.LEVELS.items():
        assert features <= known, name
        assert image_kinds.levels_of(features)[0] == name
    assert image_kinds.levels_of(frozenset({"sse4_1"})) == []
    modern = image_kinds.LEVELS["x86-64-v4-erms"] | {"fsrm"}
    assert image_kinds.levels_of(modern)[0] == "x86-64-v4-erms"
    assert image_kinds.levels_of(modern - {"avx512vl"})[0] == "x86-64-v3-erms"
    assert image_kinds.levels_of(modern - {"bmi2"})[0] == "x86-64-v2"
