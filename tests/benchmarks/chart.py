"""The chart of a run's record: rates and round trips, ours and the others'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.benchmarks.report import number
from tests.benchmarks.rows import OURS

_PANELS = {"submit": "no-op jobs a second", "latency": "round trip when idle, ms (less is better)"}
_COLOUR, _OURS_COLOUR = "#9aa5b1", "#e0a100"


def draw(record: dict[str, Any], file: Path) -> None:
    """Write ``file`` as PNG and as SVG."""
    panels = [(name, title) for name, title in _PANELS.items() if name in record["rows"]]
    figure = Figure(figsize=(5.5 * max(1, len(panels)), 4), layout="constrained")
    axes = figure.subplots(1, max(1, len(panels)), squeeze=False)[0]
    for panel, (name, title) in zip(axes, panels, strict=False):
        _panel(panel, record["rows"][name], title)
    machine, versions = record["machine"], record["versions"]
    figure.supxlabel(
        f"{machine['cores']} cores, {machine['processor']}; PostgreSQL {versions['postgresql']}, fsync on; "
        f"Python {versions['python']}; {machine['date'][:10]}",
        fontsize=7,
    )
    for suffix in (".png", ".svg"):
        figure.savefig(file.with_suffix(suffix), dpi=160)


def _panel(axes: Axes, row: dict[str, Any], title: str) -> None:
    """Medians with their ranges, the best on top; points on a logarithmic axis, where bars would deceive."""
    figures = {who: figures[row["figure"]] for who, figures in row["contenders"].items()}
    less_is_better = row["figure"].endswith("_ms")
    names = sorted(figures, key=lambda who: figures[who]["median"], reverse=less_is_better)
    for height, who in enumerate(names):
        median, colour = figures[who]["median"], _OURS_COLOUR if who == OURS else _COLOUR
        axes.hlines(height, *figures[who]["range"], color=colour, linewidth=3, alpha=0.5)
        axes.plot(median, height, "o", color=colour, markersize=8)
        axes.annotate(number(median), (median, height), (8, 4), textcoords="offset points", fontsize=8)
    axes.set_yticks(range(len(names)), names)
    axes.set_xscale("log")
    axes.margins(x=0.2)
    axes.grid(axis="x", color="#e3e7eb")
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
