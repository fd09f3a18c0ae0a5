"""`workerbee.open`: any program sees and steers a jobset that is there; executors and `JobSet` have the same verbs."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import workerbee
from tests.e2e.test_jobset import at
from tests.servers import Database
from tests.store.hive import Hive, fail_for_good
from workerbee import JobSet, WorkerbeeExecutor
from workerbee.errors import (
    BrokenWorkerbeeError,
    DatabaseUnavailableError,
    JobsetNotFoundError,
    UnsupportedDatabaseError,
)
from workerbee.handle import Handle
from workerbee.store import Connection


@pytest.fixture(scope="module")
def connection(shared: Database) -> Iterator[Connection]:
    made = Connection(shared.dsn)
    yield made
    made.close()


@pytest.fixture
def study(connection: Connection) -> Iterator[Hive]:
    """The jobset ``study``, jobs 1 to 7: three failed, for two causes, and one each for the other states."""
    hive = Hive(connection, "study")
    bee = hive.bee("node-17")
    for job, message in zip(hive.add(3), ("unlucky 1", "unlucky 2", "no disk"), strict=True):
        fail_for_good(bee, job, message)
    hive.add()
    assert hive.client.cancel_waiting([(4, 1)]) == {4}
    hive.add()
    bee.succeed(bee.take())
    hive.add()
    bee.take()
    hive.add()
    yield hive
    hive.catalogue.drop_jobset(hive.jobset)


@pytest.fixture
def handle(shared: Database, study: Hive) -> Iterator[Handle]:
    with workerbee.open("study", dsn=shared.dsn) as opened:
        yield opened


BEFORE = ["failed", "failed", "failed", "cancelled", "completed", "running", "waiting"]


def statuses(handle: Handle) -> list[str]:
    return [row.status for row in handle.jobs()]


def test_it_says_how_the_jobset_goes(handle: Handle) -> None:
    """In numbers and in a sentence."""
    status = handle.status()
    assert (status.jobset, status.percent, status.bees, status.runners) == ("study", 71, 1, 1)
    assert status.jobs == (1, 1, 1, 3, 1)
    assert status.events.added == 7
    assert str(status).startswith("Under way: 71 % of 7 jobs have ended, 2 are open")
    assert status.paused is None


def test_it_lists_jobs(handle: Handle) -> None:
    """All, by id, or those that are asked for; iterators don't disturb each other."""
    assert statuses(handle) == BEFORE
    assert [row.id for row in handle.jobs(status="failed")] == [1, 2, 3]
    assert [row.id for row in handle.jobs(status=("waiting", "running"))] == [6, 7]
    assert [row.id for row in handle.jobs([7, 2, 99])] == [2, 7]
    assert list(handle.jobs([0, -1, 2**63, 10**30])) == []
    assert handle.retry([10**30]) == handle.cancel([10**30]) == 0
    assert [row.id for row in handle.jobs(host="node-17", status="completed")] == [5]
    [group, other] = handle.failures()
    assert (group.n, group.cause.message, other.n) == (2, "unlucky #", 1)
    assert group.digest is not None
    for called in (group, group.digest.hex(), group.digest.hex()[:8], "1"):
        assert [row.id for row in handle.jobs(group=called)] == [1, 2]
    assert [a.id for a, _ in zip(handle.jobs(), handle.jobs(), strict=True)] == [1, 2, 3, 4, 5, 6, 7]


def test_it_streams_results(handle: Handle) -> None:
    """As an executor does; meanwhile it can be asked for more."""
    rows = handle.results(all=True, on_error="return", columns=["host"])
    assert next(rows)["status"] == "failed"
    assert handle.status().percent == 71
    assert [row["job_id"] for row in rows] == [2, 3, 4, 5]
    assert list(handle.results()) == [{"job_id": 5, "status": "completed", "n": 5, "done": 5}]


def test_it_retries_what_is_chosen(handle: Handle) -> None:
    """A group, what was cancelled, ids; what runs, waits or has completed is left alone."""
    assert handle.retry(group=handle.failures()[0]) == 2
    assert statuses(handle) == ["waiting", "waiting", *BEFORE[2:]]
    assert handle.retry([3, 5, 6, 99]) == 1
    assert handle.retry(status="cancelled") == 1
    assert statuses(handle) == ["waiting"] * 4 + BEFORE[4:]
    assert handle.retry() == 0


def test_it_cancels_what_is_chosen(handle: Handle) -> None:
    """Ids, a status, all that is open; then nothing is."""
    assert handle.cancel([1, 7]) == 1
    assert handle.cancel(status="waiting") == 0
    assert handle.cancel() == 1
    assert statuses(handle)[4:] == ["completed", "cancelled", "cancelled"]
    assert handle.wait().jobs.open == 0


def test_it_pauses_and_resumes(handle: Handle) -> None:
    """The status says by whom and why, and what to do."""
    assert handle.pause("the disk is full")
    assert not handle.pause()
    status = handle.status()
    assert status.paused is not None
    assert status.paused.endswith("the disk is full")
    assert status.sentence.startswith("Paused by ")
    assert status.advice == "workerbee resume study"
    assert handle.resume()
    assert not handle.resume()
    assert handle.status().paused is None


def test_it_waits_for_the_end(handle: Handle, study: Hive) -> None:
    """Or for so long; with ``fail_fast`` no longer than until something has failed."""
    with pytest.raises(TimeoutError, match="2 jobs of study are still open"):
        handle.wait(0.01)
    assert handle.wait(fail_fast=True).jobs.open == 2
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(handle.wait, 60)
        study.client.cancel_running([(6, 1), (7, 1)])
        assert waiting.result().jobs.cancelled == 3


def test_it_drops(handle: Handle, shared: Database) -> None:
    """All verbs then say that it is gone, and another can't be opened."""
    jobs = handle.jobs()
    assert handle.drop()
    for verb in (handle.status, lambda: list(jobs), handle.failures, handle.retry, lambda: list(handle.results())):
        with pytest.raises(JobsetNotFoundError, match="was dropped while it was in use"):
            verb()
    with pytest.raises(JobsetNotFoundError):
        workerbee.open("study", dsn=shared.dsn)


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        (lambda h: h.jobs(status="done"), "no job has the status done; there are waiting"),
        (lambda h: h.retry(status="running"), "a status here is failed, cancelled, not running"),
        (lambda h: h.cancel(status="failed"), "a status here is waiting, retrying, running, not failed"),
        (lambda h: h.jobs(group="first"), "there are 2 groups of failures now, and none of them is 'first'"),
        (lambda h: h.retry(group="9"), "there are 2 groups of failures now, and none of them is '9'"),
        (lambda h: h.results(columns=["hosts"]), "columns has 'hosts'; there are"),
        (lambda h: h.results(on_error="raise"), "on_error must be"),
    ],
)
def test_mistakes_are_raised_where_they_are_made(handle: Handle, verb: object, said: str) -> None:
    """Also by what gives an iterator; nothing is changed."""
    with pytest.raises(ValueError, match=said):
        verb(handle)  # type: ignore[operator]
    assert statuses(handle) == BEFORE


def test_an_unknown_jobset_is_named_with_the_nearest(shared: Database, database: Database, study: Hive) -> None:
    """And what is no server, or no place of Workerbee's, says what it is; nothing is made."""
    for wrong in ("studie", "Study"):
        with pytest.raises(JobsetNotFoundError, match="did you mean 'study'"):
            workerbee.open(wrong, dsn=shared.dsn)
    with pytest.raises(UnsupportedDatabaseError, match="no jobset was ever made"):
        workerbee.open("study", dsn=database.dsn)
    assert database.execute("SELECT count(*) FROM pg_namespace WHERE nspname = 'workerbee'") == [(0,)]
    with pytest.raises(DatabaseUnavailableError):
        workerbee.open("study", dsn="host=127.0.0.1 port=1", reconnect_timeout=0)


def test_a_handle_is_one_connection_and_no_thread(handle: Handle, shared: Database) -> None:
    """It says what it is, and what to do where it can't be used."""
    before = threading.active_count()
    handle.status()
    handle.failures()
    assert threading.active_count() == before
    [(n,)] = shared.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'workerbee handle' AND datname = %s",
        shared.execute("SELECT current_database()")[0][0],
    )
    assert n == 1
    assert repr(handle).startswith("<the jobset study on PostgreSQL at ")
    with pytest.raises(TypeError, match="inside a job, open another one"):
        pickle.dumps(handle)
    handle.close()
    with pytest.raises(RuntimeError, match="is closed"):
        handle.status()


def test_an_executor_has_the_verbs(shared: Database) -> None:
    """It can be paused, resumed and dropped; what waits then ends with an error that says so."""
    with WorkerbeeExecutor(0, jobset_id="verbs", dsn=shared.dsn) as executor:
        future = executor.submit(abs, -1)
        executor.flush()
        assert executor.status().sentence.startswith("Nobody works on it")
        assert [row.status for row in executor.jobs()] == ["waiting"]
        assert executor.pause("lunch")
        assert executor.status().advice == "workerbee resume verbs"
        assert executor.resume()
        assert executor.failures() == []
        assert executor.drop()
        with pytest.raises(BrokenWorkerbeeError, match="was dropped"):
            future.result(60)
    with pytest.raises(JobsetNotFoundError):
        executor.status()


def test_a_jobset_has_the_verbs(shared: Database) -> None:
    """Of the script that sets it up; results too, which nobody has signed."""
    jobset = JobSet("sums", **at(shared))
    with pytest.raises(JobsetNotFoundError):
        jobset.status()
    jobset.setup_jobset()
    jobset.add_jobs([{"n": n} for n in range(3)])
    assert jobset.cancel([3]) == 1
    jobset.run(lambda job: job["n"] + 1)
    assert [(row["n"], row["result"]) for row in jobset.results()] == [(0, 1), (1, 2)]
    assert jobset.retry(status="cancelled") == 1
    assert jobset.status().jobs.waiting == 1
    assert jobset.drop()
    jobset.close()
