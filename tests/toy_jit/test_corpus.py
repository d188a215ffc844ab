"""The corpus of ``tools/fuzz_coverage.py``: each of its modules is refused, or runs."""

from collections import Counter

import pytest

import fuzz_coverage

pytestmark = pytest.mark.usefixtures("machine_code")

FILES = sorted(fuzz_coverage.CORPUS.glob("*.wasm"))


def test_nothing_breaks():
    outcomes = Counter()
    for path in FILES:
        outcomes[fuzz_coverage.examine(path.read_bytes())] += 1
    assert outcomes["ran"] > 10
    assert outcomes["refused"] > 10


def test_it_is_small():
    assert 10 < len(FILES) <= 100
    assert max(path.stat().st_size for path in FILES) < 1024
