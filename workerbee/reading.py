"""The read model: jobsets, bees and jobs are read over one connection, and nothing is written.

`opened` needs the right to SELECT alone, and no key; what a `Reader` gives is text.

Jobs are chosen by function and version. A *version* of a function is all code that counts as the same, which means that
it has the same identity.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from collections.abc import Set as AbstractSet
from concurrent.futures import Future
from contextlib import closing, contextmanager
from functools import partial
from typing import Any, NamedTuple, TypeVar
from uuid import uuid4

from workerbee import keeping
from workerbee.errors import JobsetNotFoundError
from workerbee.rows import flat_rows
from workerbee.store import (
    Catalogue,
    ClientStore,
    Connection,
    Counts,
    PatientConnection,
    Result,
    is_dropped,
    is_forbidden,
    is_passing,
    is_standby,
    is_too_slow,
    retrying,
    schema,
)
from workerbee.store.reader import JobsetReader, Reader
from workerbee.store.seen import (
    STATUSES,
    BeeRow,
    BegunRow,
    CauseRow,
    DepartedRow,
    DoingRow,
    EndedBy,
    Event,
    JobPage,
    JobRow,
    JobsetRow,
    LaunchRow,
    Minute,
    Progress,
    RunFacts,
    ServerLine,
    TextRow,
    Wanted,
)
from workerbee.timing import utc
from workerbee.wire import function_records
from workerbee.wire.job import NO_FUNCTION, Jobset, StoredFunction
from workerbee.wire.signing import Signer

#: Columns that `Reading.results` can add to a job's input and output.
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
    "LaunchRow",
    "Minute",
    "Progress",
    "Reader",
    "Reading",
    "ServerLine",
    "TextRow",
    "Wanted",
    "connected",
    "figures",
    "is_dropped",
    "is_forbidden",
    "is_passing",
    "is_standby",
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
    """Open a connection for one look or one change. Raises WorkerbeeError."""
    connection = Connection(dsn, application="workerbee command")
    try:
        yield connection
    finally:
        connection.close()


def watcher(dsn: str, *, limit: float, patience: float) -> Connection:
    """Make a connection for repeated looks; ``limit`` and ``patience`` are seconds for a query.

    The server ends a query that takes longer than the limit. The patience is for the whole wait, with the way there.
    """
    connection = Connection(dsn, application="workerbee dashboard")
    connection.limit, connection.patience = limit, patience
    return connection


def require_schema(connection: Connection) -> None:
    """Raises UnsupportedDatabaseError where Workerbee has never been, or another version of it."""
    schema.require(connection)


@contextmanager
def opened(dsn: str) -> Iterator[Reader]:
    """Open a reader of all jobsets and bees. Raises UnsupportedDatabaseError where Workerbee has never been."""
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
    """The figures that say how a jobset goes; ``quartiles`` and ``longest`` are those of `outlook.outlook`."""

    jobs: Progress
    events: Counts
    n_bees: int
    n_runners: int
    quartiles: tuple[float, float, float, float] | None
    longest: float
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
        reader.longest_run(),
        catalogue.remaining(number).paused,
    )


def version_here(connection: Connection) -> int:
    """Give the version of the schema in this database; 0 if it isn't there."""
    return schema.version(connection)


def lacking_rights(connection: Connection) -> str | None:
    """Name what keeps this user from bringing and running jobs in this database, in a sentence; None: nothing."""
    return schema.lacking(connection)


def needed_version() -> int:
    """Give the version of the schema that this program needs."""
    return max(schema.migrations())


def scripts() -> list[tuple[int, str]]:
    """Give the migrations, by number, as text for a person."""
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
    runs: dict[int, RunFacts]


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
        """Count the jobs by state, as far as there are any, and the bees that serve the jobset."""
        number = self._jobset.number
        states = {state: n for state, n in self.progress()._asdict().items() if n}
        bees = {"bees": self._catalogue.live_bees(number), "runners": self._catalogue.live_runners(number)}
        return states | bees

    def trouble(self, job: int) -> str | None:
        """Say why a job's large result, in a file, can't be had from here; None: it can, or is in the database."""
        return keeping.trouble(self._pages, self._signer, job)

    def file_bytes(self) -> int | None:
        """Count the bytes of large values in files; None if some can't be seen from here."""
        return keeping.size(self._pages, self._signer)

    def unusable_places(self) -> list[str]:
        """List the places of large values that can't be used from here, in sentences that say why."""
        return keeping.unusable(self._pages, self._signer)

    def choose(self, choice: Choice) -> Chosen:
        """Choose the functions whose jobs are meant."""
        rows = self._store.functions()
        known = [row for row in rows if row.codec != function_records.ADOPTED]
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
        """Yield one flat dict for each chosen job that is completed, or has ended, in the order of submission."""
        by_number = {row.number: row for row in self._store.functions()} if columns else {}
        next_page = partial(self._page, chosen.numbers, with_failed=with_failed, columns=set(columns))
        take: Callable[[], Page] = partial(next_page, after=0)
        while (page := take()).jobs:
            take = partial(next_page, after=page.jobs[-1].job)
            if all(job.is_whole for job in page.ended):
                take = _ahead(take)  # otherwise the connection is needed to read parts
            told = partial(_told, by_number, page.runs, columns) if columns else None
            yield from flat_rows(page.ended, self._pages, self._signer, told, with_failed=with_failed)

    def _page(self, functions: list[int] | None, *, after: int, with_failed: bool, columns: AbstractSet[str]) -> Page:
        jobs = self._pages.results(after, functions)
        ended = [job for job in jobs if job.status == "completed" or (with_failed and job.status is not None)]
        asked = columns - {"function", "version"}
        return Page(jobs, ended, self._store.run_facts([job.job for job in ended]) if asked else {})


def _ahead(action: Callable[[], T]) -> Callable[[], T]:
    """Begin an action in a thread of its own. Returns a function that waits for its value, or raises what it raised.

    The result needn't be fetched: the thread doesn't keep the interpreter from ending. If no thread can be started, the
    action is done when the value is fetched.
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
    adoption = function_records.adoption(choice.identity)
    return {next((row.identity for row in rows if row.digest == adoption), choice.identity)}


def version(function: StoredFunction) -> str:
    """Name a version: as its user calls it, else by the first digits of its identity."""
    return function_records.label(function.codec) or function.identity.hex()[:8]


def _told(
    functions: Mapping[int, StoredFunction], all_facts: Mapping[int, RunFacts], columns: Collection[str], result: Result
) -> dict[str, Any]:
    """Give the columns that are asked for."""
    function, facts = functions.get(result.function, _NONE), all_facts.get(result.job)
    told: dict[str, Any] = {"function": function.name or None, "version": version(function) or None}
    if facts is not None:
        started = None if facts.duration is None else utc(facts.finished - facts.duration)
        told |= facts._asdict() | {"started": started, "finished": utc(facts.finished)}
    return {column: told.get(column) for column in columns}
