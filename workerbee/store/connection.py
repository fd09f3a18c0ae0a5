"""One connection to PostgreSQL, used by one thread, that never waits without a limit.

psycopg2 runs in its asynchronous mode, so that this module does all waiting: each wait has a deadline, notices
notifications, and can be ended by a wake-up from another thread. Each query is a transaction of its own. The whole
design rests on that: no transaction is open while user code runs, and a pooler in transaction mode may stand between.
A connection that fails is thrown away; the next query makes a new one.

A connection is *direct* when the server process at its end is the one it began with; behind a pooler
it isn't. Only a direct one listens for notifications and prepares its statements.
"""

from __future__ import annotations

import logging
import select
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, TypeVar
from uuid import uuid4

import psycopg2
from psycopg2 import errors, extensions, sql

from workerbee.errors import DatabaseUnavailableError
from workerbee.store import libpq, reach, session
from workerbee.store.lineage import Lineage
from workerbee.store.patience import one_line
from workerbee.store.statement import Statement, filled, with_bytes
from workerbee.store.trouble import Trouble, sort
from workerbee.wake import Wake

T = TypeVar("T")
Row = tuple[Any, ...]
Query = str | sql.Composable | Statement

#: Seconds after which a query without an answer means that the connection is dead.
QUERY_SECONDS = 60.0
#: The server ends a query after this share of the patience; what is left is the time for its answer to arrive.
PUNCTUAL = 0.9
#: Seconds in which our own notification must come back, or else notifications don't work.
PROBE_SECONDS = 1.0
#: Seconds without notifications after the server's queue of them was found full.
FULL_QUEUE_SECONDS = 10.0
#: Prepared statements of a connection, at most: each takes about 60 kB of the server's memory.
MOST_PREPARED = 100

# Errors that say that prepared statements are gone or outdated, so that the session is set up anew.
_STALE = ("0A000", "42P05")


class Connection:
    """A connection that is made at the first query, and made anew after a failure."""

    def __init__(self, dsn: str, *, application: str = "workerbee", wait: reach.Wait | None = None) -> None:
        """``wait(fd, writing, seconds)`` waits until the descriptor is ready, and says whether it is."""
        self._dsn = dsn
        self._wait = wait or _wait
        self._application = application
        self._pg: Any = None
        self._channels: list[str] = []
        self._prepared: dict[str, str] = {}  # the least recently used first
        self.patience = QUERY_SECONDS  # seconds that a query may take, including connecting
        self.limit: float | None = None  # seconds that the server may work on a query; None: as long as we wait
        self._probe: tuple[str, float] | None = None  # our own notification that must come back, and by when
        self._hears = False  # our own notification has come back over this connection
        self._silent_until = 0.0  # until then no notifications are sent, as the server's queue is full
        self._forgets = False  # a pooler has thrown away the session's settings
        self._in_libpq = threading.Lock()  # another thread may close what this one works with
        self.is_direct = False
        self.generation = 0  # grows with every reconnection: what was in flight is then unknown
        self.lineage = Lineage()

    def another(self, application: str) -> Connection:
        """Make another connection to the same server."""
        return Connection(self._dsn, application=application)

    @property
    def backend(self) -> int | None:
        """The server process of a direct connection; None behind a pooler and before the first query."""
        return int(self._pg.info.backend_pid) if self._pg is not None and self.is_direct else None

    @property
    def encryption(self) -> str | None:
        """The version of TLS by which the server is reached; None if that isn't encrypted, or not reached so far."""
        if self._pg is None or not self._pg.info.ssl_in_use:
            return None
        return str(self._pg.info.ssl_attribute("protocol"))

    def run(self, query: Query, params: Mapping[str, Any] | None = None) -> list[Row]:
        """Run one query as one transaction. Returns its rows, or an empty list.

        Raises psycopg2.Error as the server gives it, and DatabaseUnavailableError when there is no
        connection or no answer in time; `trouble` sorts both. If the server's queue of notifications is full, the query
        is run without its notifications.
        """
        silent = query.silent if isinstance(query, Statement) else None
        if silent is not None and time.monotonic() < self._silent_until:
            return self._run(silent, params)
        try:
            return self._run(query, params)
        except errors.ProgramLimitExceeded:
            if silent is None or self._in_transaction():
                raise
            rows = self._run(silent, params)  # if this works, the notification was at fault
            self._silent_until = time.monotonic() + FULL_QUEUE_SECONDS
            _say_once(
                "PostgreSQL's queue of notifications is full (some session listens, and doesn't end its "
                "transaction): going on without hints, which takes longer"
            )
            return rows
        except errors.InvalidSqlStatementName:
            self._forgets = True
            inside = self._in_transaction()
            self.drop()
            if inside:
                raise
            return self._run(query, params)

    def _run(self, query: Query, params: Mapping[str, Any] | None) -> list[Row]:
        return self._attempt(lambda pg, end: self._answer(pg, self._text(pg, query, params, end), end))

    def carry(self, query: Statement, params: Mapping[str, Any]) -> list[Row]:
        """As `run`, of a query that moves bytes and gives nothing else: they travel as they are."""
        if not libpq.IS_THERE:
            return self._run(query, params)
        return self._attempt(lambda pg, end: self._carry(pg, *with_bytes(query.text, params), end))

    def _carry(self, pg: Any, text: str, values: list[bytes], deadline: float) -> list[Row]:
        exchange = libpq.Exchange(pg, self._in_libpq, self._wait)
        if _in_transaction(pg) or (self.is_direct and not self._limit(deadline)):
            rows: list[Row] = exchange.run(text, values, deadline)
            pg.poll()  # has what was notified meanwhile noticed
            return rows
        try:
            self._answer(pg, f"{self._beginning}BEGIN", deadline)
            rows = self._carry(pg, text, values, deadline)
            self._answer(pg, "COMMIT", deadline)
        except BaseException:
            self.drop()  # rolls back
            raise
        return rows

    def _in_transaction(self) -> bool:
        return self._pg is not None and _in_transaction(self._pg)

    @contextmanager
    def transaction(self, *, unlimited: bool = False) -> Iterator[None]:
        """Run the queries of the block as one transaction, which is rolled back if the block raises.

        ``unlimited``: it may take its time, whatever the server's limits are by default; each try would meet them.
        """
        self.run(session.BEGIN_UNLIMITED if unlimited else "BEGIN")
        try:
            yield
            self.run("COMMIT")
        except BaseException:
            self.drop()  # rolls back
            raise

    def _attempt(self, action: Callable[[Any, float], list[Row]]) -> list[Row]:
        deadline = time.monotonic() + self.patience
        pg = self._connected(deadline)
        try:
            return action(pg, deadline)
        except errors.InvalidArgumentForLogarithm as error:  # see `lineage`
            self.drop()
            raise DatabaseUnavailableError("PostgreSQL has started anew, or another server is in its place") from error
        except psycopg2.DataError:
            raise
        except psycopg2.Error as error:
            if pg.closed or error.pgcode in (None, *_STALE) or sort(error) is Trouble.UNKNOWN:
                self.drop()  # whatever the error was, the next try begins with a new connection
            raise
        except BaseException:
            self.drop()  # a query is under way whose answer nobody will read
            raise

    def _text(self, pg: Any, query: Query, params: Mapping[str, Any] | None, deadline: float) -> str:
        """Write the text to send for ``query``."""
        text = self._prepare(pg, query, deadline) if isinstance(query, Statement) else _as_text(pg, query)
        if params is not None:
            text = filled(text, params)
        return text if _in_transaction(pg) else self._beginning + text

    @property
    def _beginning(self) -> str:
        """Give what a transaction begins with."""
        return self.lineage.guard if self.is_direct else session.TRANSACTION + self.lineage.guard

    def _prepare(self, pg: Any, query: Statement, deadline: float) -> str:
        """Give the text of a query; over a direct connection, from its second use on, of an EXECUTE of it."""
        if not self.is_direct:
            return query.text
        execute = self._prepared.pop(query.name, None)
        if execute is None:
            # Many queries are used only once over a connection, so that one is prepared at its second use.
            execute = ""
            self._make_room(pg, deadline)
        elif not execute:
            self._answer(pg, query.prepare.as_string(pg), deadline)
            execute = query.execute.as_string(pg)
            self._prepared[query.name] = execute
            return execute
        self._prepared[query.name] = execute
        return execute or query.text

    def _make_room(self, pg: Any, deadline: float) -> None:
        """Deallocate the statement that was not used for the longest time."""
        if len(self._prepared) >= MOST_PREPARED:
            name = next(iter(self._prepared))
            if self._prepared.pop(name):
                self._answer(pg, _as_text(pg, sql.SQL("DEALLOCATE {}").format(sql.Identifier(name))), deadline)

    def _answer(self, pg: Any, text: str, deadline: float) -> list[Row]:
        cursor = pg.cursor()
        cursor.execute(self._limit(deadline) + text)
        if not reach.drive(pg, self._wait, deadline):
            raise DatabaseUnavailableError("PostgreSQL gave no answer in time; the connection was dropped")
        return cursor.fetchall() if cursor.description else []

    def _limit(self, deadline: float) -> str:
        """Have the server end the next statement a little before we stop waiting, so that it doesn't run on.

        This is only done if the patience is short: otherwise a large answer may take longer.
        """
        if self.patience >= QUERY_SECONDS and self.limit is None:
            return ""
        left = PUNCTUAL * (deadline - time.monotonic())
        return f"SET LOCAL statement_timeout = {max(1, int(1000 * min(left, self.limit or left)))}; "

    def statement(self, query: sql.Composable) -> Statement:
        """Compose a query, to be kept (quoting asks libpq, which needs a connection)."""
        return Statement(query.as_string(self._connected(time.monotonic() + reach.CONNECT_SECONDS)))

    def listen(self, channels: Sequence[str]) -> None:
        """Listen to these channels from now on, also after a reconnection. Raises as `run` does."""
        new = [c for c in channels if c not in self._channels]
        self._channels.extend(new)
        if self._pg is not None and self.is_direct:
            self._attempt(lambda pg, end: self._listen(pg, new, end))

    def unlisten(self) -> None:
        """Listen to nothing until `listen` is called again. Raises as `run` does."""
        if self.listens:
            self._channels.clear()
            self._probe = None
            if self.is_direct:
                self.run("UNLISTEN *")

    @property
    def listens(self) -> bool:
        """Tell whether `listen` was called; behind a pooler nothing is heard all the same."""
        return bool(self._channels)

    @property
    def is_deaf(self) -> bool:
        """Tell whether notifications can't be relied on: behind a pooler, or our own probe hasn't come back."""
        return not self.is_direct or (self._probe is not None and time.monotonic() > self._probe[1])

    def _listen(self, pg: Any, channels: Sequence[str], deadline: float) -> list[Row]:
        for channel in channels:
            self._answer(pg, _as_text(pg, sql.SQL("LISTEN {}").format(sql.Identifier(channel))), deadline)
        if channels and not self._hears:
            self._probe = (f"probe {uuid4()}", time.monotonic() + PROBE_SECONDS)
            probe = filled("SELECT pg_catalog.pg_notify(%(c)s, %(p)s)", {"c": channels[0], "p": self._probe[0]})
            with suppress(errors.ProgramLimitExceeded):  # the queue is full, so our own notification won't come back
                self._answer(pg, probe, deadline)
        return []

    def wait(self, timeout: float, wake: Wake) -> list[tuple[str, str]]:
        """Sleep until a notification, a wake-up or the timeout. Returns notifications as (channel, payload)."""
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
        """Give the descriptor of the socket on which notifications arrive; -1 without a connection."""
        return -1 if self._pg is None or self._pg.closed else int(self._pg.fileno())

    def notifications(self) -> list[tuple[str, str]]:
        """Take the notifications that have arrived; a dead connection is noticed here too."""
        if self._pg is None:
            return []
        try:
            self._pg.poll()
        except (psycopg2.Error, ValueError):  # ValueError: a payload that can't be decoded
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
            is_ours = self._in_libpq.acquire(timeout=PROBE_SECONDS)  # not by who forked us in the midst of it
            with suppress(psycopg2.Error):
                self._pg.close()
            self._pg = None
            if is_ours:
                self._in_libpq.release()

    close = drop

    def _connected(self, deadline: float) -> Any:
        if self._pg is not None and not self._pg.closed:
            return self._pg
        self.drop()
        self.generation += 1
        self._prepared.clear()
        self._probe, self._hears = None, False
        pg = reach.connect(self._dsn, application=self._application, wait=self._wait, deadline=deadline)
        try:
            soon = min(deadline, time.monotonic() + reach.CONNECT_SECONDS)
            self._set_up(pg, soon)
            history = self.lineage.read(lambda text: self._answer(pg, text, soon), is_direct=self.is_direct)
        except psycopg2.OperationalError as error:
            pg.close()
            raise DatabaseUnavailableError(f"can't connect to PostgreSQL: {one_line(error)}") from error
        except BaseException:
            pg.close()
            raise
        self._pg = pg
        self.lineage.compare(history)
        return pg

    def _set_up(self, pg: Any, deadline: float) -> None:
        for caster in session.CASTERS:
            extensions.register_type(caster, pg)
        [(backend,)] = self._answer(pg, "SELECT pg_catalog.pg_backend_pid()", deadline)
        self.is_direct = backend == pg.info.backend_pid and not self._forgets
        if self.is_direct:
            self._answer(pg, session.SESSION, deadline)
            if pg.server_version >= 120000:  # an older one is refused, but not by an unknown setting
                self._answer(pg, session.PLANS, deadline)
            self._listen(pg, self._channels, deadline)


def _as_text(pg: Any, query: str | sql.Composable) -> str:
    return query if isinstance(query, str) else query.as_string(pg)


def _in_transaction(pg: Any) -> bool:
    return bool(pg.info.transaction_status != extensions.TRANSACTION_STATUS_IDLE)


def _wait(fd: int, writing: bool, timeout: float) -> bool:  # noqa: FBT001
    poll = select.poll()
    poll.register(fd, select.POLLOUT if writing else select.POLLIN)
    return bool(poll.poll(timeout * 1000))


@cache
def _say_once(text: str) -> None:
    logging.getLogger("workerbee").warning(text)
