"""Installing and migrating the shared schema.

Migrations are numbered SQL files, applied in order, each in one transaction under an advisory
transaction lock, so that racing processes take turns and a killed one leaves nothing half done. The jobsets' own
tables follow in portions (`tables.upgrade_all`).
"""

from __future__ import annotations

from importlib import resources

import psycopg2
from psycopg2 import errors, sql

from workerbee.errors import UnsupportedDatabaseError
from workerbee.store import tables
from workerbee.store.connection import Connection
from workerbee.store.queries import load

OLDEST_SERVER = 120000
#: The rights on the shared tables that a reader needs, and whoever runs jobs or brings them.
READING, WRITING = ("SELECT",), ("SELECT", "INSERT", "UPDATE", "DELETE")
_LOCK = 0x776F726B6572  # "worker": the advisory lock of migrations
_SCHEMA = (
    "CREATE SCHEMA IF NOT EXISTS workerbee;"
    ' CREATE TABLE IF NOT EXISTS workerbee."version$" (number integer PRIMARY KEY,'
    " applied_at timestamptz NOT NULL DEFAULT now());"
)


def migrations() -> dict[int, str]:
    """Give the SQL of each migration by its number."""
    folder = resources.files(__package__).joinpath("migrations")
    return {int(f.name[:3]): f.read_text("utf-8") for f in folder.iterdir() if f.name.endswith(".sql")}


def ensure(connection: Connection) -> None:
    """Bring the schema and the jobsets' tables to this version's, or say why that can't be.

    Raises UnsupportedDatabaseError: the server is older than PostgreSQL 12, the schema newer than this
    program, or the user may not create, upgrade or use it, with what rights are missing. Raises
    DatabaseUnavailableError where an upgrade has to wait for others who use the tables: it can be tried again.
    """
    present, may_create = _present(connection, WRITING)
    if not present and not may_create:
        raise UnsupportedDatabaseError(
            "the schema 'workerbee' isn't in this database and this user may not create it; have its "
            "owner run a Workerbee client once, or GRANT CREATE ON DATABASE"
        )
    if present < max(migrations()):
        _migrate(connection, present)
    tables.upgrade_all(connection)


def require(connection: Connection) -> None:
    """Say so if the schema isn't here as this version has it; nothing is written. Raises as `ensure` does."""
    present, _ = _present(connection, READING)
    if present < max(migrations()):
        raise UnsupportedDatabaseError(
            "no jobset was ever made in this database; name another one by --dsn or PGHOST and PGDATABASE, or make "
            "the first jobset"
            if not present
            else f"the schema 'workerbee' in this database is version {present}, older than this program's; the first "
            "client or bee of this version upgrades it, or its owner by: workerbee schema upgrade"
        )


def version(connection: Connection) -> int:
    """Give the version of the schema that is here, 0 without one. Raises as `ensure` does."""
    return _present(connection, READING)[0]


def lacking(connection: Connection) -> str | None:
    """Name what keeps this user from bringing and running jobs in this database, in a sentence; None: nothing."""
    try:
        present, may_create = _present(connection, WRITING)
    except UnsupportedDatabaseError as error:
        return str(error)
    return None if present or may_create else "there is no schema 'workerbee' yet, and this user may not create it"


def _present(connection: Connection, needed: tuple[str, ...]) -> tuple[int, bool]:
    """Give the version of the schema that is here, 0 without one, and whether this user may make it.

    Raises UnsupportedDatabaseError where this program can't go on, or this user lacks a right that is ``needed``.
    """
    found = connection.run(load("catalogue.sql")["server_facts"], {"needed": list(needed)})
    [(version, installed, may_create, read_only, missing)] = found
    if version < OLDEST_SERVER:
        raise UnsupportedDatabaseError(
            f"the server is PostgreSQL {version // 10000}, and Workerbee needs 12 or newer; upgrade the server, "
            "or use the embedded one by naming no server"
        )
    if missing:
        raise UnsupportedDatabaseError(
            f"this user may not use the schema 'workerbee' in this database: it lacks {missing}; connect as its owner, "
            "or have the owner GRANT that"
        )
    if read_only is not None and needed == WRITING:
        raise UnsupportedDatabaseError(
            f"default_transaction_read_only is on here (source: {read_only}), so that nothing can be stored; have it "
            "turned off, for this user alone by: ALTER ROLE … SET default_transaction_read_only = off"
        )
    newest = max(migrations())
    present = connection.run(load("catalogue.sql")["schema_version"])[0][0] if installed else 0
    if present > newest:
        raise UnsupportedDatabaseError(
            f"the schema 'workerbee' in this database is version {present}, and this program knows {newest}; "
            "upgrade workerbee-executor in this environment"
        )
    return present, bool(may_create)


def script(number: int) -> sql.Composed:
    """Compose one migration, in one transaction."""
    # The version row is the guard: its primary key makes a second application fail and roll back. Whoever waits for a
    # table has all others wait behind it, so that nobody does for long.
    return sql.SQL(
        "BEGIN; SELECT pg_advisory_xact_lock({lock}); {schema}"
        " INSERT INTO workerbee.\"version$\" (number) VALUES ({number}); SET LOCAL lock_timeout = '1s';"
        " {migration} COMMIT"
    ).format(
        lock=sql.SQL(str(_LOCK)),
        schema=sql.SQL(_SCHEMA if number == 1 else ""),
        number=sql.SQL(str(number)),
        migration=sql.SQL(migrations()[number]),
    )


def script_text(number: int) -> str:
    """Give the migration as text, for a person."""
    return script(number).as_string(None)  # type: ignore[arg-type]  # nothing in it has to be quoted


def _migrate(connection: Connection, present: int) -> None:
    for number in range(present + 1, max(migrations()) + 1):
        try:
            connection.run(script(number))
        except errors.UniqueViolation:
            connection.run("ROLLBACK")  # another process was first
        except errors.InsufficientPrivilege as error:
            connection.drop()
            if not present:
                raise
            raise UnsupportedDatabaseError(
                f"the schema 'workerbee' in this database is version {present}, and this user may not upgrade it: have "
                "its owner run 'workerbee schema upgrade', or a client or bee of this version"
            ) from error
        except psycopg2.Error:
            connection.drop()
            raise
