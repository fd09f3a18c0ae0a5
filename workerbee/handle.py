"""`workerbee.open`: a stored jobset, seen and steered by any program over one connection, without a thread."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from workerbee import changing, server
from workerbee.changing import Changing
from workerbee.client.spectators import until_dropped
from workerbee.following import output_of
from workerbee.outlook import still_open
from workerbee.reading import (
    COLUMNS,
    CauseRow,
    Choice,
    Connection,
    JobRow,
    JobsetReader,
    Reading,
    Wanted,
    opened_jobset,
)
from workerbee.standing import Status, status_of
from workerbee.watching import ReadGoing, Watch
from workerbee.wire.imports import Bound
from workerbee.wire.job import Jobset
from workerbee.wire.printed import Output
from workerbee.wire.signing import Key, Signer

if TYPE_CHECKING:
    from typing_extensions import Self

#: Seconds between two looks of `wait`, at first and at the most.
PAUSE_SECONDS = (0.05, 2.0)
#: Seconds that a watch waits for an answer.
WATCH_SECONDS = 2.0
ENDED_BADLY, OPEN = ("failed", "cancelled"), ("waiting", "retrying", "running")

Statuses = str | Collection[str] | None
Group = CauseRow | str | None


class Place(NamedTuple):
    """A jobset and a connection to where it is."""

    connection: Connection
    jobset: Jobset


class Watched(NamedTuple):
    """A jobset, how a watching thread connects to it, and whether there is nobody any more to show it to."""

    jobset: Jobset
    connect: Callable[[], AbstractContextManager[Connection]]
    has_ended: Callable[[], bool]


class Verbs:
    """Methods that ask and change a jobset as a whole, whoever added its jobs."""

    _watch: Watch | None = None

    def _watched(self) -> Watched:
        raise NotImplementedError

    def _at(self) -> AbstractContextManager[Place]:
        """Open the jobset and a connection for one look or one change. Raises JobsetNotFoundError."""
        raise NotImplementedError

    def status(self) -> Status:
        """Say how it goes: how much has ended, when the rest will, who works on it, or why nothing moves."""
        with self._at() as place:
            return status_of(*place)

    def watch(self) -> Watch:
        """Show live how it goes, at most twice a second, and go on at once; ``stop()`` of what is returned ends it.

        In a notebook it is a display that is saved with its last numbers; called again, it starts at the true count.
        In a terminal it is a line of stderr, elsewhere a line now and then.
        """
        if self._watch is not None:
            self._watch.stop()
        jobset, connect, has_ended = self._watched()
        self._watch = Watch(jobset.name, partial(_looking, connect, jobset), has_ended)
        return self._watch

    def jobs(
        self,
        ids: Sequence[int] | None = None,
        *,
        status: Statuses = None,
        function: str | None = None,
        group: Group = None,
        host: str | None = None,
    ) -> Iterator[JobRow]:
        """List jobs by id, each with its latest run: all, those with these ``ids``, or those that the rest asks for.

        A ``status`` is waiting, retrying, running, completed, failed or cancelled, or several of these; a ``function``
        is named "module:name"; a ``group`` is one of `failures`, or as ``workerbee failures`` calls it.

        Raises ValueError for a status or group that there can't be.
        """
        return self._jobs(ids, self._wanted(status, function, group, host))

    def _wanted(
        self,
        status: Statuses,
        function: str | None,
        group: Group,
        host: str | None,
        *,
        among: tuple[str, ...] | None = None,
    ) -> Wanted:
        """Choose the jobs that a caller means. Raises ValueError for a status or a group that there can't be."""
        statuses = (status,) if isinstance(status, str) else None if status is None else tuple(status)
        if among is not None:
            statuses = among if statuses is None else statuses
            if wrong := set(statuses) - set(among):
                raise ValueError(f"a status here is {', '.join(among)}, not {', '.join(sorted(wrong))}")
        if not isinstance(group, str):
            return Wanted(statuses, function, group and group.digest, host)
        with self._at() as place:
            return Wanted(statuses, function, JobsetReader(*place).cause_called(group), host)

    def _jobs(self, ids: Sequence[int] | None, wanted: Wanted) -> Iterator[JobRow]:
        with self._at() as place:
            reader = JobsetReader(*place)
            for rows in reader.pages(wanted) if ids is None else [reader.jobs_of(list(ids))]:
                yield from rows

    def output(self, job: int) -> Output:
        """Read what a job printed in its last execution that has ended, as far as it is kept: stdout, then stderr.

        It is a text; its ``stdout`` and ``stderr`` are the two separately. A job that still runs is
        followed by ``workerbee jobs logs -f``.
        """
        with self._at() as place:
            return output_of(JobsetReader(*place), job)

    def failures(self) -> list[CauseRow]:
        """List why jobs fail: a row for each cause, the most frequent first. Retried failures don't count."""
        with self._at() as place:
            return JobsetReader(*place).causes()

    def pause(self, why: str | None = None) -> bool:
        """Have no more jobs begun, wherever, until `resume`; what runs goes on. False if it was paused already."""
        with self._at() as place:
            return Changing(*place).pause(why)

    def resume(self) -> bool:
        """Have jobs begun again; False if it wasn't paused."""
        with self._at() as place:
            return Changing(*place).resume()

    def drop(self) -> bool:
        """Delete the jobset with all its jobs and results. There is no way back.

        Bees leave it, and futures of jobs that are open end with BrokenWorkerbeeError. False if somebody is reading it:
        then its tables go a little later.
        """
        with self._at() as place:
            dropped = changing.drop(*place)
        for left in dropped.left:
            logging.getLogger("workerbee").warning("%s: %s", place.jobset.name, left)
        return dropped.is_gone


class MoreVerbs(Verbs):
    """The verbs that an executor has in its own manner, by functions and with futures."""

    def _signer(self, jobset: Jobset) -> Signer | None:
        key = Key.load()
        return None if key is None else Signer(key, jobset.uuid)

    def results(
        self,
        function: str | None = None,
        *,
        version: str | None = None,
        all: bool = False,  # noqa: A002 (what a user means)
        on_error: str = "skip",
        columns: Collection[str] = (),
    ) -> Iterator[dict[str, Any]]:
        """Stream what is stored, in submit order: one flat dict a job, as `WorkerbeeExecutor.results` gives them.

        Of the ``function`` of this name, else of the one that was submitted last; ``all`` without a function gives all
        jobs. Without the key that signed it, a pickled value is an ``error``.

        Raises ValueError for another ``on_error``, or a column that there isn't.
        """
        columns = checked_columns(on_error, columns)
        return self._stored(Choice(function, None, version, all), on_error == "return", columns)

    def _stored(self, choice: Choice, with_failed: bool, columns: tuple[str, ...]) -> Iterator[dict[str, Any]]:  # noqa: FBT001
        # The next page is fetched while one is read, over a connection of its own, so that other methods may be called.
        with self._at() as place:
            connection = place.connection.another("workerbee reader")
            try:
                stored = Reading(connection, place.jobset, self._signer(place.jobset))
                yield from stored.results(stored.choose(choice), with_failed=with_failed, columns=columns)
            finally:
                connection.close()

    def retry(
        self,
        ids: Sequence[int] | None = None,
        *,
        status: Statuses = "failed",
        function: str | None = None,
        group: Group = None,
        host: str | None = None,
    ) -> int:
        """Start a new run of what failed: of all, of these ``ids``, or as in `jobs`. Returns how many.

        A ``status`` is "failed" or "cancelled" or both; jobs named by ``ids`` are run again in either case. What has
        completed, waits or runs is left as it is, unless its large result is lost (`LostValueError`).

        Raises ValueError for a status or group that there can't be.
        """
        wanted = self._wanted(status, function, group, host, among=ENDED_BADLY)
        with self._at() as place:
            Changing(*place).find_lost(ids)
            if ids is not None:
                rows = JobsetReader(*place).jobs_of(list(ids))
                return Changing(*place).retry_runs([(row.id, row.run) for row in rows if row.status in ENDED_BADLY])
            return Changing(*place).retry_wanted(wanted)

    def cancel(
        self,
        ids: Sequence[int] | None = None,
        *,
        status: Statuses = OPEN,
        function: str | None = None,
        group: Group = None,
        host: str | None = None,
    ) -> int:
        """Cancel what waits and what runs: all of it, these ``ids``, or as in `jobs`. Returns how many.

        A ``status`` is "waiting", "retrying", "running" or several of these. Runners of what runs are killed within a
        second or so.

        Raises ValueError for a status or group that there can't be.
        """
        wanted = self._wanted(status, function, group, host, among=OPEN)
        with self._at() as place:
            if ids is not None:
                rows = JobsetReader(*place).jobs_of(list(ids))
                return Changing(*place).cancel_runs([(row.id, row.run) for row in rows if row.status in OPEN])
            return Changing(*place).cancel_wanted(wanted)

    def wait(self, timeout: float | None = None, *, fail_fast: bool = False) -> Status:
        """Wait until nothing is open, and say how it went.

        With ``fail_fast``, until a job has failed or was cancelled. Raises TimeoutError after ``timeout`` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        pause, longest = PAUSE_SECONDS
        while True:
            status = self.status()
            if not status.jobs.open or (fail_fast and status.jobs.failed + status.jobs.cancelled):
                return status
            left = longest if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(still_open(status.jobset, status.jobs.open))
            time.sleep(min(pause, left))
            pause = min(longest, pause * 1.5)


class Handle(Bound, MoreVerbs):
    """A durable jobset that is there: made by `open`, for one thread at a time, and a context manager."""

    def __init__(self, jobset_id: str, dsn: str | None, reconnect_timeout: float | None) -> None:
        self.jobset_id = jobset_id
        self._is_closed = False
        log = logging.getLogger("workerbee")
        self._server = server.resolve(dsn, log)
        try:
            self._connection, self._jobset = opened_jobset(
                jobset_id, self._server.dsn, application="workerbee handle", patience=reconnect_timeout, log=log
            )
        except BaseException:
            self._server.close()
            raise

    def _stands_for(self) -> tuple[str, str]:
        return f"the handle of {self.jobset_id}", "inside a job, open another one with the same id"

    def __repr__(self) -> str:
        return f"<the jobset {self.jobset_id} on {self._server!r}>"

    @contextmanager
    def _at(self) -> Iterator[Place]:
        if self._is_closed:
            raise RuntimeError(f"this handle of {self.jobset_id} is closed; workerbee.open() makes another one")
        with until_dropped(self.jobset_id):
            yield Place(self._connection, self._jobset)

    def _watched(self) -> Watched:
        with self._at() as (connection, jobset):
            return Watched(jobset, partial(spectating, connection), lambda: self._is_closed)

    def close(self) -> None:
        """Let go of the server."""
        if self._watch is not None:
            self._watch.stop()
        self._is_closed = True
        self._connection.close()
        self._server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.close()


def open(jobset_id: str, *, dsn: str | None = None, reconnect_timeout: float | None = 3600.0) -> Handle:  # noqa: A001 (as dbm and shelve have it)
    """Open a durable jobset that is there, to see and steer it: no job is added, and no bee is started.

    ``dsn`` or PGHOST, PGHOSTADDR, PGSERVICE name the server; else it is the embedded one. An outage is waited out for
    ``reconnect_timeout`` seconds (None: for ever).

    Raises JobsetNotFoundError (which names the nearest), DatabaseUnavailableError, UnsupportedDatabaseError,
    EmbeddedServerError.
    """
    return Handle(jobset_id, dsn, reconnect_timeout)


@contextmanager
def _looking(connect: Callable[[], AbstractContextManager[Connection]], jobset: Jobset) -> Iterator[ReadGoing]:
    with until_dropped(jobset.name), connect() as connection:
        yield partial(status_of, connection, jobset)


@contextmanager
def spectating(connection: Connection) -> Iterator[Connection]:
    """Open another connection for repeated looks, whose queries fail when the answer takes long."""
    another = connection.another("workerbee watch")
    another.patience = WATCH_SECONDS
    try:
        yield another
    finally:
        another.close()


def checked_columns(on_error: str, columns: Collection[str]) -> tuple[str, ...]:
    """Check what `results` is asked for. Raises ValueError for another ``on_error``, or a column that there isn't."""
    if on_error not in ("skip", "return"):
        raise ValueError("on_error must be 'skip' or 'return'")
    columns = (columns,) if isinstance(columns, str) else tuple(columns)
    if unknown := set(columns) - set(COLUMNS):
        raise ValueError(f"columns has {', '.join(map(repr, sorted(unknown)))}; there are {', '.join(COLUMNS)}")
    return columns
