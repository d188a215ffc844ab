"""Calls on paths, which are relative to a folder's descriptor and never leave that folder."""

from __future__ import annotations

import errno
import os
import stat
from time import monotonic

from asm_libcalls.toy_jit.wasi.abi import FdFlag, FileType, OFlag, Right
from asm_libcalls.toy_jit.wasi.beneath import locate
from asm_libcalls.toy_jit.wasi.descriptor_calls import filestat, new_times
from asm_libcalls.toy_jit.wasi.descriptors import HostDescriptor
from asm_libcalls.toy_jit.wasi.errors import Errno, WasiError
from asm_libcalls.toy_jit.wasi.nonblocking import SLICE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asm_libcalls.toy_jit.wasi.beneath import Place
    from asm_libcalls.toy_jit.wasi.call import Call, CallTable

_FOLLOW = 1

_HOST_FLAGS = (
    (FdFlag.APPEND, os.O_APPEND),
    (FdFlag.DSYNC, os.O_DSYNC),
    (FdFlag.RSYNC, os.O_RSYNC),
    (FdFlag.SYNC, os.O_SYNC),
)
_OPEN_FLAGS = (
    (OFlag.CREAT, os.O_CREAT),
    (OFlag.DIRECTORY, os.O_DIRECTORY),
    (OFlag.EXCL, os.O_EXCL),
    (OFlag.TRUNC, os.O_TRUNC),
)
# HostDescriptor waits before it reads or writes, so that a time limit stops a guest; so the host's
# descriptor must not block. Nor may opening a FIFO block, or a terminal become the controlling one.
_ALWAYS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


def _locate(
    call: Call, fd: int, rights: int, path: int, length: int, *, lookup: int | None = None
) -> Place:
    """Resolve a path; without `lookup`, the flags of some calls, its last link is not followed."""
    folder = call.descriptors.folder(fd, rights)
    name = call.memory.path(path, length)
    # A slash at the end means the folder that the link refers to.
    follow = lookup is not None and bool(lookup & _FOLLOW or name.endswith(b"/"))
    return locate(folder.host, name, follow=follow, check=call.check)


def _path_open(
    call: Call,
    fd: int,
    lookup: int,
    path: int,
    length: int,
    oflags: int,
    rights: int,
    inheriting: int,
    fdflags: int,
    result: int,
) -> None:
    folder = call.descriptors.folder(fd, Right.PATH_OPEN)
    if oflags & ~OFlag.ALL or fdflags & ~FdFlag.ALL:
        raise WasiError(Errno.INVAL)
    if oflags & OFlag.CREAT:
        folder.need(Right.PATH_CREATE_FILE)
        if oflags & OFlag.DIRECTORY:
            raise WasiError(Errno.INVAL)
    if oflags & OFlag.TRUNC:
        folder.need(Right.PATH_FILESTAT_SET_SIZE)
    call.memory.range(result, 4)
    reads = bool(rights & (Right.FD_READ | Right.FD_READDIR))
    writes = bool(rights & Right.FD_WRITE)
    flags = os.O_RDWR if reads and writes else os.O_WRONLY if writes else os.O_RDONLY
    flags |= sum(host for flag, host in _OPEN_FLAGS if oflags & flag)
    for flag, host in _HOST_FLAGS:
        flags |= host if fdflags & flag else 0
    exclusive = OFlag.CREAT | OFlag.EXCL
    name = call.memory.path(path, length)
    follows = bool(lookup & _FOLLOW or name.endswith(b"/")) and oflags & exclusive != exclusive
    with locate(folder.host, name, follow=follows, check=call.check) as place:
        if place.is_folder:
            if oflags & OFlag.CREAT and place.name != b".":
                raise WasiError(Errno.ISDIR)
            flags |= os.O_DIRECTORY
        host = _open(call, place, flags | _ALWAYS, waits=not fdflags & FdFlag.NONBLOCK)
    # As in Wasmtime, the requested rights decide about reading and writing only: programs request
    # fewer than they use. Rights that a folder has dropped are not granted through it.
    opened = HostDescriptor(host, owned=True, readable=reads, writable=writes, flags=fdflags)
    opened.rights &= folder.inheriting
    if opened.filetype == FileType.DIRECTORY:
        opened.inheriting = folder.inheriting
    call.memory.write_u32(result, call.descriptors.add(opened))


def _open(call: Call, place: Place, flags: int, *, waits: bool) -> int:
    while True:
        try:
            return os.open(place.name, flags, 0o666, dir_fd=place.folder)
        except OSError as error:
            # A FIFO that is opened for writing and has no reader.
            is_fifo = error.errno == errno.ENXIO and stat.S_ISFIFO(place.status().st_mode)
            if not (waits and is_fifo):
                raise
        until = monotonic() + SLICE
        while (left := until - monotonic()) > 0:
            call.wait({}, left)
        call.check()


def _path_create_directory(call: Call, fd: int, path: int, length: int) -> None:
    with _locate(call, fd, Right.PATH_CREATE_DIRECTORY, path, length) as place:
        os.mkdir(place.name, 0o777, dir_fd=place.folder)


def _path_filestat_get(
    call: Call, fd: int, lookup: int, path: int, length: int, result: int
) -> None:
    with _locate(call, fd, Right.PATH_FILESTAT_GET, path, length, lookup=lookup) as place:
        place.check_is_folder()
        filestat(call, result, place.status())


def _path_filestat_set_times(
    call: Call, fd: int, lookup: int, path: int, length: int, atim: int, mtim: int, flags: int
) -> None:
    with _locate(call, fd, Right.PATH_FILESTAT_SET_TIMES, path, length, lookup=lookup) as place:
        place.check_is_folder()
        times = new_times(place.status(), atim, mtim, flags)
        os.utime(place.name, ns=times, dir_fd=place.folder, follow_symlinks=False)


def _path_link(
    call: Call,
    old_fd: int,
    lookup: int,
    old_path: int,
    old_length: int,
    new_fd: int,
    new_path: int,
    new_length: int,
) -> None:
    if lookup & _FOLLOW:
        raise WasiError(Errno.INVAL)
    with (
        _locate(call, old_fd, Right.PATH_LINK_SOURCE, old_path, old_length) as old,
        _locate(call, new_fd, Right.PATH_LINK_TARGET, new_path, new_length) as new,
    ):
        old.check_is_folder()
        new.check_is_folder()  # only a folder that exists may have a slash at its end
        os.link(
            old.name, new.name, src_dir_fd=old.folder, dst_dir_fd=new.folder, follow_symlinks=False
        )


def _path_readlink(
    call: Call, fd: int, path: int, length: int, buffer: int, size: int, result: int
) -> None:
    with _locate(call, fd, Right.PATH_READLINK, path, length) as place:
        place.check_is_folder()
        target = os.readlink(place.name, dir_fd=place.folder)[:size]
    call.memory.range(result, 4)
    call.memory.range(buffer, size)[: len(target)] = target
    call.memory.write_u32(result, len(target))


def _path_remove_directory(call: Call, fd: int, path: int, length: int) -> None:
    with _locate(call, fd, Right.PATH_REMOVE_DIRECTORY, path, length) as place:
        os.rmdir(place.name, dir_fd=place.folder)


def _path_rename(
    call: Call, fd: int, path: int, length: int, new_fd: int, new_path: int, new_length: int
) -> None:
    with (
        _locate(call, fd, Right.PATH_RENAME_SOURCE, path, length) as old,
        _locate(call, new_fd, Right.PATH_RENAME_TARGET, new_path, new_length) as new,
    ):
        old.check_is_folder()
        if new.is_folder and not stat.S_ISDIR(old.status().st_mode):
            raise WasiError(Errno.NOTDIR)
        os.rename(old.name, new.name, src_dir_fd=old.folder, dst_dir_fd=new.folder)


def _path_symlink(
    call: Call, target: int, target_length: int, fd: int, path: int, length: int
) -> None:
    old = call.memory.path(target, target_length)
    if not old:
        raise WasiError(Errno.NOENT)
    if old.startswith(b"/"):  # it leads outside; a relative one is checked when it is followed
        raise WasiError(Errno.PERM)
    with _locate(call, fd, Right.PATH_SYMLINK, path, length) as place:
        place.check_is_folder()  # only a folder that exists may have a slash at its end
        os.symlink(old, place.name, dir_fd=place.folder)


def _path_unlink_file(call: Call, fd: int, path: int, length: int) -> None:
    with _locate(call, fd, Right.PATH_UNLINK_FILE, path, length) as place:
        place.check_is_folder()
        os.unlink(place.name, dir_fd=place.folder)


CALLS: CallTable = {
    "path_create_directory": (_path_create_directory, "iii"),
    "path_filestat_get": (_path_filestat_get, "iiiii"),
    "path_filestat_set_times": (_path_filestat_set_times, "iiiiIIi"),
    "path_link": (_path_link, "iiiiiii"),
    "path_open": (_path_open, "iiiiiIIii"),
    "path_readlink": (_path_readlink, "iiiiii"),
    "path_remove_directory": (_path_remove_directory, "iii"),
    "path_rename": (_path_rename, "iiiiii"),
    "path_symlink": (_path_symlink, "iiiii"),
    "path_unlink_file": (_path_unlink_file, "iii"),
}
