"""The queries of a bee on one jobset. If a bee no longer holds a job, the answer says so; that is no exception."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from math import inf
from operator import itemgetter
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from workerbee.store import parts
from workerbee.store.answers import Signs
from workerbee.store.connection import Connection, Row
from workerbee.store.front import Front, FrontPlace
from workerbee.store.queries import Queries, array
from workerbee.store.ration import Ration
from workerbee.store.tables import storable
from workerbee.store.writer import Writer
from workerbee.wire.job import READABLE, Batch, FunctionRow, Job, Jobset, Outcome
from workerbee.wire.printed import Printed

#: Jobs in one claim, and seconds that a claim or a statement with results may take: a part of the lease, which isn't
#: renewed meanwhile.
MOST_IN_CLAIM, HASTE_SECONDS = 1000, 0.5
#: Batches that a claim locks: few, as other bees have to pass over them; more while batches are small.
HEADERS = 8, 64
#: Bytes that the texts of a jobset may take on the server.
MOST_TEXT_BYTES = 1 << 30
Fits = Callable[[int], bool]
#: The codec of a call for which there was no room.
UNREAD = ""
#: Every job costs 1.
NO_COSTS: Mapping[int, float] = MappingProxyType({})


class Scope(NamedTuple):
    """The functions whose jobs a bee takes: ``only`` these (None: any), and none of ``refused``."""

    only: tuple[int, ...] | None = None
    refused: tuple[int, ...] = ()

    def without(self, functions: Iterable[int]) -> Scope:
        """Give the scope without these functions."""
        return self._replace(refused=(*self.refused, *functions))


class Limits(NamedTuple):
    """The number of attempts after which a failing job ends, and the backoff between them (seconds)."""

    attempts: int
    backoff: float = 1.0
    max_backoff: float = 300.0


class Claim(NamedTuple):
    """The proof that a batch is held: its id, and the claim it was taken by."""

    id: int
    claim: UUID


class ShowRequest(NamedTuple):
    """A request to show what a running job prints, or its stacks."""

    job: int
    is_stack: bool


class Overtaken(NamedTuple):
    """Jobs that a bee runs although their run has ended elsewhere, and requests to show jobs."""

    ended: set[tuple[int, int]]
    asked: list[ShowRequest]


class KeptText(NamedTuple):
    """The text that one execution has printed, and whether it has failed."""

    job: int
    run: int
    claim: UUID
    has_failed: bool
    printed: Printed


class ClaimedRow(NamedTuple):
    """A row of a claim: a job and its batch. ``is_started``: it lies before the mark. Without a job, all have ended."""

    batch: int
    function: int
    run: int
    timeout: float | None
    max_attempts: int | None
    again: bool
    is_started: bool
    job: int | None
    codec: str
    text: str | None
    payload: Any
    mac: Any
    n_attempts: int | None
    n_hosts_lost: int | None

    def header(self, claim: UUID) -> Batch:
        """Make the batch, without its jobs."""
        return Batch(
            self.batch or 0, claim, self.function, self.run, self.timeout, self.max_attempts, self.again, 0, []
        )


_CLAIMED, _JOB = len(ClaimedRow._fields), ClaimedRow._fields.index("job")


class BeeStore:
    """One jobset as a bee sees it, over the bee's connection."""

    def __init__(
        self,
        connection: Connection,
        jobset: Jobset,
        incarnation: UUID,
        host: str,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        """``alive`` is called before each statement, so that a bee on a slow link can renew its lease in between."""
        self.connection = connection
        self._alive = alive
        self.jobset = jobset
        self._bee = str(incarnation)
        self._writer = Writer(incarnation)
        self._host = storable(host)
        self._is_noted = False  # whether this bee's host is noted in the jobset
        self._queries = Queries(connection, jobset, "client.sql", "bee.sql")
        self._headers = HEADERS[0]
        self._front = Front()
        self._claims = Ration(MOST_IN_CLAIM, HASTE_SECONDS)
        self._results = Ration(MOST_IN_CLAIM, HASTE_SECONDS)
        self.parts = parts.Parts(self._queries, alive)

    def _run(self, name: str, /, way: str = "", **params: Any) -> list[Row]:
        self._alive()
        return self._queries.run(name, params | {"bee": self._bee}, way)

    def _count(self, name: str, /, **params: Any) -> list[Row]:
        """Run a query that also adds to the counters."""
        return self._run(name, writer=self._writer.name(), **params)

    # Taking work

    @property
    def portion(self) -> int:
        """Say how many jobs the next claim may bring."""
        return self._claims.rows

    @property
    def room(self) -> int:
        """Give the bytes of results that the next `complete` may carry (a single result may be larger)."""
        return self._results.bytes

    def claim(
        self,
        n: int,
        start: int,
        scope: Scope,
        *,
        budget: float = inf,
        costs: Mapping[int, float] = NO_COSTS,
        other: float = 1.0,
        fits: Fits = lambda _: True,
    ) -> list[Batch]:
        """Claim at most ``n`` jobs from the front of the queue, and at most a `portion`; start the first ``start``.

        The costs of the jobs add up to at most the ``budget``. A job costs what ``costs`` says of its function, or else
        ``other``. A large call that doesn't fit, by its bytes, is left `UNREAD`.
        """
        n = min(n, self.portion)
        headers = min(n, self._headers)
        cost = {"budget": budget, "functions": array(costs), "costs": array(costs.values()), "other": other}
        params = {"n": n, "start": start, "headers": headers, **cost, **_scope(scope)}
        batches: list[Batch] = []
        for position in self._front.looks():
            if batches := self._claim_from(position, params, fits):
                break
        small = len(batches) == headers and sum(len(batch.jobs) for batch in batches) <= n / 2
        self._headers = min(2 * self._headers, HEADERS[1]) if small else HEADERS[0]
        return batches

    @property
    def unseen(self) -> float:
        """Seconds until the next claim looks at the whole queue, if the last one didn't; else 0."""
        return max(0.0, self._front.quiet_seconds)

    def _claim_from(self, position: FrontPlace | None, params: Mapping[str, Any], fits: Fits) -> list[Batch]:
        claim = uuid4()
        way, more = ("", {}) if position is None else ("from the front", position._asdict())
        with self._claims.use() as moved:
            rows = self._run("claim", way=way, claim=str(claim), **params, **more)
            batches = self._batches(rows, claim, fits)
            moved.rows, moved.bytes = len(rows), sum(len(job.data) for batch in batches for job in batch.jobs)
        # A batch's place in the queue is in its first row: what comes before the last one is taken, or another bee's.
        if (last := next((row for row in reversed(rows) if row[_CLAIMED] is not None), None)) is not None:
            priority, place, seconds, now, _ = last[_CLAIMED:]
            self._front.note(position, (priority, place), seconds, now)
        return batches

    def speculate(self, scope: Scope) -> list[Batch]:
        """Take one copy of the worst straggler, if there is one."""
        claim = uuid4()
        rows = self._count("speculate", claim=str(claim), host=self._host, **_scope(scope))
        return [b._replace(copy=True) for b in self._batches(rows, claim, lambda _: True)]

    def _batches(self, rows: Iterable[Row], claim: UUID, fits: Fits) -> list[Batch]:
        batches = []
        for _, lines in groupby(rows, itemgetter(0)):
            some = list(lines)
            batch = ClaimedRow._make(some[0][:_CLAIMED]).header(claim)
            # What has ended meanwhile isn't among the jobs, though it counts for the mark.
            there = [line for line in some if line[_JOB] is not None]
            batch.jobs.extend(self._job(batch.run, fits, *line[_JOB:_CLAIMED]) for line in there)
            batches.append(batch._replace(started=sum(line[_JOB - 1] for line in there)))
        return batches

    def _job(
        self, run: int, fits: Fits, job: int, codec: str, text: str | None, payload: Any, mac: Any, *past: int | None
    ) -> Job:
        data = text.encode() if text is not None else bytes(payload or b"")  # of nothing no signature holds
        if codec == parts.PARTS:
            codec, data = self.parts.get(job, 0, data) if fits(parts.size(data)) else (UNREAD, b"")
        return Job(job, run, codec, data, None if mac is None else bytes(mac), past[0] or 0, past[1] or 0)

    def start(self, batch: Batch, started: int) -> tuple[int, list[int]]:
        """Move the mark. Returns how many jobs are started now, and the batch's jobs; (0, []) if the claim is lost."""
        rows = self._run("start", batch=batch.id, claim=str(batch.claim), started=started)
        return (rows[0][0], rows[0][1]) if rows else (0, [])

    # Ending it

    def complete(self, outcomes: Sequence[Outcome], closed: Sequence[Batch], *, hint: str | None) -> bool:
        """Record successes, and delete batches with nothing open. False if another end was first in any of the runs."""
        params = self._new_rows(outcomes) | {"bee": self._bee, "writer": self._writer.name(), "hint": hint}
        params |= {"closed": array(b.id for b in closed), "claims": array(b.claim for b in closed)}
        self._alive()
        with self._results.use() as moved:
            [(stored, _, _)] = self._queries.insert("complete", params)
            moved.rows, moved.bytes = len(outcomes), sum(len(o.data) for o in outcomes)
        if not self._is_noted and not self.jobset.is_temporary:
            self.note_host()
        if stored < len(outcomes):
            runs = {"jobs": array(o.job for o in outcomes), "runs": array(o.run for o in outcomes)}
            self._count("late", host=self._host, **runs)
        return bool(stored == len(outcomes))

    def _new_rows(self, outcomes: Sequence[Outcome]) -> dict[str, str]:
        """Give the parameters of an insert: a column is one text."""
        jobs, runs, _, codecs, data, macs, durations = zip(*outcomes, strict=True) if outcomes else [()] * 7
        written = [self.parts.written(*value) for value in zip(jobs, runs, codecs, data, strict=True)]
        codecs, texts, payloads = zip(*written, strict=True) if written else [()] * 3
        columns: dict[str, Iterable[str]] = {"job": map(str, jobs), "run": map(str, runs), "codec": codecs}
        columns |= {"output": texts, "payload": payloads, "duration": [f"{seconds:.9f}" for seconds in durations]}
        columns["mac"] = [mac.hex() if mac else "" for mac in macs]
        return {name: "\n".join(column) for name, column in columns.items()}

    def keep_texts(self, texts: Sequence[KeptText], most: int = MOST_TEXT_BYTES) -> bool:
        """Keep what executions have printed; False if there is room for failed ones only."""
        jobs, runs, claims, failed, printed = zip(*texts, strict=True)
        heads, stdout, stderr, stdout_sizes, stderr_sizes = zip(*printed, strict=True)
        columns = {"jobs": jobs, "runs": runs, "claims": claims, "failed": failed, "heads": heads}
        columns |= {"stdout_sizes": stdout_sizes, "stderr_sizes": stderr_sizes}
        texts_of = {"stdout": "\n".join(map(bytes.hex, stdout)), "stderr": "\n".join(map(bytes.hex, stderr))}
        arrays = {name: array(values) for name, values in columns.items()}
        [(is_room_left, _)] = self._run("keep_texts", most=most, **arrays, **texts_of)
        return bool(is_room_left)

    def note_host(self) -> None:
        """Note this bee's host in the jobset, as the bee's own row is deleted when it leaves."""
        self._run("note_host", host=self._host)
        self._is_noted = True

    def refuse(self, function: int, reason: str) -> None:
        """Say in the jobset why this bee can't run a function, for the clients that wait."""
        self._run("refuse", function=function, host=self._host, reason=storable(reason))

    def doubt(self, function: int) -> None:
        """Say in the jobset that the last jobs of this function have all failed here."""
        self._run("doubt", function=function, host=self._host)

    def trust(self, function: int) -> None:
        """Take a `doubt` back."""
        self._run("trust", function=function)

    def able_bees(self, function: int) -> int:
        """Count the other bees that serve this jobset, are alive, and have neither refused nor doubted the function."""
        return int(self._run("able_bees", function=function)[0][0])

    def fail(self, batch: Batch, outcome: Outcome, limits: Limits, error: str, cause: bytes | None = None) -> str:
        """Record a failed attempt: its ``error`` in short, and the digest of its ``cause``.

        Returns ``retried``, ``failed`` (the run has ended), ``noted`` (another copy runs, or the run had
        ended before) or ``ignored`` (this bee no longer holds the job).
        """
        codec, data = self.parts.put(outcome.job, outcome.run, outcome.codec, outcome.data)
        readable = codec in READABLE
        params = {
            "batch": batch.id,
            "claim": str(batch.claim),
            "job": outcome.job,
            "kind": outcome.kind,
            "host": self._host,
            "error": error,
            "cause": cause,
            "codec": codec,
            "output": data.decode() if readable else None,
            "payload": None if readable else data,
            "mac": outcome.mac,
            "duration": outcome.duration,
            "limit": limits.attempts,
            "backoff": limits.backoff,
            "max_backoff": limits.max_backoff,
        }
        verdict = "stale"
        while verdict == "stale":
            [(verdict, _, _)] = self._count("fail", **params)
        return str(verdict)

    def release(self, batch: Batch | Claim, jobs: Sequence[int], *, untouched: bool) -> None:
        """Give jobs back without charging an attempt; ``untouched``: they have surely not run."""
        stale = True
        while stale:
            [(stale, _, _)] = self._run(
                "release", batch=batch.id, claim=str(batch.claim), jobs=array(jobs), untouched=untouched
            )

    def release_unknown(self, known: Iterable[UUID]) -> None:
        """Give back the batches of this bee's claims that it doesn't know of: none of their jobs was begun."""
        known = set(known)
        for batch, (claim, jobs) in self.held_claims().items():
            if claim not in known:
                self.release(Claim(batch, claim), jobs, untouched=True)

    def held_claims(self) -> dict[int, tuple[UUID, list[int]]]:
        """Read what this bee holds in the database: claim and jobs by batch."""
        return {batch: (UUID(claim), jobs) for batch, claim, jobs in self._run("held_claims")}

    def signatures(self, jobs: Iterable[int]) -> dict[int, Signs]:
        """Give what each of these jobs is known by, of those that exist."""
        return Signs.by_job(self._run("signatures", jobs=array(jobs)))

    # Looking after others

    def rescue(self, lease: float) -> list[str]:
        """Put back the work of bees that are gone. Returns their incarnations."""
        [(_, bees)] = self._count("rescue", lease=lease)
        if bees:
            self._front.forget()
        return bees or []

    def take_over(self, scope: Scope) -> int:
        """Put back jobs that a slow bee has not begun: half of them, or all if it is stuck. Returns how many."""
        taken = sum(int(row[0]) for row in self._run("take_over", **_scope(scope)))
        if taken:
            self._front.forget()
        return taken

    def came_back(self) -> None:
        """Withdraw the losses of this bee's work within the last minute: it had not vanished."""
        self._count("came_back")

    def show(self, asked: ShowRequest, run: int, printed: Printed) -> None:
        """Store what a running job has printed until now, or its stacks, for those who have asked."""
        number = -asked.job if asked.is_stack else asked.job
        sizes: dict[str, Any] = {"stdout_size": printed.stdout_size, "stderr_size": printed.stderr_size}
        self._run("show", job=number, run=run, stdout=printed.stdout.hex(), stderr=printed.stderr.hex(), **sizes)

    def overtaken(self, runs: Sequence[tuple[int, int]]) -> Overtaken:
        """Find those of these (job, run) that have ended elsewhere, and the requests to show some."""
        rows = self._run("overtaken", jobs=array(job for job, _ in runs), runs=array(run for _, run in runs))
        ended = {(job, run) for job, run in rows if run is not None}
        return Overtaken(ended, [ShowRequest(abs(job), job < 0) for job, run in rows if run is None])

    # Functions

    def get_function(self, number: int) -> FunctionRow | None:
        return self.get_functions([number]).get(number)

    def get_functions(self, numbers: Iterable[int]) -> dict[int, FunctionRow]:
        """Read the records of these functions, as far as they are stored."""
        found = {}
        for number, digest, name, codec, body, python, mac in self._run("get_functions", numbers=array(numbers)):
            whole = self.parts.get_function(codec, bytes(body))
            found[number] = FunctionRow(number, bytes(digest), name, *whole, python, bytes(mac))
        return found

    def functions_named(self, name: str) -> tuple[int, ...]:
        return tuple(row[0] for row in self._run("functions_named", name=name))


def _scope(scope: Scope) -> dict[str, Any]:
    return {"only": None if scope.only is None else array(scope.only), "refused": array(scope.refused)}
