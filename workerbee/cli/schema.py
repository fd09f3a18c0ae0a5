"""``workerbee schema``: the database's side, for its administrator."""

from __future__ import annotations

import click

from workerbee.cli import terminal
from workerbee.cli.commands import Subcommands
from workerbee.cli.database import connected, dsn_option
from workerbee.cli.terminal import json_option

#: Seconds for which an upgrade waits for tables that others use.
PATIENCE_SECONDS = 60.0


@click.group(cls=Subcommands)
def schema() -> None:
    """Show, install or print the tables that all jobsets share."""


@schema.command()
@dsn_option
@json_option
def show(dsn: str | None, *, as_json: bool) -> None:
    """Say which version of the schema the database has, and which one this program needs."""
    from workerbee import reading  # noqa: PLC0415 (loads the driver)

    with connected(dsn) as connection:
        present = reading.version_here(connection)
    needed = reading.needed_version()
    if as_json:
        terminal.document("schema", present=present, needed=needed)
    elif present:
        click.echo(f"version {present} is here; this program needs {needed}")
    else:
        click.echo(f"not here yet; this program needs version {needed}: workerbee schema install")
    raise SystemExit(present != needed)


@schema.command()
@dsn_option
def install(dsn: str | None) -> None:
    """Bring the schema to this program's version; every client and bee that may does the same."""
    _bring(dsn)


@schema.command()
@dsn_option
def upgrade(dsn: str | None) -> None:
    """Bring an older schema, and the tables of all jobsets, to this program's version, also under running bees.

    Programs of the former version are told to be upgraded, and end.
    """
    _bring(dsn)


def _bring(dsn: str | None) -> None:
    from workerbee import changing, reading  # noqa: PLC0415 (loads the driver)

    with connected(dsn) as connection:
        before = reading.version_here(connection)
        changing.upgrade_schema(connection, PATIENCE_SECONDS)
        after = reading.version_here(connection)
    click.echo(f"version {after} is here" + (" already" if before == after else ""))


@schema.command()
def sql() -> None:
    """Print the SQL that installs the schema, for an administrator who wants to read it first."""
    from workerbee import reading  # noqa: PLC0415 (loads the driver)

    for number, text in reading.scripts():
        click.echo(f"-- migration {number}")
        click.echo(text)
