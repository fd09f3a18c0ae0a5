"""``workerbee key``: the key that signs, and what is to be done where it is lost."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click

from workerbee.cli import terminal
from workerbee.cli.asking import make_sure, yes_option
from workerbee.cli.commands import Subcommands
from workerbee.cli.database import dsn_option, found, reading
from workerbee.cli.terminal import json_option
from workerbee.errors import brief

if TYPE_CHECKING:
    from workerbee.reading import Connection, JobsetReader
    from workerbee.wire.job import Jobset


@click.group(cls=Subcommands)
def key() -> None:
    """Show the key that signs functions and values, and go on where it is lost."""


@key.command()
@json_option
def show(*, as_json: bool) -> None:
    """Say which key this user has, and where it is kept; the key itself is shown to nobody.

    Exit status: 1 if there is none yet.
    """
    from workerbee import places  # noqa: PLC0415 (--help does without)
    from workerbee.wire.signing import Key  # noqa: PLC0415

    files = {str(path): made.fingerprint for path in (places.key(), places.kept_key()) if (made := Key.read(path))}
    ours = Key.load()
    if as_json:
        terminal.document("key", fingerprint=ours and ours.fingerprint, path=str(places.key()), files=files)
    elif ours is None:
        click.echo(f"no key yet: the first client makes {places.key()}")
    for path, fingerprint in () if as_json else files.items():
        click.echo(f"{fingerprint} in {path}")
    raise SystemExit(ours is None)


@key.command()
@yes_option
def rotate(*, yes: bool) -> None:
    """Make a new key in the place of this user's, which somebody else may know.

    The old one stays in a file beside it. Jobsets that it has signed go on with WORKERBEE_KEY_FILE naming that file;
    what is made from now on is signed by the new one.
    """
    from workerbee.wire import signing  # noqa: PLC0415 (--help does without)

    make_sure("replace this user's key; jobsets that it has signed will need the old one's file", yes=yes)
    made, aside = signing.rotate()
    click.echo(f"{made.fingerprint} signs from now on")
    click.echo(f"for jobsets of before: export WORKERBEE_KEY_FILE={shlex.quote(str(aside))}")


@key.command()
@click.argument("jobset_id", metavar="JOBSET")
@click.option("--yes", is_flag=True, help="Don't ask.")
@dsn_option
def renew(jobset_id: str, dsn: str | None, *, yes: bool) -> None:
    """Start JOBSET anew because the key that signed it is lost.

    Says what can be read without the key and what can't. Nothing is deleted: the old jobset gets another id.
    """
    from workerbee.wire.signing import Key, whereabouts  # noqa: PLC0415 (--help does without)

    with reading(dsn) as database:
        row, reader = found(database, jobset_id)
        theirs, ours = row.jobset.key, Key.load()
        if theirs is None or (ours is not None and ours.fingerprint == theirs):
            click.echo(f"{jobset_id} needs no other key: this user's signs in it")
            return
        if path := whereabouts(theirs):
            raise click.ClickException(f"the key of {jobset_id} is in {path}: set WORKERBEE_KEY_FILE={path}")
        click.echo(_legible(reader, jobset_id, theirs))
        if not yes:
            click.confirm("Start it anew?", abort=True)
        aside = _set_aside(database.connection, row.jobset, theirs)
    click.echo(f"The old jobset is now {aside}; the next client of {jobset_id} makes a new one, with its own key.")


def _legible(reader: JobsetReader, jobset_id: str, theirs: str) -> str:
    """Describe what is left of a jobset to those who lack its key."""
    n_jobs, n_inputs, n_completed, n_results = reader.legible()
    return (
        f"{jobset_id} was signed with key {brief(theirs)}, which isn't here. Without it\n"
        f"- can be read, in psql and by workerbee jobs: {n_inputs:,} of {n_jobs:,} inputs and {n_results:,} of "
        f"{n_completed:,} results, which are JSON, and when, where and how each job ended;\n"
        f"- can't be read: {n_jobs - n_inputs:,} inputs and {n_completed - n_results:,} results, which are pickles;\n"
        "- nothing of it can be run or attached to, as its functions can't be trusted."
    )


def _set_aside(connection: Connection, jobset: Jobset, theirs: str) -> str:
    """Give the jobset the first free id that says by which key it is legible."""
    from workerbee import changing  # noqa: PLC0415 (loads the driver)

    stem = f"{str(jobset.id)[:36]}_{theirs[:8]}"
    n = 1
    while not changing.rename(connection, jobset, aside := stem if n == 1 else f"{stem}_{n}"):
        n += 1
    return aside
