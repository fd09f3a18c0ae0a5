"""``workerbee wait``: until nothing is open any more, with an exit status that says how it ended."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from workerbee.cli import terminal
from workerbee.cli.database import dsn_option, found, reading, same_server
from workerbee.cli.terminal import json_option
from workerbee.outlook import still_open

if TYPE_CHECKING:
    from workerbee.reading import Counts

#: Seconds between looks, at first and at the most.
PAUSE_SECONDS = (0.2, 5.0)
SOME_FAILED, TIME_IS_UP = 1, 124


@click.command()
@click.argument("jobset_id", metavar="JOBSET")
@click.option("--timeout", type=click.FloatRange(0), metavar="SECONDS", help="Wait no longer; then the status is 124.")
@click.option("--fail-fast", is_flag=True, help="Don't wait for the rest once a job has failed or was cancelled.")
@dsn_option
@json_option
def wait(jobset_id: str, timeout: float | None, dsn: str | None, *, fail_fast: bool, as_json: bool) -> None:
    """Wait until all jobs of JOBSET have ended.

    Exit status: 0 all completed, 1 some failed or were cancelled, 124 the time is up.
    """
    counts = _ended(jobset_id, timeout, dsn, fail_fast=fail_fast)
    badly = _badly(counts)
    is_over = not counts.open or (fail_fast and badly > 0)
    if as_json:
        fields = {"jobset": jobset_id, "completed": counts.completed, "ended_badly": badly, "open": counts.open}
        terminal.document("wait", **fields, time_is_up=not is_over)
    elif not is_over:
        click.echo(still_open(jobset_id, counts.open), err=True)
    elif badly > 0:
        advice = f"workerbee failures {jobset_id}{same_server(dsn)}"
        click.echo(f"{badly:,} jobs of {jobset_id} failed or were cancelled: {advice}", err=True)
    raise SystemExit(TIME_IS_UP if not is_over else SOME_FAILED if badly > 0 else 0)


def _ended(jobset_id: str, timeout: float | None, dsn: str | None, *, fail_fast: bool) -> Counts:
    """The counts when there is nothing more to wait for, or the time is up."""
    deadline = None if timeout is None else time.monotonic() + timeout
    pause, longest = PAUSE_SECONDS
    with reading(dsn) as reader:
        while True:
            counts = found(reader, jobset_id)[0].counts
            if not counts.open or (fail_fast and _badly(counts) > 0):
                return counts
            if deadline is not None and time.monotonic() >= deadline:
                return counts
            time.sleep(pause if deadline is None else max(0.0, min(pause, deadline - time.monotonic())))
            pause = min(longest, pause * 1.5)


def _badly(counts: Counts) -> int:
    return counts.failed + counts.cancelled - counts.reopened
