"""``workerbee resume``: the end of a pause."""

from __future__ import annotations

import click

from workerbee.cli.database import dsn_option, found, reading


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
