"""Rows are gone: somebody has deleted them in psql, or a failover or a restore lacks the last commits."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.bees import Bee
from tests.servers import Database
from workerbee import WorkerbeeExecutor
from workerbee.client import watcher
from workerbee.errors import BrokenWorkerbeeError, JobLostError

DELETIONS = {
    "headers": 'DELETE FROM workerbee."batch$"',
    "all batches": 'TRUNCATE workerbee."batch$"',
    "jobs and headers": 'TRUNCATE workerbee."job$1"; DELETE FROM workerbee."batch$"',
}


def double(x: int) -> int:
    return 2 * x


@contextmanager
def client(database: Database, jobset_id: str, n_workers: int) -> Iterator[WorkerbeeExecutor]:
    """An executor that waits for nothing in the end."""
    executor = WorkerbeeExecutor(n_workers, jobset_id=jobset_id, dsn=database.dsn)
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


@pytest.mark.parametrize("deletion", DELETIONS.values(), ids=DELETIONS)
def test_who_waits_for_jobs_that_are_gone_is_told(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, deletion: str
) -> None:
    """Once nothing has ended for a while; those that are there are waited for."""
    monkeypatch.setattr(watcher, "NO_BEES_SECONDS", 0.2)
    monkeypatch.setattr(watcher, "PAGE_JOBS", 7)
    with client(database, "gone", 0) as executor:
        gone = [executor.submit(double, n) for n in range(20)]
        executor.flush()
        database.execute(deletion)
        there = executor.submit(double, 100)
        for future in gone:
            with pytest.raises(
                JobLostError, match=r"job \d+ of gone is in the database no more.* submit the call again"
            ):
                future.result(20)
        assert not there.done()
        assert "jobs of gone are in the database no more" in caplog.text
        with Bee(database.dsn, "gone", "--busywait") as bee:
            again = [executor.submit(double, n) for n in range(20)]
            assert [future.result(20) for future in again] == [2 * n for n in range(20)], bee.output
        assert executor.progress().completed == 21


def test_a_run_that_stands_in_no_header(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who submits the call is told, for it is never done, and everybody sees that; the next time it is done."""
    monkeypatch.setattr(watcher, "NO_BEES_SECONDS", 0.2)
    with client(database, "rows", 0) as executor, Bee(database.dsn, "rows", "--busywait"):
        assert executor.submit(double, 1).result(20) == 2
        database.execute('INSERT INTO workerbee."run$1" (job, run) VALUES (1, 2)')
        with pytest.raises(JobLostError):
            executor.submit(double, 1).result(20)
        [failure] = executor.results(on_error="return")
        assert isinstance(failure["error"], JobLostError)
        assert executor.submit(double, 1).result(20) == 2


def test_a_jobset_that_is_marked_as_dropped(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits is told, though nobody is there to drop it."""
    monkeypatch.setattr(watcher, "NO_BEES_SECONDS", 0.2)
    with client(database, "marked", 0) as executor:
        future = executor.submit(double, 1)
        executor.flush()
        database.execute("UPDATE workerbee.\"jobset$\" SET dropped_at = 'infinity'")
        with pytest.raises(BrokenWorkerbeeError, match="was dropped while it was in use"):
            future.result(20)


def test_a_promoted_standby_that_lacks_the_last_commits(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """After the connection was cut, who waits needn't wait for long, and the next calls bring their function again."""
    with client(database, "failed_over", 1) as executor:
        assert executor.submit(double, 1).result(60) == 2
        late = executor.with_options(run_at=time.time() + 3600)
        kept, lost = late.submit(double, 2), late.submit(double, 3)
        executor.flush()
        database.execute('DELETE FROM workerbee."function$1"')
        database.execute(
            'UPDATE workerbee."batch$" SET jobs = ARRAY[%s::bigint] WHERE %s = ANY (jobs)', kept.job, lost.job
        )
        database.execute('DELETE FROM workerbee."batch$" WHERE jobs[1] = %s', lost.job)
        database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'workerbee%'"
        )
        with pytest.raises(JobLostError):
            lost.result(30)
        assert not kept.done()
        assert executor.submit(double, 4).result(60) == 8
        assert "are stored anew" in caplog.text


@pytest.mark.parametrize("number", ["is gone", "is another function's"])
def test_a_function_is_stored_again(database: Database, caplog: pytest.LogCaptureFixture, number: str) -> None:
    """Its number may have been given to another one since."""
    with client(database, "functions", 1) as executor, caplog.at_level(logging.WARNING):
        assert executor.submit(double, 1).result(60) == 2
        assert executor.submit(abs, -1).result(60) == 1
        if number == "is gone":
            database.execute('DELETE FROM workerbee."function$1"')
        else:
            database.execute("""UPDATE workerbee."function$1" SET digest = 'x' || digest""")
        futures: list[Any] = [executor.submit(double, 2), executor.submit(abs, -2)]
        assert [future.result(60) for future in futures] == [4, 2]
    assert "functions of functions are stored anew" in caplog.text


def leave_a_thread(x: int) -> int:
    threading.Thread(target=time.sleep, args=(120,)).start()
    return x


def test_a_thread_that_a_job_leaves_behind_keeps_no_runner(database: Database) -> None:
    """From being replaced, and no bee from its end."""
    began = time.monotonic()
    with WorkerbeeExecutor(1, dsn=database.dsn, max_tasks_per_child=1) as executor:
        assert [executor.submit(leave_a_thread, n).result(60) for n in range(2)] == [0, 1]
    assert time.monotonic() - began < 60
