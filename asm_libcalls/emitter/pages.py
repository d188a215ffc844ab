"""Loads an image on pages that are never writable and executable at the same time.

The steps are those of CPython's ``jit.c``: *allocate* (read and write), *copy*, *seal* (read and
execute). If the system refuses to make written memory executable (``PR_SET_MDWE``, hardened
services), the code is written to a memfd, which is mapped read and execute. If the system refuses
that too, an OSError is raised, and the fallback serves.

An image that is in a file is executed from the file: loaded as a shared object
(``shared_object.py``) or, failing that, mapped read and execute. Processes share these pages, which
are writable in none.

A loaded image stays until the process ends, because function objects may call it, unless its
loader owns it. Then it is unmapped when its :class:`LoadedImage` is dropped. Before the owner
publishes addresses in it, it keeps the image for ever (:meth:`LoadedImage.keep`). An owner that
knows every reference unloads the image instead (:func:`unload`).
"""

from __future__ import annotations

import os

from asm_libcalls.emitter import code_names, libc
from asm_libcalls.emitter.image import CODE_PAGE, Image
from asm_libcalls.emitter.open_file import OpenFile, check_mapped
from asm_libcalls.owned import Released
from asm_libcalls.signatures import c_types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from functools import partial

    from asm_libcalls.emitter.code_names import Function
else:
    from _functools import partial  # importing functools takes longer


class LoadedImage(Released):
    """An image in memory."""

    __slots__ = ("address", "image", "mapping", "origin", "refusals", "way")

    def __init__(self, image: Image, address: int, way: str) -> None:
        # address and length of its pages; empty when it is unmapped, and where others own them
        self.mapping: list[tuple[int, int]] = []
        super().__init__(partial(_unmap, self.mapping))
        self.image = image
        self.address = address  # address of its code
        self.way = way  # how its pages were made: `"library"`, `"file"`, `"anonymous"` or `"memfd"`
        self.refusals: list[str] = []  # why it was not loaded in a better way
        # the assembler or the file that the code came from, for display; "" for code composed at
        # run time
        self.origin = ""

    def routine(self, name: str) -> int:
        """Return the address of a routine."""
        return self.address + self.image.routines[name][0]

    def code(self, name: str) -> bytes:
        """Return the bytes of a routine as they are in memory."""
        return libc.string_at(self.routine(name), self.image.routines[name][1])

    def slot(self, name: str) -> int:
        """Read a slot."""
        return int(c_types.c_uint64.from_address(self.address + self.image.slots[name]).value)

    def set_slot(self, name: str, value: int) -> None:
        """Write a slot; a slot that the image does not have is ignored."""
        offset = self.image.slots.get(name)
        if offset is not None:
            c_types.c_uint64.from_address(self.address + offset).value = value


def load(
    image: Image,
    file: int = -1,
    offset: int = 0,
    path: str = "",
    *,
    announced: bool = True,
    owned: bool = False,
) -> LoadedImage:
    """Put an image on executable pages, or raise OSError if the system refuses in every way.

    `file` is the descriptor of a file that contains its code, or -1, and `offset` the place of the
    code in it, a multiple of the page size. `path` is the file's if it is a shared object and no
    other user can replace it. The routines are `announced` to ``code_names``, or the caller does
    that. If it is `owned`, it is unmapped when the result is dropped and was not kept; else never.
    """
    assert len(image.code) % CODE_PAGE == 0
    if len(image.code) % libc.PAGE_SIZE:
        raise OSError(f"pages of {libc.PAGE_SIZE} bytes: images are made for {CODE_PAGE}")
    loaded = LoadedImage(image, 0, "")
    _load(loaded, file, offset, path)
    if announced:
        is_library = loaded.way == "library"
        code_names.announce(loaded.address, partial(_functions, image, loaded.address, is_library))
    if not owned:
        loaded.keep()
    return loaded


def _functions(image: Image, address: int, is_library: bool) -> list[Function]:
    """List the routines whose frames are known, for ``code_names``, which outlives LoadedImages."""
    found = []
    for name, frames in image.frames.items():
        at, size = image.routines[name]
        known = None if is_library else frames  # unwinders find the file's .eh_frame
        found.append((address + at, size, code_names.title(name), known))
    return found


def _load(loaded: LoadedImage, file: int, offset: int, path: str) -> None:
    image, refusals = loaded.image, loaded.refusals
    # perf names anonymous memory alone
    if file >= 0 and not code_names.are_asked_for(code_names.PERF_VARIABLE):
        if path:
            try:
                from asm_libcalls.emitter import shared_object

                loaded.address = shared_object.load(path, offset, image.code, image.size)
                loaded.way = "library"
                return
            except (OSError, AttributeError) as refusal:
                # already loaded, or a C library without dlinfo
                refusals.append(f"no library: {refusal}")
        try:
            _load_file(loaded, file, offset)
            loaded.way = "file"
            return
        except OSError as refusal:  # a file system mounted noexec, or the file has changed
            refusals.append(f"no file: {refusal}")
    try:
        _load_anonymous(loaded)
        loaded.way = "anonymous"
    except OSError as refusal:
        refusals.append(f"no anonymous memory: {refusal}")
        try:
            _load_memfd(loaded)
            loaded.way = "memfd"
        except OSError as second_refusal:
            raise OSError(
                second_refusal.errno,
                f"the system refuses executable memory ({refusal}; {second_refusal})",
            ) from refusal


def unload(loaded: LoadedImage) -> None:
    """Unmap an image. Nothing may call into it or refer to it any more. Twice is a no-op."""
    assert loaded.way != "library"
    _unmap(loaded.mapping)


def _unmap(mapping: list[tuple[int, int]]) -> None:
    if mapping:
        code_names.withdraw(mapping[0][0])
        libc.munmap(mapping)


def _reserve(loaded: LoadedImage) -> None:
    """Map pages for code and data at once, which keeps the distance that the image has."""
    length = -(-max(loaded.image.size, 1) // libc.PAGE_SIZE) * libc.PAGE_SIZE
    protection = libc.PROT_READ | libc.PROT_WRITE
    loaded.address = libc.mmap(length, protection, into=loaded.mapping)


def _load_anonymous(loaded: LoadedImage) -> None:
    code = loaded.image.code
    _reserve(loaded)
    try:
        libc.memmove(loaded.address, code, len(code))
        libc.mprotect(loaded.address, len(code), libc.PROT_READ | libc.PROT_EXEC)
    except OSError:
        libc.munmap(loaded.mapping)
        raise


def memfd(content: bytes | bytearray) -> OpenFile:
    """Return a file in memory; raise OSError if the system has no memfd."""
    if not hasattr(os, "memfd_create"):
        raise OSError("no memfd_create on this system")
    file = OpenFile(os.memfd_create, "asm_libcalls")
    written = 0
    while written < len(content):
        written += os.write(file.number, content[written:])
    return file


def _load_memfd(loaded: LoadedImage) -> None:
    file = memfd(loaded.image.code)
    try:
        _load_file(loaded, file.number, 0)
    finally:
        file.close()


def _load_file(loaded: LoadedImage, file: int, offset: int) -> None:
    code = loaded.image.code
    _reserve(loaded)
    try:
        libc.mmap(
            len(code),
            libc.PROT_READ | libc.PROT_EXEC,
            address=loaded.address,
            flags=libc.MAP_PRIVATE | libc.MAP_FIXED,
            file=file,
            offset=offset,
        )
        # Compare the mapped bytes, which are executed, not the bytes read before.
        check_mapped(loaded.address, code, lambda: os.pread(file, len(code), offset))
    except OSError:
        libc.munmap(loaded.mapping)
        raise
