"""``workerbee retry``: what failed is run once more."""

from __future__ import annotations

import click

from workerbee.cli.asking import make_sure, yes_option
from workerbee.cli.database import dsn_option, found, reading
from workerbee.cli.which import JobId, jobs_called, refuse_both, statuses_option, wanted_jobs, which_options


@click.command()
@click.argument("jobset_id", metavar="JOBSET")
@click.argument("ids", nargs=-1, type=JobId(), metavar="[ID]…")
@which_options
@statuses_option("failed", "cancelled")
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

    What has completed, waits or runs is left as it is, unless its large result is lost.
    """
    from workerbee.changing import Changing  # noqa: PLC0415 (loads the driver)

    refuse_both(ids, which, statuses)
    with reading(dsn) as reader:
        row, jobset = found(reader, jobset_id)
        changing = Changing(reader.connection, row.jobset)
        if not dry_run:
            changing.find_lost(ids or None)
        if ids:
            runs = [(job.id, job.run) for job in jobs_called(jobset, ids) if job.status in ("failed", "cancelled")]
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
