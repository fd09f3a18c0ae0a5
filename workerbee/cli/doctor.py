"""``workerbee doctor``: whether this machine can work with the server that is meant."""

from __future__ import annotations

import click

from workerbee.cli import terminal
from workerbee.cli.database import dsn_option
from workerbee.cli.terminal import json_option


@click.command()
@dsn_option
@json_option
def doctor(dsn: str | None, *, as_json: bool) -> None:
    """Look from here at all that it takes: names, port, TLS, login, rights, versions, pooler, clock, key, packages.

    A line each. Nothing is changed; an embedded server is started. Exit status: 1 if one is bad.
    """
    from workerbee.checkup import BAD, checkup  # noqa: PLC0415 (loads the driver)

    found = []
    for verdict in checkup(dsn):
        found.append(verdict)
        if not as_json:
            said = terminal.printable(" ".join(verdict.said.split()))
            click.echo(f"{verdict.verdict:<6}  {verdict.what}: {said}")
    bad = [verdict.what for verdict in found if verdict.verdict == BAD]
    if as_json:
        terminal.document("doctor", ok=not bad, checks=[verdict._asdict() for verdict in found])
    raise SystemExit(bool(bad))
