"""``workerbee cancel``: what waits or runs is ended."""

from __future__ import annotations

import click

from workerbee.cli.asking import make_sure, yes_option
from workerbee.cli.database import dsn_option, found, reading
from workerbee.cli.which import JobId, jobs_called, refuse_both, statuses_option, wanted_jobs, which_options

OPEN = ("waiting", "retrying", "running")


@click.command()
@click.argument("jobset_id", metavar="JOBSET")
@click.argument("ids", nargs=-1, type=JobId(), metavar="[ID]…")
@which_options
@statuses_option("waiting", "retrying", "running")
@click.option("--running", is_flag=True, help="Also what runs, whatever --status says.")
@yes_option
@dsn_option
def cancel(
    jobset_id: str,
    ids: tuple[int, ...],
    statuses: tuple[str, ...] | None,
    dsn: str | None,
    *,
    running: bool,
    yes: bool,
    **which: str | None,
) -> None:
    """Cancel what waits and what runs in JOBSET: all of it, what options say, or the jobs with these IDs.

    Runners of running jobs are killed within a second. 'workerbee retry JOBSET --status cancelled' takes it back.
    """
    from workerbee.changing import Changing  # noqa: PLC0415 (loads the driver)

    refuse_both(ids, which, statuses)
    if running and statuses is not None:
        statuses = (*statuses, "running")
    with reading(dsn) as reader:
        row, jobset = found(reader, jobset_id)
        changing = Changing(reader.connection, row.jobset)
        is_all = statuses is None and not any(which.values())
        wanted = wanted_jobs(jobset, statuses or OPEN, **which)
        n = len(ids) or (row.counts.open if is_all else changing.count(wanted))
        if n:
            make_sure(f"cancel the {n:,} open jobs of {jobset_id}", yes=yes or bool(ids))
        if ids:
            n = changing.cancel_runs([(job.id, job.run) for job in jobs_called(jobset, ids)])
        elif n:
            n = changing.cancel() if is_all else changing.cancel_wanted(wanted)
    click.echo(f"{n:,} jobs of {jobset_id} were cancelled")
