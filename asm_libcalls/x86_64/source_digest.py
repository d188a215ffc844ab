"""The digest of the sources that an image is made from, and records of it.

Reading all sources takes a millisecond and a half, their directory entries a quarter of that. So
the digest is recorded in the cache folder, under a hash of each source's path, size, time of
modification and time of change (``st_ctime``, which no program can set). The images of a wheel need
no digest (``code_cache.py``).
"""

from __future__ import annotations

import os
import time

from asm_libcalls.emitter.image_file import KEY_SIZE, digest
from asm_libcalls.emitter.open_file import OpenFile
from asm_libcalls.x86_64 import cache_files
from asm_libcalls.x86_64.image_kinds import MODULES

TYPE_CHECKING = False
if TYPE_CHECKING:
    Source = tuple[str, os.stat_result]
    """Path in the package."""

_digests: dict[tuple[str, ...], bytes] = {}

_LATELY = 3
"""Seconds: file times are accurate to 2."""


def digest_of(folders: tuple[str, ...], package: str = cache_files.PACKAGE) -> bytes:
    """Return the digest of the sources in folders of the package, and of those all images share.

    Raise OSError if one cannot be read: the package is in a zip file, or has ``.pyc`` files alone.
    """
    found = _digests.get((package, *folders))
    if found is None:
        found = _digests[(package, *folders)] = _recorded(_sources(package, folders), package)
    return found


def changed_since(moment: float, folders: tuple[str, ...]) -> bool:
    """Return whether a source was modified after a moment, or may have been shortly before it."""
    sources = _sources(cache_files.PACKAGE, folders)
    return max(status.st_mtime_ns for _, status in sources) > (moment - _LATELY) * 1e9


def _sources(package: str, folders: tuple[str, ...]) -> list[Source]:
    """List the sources in folders of the package, recursively, in a fixed order."""
    found = [(name, os.stat(f"{package}/{name}")) for name in MODULES]  # noqa: PTH116 (5 ms)
    unread = [*folders]
    for folder in unread:
        with os.scandir(f"{package}/{folder}") as entries:
            for entry in entries:
                name = entry.name
                if name.endswith(".py"):
                    found.append((f"{folder}/{name}", entry.stat()))
                elif name != "__pycache__" and name.isidentifier() and entry.is_dir():
                    unread.append(f"{folder}/{name}")
    found.sort()
    return found


def _recorded(sources: list[Source], package: str) -> bytes:
    cache = cache_files.folder() if package == cache_files.PACKAGE else ""
    if not cache:
        return _read_all(sources, package)
    listed = [(name, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for name, s in sources]
    name = digest(repr(listed).encode())
    found = _find(cache, name)
    if found is None:
        before = time.time()
        found = _read_all(sources, package)
        # A change in the same moment could leave all times as they are.
        newest = max(max(modified, changed) for _, _, modified, changed in listed)
        if newest < (before - _LATELY) * 1e9:
            _keep(cache, name, found)
    return found


def _read_all(sources: list[Source], package: str) -> bytes:
    parts: list[bytes] = []
    for name, *_ in sources:
        file = OpenFile(os.open, f"{package}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            parts += (name.encode(), cache_files.read(file.number))
        finally:
            file.close()
    return digest(*parts)


def _file_name(name: bytes) -> str:
    return f"sources-{name.hex()}.digest"


def _content(name: bytes, recorded: bytes) -> bytes:
    return recorded + digest(name, recorded)


def _find(path: str, name: bytes) -> bytes | None:
    opened = cache_files.open_file(path, _file_name(name), cache_files.check_own_file)
    if opened is None:
        return None
    file, content = opened
    file.close()
    recorded = content[:KEY_SIZE]
    if content != _content(name, recorded):
        cache_files.refuse(f"{path}/{_file_name(name)}", ValueError("it is damaged"))
        return None
    return recorded


def _keep(path: str, name: bytes, content: bytes) -> None:
    from asm_libcalls.x86_64 import cache_writing

    try:
        cache_writing.keep(path, _file_name(name), _content(name, content))
    except OSError as error:  # the next process reads the sources again
        cache_files.refuse(path, error)
