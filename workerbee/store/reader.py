"""What can be read of jobsets, bees and jobs: named tuples from named queries, each with a limit.

A reader needs one connection, writes nothing, and works with the right to SELECT alone and without the key. So
what it gives is text: nothing here is unpickled, and nothing is verified.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

from workerbee.store import queries
from workerbee.store.catalogue import Counts
from workerbee.store.connection import Connection
from workerbee.store.queries import Queries, array
from workerbee.store.seen import (
    ANY_JOB,
    BADLY,
    OPEN,
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
    Legible,
    Minute,
    Progress,
    RunFacts,
    ServerLine,
    TextRow,
    Wanted,
    loaded,
)
from workerbee.wire.job import Jobset, StoredFunction
from workerbee.wire.printed import HEAD_BYTES

#: Characters of a value that a page shows, and rows that one look reads at the most.
WIDTH_CHARS, PAGE_ROWS = 2000, 1000
#: Bytes, as they are stored, of an input that is too large to be searched.
LARGE_BYTES = 100_000
#: Failures that are counted by their cause.
MOST_FAILURES = 100_000
#: Digits of a group of failures' whole name, and at the most of its place among them.
CAUSE_DIGITS, PLACE_DIGITS = 16, 3
#: The newest jobsets, among which those are looked for in which something happened last.
AMONG_JOBSETS = 1500
#: Bees that are there, and as many that have left, by which launches are known.
AMONG_BEES = 5000
#: Jobs in one page of what is counted one by one.
COUNTED_JOBS = 20_000
#: No job has a larger id.
LAST_ID = 2**63 - 1
#: The largest number of a jobset.
LAST_NUMBER = 2**31 - 1
#: Seconds after which a page is given as far as it is, and jobs in one look where there is no index for what is meant.
LOOK_SECONDS, LOOK_JOBS = 0.1, 2000


class Reader:
    """Reads over one connection. Raises as `Connection.run` does."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def _run(self, name: str, **params: Any) -> Any:
        return self.connection.run(queries.shared("overview.sql")[name], params)

    def jobsets(
        self, n: int = 100, *, before: int = LAST_NUMBER, jobset_id: str | None = None, numbers: Sequence[int] = ()
    ) -> list[JobsetRow]:
        """List durable jobsets, newest first, below the number ``before``; or those of this id or these ``numbers``."""
        params = {"id": jobset_id, "before": 0 if numbers else before, "numbers": array(numbers)}
        return [_jobset_row(*row) for row in self._run("jobsets", n=n, **params)]

    def lately(self, n: int = 50) -> list[JobsetRow]:
        """List the newest durable jobsets, the one first in which something happened last."""
        numbers = [number for (number,) in self._run("lately", n=n, among=AMONG_JOBSETS)]
        found = {row.jobset.number: row for row in self.jobsets(n, numbers=numbers)} if numbers else {}
        return [found[number] for number in numbers if number in found]

    def histories(self, numbers: Sequence[int], since: float, n: int = 60) -> dict[int, list[EndedBy]]:
        """Read what had ended in these jobsets by each minute since then (epoch), oldest first, by jobset."""
        found: dict[int, list[EndedBy]] = {number: [] for number in numbers}
        for number, *ended in self._run("histories", numbers=array(numbers), since=since, n=n):
            found[number].insert(0, EndedBy(*ended))
        return found

    def server_line(self) -> ServerLine:
        """Give the server: its version, connections, and its oldest transaction."""
        return ServerLine(*self._run("server_line", n=PAGE_ROWS)[0])

    def clock(self) -> float:
        """Give the server's time, in seconds since the epoch."""
        return float(self._run("clock")[0][0])

    def database_size(self) -> int:
        """Give the bytes of the whole database."""
        return int(self._run("database_size")[0][0])

    def doing(self, jobset: Jobset | None = None, n: int = PAGE_ROWS) -> list[DoingRow]:
        """List what bees are at, in one jobset or in any; the longest come first."""
        return [DoingRow(*row) for row in self._run("doing", number=jobset and jobset.number, n=n)]

    def bees(self, jobset: Jobset | None = None, n: int = PAGE_ROWS, *, launch: str | None = None) -> list[BeeRow]:
        """List the bees that serve a jobset, or all bees, of one launch or of any; those heard of last come first."""
        rows = self._run("bees", number=jobset and jobset.number, launch=launch, n=n)
        return [BeeRow(*row)._replace(refuses=loaded(row[-1]) or {}) for row in rows]

    def departed(
        self, jobset: Jobset | None = None, n: int = PAGE_ROWS, *, launch: str | None = None
    ) -> list[DepartedRow]:
        """List bees that have left a jobset, or any, in the last days, of one launch or of any; the last come first."""
        rows = self._run("departed", number=jobset and jobset.number, launch=launch, n=n)
        return [DepartedRow(*row) for row in rows]

    def launches(self, n: int = 100, *, launch: str | None = None) -> list[LaunchRow]:
        """List the launches that bees have come by, or this one; the one heard of last comes first."""
        return [LaunchRow(*row) for row in self._run("launches", launch=launch, among=AMONG_BEES, n=n)]

    def of(self, jobset: Jobset) -> JobsetReader:
        """Give a reader of one jobset, over the same connection."""
        return JobsetReader(self.connection, jobset)


class JobsetReader:
    """Reads one jobset over one connection."""

    def __init__(self, connection: Connection, jobset: Jobset) -> None:
        self.jobset = jobset
        self.connection = connection
        self._queries = Queries(connection, jobset, "reader.sql")

    def _run(self, name: str, **params: Any) -> Any:
        return self._queries.run(name, params)

    def jobs(self, after: int = 0, n: int = 50, wanted: Wanted = ANY_JOB) -> JobPage:
        """Read a page of jobs after the id ``after``, in the order of their ids."""
        found: list[JobRow] = []
        until: int | None = after
        deadline = time.monotonic() + LOOK_SECONDS
        while until is not None:
            after = until
            ids, until = self._candidates(after, n, wanted)
            for start in range(0, len(ids), PAGE_ROWS):
                some = ids[start : start + PAGE_ROWS]
                found += self._rows(some, n - len(found), wanted)
                if len(found) == n:
                    return JobPage(found, found[-1].id)
                if time.monotonic() > deadline and some[-1] != ids[-1]:
                    return JobPage(found, some[-1])
            if time.monotonic() > deadline:
                break
        return JobPage(found, until)

    def pages(self, wanted: Wanted = ANY_JOB) -> Iterator[list[JobRow]]:
        """Give all jobs that are meant, in the order of their ids."""
        after: int | None = 0
        while after is not None:
            rows, after = self.jobs(after, PAGE_ROWS, wanted)
            if rows:
                yield rows

    def _candidates(self, after: int, n: int, wanted: Wanted) -> tuple[list[int], int | None]:
        """Give the next jobs that may be meant, by what is rarest, and until where; None: there are no more."""
        statuses = set(wanted.statuses or STATUSES)
        is_rare = wanted.function is not None or wanted.host is not None
        most = PAGE_ROWS if is_rare else min(n, PAGE_ROWS)
        if wanted.cause is not None:
            lists = [self._tried_of(after, wanted.cause, most)] if statuses & set(OPEN) else []
            lists += [self._failed_of(after, wanted.cause, most)] if "failed" in statuses else []
        elif "completed" in statuses:
            return self._seek(after, LOOK_JOBS if is_rare else n, wanted)
        else:
            lists = [self._ended_badly(after, status, most) for status in BADLY if status in statuses]
            # What waits includes what is to be tried again.
            waits = "waiting" if "waiting" in statuses else "retrying"
            lists += [self._open(after, waits, most)] if statuses & {"waiting", "retrying"} else []
            lists += [self._open(after, "running", most)] if "running" in statuses else []
        # Behind the end of a list that is full there may be more of its kind.
        full = [ids[-1] for ids in lists if len(ids) == most]
        until = min(full) if full else None
        ids = sorted({job for ids in lists for job in ids if until is None or job <= until})
        return ids, until

    def _ended_badly(self, after: int, status: str, n: int) -> list[int]:
        return [job for (job,) in self._run("ended_badly_after", after=after, status=status, n=n)]

    def _open(self, after: int, status: str, n: int) -> list[int]:
        return [job for (job,) in self._run("open_after", after=after, status=status, n=n)]

    def _failed_of(self, after: int, cause: bytes, n: int) -> list[int]:
        return [job for (job,) in self._run("failed_of", after=after, cause=cause, n=n)]

    def _tried_of(self, after: int, cause: bytes, n: int) -> list[int]:
        return [job for (job,) in self._run("tried_of", after=after, cause=cause, n=n)]

    def _seek(self, after: int, look: int, wanted: Wanted) -> tuple[list[int], int | None]:
        [(ids, until, n)] = self._run("seek", after=after, function=wanted.function, look=look)
        return ids, until if n == look else None

    def _rows(self, ids: list[int], n: int, wanted: Wanted) -> list[JobRow]:
        statuses = None if wanted.statuses is None else list(wanted.statuses)
        params = {"statuses": statuses, "function": wanted.function, "host": wanted.host}
        return [JobRow(*row) for row in self._run("jobs", ids=array(ids), n=n, width=WIDTH_CHARS, **params)]

    def jobs_of(self, ids: list[int]) -> list[JobRow]:
        """Give the jobs of these ids, as far as there are any, in the order of their ids."""
        ids = [job for job in ids if 0 < job <= LAST_ID]  # PostgreSQL refuses to compare with greater numbers
        rows = (self._rows(ids[n : n + PAGE_ROWS], PAGE_ROWS, ANY_JOB) for n in range(0, len(ids), PAGE_ROWS))
        return [row for page in rows for row in page]

    def same_jobs(self, digests: Sequence[bytes], keys: Sequence[bytes], n: int = PAGE_ROWS) -> list[int]:
        """Find the jobs that are calls with these digests, or whose input's ``id`` has one of them, newest first."""
        return [job for (job,) in self._run("same_jobs", digests=list(digests), keys=list(keys), n=n)]

    def inputs_before(self, job: int, n: int) -> list[tuple[int, str | None]]:
        """Read the inputs of ``n`` jobs with smaller ids, the newest first; None where it is no JSON, or large."""
        return [(found, text) for found, text in self._run("inputs_before", before=job, n=n, most=LARGE_BYTES)]

    def life(self, job: int) -> list[Event]:
        """List what happened to a job, oldest first."""
        return [Event(*row) for row in self._run("life", job=job, n=PAGE_ROWS)]

    def begun_jobs(self, n: int = 50, *, job: int | None = None) -> list[BegunRow]:
        """List what bees have begun, longest first; of one ``job`` or of any."""
        return [BegunRow(*row) for row in self._run("begun_jobs", job=job, n=n)]

    def longest_run(self) -> float:
        """Give the seconds since the claim of the job that has run longest; 0.0 if none runs."""
        return max((begun.since for begun in self.begun_jobs(1)), default=0.0)

    def causes(self, n: int = 100, *, most: int = MOST_FAILURES) -> list[CauseRow]:
        """Count failures that nobody has retried by cause, the most frequent first; of so many at the ``most``."""
        return [_cause_row(*row) for row in self._run("causes", most=most, n=n)]

    def cause_called(self, name: str) -> bytes:
        """Find a group of failures by its cause's first digits or, in up to three digits, by its place in `causes`.

        Raises ValueError if none or several are called so.
        """
        if re.fullmatch(f"[0-9a-f]{{{CAUSE_DIGITS}}}", name):
            return bytes.fromhex(name)  # a whole one may be of failures that were retried since
        causes = [row.digest for row in self.causes() if row.digest is not None]
        if re.fullmatch(f"[0-9]{{1,{PLACE_DIGITS}}}", name):
            called = causes[int(name) - 1 : int(name)] if int(name) else []
        else:
            called = [digest for digest in causes if name and digest.hex().startswith(name.lower())]
        if len(called) != 1:
            what = "several are called" if called else "none of them is"
            groups = "is 1 group" if len(causes) == 1 else f"are {len(causes)} groups"
            raise ValueError(f"there {groups} of failures now, and {what} {name!r}")
        return called[0]

    def recent_durations(self) -> tuple[float, float, float, float] | None:
        """Give quartiles and the 95th percentile of what the last jobs took, in seconds; None if none has completed."""
        [(found,)] = self._run("recent_durations")
        return None if found is None else tuple(found)

    def recent_ends(self, n: int = PAGE_ROWS) -> list[tuple[int, float, float | None]]:
        """Give the jobs that completed last, with when (epoch) and after how many seconds."""
        return [(job, at, duration) for job, at, duration in self._run("recent_ends", n=n)]

    def history(self, since: float = 0.0, n: int = PAGE_ROWS) -> list[Minute]:
        """Read how the jobset went since then (epoch), oldest first: at most the last ``n`` minutes that have a row."""
        rows = self._run("history", since=since, n=n)
        return [Minute(at, Counts(*counts), bees, runners) for at, *counts, bees, runners in reversed(rows)]

    def history_steps(self, since: float, step: float, n: int = PAGE_ROWS) -> list[Minute]:
        """Read how the jobset went since then (epoch), oldest first: the last minute of each ``step`` (seconds)."""
        rows = self._run("history_steps", since=since, step=step, n=n)
        return [Minute(at, Counts(*counts), bees, runners) for at, *counts, bees, runners in reversed(rows)]

    def texts(self, job: int, n: int = 20) -> list[TextRow]:
        """List what the executions of a job have printed, the last one first."""
        return [_text_row(*row) for row in self._run("texts", job=job, n=n)]

    def tail(self, job: int) -> TextRow | None:
        """Read what a running job has printed until now, if somebody has asked and its bee has shown it.

        Of a negative number: where the job is.
        """
        rows = self._run("tail", job=job, head=HEAD_BYTES)
        return _text_row(*rows[0]) if rows else None

    def size(self) -> tuple[int, int]:
        """Give the bytes of the jobset's tables, and of what its jobs have printed among them."""
        [(whole, texts)] = self._run("size")
        return int(whole or 0), int(texts or 0)

    def progress(self) -> Progress:
        """Count the jobs by state now."""
        return Progress(*map(int, self._run("progress")[0]))

    def functions(self) -> list[StoredFunction]:
        """List what is stored of all functions, oldest first."""
        found: list[StoredFunction] = []
        while rows := self._run("functions", after=found[-1].number if found else 0, n=PAGE_ROWS):
            found += [StoredFunction.of(*row) for row in rows]
        return found

    def newest(self) -> int | None:
        """Give the function of the job that was added last; None without a job."""
        rows = self._run("newest")
        return rows[0][0] if rows else None

    def legible(self) -> Legible:
        """Count what can be read without the key, page by page."""
        counts, after = [0, 0, 0, 0], 0
        while after is not None:
            [(after, *more)] = self._run("legible", after=after, n=COUNTED_JOBS)
            counts = [so_far + int(some) for so_far, some in zip(counts, more, strict=True)]
        return Legible(*counts)

    def run_facts(self, jobs: Sequence[int]) -> dict[int, RunFacts]:
        """Find how the latest run of each of these jobs ended, by job; those that haven't ended are left out."""
        return {job: RunFacts(*run) for job, *run in self._run("run_facts", jobs=array(jobs))}


def _jobset_row(*row: Any) -> JobsetRow:
    number, jobset_id, uuid, key, speculate, client, created_at, *rest = row
    jobset = Jobset(number, jobset_id, UUID(uuid), key, speculate, UUID(client) if client else None)
    return JobsetRow(jobset, created_at, Counts(*rest[:10]), *rest[10:])


def _text_row(run: int, claim: str | None, bee: str, at: float, head: int, *texts: Any) -> TextRow:
    stdout, stderr, *sizes = texts
    return TextRow(run, claim, bee, at, head, bytes(stdout), bytes(stderr), *sizes)


def _cause_row(digest: Any, *row: Any) -> CauseRow:
    return CauseRow(None if digest is None else bytes(digest), *row)
