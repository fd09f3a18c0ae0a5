"""``python -m tests.benchmarks [ROW…]``: measure, print a table, store JSON, draw a chart.

Contenders of a row run in turn on one throw-away server with PostgreSQL's default durability, each run in a process
and a database of its own. They reach it over its Unix socket, as the embedded server is reached; only bees that are
started by themselves use TCP.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from tests.benchmarks import report, run
from tests.benchmarks.peers import PEERS
from tests.benchmarks.results import Results
from tests.benchmarks.rows import ROWS
from tests.benchmarks.stage import DISK, stage


def _peers(_: click.Context, __: click.Parameter, given: str) -> tuple[str, ...]:
    named = {"all": tuple(PEERS), "none": ()}.get(given, tuple(given.split(",")))
    if unknown := set(named) - PEERS.keys():
        raise click.BadParameter(f"no such peers: {', '.join(unknown)}; there are {', '.join(PEERS)}")
    return named


@click.command()
@click.argument("rows", nargs=-1, type=click.Choice(list(ROWS)))
@click.option("--peers", default="processes", callback=_peers, help="Names with commas between, or all, or none.")
@click.option("--repetitions", type=click.IntRange(1), help="Of every contender, instead of 5 (10 for pairs).")
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path),
    help="Where to store everything; other rows there stay.",
)
@click.option("--chart", type=click.Path(path_type=Path), help="Where to draw it, as PNG and SVG.")
@click.option("--limit", default=900.0, show_default=True, help="Seconds that one run may take.")
@click.option("--quick", is_flag=True, help="Small numbers: only to see that it works.")
def main(
    rows: tuple[str, ...],
    peers: tuple[str, ...],
    repetitions: int | None,
    json_file: Path | None,
    chart: Path | None,
    limit: float,
    quick: bool,
) -> None:
    """Measure ROWS (all of them by default) and compare."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # else the servers and what is measured would stay
    console = Console(width=150)
    found: dict[str, Results] = {}
    record: dict[str, Any] = {"versions": {}, "rows": {}}
    if json_file is not None and json_file.exists():
        record = json.loads(json_file.read_text())  # what isn't measured now stays as it was
    record |= {"machine": report.machine(), "quick": quick}
    with stage(limit) as here, console.status("…") as status:
        [(postgresql,)] = here.server(DISK).execute("SHOW server_version")
        record["versions"] |= report.versions(postgresql, peers)
        for name in rows or ROWS:
            before = report.machine()["load"]
            results = run.measure(here, ROWS[name], peers, quick=quick, repetitions=repetitions, say=status.update)
            found[name] = results
            record["rows"][name] = report.as_json(results, name) | {"load": [before, report.machine()["load"]]}
            if json_file is not None:
                json_file.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    report.show(found, console)
    if chart is not None:
        from tests.benchmarks.chart import draw  # noqa: PLC0415 (matplotlib is there for the chart alone)

        draw(record, chart)


if __name__ == "__main__":
    main()
