"""Reading jobsets, bees and jobs: over one connection, and nothing is written.

Whoever only looks uses `opened`: it takes the right to SELECT alone, and no key. What a `Reader` gives is text.

Jobs are chosen by function and version. A *version* of a function is all that counts as the same code: what has one
identity.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from collections.abc import Set as AbstractSet
from concurrent.futures import Future
from contextlib import closing, contextmanager
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any, NamedTuple, TypeVar
from uuid import uuid4

from workerbee.errors import JobsetNotFoundError
from workerbee.rows import flat_rows
from workerbee.store import (
    STATUSES,
    BeeRow,
    BegunRow,
    Catalogue,
    CauseRow,
    ClientStore,
    Connection,
    Counts,
    DepartedRow,
    DoingRow,
    EndedBy,
    Event,
    JobPage,
    JobRow,
    JobsetReader,
    JobsetRow,
    Minute,
    PatientConnection,
    Progress,
    Reader,
    Result,
    RunFacts,
    ServerLine,
    TextRow,
    Wanted,
    is_forbidden,
    is_passing,
    is_too_slow,
    retrying,
    schema,
)
from workerbee.wire import records
from workerbee.wire.job import NO_FUNCTION, Jobset, StoredFunction
from workerbee.wire.signing import Signer

#: What `Reading.results` says of a job beside its input and output.
COLUMNS = ("function", "version", "attempt", "host", "started", "finished", "duration")


T = TypeVar("T")


__all__ = [
    "COLUMNS",
    "STATUSES",
    "BeeRow",
    "BegunRow",
    "CauseRow",
    "Choice",
    "Chosen",
    "Connection",
    "Counts",
    "DepartedRow",
    "DoingRow",
    "EndedBy",
    "Event",
    "Figures",
    "JobPage",
    "JobRow",
    "JobsetReader",
    "JobsetRow",
    "Minute",
    "Progress",
    "Reader",
    "Reading",
    "ServerLine",
    "TextRow",
    "Wanted",
    "connected",
    "figures",
    "is_forbidden",
    "is_passing",
    "is_too_slow",
    "lacking_rights",
    "needed_version",
    "opened",
    "opened_jobset",
    "require_schema",
    "scripts",
    "version",
    "version_here",
    "watcher",
]


@contextmanager
def connected(dsn: str) -> Iterator[Connection]:
    """A connection for one look or one change. Raises WorkerbeeError."""
    connection = Connection(dsn, application="workerbee command")
    try:
        yield connection
    finally:
        connection.close()


def watcher(dsn: str, *, limit: float, patience: float) -> Connection:
    """A connection for who looks again and again: ``limit`` and ``patience`` are seconds for a query.

    The server ends what takes it longer than the limit; with the way to it, an answer is waited for as long as there is
    patience.
    """
    connection = Connection(dsn, application="workerbee dashboard")
    connection.limit, connection.patience = limit, patience
    return connection


def require_schema(connection: Connection) -> None:
    """Raises UnsupportedDatabaseError where Workerbee has never been, or another version of it."""
    schema.require(connection)


@contextmanager
def opened(dsn: str) -> Iterator[Reader]:
    """A reader of all jobsets and bees. Raises UnsupportedDatabaseError where Workerbee has never been."""
    with connected(dsn) as connection:
        schema.require(connection)
        yield Reader(connection)


def opened_jobset(
    jobset_id: str, dsn: str, *, application: str, patience: float | None, log: logging.Logger
) -> tuple[Connection, Jobset]:
    """Find a durable jobset, and connect to it; an outage is waited out for ``patience`` seconds (None: for ever).

    Raises JobsetNotFoundError (which names the nearest), DatabaseUnavailableError, UnsupportedDatabaseError.
    """

    def find() -> Jobset:
        with closing(Connection(dsn, application=application)) as connection:
            schema.require(connection)
            catalogue = Catalogue(connection)
            jobset = catalogue.find_jobset(jobset_id)
            if jobset is None:
                raise JobsetNotFoundError(jobset_id, catalogue.jobset_ids())
            return jobset

    jobset = retrying(find, patience=patience, log=log, opening=True)
    return PatientConnection(dsn, application=application, patience=patience, log=log), jobset


class Figures(NamedTuple):
    """The figures that say how a jobset goes; ``quartiles`` as `JobsetReader.recent_durations` gives them."""

    jobs: Progress
    events: Counts
    n_bees: int
    n_runners: int
    quartiles: tuple[float, float, float, float] | None
    paused: str | None


def figures(connection: Connection, jobset: Jobset) -> Figures:
    """Read how a jobset goes now."""
    catalogue, reader, number = Catalogue(connection), JobsetReader(connection, jobset), jobset.number
    return Figures(
        reader.progress(),
        catalogue.counts(number),
        catalogue.live_bees(number),
        catalogue.live_runners(number),
        reader.recent_durations(),
        catalogue.remaining(number).paused,
    )


def version_here(connection: Connection) -> int:
    """The version of the schema in this database; 0 if it isn't there."""
    return schema.version(connection)


def lacking_rights(connection: Connection) -> str | None:
    """Name what keeps this user from bringing and running jobs in this database, in a sentence; None: nothing."""
    return schema.lacking(connection)


def needed_version() -> int:
    """The version of the schema that this program needs."""
    return max(schema.migrations())


def scripts() -> list[tuple[int, str]]:
    """The migrations, by number, as text for a person."""
    return [(number, schema.script_text(number)) for number in sorted(schema.migrations())]


class Choice(NamedTuple):
    """A choice of jobs: those of the function ``name``, as it is with ``identity``, or in the version so called.

    Without an identity or a version it is the latest version; with ``every`` all of them. Without a name it is the
    function of the job that was added last, and with ``every`` all jobs.
    """

    name: str | None = None
    identity: bytes | None = None
    version: str | None = None
    every: bool = False


class Chosen(NamedTuple):
    """The functions of a choice by number (None: all), and how many versions of others were left out."""

    functions: list[StoredFunction] | None
    n_others: int
    name: str

    @property
    def numbers(self) -> list[int] | None:
        """The functions' numbers; None: all."""
        return None if self.functions is None else [row.number for row in self.functions]


class Page(NamedTuple):
    """Some jobs, and what else is asked for of those that have ended."""

    jobs: list[Result]
    ended: list[Result]
    facts: dict[int, RunFacts]


class Reading:
    """Reads one jobset. Without a ``signer`` only what is plain JSON can be read, and isn't verified."""

    def __init__(self, connection: Connection, jobset: Jobset, signer: Signer | None) -> None:
        self._catalogue = Catalogue(connection)
        self._store = JobsetReader(connection, jobset)
        self._pages = ClientStore(connection, jobset, uuid4())
        self._jobset = jobset
        self._signer = signer

    def progress(self) -> Progress:
        """Count the jobs by state."""
        return self._store.progress()

    def events(self) -> Counts:
        """Count what has happened so far, whoever did it."""
        return self._catalogue.counts(self._jobset.number)

    def n_runners(self) -> int:
        """Count the runners that could do the jobset's jobs now."""
        return self._catalogue.live_runners(self._jobset.number)

    def glance(self) -> dict[str, int]:
        """The jobs by state, as far as there are any, and the bees that serve the jobset."""
        number = self._jobset.number
        states = {state: n for state, n in self.progress()._asdict().items() if n}
        bees = {"bees": self._catalogue.live_bees(number), "runners": self._catalogue.live_runners(number)}
        return states | bees

    def choose(self, choice: Choice) -> Chosen:
        """The functions whose jobs are meant."""
        rows = self._store.functions()
        known = [row for row in rows if row.codec != records.ADOPTED]
        if choice.name is None and choice.every and choice.version is None:
            return Chosen(None, 0, "all functions")
        if choice.name is None:
            number = self._store.newest()
            newest = next((row for row in known if row.number == number), None)
            if newest is None:
                n_others = len({row.identity for row in known})
                return Chosen([] if number is None else [_NONE], n_others, "jobs without a function")
            choice = choice._replace(name=newest.name, identity=None if choice.version else newest.identity)
        named = [row for row in known if choice.name in (row.name, row.name.partition(":")[2])]
        identities = _identities(choice, named, rows)
        chosen = [row for row in named if row.identity in identities]
        n_others = len({row.identity for row in known} - identities)
        return Chosen(chosen, n_others, choice.name or "")

    def results(
        self, chosen: Chosen, *, with_failed: bool = False, columns: Collection[str] = ()
    ) -> Iterator[dict[str, Any]]:
        """One flat dict for each chosen job that is completed, or has ended, in the order of submission."""
        by_number = {row.number: row for row in self._store.functions()} if columns else {}
        next_page = partial(self._page, chosen.numbers, with_failed=with_failed, columns=set(columns))
        take: Callable[[], Page] = partial(next_page, after=0)
        while (page := take()).jobs:
            take = partial(next_page, after=page.jobs[-1].job)
            if all(job.is_whole for job in page.ended):
                take = _ahead(take)  # else the connection is needed for parts
            told = partial(_told, by_number, page.facts, columns) if columns else None
            yield from flat_rows(page.ended, self._pages, self._signer, told)

    def _page(self, functions: list[int] | None, *, after: int, with_failed: bool, columns: AbstractSet[str]) -> Page:
        jobs = self._pages.results(after, functions)
        ended = [job for job in jobs if job.status == "completed" or (with_failed and job.status is not None)]
        asked = columns - {"function", "version"}
        return Page(jobs, ended, self._store.run_facts([job.job for job in ended]) if asked else {})


def _ahead(action: Callable[[], T]) -> Callable[[], T]:
    """Begin an action in a thread of its own; what comes back waits for its value, or raises what it has raised.

    Nobody has to wait: the thread keeps no interpreter from its end. Where there can be no more threads, the action
    is done by who waits.
    """
    future: Future[T] = Future()

    def act() -> None:
        try:
            future.set_result(action())
        except BaseException as error:  # noqa: BLE001 (raised where it is waited for)
            future.set_exception(error)

    try:
        threading.Thread(target=act, name="workerbee reader", daemon=True).start()
    except RuntimeError:
        return action
    return future.result


_NONE = StoredFunction(NO_FUNCTION, b"", b"", "", "", "")


def _identities(choice: Choice, named: list[StoredFunction], rows: list[StoredFunction]) -> set[bytes]:
    if choice.version is not None:
        return {row.identity for row in named if choice.version in (version(row), row.identity.hex()[:8])}
    if choice.every:
        return {row.identity for row in named}
    if choice.identity is None:
        return {row.identity for row in named[-1:]}
    adoption = records.adoption(choice.identity)
    return {next((row.identity for row in rows if row.digest == adoption), choice.identity)}


def version(function: StoredFunction) -> str:
    """Name a version: as its user calls it, else by the first digits of its identity."""
    return records.label(function.codec) or function.identity.hex()[:8]


def _told(
    functions: Mapping[int, StoredFunction], all_facts: Mapping[int, RunFacts], columns: Collection[str], result: Result
) -> dict[str, Any]:
    """The columns that are asked for."""
    function, facts = functions.get(result.function, _NONE), all_facts.get(result.job)
    told: dict[str, Any] = {"function": function.name or None, "version": version(function) or None}
    if facts is not None:
        finished = datetime.fromtimestamp(facts.finished, timezone.utc)
        started = None if facts.duration is None else finished - timedelta(seconds=facts.duration)
        told |= facts._asdict() | {"started": started, "finished": finished}
    return {column: told.get(column) for column in columns}
