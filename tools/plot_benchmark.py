"""Draw a run of the benchmark: small SVG files for the README and the documentation.

    python tools/plot_benchmark.py RUN.json FOLDER

The package has one colour in all plots. Text stays text, so a file is small and can be searched.
Two drawings of one run are the same bytes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from asm_libcalls.benchmark.results import Results
from asm_libcalls.benchmark.timing import OURS, Timed

_OURS_COLOUR = "#c2410c"
_COLOURS = ("#1d4ed8", "#15803d", "#7e22ce", "#0e7490", "#a16207", "#64748b", "#be185d")
_INK, _GRID = "#1f2937", "#e2e8f0"

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "asm_libcalls",
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica", "Arial", "DejaVu Sans"],
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": "#94a3b8",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _GRID,
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


def draw(results: Results, folder: Path) -> list[Path]:
    """Draw each plot that a run has figures for, by matplotlib; return the files."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    with mpl.rc_context(_STYLE):
        for name, make in _PICTURES.items():
            figure = make(results, pyplot)
            if figure is None:
                continue
            path = folder / f"{name}.svg"
            figure.savefig(
                path, metadata={"Date": None, "Creator": None}, bbox_inches="tight", pad_inches=0.15
            )
            pyplot.close(figure)
            drawn.append(path)
    return drawn


def _calls(results: Results, pyplot: Any) -> Any:
    """Draw bars: nanoseconds of a call from Python."""
    names = ("f64_ceil", "i64_sdiv small", "i64_sdiv beyond 2^30", "i64_ishl")
    title = "One call from Python, nanoseconds (shorter is better)"
    return _bars(results, pyplot, "calls", names, title, skip="the fallback")


def _native(results: Results, pyplot: Any) -> Any:
    """Draw bars: nanoseconds of a call at the C address."""
    names = ("f32_floor", "f64_ceil", "f64_nearest", "i64_sdiv 64-bit operands")
    title = "One call at the C address, nanoseconds (shorter is better)"
    return _bars(results, pyplot, "native", names, title)


def _bars(
    results: Results, pyplot: Any, suite: str, names: Sequence[str], title: str, skip: str = ""
) -> Any:
    cases = [case for case in results.of(suite) if case.name in names]
    if not cases:
        return None
    rows: list[tuple[str, float, float, float]] = []
    places: list[float] = []
    at = 0.0
    headings = []
    for case in cases:
        headings.append((at - 0.95, case.name))
        labels = sorted(
            (label for label in case.figures if label != skip),
            key=lambda label: (label != OURS, case.figures[label].nanoseconds.median),
        )
        for label in labels:
            rows.append((label, *case.figures[label].nanoseconds))
            places.append(at)
            at += 1
        at += 1.3
    figure, axes = pyplot.subplots(figsize=(7.2, 0.25 * at + 0.7))
    longest = max(median for _, median, _, _ in rows)
    # A longer error bar is cut there, and ends in an arrow; the number is beyond its end.
    limit = longest * 1.3
    furthest = min(max(high for *_, high in rows), limit)
    for place, (label, median, low, high) in zip(places, rows, strict=True):
        colour = _OURS_COLOUR if label == OURS else "#94a3b8"
        axes.barh(place, median, height=0.74, color=colour)
        end = min(max(median, high), limit)
        axes.plot([low, end], [place, place], color=_INK, linewidth=1)
        if high > limit:
            axes.plot([end], [place], color=_INK, marker=">", markersize=3)
        axes.text(end + longest * 0.015, place, _number(median), va="center", fontsize=8.5)
    axes.set_yticks(places, [label for label, *_ in rows], fontsize=9)
    for label in axes.get_yticklabels():
        if label.get_text() == OURS:
            label.set_color(_OURS_COLOUR)
            label.set_fontweight("bold")
    for place, heading in headings:
        axes.text(
            0, place, heading, fontsize=9.5, fontweight="bold", va="center", family="monospace"
        )
    axes.set_ylim(at - 1.3 - 0.3, -1.6)
    axes.set_xlim(0, max(longest, furthest) + longest * 0.1)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_title(title)
    return figure


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


_SCALE = (1, 10, 100, 1000, 10**4, 10**5, 10**6, 10**7)


def _rounding(results: Results, pyplot: Any) -> Any:
    """Draw lines: how many times as fast as NumPy's own."""
    return _against_numpy(
        results,
        pyplot,
        {
            "float32": ["ceil f32", "floor f32", "trunc f32", "nearest f32"],
            "float64": ["ceil f64", "floor f64", "trunc f64", "nearest f64"],
        },
        "Rounding arrays: speed relative to NumPy's own ufunc",
    )


def _integers(results: Results, pyplot: Any) -> Any:
    return _against_numpy(
        results,
        pyplot,
        {
            "division of 64-bit integers": ["udiv u64", "urem u64", "sdiv i64", "srem i64"],
            "shifts": ["ishl i64", "sshr i64", "ushr u64"],
        },
        "Integer arrays: speed relative to NumPy's own ufunc",
    )


def _against_numpy(results: Results, pyplot: Any, panels: dict[str, list[str]], title: str) -> Any:
    cases = {(case.name, case.size): case for case in results.of("arrays")}
    if not cases:
        return None
    figure, all_axes = pyplot.subplots(1, len(panels), figsize=(9, 3.4), layout="constrained")
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    for axes, (heading, names) in zip(all_axes, panels.items(), strict=True):
        colours = [_OURS_COLOUR, *_COLOURS]
        highest = 0.0
        for name, colour in zip(names, colours, strict=False):
            for layout, style in (("contiguous", "-"), ("strided", ":")):
                points = list(_speeds(cases, f"{name} {layout}", OURS))
                if points:
                    sizes, speeds, low, high = zip(*points, strict=True)
                    highest = max(highest, *speeds)
                    label = name.split()[0] if layout == "contiguous" else None
                    axes.plot(sizes, speeds, style, color=colour, linewidth=1.8, label=label)
                    if layout == "contiguous":
                        axes.fill_between(sizes, low, high, color=colour, alpha=0.12, linewidth=0)
        numba = list(_speeds(cases, f"{names[0]} contiguous", "numba vectorize"))
        if numba:
            sizes, speeds, *_ = zip(*numba, strict=True)
            label = f"{names[0].split()[0]}, numba"
            axes.plot(sizes, speeds, "--", color="#94a3b8", linewidth=1.4, label=label)
        axes.axhline(1, color=_INK, linewidth=1)
        axes.set_xscale("log")
        axes.set_xticks(_SCALE)
        axes.minorticks_off()
        axes.set_title(heading, fontsize=10)
        axes.set_xlabel("elements (dotted: every second one)")
        axes.set_ylim(0, 1.15 * max(highest, 1.1))
        axes.grid(axis="y")
        axes.legend(fontsize=8.5, ncols=2 if numba else 1)
    all_axes[0].set_ylabel("NumPy's time / ours")
    return figure


def _speeds(
    cases: dict[tuple[str, int], Timed], name: str, label: str
) -> Iterator[tuple[int, float, float, float]]:
    """Yield size, and how many times as fast as NumPy a candidate is: median and quartiles."""
    for size in _SCALE:
        case = cases.get((name, size))
        if case is None or label not in case.figures or "NumPy" not in case.figures:
            continue
        ratio = case.figures["NumPy"].ratio  # ours / NumPy's
        if label == OURS:
            yield size, 1 / ratio.median, 1 / ratio.high, 1 / ratio.low
        else:
            own = case.figures[label].ratio  # ours / the other's
            speed = own.median / ratio.median
            yield size, speed, speed, speed


def _memory(results: Results, pyplot: Any) -> Any:
    """Draw lines: gigabytes in a second, by size."""
    groups: dict[str, list[Timed]] = {}
    for case in results.of("memory"):
        groups.setdefault(case.name, []).append(case)
    if not groups:
        return None
    figure, all_axes = pyplot.subplots(
        1, len(groups), figsize=(3.1 * len(groups), 3.2), layout="constrained", squeeze=False
    )
    figure.suptitle(
        "Linear memory: gigabytes in a second (higher is better)", fontsize=11, x=0.01, ha="left"
    )
    for axes, (name, cases) in zip(all_axes[0], groups.items(), strict=True):
        others = iter(_COLOURS)
        for label in cases[0].figures:
            colour = _OURS_COLOUR if label == OURS else next(others)
            points = [
                (case.size, case.size / case.figures[label].nanoseconds.median)
                for case in cases
                if label in case.figures
            ]
            axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.8, label=label)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("bytes")
        axes.grid(axis="y")
    all_axes[0][0].legend(fontsize=8)
    return figure


def _imports(results: Results, pyplot: Any) -> Any:
    """Draw bars: milliseconds and megabytes."""
    cases = {case.name: case for case in results.of("imports") if case.name != "process"}
    if not cases:
        return None
    figure, all_axes = pyplot.subplots(
        1, len(cases), figsize=(9, 2.2), layout="constrained", squeeze=False, sharey=True
    )
    for axes, (name, case) in zip(all_axes[0], cases.items(), strict=True):
        scale, unit = (1e6, "milliseconds") if name == "time" else (2**20, "MiB of memory")
        labels = list(case.figures)
        values = [case.figures[label].nanoseconds.median / scale for label in labels]
        colours = [_OURS_COLOUR if label == OURS else "#94a3b8" for label in labels]
        axes.barh(range(len(labels)), values, color=colours, height=0.7)
        for i, value in enumerate(values):
            axes.text(value, i, f" {_number(value)}", va="center", fontsize=8.5)
        axes.set_yticks(range(len(labels)), labels, fontsize=9)
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.set_title(f"Importing: {unit}")
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        axes.margins(x=0.12)
    return figure


_PICTURES: dict[str, Callable[[Results, Any], Any]] = {
    "calls": _calls,
    "native": _native,
    "rounding": _rounding,
    "integers": _integers,
    "memory": _memory,
    "imports": _imports,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw a file; return 2 where it cannot be read."""
    parser = argparse.ArgumentParser(description="Draw a run of the benchmark as SVG files.")
    parser.add_argument("run", type=Path, help="a file of bench --json")
    parser.add_argument("folder", type=Path, help="where the pictures go")
    given = parser.parse_args(arguments)
    try:
        drawn = draw(Results.read(given.run), given.folder)
    except ImportError as error:
        print(f"{error}; the extra `bench` has it", file=sys.stderr)
        return 2
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    for path in drawn:
        print(f"drawn: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
