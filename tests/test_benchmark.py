"""The benchmark runs, its ratios are what they say, and two runs can be compared."""

from __future__ import annotations

import json

import pytest

from asm_libcalls import cli
from asm_libcalls.benchmark import runs, timing


def figure(ratio, spread=0.01):
    return {"time": 10.0, "ratio": ratio, "low": ratio - spread, "high": ratio + spread}


def report(**ratios):
    peers = {peer: figure(ratio) for peer, ratio in ratios.items()}
    return {"comparisons": [{"suite": "s", "name": "n", "peers": peers}], "notes": []}


def test_ratio_is_ours_by_the_peers():
    """Cases that take no time at all, but say what they took."""
    found = timing.compare(
        "s", "n", lambda count: 10.0, {"slow": lambda count: 20.0, "fast": lambda count: 5.0},
        rounds=5, round_time=1,
    )  # fmt: skip
    assert found.time == 10.0
    assert found.peers["slow"] == timing.Figure(20.0, 0.5, 0.5, 0.5)
    assert found.peers["fast"] == timing.Figure(5.0, 2.0, 2.0, 2.0)


def test_median_and_quartiles():
    # The first is to find out how often.
    times = iter([1.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    found = timing.compare(
        "s", "n", lambda count: next(times), {"peer": lambda count: 1.0}, rounds=5, round_time=0
    )
    assert found.peers["peer"] == timing.Figure(1.0, 3.0, 2.0, 4.0)


def test_statement_runs_so_often():
    ran = []
    case = timing.statement("f()", {"f": lambda: ran.append(1)})
    assert case(7) > 0
    assert len(ran) == 7


def test_slower_names_what_became_slower():
    before = report(quick=1.0, slow=1.0, gone=1.0)
    after = report(quick=1.05, slow=1.5, new=9.0)
    assert runs.slower(before, after) == ["s: n / slow: 1.00 became 1.50"]
    assert runs.slower(after, before) == []


def test_noise_is_not_slower():
    before = {"comparisons": [{"suite": "s", "name": "n", "peers": {"p": figure(1.0, 0.6)}}]}
    assert runs.slower(before, report(p=1.5)) == []


def test_compare_from_the_command_line(tmp_path, capsys):
    for name, ratio in (("a.json", 1.0), ("b.json", 1.5)):
        (tmp_path / name).write_text(json.dumps(report(p=ratio)))
    a, b = str(tmp_path / "a.json"), str(tmp_path / "b.json")
    assert cli.main(["bench", "--compare", a, b]) == 1
    assert capsys.readouterr().out == "s: n / p: 1.00 became 1.50\n"
    assert cli.main(["bench", "--compare", b, a]) == 0


def test_compare_refuses_other_files(tmp_path, capsys):
    other = tmp_path / "other.json"
    other.write_text("[]")
    assert cli.main(["bench", "--compare", str(other), str(other)]) == 2
    assert "not two reports" in capsys.readouterr().err


def test_unknown_suite(capsys):
    assert cli.main(["bench", "nonsense"]) == 2
    assert "no suite is named 'nonsense'" in capsys.readouterr().err


@pytest.mark.parametrize("suite", runs.SUITES)
def test_each_suite_runs(suite, tmp_path, capsys):
    """Quickly; what it finds is not looked at, but that it is whole."""
    file = tmp_path / "report.json"
    assert cli.main(["bench", "--quick", "--json", str(file), suite]) == 0
    found = json.loads(file.read_text())
    assert found["quick"] is True
    assert found["comparisons"] or found["notes"]
    for comparison in found["comparisons"]:
        assert comparison["suite"] == suite
        assert comparison["time"] > 0
        for one in comparison["peers"].values():
            assert 0 < one["low"] <= one["ratio"] <= one["high"]
    assert all(f"note: {note}" in capsys.readouterr().out for note in found["notes"][:1])


def test_plots(tmp_path):
    pytest.importorskip("matplotlib", reason="the extra `bench` draws plots")
    from asm_libcalls.benchmark import plots

    comparisons = [
        {"suite": "bars", "name": "one", "peers": {"peer": figure(0.5)}},
        *(
            {"suite": "lines", "name": f"copy of {n} bytes", "peers": {"peer": figure(1.2)}}
            for n in (1, 1000)
        ),
    ]
    files = plots.draw({"comparisons": comparisons}, tmp_path)
    assert [file.name for file in files] == ["bars.svg", "lines.svg"]
    assert all(b"</svg>" in file.read_bytes() for file in files)
