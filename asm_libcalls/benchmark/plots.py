"""Plots of a run: one light SVG for each suite, by matplotlib."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["draw"]

_SIZE = re.compile(r"^(.*?) of (\d+)(.*)$")


def draw(report: dict[str, Any], folder: Path) -> list[Path]:
    """Draw each suite of a report into a folder; return the files.

    Raises
    ------
    ImportError
        matplotlib is not installed.
    """
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "asm_libcalls"  # the same run gives the same file
    mpl.rcParams["svg.fonttype"] = "none"  # text stays text: small files, readable by search
    folder.mkdir(parents=True, exist_ok=True)
    suites: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for comparison in report["comparisons"]:
        suites[comparison["suite"]].append(comparison)
    files = []
    for suite, comparisons in suites.items():
        file = folder / f"{suite}.svg"
        sized = [c for c in comparisons if _SIZE.match(c["name"])]
        if sized:
            _lines(suite, sized, file)
        else:
            _bars(suite, comparisons, file)
        files.append(file)
    return files


def _finish(figure: Any, file: Path) -> None:
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})


def _axes(title: str, width: float, height: float) -> tuple[Any, Any]:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(width, height))
    axes.set_title(title, loc="left", fontsize=11)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _bars(suite: str, comparisons: list[dict[str, Any]], file: Path) -> None:
    rows = [
        (f"{c['name']}  /  {peer}", figure)
        for c in comparisons
        for peer, figure in c["peers"].items()
    ]
    title = f"{suite}: our time as a ratio of the peer's (left of 1: we are faster)"
    figure, axes = _axes(title, 9, 0.9 + 0.3 * len(rows))
    ratios = [f["ratio"] for _, f in rows]
    spread = [[f["ratio"] - f["low"] for _, f in rows], [f["high"] - f["ratio"] for _, f in rows]]
    axes.barh(range(len(rows)), ratios, xerr=spread, height=0.6, color="#4c78a8", ecolor="#999999")
    axes.set_yticks(range(len(rows)), [label for label, _ in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.axvline(1, color="#333333", linewidth=0.8)
    for i, ratio in enumerate(ratios):
        axes.annotate(f" {ratio:.2f}", (max(ratio, 1), i), va="center", fontsize=7, color="#333333")
    _finish(figure, file)


def _lines(suite: str, comparisons: list[dict[str, Any]], file: Path) -> None:
    series: dict[str, list[tuple[int, dict[str, Any]]]] = defaultdict(list)
    for comparison in comparisons:
        match = _SIZE.match(comparison["name"])
        assert match is not None
        what, size, rest = match[1], int(match[2]), match[3].removeprefix(" bytes")
        for peer, found in comparison["peers"].items():
            series[f"{what}{rest} / {peer}"].append((size, found))
    title = f"{suite}: our time as a ratio of the peer's (below 1: we are faster)"
    figure, axes = _axes(title, 9, 5.5)
    for i, (label, points) in enumerate(series.items()):
        sizes = [size for size, _ in points]
        ratios = [found["ratio"] for _, found in points]
        style = ("-", "--", ":", "-.")[i // 10 % 4]
        axes.plot(sizes, ratios, style, marker="o", markersize=3, linewidth=1.2, label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.axhline(1, color="#333333", linewidth=0.8)
    unit = "bytes" if suite == "memory" else "elements"
    axes.set_xlabel(unit, fontsize=9)
    axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    _finish(figure, file)
