"""Image files: what is packed is unpacked, and damage is found."""

import marshal

import pytest

from asm_libcalls.emitter import image_file
from asm_libcalls.emitter.image import CODE_PAGE, Image, PlacedStencil

KEY = bytes(range(image_file.KEY_SIZE))
SAMPLE = Image(
    b"\xc3" * CODE_PAGE,
    {"a": (0, 1)},
    {"x": CODE_PAGE},
    CODE_PAGE + 8,
    labels=lambda: {"a.end": 3},
    stencils=lambda: {
        "s": PlacedStencil(
            16, 9, marshal.dumps([("slot", 3, "x"), ("number", 5, "count")]), "0,1,-,-,push,3,7,-8"
        ),
        "empty": PlacedStencil(32, 0, marshal.dumps([]), ""),
    },
)


def test_pack_and_unpack():
    content = image_file.pack(SAMPLE, KEY, "PeachPy\n0.2.0")
    image, offset, assembler = image_file.unpack(content, KEY)
    assert (image.code, image.routines, image.slots, image.size) == (
        SAMPLE.code,
        SAMPLE.routines,
        SAMPLE.slots,
        SAMPLE.size,
    )
    assert image.labels == SAMPLE.labels
    assert image.stencils.keys() == SAMPLE.stencils.keys()
    for name, stencil in SAMPLE.stencils.items():
        for field in PlacedStencil.__slots__:
            assert getattr(image.stencils[name], field) == getattr(stencil, field)
    assert assembler == "PeachPy 0.2.0"
    assert offset % CODE_PAGE == 0
    assert content[offset : offset + CODE_PAGE] == SAMPLE.code


def test_every_altered_bit_is_found():
    content = image_file.pack(SAMPLE, KEY, "")
    for position in [*range(800), *range(800, len(content), 97)]:
        altered = bytearray(content)
        altered[position] ^= 0x10
        with pytest.raises(image_file.DamagedImage):
            image_file.unpack(bytes(altered), KEY)


def test_every_truncation_is_found():
    content = image_file.pack(SAMPLE, KEY, "")
    for length in [*range(800), *range(800, len(content), 97), len(content) - 1]:
        with pytest.raises(image_file.DamagedImage):
            image_file.unpack(content[:length], KEY)
