"""``workerbee wait``: until nothing is open any more, with an exit status that says how it ended."""

from __future__ import annotations

import time

import click

from workerbee.cli.database import dsn_option, found, reading

#: Seconds between looks, at first and at the most.
PAUSE_SECONDS = (0.2, 5.0)
SOME_FAILED, TIME_IS_UP = 1, 124


@click.command()
@click.argument("jobset_id", metavar="JOBSET")
@click.option("--timeout", type=click.FloatRange(0), metavar="SECONDS", help="Wait no longer; then the status is 124.")
@click.option("--fail-fast", is_flag=True, help="Don't wait for the rest once a job has failed or was cancelled.")
@dsn_option
def wait(jobset_id: str, timeout: float | None, dsn: str | None, *, fail_fast: bool) -> None:
    """Wait until all jobs of JOBSET have ended.

    Exit status: 0 all completed, 1 some failed or were cancelled, 124 the time is up.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    pause, longest = PAUSE_SECONDS
    with reading(dsn) as reader:
        while True:
            counts = found(reader, jobset_id)[0].counts
            badly = counts.failed + counts.cancelled - counts.reopened
            if not counts.open or (fail_fast and badly > 0):
                break
            if deadline is not None and time.monotonic() >= deadline:
                click.echo(f"{counts.open:,} jobs of {jobset_id} are still open", err=True)
                raise SystemExit(TIME_IS_UP)
            time.sleep(pause if deadline is None else max(0.0, min(pause, deadline - time.monotonic())))
            pause = min(longest, pause * 1.5)
    if badly > 0:
        click.echo(f"{badly:,} jobs of {jobset_id} failed or were cancelled: workerbee failures {jobset_id}", err=True)
        raise SystemExit(SOME_FAILED)
