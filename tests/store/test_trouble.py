"""What an error of the database means: each SQLSTATE is of one kind, and each kind has its patience."""

from __future__ import annotations

import logging
from collections.abc import Callable

import psycopg2
import pytest
from psycopg2 import errorcodes, errors

from tests.servers import Database, Server, free_port
from workerbee import JobSet, WorkerbeeExecutor
from workerbee.errors import DatabaseUnavailableError, UnsupportedDatabaseError
from workerbee.store import Connection, patience, retrying
from workerbee.store.trouble import Trouble, is_forbidden, kind_of, sort

#: By SQLSTATE or class; the rest, which are mistakes in a statement, nobody foresaw.
KINDS = {
    Trouble.PASSING: (
        "08000 08001 08003 08004 08006 08007 08P01 0A000 25006 25P02 25P03 25P04 26000 40000 40001 40002 40003 40P01"
        " 42P05 53000 53100 53200 53300 53400 55006 55P03 57000 57014 57P01 57P02 57P03 57P05 58000 58030 58P01 58P02"
        " 58P03 72000"
    ),
    Trouble.UNSTORABLE: "22* 23* 54000 54001 54011 54023",
    Trouble.DROPPED: "3F000 42P01 42704",
    Trouble.HOPELESS: "28000 28P01 3D000 57P04",
}
UNKNOWN = [
    "00",
    "01",
    "02",
    "03",
    "09",
    "0B",
    "0D",
    "0E",
    "0F",
    "0L",
    "0P",
    "0Z",
    "10",
    "20",
    "21",
    "24",
    "25",
    "27",
    "2B",
    "2D",
    "2F",
    "34",
    "38",
    "39",
    "3B",
    "42",
    "44",
    "46",
    "55",
    "F0",
    "HV",
    "P0",
    "XX",
]


def all_states() -> list[str]:
    states = {value for name, value in vars(errorcodes).items() if name.isupper() and isinstance(value, str)}
    return sorted(state for state in states if len(state) == 5)


def test_every_sqlstate_is_sorted() -> None:
    """Those that the driver knows, one by one: a new class is noticed here."""
    expected = {state: kind for kind, states in KINDS.items() for state in states.split()}
    states = all_states()
    assert len(states) > 230
    for state in states:
        kind = expected.get(state) or expected.get(f"{state[:2]}*")
        if kind is None:
            assert state[:2] in UNKNOWN, state
        assert kind_of(state) is (kind or Trouble.UNKNOWN), state
    assert set(expected) <= {*states, "22*", "23*"}


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (psycopg2.OperationalError("server closed the connection unexpectedly"), Trouble.PASSING),
        (psycopg2.InterfaceError("connection already closed"), Trouble.PASSING),
        (psycopg2.DatabaseError("SSL SYSCALL error: EOF detected"), Trouble.PASSING),
        (psycopg2.ProgrammingError("execute cannot be used"), Trouble.UNKNOWN),
        (psycopg2.DataError("can't hold NUL"), Trouble.UNSTORABLE),
        (DatabaseUnavailableError("no answer"), Trouble.PASSING),
        (DatabaseUnavailableError("no such user", hopeless=True), Trouble.HOPELESS),
        (ValueError("password authentication failed"), None),
    ],
)
def test_errors_without_a_sqlstate(error: Exception, kind: Trouble | None) -> None:
    """Come from the connection, from the driver, or from us."""
    assert sort(error) is kind


class Clock:
    """Time that passes only in pauses."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(patience.time, "monotonic", lambda: self.now)

    def pause(self, seconds: float) -> bool:
        self.now += seconds
        return True


def failing(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "opening", "seconds"),
    [
        ("57P01", False, 600),
        ("57P01", True, 600),
        ("42883", False, 180),
        ("42883", True, 0),
        ("42P01", False, 0),
        ("22003", False, 0),
        (DatabaseUnavailableError("refused", stranger=True), False, 600),
        (DatabaseUnavailableError("refused", stranger=True), True, 10),
        (DatabaseUnavailableError("starting up"), True, 600),
        (DatabaseUnavailableError("no password", hopeless=True, stranger=True), False, 0),
    ],
)
def test_each_kind_has_its_patience(
    monkeypatch: pytest.MonkeyPatch, error: Exception | str, opening: bool, seconds: float
) -> None:
    """An outage is waited out, what nobody foresaw is tried for some minutes, and the rest is raised at once."""
    clock = Clock(monkeypatch)
    made = server_error(error) if isinstance(error, str) else error
    kind = UnsupportedDatabaseError if opening and isinstance(made, psycopg2.Error) and not seconds else None
    with pytest.raises(kind or (type(made), DatabaseUnavailableError)):
        retrying(failing(made), patience=600.0, pause=clock.pause, log=logging.getLogger("test"), opening=opening)
    assert seconds <= clock.now <= seconds + 2


def server_error(sqlstate: str) -> Exception:
    """An error as the driver makes it, with its SQLSTATE, which can't be set from Python."""
    return type("Made", (errors.lookup(sqlstate),), {"pgcode": sqlstate})("made")


def test_a_right_that_is_missing_is_named(database: Database) -> None:
    """By clients and bees alike, all of them in one error, at once."""
    WorkerbeeExecutor(0, dsn=database.dsn).shutdown()
    role = f"guest_{database.name}"
    database.execute(f"CREATE ROLE {role} LOGIN")
    database.execute(f"GRANT USAGE ON SCHEMA workerbee TO {role}")
    database.execute(f'GRANT SELECT, INSERT, UPDATE ON workerbee."jobset$", workerbee."batch$" TO {role}')
    try:
        with pytest.raises(UnsupportedDatabaseError) as caught:
            WorkerbeeExecutor(0, jobset_id="work", dsn=database.dsn.replace("user=postgres", f"user={role}"))
        for missing in ('DELETE on workerbee."batch$"', 'SELECT on workerbee."version$"', 'on workerbee."place$"'):
            assert missing in str(caught.value)
        assert "schema workerbee" not in str(caught.value).partition("lacks")[2]
        connection = Connection(database.dsn.replace("user=postgres", f"user={role}"))
        with pytest.raises(psycopg2.Error) as refused:
            connection.run('SELECT * FROM workerbee."bee$"')
        connection.close()
        assert is_forbidden(refused.value)
    finally:
        database.execute(f"DROP OWNED BY {role}")
        database.execute(f"DROP ROLE {role}")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("port=99999", "invalid port number"),
        ("port=abc", "invalid integer value"),
        ("sslmode=strict", "invalid sslmode value"),
        ("sslmode=require", "SSL was required"),
        ("service=nowhere", "definition of service"),
        ("dbname=nowhere", 'database "nowhere" does not exist'),
        ("user=nobody_here", 'role "nobody_here" does not exist'),
        ("options='-c no_such_setting=1'", "no_such_setting"),
    ],
)
def test_what_can_never_work_ends_at_once(server: Server, wrong: str, says: str) -> None:
    """With a sentence, and without a try more than one."""
    dsn = f"{server.dsn_of('test')} {wrong}"
    pauses: list[float] = []
    connection = Connection(dsn)
    with pytest.raises(DatabaseUnavailableError, match=says) as caught:
        retrying(
            lambda: connection.run("SELECT 1"),
            patience=None,
            pause=lambda seconds: bool(pauses.append(seconds)),
            log=logging.getLogger("test"),
        )
    assert caught.value.hopeless
    assert pauses == []


def test_a_server_that_lets_nobody_in_is_believed_soon(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A constructor waits some seconds only where a library isn't there that its user's sessions are to load."""
    monkeypatch.setattr(patience, "STRANGER_SECONDS", 0.2)
    role = f"guest_{database.name}"
    database.execute(f"CREATE ROLE {role} LOGIN; ALTER ROLE {role} SET session_preload_libraries = 'not_there'")
    try:
        with pytest.raises(DatabaseUnavailableError, match="not_there"):
            WorkerbeeExecutor(0, dsn=database.dsn.replace("user=postgres", f"user={role}"), reconnect_timeout=20)
    finally:
        database.execute(f"DROP ROLE {role}")


def test_where_nobody_answers_is_named() -> None:
    """Host and port, of a constructor too, which doesn't wait long: the address may be wrong."""
    port = free_port()
    with pytest.raises(DatabaseUnavailableError, match=f"127.0.0.1.* port {port}"):
        Connection(f"host=127.0.0.1 port={port} dbname=x").run("SELECT 1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patience, "STRANGER_SECONDS", 0.2)
        for make in (lambda: WorkerbeeExecutor(0, host="127.0.0.1", port=port), lambda: JobSet("w", "127.0.0.1", port)):
            with pytest.raises(DatabaseUnavailableError, match=f"127.0.0.1.* port {port}"):
                make()
