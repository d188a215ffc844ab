"""Checks whether another user can have written, or can replace, a file that is executed."""

# Importing pathlib takes 5 ms.
# ruff: noqa: PTH116, PTH120

from __future__ import annotations

import os
import stat

__all__ = ["check_own_file", "check_package_file", "lasting_path"]

_OTHERS = stat.S_IWGRP | stat.S_IWOTH


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

    Parameters
    ----------
    path : str
        The path that it was opened by.
    file : int
        Its descriptor.
    package : str
        The package's folder. A user who can replace files there can replace this code too.
    """
    try:
        real = os.path.realpath(path)
        if not os.path.samestat(os.stat(real), os.fstat(file)):
            return ""
        in_package = real.startswith(f"{os.path.realpath(package)}/")
        return real if in_package or _lasts(os.path.dirname(real)) else ""
    except OSError:
        return ""


def _lasts(folder: str) -> bool:
    status = os.stat(folder)
    if status.st_uid not in (os.geteuid(), 0):
        return False
    if status.st_mode & _OTHERS and not status.st_mode & stat.S_ISVTX:
        return False
    return folder == "/" or _lasts(os.path.dirname(folder))
