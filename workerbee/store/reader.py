"""What can be read of jobsets, bees and jobs: named tuples from named queries, each with a limit.

A reader needs one connection, writes nothing, and works with the right to SELECT alone and without the key. So
what it gives is text: nothing here is unpickled, and nothing is verified.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from workerbee.store import queries
from workerbee.store.catalogue import Counts
from workerbee.store.connection import Connection
from workerbee.store.queries import Queries, array
from workerbee.wire.causes import Cause, cause_of_record
from workerbee.wire.job import Jobset, StoredFunction

#: Characters of a value that a page shows, and rows that one look reads at the most.
WIDTH, PAGE = 2000, 1000
#: Failures that are counted by their cause.
FAILURES = 100_000
#: The largest number of a jobset.
LAST = 2**31 - 1
BADLY = ("failed", "cancelled")


class JobsetRow(NamedTuple):
    """A jobset with what has happened in it, and the bees that serve it now. Times are seconds since the epoch."""

    jobset: Jobset
    created_at: float
    counts: Counts
    n_bees: int
    n_runners: int


class BeeRow(NamedTuple):
    """A bee as its last heartbeat left it; ``silent_for`` is in seconds, ``n_started`` counts the jobs it has begun."""

    id: str
    jobset: str | None
    serves_all: bool
    host: str
    pid: int
    python: str
    n_runners: int
    started_at: float
    silent_for: float
    alive: bool
    resting: bool
    n_started: int


class JobRow(NamedTuple):
    """A job and its latest run.

    ``input`` and ``output`` are the beginnings of their text, None where it is pickled; the output of a failed run is
    its error's type and message.
    """

    id: int
    function: str
    run: int
    status: str
    input_codec: str
    input: str | None
    output_codec: str | None
    output: str | None
    duration: float | None
    ended_at: float | None


class BegunRow(NamedTuple):
    """A job that a bee has begun; ``since`` is seconds from its claim, ``copy`` says that another bee has it too."""

    job: int
    run: int
    bee: str
    host: str | None
    since: float
    copy: bool


class Event(NamedTuple):
    """Something that happened to a job: the opening of a run, an attempt, or the end of a run."""

    kind: str
    run: int
    at: float
    bee: str | None
    host: str | None
    duration: float | None
    codec: str | None
    record: str | None

    @property
    def error(self) -> dict[str, Any]:
        """What is known of the failure: type, message, traceback, notes; empty for anything else."""
        record = _loaded(self.record) if self.codec == "error" else None
        return {key: record[key] for key in record if key != "pickle"} if isinstance(record, dict) else {}


class CauseRow(NamedTuple):
    """Failures of one cause that nobody has retried: how many, when, and the newest one's job and error record.

    ``functions`` and ``hosts`` are of the newest ones. ``is_all`` says that all failures of the jobset were counted,
    else only the newest were.
    """

    digest: bytes | None
    n: int
    example: int
    first_at: float
    last_at: float
    record: str | None
    functions: list[str]
    hosts: list[str]
    is_all: bool

    @property
    def cause(self) -> Cause:
        """What they have in common, as the example tells it."""
        return cause_of_record(self.record or "")


class Progress(NamedTuple):
    """How many jobs of a jobset are in which state, each by its latest run."""

    waiting: int
    running: int
    completed: int
    failed: int
    cancelled: int

    @property
    def open(self) -> int:
        """Jobs that wait or run."""
        return self.waiting + self.running

    @property
    def added(self) -> int:
        """All jobs."""
        return sum(self)


class RunFacts(NamedTuple):
    """Which attempt ended a run, on which host (None: not known any more), when (epoch) and after how many seconds."""

    attempt: int
    host: str | None
    finished: float
    duration: float | None


class Reader:
    """Reads over one connection. Raises as `Connection.run` does."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def _run(self, name: str, **params: Any) -> Any:
        return self.connection.run(queries.shared("overview.sql")[name], params)

    def jobsets(self, n: int = 100, *, before: int = LAST, jobset_id: str | None = None) -> list[JobsetRow]:
        """Durable jobsets, newest first, from below the number ``before``; or only the one of this id."""
        return [_jobset_row(*row) for row in self._run("jobsets", id=jobset_id, before=before, n=n)]

    def bees(self, jobset: Jobset | None = None, n: int = PAGE) -> list[BeeRow]:
        """The bees that serve a jobset, or all bees; those heard of last come first."""
        return [BeeRow(*row) for row in self._run("bees", number=jobset and jobset.number, n=n)]

    def of(self, jobset: Jobset) -> JobsetReader:
        """A reader of one jobset, over the same connection."""
        return JobsetReader(self.connection, jobset)


class JobsetReader:
    """Reads one jobset over one connection."""

    def __init__(self, connection: Connection, jobset: Jobset) -> None:
        self.jobset = jobset
        self._queries = Queries(connection, jobset, "reader.sql")

    def _run(self, name: str, **params: Any) -> Any:
        return self._queries.run(name, params)

    def jobs(
        self, after: int = 0, n: int = 50, *, status: str | None = None, function: str | None = None
    ) -> list[JobRow]:
        """A page of jobs after the id ``after``, in the order of their ids."""
        if status is None or status == "completed":
            return self._page(after, n, None, status, function)
        found: list[JobRow] = []
        while len(found) < n and (ids := self._candidates(after, status)):
            found += self._page(after, n - len(found), ids, status, function)
            after = ids[-1]
        return found

    def all_jobs(self, status: str) -> Iterator[JobRow]:
        """All jobs whose latest run stands so, in the order of their ids."""
        after = 0
        while page := self.jobs(after, PAGE, status=status):
            yield from page
            after = page[-1].id

    def _candidates(self, after: int, status: str) -> list[int]:
        """The next jobs that may have this status, which is a rare one among all jobs."""
        asked = {"after": after, "status": status, "n": PAGE}
        rows = self._run("ended_badly_after", **asked) if status in BADLY else self._run("open_after", **asked)
        return [job for (job,) in rows]

    def _page(
        self, after: int, n: int, ids: list[int] | None, status: str | None, function: str | None
    ) -> list[JobRow]:
        rows = self._run(
            "jobs",
            after=after,
            n=n,
            ids=None if ids is None else array(ids),
            status=status,
            function=function,
            width=WIDTH,
        )
        return [JobRow(*row) for row in rows]

    def jobs_of(self, ids: list[int]) -> list[JobRow]:
        """The jobs of these ids, as far as there are any, in the order of their ids."""
        return self._page(0, len(ids), ids, None, None) if ids else []

    def life(self, job: int) -> list[Event]:
        """What happened to a job, oldest first."""
        return [Event(*row) for row in self._run("life", job=job, n=PAGE)]

    def begun_jobs(self, n: int = 50) -> list[BegunRow]:
        """What bees have begun, longest first."""
        return [BegunRow(*row) for row in self._run("begun_jobs", n=n)]

    def causes(self, n: int = 100) -> list[CauseRow]:
        """The failures that nobody has retried by their cause, the most frequent first."""
        return [_cause_row(*row) for row in self._run("causes", most=FAILURES, n=n)]

    def failed_of(self, cause: bytes) -> Iterator[int]:
        """The jobs whose latest run failed for this cause, by id."""
        after = 0
        while rows := self._run("failed_of", cause=cause, after=after, n=PAGE):
            yield from (job for (job,) in rows)
            after = rows[-1][0]

    def recent_durations(self) -> tuple[float, float, float, float] | None:
        """The quartiles and the 95th percentile of what the last jobs took, in seconds; None if none has completed."""
        [(found,)] = self._run("recent_durations")
        return None if found is None else tuple(found)

    def progress(self) -> Progress:
        """How many jobs are in which state now."""
        return Progress(*self._run("progress")[0])

    def functions(self) -> list[StoredFunction]:
        """What is stored of all functions, oldest first."""
        return [StoredFunction.of(*row) for row in self._run("functions")]

    def newest(self) -> int | None:
        """The function of the job that was added last; None without a job."""
        rows = self._run("newest")
        return rows[0][0] if rows else None

    def legible(self) -> tuple[int, int, int, int]:
        """How many jobs there are, and with JSON as input; how many completed runs, and with JSON as result."""
        [(jobs, inputs, completed, results)] = self._run("legible")
        return jobs, inputs, completed, results

    def run_facts(self, jobs: Sequence[int]) -> dict[int, RunFacts]:
        """How the latest run of each of these jobs ended, by job; those that haven't ended are left out."""
        return {job: RunFacts(*facts) for job, *facts in self._run("run_facts", jobs=array(jobs))}


def _jobset_row(*row: Any) -> JobsetRow:
    number, jobset_id, uuid, key, speculate, client, created_at, *rest = row
    jobset = Jobset(number, jobset_id, UUID(uuid), key, speculate, UUID(client) if client else None)
    *counts, n_bees, n_runners = rest
    return JobsetRow(jobset, created_at, Counts(*counts), n_bees, n_runners)


def _cause_row(digest: Any, *row: Any) -> CauseRow:
    return CauseRow(None if digest is None else bytes(digest), *row)


def _loaded(text: str | None) -> Any:
    try:
        return json.loads(text or "null")
    except ValueError:
        return None
