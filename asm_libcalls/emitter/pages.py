"""Loads an image on pages that are never writable and executable at the same time.

The steps are those of CPython's ``jit.c``: *allocate* (read and write), *copy*, *seal* (read and
execute). If the system refuses to make written memory executable (``PR_SET_MDWE``, hardened
services), the code is written to a memfd, which is mapped read and execute. If the system refuses
that too, an OSError is raised, and the fallback serves.

An image that is in a file is executed from the file: loaded as a shared object
(``shared_object.py``) or, failing that, mapped read and execute. Processes share these pages, which
are writable in none.

A loaded image lives until the process ends, because function objects may call it, unless a caller
that knows of every reference unloads it (:func:`unload`).
"""

from __future__ import annotations

import os

from asm_libcalls.emitter import code_names, libc
from asm_libcalls.emitter.code_comparison import check_mapped
from asm_libcalls.emitter.image import CODE_PAGE
from asm_libcalls.signatures import c_types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asm_libcalls.emitter.code_names import Function
    from asm_libcalls.emitter.image import Image

__all__ = ["LoadedImage", "load", "memfd", "unload"]


class LoadedImage:
    """An image in memory."""

    __slots__ = ("address", "image", "mapping", "origin", "refusals", "way")

    def __init__(self, image: Image, address: int, way: str) -> None:
        self.image = image
        self.address = address  # address of its code
        self.way = way  # how its pages were made: `"library"`, `"file"`, `"anonymous"` or `"memfd"`
        # address and length of its pages; empty when it is unmapped
        self.mapping = [(address, _length(image))]
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

    def original(self, name: str) -> bytes:
        """Return the bytes of a routine or stencil to copy, without breakpoints in memory."""
        placed = self.image.stencils.get(name)
        at, size = (placed.offset, placed.size) if placed else self.image.routines[name]
        return self.image.code[at : at + size]

    def functions(self) -> list[Function]:
        """List the routines whose frames are known, for ``code_names``."""
        is_known = self.way == "library"  # unwinders find the file's .eh_frame
        found = []
        for name, frames in self.image.frames.items():
            size = self.image.routines[name][1]
            known = None if is_known else frames
            found.append((self.routine(name), size, code_names.title(name), known))
        return found

    def slot(self, name: str) -> int:
        """Read a slot."""
        return int(c_types.c_uint64.from_address(self.address + self.image.slots[name]).value)

    def set_slot(self, name: str, value: int) -> None:
        """Write a slot; a slot that the image does not have is ignored."""
        offset = self.image.slots.get(name)
        if offset is not None:
            c_types.c_uint64.from_address(self.address + offset).value = value


def load(
    image: Image, file: int = -1, offset: int = 0, path: str = "", *, announced: bool = True
) -> LoadedImage:
    """Put an image on executable pages, or raise OSError if the system refuses in every way.

    `file` is the descriptor of a file that contains its code, or -1, and `offset` the place of the
    code in it, a multiple of the page size. `path` is the file's if it is a shared object and no
    other user can replace it. The routines are `announced` to ``code_names``, or the caller does
    that.
    """
    # One reservation for code and data keeps the distance between them that the image has.
    length = _length(image)
    assert len(image.code) % CODE_PAGE == 0
    if len(image.code) % libc.PAGE_SIZE:
        raise OSError(f"pages of {libc.PAGE_SIZE} bytes: images are made for {CODE_PAGE}")
    refusals: list[str] = []
    loaded = _load(image, length, file, offset, path, refusals)
    loaded.refusals = refusals
    if announced:
        code_names.announce(loaded.address, loaded.functions)
    return loaded


def _load(
    image: Image, length: int, file: int, offset: int, path: str, refusals: list[str]
) -> LoadedImage:
    # perf names anonymous memory alone
    if file >= 0 and not code_names.are_asked_for(code_names.PERF_VARIABLE):
        if path:
            try:
                return LoadedImage(image, _load_library(image, path, offset), "library")
            except (OSError, AttributeError) as refusal:
                # already loaded, or a C library without dlinfo
                refusals.append(f"no library: {refusal}")
        try:
            return LoadedImage(image, _load_file(image.code, length, file, offset), "file")
        except OSError as refusal:  # a file system mounted noexec, or the file has changed
            refusals.append(f"no file: {refusal}")
    try:
        return LoadedImage(image, _load_anonymous(image.code, length), "anonymous")
    except OSError as refusal:
        refusals.append(f"no anonymous memory: {refusal}")
        try:
            return LoadedImage(image, _load_memfd(image.code, length), "memfd")
        except OSError as second_refusal:
            raise OSError(
                second_refusal.errno,
                f"the system refuses executable memory ({refusal}; {second_refusal})",
            ) from refusal


def unload(loaded: LoadedImage) -> None:
    """Unmap an image. Nothing may call into it or refer to it any more. Twice is a no-op."""
    assert loaded.way != "library"
    if loaded.mapping:
        code_names.withdraw(loaded.address)
        libc.munmap(loaded.mapping)


def _length(image: Image) -> int:
    return -(-max(image.size, 1) // libc.PAGE_SIZE) * libc.PAGE_SIZE


def _load_library(image: Image, path: str, offset: int) -> int:
    from asm_libcalls.emitter import shared_object

    return shared_object.load(path, offset, image.code, image.size)


def _load_anonymous(code: bytes, length: int) -> int:
    address = libc.mmap(length, libc.PROT_READ | libc.PROT_WRITE)
    try:
        libc.memmove(address, code, len(code))
        libc.mprotect(address, len(code), libc.PROT_READ | libc.PROT_EXEC)
    except OSError:
        libc.munmap([(address, length)])
        raise
    return address


def memfd(content: bytes | bytearray) -> int:
    """Return the descriptor of a file in memory; raise OSError if the system has no memfd."""
    if not hasattr(os, "memfd_create"):
        raise OSError("no memfd_create on this system")
    file = os.memfd_create("asm_libcalls")
    try:
        written = 0
        while written < len(content):
            written += os.write(file, content[written:])
    except OSError:
        os.close(file)
        raise
    return file


def _load_memfd(code: bytes, length: int) -> int:
    file = memfd(code)
    try:
        return _load_file(code, length, file, 0)
    finally:
        os.close(file)


def _load_file(code: bytes, length: int, file: int, offset: int) -> int:
    address = libc.mmap(length, libc.PROT_READ | libc.PROT_WRITE)
    try:
        libc.mmap(
            len(code),
            libc.PROT_READ | libc.PROT_EXEC,
            address=address,
            flags=libc.MAP_PRIVATE | libc.MAP_FIXED,
            file=file,
            offset=offset,
        )
        # Compare the mapped bytes, which are executed, not the bytes read before.
        check_mapped(address, code, lambda: os.pread(file, len(code), offset))
    except OSError:
        libc.munmap([(address, length)])
        raise
    return address
