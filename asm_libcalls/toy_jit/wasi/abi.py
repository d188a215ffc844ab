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

    FD_DATASYNC = 1 << 0
    FD_READ = 1 << 1
    FD_SEEK = 1 << 2
    FD_FDSTAT_SET_FLAGS = 1 << 3
    FD_SYNC = 1 << 4
    FD_TELL = 1 << 5
    FD_WRITE = 1 << 6
    FD_ADVISE = 1 << 7
    FD_ALLOCATE = 1 << 8
    PATH_CREATE_DIRECTORY = 1 << 9
    PATH_CREATE_FILE = 1 << 10
    PATH_LINK_SOURCE = 1 << 11
    PATH_LINK_TARGET = 1 << 12
    PATH_OPEN = 1 << 13
    FD_READDIR = 1 << 14
    PATH_READLINK = 1 << 15
    PATH_RENAME_SOURCE = 1 << 16
    PATH_RENAME_TARGET = 1 << 17
    PATH_FILESTAT_GET = 1 << 18
    PATH_FILESTAT_SET_SIZE = 1 << 19
    PATH_FILESTAT_SET_TIMES = 1 << 20
    FD_FILESTAT_GET = 1 << 21
    FD_FILESTAT_SET_SIZE = 1 << 22
    FD_FILESTAT_SET_TIMES = 1 << 23
    PATH_SYMLINK = 1 << 24
    PATH_REMOVE_DIRECTORY = 1 << 25
    PATH_UNLINK_FILE = 1 << 26
    POLL_FD_READWRITE = 1 << 27


_EACH = (
    Right.FD_FDSTAT_SET_FLAGS
    | Right.FD_SYNC
    | Right.FD_DATASYNC
    | Right.FD_FILESTAT_GET
    | Right.FD_FILESTAT_SET_TIMES
    | Right.POLL_FD_READWRITE
)
STREAM_RIGHTS = _EACH | Right.FD_READ | Right.FD_WRITE
"""The rights that make sense for terminals and pipes."""
FILE_RIGHTS = (
    STREAM_RIGHTS
    | Right.FD_SEEK
    | Right.FD_TELL
    | Right.FD_ADVISE
    | Right.FD_ALLOCATE
    | Right.FD_FILESTAT_SET_SIZE
)
"""The rights that make sense for files."""
DIRECTORY_RIGHTS = (
    _EACH
    | Right.FD_READDIR
    | Right.PATH_CREATE_DIRECTORY
    | Right.PATH_CREATE_FILE
    | Right.PATH_LINK_SOURCE
    | Right.PATH_LINK_TARGET
    | Right.PATH_OPEN
    | Right.PATH_READLINK
    | Right.PATH_RENAME_SOURCE
    | Right.PATH_RENAME_TARGET
    | Right.PATH_FILESTAT_GET
    | Right.PATH_FILESTAT_SET_SIZE
    | Right.PATH_FILESTAT_SET_TIMES
    | Right.PATH_SYMLINK
    | Right.PATH_REMOVE_DIRECTORY
    | Right.PATH_UNLINK_FILE
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
