"""``workerbee status``: how it goes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from workerbee.cli import terminal
from workerbee.cli.database import dsn_option, found, reading, same_server
from workerbee.cli.overview import numbers, show_all, show_sizes
from workerbee.cli.terminal import json_option

if TYPE_CHECKING:
    from workerbee.reading import JobsetReader, JobsetRow, Reader
    from workerbee.standing import Status

#: Groups of failures that a status shows, and jobsets that it lists.
GROUPS, JOBSETS = 5, 100
#: Seconds over which a rate is taken.
RATE_SECONDS = 600.0


@click.command()
@click.argument("jobset_id", required=False, metavar="[JOBSET]")
@click.option("--size", is_flag=True, help="Say how much room each takes: the database, and large values in files.")
@dsn_option
@json_option
def status(jobset_id: str | None, dsn: str | None, *, size: bool, as_json: bool) -> None:
    """Say how JOBSET goes, or list all jobsets.

    A percentage counts the jobs whose latest run has ended, rounded down: 100 % only if nothing is open. The time to go
    is what the open jobs take all runners of its bees, if they are like the last ones; it takes longer where these bees
    also have jobs of other jobsets.
    """
    with reading(dsn) as reader:
        if size:
            rows = reader.jobsets() if jobset_id is None else [found(reader, jobset_id)[0]]
            show_sizes(reader, rows, as_json=as_json)
        elif jobset_id is not None:
            _show_one(reader, *found(reader, jobset_id), same=same_server(dsn), as_json=as_json)
        else:
            show_all(reader.lately(JOBSETS), as_json=as_json)


def _show_one(reader: Reader, row: JobsetRow, jobset: JobsetReader, *, same: str, as_json: bool) -> None:
    from workerbee.standing import status_of  # noqa: PLC0415 (loads the driver)

    seen = status_of(reader.connection, row.jobset)
    if seen.advice is not None:
        seen = seen._replace(advice=seen.advice + same)
    silent = sum(not bee.alive for bee in reader.bees(row.jobset))
    rate = _rate(row, jobset)
    if as_json:
        terminal.document("status", **_fields(row, seen, rate=rate, silent=silent))
        return
    terminal.sentence(seen.sentence)
    if row.paused_at is not None and row.paused_why:
        terminal.sentence(f"Paused since {terminal.local(row.paused_at)}: {row.paused_why}")
    lines = {
        "ended a second lately": rate,
        "running": seen.jobs.running,
        "failed": seen.jobs.failed,
        "cancelled": seen.jobs.cancelled,
        "tried again": row.counts.retried,
        "lost with a bee, and run elsewhere": row.counts.lost,
        "run twice, being slow": row.counts.speculative,
        "ended too late to count": row.counts.late,
        "started anew": row.counts.reopened,
        f"bee{'s' * (row.n_bees != 1)} alive": row.n_bees,
        f"bee{'s' * (silent != 1)} quiet": silent,
    }
    for name, n in lines.items():
        if n:
            click.echo(f"{n:>10,.3g} {name}" if isinstance(n, float) else f"{n:>10,} {name}")
    if seen.jobs.failed:
        _show_causes(jobset)
    if seen.advice is not None:
        click.echo(f"next: {seen.advice}")


def _fields(row: JobsetRow, seen: Status, *, rate: float | None, silent: int) -> dict[str, Any]:
    return numbers(row) | {
        "jobs": seen.jobs._asdict(),
        "percent": seen.percent,
        "rate_per_second": rate,
        "seconds_left": seen.seconds_left,
        "bees_quiet": silent,
        "sentence": seen.sentence,
        "next": seen.advice,
    }


def _rate(row: JobsetRow, jobset: JobsetReader) -> float | None:
    """Ends a second over the last minutes; None where nobody noted so far how it goes."""
    now = time.time()
    past = [minute for minute in jobset.history(now - RATE_SECONDS, 15) if minute.at < now - 60.0]
    if not past or not row.counts.open:
        return None
    ended = row.counts.completed + row.counts.failed - past[0].counts.completed - past[0].counts.failed
    return max(0.0, ended / (now - past[0].at))


def _show_causes(reader: JobsetReader) -> None:
    """The most frequent causes of the last failures."""
    terminal.table(
        ("FAILED", "ERROR", "WHERE", "FOR EXAMPLE"),
        (
            (
                row.n,
                terminal.shortened(f"{row.cause.type}: {row.cause.message}", 80),
                row.cause.frame,
                f"job {row.example}",
            )
            for row in reader.causes(GROUPS)
        ),
        right=[0],
    )
