"""``workerbee jobs list``: the jobs of a jobset, page by page."""

from __future__ import annotations

import click

from workerbee.cli import terminal
from workerbee.cli.database import dsn_option, found, reading
from workerbee.cli.jobs.rows import fields, print_table
from workerbee.cli.terminal import json_option
from workerbee.cli.which import statuses_option, wanted_jobs, which_options

STATUSES = ("waiting", "retrying", "running", "completed", "failed", "cancelled")


@click.command("list")
@click.argument("jobset_id", metavar="JOBSET")
@statuses_option(*STATUSES)
@which_options
@click.option("--after", type=click.IntRange(0), default=0, help="Only jobs with a greater id: the next page.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="Jobs on a page.")
@dsn_option
@json_option
def list(  # noqa: A001 (the command is called so)
    jobset_id: str,
    statuses: tuple[str, ...] | None,
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
        page, more = jobset.jobs(after, limit, wanted_jobs(jobset, statuses, **which))
    if as_json:
        terminal.lines(fields(row) for row in page)
        return
    print_table(page)
    if more is not None:
        click.echo(f"there may be more: --after {more}", err=True)
