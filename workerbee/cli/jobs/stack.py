"""``workerbee jobs stack``: where a running job is."""

from __future__ import annotations

import click

from workerbee.cli import terminal
from workerbee.cli.database import dsn_option, found, reading
from workerbee.cli.terminal import json_option, moment
from workerbee.cli.which import JobId, jobs_called


@click.command("stack")
@click.argument("jobset_id", metavar="JOBSET")
@click.argument("job", type=JobId(), metavar="ID")
@dsn_option
@json_option
def stack(jobset_id: str, job: int, dsn: str | None, *, as_json: bool) -> None:
    """Print where a running job of JOBSET is, the stack of each thread, also if it is stuck in C.

    Its bee is asked through the database. Exit status 1: the job doesn't run, or its bee hasn't answered.
    """
    from workerbee.following import STACK_SECONDS, stack_of  # noqa: PLC0415 (loads the driver)

    with reading(dsn) as reader:
        _, jobset = found(reader, jobset_id)
        [row] = jobs_called(jobset, [job])
        shown = stack_of(reader.connection, jobset.jobset, job) if row.status == "running" else None
    if shown is None:
        why = f"its bee hasn't answered in {STACK_SECONDS:.0f} s" if row.status == "running" else "it doesn't run"
        click.echo(f"job {job} is {row.status}: {why}", err=True)
        raise SystemExit(1)
    text = shown.printed.text(1)
    if as_json:
        terminal.document("stack", job=job, bee=shown.bee, host=row.host, taken=moment(shown.at), stack=text)
    else:
        click.echo(f"job {job} in bee {shown.bee[:8]} on {row.host or '?'}", err=True)
        click.echo(terminal.printable(text))
