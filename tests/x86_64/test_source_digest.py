"""The records of the digests of sources: each is of exactly the sources that it was made from."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

import pytest
from child_process import PACKAGE_HOME

from asm_libcalls.x86_64 import cache_files, image_kinds, source_digest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="images are kept on Linux")

FOLDERS = image_kinds.FOLDERS


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A copy of the sources in place of the package, with a cache folder of its own."""
    home = tmp_path / "asm_libcalls"
    for name in FOLDERS:
        leftovers = shutil.ignore_patterns("__pycache__", "*.image")
        shutil.copytree(PACKAGE_HOME / "asm_libcalls" / name, home / name, ignore=leftovers)
    for name in image_kinds.MODULES:
        (home / name).parent.mkdir(exist_ok=True)
        shutil.copy(PACKAGE_HOME / "asm_libcalls" / name, home / name)
    monkeypatch.setattr(cache_files, "PACKAGE", str(home))
    monkeypatch.setattr(cache_files, "PACKAGE_IMAGES", str(home / "x86_64" / "image-files"))
    monkeypatch.setattr(cache_files, "refusals", [])
    monkeypatch.setenv(cache_files.ENVIRONMENT_VARIABLE, str(tmp_path / "cache"))
    return home


@pytest.fixture
def later(monkeypatch):
    """Let some time pass since the sources were written."""
    now = time.time
    monkeypatch.setattr(source_digest.time, "time", lambda: now() + 10)


@pytest.fixture
def digest(home, monkeypatch):
    """Return the digest as a new process does, and how many sources that has read."""
    opened = []
    os_open = os.open

    def recording(path, *rest, **options):
        opened.append(str(path))
        return os_open(path, *rest, **options)

    def digest():
        monkeypatch.setattr(source_digest, "_digests", {})
        monkeypatch.setattr(os, "open", recording)
        opened.clear()
        found = source_digest.digest_of(FOLDERS, str(home))
        monkeypatch.setattr(os, "open", os_open)
        return found, sum(path.endswith(".py") for path in opened)

    return digest


def record(tmp_path: Path) -> Path:
    (path,) = (tmp_path / "cache").glob("sources-*.digest")
    return path


def test_a_second_process_reads_no_source(digest, later, tmp_path):
    found, read = digest()
    assert read > 60
    assert digest() == (found, 0)
    assert record(tmp_path).stat().st_mode & 0o777 == 0o600


def test_only_the_sources_of_the_record_have_it(digest, home, later):
    """As large as before, and with the same time of modification."""
    found, read = digest()
    path = home / "emitter" / "stencils.py"
    status, text = path.stat(), path.read_text()
    path.write_text(text.replace("import", "IMPORT", 1))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    changed, read_again = digest()
    assert changed != found
    assert read_again == read
    path.write_text(text)
    assert digest() == (found, read)


def test_nothing_is_recorded_of_sources_that_have_just_changed(digest, home, tmp_path, monkeypatch):
    """Another change in the same moment would leave their times as they are."""
    newest = max(path.stat().st_mtime for path in home.rglob("*.py"))
    monkeypatch.setattr(source_digest.time, "time", lambda: newest)
    found, read = digest()
    assert digest() == (found, read)
    assert not (tmp_path / "cache").exists()


def test_a_damaged_record_is_made_again(digest, later, tmp_path):
    found, read = digest()
    content = bytearray(record(tmp_path).read_bytes())
    for position in (0, -1):
        content[position] ^= 1
        record(tmp_path).write_bytes(content)
        content[position] ^= 1
        assert digest() == (found, read)
        assert any("it is damaged" in refusal for refusal in cache_files.refusals)
        assert digest() == (found, 0)
    record(tmp_path).write_bytes(b"")
    assert digest() == (found, read)


def test_a_record_that_others_may_write_is_not_used(digest, later, tmp_path):
    found, read = digest()
    record(tmp_path).chmod(0o622)
    assert digest() == (found, read)
    assert any("others may write it (mode 622)" in refusal for refusal in cache_files.refusals)


def test_where_no_record_can_be_kept(digest, later, tmp_path):
    (tmp_path / "cache").write_text("a file in place of the folder")
    found, read = digest()
    assert digest() == (found, read)
    assert any("Not a directory" in refusal for refusal in cache_files.refusals)
