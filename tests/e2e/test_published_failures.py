"""Failures that other systems have published, each as a test that it doesn't happen here.

Most are driven verb by verb on a real PostgreSQL, with two connections where two processes met.
"""

from __future__ import annotations

import itertools
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import pytest
from psycopg2 import extensions

from tests import poison
from tests.bees import Bee
from tests.servers import Database
from tests.store.hive import ANY, Hive, Puppet, ids_of, new_job, success
from tests.waiting import eventually
from workerbee import JobSet, WorkerbeeExecutor
from workerbee.errors import DatabaseUnavailableError, JobsetIdError, RemoteError, RunnerDiedError
from workerbee.store import ClientStore, Connection, Scope, retrying
from workerbee.wire.job import Options


@pytest.fixture
def hive(connect: Callable[[], Connection]) -> Hive:
    """A new jobset."""
    return Hive(connect())


@pytest.fixture
def executor(database: Database) -> Iterator[WorkerbeeExecutor]:
    """An executor with a local bee of one runner."""
    with WorkerbeeExecutor(1, dsn=database.dsn) as executor:
        yield executor


def recorded(hive: Hive, job: int) -> list[tuple[Any, ...]]:
    """The outcome as it stands in the table, and where: any rewriting of the row changes it."""
    return hive.run("SELECT o.*::text, ctid::text, xmin::text FROM {outcome} o WHERE job = %(job)s", job=job)


def all_claimed(bee: Puppet, n: int) -> list[int]:
    """What a bee gets that claims ``n`` at a time until nothing is left."""
    claims = iter(lambda: [i for batch in bee.claim(n, n, ANY) for i in ids_of(batch)], [])
    return list(itertools.chain.from_iterable(claims))


# River


def test_work_of_a_bee_that_died_long_ago_is_put_back(hive: Hive) -> None:
    """River 1258: thousands of jobs stood as running for up to 91 days after their worker had gone."""
    jobs = hive.add(5)
    gone, other = hive.bee("a"), hive.bee("b")
    hive.age(gone.take(5), 91 * 86400)
    gone.lapse()
    hive.catalogue.sweep()
    other.save()
    assert sorted(all_claimed(other, 10)) == jobs


def test_a_rescue_that_read_before_a_completion_undoes_nothing(hive: Hive, connect: Callable[[], Connection]) -> None:
    """River 1302, 1373: the rescuer wrote a completed job back to available, from what it had read before."""
    [job] = hive.add()
    slow, rescuer = hive.bee("a"), hive.bee("b", connect())
    batch = slow.take()
    slow.lapse()
    rescuer.connection.run("BEGIN")
    assert rescuer.save() == [str(slow.incarnation)]
    slow.succeed(batch, close=False)
    outcome = recorded(hive, job)
    rescuer.connection.run("COMMIT")
    assert all_claimed(rescuer, 1) == []
    assert recorded(hive, job) == outcome
    assert hive.status(job) == "completed"


def test_what_can_not_be_rescued_hides_nothing_behind_it(hive: Hive) -> None:
    """River 1318: a full page of jobs that were not to be rescued kept the rescuer from all later ones."""
    hive.add(60)
    [lost] = hive.add(priority=-1)
    alive, gone, other = hive.bee("a"), hive.bee("b"), hive.bee("c")
    for _ in range(60):
        hive.age(alive.take(), 3600)
    assert ids_of(gone.take()) == [lost]
    gone.lapse()
    assert other.save() == [str(gone.incarnation)]


def test_a_bee_puts_back_jobs_that_it_could_not_run(hive: Hive) -> None:
    """River 1105: maintenance discarded jobs of a kind that the worker doing it didn't know."""
    job = 1
    hive.client.add([new_job(job, function=7)])
    gone, stranger, other = hive.bee("a"), hive.bee("b"), hive.bee("c")
    gone.take()
    gone.lapse()
    assert stranger.save() == [str(gone.incarnation)]
    assert stranger.claim(1, 1, Scope(refused=(7,))) == []
    assert ids_of(other.take()) == [job]


def test_a_job_without_a_timeout_is_left_to_its_living_bee(hive: Hive) -> None:
    """River 1287, 1331: jobs that may take for ever were rescued while they ran."""
    hive.add()
    patient, other = hive.bee("a"), hive.bee("b")
    hive.age(patient.take(), 30 * 86400)
    assert other.save() == []
    assert all_claimed(other, 1) == []


def test_a_job_that_is_deleted_while_it_runs_spoils_no_others_result(hive: Hive) -> None:
    """River 1308: one job deleted by hand broke the completion of the whole batch."""
    deleted, cancelled, other = hive.add(3)
    bee = hive.bee()
    batch = bee.take(3)
    hive.run("DELETE FROM {job} WHERE id = %(job)s", job=deleted)
    hive.client.cancel_running([(cancelled, 1)])
    bee.succeed(batch)
    assert [hive.outcome(job) for job in (cancelled, other)] == ["cancelled", "completed"]
    assert hive.held() == []


def test_a_call_that_can_not_be_read_fails_once(executor: WorkerbeeExecutor, database: Database) -> None:
    """River 1324: a job that couldn't be parsed was fetched again and again for ever."""

    class Unreadable:
        def __reduce__(self) -> tuple[Any, ...]:
            return divmod, (1, 0)

    assert isinstance(executor.submit(poison.neighbour, Unreadable()).exception(60), ZeroDivisionError)
    assert executor.submit(poison.neighbour, 1).result(60) == 1
    assert executor.progress().failed == 1


# procrastinate, Oban


def test_the_work_of_a_bee_whose_row_is_gone_is_put_back(hive: Hive) -> None:
    """Procrastinate 1518, first part: once a worker's row was pruned, nobody could see its jobs."""
    [job] = hive.add()
    gone, other = hive.bee("a"), hive.bee("b")
    gone.take()
    hive.catalogue.leave(gone.incarnation)
    assert other.save() == [str(gone.incarnation)]
    assert ids_of(other.take()) == [job]


def test_a_bee_that_comes_back_under_its_name_does_not_own_what_it_had(hive: Hive) -> None:
    """Procrastinate 1518, second part, and Oban 862: a restarted worker's heartbeat kept its orphans alive."""
    [job] = hive.add()
    gone, other = hive.bee("same host"), hive.bee("b")
    batch = gone.take()
    gone.lapse()
    restarted = hive.bee("same host")
    restarted.beat()
    assert restarted.start(batch, 1) == (0, [])
    assert other.save() == [str(gone.incarnation)]
    assert ids_of(other.take()) == [job]


# awa


def test_a_stale_list_of_candidates_brings_no_second_claim(hive: Hive, connect: Callable[[], Connection]) -> None:
    """Awa 134: a claim took candidates from a snapshot in which they were still free."""
    jobs = [hive.add()[0] for _ in range(60)]
    bees = [hive.bee(name, connect()) for name in "abcd"]
    with ThreadPoolExecutor(4) as threads:
        claimed = [job for got in threads.map(lambda bee: all_claimed(bee, 1), bees) for job in got]
    assert sorted(claimed) == jobs


def test_of_two_callers_only_one_has_won(hive: Hive, connect: Callable[[], Connection]) -> None:
    """Awa 132: both of two racing callers were told that theirs was the change."""
    cancelled, reopened, done = hive.add(3)
    here, there = hive.client, ClientStore(connect(), hive.jobset, hive.bee().incarnation)
    first = hive.bee("a")
    batch = first.take(3, start=0)
    assert [c.cancel_waiting([(cancelled, 1)]) for c in (here, there)] == [{cancelled}, set()]
    assert first.miss(batch, reopened, attempts=1) == "failed"
    assert [c.reopen([(reopened, 1)], Options()) for c in (here, there)] == [1, 0]
    first.succeed(batch, done, close=False)
    hive.bee("b").complete([success(done)], [], hint=None)
    counts = hive.catalogue.counts(hive.jobset.number)
    assert (counts.completed, counts.late) == (1, 1)


# good_job


def test_a_cut_connection_is_no_loss_of_work(hive: Hive, connect: Callable[[], Connection]) -> None:
    """GoodJob 90: a restart of the database dropped the locks, and running jobs were run again."""
    hive.add()
    cut, other = hive.bee("a", connect()), hive.bee("b")
    batch = cut.take()
    cut.beat()
    hive.run("SELECT pg_terminate_backend(%(pid)s)", pid=cut.connection.backend)
    next_beat = "UPDATE {bee} SET seen_at = now() + %(due)s::interval WHERE incarnation = %(bee)s"
    hive.run(next_beat, due="1 second", bee=str(cut.incarnation))
    assert other.save() == []
    with pytest.raises((psycopg2.Error, DatabaseUnavailableError)):
        cut.beat()
    cut.connection.drop()
    cut.beat()
    assert cut.held_claims() == {batch.id: (batch.claim, ids_of(batch))}
    assert all_claimed(other, 1) == []


def test_an_outage_is_waited_out_calmly(caplog: pytest.LogCaptureFixture) -> None:
    """GoodJob 296: while the database was down, the worker tried again in a hot loop."""
    pauses: list[float] = []

    def down() -> None:
        raise DatabaseUnavailableError("no")

    def pause(seconds: float) -> bool:
        pauses.append(seconds)
        return len(pauses) < 100

    with pytest.raises(DatabaseUnavailableError):
        retrying(down, patience=None, pause=pause, log=logging.getLogger("outage"))
    assert len(caplog.records) == 1
    assert all(1 <= pause <= 2 for pause in pauses[5:])
    assert min(pauses[10:]) >= 0.5
    assert max(pauses) < 2
    assert len(set(pauses)) == 100


# Oban, SAQ


def test_every_part_recovers_from_a_blip_of_the_database(executor: WorkerbeeExecutor, database: Database) -> None:
    """Oban 821, 769, SAQ 162 and MAS 2625: after one lost connection no more jobs were run."""
    for n in range(3):
        assert executor.submit(poison.neighbour, n).result(60) == n
        database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    assert executor.submit(poison.neighbour, 3).result(60) == 3


def test_a_session_that_lingers_holds_up_nothing_but_its_own(hive: Hive, connect: Callable[[], Connection]) -> None:
    """Oban 493: a lock that a forgotten transaction held left all jobs available and none taken."""
    first, second = hive.add()[0], hive.add()[0]
    lingering, other = hive.bee("a", connect()), hive.bee("b")
    lingering.connection.run("BEGIN")
    assert ids_of(lingering.take()) == [first]
    assert all_claimed(other, 10) == [second]
    lingering.connection.drop()
    eventually(lambda: all_claimed(other, 10) == [first])


# graphile-worker, pgqueuer


def test_a_claim_is_over_with_its_lease(hive: Hive) -> None:
    """Graphile-worker 204, 222: what a crashed worker had locked stayed locked for four hours."""
    [job] = hive.add()
    crashed, other = hive.bee("a"), hive.bee("b")
    crashed.take()
    assert other.save() == []
    crashed.lapse()
    other.save()
    assert ids_of(other.take()) == [job]


def test_what_a_killed_bee_had_only_picked_is_put_back(hive: Hive) -> None:
    """Pgqueuer 475: jobs that had been picked and not begun were orphaned by a kill."""
    jobs = hive.add(10)
    killed, other = hive.bee("a"), hive.bee("b")
    killed.take(10, start=2)
    killed.lapse()
    other.save()
    assert sorted(map(sorted, hive.waiting())) == [jobs[:1], jobs[1:2], jobs[2:]]
    assert [hive.attempts(job) for job in jobs] == [["lost"]] * 2 + [[]] * 8


def test_a_stopped_bee_leaves_nothing_picked(database: Database, tmp_path: Path) -> None:
    """Pgqueuer 630: SIGTERM left jobs picked, which went on to count against the limit."""
    started = tmp_path / "started"

    def job(n: int) -> None:
        started.touch()
        time.sleep(1000)

    executor = WorkerbeeExecutor(0, dsn=database.dsn)
    with Bee(database.dsn) as bee:
        futures = [executor.submit(job, n) for n in range(50)]
        eventually(started.exists)
        bee.terminate()
        bee.says("nothing more")
        bee.terminate()
        assert bee.wait() == 0
    waiting = 'SELECT sum(cardinality(jobs))::integer, count(claim) FROM workerbee."batch$"'
    assert database.execute(waiting) == [(50, 0)]
    assert executor.cancel_running() == len(futures)
    executor.shutdown()


def test_a_claim_never_exceeds_its_limit(hive: Hive, connect: Callable[[], Connection]) -> None:
    """Pgqueuer 761, 774: where rows were locked by others, the limit slid on and more were taken."""
    jobs = [job for _ in range(30) for job in hive.add(2)]
    bees = [hive.bee(name, connect()) for name in "abcd"]

    def sizes(bee: Puppet) -> list[int]:
        return list(iter(lambda: sum(len(ids_of(batch)) for batch in bee.claim(3, 3, ANY)), 0))

    with ThreadPoolExecutor(4) as threads:
        claims = [size for got in threads.map(sizes, bees) for size in got]
    assert max(claims) == 3
    assert sum(claims) == len(jobs)


# Payload, dask, Parsl


def test_an_error_that_can_not_be_shown_is_still_the_jobs_own(executor: WorkerbeeExecutor) -> None:
    """Payload 17645: the handler of a job's error crashed the worker, and the job was stranded."""

    class Hideous(Exception):  # noqa: N818
        def __str__(self) -> str:
            raise RuntimeError("not even this")

        def __reduce__(self) -> tuple[Any, ...]:
            raise RuntimeError("nor that")

    def job() -> None:
        raise Hideous

    assert type(executor.submit(job).exception(60)).__name__ == "Hideous"
    assert executor.submit(poison.neighbour, 1).result(60) == 1


def test_a_job_that_exits_fails_and_nothing_hangs(executor: WorkerbeeExecutor) -> None:
    """Dask 301: sys.exit in a job left the client waiting for ever."""
    error = executor.submit(sys.exit, 3).exception(60)
    assert isinstance(error, RemoteError)
    assert error.type_name == "SystemExit"
    assert executor.submit(poison.neighbour, 1).result(60) == 1


@pytest.mark.parametrize("job", [poison.exit_at_once, poison.devour])
def test_a_job_that_kills_its_workers_leaves_no_future_hanging(
    executor: WorkerbeeExecutor, job: Callable[[], None]
) -> None:
    """Dask 3196 and 4001: after KilledWorker the scheduler deadlocked; tasks lost to memory never ended."""
    killing = executor.submit(job)
    others = [executor.submit(poison.neighbour, n) for n in range(5)]
    assert isinstance(killing.exception(60), RunnerDiedError)
    assert [f.result(60) for f in others] == list(range(5))


def test_a_failure_after_anothers_success_changes_nothing(hive: Hive) -> None:
    """Dask 6689: a success on one worker and then a failure from another corrupted the task's state."""
    [job] = hive.add()
    slow, quick = hive.bee("a"), hive.bee("b")
    batch = slow.take()
    slow.release_unknown(())  # as after a cut connection, by which the claim's answer didn't come
    quick.succeed(quick.take(), close=False)
    outcome = recorded(hive, job)
    assert slow.miss(batch, kind="error", attempts=1) == "ignored"
    assert recorded(hive, job) == outcome
    assert hive.status(job) == "completed"


def test_a_job_whose_worker_is_killed_from_outside_still_ends(executor: WorkerbeeExecutor, tmp_path: Path) -> None:
    """Parsl 1245: a worker died in the middle of a task, and its future never ended."""
    pid = tmp_path / "pid"

    def job() -> str:
        if not pid.exists():
            pid.write_text(str(os.getpid()))
            time.sleep(1000)
        return "done"

    future = executor.submit(job)
    eventually(lambda: pid.exists() and pid.read_text())
    psutil.Process(int(pid.read_text())).kill()
    assert future.result(60) == "done"


def test_all_results_are_gathered_though_a_bee_dies(database: Database, tmp_path: Path) -> None:
    """Dask 1110: gather never returned when one of the workers had died."""

    def job(n: int) -> int:
        (tmp_path / str(n)).touch()
        time.sleep(0.05)
        return n

    with WorkerbeeExecutor(0, dsn=database.dsn) as executor, Bee(database.dsn) as dying:
        futures = [executor.submit(job, n) for n in range(40)]
        eventually(lambda: len(list(tmp_path.iterdir())) >= 5)
        dying.kill()
        with Bee(database.dsn):
            assert [f.result(60) for f in futures] == list(range(40))


# Celery, and readers by a cursor


def test_a_long_job_is_not_delivered_again(hive: Hive) -> None:
    """Celery on Redis or SQS: a job longer than the visibility timeout was delivered again and again."""
    hive.add()
    busy, other = hive.bee("a"), hive.bee("b")
    batch = busy.take()
    for _ in range(3):
        hive.age(batch, 3600)
        busy.beat(lease=1.0)
        assert other.save() == []
        assert all_claimed(other, 1) == []
    assert busy.held_claims() == {batch.id: (batch.claim, ids_of(batch))}


def test_a_reader_misses_no_commit_that_comes_late(hive: Hive, connect: Callable[[], Connection]) -> None:
    """Readers of an outbox by its sequence: what commits after a higher number was read is never seen."""
    early, late = hive.bee("a", connect()), hive.bee("b")
    slow_client = ClientStore(connect(), hive.jobset, early.incarnation)
    first, second = 1, 2
    slow_client.connection.run("BEGIN")
    slow_client.add([new_job(first)])
    hive.client.add([new_job(second)])
    later = late.take()
    assert ids_of(later) == [second]
    slow_client.connection.run("COMMIT")
    earlier = early.take()
    assert ids_of(earlier) == [first]
    early.connection.run("BEGIN")
    early.succeed(earlier)
    late.succeed(later)
    assert [end.job for ends in hive.client.finished([first, second]) for end in ends] == [second]
    early.connection.run("COMMIT")
    assert sorted(end.job for ends in hive.client.finished([first, second]) for end in ends) == [first, second]


# The ancestor


def test_two_bees_never_get_one_job(hive: Hive, connect: Callable[[], Connection]) -> None:
    """Workerbee 2.0.0rc1: it selected a job and then marked it, so that two bees could take the same."""
    bees = [hive.bee("a", connect()), hive.bee("b", connect())]
    with ThreadPoolExecutor(2) as threads:
        for _ in range(20):
            [job] = hive.add()
            claims = threads.map(lambda bee: bee.claim(1, 1, ANY), bees)
            assert [i for batches in claims for batch in batches for i in ids_of(batch)] == [job]


def test_a_second_completion_overwrites_nothing(hive: Hive) -> None:
    """Workerbee 2.0.0rc1: its UPDATE by id let a late duplicate replace the result."""
    [job] = hive.add()
    slow, quick = hive.bee("a"), hive.bee("b")
    batch = slow.take()
    slow.lapse()
    quick.save()
    quick.succeed(quick.take())
    outcome = recorded(hive, job)
    other = success(job)._replace(data=b'"another result"')
    slow.complete([other], [batch], hint=None)
    assert recorded(hive, job) == outcome


def test_an_exception_that_nobody_expected_ends_no_bee(executor: WorkerbeeExecutor, database: Database) -> None:
    """Workerbee 2.0.0rc1: any exception but JobFailedError ended the worker."""
    bees = 'SELECT pid FROM workerbee."bee$"'
    pids = [executor.submit(os.getppid).result(60)]
    assert isinstance(executor.submit(divmod, 1, 0).exception(60), ZeroDivisionError)
    pids += [executor.submit(os.getppid).result(60)]
    assert [(pid,) for pid in pids] == database.execute(bees) * 2


@pytest.mark.parametrize(
    "name", ["", 'x"; DROP SCHEMA workerbee CASCADE; --', "a'b", "a b", "A", "ä", "a\0", "a-b", "a" * 49, "%s", "$1"]
)
def test_no_name_of_a_jobset_becomes_sql(shared: Database, name: str) -> None:
    """Workerbee 2.0.0rc1: the table's name was put into the queries with str.format."""
    with pytest.raises(JobsetIdError):
        WorkerbeeExecutor(0, dsn=shared.dsn, jobset_id=name)


def test_no_log_says_anything_of_a_password(shared: Database, caplog: pytest.LogCaptureFixture) -> None:
    """Workerbee 2.0.0rc1: a line of its log gave the password's length and its last two characters."""
    at = extensions.parse_dsn(shared.dsn)
    secret = "Xq7zzKKw"
    with caplog.at_level(logging.DEBUG, "workerbee"):
        jobset = JobSet("secretive", at["host"], at["port"], at["user"], secret, at["dbname"])
        jobset.setup_jobset(ignore_existing_jobset=True)
        said = caplog.text + repr(jobset)
        jobset.close()
    assert "secretive" in said
    for hint in (secret, secret[-2:], "password", "*" * 3):
        assert hint not in said
