"""Fuzz ``asm_libcalls.toy_jit`` guided by coverage, with atheris (the extra ``fuzz``).

    python tools/fuzz_coverage.py corpus -max_total_time=600    new inputs go to that folder
    python tools/fuzz_coverage.py -merge=1 smaller corpus       the fewest with the same coverage
    python tools/fuzz_coverage.py crash-0123abcd                one input again

Arguments are libFuzzer's. An input is a module: it is decoded, validated, compiled, instantiated
with made-up imports, and its exports are called (:mod:`toy_jit_run`), each for a limited time. It
is refused with ``InvalidModule`` or ``LinkError``, or it runs; every other exception and every
crash is a finding, which libFuzzer writes to a file ``crash-...``. Coverage is of the Python of
toy_jit. Half of the mutations are libFuzzer's, and half change parts of a decoded module
(:mod:`mutated_modules`). Every run begins with ``tests/data/corpus``, which a test replays too.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

CORPUS = Path(__file__).resolve().parent.parent / "tests" / "data" / "corpus"

_LARGEST = 4096
"""The largest input, in bytes."""

_MOST_PAGES, _MOST_ELEMENTS = 16, 1 << 12


def examine(binary: bytes) -> str:
    """Try a module; return ``"refused"``, ``"not linked"`` or ``"ran"``, or why it was not tried.

    Any exception is a finding.
    """
    from asm_libcalls.toy_jit import LinkError, Module
    from asm_libcalls.toy_jit.errors import InvalidModule
    from asm_libcalls.toy_jit.options import compile_options
    from toy_jit_run import ToyJitRun

    try:
        module = Module(binary, compile_options(inline=len(binary) % 2 == 1))
    except InvalidModule:
        return "refused"
    decoded = module.decoded
    pages = sum(limits.minimum for limits in decoded.memories)
    elements = sum(table.limits.minimum for table in decoded.tables)
    if pages > _MOST_PAGES or elements > _MOST_ELEMENTS:
        return "large"
    names = [(entry.module, entry.name) for entry in decoded.imports]
    if len(set(names)) < len(names):  # of maybe two types, and a run makes up one thing for each
        return "ambiguous"
    try:
        ToyJitRun(module, binary, "corpus").run()
    except LinkError:
        return "not linked"
    return "ran"


def main() -> None:
    """Fuzz until libFuzzer ends the process."""
    import atheris

    # What this imports is not instrumented, nor are the stencils, which are machine code.
    import asm_libcalls

    asm_libcalls.symbols()
    with atheris.instrument_imports(include=["asm_libcalls.toy_jit"], enable_loader_override=False):
        import asm_libcalls.toy_jit.frontend.validator
        import asm_libcalls.toy_jit.instance
        import mutated_modules
        import toy_jit_run

        assert toy_jit_run.LIMIT
    seeds = [path.read_bytes() for path in sorted(CORPUS.glob("*.wasm"))]

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        chosen = random.Random(seed)
        if chosen.random() < 0.5:
            return bytes(atheris.Mutate(data, most))
        return mutated_modules.mutate(chosen, [data, data, chosen.choice(seeds or [data])])[:most]

    def one_input(data: bytes) -> None:
        examine(data)

    folders = [str(CORPUS)] if CORPUS.is_dir() and not _is_replay(sys.argv[1:]) else []
    options = [f"-max_len={_LARGEST}", "-timeout=30", "-rss_limit_mb=2048"]
    arguments = [sys.argv[0], *options, *sys.argv[1:], *folders]
    atheris.Setup(arguments, one_input, custom_mutator=mutate)
    atheris.Fuzz()


def _is_replay(arguments: list[str]) -> bool:
    """Tell whether the arguments ask for a merge, or name inputs to try once."""
    return any(a.startswith("-merge") or Path(a).is_file() for a in arguments)


if __name__ == "__main__":
    main()
