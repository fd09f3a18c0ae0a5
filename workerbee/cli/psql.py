"""``workerbee psql``: PostgreSQL's own program, on the server that is meant."""

from __future__ import annotations

import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import click

from workerbee.cli.database import dsn_option


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[PSQL'S ARGUMENTS]…")
@dsn_option
def psql(arguments: tuple[str, ...], dsn: str | None) -> None:
    """Open psql on the server that is meant, the embedded one too; its exit status is psql's.

    A row a job is in the view named as the jobset: SELECT * FROM workerbee.my_jobset
    """
    from workerbee import server  # noqa: PLC0415 (loads the driver)

    program = shutil.which("psql") or _that_came_along()
    with server.of_command(dsn) as found:  # which keeps an embedded server running meanwhile
        before = signal.signal(signal.SIGINT, lambda *_: None)  # it is for psql
        try:
            address, environment = found.for_programs()
            command = [program, f"--dbname={address}", *arguments]
            status = subprocess.run(command, env=environment, check=False).returncode
        finally:
            signal.signal(signal.SIGINT, before)
    raise SystemExit(status if status >= 0 else 128 - status)


def _that_came_along() -> Path:
    """The embedded server's own psql. Raises ClickException if there is none either."""
    from workerbee.errors import EmbeddedServerError  # noqa: PLC0415 (loads what --help does without)
    from workerbee.server import installation  # noqa: PLC0415

    with suppress(EmbeddedServerError):
        program = installation.installed() / "psql"
        if program.exists():
            return program
    raise click.ClickException(
        "there is no psql on this machine; install PostgreSQL's client (Debian: apt install postgresql-client, "
        "conda: conda install postgresql), or look with: workerbee jobs list"
    )
