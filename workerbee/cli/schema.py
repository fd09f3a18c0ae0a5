"""``workerbee schema``: the database's side, for its administrator."""

from __future__ import annotations

import click

from workerbee.cli import terminal
from workerbee.cli.database import connected, dsn_option
from workerbee.cli.terminal import json_option


@click.group()
def schema() -> None:
    """Show, install or print the tables that all jobsets share."""


@schema.command()
@dsn_option
@json_option
def show(dsn: str | None, *, as_json: bool) -> None:
    """Say which version of the schema the database has, and which one this program needs."""
    from workerbee.store import schema as tables  # noqa: PLC0415 (loads the driver)

    with connected(dsn) as connection:
        present = tables.version(connection)
    needed = max(tables.migrations())
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
    from workerbee.store import schema as tables  # noqa: PLC0415 (loads the driver)

    with connected(dsn) as connection:
        before = tables.version(connection)
        tables.ensure(connection)
        after = tables.version(connection)
    click.echo(f"version {after} is here" + (" already" if before == after else ""))


@schema.command()
def sql() -> None:
    """Print the SQL that installs the schema, for an administrator who wants to read it first."""
    from workerbee.store import schema as tables  # noqa: PLC0415 (loads the driver)

    for number in sorted(tables.migrations()):
        click.echo(f"-- migration {number}")
        click.echo(tables.script_text(number))
