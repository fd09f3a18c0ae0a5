"""``workerbee status`` and ``workerbee bees``: how it goes, and who works."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from workerbee.cli import terminal
from workerbee.cli.database import dsn_option, found, reading
from workerbee.cli.terminal import json_option

if TYPE_CHECKING:
    from workerbee.reading import BeeRow, JobsetReader, JobsetRow

#: Groups of failures that a status shows.
GROUPS = 5


@click.command()
@click.argument("jobset_id", required=False, metavar="[JOBSET]")
@dsn_option
@json_option
def status(jobset_id: str | None, dsn: str | None, *, as_json: bool) -> None:
    """Say how JOBSET goes, or list all jobsets.

    A percentage counts the jobs whose latest run has ended, rounded down: 100 % only if nothing is open.
    """
    with reading(dsn) as reader:
        if jobset_id is not None:
            _show_one(*found(reader, jobset_id), as_json=as_json)
        else:
            _show_all(reader.jobsets(), as_json=as_json)


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


@click.command()
@click.argument("jobset_id", required=False, metavar="[JOBSET]")
@dsn_option
@json_option
def bees(jobset_id: str | None, dsn: str | None, *, as_json: bool) -> None:
    """List the bees that serve JOBSET, or all bees: where they run, and when they were last heard of."""
    with reading(dsn) as reader:
        jobset = found(reader, jobset_id)[0].jobset if jobset_id is not None else None
        rows = reader.bees(jobset)
    if as_json:
        terminal.lines(_bee(row) for row in rows)
        return
    if not rows:
        click.echo(f"no bee is there; start one with: python -m workerbee.bee {jobset_id or ''}".rstrip(), err=True)
        return
    now = time.time()
    from workerbee.outlook import spelled  # noqa: PLC0415 (loads the driver)

    terminal.table(
        ("BEE", "STATE", "HOST", "PID", "SERVES", "RUNNERS", "HAS BEGUN", "UP FOR", "HEARD OF", "PYTHON"),
        (
            (
                row.id[:8],
                _state(row),
                row.host,
                row.pid,
                "every jobset" if row.serves_all else row.jobset or "a temporary jobset",
                row.n_runners,
                row.n_started,
                spelled(max(0.0, now - row.started_at)),
                f"{spelled(max(0.0, row.silent_for))} ago",
                row.python,
            )
            for row in rows
        ),
        right=(3, 5, 6, 7, 8),
    )


def _state(row: BeeRow) -> str:
    if not row.alive:
        return "silent"
    return "resting" if row.resting else "alive"


def _bee(row: BeeRow) -> dict[str, Any]:
    return {
        "bee": row.id,
        "state": _state(row),
        "host": row.host,
        "pid": row.pid,
        "jobset": row.jobset,
        "serves_all": row.serves_all,
        "runners": row.n_runners,
        "begun": row.n_started,
        "started": terminal.moment(row.started_at),
        "silent_seconds": row.silent_for,
        "python": row.python,
        "version": row.version,
        "cpus": row.cpus,
        "launch": row.launch,
        "place": row.place,
        "ends": terminal.moment(row.ends_at),
        "refuses": row.refuses,
    }
