"""The benchmarks in docs/benchmarks.md, and the few of them in the README, written from a run's record."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click

from tests.benchmarks.peers import PEERS
from tests.benchmarks.report import number
from tests.benchmarks.stage import ROOT

#: Where the record is, and the pages that show it.
RECORD = ROOT / "tests" / "benchmarks" / "record.json"
PAGE, README = ROOT / "docs" / "benchmarks.md", ROOT / "README.md"
#: What the README calls its rows.
TITLES = {
    "submit": "no-op jobs a second, by `submit` into a durable jobset",
    "map": "no-op calls a second, by `map(chunksize=100)` into a temporary one",
    "latency": "an idle round trip, in ms",
    "sleeps": "50 ms jobs: share of the ideal rate",
}
#: Who is in the README's table, and as what.
FEW = {
    "workerbee": "Workerbee",
    "processes": "ProcessPoolExecutor",
    "loky": "loky",
    "dask": "Dask",
    "ray": "Ray",
    "parsl": "Parsl",
    "pgqueuer": "pgqueuer",
    "procrastinate": "procrastinate",
}


def fill(text: str, mark: str, part: str) -> str:
    """The page with this part between its marks. Raises ValueError if they aren't there."""
    begin, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    filled, n = re.subn(
        f"{re.escape(begin)}.*{re.escape(end)}", lambda _: f"{begin}\n{part}\n{end}", text, flags=re.DOTALL
    )
    if n != 1:
        raise ValueError(f"there is no place for the {mark}: {begin} … {end}")
    return filled


def pages(record: dict[str, Any]) -> dict[Path, str]:
    """The pages that show the record, as they are to be."""
    return {
        PAGE: fill(PAGE.read_text("utf-8"), "benchmarks", section(record, "../tests/benchmarks/chart.svg")),
        README: fill(README.read_text("utf-8"), "speed", few(record["rows"])),
    }


def few(rows: dict[str, Any]) -> str:
    """The rows that peers take part in, turned, with some of them and medians only."""
    return "\n".join(
        [
            f"| | {' | '.join(FEW.values())} |",
            f"|---{'|---' * len(FEW)}|",
            *(f"| {title} | {' | '.join(_median(rows[name], who) for who in FEW)} |" for name, title in TITLES.items()),
        ]
    )


def _median(row: dict[str, Any], who: str) -> str:
    return number(row["contenders"][who][row["figure"]]["median"]) if who in row["contenders"] else ""


def section(record: dict[str, Any], chart: str | None) -> str:
    """What was measured, where, and whether the bars are met; losses as plainly as wins."""
    machine, versions, rows = record["machine"], record["versions"], record["rows"]
    picture = [f"![Jobs a second and round trips, Workerbee and its peers]({chart})", ""] if chart else []
    where = (
        f"Measured on {machine['date'][:10]} by `python -m tests.benchmarks` on {machine['cores']} cores of "
        f"{machine['processor']} with {machine['memory_gb']} GB (load {machine['load'][0]}): Python "
        f"{versions['python']}, PostgreSQL {versions['postgresql']} with its default durability, reached over its "
        f"Unix socket (single bees: over TCP), commit {versions['commit']}. Medians, with the range of the repetitions."
    )
    return "\n".join([*picture, where, "", *_peers(rows), "", *_bars(rows)])


def _peers(rows: dict[str, Any]) -> list[str]:
    """A line for each contender of the rows that peers take part in."""
    shared = [row for name, row in rows.items() if any(name in part for part in PEERS.values())]
    names = dict.fromkeys(who for row in shared for who in row["contenders"])
    return [
        f"| | {' | '.join(row['title'] + ', ' + row['figure'] for row in shared)} |",
        f"|---{'|---' * len(shared)}|",
        *(f"| {who} | {' | '.join(_figure(row, who) for row in shared)} |" for who in names),
    ]


def _bars(rows: dict[str, Any]) -> list[str]:
    """A line for each bar."""
    return [
        "| what | n | | measured | bar | met |",
        "|---|---|---|---|---|---|",
        *(
            f"| {row['title']} | {row['n']:,} | {bar['what']} | {number(bar['value'])}{bar['unit']}{_interval(bar)} | "
            f"{bar['sign']} {number(bar['limit'])} | {'yes' if bar['met'] else 'no'} |"
            for row in rows.values()
            for bar in row["bars"]
        ),
    ]


def _interval(bar: dict[str, Any]) -> str:
    return "" if bar["ratio"] is None else f" [{number(bar['ratio'][1])} to {number(bar['ratio'][2])}]"


def _figure(row: dict[str, Any], who: str) -> str:
    if who not in row["contenders"]:
        return ""
    figure = row["contenders"][who][row["figure"]]
    least, most = figure["range"]
    return f"{number(figure['median'])} [{number(least)} to {number(most)}]"


@click.command()
@click.argument("record", type=click.Path(path_type=Path, exists=True), default=RECORD)
def main(record: Path) -> None:
    """Fill docs/benchmarks.md and the README's table from RECORD, the JSON of a run."""
    for page, text in pages(json.loads(record.read_text("utf-8"))).items():
        page.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
