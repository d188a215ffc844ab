"""Constants and structures of the ABI of WASI preview 1.

Source: witx of wasi_snapshot_preview1. All is little-endian; a pointer or size has 32 bits.
"""

from __future__ import annotations

import stat
from struct import Struct

U32 = Struct("<I")
U64 = Struct("<Q")
IOVEC = Struct("<II")
"""Pointer, length."""
FDSTAT = Struct("<BxH4xQQ")
"""File type, flags, rights, inheriting rights."""
FILESTAT = Struct("<QQB7xQQQQQ")
"""Device, inode, file type, links, size, times of access, of modification, of status change."""
PRESTAT = Struct("<B3xI")
"""Tag (0: a folder), length of the name."""
DIRENT = Struct("<QQIB3x")
"""Next cookie, inode, length of the name that follows, file type."""
EVENT = Struct("<QHB5xQH6x")
"""User data, errno, type, available bytes, flags."""


class Right:
    """Rights of a descriptor: a bit for each call that it may be used in."""

    (
        FD_DATASYNC, FD_READ, FD_SEEK, FD_FDSTAT_SET_FLAGS, FD_SYNC, FD_TELL, FD_WRITE, FD_ADVISE,
        FD_ALLOCATE, PATH_CREATE_DIRECTORY, PATH_CREATE_FILE, PATH_LINK_SOURCE, PATH_LINK_TARGET,
        PATH_OPEN, FD_READDIR, PATH_READLINK, PATH_RENAME_SOURCE, PATH_RENAME_TARGET,
        PATH_FILESTAT_GET, PATH_FILESTAT_SET_SIZE, PATH_FILESTAT_SET_TIMES, FD_FILESTAT_GET,
        FD_FILESTAT_SET_SIZE, FD_FILESTAT_SET_TIMES, PATH_SYMLINK, PATH_REMOVE_DIRECTORY,
        PATH_UNLINK_FILE, POLL_FD_READWRITE,
    ) = (1 << bit for bit in range(28))  # fmt: skip


def _rights(names: str) -> int:
    return sum(getattr(Right, name) for name in names.split())


_EACH = _rights(
    "FD_FDSTAT_SET_FLAGS FD_SYNC FD_DATASYNC FD_FILESTAT_GET FD_FILESTAT_SET_TIMES "
    "POLL_FD_READWRITE"
)
STREAM_RIGHTS = _EACH | Right.FD_READ | Right.FD_WRITE
"""The rights that make sense for terminals and pipes."""
FILE_RIGHTS = STREAM_RIGHTS | _rights("FD_SEEK FD_TELL FD_ADVISE FD_ALLOCATE FD_FILESTAT_SET_SIZE")
"""The rights that make sense for files."""
DIRECTORY_RIGHTS = sum(
    (bit for name, bit in vars(Right).items() if name.startswith("PATH_")),
    _EACH | Right.FD_READDIR,
)
"""The rights that make sense for folders."""


class FileType:
    """Types of files."""

    UNKNOWN = 0
    BLOCK_DEVICE = 1
    CHARACTER_DEVICE = 2
    DIRECTORY = 3
    REGULAR_FILE = 4
    SOCKET_STREAM = 6
    SYMBOLIC_LINK = 7


_FILE_TYPES = {
    stat.S_IFBLK: FileType.BLOCK_DEVICE,
    stat.S_IFCHR: FileType.CHARACTER_DEVICE,
    stat.S_IFDIR: FileType.DIRECTORY,
    stat.S_IFREG: FileType.REGULAR_FILE,
    stat.S_IFSOCK: FileType.SOCKET_STREAM,
    stat.S_IFLNK: FileType.SYMBOLIC_LINK,
}


def filetype_of(mode: int) -> int:
    """Return the type of a file from its mode on the host; that of a FIFO is unknown."""
    return _FILE_TYPES.get(stat.S_IFMT(mode), FileType.UNKNOWN)


class FdFlag:
    """Flags of a descriptor."""

    APPEND = 1
    DSYNC = 2
    NONBLOCK = 4
    RSYNC = 8
    SYNC = 16
    ALL = 31


class OFlag:
    """Flags of ``path_open``."""

    CREAT = 1
    DIRECTORY = 2
    EXCL = 4
    TRUNC = 8
    ALL = 15


class FstFlag:
    """Flags of calls that set times: which ones, and to which value."""

    ATIM = 1
    ATIM_NOW = 2
    MTIM = 4
    MTIM_NOW = 8
    ALL = 15
