"""Trying again: what counts as an attempt, when the next one is due, and how often."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from psycopg2 import extensions

from tests.bees import Bee
from tests.servers import Database
from tests.store.hive import ANY, Hive, failure, ids_of
from tests.waiting import eventually
from workerbee import JobFailedError, JobSet, WorkerbeeExecutor
from workerbee.store import Connection, Limits, schema


@pytest.fixture
def hive(database: Database) -> Iterator[Hive]:
    """A jobset driven verb by verb, without a bee."""
    connection = Connection(database.dsn)
    schema.ensure(connection)
    yield Hive(connection)
    connection.close()


@contextmanager
def durable(database: Database, workers: int = 1, **options: Any) -> Iterator[WorkerbeeExecutor]:
    with WorkerbeeExecutor(workers, dsn=database.dsn, jobset_id="tried", **options) as executor:
        yield executor


def look(database: Database, *columns: str) -> list[tuple[Any, ...]]:
    """What a person sees in the jobset, one row a job."""
    return database.execute(f"SELECT {', '.join(columns)} FROM workerbee.tried ORDER BY id")


def always_fails(n: int) -> None:
    raise JobFailedError(f"not {n}")


# What counts


def test_the_loss_of_a_bee_is_no_failed_attempt(database: Database, tmp_path: Path) -> None:
    """A job with one attempt only survives the bee that is killed with it; the loss is counted apart."""
    started = tmp_path / "started"

    def job() -> str:
        if started.exists():
            return "done"
        started.touch()
        time.sleep(1000)
        return "slept"

    with durable(database, 0) as executor, Bee(database.dsn, "tried") as bee:
        future = executor.with_options(max_n_retry_attempts=1).submit(job)
        eventually(started.exists)
        bee.kill()
        with Bee(database.dsn, "tried"):
            assert future.result(60) == "done"
        counts = executor.events()
    assert (counts.lost, counts.retried, counts.failed, counts.speculative) == (1, 0, 0, 0)
    assert look(database, "status", "n_claims", "n_failed_attempts") == [("completed", 2, 0)]


def test_a_speculative_copy_is_no_failed_attempt(database: Database) -> None:
    """A straggler's copy, the copy's result and the late original count as neither a failure nor a loss."""

    def job(n: int) -> int:
        time.sleep(1000 if n == 40 and "SLOW" in os.environ else 0.02)
        return n

    with durable(database, 0) as executor, Bee(database.dsn, "tried", "--busywait", environment={"SLOW": "1"}):
        assert list(executor.map(job, range(4))) == list(range(4))
        straggler = executor.submit(job, 40)
        eventually(lambda: look(database, "status")[4:] == [("running",)])
        with Bee(database.dsn, "tried"):
            assert straggler.result(60) == 40
        counts = executor.events()
    assert (counts.lost, counts.retried, counts.failed, counts.speculative) == (0, 0, 0, 1)
    assert look(database, "status", "n_failed_attempts")[4:] == [("completed", 0)]


# When


def test_the_pause_doubles_with_jitter_up_to_its_limit(hive: Hive) -> None:
    """Each failure's pause is drawn from the upper half of the next power of two, and stands in the row."""
    [job] = hive.add()
    bee = hive.bee()
    limits = Limits(10, backoff=10.0, max_backoff=35.0)
    pauses = []
    for _ in range(4):
        batch = bee.take()
        assert bee.fail(batch, failure(job), limits, "{}") == "retried"
        pauses += hive.run(
            "SELECT extract(epoch FROM due_at - now())::float FROM {batch} WHERE jobset = {number} AND claim IS NULL"
        )
        hive.make_due()
    for (pause,), most in zip(pauses, (10, 20, 35, 35), strict=True):
        assert most / 2 - 1 < pause <= most


def test_jobs_that_fail_together_are_not_tried_together(hive: Hive) -> None:
    """The jitter spreads them out."""
    jobs = hive.add(20)
    bee = hive.bee()
    batch = bee.take(20)
    for job in jobs:
        bee.fail(batch, failure(job), Limits(10, 100.0, 100.0), "{}")
    [(spread,)] = hive.run(
        "SELECT extract(epoch FROM max(due_at) - min(due_at))::float FROM {batch} WHERE jobset = {number}"
    )
    assert spread > 10


def test_a_failed_job_goes_behind_the_work_that_waits(hive: Hive) -> None:
    """Also when its pause is over; what is submitted later comes after it."""
    first, *rest = hive.add(4)
    bee = hive.bee()
    bee.miss(bee.take(1), first)
    later = hive.add(2)
    hive.make_due()
    assert [i for batch in bee.claim(10, 10, ANY) for i in ids_of(batch)] == [*rest, first, *later]


# How often


def test_the_executor_limits_the_attempts(database: Database) -> None:
    """The future raises the job's own JobFailedError after so many, and the last one says which it was."""
    with durable(database, max_n_retry_attempts=2) as executor:
        error = executor.submit(always_fails, 1).exception(60)
        counts = executor.events()
    assert type(error) is JobFailedError
    assert "attempt 2" in f"{getattr(error, '__notes__', '')}{error.__cause__}"
    assert (counts.retried, counts.failed) == (1, 1)
    assert look(database, "status", "n_failed_attempts") == [("failed", 2)]


def test_a_job_has_a_limit_of_its_own(database: Database) -> None:
    """It overrules the executor's, and only for that call."""
    with durable(database, max_n_retry_attempts=2) as executor:
        once = executor.with_options(max_n_retry_attempts=1).submit(always_fails, 1)
        twice = executor.submit(always_fails, 2)
        assert [type(f.exception(60)) for f in (once, twice)] == [JobFailedError, JobFailedError]
    assert look(database, "n_failed_attempts") == [(1,), (2,)]


def test_the_bee_limits_jobs_that_have_no_limit(database: Database) -> None:
    """max_n_retry_attempts=3 of a run means three attempts in all; its longest pause holds too."""
    at = extensions.parse_dsn(database.dsn)
    jobset = JobSet("tried", host=at["host"], port=at["port"], user=at["user"], dbname=at["dbname"])
    jobset.setup_jobset()
    jobset.add_jobs([{"n": 1}])
    jobset.run(always_fails, max_n_retry_attempts=3, max_failure_sleep=0.05)
    jobset.close()
    assert look(database, "status", "n_failed_attempts") == [("failed", 3)]


def test_other_exceptions_are_not_tried_again(database: Database) -> None:
    """Only JobFailedError says that another attempt may help."""

    def wrong(n: int) -> None:
        raise ZeroDivisionError(n)

    with durable(database) as executor:
        assert isinstance(executor.submit(wrong, 1).exception(60), ZeroDivisionError)
    assert look(database, "status", "n_failed_attempts") == [("failed", 1)]


# And what then


def test_what_failed_is_looked_at_and_tried_anew(database: Database, tmp_path: Path) -> None:
    """results() shows the failed jobs with their input and exception; retry() gives each a new run."""
    mended = tmp_path / "mended"

    def job(call: dict[str, int]) -> int:
        if call["n"] % 2 and not mended.exists():
            raise LookupError(call["n"])
        return call["n"] * 10

    with durable(database) as executor:
        futures = [executor.submit(job, {"n": n}) for n in range(4)]
        assert [type(f.exception(60)) for f in futures] == [type(None), LookupError, type(None), LookupError]
        rows = list(executor.results(on_error="return"))
        assert [(r["n"], r["status"]) for r in rows if "error" in r] == [(1, "failed"), (3, "failed")]
        assert [r["error"].args for r in rows if "error" in r] == [(1,), (3,)]
        assert [r["result"] for r in executor.results()] == [0, 20]
        mended.touch()
        assert len(executor.retry()) == 2
        again = [executor.submit(job, {"n": n}).result(60) for n in range(4)]
        assert again == [0, 10, 20, 30]
        assert [r["result"] for r in executor.results()] == again
        counts = executor.events()
    assert (counts.added, counts.reopened, counts.completed, counts.failed, counts.open) == (4, 2, 4, 2, 0)


# Timeouts


def test_a_timeout_counts_a_jobs_own_time(database: Database) -> None:
    """Not that in which it waits, also in the hands of a runner, behind others."""

    def job(n: int) -> int:
        time.sleep(0.3)
        return n

    with durable(database) as executor:
        timed = executor.with_options(timeout=1.0)
        assert list(timed.map(job, range(6))) == list(range(6))


def test_a_timeout_is_for_its_job_alone(database: Database) -> None:
    """The same function without one goes on, and the killed job is never tried again."""

    def job(seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    with durable(database) as executor:
        short = executor.with_options(timeout=0.2).submit(job, 1000.0)
        long = executor.submit(job, 0.5)
        assert isinstance(short.exception(60), TimeoutError)
        assert long.result(60) == 0.5
    assert look(database, "status", "n_failed_attempts") == [("failed", 1), ("completed", 0)]
