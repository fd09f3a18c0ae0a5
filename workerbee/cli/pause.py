"""``workerbee pause``: nothing more is begun, for a while."""

from __future__ import annotations

import click

from workerbee.cli.database import dsn_option, found, reading, same_server


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
    click.echo(f"{jobset_id} {said}: workerbee resume {jobset_id}{same_server(dsn)}")
