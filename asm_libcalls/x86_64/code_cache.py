"""The code cache: assembled images in files, as ``__pycache__`` is for Python.

An image is looked up in the package (a wheel brings images for the usual CPUs), then in the user's
cache folder. An image found in neither is assembled and written to the cache folder. Its key is a
hash of all its sources, of the ABI and of the CPU's features.

``ASM_LIBCALLS_CACHE`` names the cache folder; the default is ``asm_libcalls`` in
``$XDG_CACHE_HOME`` or ``~/.cache``. With ``off``, no image file is read or written, and PeachPy
assembles everything.

The content of these files is executed. So a file is used only if no other user can have written it
(in the package: no user who could not change the package's own code). A file or folder that fails
a check is not used; that is never an error.
"""

from __future__ import annotations

import os
import stat
import time
from _thread import RLock

from asm_libcalls.emitter import pages
from asm_libcalls.emitter.image import CODE_PAGE, link
from asm_libcalls.emitter.image_file import KEY_SIZE, digest, pack, unpack
from asm_libcalls.x86_64.image_kinds import IMAGES, LEVELS, MODULES, architecture_level, levels_of
from asm_libcalls.x86_64.file_trust import check_own_file, check_package_file, lasting_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asm_libcalls.emitter.image import Image
    from asm_libcalls.emitter.pages import LoadedImage

    Check = Callable[[os.stat_result], None]
    """Raises PermissionError if another user may have written a file or in a folder."""

__all__ = [
    "ENVIRONMENT_VARIABLE",
    "OFF",
    "content",
    "folder",
    "load",
    "refusals",
    "write_package_images",
]

ENVIRONMENT_VARIABLE = "ASM_LIBCALLS_CACHE"
OFF = "off"

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
_PACKAGE_IMAGES = f"{_PACKAGE}/x86_64/image-files"
_SUFFIX, _UNFINISHED = ".image", ".unfinished"
_ABI = b"x86-64 System V"

_LARGEST = 64 << 20
"""Bytes of the largest file that is read; an image has a few hundred thousand."""

_KEPT = 40
"""Most files in the cache folder; the oldest beyond it are removed."""

refusals: list[str] = []
"""Why this process did not use files and folders, for the backend report."""

_sources: dict[tuple[str, ...], tuple[bytes, float]] = {}  # their digest, the newest one's time
_started = time.time()

_assembling = [RLock()]
"""PeachPy keeps the instructions that it is given in a global: one thread at a time assembles."""


def _renew_lock() -> None:
    _assembling[0] = RLock()  # its owner may not be in the child


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def load(name: str, features: frozenset[str] = frozenset()) -> LoadedImage:
    """Put one of :data:`~asm_libcalls.x86_64.image_kinds.IMAGES` on executable pages.

    Parameters
    ----------
    name : str
    features : frozenset of str
        The features of this CPU.

    Raises
    ------
    Unavailable
        There is no file with the image, and no PeachPy to assemble it.
    OSError
        The system refuses executable memory.
    """
    features = _that_count(name, features)
    found = _find(name, features)
    if found is not None:
        return found.load()
    image, assembler, _ = _assemble(name, features)
    loaded = pages.load(image)
    loaded.origin = assembler
    return loaded


def content(name: str, features: frozenset[str], soname: str = "") -> tuple[Image, bytes]:
    """Return an image, and the content of its file, written or not. Nothing is loaded.

    With a `soname`, which the files of this cache do not have, the content is that of a library
    with this name.

    Raises
    ------
    Unavailable
        There is no file with the image, and no PeachPy to assemble it.
    """
    features = _that_count(name, features)
    found = _find(name, features)
    if found is not None:
        found.close()
        image, assembler, kept, features = (
            found.image, found.assembler, found.content, found.features,
        )  # fmt: skip
    else:
        image, assembler, kept = _assemble(name, features)
    if soname or not kept:
        key = _key(name, features) or bytes(KEY_SIZE)
        kept = _pack(name, image, key, assembler, features, soname)
    return image, kept


def _that_count(name: str, features: frozenset[str]) -> frozenset[str]:
    return features if IMAGES[name].for_cpu else frozenset()


class _Found:
    """An image in a trusted file, while the file is open."""

    __slots__ = ("assembler", "content", "features", "file", "image", "offset", "path")

    def __init__(self, path: str, file: int, content: bytes, key: bytes) -> None:
        self.features: frozenset[str] = frozenset()  # that it was made for
        self.image, self.offset, self.assembler = unpack(content, key)
        self.path = path
        self.file = file
        self.content = content

    def close(self) -> None:
        os.close(self.file)

    def load(self) -> LoadedImage:
        try:
            loaded = pages.load(
                self.image, self.file, self.offset, lasting_path(self.path, self.file, _PACKAGE)
            )
        finally:
            self.close()
        loaded.origin = f"image (file {self.path}, {self.assembler})"
        return loaded


def _find(name: str, features: frozenset[str]) -> _Found | None:
    if os.environ.get(ENVIRONMENT_VARIABLE) == OFF:
        return None
    levels = levels_of(features) if IMAGES[name].for_cpu else [""]
    for level in levels:
        its_features = LEVELS[level] if level else frozenset()
        key = _key(name, its_features)
        if key is not None:
            found = _find_in(_PACKAGE_IMAGES, _package_name(name, level), key, check_package_file)
            if found is not None:
                found.features = its_features
                return found
    cache, key = folder(), _key(name, features)
    if not cache or not key:
        return None
    found = _find_in(cache, _cached_name(name, key), key, check_own_file)
    if found is not None:
        found.features = features
    return found


def _assemble(name: str, features: frozenset[str]) -> tuple[Image, str, bytes]:
    """Return the image, the assembler's name, and the content of the cache file, if any."""
    from asm_libcalls.x86_64.find_assembler import check_assembler

    assembler = check_assembler()
    with _assembling[0]:
        image = link(IMAGES[name].assemble(features))
    kept = b""
    cache = folder()
    key = _key(name, features) if cache else None
    if key is not None:
        try:
            # If a source has changed since its import, the key is not that of the modules in
            # memory. They are imported shortly before this one; file times are accurate to 2 s.
            if _read_sources(IMAGES[name].folders, _PACKAGE)[1] > _started - 3:
                raise _JustChanged("nothing is kept, the package's sources have just been changed")
            packed = _pack(name, image, key, assembler, features)
            _keep(cache, _cached_name(name, key), packed)
            kept = packed
        except OSError as error:  # full disk, read-only home: the next process assembles again
            _refuse(cache, error)
            if not isinstance(error, _JustChanged):
                _warn(cache, error)
    return image, assembler, kept


class _JustChanged(OSError):
    """The sources were changed so lately that nothing is kept."""


_warned: list[str] = []


def _warn(cache: str, error: OSError) -> None:
    """Tell the user, once in a process, that each start will assemble the code again."""
    if _warned:
        return
    _warned.append(cache)
    import warnings
    from contextlib import suppress

    # Where warnings are errors, the import of a package that works is none.
    with suppress(RuntimeWarning):
        warnings.warn(
            f"asm_libcalls cannot keep its machine code, so each start assembles it again: "
            f"{cache}: {error.strerror or error}. Set {ENVIRONMENT_VARIABLE} to a folder that can "
            f"be written, or to {OFF}",
            RuntimeWarning,
            stacklevel=2,
        )


def _pack(
    name: str,
    image: Image,
    key: bytes,
    assembler: str,
    features: frozenset[str],
    soname: str = "",
) -> bytes:
    kind = IMAGES[name]
    level = architecture_level(features)
    return pack(image, key, assembler, level=level, exports=kind.exported(), soname=soname)


def folder() -> str:
    """Return the path of the user's cache folder, existing or not; "" if the cache is off."""
    asked = os.environ.get(ENVIRONMENT_VARIABLE, "")
    if asked == OFF:
        return ""
    if asked:
        return os.path.abspath(os.path.expanduser(asked))  # noqa: PTH100, PTH111 (5 ms for pathlib)
    # A set-user-ID program's environment comes from another user.
    if os.geteuid() != os.getuid() or os.getegid() != os.getgid():
        return ""
    home = os.environ.get("XDG_CACHE_HOME", "")
    if not home.startswith("/"):  # the XDG Base Directory Specification ignores relative paths
        home = os.path.expanduser("~/.cache")  # noqa: PTH111
    return f"{home}/asm_libcalls" if home.startswith("/") else ""


def write_package_images(target: str, package: str = _PACKAGE) -> list[str]:
    """Assemble every image for every level into a folder, for ``image-files`` of a wheel.

    Returns
    -------
    list of str
        The names of the files.
    """
    from asm_libcalls.x86_64.find_assembler import check_assembler

    assembler = check_assembler()
    written = []
    for name, kind in IMAGES.items():
        for level, features in LEVELS.items() if kind.for_cpu else (("", frozenset[str]()),):
            key = _key(name, features, package)
            if key is None:
                raise OSError(f"the sources of image {name!r} cannot be read in {package}")
            packed = _pack(name, link(kind.assemble(features)), key, assembler, features)
            with open(f"{target}/{_package_name(name, level)}", "wb") as file:  # noqa: PTH123
                file.write(packed)
            written.append(_package_name(name, level))
    return written


def _package_name(name: str, level: str) -> str:
    return f"{name}.{level}{_SUFFIX}" if level else f"{name}{_SUFFIX}"


def _cached_name(name: str, key: bytes) -> str:
    return f"{name}-{key.hex()}{_SUFFIX}"


def _key(name: str, features: frozenset[str], package: str = _PACKAGE) -> bytes | None:
    # PeachPy's version is not part of the key: an image serves without PeachPy.
    try:
        sources, _ = _read_sources(IMAGES[name].folders, package)
    except (OSError, ImportError):  # a zip file, .pyc files alone, or a Python without hashes
        return None
    parts = (name, " ".join(sorted(features)), str(CODE_PAGE))
    return digest(_ABI, sources, *(part.encode() for part in parts))


def _read_sources(folders: tuple[str, ...], package: str) -> tuple[bytes, float]:
    found = _sources.get((package, *folders))
    if found is None:
        parts: list[bytes] = []
        newest = 0.0
        for name in (*MODULES, *(name for inner in folders for name in _inside(package, inner))):
            descriptor = os.open(f"{package}/{name}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                newest = max(newest, os.fstat(descriptor).st_mtime)
                parts += (name.encode(), _read(descriptor))
            finally:
                os.close(descriptor)
        found = _sources[(package, *folders)] = digest(*parts), newest
    return found


def _inside(package: str, folder: str) -> Iterator[str]:
    """Yield the sources in a folder of the package, recursively, in a fixed order."""
    with os.scandir(f"{package}/{folder}") as entries:
        inside = sorted((entry.name, entry.is_dir()) for entry in entries)
    for name, is_folder in inside:
        path = f"{folder}/{name}"
        if is_folder and name.isidentifier() and name != "__pycache__":
            yield from _inside(package, path)
        elif name.endswith(".py"):
            yield path


def _read(descriptor: int) -> bytes:
    # At most the size when the file was opened; a shorter read fails the digest.
    size = min(os.fstat(descriptor).st_size, _LARGEST)
    content = os.read(descriptor, size)
    while len(content) < size:
        more = os.read(descriptor, size - len(content))
        if not more:
            break
        content += more
    return content


def _find_in(path: str, file_name: str, key: bytes, check: Check) -> _Found | None:
    """Open the file of an image, if it exists and can be trusted."""
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        _refuse(path, error)
        return None
    file = -1
    try:
        # Descriptors are checked, not names: their files cannot be replaced.
        check(os.fstat(directory))
        # O_NONBLOCK: opening a named pipe must not wait.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
        file = os.open(file_name, flags, dir_fd=directory)
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise PermissionError("it is no regular file")
        check(status)
        found = _Found(f"{path}/{file_name}", file, _read(file), key)
        file = -1
        return found
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        _refuse(f"{path}/{file_name}", error)
        return None
    finally:
        if file >= 0:
            os.close(file)
        os.close(directory)


def _keep(path: str, file_name: str, content: bytes) -> None:
    """Write a file into the cache folder, completely or not at all."""
    directory = _make_folder(path)
    unfinished = f".{file_name}.{os.getpid()}.{os.urandom(4).hex()}{_UNFINISHED}"
    try:
        check_own_file(os.fstat(directory))
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(unfinished, flags, 0o600, dir_fd=directory)
        try:
            try:
                os.fchmod(file, 0o600)  # independent of the umask
                rest = memoryview(content)
                while rest:
                    rest = rest[os.write(file, rest) :]
            finally:
                os.close(file)  # may report a full disk
            os.rename(unfinished, file_name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            os.unlink(unfinished, dir_fd=directory)
            raise
        _tidy(directory)
    finally:
        os.close(directory)


def _make_folder(path: str) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        pass
    parent = os.path.dirname(path)  # noqa: PTH120
    there = parent
    while not os.path.exists(there):  # noqa: PTH110
        there = os.path.dirname(there)  # noqa: PTH120
    # Under `sudo`, HOME may be another user's; folders of root there would obstruct that user.
    owner = os.stat(there).st_uid  # noqa: PTH116
    if owner not in (os.geteuid(), 0):
        raise PermissionError(f"{there} belongs to user {owner}: no folder is made there")
    os.makedirs(parent, exist_ok=True)  # noqa: PTH103
    try:  # noqa: SIM105 (importing contextlib takes 1 ms)
        os.mkdir(path, 0o700)  # noqa: PTH102
    except FileExistsError:  # another process made it
        pass
    return os.open(path, flags)


def _tidy(directory: int) -> None:
    """Remove the oldest files, and partial files of processes that ended while writing."""
    found = []
    for name in os.listdir(directory):
        try:
            changed = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mtime
            if name.endswith(_SUFFIX):
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


def _refuse(path: str, error: Exception) -> None:
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    refusal = f"{path}: {reason}"
    if refusal not in refusals:
        refusals.append(refusal)
