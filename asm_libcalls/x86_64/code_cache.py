"""The code cache: assembled images in files, as ``__pycache__`` is for Python.

An image is looked up in the package (a wheel brings images for the usual CPUs), then in the user's
cache folder. An image found in neither is assembled and written to the cache folder. Its key is a
hash of all its sources, of the ABI and of the CPU's features. The images of a wheel belong to its
modules, as extension modules do: their key has the package's version in place of the sources, so an
import does not look at these. So an edited source of an installed wheel has no effect until the
folder ``image-files`` is deleted.

``ASM_LIBCALLS_CACHE`` names the cache folder; the default is ``asm_libcalls`` in
``$XDG_CACHE_HOME`` or ``~/.cache``. With ``off``, no image file is read or written, and PeachPy
assembles everything.

``cache_files.py`` checks that files are safe to execute; ``source_digest.py`` has the hash of the
sources.
"""

from __future__ import annotations

import os
import time
from _thread import RLock

from asm_libcalls import __version__
from asm_libcalls.emitter import pages
from asm_libcalls.emitter.availability import Unavailable, warn
from asm_libcalls.emitter.image import CODE_PAGE, Image, link
from asm_libcalls.emitter.image_file import KEY_SIZE, digest, pack, unpack
from asm_libcalls.emitter.open_file import OpenFile
from asm_libcalls.emitter.pages import LoadedImage
from asm_libcalls.x86_64 import cache_files
from asm_libcalls.x86_64.cache_files import ENVIRONMENT_VARIABLE, OFF, folder, refusals
from asm_libcalls.x86_64.image_kinds import IMAGES, LEVELS, architecture_level, levels_of

__all__ = [
    "ENVIRONMENT_VARIABLE",
    "OFF",
    "content",
    "folder",
    "kept_images",
    "load",
    "refusals",
    "write_package_images",
]

_SUFFIX = ".image"
_ABI = b"x86-64 System V"

_started = time.time()

kept_images: dict[str, LoadedImage] = {}
"""Loaded images that are never unmapped, for an import that continues one that was interrupted."""

_assembling = [RLock()]
"""The lock for assembling: PeachPy collects the instructions in a global variable."""


def _renew_lock() -> None:
    _assembling[0] = RLock()  # its owner may not be in the child


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def load(name: str, features: frozenset[str] = frozenset()) -> LoadedImage:
    """Put one of :data:`~asm_libcalls.x86_64.image_kinds.IMAGES` on executable pages.

    It is unmapped when the result is dropped and was not kept.

    Raise Unavailable if there is no file with the image for these features of the CPU, and no
    PeachPy to assemble it, and OSError if the system refuses executable memory.
    """
    features = _that_count(name, features)
    found = _find(name, features)
    if found is not None:
        return found.load(IMAGES[name].as_library)
    image, assembler, _ = _assemble(name, features)
    loaded = pages.load(image, owned=True)
    loaded.origin = assembler
    return loaded


def content(name: str, features: frozenset[str], soname: str = "") -> tuple[Image, bytes]:
    """Return an image, and the content of its file, written or not. Nothing is loaded.

    With a `soname`, which the files of this cache do not have, the content is that of a library
    with this name. Raise Unavailable as :func:`load` does.
    """
    features = _that_count(name, features)
    found = _find(name, features)
    if found is not None:
        found.file.close()
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
    """An image in a file that was checked, while the file is open."""

    __slots__ = ("assembler", "content", "features", "file", "image", "offset", "path")

    def __init__(
        self, path: str, file: OpenFile, content: bytes, key: bytes, features: frozenset[str]
    ) -> None:
        self.image, self.offset, self.assembler = unpack(content, key)
        self.features = features  # that it was made for
        self.path = path
        self.file = file
        self.content = content

    def load(self, as_library: bool) -> LoadedImage:
        lasting = ""
        try:
            if as_library:
                number = self.file.number
                lasting = cache_files.lasting_path(self.path, number, cache_files.PACKAGE)
            loaded = pages.load(self.image, self.file.number, self.offset, lasting, owned=True)
        finally:
            self.file.close()
        loaded.origin = f"image (file {self.path}, {self.assembler})"
        return loaded


def _find(name: str, features: frozenset[str]) -> _Found | None:
    if os.environ.get(ENVIRONMENT_VARIABLE) == OFF:
        return None
    for level in levels_of(features) if IMAGES[name].for_cpu else [""]:
        its_features = LEVELS[level] if level else frozenset()
        file_name, folder_name = _package_name(name, level), cache_files.PACKAGE_IMAGES
        opened = cache_files.open_file(folder_name, file_name, cache_files.check_package_file)
        if opened is not None:
            key = _package_key(name, its_features)
            found = _unpack(f"{folder_name}/{file_name}", *opened, key, its_features)
            if found is not None:
                return found
    cache, cached_key = folder(), _key(name, features)
    if not cache or not cached_key:
        return None
    file_name = _cached_name(name, cached_key)
    opened = cache_files.open_file(cache, file_name, cache_files.check_own_file)
    return opened and _unpack(f"{cache}/{file_name}", *opened, cached_key, features)


def _unpack(
    path: str, file: OpenFile, content: bytes, key: bytes, features: frozenset[str]
) -> _Found | None:
    """Return the image in a file that was checked, if it has this key."""
    try:
        return _Found(path, file, content, key, features)
    except ValueError as error:
        file.close()
        cache_files.refuse(path, error)
        return None


def _assemble(name: str, features: frozenset[str]) -> tuple[Image, str, bytes]:
    """Return the image, the assembler's name, and the content of the cache file, if any."""
    from asm_libcalls.x86_64 import cache_writing, source_digest
    from asm_libcalls.x86_64.find_assembler import check_assembler

    try:
        assembler = check_assembler()
    except Unavailable as missing:
        raise Unavailable("; ".join([*refusals, str(missing)])) from missing
    with _assembling[0]:
        image = link(IMAGES[name].assemble(features))
    kept = b""
    cache = folder()
    key = _key(name, features) if cache else None
    if key is not None:
        try:
            # If a source has changed since its import, the key is not that of the modules in
            # memory. They are imported shortly before this one.
            if source_digest.changed_since(_started, IMAGES[name].folders):
                raise _JustChanged("nothing is kept, the package's sources have just been changed")
            packed = _pack(name, image, key, assembler, features)
            cache_writing.keep(cache, _cached_name(name, key), packed)
            kept = packed
        except OSError as error:  # full disk, read-only home: the next process assembles again
            cache_files.refuse(cache, error)
            if not isinstance(error, _JustChanged):
                warn(
                    "cannot keep its machine code, so each start assembles it again: "
                    f"{cache}: {error.strerror or error}. Set {ENVIRONMENT_VARIABLE} to a folder "
                    f"that can be written, or to {OFF}"
                )
    return image, assembler, kept


class _JustChanged(OSError):
    """The sources were changed so recently that the image is not kept."""


def _pack(
    name: str, image: Image, key: bytes, assembler: str, features: frozenset[str], soname: str = ""
) -> bytes:
    kind = IMAGES[name]
    level = architecture_level(features)
    return pack(image, key, assembler, level=level, exports=kind.exported(), soname=soname)


def write_package_images(target: str) -> list[str]:
    """Assemble every image for every level into a folder, for ``image-files`` of a wheel.

    Return the names of the files.
    """
    from asm_libcalls.x86_64.find_assembler import check_assembler

    assembler = check_assembler()
    files: dict[str, bytes] = {}
    for name, kind in IMAGES.items():
        for level, features in LEVELS.items() if kind.for_cpu else (("", frozenset[str]()),):
            key = _package_key(name, features)
            packed = _pack(name, link(kind.assemble(features)), key, assembler, features)
            files[_package_name(name, level)] = packed
    for file_name, content in files.items():
        with open(f"{target}/{file_name}", "wb") as file:  # noqa: PTH123
            file.write(content)
    return list(files)


def _package_name(name: str, level: str) -> str:
    return f"{name}.{level}{_SUFFIX}" if level else f"{name}{_SUFFIX}"


def _cached_name(name: str, key: bytes) -> str:
    return f"{name}-{key.hex()}{_SUFFIX}"


def _key(name: str, features: frozenset[str], package: str = cache_files.PACKAGE) -> bytes | None:
    from asm_libcalls.x86_64 import source_digest

    # PeachPy's version is not part of the key: an image serves without PeachPy.
    try:
        sources = source_digest.digest_of(IMAGES[name].folders, package)
    except (OSError, ImportError):  # a zip file, .pyc files alone, or a Python without hashes
        return None
    return _key_of(sources, name, features)


def _package_key(name: str, features: frozenset[str]) -> bytes:
    return _key_of(__version__.encode(), name, features)


def _key_of(origin: bytes, name: str, features: frozenset[str]) -> bytes:
    parts = (name, " ".join(sorted(features)), str(CODE_PAGE))
    return digest(_ABI, origin, *(part.encode() for part in parts))
