"""The queries of a client on one jobset: functions, jobs, cancellations, results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any
from uuid import UUID

from psycopg2 import errors

from workerbee.store import parts
from workerbee.store.answers import Cancelled, Refused, Result, Run, SameCall, Signs
from workerbee.store.catalogue import Catalogue
from workerbee.store.connection import Connection, Row
from workerbee.store.headers import Headers
from workerbee.store.lent import LentValues
from workerbee.store.losses import Losses
from workerbee.store.queries import Queries, array
from workerbee.store.ration import Ration
from workerbee.store.writer import Writer
from workerbee.wire.job import LARGE_BYTES, FunctionRow, Jobset, NewJob, Options, Stored, StoredFunction

JobsBySign = dict[bytes, int]

#: Jobs in one batch header: large enough to claim at full speed, small enough that its array stays
#: inside the row (2 kB).
BATCH_JOBS = 200
#: Jobs, and about how many bytes, in one of the statements that insert many.
PORTION = 20_000, 4_000_000
#: Runs in one page of all runs, and batch headers in one page of all headers.
RUNS_IN_PAGE, HEADERS_IN_PAGE = 2000, 250
#: Tries of a cancellation while bees change the headers at the same time.
CANCEL_TRIES = 5
#: Ends in one answer, and seconds that it may take.
ANSWER = 1000, 1.0
#: Jobs in one page of results, and seconds that it may take.
PAGE = 4000, 0.5


class ClientStore:
    """One jobset as its clients see it, over one connection."""

    def __init__(self, connection: Connection, jobset: Jobset, writer: UUID) -> None:
        self.connection = connection
        self.jobset = jobset
        self._writer = Writer(writer)
        self._queries = Queries(connection, jobset, "client.sql")
        self._ends = Ration(*ANSWER)
        self._pages = Ration(*PAGE)
        self._headers = Headers(self._queries)
        self.parts, self.lent = parts.Parts(self._queries), LentValues(self._queries, self._writer)
        self.losses = Losses(self._queries, self._writer)

    def _run(self, name: str, /, **params: Any) -> list[Row]:
        return self._queries.run(name, params)

    def put_functions(self, functions: Mapping[FunctionRow, bytes]) -> dict[bytes, int]:
        """Store function records with their identities, equal ones once. Returns their numbers by digest."""
        large = [f.digest for f in functions if len(f.body) > LARGE_BYTES]
        numbers = self._numbers("functions_stored", digests=large) if large else {}
        new = [f for f in functions if f.digest not in numbers]
        stored = [self.parts.put_function(f.codec, f.body) for f in new]
        params = {
            "digests": [f.digest for f in new],
            "identities": [functions[f] for f in new],
            "names": [f.name for f in new],
            "codecs": [codec for codec, _ in stored],
            "bodies": [body for _, body in stored],
            "pythons": [f.python for f in new],
            "macs": [f.mac for f in new],
        }
        # Another client may have stored one after this statement's snapshot was taken: the next statement sees it.
        while not all(f.digest in numbers for f in new):
            numbers |= self._numbers("put_functions", **params)
        return numbers

    def _numbers(self, name: str, **params: Any) -> dict[bytes, int]:
        return {bytes(digest): number for digest, number in self._run(name, **params)}

    def put_function(self, function: FunctionRow, identity: bytes) -> int:
        """Store a function record, if no equal one is stored. Returns its number."""
        return self.put_functions({function: identity})[function.digest]

    def put_adoption(self, function: FunctionRow, identity: bytes) -> None:
        """Store that a function counts as those with this identity, in the place of what was stored before."""
        params = function._asdict() | {"identity": identity}
        del params["number"]
        self._run("put_adoption", **params)

    def versions(self, name: str) -> list[StoredFunction]:
        """List what is stored of the functions of this name, oldest first."""
        return [StoredFunction.of(*row) for row in self._run("versions", name=name)]

    def get_function(self, number: int) -> FunctionRow | None:
        """Read a function's record."""
        rows = self._run("get_function", number=number)
        if not rows:
            return None
        digest, name, codec, body, python, mac = rows[0]
        whole = self.parts.get_function(codec, bytes(body))
        return FunctionRow(number, bytes(digest), name, *whole, python, bytes(mac))

    def small_functions(self) -> list[int]:
        """List functions whose records are quickly read, the smallest first; not all if there are thousands."""
        return [number for (number,) in self._run("small_functions")]

    def waiting_functions(self, functions: Iterable[int]) -> list[int]:
        """Find those of these functions of which jobs wait."""
        return [number for (number,) in self._run("waiting_functions", functions=array(functions))]

    def refused(self) -> list[Refused]:
        """Find functions whose jobs wait in vain, because all bees that are or were there have refused them."""
        return [Refused(*row) for row in self._run("refused")]

    def hand_over(self, stand_ins: Mapping[int, int]) -> int:
        """Have waiting jobs run by other functions. Returns how many jobs."""
        if not stand_ins:
            return 0
        [(n, *_)] = self._run("hand_over", calls=array(stand_ins), stand_ins=array(stand_ins.values()))
        return int(n)

    def reprioritise(self, functions: Iterable[int], limit: int, by: int) -> int:
        """Move waiting jobs of these functions to the end of the queue, or back.

        ``by`` < 0: those with a priority of ``limit`` or more, else those below it. Returns how many are below it then.
        """
        [(n, *_)] = self._run("reprioritise", functions=array(functions), limit=limit, by=by)
        return int(n)

    def left_aside(self, name: str, identity: bytes) -> int:
        """Count the results of other versions of the function."""
        return int(self._run("left_aside", name=name, identity=identity)[0][0])

    def add(
        self,
        jobs: Sequence[NewJob],
        *,
        hint: bool = True,
        whole: bool = False,
        functions: Mapping[int, bytes] = MappingProxyType({}),
    ) -> set[int] | None:
        """Insert jobs and their batches. Returns the ids that were inserted, without those that existed.

        ``hint``: tell the waiting bees in the same transaction. ``whole``: insert nothing, and return an empty set, if
        any of the jobs exists; the jobs may then be many. None, and nothing is inserted, if these ``functions``
        (digests by number) aren't stored any more.
        """
        portions = list(_portions(jobs)) if whole else [jobs]
        try:
            if len(portions) == 1:
                return self._insert(jobs, self._queries.insert, hint=hint, whole=whole, functions=functions)
            return self._add_together(portions, hint=hint)
        except errors.DivisionByZero:
            return set()

    def _add_together(self, portions: Iterable[Sequence[NewJob]], *, hint: bool) -> set[int]:
        """Insert all jobs or none, by several statements. Raises DivisionByZero if any of the jobs exists."""
        inserted: set[int] = set()
        with self.connection.transaction(unlimited=True):
            for portion in portions:
                # Not by `insert`, which tries without ON CONFLICT first: a refusal would end the transaction.
                inserted |= self._insert(portion, self._queries.run, hint=False, whole=True, functions={}) or set()
        if hint:
            Catalogue(self.connection).hint_work(self.jobset.number)
        return inserted

    def _insert(
        self,
        jobs: Sequence[NewJob],
        run: Callable[..., list[Row]],
        *,
        hint: bool,
        whole: bool,
        functions: Mapping[int, bytes],
    ) -> set[int] | None:
        digests = "\n".join(digest.hex() for digest in functions.values())
        params = {"hint": hint, "whole": whole, "functions": array(functions), "function_digests": digests}
        [(ids, *_, is_unknown)] = run("add", self._new_rows(jobs) | params)
        return None if is_unknown else set(ids)

    def _new_rows(self, jobs: Iterable[NewJob]) -> dict[str, Any]:
        """Make the parameters of an insert: each column is one text, and a lot becomes a batch."""
        lots: list[tuple[Options, int]] = []
        filling: dict[tuple[Options, int], tuple[int, int]] = {}  # by kind, the lot that isn't full, and its size
        rows = []
        for job in jobs:
            kind = (job.options, job.function)
            lot, size = filling.get(kind, (0, BATCH_JOBS))
            if size == BATCH_JOBS:
                lots.append(kind)
                lot, size = len(lots), 0
            filling[kind] = (lot, size + 1)
            rows.append(
                (
                    str(job.id),
                    job.digest.hex() if job.digest else "",
                    job.key.hex() if job.key else "",
                    str(job.function),
                    *self.parts.written(job.id, 0, job.codec, job.data),
                    job.mac.hex() if job.mac else "",
                    str(lot),
                )
            )
        names = "id", "digest", "key", "function", "codec", "input", "payload", "mac", "lot"
        return dict(zip(names, map("\n".join, zip(*rows, strict=True)), strict=True)) | {
            "writer": self._writer.name(),
            "lot_function": array(function for _, function in lots),
            "lot_priority": array(o.priority for o, _ in lots),
            "lot_due": array(o.due for o, _ in lots),
            "lot_timeout": array(o.timeout for o, _ in lots),
            "lot_max_attempts": array(o.max_attempts for o, _ in lots),
            "lot_speculate": array(o.speculate for o, _ in lots),
        }

    def skip_ids(self) -> None:
        """Have the next ids come after all that exist, as some of the next ones turned out to be taken."""
        self._run("skip_ids")

    def signatures(self, jobs: Iterable[int]) -> dict[int, Signs]:
        """Say by what each of these jobs is known, of those that exist."""
        return Signs.by_job(self._run("signatures", jobs=array(jobs)))

    def known(self, signs: Sequence[tuple[int, bytes | None]]) -> set[tuple[int, bytes | None]]:
        """Find those of these (job, sign) that are stored: after a failover an id may be another call's."""
        stored = self.signatures(job for job, _ in signs)
        return {(job, sign) for job, sign in signs if sign in stored.get(job, ())}

    def same_calls(self, digests: Iterable[bytes]) -> dict[bytes, SameCall]:
        """Find the jobs that equal calls have made earlier, by their digests."""
        rows = self._run("same_calls", digests=list(digests))
        return {bytes.fromhex(digest): SameCall(*same) for digest, *same in rows}

    def taken_inputs(self, digests: Sequence[bytes], keys: Sequence[bytes]) -> tuple[JobsBySign, JobsBySign]:
        """Find the inputs that are in the jobset already: job ids by digest, and by key."""
        rows: set[Row] = set()
        for start in range(0, max(len(digests), len(keys)), PORTION[0]):
            some = slice(start, start + PORTION[0])
            rows.update(self._run("taken_inputs", digests=list(digests[some]), keys=list(keys[some])))
        by_key = {bytes.fromhex(key): job for _, key, job in rows if key}
        return {bytes.fromhex(digest): job for digest, _, job in rows if digest}, by_key

    def reopen(
        self, jobs: Sequence[tuple[int, int]], options: Options, stand_ins: Mapping[int, int] | None = None
    ) -> int:
        """Start a new run of each (job, ended run) that failed or was cancelled. Returns how many were started.

        ``stand_ins`` says which functions run the jobs of others.
        """
        params = options._asdict() | {"calls": array(stand_ins or ()), "stand_ins": array((stand_ins or {}).values())}
        params |= {"jobs": array(j for j, _ in jobs), "runs": array(r for _, r in jobs), "size": BATCH_JOBS}
        rows = self._run("reopen", writer=self._writer.name(), **params)
        return int(rows[0][0])

    def ended(self, ranges: Sequence[tuple[int, int, int]], n: int) -> list[int]:
        """Find those jobs of these sorted ranges (first, last, run) that have ended: the first ``n``."""
        columns = zip(*ranges, strict=True) if ranges else ((), (), ())
        firsts, lasts, runs = map(array, columns)
        return [job for (job,) in self._run("ended", firsts=firsts, lasts=lasts, runs=runs, n=n)]

    def finished(self, jobs: Sequence[int]) -> Iterator[list[Stored]]:
        """Read the ends of all runs of these jobs, in portions; a large one comes alone."""
        asked = 0
        while asked < len(jobs):
            portion = jobs[asked : asked + self._ends.rows]
            with self._ends.use() as moved:
                rows = self._run("finished", jobs=array(portion))
                moved.rows, moved.bytes = len(rows), sum(len(row[4] or row[5] or b"") for row in rows)
            asked += len(portion)
            if small := [self._stored(*row) for row in rows if row[3] != parts.PARTS]:
                yield small
            yield from ([self._stored(*row)] for row in rows if row[3] == parts.PARTS)

    def _stored(
        self, job: int, run: int, status: str, codec: str | None, output: str | None, payload: Any, mac: Any
    ) -> Stored:
        data = parts.whole(codec, output, payload)
        if codec == parts.PARTS:
            codec, data = self.parts.get(job, run, data)
        return Stored(job, run, status, codec, data, bytes(mac) if mac is not None else None)

    def begun(self) -> set[tuple[int, int]]:
        """Read (job, run) of all jobs that may have started, and whose batch isn't closed."""
        return {(job, run) for job, run in self._run("begun")}

    def cancel_waiting(self, runs: Sequence[Run]) -> set[int]:
        """Cancel those of these (job, run) that have not started. Returns which."""
        return self._cancel_all(runs, running=False)

    def cancel_running(self, runs: Sequence[Run]) -> set[int]:
        """End these runs as cancelled, started or not. Returns those that had not ended before."""
        return self._cancel_all(runs, running=True)

    def _cancel_all(self, runs: Iterable[Run], *, running: bool) -> set[int]:
        asked, cancelled = sorted(set(runs)), set[int]()
        for _ in range(CANCEL_TRIES):
            if asked:
                _, jobs, undecided = self.cancel(asked, running=running)
                cancelled.update(jobs if jobs is not None else (job for job, _ in asked))
                asked = undecided
        return cancelled

    def cancel(self, runs: Sequence[Run], *, running: bool) -> Cancelled:
        """Cancel in one statement those of these (job, run) that haven't started, and with ``running`` the others.

        A job whose header a bee was just changing is undecided: try it again. One that has ended, or that runs and may
        go on, is in neither list. Jobs with neighbouring ids in a row are the quickest.
        """
        ranges = _ranges(runs)
        n = sum(last - first + 1 for first, last, _ in ranges)
        params = {
            "firsts": array(first for first, _, _ in ranges),
            "lasts": array(last for _, last, _ in ranges),
            "runs": array(run for *_, run in ranges),
            "first": min(first for first, _, _ in ranges),
            "last": max(last for _, last, _ in ranges),
            "n": n,
            "running": running,
        }
        params["writer"] = self._writer.name()
        [row] = self._headers.cancel(ranges[0][0], params) if n == 1 else self._queries.insert("cancel", params)
        done, jobs, numbers, *_ = row
        return Cancelled(n if done is None else len(done), done, sorted(zip(jobs, numbers, strict=True)))

    def results(self, after: int, functions: Iterable[int] | None = None, *, n: int = PAGE[0]) -> list[Result]:
        """Read a page of these functions' jobs (None: of all) after the id ``after``, in the order of their ids."""
        limits = {"n": min(n, self._pages.rows), "bytes": self._pages.bytes}
        with self._pages.use() as moved:
            page = list(map(Result._make, self._run("results", after=after, functions=_numbers(functions), **limits)))
            moved.rows, moved.bytes = len(page), sum(len(r.input or "") + len(r.output or "") for r in page)
        return page

    def end_of(self, result: Result) -> Stored:
        """Read the end of a job's latest run, with its parts."""
        mac = None if result.mac is None else bytes.fromhex(result.mac)
        fields = result.job, result.run, str(result.status), result.end_codec, result.output, result.end_payload, mac
        return self._stored(*fields)

    def call_of(self, result: Result) -> tuple[str, bytes]:
        """Read the codec and the bytes of a job's call, with its parts."""
        call = self._stored(result.job, 0, "call", result.codec, result.input, result.payload, None)
        return str(call.codec), call.data

    def ended_badly(
        self, functions: Iterable[int] | None = None, *, after: int = 0, n: int = RUNS_IN_PAGE
    ) -> list[Run]:
        """Read a page of latest runs that failed or were cancelled, by job, of these functions' jobs (None: of all)."""
        return [(job, run) for job, run in self._run("ended_badly", functions=_numbers(functions), after=after, n=n)]

    def open_runs(self, functions: Iterable[int] | None = None, *, below: int = 2**31 - 1) -> list[Run]:
        """List open runs of these functions' jobs (None: of all), with a priority ``below`` this, by job."""
        limits = {"functions": _numbers(functions), "below": below, "n": HEADERS_IN_PAGE}
        runs, after = set[Run](), 0
        while headers := self._run("open_runs", after=after, **limits):
            runs.update((job, run) for _, run, jobs in headers for job in jobs)
            after = headers[-1][0]
        return sorted(runs)


def _portions(jobs: Sequence[NewJob]) -> Iterator[Sequence[NewJob]]:
    start = size = 0
    for n, job in enumerate(jobs):
        if n - start == PORTION[0] or size > PORTION[1]:
            yield jobs[start:n]
            start, size = n, 0
        size += min(len(job.data), LARGE_BYTES)
    yield jobs[start:]


def _numbers(functions: Iterable[int] | None) -> str | None:
    return None if functions is None else array(functions)


def _ranges(runs: Iterable[Run]) -> list[tuple[int, int, int]]:
    """Write runs as ranges (first job, last job, run); jobs with neighbouring ids in a row are one range.

    A run that is given twice in a row counts once.
    """
    ranges: list[tuple[int, int, int]] = []
    first = last = number = 0
    for job, run in runs:
        if job == last + 1 and run == number:
            last = job
        elif job != last or run != number:
            ranges.append((first, last, number))
            first, last, number = job, job, run
    return [*ranges[1:], (first, last, number)]
