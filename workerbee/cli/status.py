"""``workerbee status``: how it goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from workerbee.cli import terminal
from workerbee.cli.database import dsn_option, found, reading
from workerbee.cli.terminal import json_option

if TYPE_CHECKING:
    from workerbee.reading import JobsetReader, JobsetRow, Reader

#: Groups of failures that a status shows.
GROUPS = 5


@click.command()
@click.argument("jobset_id", required=False, metavar="[JOBSET]")
@click.option("--size", is_flag=True, help="Say how much room each takes in the database.")
@dsn_option
@json_option
def status(jobset_id: str | None, dsn: str | None, *, size: bool, as_json: bool) -> None:
    """Say how JOBSET goes, or list all jobsets.

    A percentage counts the jobs whose latest run has ended, rounded down: 100 % only if nothing is open.
    """
    with reading(dsn) as reader:
        if size:
            rows = reader.jobsets() if jobset_id is None else [found(reader, jobset_id)[0]]
            _show_sizes(reader, rows, as_json=as_json)
        elif jobset_id is not None:
            _show_one(*found(reader, jobset_id), as_json=as_json)
        else:
            _show_all(reader.jobsets(), as_json=as_json)


def _show_sizes(reader: Reader, rows: list[JobsetRow], *, as_json: bool) -> None:
    """The largest first; what jobs have printed is part of the whole."""
    sizes = sorted(((*reader.of(row.jobset).size(), row) for row in rows), key=lambda size: size[:2], reverse=True)
    if as_json:
        terminal.lines(_numbers(row) | {"bytes": whole, "text_bytes": texts} for whole, texts, row in sizes)
        return
    shown = (
        (row.jobset.name, f"{whole / 1e6:,.1f} MB", f"{texts / 1e6:,.1f} MB", f"{row.counts.added:,}")
        for whole, texts, row in sizes
    )
    terminal.table(("JOBSET", "SIZE", "PRINTED", "JOBS"), shown, right=range(1, 4))


def _show_all(rows: list[JobsetRow], *, as_json: bool) -> None:
    if as_json:
        terminal.lines(_numbers(row) for row in rows)
        return
    if not rows:
        click.echo("no jobsets here yet; an executor with a jobset_id makes one", err=True)
        return
    from workerbee.outlook import percent_of  # noqa: PLC0415 (loads the driver)

    terminal.table(
        ("JOBSET", "DONE", "JOBS", "OPEN", "FAILED", "BEES", "RUNNERS", "MADE"),
        (
            (
                row.jobset.name,
                f"{percent_of(row.counts.added, row.counts.open)} %",
                f"{row.counts.added:,}",
                f"{row.counts.open:,}",
                f"{row.counts.failed:,}",
                row.n_bees,
                row.n_runners,
                terminal.local(row.created_at),
            )
            for row in rows
        ),
        right=range(1, 7),
    )


def _show_one(row: JobsetRow, reader: JobsetReader, *, as_json: bool) -> None:
    from workerbee.outlook import outlook  # noqa: PLC0415 (loads the driver)

    progress = reader.progress()
    view = outlook(
        row.jobset.name,
        progress,
        n_bees=row.n_bees,
        n_runners=row.n_runners,
        quartiles=reader.recent_durations(),
    )
    if as_json:
        facts = _numbers(row) | {
            "jobs": progress._asdict(),
            "percent": view.percent,
            "seconds_left": view.seconds_left,
            "sentence": view.sentence,
            "next": view.advice,
        }
        terminal.document("status", **facts)
        return
    click.echo(view.sentence)
    if row.paused_at is not None:
        why = f": {row.paused_why}" if row.paused_why else ""
        click.echo(f"Paused since {terminal.local(row.paused_at)} by {row.paused_by}{why}")
    events = {
        "attempts tried again": row.counts.retried,
        "attempts lost with their bees": row.counts.lost,
        "extra copies of stragglers": row.counts.speculative,
        "runs started anew": row.counts.reopened,
    }
    for name, n in events.items():
        if n:
            click.echo(f"{n:>8,} {name}")
    if progress.failed:
        _show_causes(reader)
    advice = f"workerbee resume {row.jobset.name}" if row.paused_at is not None else view.advice
    if advice is not None:
        click.echo(f"next: {advice}")


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


def _numbers(row: JobsetRow) -> dict[str, Any]:
    from workerbee.outlook import percent_of  # noqa: PLC0415 (loads the driver)

    counts = row.counts._asdict() | {"open": row.counts.open}
    return {
        "jobset": row.jobset.id,
        "made": terminal.moment(row.created_at),
        "active": terminal.moment(row.active_at),
        "paused": terminal.moment(row.paused_at),
        "paused_by": row.paused_by,
        "paused_why": row.paused_why,
        "percent": percent_of(row.counts.added, row.counts.open),
        "bees": row.n_bees,
        "runners": row.n_runners,
        "events": counts,
    }
