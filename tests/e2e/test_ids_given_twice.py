"""A failover or a restore that lacks the last commits sets the ids back: what was given out is given out again."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from operator import truediv

import psycopg2.extensions
import pytest

from tests.servers import Database
from tests.waiting import eventually
from workerbee import JobSet, WorkerbeeExecutor


def set_back(database: Database, jobset_id: str, to: int) -> None:
    database.execute('UPDATE workerbee."jobset$" SET next_id = %s WHERE id = %s RETURNING number', to, jobset_id)


def waiting_flushers(database: Database) -> list[tuple[object, ...]]:
    return database.execute(
        "SELECT FROM pg_stat_activity WHERE application_name = 'workerbee flusher' AND wait_event_type = 'Lock'"
    )


def looking_watchers(database: Database) -> list[tuple[object, ...]]:
    return database.execute(
        "SELECT pid, query_start FROM pg_stat_activity WHERE application_name = 'workerbee watcher'"
    )


@pytest.fixture
def executors(database: Database) -> Iterator[tuple[WorkerbeeExecutor, WorkerbeeExecutor]]:
    """Two clients of one jobset; both know some ids that they may give."""
    with (
        WorkerbeeExecutor(1, jobset_id="failed_over", dsn=database.dsn) as one,
        WorkerbeeExecutor(0, jobset_id="failed_over", dsn=database.dsn) as other,
    ):
        assert one.submit(pow, 7, 1).result(60) == 7  # has the ids from 1
        set_back(database, "failed_over", 2)
        assert other.submit(pow, 8, 1).result(60) == 8  # has those from 2
        yield one, other


@pytest.mark.parametrize("unique", [True, False], ids=["remembered", "each by itself"])
def test_no_other_calls_results(
    executors: tuple[WorkerbeeExecutor, WorkerbeeExecutor], caplog: pytest.LogCaptureFixture, unique: bool
) -> None:
    """Whoever comes second takes new ids, and says so; each call has its own result."""
    one, other = (executor.with_options(unique=unique) for executor in executors)
    with caplog.at_level(logging.WARNING, "workerbee"):
        first = [other.submit(pow, n, 2) for n in range(10, 30)]
        assert [future.result(60) for future in first] == [n**2 for n in range(10, 30)]
        second = [one.submit(pow, n, 2) for n in range(1000, 1020)]
        assert [future.result(60) for future in second] == [n**2 for n in range(1000, 1020)]
    assert "given out twice" in caplog.text


def test_a_call_that_is_there_under_another_id(
    executors: tuple[WorkerbeeExecutor, WorkerbeeExecutor], database: Database
) -> None:
    """While a failed call is about to be run again, the id that it would have had says nothing, though it has ended."""
    one, other = executors
    assert [other.submit(pow, n, 2).result(60) for n in range(10, 13)] == [100, 121, 144]  # the next ids of both
    assert isinstance(other.submit(truediv, 1, 0).exception(60), ZeroDivisionError)
    [(number,)] = database.execute('SELECT number FROM workerbee."jobset$"')
    looks: set[object] = set()

    def has_looked() -> bool:
        """Tell whether clients have looked for results since it waits to be opened again."""
        looks.update(
            database.execute(
                "SELECT w.query_start FROM pg_stat_activity w, pg_stat_activity f"
                " WHERE w.application_name = 'workerbee watcher' AND w.query_start > f.query_start"
                " AND f.application_name = 'workerbee flusher' AND f.wait_event_type = 'Lock'"
            )
        )
        return len(looks) >= 8 or future.done()

    with closing(database.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(f'BEGIN; LOCK TABLE workerbee."run${number}" IN SHARE MODE')  # nothing is opened again
        future = one.submit(truediv, 1, 0)
        eventually(has_looked)
        assert not future.done()
        cursor.execute("COMMIT")
    assert isinstance(future.exception(60), ZeroDivisionError)


def test_a_call_that_is_lost_while_others_are_stored_is_one_job(database: Database) -> None:
    """Until all calls of one go are stored, the next try would store it again: it is not given up before."""
    executor = WorkerbeeExecutor(0, jobset_id="failed_over", dsn=database.dsn)
    try:
        with closing(database.connect()) as one, closing(database.connect()) as two, closing(database.connect()) as we:
            cancelled = [executor.submit(pow, n, 1) for n in (7, 8)]
            executor.flush()
            assert all(future.cancel() for future in cancelled)
            [(number,)] = database.execute('SELECT number FROM workerbee."jobset$"')
            job, run = (f'workerbee."{table}${number}"' for table in ("job", "run"))
            for connection, future in zip((one, two), cancelled, strict=True):  # they can't be opened again
                connection.cursor().execute(f"BEGIN; INSERT INTO {run} (job, run) VALUES ({future.job}, 2)")
            again = [executor.submit(pow, 7, 1)]
            eventually(lambda: waiting_flushers(database))
            lost = executor.submit(pow, 9, 1)
            again.append(executor.submit(pow, 8, 1))  # which goes together with the one before
            one.cursor().execute("ROLLBACK")
            eventually(lambda: database.execute(f"SELECT FROM {job} HAVING count(*) = 3"))
            eventually(lambda: waiting_flushers(database))
            we.cursor().execute(f"BEGIN; LOCK TABLE {job} IN SHARE ROW EXCLUSIVE MODE")  # it can't be stored anew
            we.cursor().execute(f"DELETE FROM {job} WHERE id = {lost.job}")
            we.cursor().execute(f'DELETE FROM workerbee."batch$" WHERE jobs[1] = {lost.job}')
            we.cursor().execute(f"COMMIT; BEGIN; LOCK TABLE {job} IN SHARE MODE")
            database.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name IN ('workerbee watcher', 'workerbee flusher')"
            )
            looks: set[tuple[object, ...]] = set()
            eventually(lambda: looks.update(looking_watchers(database)) or len(looks) >= 8 or lost.done())
            assert not lost.done()
            we.cursor().execute("COMMIT")
            two.cursor().execute("ROLLBACK")
            with WorkerbeeExecutor(1, jobset_id="failed_over", dsn=database.dsn):
                assert [future.result(60) for future in (lost, *again)] == [9, 7, 8]
            assert database.execute("SELECT count(*) FROM workerbee.failed_over") == [(3,)]
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def test_cancelling_after_a_failover_leaves_others_jobs_alone(database: Database) -> None:
    """A client whose job was lost cancels it, and its id is another's by now."""
    one, other = (WorkerbeeExecutor(0, jobset_id="failed_over", dsn=database.dsn) for _ in range(2))
    try:
        lost = one.submit(pow, 7, 1)
        one.flush()
        [(number,)] = database.execute('SELECT number FROM workerbee."jobset$"')
        database.execute(f'DELETE FROM workerbee."job${number}"; DELETE FROM workerbee."batch$"')
        set_back(database, "failed_over", 1)
        another = other.submit(pow, 8, 1)
        other.flush()
        assert another.job == lost.job
        one._client._desk.connection.lineage.successions += 1
        lost.cancel()
        assert database.execute("SELECT status::text FROM workerbee.failed_over") == [("waiting",)]
    finally:
        for executor in (one, other):
            executor.shutdown(wait=False, cancel_futures=True)


def test_the_same_call_by_itself_is_not_somebody_elses(
    executors: tuple[WorkerbeeExecutor, WorkerbeeExecutor], database: Database
) -> None:
    """Equal calls that aren't remembered have equal signatures under equal ids, and are two jobs all the same."""
    one, other = (executor.with_options(unique=False) for executor in executors)
    [one.submit(pow, 3, 3).result(60) for _ in range(2)]
    [other.submit(pow, 3, 3).result(60) for _ in range(3)]
    assert database.execute("SELECT count(*) FROM workerbee.failed_over") == [(7,)]
    [(last,)] = database.execute("SELECT max(id)::int FROM workerbee.failed_over")
    set_back(database, "failed_over", last)  # so that the first id of a third client is that of such a call
    with WorkerbeeExecutor(0, jobset_id="failed_over", dsn=database.dsn) as third:
        assert third.with_options(unique=False).submit(pow, 3, 3).result(60) == 27
    assert database.execute("SELECT count(*) FROM workerbee.failed_over") == [(8,)]


def test_an_id_that_nobody_was_given_takes_none_of_the_others(
    executors: tuple[WorkerbeeExecutor, WorkerbeeExecutor], database: Database
) -> None:
    """A hostile row has the last id that there can be; the next ones go on from ours."""
    one, _ = executors
    [(number,)] = database.execute('SELECT number FROM workerbee."jobset$"')
    database.execute(
        f"""INSERT INTO workerbee."job${number}" (id, function, codec, input) VALUES ({2**63 - 1}, 0, 'json', '{{}}')"""
    )
    futures = [one.submit(pow, n, 2) for n in range(10)]
    assert [future.result(60) for future in futures] == [n**2 for n in range(10)]
    assert max(future.job for future in futures) < 1000  # type: ignore[attr-defined]


def test_add_jobs_takes_new_ids(database: Database) -> None:
    """All are stored, or it is said which input is there already."""
    with closing(JobSet("failed_over", **psycopg2.extensions.parse_dsn(database.dsn))) as jobset:
        jobset.setup_jobset()
        jobset.add_jobs([{"n": n} for n in range(5)])
        set_back(database, "failed_over", 2)
        jobset.add_jobs([{"n": n} for n in range(5, 8)])
        assert database.execute("SELECT id, input_data->>'n' FROM workerbee.failed_over ORDER BY id") == [
            (n + 1, str(n)) for n in range(8)
        ]
