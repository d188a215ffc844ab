"""Writes files into the cache folder, completely or not at all, and removes old ones."""

# Importing pathlib takes 5 ms.
# ruff: noqa: PTH103, PTH110, PTH116, PTH120

from __future__ import annotations

import os
import time

from asm_libcalls.emitter.open_file import OpenFile
from asm_libcalls.x86_64.cache_files import check_own_file

_SUFFIXES = (".image", ".digest")
_UNFINISHED = ".unfinished"

_KEPT = 100
"""Most images and records in the cache folder; the oldest beyond it are removed."""


def keep(path: str, file_name: str, content: bytes) -> None:
    """Write a file into the cache folder, completely or not at all."""
    directory = _make_folder(path)
    unfinished = f".{file_name}.{os.getpid()}.{os.urandom(4).hex()}{_UNFINISHED}"
    try:
        folder = directory.number
        check_own_file(os.fstat(folder))
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        file = OpenFile(os.open, unfinished, flags, 0o600, dir_fd=folder)
        try:
            try:
                os.fchmod(file.number, 0o600)  # independent of the umask
                rest = memoryview(content)
                while rest:
                    rest = rest[os.write(file.number, rest) :]
            finally:
                file.close()  # may report a full disk
            os.rename(unfinished, file_name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            os.unlink(unfinished, dir_fd=folder)
            raise
        _tidy(folder)
    finally:
        directory.close()


def _make_folder(path: str) -> OpenFile:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        return OpenFile(os.open, path, flags)
    except FileNotFoundError:
        pass
    parent = os.path.dirname(path)
    there = parent
    while not os.path.exists(there):
        there = os.path.dirname(there)
    # Under `sudo`, HOME may be another user's; folders of root there would obstruct that user.
    owner = os.stat(there).st_uid
    if owner not in (os.geteuid(), 0):
        raise PermissionError(f"{there} belongs to user {owner}: no folder is made there")
    os.makedirs(parent, exist_ok=True)
    try:  # noqa: SIM105 (importing contextlib takes 1 ms)
        os.mkdir(path, 0o700)  # noqa: PTH102
    except FileExistsError:  # another process made it
        pass
    return OpenFile(os.open, path, flags)


def _tidy(directory: int) -> None:
    """Remove the oldest files, and partial files of processes that ended while writing."""
    found = []
    for name in os.listdir(directory):
        try:
            changed = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mtime
            if name.endswith(_SUFFIXES):
                found.append((changed, name))
            elif name.endswith(_UNFINISHED) and changed < time.time() - 3600:
                os.unlink(name, dir_fd=directory)
        except FileNotFoundError:  # another process tidies too
            continue
    for _, name in sorted(found)[:-_KEPT]:
        try:
            os.unlink(name, dir_fd=directory)
        except FileNotFoundError:
            continue
