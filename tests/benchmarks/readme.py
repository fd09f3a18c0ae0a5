"""The benchmark section of the README, written from a run's record."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click

from tests.benchmarks.peers import PEERS
from tests.benchmarks.report import number
from tests.benchmarks.stage import ROOT

_BEGIN, _END = "<!-- benchmarks -->", "<!-- /benchmarks -->"


def fill(record: dict[str, Any], readme: Path, chart: str | None) -> None:
    """Put the record's section between the marks. Raises ValueError if they aren't there."""
    text = readme.read_text("utf-8")
    filled, n = re.subn(
        f"{re.escape(_BEGIN)}.*{re.escape(_END)}",
        lambda _: f"{_BEGIN}\n{section(record, chart)}\n{_END}",
        text,
        flags=re.DOTALL,
    )
    if n != 1:
        raise ValueError(f"{readme} has no place for the benchmarks: {_BEGIN} … {_END}")
    readme.write_text(filled, "utf-8")


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
@click.argument("record", type=click.Path(path_type=Path, exists=True))
@click.option("--chart", help="The picture, as the README is to refer to it.")
@click.option("--readme", type=click.Path(path_type=Path), default=ROOT / "README.md", help="The file to fill.")
def main(record: Path, chart: str | None, readme: Path) -> None:
    """Fill the README's benchmark section from RECORD, the JSON of a run."""
    fill(json.loads(record.read_text("utf-8")), readme, chart)


if __name__ == "__main__":
    main()
