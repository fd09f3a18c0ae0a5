"""What it takes to have much: claims beside an old snapshot, cancelling a million, thousands of functions, failures."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from statistics import median
from typing import Any
from uuid import uuid4

from tests.benchmarks.jobs import noop, sleep
from tests.benchmarks.results import Bar, at_least, at_most
from tests.servers import Database, Server
from workerbee import WorkerbeeExecutor
from workerbee.store import BeeStore, Catalogue, Connection, Scope, schema
from workerbee.wire.job import EndKind, Outcome

#: At most so many claims, of which the quicker ones count; seconds of a job, and at most so many beside failing ones.
CLAIMS, SECONDS, JOBS = 300, 0.02, 200
#: At most so many of these that are cancelled one after the other.
ONE_BY_ONE = 1000

_QUEUE = """
INSERT INTO workerbee."job${0}" (id, codec, input) SELECT n, 'json', '{{}}' FROM generate_series(1, {1}) n;
INSERT INTO workerbee."batch$" (jobset, function, run, jobs)
SELECT {0}, 0, 1, ARRAY[n] FROM generate_series(1, {1}::bigint) n;
"""
_CLAIMED = """
INSERT INTO workerbee."batch$" (jobset, function, run, place, due_at, jobs)
SELECT {0}, 0, 1, -n, CASE WHEN n % 2 = 0 THEN now() - interval '1 minute' END, ARRAY[-n]
  FROM generate_series(1, {1}::bigint) n;
UPDATE workerbee."batch$" SET bee = '{2}', claim = '{2}', claimed_at = now(), due_at = NULL WHERE jobs[1] < 0;
DELETE FROM workerbee."batch$" WHERE jobs[1] < 0;
"""
_ALONE = """
WITH given AS (DELETE FROM workerbee."batch$" RETURNING *)
INSERT INTO workerbee."batch$" (jobset, function, run, jobs)
SELECT jobset, function, run, ARRAY[job] FROM given CROSS JOIN unnest(jobs) AS job ORDER BY job;
"""


def measure(running: Server, jobs: int, say: Callable[[str], None]) -> list[Bar]:
    """The bars; the million is of so many ``jobs``."""
    say("claims beside an old snapshot")
    with _place(running) as database:
        slower = _beside_snapshot(database, max(1000, jobs // 10), max(25, min(CLAIMS, jobs // 10)))
    say(f"cancelling {jobs:,}")
    with _place(running) as database:
        cancelled = _cancelled(database, jobs)
    n_alone = max(100, jobs // 10)
    say(f"cancelling one by one of {n_alone:,}")
    with _place(running) as database:
        one = _cancelled_one_by_one(database, n_alone)
    say("functions by the thousand")
    with _place(running) as database:
        submitted, done = _functions(database, max(50, jobs // 100))
    say("beside a function that fails")
    with _place(running) as database:
        beside = _beside_failures(database, max(10, min(JOBS, jobs // 10)))
    return [
        at_most(
            f"a job claimed and completed, {max(1000, jobs // 10):,} claims into an old snapshot", slower, 1.3, " x"
        ),
        at_most("cancelling 1,000,000 that wait", cancelled * 1e6 / jobs, 5, " s"),
        at_most(f"cancelling one of {n_alone:,} that wait, each in a header of its own", one * 1e3, 1, " ms"),
        at_least("partials that are all different, stored", submitted, 2000, "/s"),
        at_least("the same by two runners, to the last result", done, 500, "/s"),
        at_most("jobs beside as many of a function that always fails", beside, 1.3, " x"),
    ]


@contextmanager
def _place(running: Server) -> Iterator[Database]:
    database = running.new_database()
    yield database
    database.drop()


def _beside_snapshot(database: Database, n: int, n_claims: int) -> float:
    """How many times as long a job takes that is claimed and completed by itself."""
    with closing(Connection(database.dsn)) as connection:
        schema.ensure(connection)
        jobset = Catalogue(connection).create_jobset("crowds", key=None, speculate=True)
        assert jobset is not None
        store = BeeStore(connection, jobset, uuid4(), "host")
        database.execute(_QUEUE.format(jobset.number, 3 * n_claims))
        database.execute("VACUUM ANALYZE")
        _typical(store, n_claims)
        before = _typical(store, n_claims)
        with closing(database.connect()) as other, other.cursor() as cursor:
            cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            cursor.execute("SELECT 1")
            database.execute(_CLAIMED.format(jobset.number, n, uuid4()))
            return _typical(store, n_claims) / before


def _typical(store: BeeStore, n: int) -> float:
    took = []
    for _ in range(n):
        began = time.monotonic()
        [batch] = store.claim(1, 1, Scope())
        store.complete(
            [Outcome(batch.jobs[0].id, 1, EndKind.COMPLETED, "json", b"null", None, 1.0)], [batch], hint=None
        )
        took.append(time.monotonic() - began)
    return sorted(took)[n // 4]  # a machine that does other things as well makes some slower


def _cancelled(database: Database, n: int) -> float:
    """Seconds until all are cancelled."""
    executor = WorkerbeeExecutor(0, jobset_id="crowds", dsn=database.dsn)
    futures = [executor.submit(noop, {"i": i}) for i in range(n)]
    executor.flush()
    began = time.monotonic()
    executor.shutdown(wait=False, cancel_futures=True)
    took = time.monotonic() - began
    assert all(future.cancelled() for future in futures)
    executor.shutdown()
    return took


def _cancelled_one_by_one(database: Database, n: int) -> float:
    """The median of the seconds that it takes to cancel one, in any order."""
    with WorkerbeeExecutor(0, jobset_id="crowds", dsn=database.dsn) as executor:
        futures = [executor.submit(noop, {"i": i}) for i in range(n)]
        executor.flush()
        database.execute(_ALONE)
        took = []
        for future in random.Random(1).sample(futures, min(ONE_BY_ONE, n)):
            began = time.monotonic()
            assert future.cancel()
            took.append(time.monotonic() - began)
        executor.shutdown(wait=False, cancel_futures=True)
    return median(took)


def _functions(database: Database, n: int) -> tuple[float, float]:
    """Calls a second of functions that are all different: until they are stored, and until they have ended."""
    with WorkerbeeExecutor(2, jobset_id="crowds", dsn=database.dsn) as executor:
        executor.submit(noop, {}).result()
        began = time.monotonic()
        futures = [executor.submit(partial(_nth, i), {}) for i in range(n)]
        executor.flush()
        stored = time.monotonic() - began
        assert [future.result() for future in futures] == list(range(n))
        return n / stored, n / (time.monotonic() - began)


def _nth(n: int, _: dict[str, Any]) -> int:
    return n


def _beside_failures(database: Database, n: int) -> float:
    """How many times as long jobs take, beside as many that fail at once."""
    with WorkerbeeExecutor(2, jobset_id="crowds", dsn=database.dsn) as executor:
        took = []
        for failing in (False, False, True):
            run = uuid4().hex
            began = time.monotonic()
            futures = []
            for i in range(n):
                futures.append(executor.submit(sleep, {"seconds": SECONDS, "i": i, "run": run}))
                if failing:
                    executor.submit(_fails, {"i": i})
            for future in futures:
                future.result()
            took.append(time.monotonic() - began)
        return took[2] / took[1]


def _fails(_: dict[str, Any]) -> None:
    raise RuntimeError("as always")
