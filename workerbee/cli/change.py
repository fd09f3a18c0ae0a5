"""``workerbee retry``, ``cancel``, ``pause`` and ``resume``: what changes much says how much, and asks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from workerbee.cli.database import dsn_option, found, reading

if TYPE_CHECKING:
    from workerbee.reading import JobsetReader, Wanted

#: Digits at the most of a group's place in the list; what is longer is the beginning of its name.
PLACE = 3
#: Digits of a whole name.
WHOLE = 16
OPEN = ("waiting", "retrying", "running")

Command = TypeVar("Command", bound=Callable[..., Any])


def yes_option(command: Command) -> Command:
    """``--yes``, for who is sure."""
    return click.option("--yes", is_flag=True, help="Don't ask.")(command)


def make_sure(what: str, *, yes: bool) -> None:
    """Ask; without somebody to ask, demand ``--yes``."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"this would {what}; say --yes to do it")
    click.confirm(f"This will {what}. Go on?", abort=True, err=True)


def _statuses(*allowed: str) -> Callable[[Command], Command]:
    """``--status``, one of these or several with commas between."""

    def parsed(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...] | None:
        statuses = None if value is None else tuple(value.split(","))
        if unknown := set(statuses or ()) - set(allowed):
            raise click.BadParameter(f"{', '.join(sorted(unknown))}: there are {', '.join(allowed)}")
        return statuses

    text = f"Only what is {' or '.join(allowed)}; several with commas between."
    return click.option("--status", "statuses", callback=parsed, metavar="STATUS", help=text)


def which_options(command: Command) -> Command:
    """The options that say which jobs are meant."""
    command = click.option("--host", metavar="HOST", help="Only jobs that were on this host last.")(command)
    command = click.option("--function", metavar="MODULE:NAME", help="Only jobs of this function.")(command)
    text = "Only jobs that failed for this cause: a group of 'workerbee failures'."
    return click.option("--group", metavar="GROUP", help=text)(command)


@click.command()
@click.argument("jobset_id", metavar="JOBSET")
@click.argument("ids", nargs=-1, type=click.IntRange(1), metavar="[ID]…")
@which_options
@_statuses("failed", "cancelled")
@click.option("--cancelled", is_flag=True, help="The same as --status failed,cancelled.")
@click.option("--dry-run", is_flag=True, help="Only say how many it would be.")
@yes_option
@dsn_option
def retry(
    jobset_id: str,
    ids: tuple[int, ...],
    statuses: tuple[str, ...] | None,
    dsn: str | None,
    *,
    cancelled: bool,
    dry_run: bool,
    yes: bool,
    **which: str | None,
) -> None:
    """Start the failed jobs of JOBSET once more: all of them, those that options say, or those with these IDs.

    What has completed, waits or runs is left as it is.
    """
    from workerbee.changing import Changing  # noqa: PLC0415 (loads the driver)

    _refuse_both(ids, which, statuses)
    with reading(dsn) as reader:
        row, jobset = found(reader, jobset_id)
        changing = Changing(reader.connection, row.jobset)
        if ids:
            runs = [(job.id, job.run) for job in jobset.jobs_of(list(ids)) if job.status in ("failed", "cancelled")]
            n = len(runs)
        else:
            wanted = wanted_jobs(jobset, statuses or (("failed", "cancelled") if cancelled else ("failed",)), **which)
            n = changing.count(wanted)
        what = f"run {n:,} of {jobset_id}'s jobs once more"
        if dry_run or not n:
            click.echo(f"this would {what}" if n else f"nothing in {jobset_id} is to be retried")
            return
        make_sure(what, yes=yes or bool(ids))
        n = changing.retry_runs(runs) if ids else changing.retry_wanted(wanted)
    click.echo(f"{n:,} jobs of {jobset_id} wait to be run once more")


def _refuse_both(ids: tuple[int, ...], which: dict[str, str | None], statuses: tuple[str, ...] | None) -> None:
    given = [f"--{name}" for name, value in (which | {"status": statuses}).items() if value is not None]
    if ids and given:
        raise click.UsageError(f"give IDs or {given[0]}, not both")


def wanted_jobs(
    reader: JobsetReader,
    statuses: tuple[str, ...] | None,
    *,
    group: str | None,
    function: str | None,
    host: str | None,
) -> Wanted:
    """The jobs that the options mean."""
    from workerbee.reading import Wanted  # noqa: PLC0415 (loads the driver)

    return Wanted(statuses, function, group and _cause_called(reader, group), host)  # type: ignore[arg-type]


def _cause_called(reader: JobsetReader, group: str) -> bytes:
    """The cause that is called so, by the first digits of its digest or, in up to three digits, by its place."""
    if len(group) == WHOLE and set(group) <= set("0123456789abcdef"):
        return bytes.fromhex(group)
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
@which_options
@_statuses("waiting", "retrying", "running")
@yes_option
@dsn_option
def cancel(
    jobset_id: str,
    ids: tuple[int, ...],
    statuses: tuple[str, ...] | None,
    dsn: str | None,
    *,
    yes: bool,
    **which: str | None,
) -> None:
    """Cancel what waits and what runs in JOBSET: all of it, what options say, or the jobs with these IDs.

    Runners of running jobs are killed within a second. 'workerbee retry JOBSET --status cancelled' takes it back.
    """
    from workerbee.changing import Changing  # noqa: PLC0415 (loads the driver)

    _refuse_both(ids, which, statuses)
    with reading(dsn) as reader:
        row, jobset = found(reader, jobset_id)
        changing = Changing(reader.connection, row.jobset)
        is_all = statuses is None and not any(which.values())
        wanted = wanted_jobs(jobset, statuses or OPEN, **which)
        n = len(ids) or (row.counts.open if is_all else changing.count(wanted))
        if n:
            make_sure(f"cancel the {n:,} open jobs of {jobset_id}", yes=yes or bool(ids))
        if ids:
            n = changing.cancel_runs([(job.id, job.run) for job in jobset.jobs_of(list(ids))])
        elif n:
            n = changing.cancel() if is_all else changing.cancel_wanted(wanted)
    click.echo(f"{n:,} jobs of {jobset_id} were cancelled")


@click.command()
@click.argument("jobset_id", metavar="JOBSET")
@click.option("--why", metavar="TEXT", help="For those who look later.")
@dsn_option
def pause(jobset_id: str, why: str | None, dsn: str | None) -> None:
    """Have no more jobs of JOBSET begun until it is resumed; what runs goes on.

    Bees that serve it wait. Jobs can be added and cancelled meanwhile.
    """
    from workerbee.changing import Changing  # noqa: PLC0415 (loads the driver)

    with reading(dsn) as reader:
        row, _ = found(reader, jobset_id)
        is_new = Changing(reader.connection, row.jobset).pause(why)
        [row] = reader.jobsets(1, jobset_id=jobset_id)
    said = "is paused" if is_new else f"was paused already, by {row.paused_by}"
    click.echo(f"{jobset_id} {said}: workerbee resume {jobset_id}")


@click.command()
@click.argument("jobset_id", metavar="JOBSET")
@dsn_option
def resume(jobset_id: str, dsn: str | None) -> None:
    """Have the jobs of JOBSET begun again."""
    from workerbee.changing import Changing  # noqa: PLC0415 (loads the driver)

    with reading(dsn) as reader:
        row, _ = found(reader, jobset_id)
        was_paused = Changing(reader.connection, row.jobset).resume()
    click.echo(f"{jobset_id} goes on" if was_paused else f"{jobset_id} wasn't paused")
