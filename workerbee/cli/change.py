"""``workerbee retry``, ``cancel`` and ``drop``: what changes much says how much, and asks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from workerbee.cli.database import dsn_option, found, reading

if TYPE_CHECKING:
    from workerbee.store import JobRow, JobsetReader

#: Digits at the most of a group's place in the list; what is longer is the beginning of its name.
PLACE = 3

Command = TypeVar("Command", bound=Callable[..., Any])


def yes_option(command: Command) -> Command:
    """``--yes``, for who is sure."""
    return click.option("--yes", is_flag=True, help="Don't ask.")(command)


def _make_sure(what: str, *, yes: bool) -> None:
    """Ask; without somebody to ask, demand ``--yes``."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"this would {what}; say --yes to do it")
    click.confirm(f"This will {what}. Go on?", abort=True, err=True)


@click.command()
@click.argument("jobset_id", metavar="JOBSET")
@click.argument("ids", nargs=-1, type=click.IntRange(1), metavar="[ID]…")
@click.option("--group", metavar="GROUP", help="Only the failures of this group of 'workerbee failures'.")
@click.option("--cancelled", is_flag=True, help="Also, or with no failures only, what was cancelled.")
@click.option("--dry-run", is_flag=True, help="Only say how many it would be.")
@yes_option
@dsn_option
def retry(
    jobset_id: str,
    ids: tuple[int, ...],
    group: str | None,
    dsn: str | None,
    *,
    cancelled: bool,
    dry_run: bool,
    yes: bool,
) -> None:
    """Start the failed jobs of JOBSET once more: all of them, those of a group, or those with these IDs.

    What has completed, waits or runs is left as it is.
    """
    from workerbee.changing import Changing  # noqa: PLC0415 (loads the driver)

    if ids and group is not None:
        raise click.UsageError("give IDs or --group, not both")
    with reading(dsn) as reader:
        row, jobset = found(reader, jobset_id)
        wanted = {"failed", "cancelled"} if cancelled or ids else {"failed"}
        jobs = [job for job in _chosen(jobset, ids, group, wanted) if job.status in wanted]
        what = f"run {len(jobs):,} of {jobset_id}'s jobs once more"
        if dry_run or not jobs:
            click.echo(f"this would {what}" if jobs else f"nothing in {jobset_id} is to be retried")
            return
        _make_sure(what, yes=yes or bool(ids))
        n = Changing(reader.connection, row.jobset).retry_runs([(job.id, job.run) for job in jobs])
    click.echo(f"{n:,} jobs of {jobset_id} wait to be run once more")


def _chosen(reader: JobsetReader, ids: tuple[int, ...], group: str | None, wanted: set[str]) -> list[JobRow]:
    if ids:
        return reader.jobs_of(list(ids))
    if group is not None:
        return reader.jobs_of(list(reader.failed_of(_cause_called(reader, group))))
    return [job for status in sorted(wanted) for job in reader.all_jobs(status)]


def _cause_called(reader: JobsetReader, group: str) -> bytes:
    """The cause that is called so, by the first digits of its digest or, in up to three digits, by its place."""
    causes = [row.digest for row in reader.causes() if row.digest is not None]
    if group.isdecimal() and len(group) <= PLACE:
        called = causes[int(group) - 1 : int(group)] if int(group) else []
    else:
        called = [digest for digest in causes if digest.hex().startswith(group.lower())]
    if len(called) != 1:
        what = "several are called" if called else "none of them is"
        raise click.UsageError(f"there are {len(causes)} groups of failures now, and {what} {group!r}")
    return called[0]


@click.command()
@click.argument("jobset_id", metavar="JOBSET")
@click.argument("ids", nargs=-1, type=click.IntRange(1), metavar="[ID]…")
@yes_option
@dsn_option
def cancel(jobset_id: str, ids: tuple[int, ...], dsn: str | None, *, yes: bool) -> None:
    """Cancel what waits and what runs in JOBSET: all of it, or the jobs with these IDs.

    Runners of running jobs are killed within a second. 'workerbee retry JOBSET --cancelled' takes it back.
    """
    from workerbee.changing import Changing  # noqa: PLC0415 (loads the driver)

    with reading(dsn) as reader:
        row, jobset = found(reader, jobset_id)
        changing = Changing(reader.connection, row.jobset)
        if ids:
            n = changing.cancel_runs([(job.id, job.run) for job in jobset.jobs_of(list(ids))])
        elif row.counts.open:
            _make_sure(f"cancel the {row.counts.open:,} open jobs of {jobset_id}", yes=yes)
            n = changing.cancel()
        else:
            n = 0
    click.echo(f"{n:,} jobs of {jobset_id} were cancelled")


@click.command()
@click.argument("jobset_ids", nargs=-1, required=True, metavar="JOBSET…")
@yes_option
@dsn_option
def drop(jobset_ids: tuple[str, ...], dsn: str | None, *, yes: bool) -> None:
    """Delete jobsets with all their jobs and results. There is no way back."""
    from workerbee import changing  # noqa: PLC0415 (loads the driver)

    with reading(dsn) as reader:
        rows = [found(reader, jobset_id)[0] for jobset_id in jobset_ids]
        jobs = ", ".join(f"{row.jobset.name} with {row.counts.added:,} jobs" for row in rows)
        _make_sure(f"delete {jobs} and all their results", yes=yes)
        for row in rows:
            gone = changing.drop(reader.connection, row.jobset)
            later = "" if gone else "; somebody is reading it, so its tables go a little later"
            click.echo(f"{row.jobset.name} is dropped{later}")
