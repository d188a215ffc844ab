"""Build the sdist and the wheel, with images of the machine code inside, into ``dist``.

Run by ``make dist``, in the environment that it made. PeachPy assembles the images here, so
installing the result needs no PeachPy. They are made in a copy of the tree, because a checkout must
have no images: a change of its sources has an effect at once.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

PARTS = ("asm_libcalls", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md")
"""The files and folders that a distribution is built from."""

WRITE_IMAGES = """
import os, sys
os.environ["ASM_LIBCALLS_CACHE"] = "off"
from asm_libcalls.x86_64.code_cache import write_package_images
names = write_package_images(sys.argv[1])
print(f"{len(names)} images, {sum(os.path.getsize(f'{sys.argv[1]}/{n}') for n in names)} bytes")
"""


def copy_tree(target: Path) -> None:
    """Copy the sources of a distribution, without the files that running them has made."""
    leftovers = shutil.ignore_patterns("__pycache__", "*.py[cod]", "image-files")
    for name in PARTS:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=leftovers)
        else:
            shutil.copy2(source, target / name)


def main() -> int:
    """Build both; the exit status is that of the first program that fails."""
    with tempfile.TemporaryDirectory(prefix="asm_libcalls-") as folder:
        tree = Path(folder)
        copy_tree(tree)
        images = tree / "asm_libcalls" / "x86_64" / "image-files"
        images.mkdir()
        for command in (
            # From the copy: the keys of the images are made of its sources.
            [sys.executable, "-B", "-c", WRITE_IMAGES, str(images)],
            [sys.executable, "-m", "build", "--outdir", str(ROOT / "dist"), str(tree)],
        ):
            status = subprocess.run(command, cwd=tree, check=False).returncode
            if status:
                return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
