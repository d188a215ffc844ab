"""The files of the code cache: where they are, and which of them are safe to execute.

The content of these files is executed. So a file is read only if no other user can have written it
(in the package: no user who cannot modify the package's own code). A file or folder that fails a
check is not used; that is never an error.
"""

# Importing pathlib takes 5 ms.
# ruff: noqa: PTH100, PTH111, PTH116, PTH120

from __future__ import annotations

import os
import stat

from asm_libcalls.emitter.open_file import OpenFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Check = Callable[[os.stat_result], None]
    """Raises PermissionError if another user may have written a file or in a folder."""

ENVIRONMENT_VARIABLE = "ASM_LIBCALLS_CACHE"
OFF = "off"

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PACKAGE_IMAGES = f"{PACKAGE}/x86_64/image-files"
"""The folder of the images that a wheel brings."""

_LARGEST = 64 << 20
"""Bytes of the largest file that is read; an image has a few hundred thousand."""

_OTHERS = stat.S_IWGRP | stat.S_IWOTH

refusals: list[str] = []
"""Why this process did not use files and folders, for the backend report."""


def folder() -> str:
    """Return the path of the user's cache folder, existing or not; "" if the cache is off."""
    asked = os.environ.get(ENVIRONMENT_VARIABLE, "")
    if asked == OFF:
        return ""
    if asked:
        return os.path.abspath(os.path.expanduser(asked))
    # A set-user-ID program's environment comes from another user.
    if os.geteuid() != os.getuid() or os.getegid() != os.getgid():
        return ""
    home = os.environ.get("XDG_CACHE_HOME", "")
    if not home.startswith("/"):  # the XDG Base Directory Specification ignores relative paths
        home = os.path.expanduser("~/.cache")
    return f"{home}/asm_libcalls" if home.startswith("/") else ""


def open_file(path: str, file_name: str, check: Check) -> tuple[OpenFile, bytes] | None:
    """Open a file; return it and its content, or None if it does not exist or fails a check."""
    try:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        directory = OpenFile(os.open, path, flags)
    except FileNotFoundError:
        return None
    except OSError as error:
        refuse(path, error)
        return None
    try:
        # Descriptors are checked, not names: no other file can take the place of an open one.
        check(os.fstat(directory.number))
        # O_NONBLOCK: opening a named pipe must not wait.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
        file = OpenFile(os.open, file_name, flags, dir_fd=directory.number)
        status = os.fstat(file.number)
        if not stat.S_ISREG(status.st_mode):
            raise PermissionError("it is no regular file")
        check(status)
        return file, read(file.number)
    except FileNotFoundError:
        return None
    except OSError as error:
        refuse(f"{path}/{file_name}", error)
        return None
    finally:
        directory.close()


def read(descriptor: int) -> bytes:
    """Return the content of an open file."""
    # At most the size when the file was opened; a shorter read fails the digest.
    size = min(os.fstat(descriptor).st_size, _LARGEST)
    content = os.read(descriptor, size)
    while len(content) < size:
        more = os.read(descriptor, size - len(content))
        if not more:
            break
        content += more
    return content


def refuse(path: str, error: Exception) -> None:
    """Note why a file or folder is not used."""
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    refusal = f"{path}: {reason}"
    if refusal not in refusals:
        refusals.append(refusal)


def check_own_file(status: os.stat_result) -> None:
    """Raise PermissionError unless only the user owns and can write a file or folder."""
    if status.st_uid != os.geteuid():
        raise PermissionError(f"it belongs to user {status.st_uid}, not to {os.geteuid()}")
    if status.st_mode & _OTHERS:
        raise PermissionError(f"others may write it (mode {stat.S_IMODE(status.st_mode):o})")


def check_package_file(status: os.stat_result) -> None:
    """Raise PermissionError if a user who cannot modify the package can modify this file."""
    # Installers follow the umask, which often lets the group write. Then the group can write the
    # package's own code too, which is executed anyway.
    own = os.stat(__file__)
    if status.st_uid not in (own.st_uid, os.geteuid(), 0):
        raise PermissionError(f"it belongs to user {status.st_uid}, not to the package's")
    allowed = own.st_mode & stat.S_IWGRP if status.st_gid == own.st_gid else 0
    if status.st_mode & _OTHERS & ~allowed:
        raise PermissionError(f"others may write it (mode {stat.S_IMODE(status.st_mode):o})")


def lasting_path(path: str, file: int, package: str) -> str:
    """Return the path of an open file if no other user can replace the file there, else "".

    `file` is its descriptor. A user who can replace files in the package's folder can replace this
    code too.
    """
    try:
        real = os.path.realpath(path)
        if not os.path.samestat(os.stat(real), os.fstat(file)):
            return ""
        # Without links in the path, the package's own path has none either.
        root = package if real == path else os.path.realpath(package)
        return real if real.startswith(f"{root}/") or _lasts(os.path.dirname(real)) else ""
    except OSError:
        return ""


def _lasts(folder: str) -> bool:
    status = os.stat(folder)
    if status.st_uid not in (os.geteuid(), 0):
        return False
    if status.st_mode & _OTHERS and not status.st_mode & stat.S_ISVTX:
        return False
    return folder == "/" or _lasts(os.path.dirname(folder))
