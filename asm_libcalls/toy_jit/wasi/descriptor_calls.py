"""Calls on descriptors: reading and writing, status of descriptors and files, lists of folders."""

from __future__ import annotations

import os
import time

from asm_libcalls.toy_jit.wasi import abi
from asm_libcalls.toy_jit.wasi.abi import FdFlag, FileType, FstFlag, Right
from asm_libcalls.toy_jit.wasi.errors import Errno, WasiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from asm_libcalls.toy_jit.wasi.call import Call, CallTable
    from asm_libcalls.toy_jit.wasi.descriptors import HostDescriptor

_U64 = 0xFFFF_FFFF_FFFF_FFFF
_ADVICE = (
    os.POSIX_FADV_NORMAL,
    os.POSIX_FADV_SEQUENTIAL,
    os.POSIX_FADV_RANDOM,
    os.POSIX_FADV_WILLNEED,
    os.POSIX_FADV_DONTNEED,
    os.POSIX_FADV_NOREUSE,
)


def signed_offset(offset: int) -> int:
    """Return an offset or size in a file; refuse one that the host's signed type cannot have."""
    if offset >= 1 << 63:
        raise WasiError(Errno.INVAL)
    return offset


# -- reading and writing


def _fd_read(call: Call, fd: int, *rest: int) -> None:
    _transfer(call, call.descriptors.get(fd, Right.FD_READ).read, *rest)


def _fd_write(call: Call, fd: int, *rest: int) -> None:
    _transfer(call, call.descriptors.get(fd, Right.FD_WRITE).write, *rest)


def _transfer(
    call: Call, transfer: Callable[..., int], vectors: int, count: int, *offset_and_result: int
) -> None:
    """Read or write; `fd_pread` and `fd_pwrite` have an offset in the file before the result's."""
    *offset, result = offset_and_result
    buffers = call.memory.buffers(vectors, count)
    call.memory.range(result, 4)  # before anything is read or written
    call.memory.write_u32(result, transfer(call, buffers, *map(signed_offset, offset)))


def _fd_seek(call: Call, fd: int, offset: int, whence: int, result: int) -> None:
    descriptor = call.descriptors.file(fd, Right.FD_SEEK)
    offset -= offset >> 63 << 64  # signed
    call.memory.range(result, 8)
    call.memory.write_u64(result, descriptor.seek(offset, whence))


def _fd_tell(call: Call, fd: int, result: int) -> None:
    call.memory.write_u64(result, call.descriptors.file(fd, Right.FD_TELL).seek(0, 1))


def _fd_advise(call: Call, fd: int, offset: int, length: int, advice: int) -> None:
    descriptor = call.descriptors.file(fd, Right.FD_ADVISE)
    if advice >= len(_ADVICE):
        raise WasiError(Errno.INVAL)
    start, size = signed_offset(offset), signed_offset(length)
    os.posix_fadvise(descriptor.host, start, size, _ADVICE[advice])


def _fd_allocate(call: Call, fd: int, offset: int, length: int) -> None:
    descriptor = call.descriptors.file(fd, Right.FD_ALLOCATE)
    descriptor.need(Right.FD_WRITE)
    os.posix_fallocate(descriptor.host, signed_offset(offset), signed_offset(length))


# -- descriptors themselves


def _fd_fdstat_get(call: Call, fd: int, result: int) -> None:
    d = call.descriptors[fd]
    call.memory.write(abi.FDSTAT, result, d.filetype, d.flags, d.rights, d.inheriting)


def _fd_fdstat_set_flags(call: Call, fd: int, flags: int) -> None:
    descriptor = call.descriptors.get(fd, Right.FD_FDSTAT_SET_FLAGS)
    if flags & ~FdFlag.ALL:
        raise WasiError(Errno.INVAL)
    descriptor.set_flags(flags)


def _fd_fdstat_set_rights(call: Call, fd: int, rights: int, inheriting: int) -> None:
    descriptor = call.descriptors[fd]
    if rights & ~descriptor.rights or inheriting & ~descriptor.inheriting:
        raise WasiError(Errno.NOTCAPABLE)
    descriptor.rights, descriptor.inheriting = rights, inheriting


def _preopened(call: Call, fd: int) -> bytes:
    name = call.descriptors[fd].preopened
    if name is None:
        raise WasiError(Errno.BADF)
    return name


def _fd_prestat_get(call: Call, fd: int, result: int) -> None:
    call.memory.write(abi.PRESTAT, result, 0, len(_preopened(call, fd)))


def _fd_prestat_dir_name(call: Call, fd: int, buffer: int, length: int) -> None:
    name = _preopened(call, fd)
    if length < len(name):
        raise WasiError(Errno.NAMETOOLONG)
    call.memory.range(buffer, len(name))[:] = name


# -- status of files


def filestat(call: Call, result: int, status: os.stat_result) -> None:
    """Write the host's status of a file."""
    call.memory.write(
        abi.FILESTAT,
        result,
        status.st_dev & _U64,
        status.st_ino & _U64,
        abi.filetype_of(status.st_mode),
        status.st_nlink & _U64,
        status.st_size & _U64,
        status.st_atime_ns & _U64,
        status.st_mtime_ns & _U64,
        status.st_ctime_ns & _U64,
    )


def new_times(status: os.stat_result, atim: int, mtim: int, flags: int) -> tuple[int, int]:
    """Return the times of access and modification to set, from flags and values."""
    both = (FstFlag.ATIM | FstFlag.ATIM_NOW, FstFlag.MTIM | FstFlag.MTIM_NOW)
    if flags & ~FstFlag.ALL or any(flags & mask == mask for mask in both):
        raise WasiError(Errno.INVAL)
    now = time.time_ns()
    times = []
    for asked, for_now, value, old in (
        (FstFlag.ATIM, FstFlag.ATIM_NOW, atim, status.st_atime_ns),
        (FstFlag.MTIM, FstFlag.MTIM_NOW, mtim, status.st_mtime_ns),
    ):
        times.append(signed_offset(value) if flags & asked else now if flags & for_now else old)
    return times[0], times[1]


def _fd_filestat_get(call: Call, fd: int, result: int) -> None:
    descriptor = call.descriptors.get(fd, Right.FD_FILESTAT_GET)
    status = descriptor.status()
    if status is not None:
        filestat(call, result, status)
    else:
        call.memory.write(abi.FILESTAT, result, 0, 0, descriptor.filetype, 0, 0, 0, 0, 0)


def _fd_filestat_set_size(call: Call, fd: int, size: int) -> None:
    descriptor = call.descriptors.file(fd, Right.FD_FILESTAT_SET_SIZE)
    descriptor.need(Right.FD_WRITE)
    os.ftruncate(descriptor.host, signed_offset(size))


def _fd_filestat_set_times(call: Call, fd: int, atim: int, mtim: int, flags: int) -> None:
    descriptor = call.descriptors.file(fd, Right.FD_FILESTAT_SET_TIMES)
    os.utime(descriptor.host, ns=new_times(descriptor.status(), atim, mtim, flags))


# -- folders


def _list(folder: HostDescriptor) -> list[tuple[bytes, int, int]]:
    """List names, inodes and types, "." and ".." first.

    Both have the folder's own inode, because a guest must not learn of the folder above.
    """
    own = folder.status().st_ino
    entries = [(name, own, FileType.DIRECTORY) for name in (b".", b"..")]
    with os.scandir(folder.host) as found:
        for entry in found:
            if entry.is_symlink():
                filetype = FileType.SYMBOLIC_LINK
            elif entry.is_dir(follow_symlinks=False):
                filetype = FileType.DIRECTORY
            elif entry.is_file(follow_symlinks=False):
                filetype = FileType.REGULAR_FILE
            else:
                filetype = FileType.UNKNOWN
            entries.append((os.fsencode(entry.name), entry.inode(), filetype))
    return entries


def _fd_readdir(call: Call, fd: int, buffer: int, length: int, cookie: int, result: int) -> None:
    folder = call.descriptors.folder(fd, Right.FD_READDIR)
    target = call.memory.range(buffer, length)
    call.memory.range(result, 4)
    if cookie == 0 or not folder.listing:
        folder.listing = _list(folder)
    used = 0
    for i, (name, inode, filetype) in enumerate(folder.listing[cookie:], cookie + 1):
        entry = abi.DIRENT.pack(i, inode & _U64, len(name), filetype) + name
        part = entry[: length - used]  # the last one may be truncated: then the guest asks again
        target[used : used + len(part)] = part
        used += len(part)
        if used == length:
            break
    call.memory.write_u32(result, used)


# -- sockets, which cannot be opened


def _no_socket(call: Call, fd: int, *_: int) -> None:
    call.descriptors.get(fd, 0)
    raise WasiError(Errno.NOTSOCK)


CALLS: CallTable = {
    "fd_advise": (_fd_advise, "iIIi"),
    "fd_allocate": (_fd_allocate, "iII"),
    "fd_close": (lambda call, fd: call.descriptors.close(fd), "i"),
    "fd_datasync": (lambda call, fd: call.descriptors.get(fd, Right.FD_DATASYNC).sync(), "i"),
    "fd_fdstat_get": (_fd_fdstat_get, "ii"),
    "fd_fdstat_set_flags": (_fd_fdstat_set_flags, "ii"),
    "fd_fdstat_set_rights": (_fd_fdstat_set_rights, "iII"),
    "fd_filestat_get": (_fd_filestat_get, "ii"),
    "fd_filestat_set_size": (_fd_filestat_set_size, "iI"),
    "fd_filestat_set_times": (_fd_filestat_set_times, "iIIi"),
    "fd_pread": (_fd_read, "iiiIi"),
    "fd_prestat_get": (_fd_prestat_get, "ii"),
    "fd_prestat_dir_name": (_fd_prestat_dir_name, "iii"),
    "fd_pwrite": (_fd_write, "iiiIi"),
    "fd_read": (_fd_read, "iiii"),
    "fd_readdir": (_fd_readdir, "iiiIi"),
    "fd_renumber": (lambda call, *fds: call.descriptors.renumber(*fds), "ii"),
    "fd_seek": (_fd_seek, "iIii"),
    "fd_sync": (lambda call, fd: call.descriptors.get(fd, Right.FD_SYNC).sync(), "i"),
    "fd_tell": (_fd_tell, "ii"),
    "fd_write": (_fd_write, "iiii"),
    "sock_accept": (_no_socket, "iii"),
    "sock_recv": (_no_socket, "iiiiii"),
    "sock_send": (_no_socket, "iiiii"),
    "sock_shutdown": (_no_socket, "ii"),
}
