"""``workerbee jobs`` and ``workerbee failures``: single jobs, and why they fail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from workerbee.cli import terminal
from workerbee.cli.change import wanted_jobs, which_options
from workerbee.cli.database import dsn_option, found, reading
from workerbee.cli.terminal import json_option, local, moment, shortened

if TYPE_CHECKING:
    from workerbee.reading import CauseRow, Event, JobRow

#: Hexadecimal digits by which a group of failures is called.
GROUP_NAME = 8
STATUSES = ("waiting", "retrying", "running", "completed", "failed", "cancelled")


@click.group()
def jobs() -> None:
    """List jobs, or show one."""


@jobs.command("list")
@click.argument("jobset_id", metavar="JOBSET")
@click.option("--status", type=click.Choice(STATUSES), help="Only jobs whose latest run stands so.")
@which_options
@click.option("--after", type=click.IntRange(0), default=0, help="Only jobs with a greater id: the next page.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="Jobs on a page.")
@dsn_option
@json_option
def list_jobs(
    jobset_id: str,
    status: str | None,
    after: int,
    limit: int,
    dsn: str | None,
    *,
    as_json: bool,
    **which: str | None,
) -> None:
    """List the jobs of JOBSET by id."""
    with reading(dsn) as reader:
        _, jobset = found(reader, jobset_id)
        page, more = jobset.jobs(after, limit, wanted_jobs(jobset, status and (status,), **which))  # type: ignore[arg-type]
    if as_json:
        terminal.lines(_job(row) for row in page)
        return
    terminal.table(
        ("JOB", "STATUS", "RUN", "FUNCTION", "HOST", "TOOK", "ENDED", "INPUT", "OUTPUT"),
        (
            (
                row.id,
                row.status,
                row.run,
                row.function,
                row.host or "",
                "" if row.duration is None else f"{row.duration:.3g} s",
                local(row.ended_at),
                _shown(row.input_codec, row.input),
                "" if row.output_codec is None else _shown(row.output_codec, row.output),
            )
            for row in page
        ),
        right=(0, 2, 5),
    )
    if more is not None:
        click.echo(f"there may be more: --after {more}", err=True)


@jobs.command("show")
@click.argument("jobset_id", metavar="JOBSET")
@click.argument("job", type=click.IntRange(1), metavar="ID")
@dsn_option
@json_option
def show_job(jobset_id: str, job: int, dsn: str | None, *, as_json: bool) -> None:
    """Show one job: its input and output, its attempts, and its error with the traceback."""
    with reading(dsn) as reader:
        _, jobset = found(reader, jobset_id)
        rows, events = jobset.jobs_of([job]), jobset.life(job)
    if not rows:
        raise click.UsageError(f"there is no job {job} in {jobset_id}")
    [row] = rows
    if as_json:
        terminal.document("job", **_job(row), events=[_event(event) for event in events])
        return
    click.echo(f"job {row.id} of {jobset_id}: {row.status}, run {row.run}" + f", {row.function}" * bool(row.function))
    click.echo(f"input:  {_whole(row.input_codec, row.input)}")
    if row.status == "completed":
        click.echo(f"output: {_whole(row.output_codec or '', row.output)}")
    terminal.table(
        ("WHEN", "RUN", "WHAT", "TOOK", "BEE", "HOST", "ERROR"),
        (
            (
                local(event.at),
                event.run,
                event.kind,
                "" if event.duration is None else f"{event.duration:.3g} s",
                (event.bee or "")[:8],
                event.host or "",
                shortened(_said(event)),
            )
            for event in events
        ),
        right=(1, 3),
    )
    if row.status == "failed" and events and (trace := events[-1].error.get("traceback")):
        click.echo(terminal.printable(str(trace)).rstrip())


@click.command()
@click.argument("jobset_id", metavar="JOBSET")
@dsn_option
@json_option
def failures(jobset_id: str, dsn: str | None, *, as_json: bool) -> None:
    """Say why jobs of JOBSET fail: one row a cause, the most frequent first.

    Messages of one cause may differ in numbers, which are shown as #. Failures that were retried don't count.
    """
    with reading(dsn) as reader:
        _, jobset = found(reader, jobset_id)
        rows = jobset.causes()
    if as_json:
        terminal.lines(_group(n, row) for n, row in enumerate(rows, 1))
        return
    if not rows:
        click.echo(f"nothing in {jobset_id} has failed that wasn't retried", err=True)
        return
    terminal.table(
        ("GROUP", "JOBS", "ERROR", "WHERE", "FUNCTION", "LAST SEEN", "FOR EXAMPLE"),
        (
            (
                _named(row.digest),
                f"{row.n:,}",
                shortened(f"{row.cause.type}: {row.cause.message}", 100),
                row.cause.frame,
                ", ".join(row.functions),
                local(row.last_at),
                f"job {row.example}",
            )
            for row in rows
        ),
        right=[1],
    )
    if not rows[0].is_all:
        click.echo(f"only the newest {sum(row.n for row in rows):,} failures were looked at", err=True)


def _shown(codec: str, text: str | None) -> str:
    return shortened(_whole(codec, text), 40)


def _whole(codec: str, text: str | None) -> str:
    """A value's text; of a pickle there is none that could be had without unpickling it."""
    return f"({codec})" if text is None else terminal.printable(text)


def _said(event: Event) -> str:
    error = event.error
    return f"{error.get('type')}: {error.get('message')}" if error else ""


def _job(row: JobRow) -> dict[str, Any]:
    return {
        "job": row.id,
        "status": row.status,
        "run": row.run,
        "function": row.function or None,
        "input": row.input,
        "output": row.output,
        "duration_seconds": row.duration,
        "ended": moment(row.ended_at),
        "bee": row.bee,
        "host": row.host,
    }


def _event(event: Event) -> dict[str, Any]:
    return {
        "kind": event.kind,
        "run": event.run,
        "at": moment(event.at),
        "bee": event.bee,
        "host": event.host,
        "duration_seconds": event.duration,
        "error": event.error or None,
    }


def _named(digest: bytes | None) -> str:
    """What a group of failures is called: enough of its cause's digest to tell it from others."""
    return "" if digest is None else digest.hex()[:GROUP_NAME]


def _group(n: int, row: CauseRow) -> dict[str, Any]:
    return {
        "group": n,
        "cause": row.digest and row.digest.hex(),
        "jobs": row.n,
        "type": row.cause.type,
        "message": row.cause.message,
        "frame": row.cause.frame,
        "functions": row.functions,
        "hosts": row.hosts,
        "first": moment(row.first_at),
        "last": moment(row.last_at),
        "example": row.example,
    }
