"""``workerbee server``: what the embedded server keeps, and where."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click

from workerbee.cli import terminal
from workerbee.cli.commands import Subcommands
from workerbee.cli.terminal import json_option

if TYPE_CHECKING:
    from workerbee.server.kept import Kept

#: Characters of a program's command.
COMMAND = 80


@click.group(cls=Subcommands)
def server() -> None:
    """Say what the embedded server keeps on this machine, and stop it.

    It is started by who needs it, and ends soon after the last one; its data stay.
    """


@server.command()
@json_option
def status(*, as_json: bool) -> None:
    """Say whether it runs, for whom, how large its data are, and how to remove everything.

    Exit status: 1 if it doesn't run.
    """
    from workerbee.server import kept  # noqa: PLC0415 (loads the driver)

    seen = kept.look()
    if as_json:
        terminal.document(
            "server",
            running=seen.pid is not None,
            pid=seen.pid,
            state=seen.state or None,
            data=str(seen.data.path),
            bytes=seen.data.size,
            exists=seen.is_there,
            users=[user._asdict() for user in seen.users],
            others=[{"path": str(place.path), "bytes": place.size} for place in seen.others],
            key=seen.key and str(seen.key),
        )
    else:
        for line in _said(seen):
            click.echo(terminal.printable(line))
    raise SystemExit(seen.pid is None)


def _said(seen: Kept) -> list[str]:
    said = [f"running as process {seen.pid}: {seen.state}" if seen.pid else "not running"]
    said += [f"  used by {user.pid}: {user.command[:COMMAND]}" for user in seen.users]
    made = f"data: {seen.data.path}, {_megabytes(seen.data.size)}"
    said.append(made if seen.is_there else f"no data yet; they will be in {seen.data.path}")
    said += [f"also: {place.path}, {_megabytes(place.size)}" for place in seen.others]
    if seen.key is not None:
        said.append(f"key: {seen.key}, a copy of the one that signs")
    ours = [place.path for place in (*([seen.data] if seen.is_there else []), *seen.others)]
    if ours:
        remove = shlex.join(str(path) for path in (*ours, *([seen.key] if seen.key else [])))
        said.append(f"to delete all of it, jobs and results too: workerbee server stop && rm -r {remove}")
    return said


@server.command()
def stop() -> None:
    """Stop it, if no program uses it; its data stay.

    Exit status: 1 if programs use it, which are named: they would start it again.
    """
    from workerbee.server import kept  # noqa: PLC0415 (loads the driver)

    seen = kept.look()
    if seen.users:
        for user in seen.users:
            click.echo(terminal.printable(f"{user.pid}: {user.command[:COMMAND]}"), err=True)
        ends = f"kill {' '.join(str(user.pid) for user in seen.users)}"
        raise click.ClickException(f"these programs use it, and it stops soon after the last one: {ends}")
    if seen.pid is None:
        click.echo("it isn't running")
    elif kept.stop(seen):
        click.echo(f"stopped; its data are in {seen.data.path}")
    else:
        raise click.ClickException(
            f"process {seen.pid} hasn't stopped in {kept.PATIENCE_SECONDS:g} s; see {seen.data.path}"
        )


@server.command()
@json_option
def path(*, as_json: bool) -> None:
    """Print the directory of its data, whether they are there yet or not."""
    from workerbee.server import kept  # noqa: PLC0415 (loads the driver)

    seen = kept.look()
    if as_json:
        terminal.document("server_path", data=str(seen.data.path), exists=seen.is_there)
    else:
        click.echo(seen.data.path)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
