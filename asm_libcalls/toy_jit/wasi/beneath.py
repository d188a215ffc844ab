"""Path resolution that never leaves its root folder, even while others change the file system.

A path is split into a folder and its last component. The folder is opened; system calls get its
descriptor and the last component, and do not follow that. The folder is opened by ``openat2`` with
RESOLVE_BENEATH: the kernel refuses each step that leaves the root (``..`` above it, absolute paths
and links, links to the outside), also if others rename and replace folders meanwhile. Without
``openat2``, this module opens one component after the other with O_PATH and O_NOFOLLOW. There
``..`` returns to a folder that is still open, also if a folder is moved meanwhile.

Source: openat2(2), open(2), path_resolution(7).
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat

from asm_libcalls.emitter import libc
from asm_libcalls.toy_jit.wasi.errors import Errno, WasiError
from asm_libcalls.toy_jit.wasi.guest_memory import MAXIMUM_PATH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_MAXIMUM_LINKS = 40  # Linux's

_OPENAT2 = 437  # the same number on every architecture
_RESOLVE_NO_MAGICLINKS, _RESOLVE_BENEATH = 0x02, 0x08
_ATTEMPTS = 64
_MAXIMUM_DEPTH = 256  # of a walk, which keeps each folder of the path open


class _OpenHow(ctypes.Structure):
    _fields_ = [
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    ]


class Place:
    """The target of a path: a folder and a name in it; a context manager that closes the folder."""

    __slots__ = ("folder", "is_folder", "name")

    def __init__(self, folder: int, name: bytes, is_folder: bool) -> None:
        self.folder = folder  # a file descriptor of the host, opened with O_PATH
        # One component, which may be a link that was not followed. `.` for the folder itself.
        self.name = name
        # whether the path ends in a slash, so that its target must be a folder
        self.is_folder = is_folder

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the folder."""
        os.close(self.folder)

    def link(self) -> bytes | None:
        """Return the content of a symbolic link, or None if it is something else."""
        try:
            return os.readlink(self.name, dir_fd=self.folder)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                return None
            raise

    def status(self) -> os.stat_result:
        """Return its status on the host; that of a link itself."""
        return os.stat(self.name, dir_fd=self.folder, follow_symlinks=False)

    def check_is_folder(self) -> None:
        """Raise WasiError(NOTDIR) if the path ends in a slash, and this is not a folder."""
        if self.is_folder and not stat.S_ISDIR(self.status().st_mode):
            raise WasiError(Errno.NOTDIR)


def locate(root: int, path: bytes, *, follow: bool, check: Callable[[], None]) -> Place:
    """Resolve a path beneath a folder, given by its file descriptor; the path never leaves it.

    With `follow`, the last component is followed if it is a symbolic link. It may be replaced by
    another link before the caller uses the result; the caller must not follow that. `check` is
    called before each retry that the kernel asks for; it may raise.

    Raise WasiError PERM if the path leads outside, and OSError for an error of the host.
    """
    for _ in range(_MAXIMUM_LINKS + 1):
        if not path:
            raise WasiError(Errno.NOENT)
        if path.startswith(b"/"):
            raise WasiError(Errno.PERM)
        if len(path) >= MAXIMUM_PATH:
            raise WasiError(Errno.NAMETOOLONG)
        stripped = path.rstrip(b"/")
        folder_path, _, name = stripped.rpartition(b"/")
        is_folder = len(stripped) < len(path)
        if name in (b".", b".."):
            folder_path, name, is_folder = stripped, b".", True
        place = Place(_open_folder(root, folder_path or b".", check), name, is_folder)
        try:
            target = place.link() if follow and name != b"." else None
        except BaseException:
            place.close()
            raise
        if target is None:
            return place
        place.close()
        if target.startswith(b"/"):
            raise WasiError(Errno.PERM)
        # The new path begins with the link's folder, which is resolved again: it may have changed.
        path = b"/".join(filter(None, (folder_path, target))) + (b"/" if is_folder else b"")
    raise WasiError(Errno.LOOP)


class _Kernel:
    """The system call ``openat2``, and whether this kernel has it."""

    def __init__(self) -> None:
        self._syscall = libc.prototype(
            "syscall",
            ctypes.c_long,
            ctypes.c_long,
            ctypes.c_long,
            ctypes.c_char_p,
            ctypes.c_void_p,
            ctypes.c_size_t,
        )
        self.has_openat2 = True

    def open_folder(self, root: int, path: bytes) -> int:
        """Open a folder beneath `root`, or raise OSError."""
        how = _OpenHow(_FOLDER, 0, _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS)
        fd = self._syscall(_OPENAT2, root, path, ctypes.addressof(how), ctypes.sizeof(how))
        if fd >= 0:
            return int(fd)
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


_kernel = _Kernel()


def _open_folder(root: int, path: bytes, check: Callable[[], None]) -> int:
    if not _kernel.has_openat2:
        return _walk(root, path)
    for attempt in range(_ATTEMPTS):
        try:
            return _kernel.open_folder(root, path)
        except OSError as error:
            if error.errno == errno.EXDEV:
                raise WasiError(Errno.PERM) from None
            if error.errno in (errno.ENOSYS, errno.EPERM, errno.E2BIG):
                # An old kernel, or a sandbox that refuses unknown system calls.
                _kernel.has_openat2 = error.errno == errno.EPERM
                return _walk(root, path)
            if error.errno != errno.EAGAIN or attempt == _ATTEMPTS - 1:
                raise
            check()  # a rename during a ".." step: the kernel asks to try again
    raise AssertionError


def _walk(root: int, path: bytes) -> int:
    """Open a folder beneath `root`, one component after the other."""
    opened: list[int] = []  # the folders of the path, the innermost last
    components = path.split(b"/")[::-1]
    links = 0
    try:
        while components:
            component = components.pop()
            if component in (b"", b"."):
                continue
            if component == b"..":
                if not opened:
                    raise WasiError(Errno.PERM)
                os.close(opened.pop())
                continue
            above = opened[-1] if opened else root
            fd = os.open(component, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
            try:
                mode = os.fstat(fd).st_mode
                if stat.S_ISDIR(mode):
                    if len(opened) == _MAXIMUM_DEPTH:
                        raise WasiError(Errno.NAMETOOLONG)
                    opened.append(fd)
                    continue
                if not stat.S_ISLNK(mode):
                    raise WasiError(Errno.NOTDIR)
                target = os.readlink(b"", dir_fd=fd)
            finally:
                if fd not in opened:
                    os.close(fd)
            links += 1
            if links > _MAXIMUM_LINKS:
                raise WasiError(Errno.LOOP)
            if target.startswith(b"/"):
                raise WasiError(Errno.PERM)
            components += target.split(b"/")[::-1]
        return os.open(b".", _FOLDER, dir_fd=opened[-1] if opened else root)
    finally:
        for fd in opened:
            os.close(fd)
