"""One connection to PostgreSQL, used by one thread, that never waits without a limit.

psycopg2 runs in its asynchronous mode, so that every wait is ours: it has a deadline, notices a
notification, and can be ended by a wake-up from another thread. Each query is a transaction of its own
(what the whole design rests on: nothing is open while user code runs, and a pooler in transaction mode
may stand between). A connection that fails is thrown away; the next query makes a new one.

A connection is *direct* when the server process at its end is the one it began with; behind a pooler
it isn't. Only a direct one listens for notifications and prepares its statements.
"""

from __future__ import annotations

import hashlib
import logging
import os
import random
import re
import select
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any
from uuid import uuid4

import psycopg2
from psycopg2 import extensions, sql

from workerbee.errors import ConnectionStringError, DatabaseUnavailableError

Row = tuple[Any, ...]

#: Seconds that a query may take before its connection is held to be dead.
QUERY_TIMEOUT = 60.0
CONNECT_TIMEOUT = 10.0
#: Seconds in which we must hear our own notification.
PROBE = 1.0

#: SQLSTATEs that say "not now": connection trouble, resources, shutdown, locks, deadlock, read-only.
_PASSING = ("08", "53", "57P", "57014", "40001", "40P01", "55P03", "25006", "58030", "XX000")
_GONE = ("42P01", "3F000", "42704")


def passing(error: BaseException) -> bool:
    """Whether to try again: the server or the way to it is in trouble, and the query is not at fault."""
    if isinstance(error, DatabaseUnavailableError):
        return not refused(error)
    if not isinstance(error, psycopg2.Error):
        return False
    code = error.pgcode
    if code is None:
        return isinstance(error, (psycopg2.OperationalError, psycopg2.InterfaceError, psycopg2.DatabaseError))
    return code.startswith(_PASSING)


def gone(error: BaseException) -> bool:
    """Whether the query met tables that are no longer there: the jobset was dropped."""
    return isinstance(error, psycopg2.Error) and (error.pgcode or "").startswith(_GONE)


def unstorable(error: BaseException) -> bool:
    """Whether the values were refused: another try changes nothing, but others may be stored without them."""
    return isinstance(error, psycopg2.Error) and (error.pgcode or "").startswith(("22", "54"))


def refused(error: BaseException) -> bool:
    """Whether no patience will help: a wrong password, a user or a database that isn't there."""
    text = str(error)
    return any(
        mark in text
        for mark in (
            "authentication failed",
            "does not exist",
            "no password supplied",
            "no pg_hba.conf entry",
        )
    )


#: A source of our own: the program's seeded one is not for us to draw from.
jitter = random.Random()  # noqa: S311 (no secret)


def backoff(limit: float = 1.0) -> Iterator[float]:
    """Seconds to wait before each next try: growing, never two processes in step, then at most one a second."""
    pause = 0.05
    while True:
        yield pause * (1 + jitter.random())
        pause = min(limit, pause * 2)


class Wake:
    """Wakes a thread that waits in `Connection.wait`, from any thread or signal handler."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def fileno(self) -> int:
        return self._reader

    def set(self) -> None:
        # A full pipe wakes as well, and a closed one has nobody left to wake.
        with suppress(OSError):
            os.write(self._writer, b"w")

    def clear(self) -> None:
        with suppress(OSError):
            os.read(self._reader, 4096)

    def close(self) -> None:
        ends = self._reader, self._writer
        self._reader = self._writer = -1  # or a late `set` writes into whatever gets these numbers next
        for end in ends:
            os.close(end)


class Statement:
    """A query with parameters like ``%(n)s``, and the same as a statement to be prepared.

    Planning one of our queries takes longer than running it for one job.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        casts: dict[str, str] = {}
        for name, cast in _PARAMETER.findall(text):
            casts[name] = casts.get(name) or cast
        self.name = f"workerbee_{hashlib.blake2s(text.encode(), digest_size=8).hexdigest()}"
        identifier = sql.SQL(self.name)
        arguments = sql.SQL(", ").join(sql.Placeholder(name) + sql.SQL(cast) for name, cast in casts.items())
        self.prepare = sql.SQL("PREPARE {} AS {}").format(identifier, sql.SQL(_numbered(text, list(casts))))
        self.execute = sql.SQL("EXECUTE {} ({})" if casts else "EXECUTE {}").format(identifier, arguments)


def _numbered(text: str, names: list[str]) -> str:
    """The query with its parameters numbered ($1, $2 …), as PREPARE has them."""
    return _PARAMETER.sub(lambda found: f"${names.index(found[1]) + 1}{found[2]}", text).replace("%%", "%")


Query = str | sql.Composable | Statement

_PARAMETER = re.compile(r"%\((\w+)\)s((?:::(?:double precision|\w+)(?:\[\])?)?)")
# A prepared plan stays while the tables grow: it must never be one that was good for few rows, whenever somebody's
# ANALYZE saw them. What we ask for is found by an index and comes in its order: nothing is read as a whole, or sorted
# to have its front.
_PLANS = "SELECT " + ", ".join(
    f"set_config('{name}', '{value}', false)"
    for name, value in {
        "plan_cache_mode": "force_generic_plan",
        "enable_seqscan": "off",
        "enable_bitmapscan": "off",
        "jit": "off",
    }.items()
)
_NOT_PREPARED = "26000"


class Connection:
    """A connection that is made when it is first needed, and made anew after it has failed."""

    def __init__(
        self, dsn: str, *, application: str = "workerbee", wait: Callable[[int, bool, float], bool] | None = None
    ) -> None:
        """``wait(fd, writing, seconds)`` waits until the descriptor is ready, and says whether it is."""
        self._dsn = dsn
        self._wait = wait or _wait
        self._application = application
        self._pg: Any = None
        self._channels: list[str] = []
        self._prepared: dict[str, str] = {}
        self.patience = QUERY_TIMEOUT  # seconds that a query may take, with the connecting before it
        self._probe: tuple[str, float] | None = None  # a notification to ourselves, and when we must have heard it
        self._hears = False  # one has come back over this connection
        self.direct = False
        self.generation = 0  # grows with every reconnection: what was in flight is then unknown

    @property
    def backend(self) -> int | None:
        """The server process of a direct connection; None behind a pooler and before the first query."""
        return int(self._pg.info.backend_pid) if self._pg is not None and self.direct else None

    def run(self, query: Query, params: Mapping[str, Any] | None = None) -> list[Row]:
        """Run one query as one transaction; its rows, or an empty list.

        Raises psycopg2.Error as the server gives it, and DatabaseUnavailableError when there is no
        connection or no answer in time; after either kind `passing` says whether to try again.
        """
        return self._attempt(lambda pg, end: self._answer(pg, self._prepare(pg, query, end), params, end))

    def _attempt(self, action: Callable[[Any, float], list[Row]]) -> list[Row]:
        deadline = time.monotonic() + self.patience
        pg = self._connected(deadline)
        try:
            return action(pg, deadline)
        except psycopg2.Error as error:
            if pg.closed or error.pgcode in (None, _NOT_PREPARED):
                self.drop()
            raise
        except BaseException:
            self.drop()  # a query is under way whose answer nobody will read
            raise

    def _prepare(self, pg: Any, query: Query, deadline: float) -> str | sql.Composable:
        """What to send for ``query``: over a direct connection it is prepared."""
        if not isinstance(query, Statement):
            return query
        if not self.direct:
            return query.text
        execute = self._prepared.get(query.name)
        if execute is None:
            # Many queries are used once in a connection's life; the second use says that it is worth it.
            self._prepared[query.name] = ""
            return query.text
        if not execute:
            self._answer(pg, query.prepare, None, deadline)
            execute = self._prepared[query.name] = query.execute.as_string(pg)
        return execute

    def _answer(self, pg: Any, text: Any, params: Mapping[str, Any] | None, deadline: float) -> list[Row]:
        cursor = pg.cursor()
        cursor.execute(text, params)
        self._finish(pg, deadline)
        return cursor.fetchall() if cursor.description else []

    def statement(self, query: sql.Composable) -> Statement:
        """A composed query, so that it is composed once (quoting asks libpq, hence the connection)."""
        return Statement(query.as_string(self._connected(time.monotonic() + CONNECT_TIMEOUT)))

    def listen(self, channels: Sequence[str]) -> None:
        """Hear these channels from now on, also after a reconnection. Raises as `run` does."""
        new = [c for c in channels if c not in self._channels]
        self._channels.extend(new)
        if self._pg is not None and self.direct:
            self._attempt(lambda pg, end: self._listen(pg, new, end))

    def unlisten(self) -> None:
        """Hear nothing until `listen` is called again. Raises as `run` does."""
        if self.listens:
            self._channels.clear()
            self._probe = None
            if self.direct:
                self.run("UNLISTEN *")

    @property
    def listens(self) -> bool:
        """Whether there is a channel to hear; a bee behind a pooler only means to."""
        return bool(self._channels)

    @property
    def deaf(self) -> bool:
        """Whether notifications can't be relied on: behind a pooler, or our own probe hasn't come back."""
        return not self.direct or (self._probe is not None and time.monotonic() > self._probe[1])

    def _listen(self, pg: Any, channels: Sequence[str], deadline: float) -> list[Row]:
        for channel in channels:
            self._answer(pg, sql.SQL("LISTEN {}").format(sql.Identifier(channel)), None, deadline)
        if channels and not self._hears:
            self._probe = (f"probe {uuid4()}", time.monotonic() + PROBE)
            self._answer(pg, "SELECT pg_notify(%(c)s, %(p)s)", {"c": channels[0], "p": self._probe[0]}, deadline)
        return []

    def wait(self, timeout: float, wake: Wake) -> list[tuple[str, str]]:
        """Sleep until a notification, a wake-up, or the time is over; the notifications as (channel, payload)."""
        poll = select.poll()
        poll.register(wake.fileno(), select.POLLIN)
        if self._pg is not None:
            poll.register(self._pg.fileno(), select.POLLIN)
            if self._pg.notifies:
                timeout = 0
        ready = poll.poll(max(0.0, timeout) * 1000)
        if any(fd == wake.fileno() for fd, _ in ready):
            wake.clear()
        return self.notifications()

    def fileno(self) -> int:
        """The socket, on which notifications arrive; -1 without a connection."""
        return -1 if self._pg is None or self._pg.closed else int(self._pg.fileno())

    def notifications(self) -> list[tuple[str, str]]:
        """What has been heard since the last look; a dead connection is noticed here too."""
        if self._pg is None:
            return []
        try:
            self._pg.poll()
        except psycopg2.Error:
            self.drop()
            return []
        heard = [(n.channel, n.payload) for n in self._pg.notifies]
        self._pg.notifies.clear()
        if self._probe is not None and any(payload == self._probe[0] for _, payload in heard):
            self._probe, self._hears = None, True
        return [h for h in heard if not h[1].startswith("probe ")]

    def drop(self) -> None:
        """Close the connection; the next query makes a new one."""
        if self._pg is not None:
            with suppress(psycopg2.Error):
                self._pg.close()
            self._pg = None

    close = drop

    def _connected(self, deadline: float) -> Any:
        if self._pg is not None and not self._pg.closed:
            return self._pg
        self.drop()
        self.generation += 1
        self._prepared.clear()
        self._probe, self._hears = None, False
        limit = min(deadline, time.monotonic() + CONNECT_TIMEOUT)
        try:
            pg = psycopg2.connect(
                self._dsn,
                async_=True,
                client_encoding="UTF8",
                fallback_application_name=self._application,
                keepalives_idle=5,
                keepalives_interval=2,
                keepalives_count=3,
                tcp_user_timeout=15000,
            )
            self._finish(pg, limit)
            [(backend,)] = self._answer(pg, "SELECT pg_backend_pid()", None, limit)
            self.direct = backend == pg.info.backend_pid
            if self.direct and pg.server_version >= 120000:  # an older one is refused, but not by an unknown setting
                self._answer(pg, _PLANS, None, limit)
                self._listen(pg, self._channels, limit)
        except psycopg2.OperationalError as error:
            raise DatabaseUnavailableError(f"can't connect to PostgreSQL: {_line(error)}") from error
        self._pg = pg
        return pg

    def _finish(self, pg: Any, deadline: float) -> None:
        """Drive the connection until its answer is here, or raise at the deadline, which moves as long as it comes."""
        patience = deadline - time.monotonic()
        while (state := pg.poll()) != extensions.POLL_OK:
            left = deadline - time.monotonic()
            if left <= 0 or not self._wait(pg.fileno(), state == extensions.POLL_WRITE, left):
                raise DatabaseUnavailableError("PostgreSQL gave no answer in time; the connection was dropped")
            deadline = time.monotonic() + patience


def _wait(fd: int, writing: bool, timeout: float) -> bool:  # noqa: FBT001
    poll = select.poll()
    poll.register(fd, select.POLLOUT if writing else select.POLLIN)
    return bool(poll.poll(timeout * 1000))


def retrying(
    action: Callable[[], Any], *, patience: float | None, pause: Callable[[float], bool], log: logging.Logger
) -> Any:
    """Call ``action`` until it succeeds, waiting out what passes; said once, unless it is over at once.

    ``patience`` in seconds (None: for ever) counts from the first failure; then
    DatabaseUnavailableError. ``pause(seconds)`` sleeps, and says False when it is no longer worth it.
    """
    give_up = None
    for n_failures, seconds in enumerate(backoff()):
        try:
            return action()
        except (psycopg2.Error, DatabaseUnavailableError) as error:
            if not passing(error):
                raise
            now = time.monotonic()
            give_up = give_up or (None if patience is None else now + patience)
            if n_failures == 1:
                log.warning("%s; trying again%s", _line(error), "" if patience is None else f" for {patience:.0f} s")
            if (give_up is not None and now > give_up) or not pause(seconds):
                raise DatabaseUnavailableError(f"PostgreSQL hasn't come back: {_line(error)}") from error
    raise AssertionError("backoff never ends")


def _line(error: Exception) -> str:
    """What libpq says in several lines, in one."""
    return " ".join(str(error).split())


def conninfo(dsn: str | None = None, **parts: object) -> str:
    """A libpq connection string of ``dsn`` and the parts that are given; '' leaves all to libpq's environment.

    Raises ConnectionStringError.
    """
    given = {name: str(value) for name, value in parts.items() if value is not None}
    try:
        return str(extensions.make_dsn(dsn or "", **given))
    except psycopg2.ProgrammingError:
        raise ConnectionStringError from None  # libpq quotes what it can't read, and that may be a password


def described(dsn: str) -> dict[str, str]:
    """What a connection string says, by libpq's names, without its password."""
    parts = extensions.parse_dsn(dsn)
    parts.pop("password", None)
    return {str(k): str(v) for k, v in parts.items()}
