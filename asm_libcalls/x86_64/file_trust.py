"""Whether anybody else can have written a file whose content is executed, or can exchange it."""

# Importing pathlib takes 5 ms.
# ruff: noqa: PTH116, PTH120

from __future__ import annotations

import os
import stat

__all__ = ["check_own_file", "check_package_file", "lasting_path"]

_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def check_own_file(status: os.stat_result) -> None:
    """Raise PermissionError unless a file or folder is the user's, and written by nobody else."""
    if status.st_uid != os.geteuid():
        raise PermissionError(f"it belongs to user {status.st_uid}, not to {os.geteuid()}")
    if status.st_mode & _OTHERS:
        raise PermissionError(f"others may write it (mode {stat.S_IMODE(status.st_mode):o})")


def check_package_file(status: os.stat_result) -> None:
    """Raise PermissionError where others may write a file than may write the package's code."""
    # Installers obey the umask, which lets the group write in many places: the package's own code
    # too then, and that is being executed.
    own = os.stat(__file__)
    if status.st_uid not in (own.st_uid, os.geteuid(), 0):
        raise PermissionError(f"it belongs to user {status.st_uid}, not to the package's")
    allowed = own.st_mode & stat.S_IWGRP if status.st_gid == own.st_gid else 0
    if status.st_mode & _OTHERS & ~allowed:
        raise PermissionError(f"others may write it (mode {stat.S_IMODE(status.st_mode):o})")


def lasting_path(path: str, file: int, package: str) -> str:
    """Return the path of an open file if nobody else can put another file there, else "".

    Parameters
    ----------
    path : str
        What it was opened by.
    file : int
        Its descriptor.
    package : str
        The folder of the package: who can exchange what is in there can exchange this code too.
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
