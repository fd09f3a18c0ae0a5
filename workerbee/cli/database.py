"""What the commands share: the server that is meant, and a connection to it for one look or one change."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from workerbee.reading import Connection, JobsetReader, JobsetRow, Reader, Reading

Command = TypeVar("Command", bound=Callable[..., Any])


def dsn_option(command: Command) -> Command:
    """``--dsn``, as a bee has it."""
    text = "libpq connection string; else PGHOST, PGSERVICE …, else the embedded server. Passwords go into ~/.pgpass."
    return click.option("--dsn", help=text)(command)


def same_server(dsn: str | None) -> str:
    """Give the option by which an advised command means the same server; nothing if the environment names it.

    A password isn't repeated, and so a string that may hold one isn't.
    """
    if dsn is None or "password" in dsn or ("://" in dsn and "@" in dsn):
        return ""
    return f" --dsn {shlex.quote(dsn)}"


@contextmanager
def connected(dsn: str | None) -> Iterator[Connection]:
    """A connection to the server that ``dsn`` or the environment names. Raises WorkerbeeError."""
    from workerbee import reading as read  # noqa: PLC0415 (loads the driver, which --help does without)
    from workerbee import server  # noqa: PLC0415

    with server.of_command(dsn) as found, read.connected(found.dsn) as connection:
        yield connection


@contextmanager
def reading(dsn: str | None) -> Iterator[Reader]:
    """A reader of all jobsets and bees. Raises UnsupportedDatabaseError where Workerbee has never been."""
    from workerbee import reading as read  # noqa: PLC0415
    from workerbee import server  # noqa: PLC0415

    with server.of_command(dsn) as found, read.opened(found.dsn) as reader:
        yield reader


def stored(reader: Reader, row: JobsetRow) -> Reading:
    """Make what reads the values of a jobset, and verifies them if the key is here."""
    from workerbee.reading import Reading  # noqa: PLC0415 (loads the driver)
    from workerbee.wire.signing import Key, Signer  # noqa: PLC0415 (loads the driver)

    key = Key.load()
    return Reading(reader.connection, row.jobset, None if key is None else Signer(key, row.jobset.uuid))


def found(reader: Reader, jobset_id: str) -> tuple[JobsetRow, JobsetReader]:
    """The jobset of this id and a reader of it. Raises JobsetNotFoundError, which names those that are there."""
    from workerbee.errors import JobsetNotFoundError  # noqa: PLC0415

    rows = reader.jobsets(1, jobset_id=jobset_id)
    if not rows:
        raise JobsetNotFoundError(jobset_id, tuple(str(row.jobset.id) for row in reader.jobsets()))
    return rows[0], reader.of(rows[0].jobset)
