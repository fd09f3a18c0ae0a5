"""Cancelling many, and beside those who are in the way."""

from __future__ import annotations

import logging
from contextlib import closing

import psycopg2
import pytest

from tests.contract import jobs
from tests.contract.conftest import maker, new_id
from tests.servers import Database
from tests.waiting import eventually


def test_what_cant_be_cancelled_in_time_is_given_up(
    shared: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody holds the jobs' rows: it is said how many weren't cancelled, and the server works at nothing of ours."""
    monkeypatch.setattr("workerbee.client.cancelling.PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr("workerbee.client.cancelling.PAGE_PATIENCE_SECONDS", 0.6)
    executor = maker("durable", shared.dsn)(0)
    futures = [executor.submit(jobs.mul, n, n) for n in range(5)]
    try:
        executor.flush()
        with closing(psycopg2.connect(shared.dsn)) as other:
            batches = 'SELECT FROM workerbee."batch$" WHERE jobset = %s FOR UPDATE'
            other.cursor().execute(batches, [executor._client.jobset.number])
            assert not futures[0].cancel()
            eventually(lambda: not _waited_for(shared), timeout=5)
            assert executor.cancel_running() == 0
            eventually(lambda: not _waited_for(shared), timeout=5)
            executor._client._cancelling.cancel_waiting(futures)  # as shutdown(cancel_futures=True) does
            eventually(lambda: not _waited_for(shared), timeout=5)
        said = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
        assert ["and 5 were not" in line for line in said] == [True, True]
        assert executor.cancel_running() == 5
    finally:
        executor.shutdown(cancel_futures=True, wait=False)


def _waited_for(database: Database) -> bool:
    """Whether somebody in this database waits for a lock."""
    waiting = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = %s"
    return bool(database.execute(waiting, database.name))


def test_shutdown_cancels_many_and_nobody_elses(shared: Database) -> None:
    """What others have brought into the jobset waits on."""
    make, name = maker("durable", shared.dsn), new_id()
    others, executor = make(0, jobset_id=name), make(0, jobset_id=name)
    try:
        theirs = [others.submit(jobs.mul, n, -n) for n in range(1, 4)]
        others.flush()
        futures = [executor.submit(jobs.mul, n, n + 1) for n in range(20_000)]
        executor.flush()
        theirs += [others.submit(jobs.mul, n, -n) for n in range(4, 7)]
        others.flush()
        executor.shutdown(cancel_futures=True)
        assert all(future.cancelled() for future in futures)
        progress = others.progress()
        assert (progress.cancelled, progress.waiting) == (20_000, 6)
        assert not any(future.done() for future in theirs)
        assert others.cancel_running() == 6
    finally:
        others.shutdown(cancel_futures=True, wait=False)
