"""Whatever dies, every future ends with a named error or goes on."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import BrokenExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from tests.contract import jobs
from tests.contract.conftest import OURS, Gate, Make, maker, new_id
from tests.servers import Database
from tests.waiting import eventually
from workerbee import WorkerbeeExecutor
from workerbee.errors import DatabaseUnavailableError, FunctionUnavailable, JobsetNotFoundError, RunnerDiedError


@pytest.mark.parametrize("kind", ["processes", *OURS])
def test_a_job_that_kills_its_worker_fails(make: Make, tmp_path: Path) -> None:
    """With a BrokenProcessPool, whatever else becomes of the executor."""
    executor = make(1)
    with pytest.raises(BrokenProcessPool):
        executor.submit(jobs.die, str(tmp_path / "deaths"), 100).result()


@pytest.mark.parametrize("kind", OURS)
def test_three_deaths_are_the_jobs_fault(make: Make, tmp_path: Path) -> None:
    """Agreed difference: the error says what happened, the executor goes on, and no neighbour is blamed."""
    executor = make(2)
    path = tmp_path / "deaths"
    deadly = executor.submit(jobs.die, str(path), 100)
    others = [executor.submit(jobs.mul, n, n) for n in range(50)]
    with pytest.raises(RunnerDiedError, match="SIGKILL"):
        deadly.result()
    assert len(jobs.noted(path)) == 3
    assert [future.result() for future in others] == [n * n for n in range(50)]


@pytest.mark.parametrize("kind", OURS)
def test_a_runners_death_is_tried_again(make: Make, tmp_path: Path) -> None:
    """Twice it may be the machine's fault."""
    executor = make(1)
    assert executor.submit(jobs.die, str(tmp_path / "deaths"), 2).result() == 3


@pytest.mark.parametrize("kind", OURS)
def test_a_local_bee_that_dies_is_replaced(make: Make, gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    """Another one takes over its work; what ran runs again."""
    executor = make(1)
    futures = [executor.submit(jobs.hold, gate.path, n) for n in range(3)]
    gate.holds(1)
    os.kill(executor._client._bee.process.pid, signal.SIGKILL)
    eventually(lambda: "another takes its place" in caplog.text)
    gate.open()
    assert [future.result() for future in futures] == [0, 1, 2]


@pytest.mark.parametrize("kind", ["temporary"])
def test_bees_that_die_again_and_again_break_the_executor(make: Make, gate: Gate) -> None:
    """So that nothing waits for ever."""
    executor = make(1)
    future = executor.submit(jobs.hold, gate.path)
    killed: set[int] = set()

    def kill_the_next() -> bool:
        pid = executor._client._bee.process.pid
        if pid not in killed:
            killed.add(pid)
            os.kill(pid, signal.SIGKILL)
        return future.done()

    eventually(kill_the_next)
    with pytest.raises(BrokenExecutor, match="again and again"):
        future.result()
    with pytest.raises(BrokenExecutor):
        executor.submit(jobs.mul, 1, 1)


@pytest.mark.parametrize("kind", ["temporary"])
def test_a_bee_without_the_key_fails_the_calls(make: Make, environment: Path) -> None:
    """It can't run anything, and nobody else will: each call says why."""
    executor = make(1, max_tasks_per_child=1)
    assert executor.submit(jobs.mul, 2, 3).result() == 6
    Path(os.environ["WORKERBEE_KEY_FILE"]).unlink()
    with pytest.raises(FunctionUnavailable, match=r"no key file at .*; copy the one"):
        wait_for_the_first_error(executor)


def wait_for_the_first_error(executor: WorkerbeeExecutor) -> None:
    for n in range(20):  # the runners there are have read the key
        executor.submit(jobs.mul, n, n).result()


@pytest.mark.parametrize("kind", OURS)
def test_a_dropped_jobset_ends_its_futures(kind: str, database: Database, gate: Gate) -> None:
    """The tables are gone: a named error, here and at the next call."""
    executor = maker(kind, database.dsn)(1)
    future = executor.submit(jobs.hold, gate.path)
    gate.holds(1)
    database.execute("DROP SCHEMA workerbee CASCADE")
    gate.open()
    with pytest.raises(BrokenExecutor) as caught:
        future.result()
    assert isinstance(caught.value.__cause__, JobsetNotFoundError)
    with pytest.raises(BrokenExecutor):
        executor.submit(jobs.mul, 1, 1).result()
    executor.shutdown()


@pytest.mark.parametrize("kind", OURS)
def test_a_dropped_database_ends_its_futures(kind: str, database: Database, gate: Gate) -> None:
    """At once, by the server's own word: nobody waits for a database that isn't there to come back."""
    executor = maker(kind, database.dsn)(1)
    futures = [executor.submit(jobs.hold, gate.path, n) for n in range(3)]
    gate.holds(1)
    database.drop()
    for future in futures:
        with pytest.raises(DatabaseUnavailableError, match="does not exist"):
            future.result(30)
    executor.shutdown()


@pytest.mark.parametrize("kind", OURS)
def test_a_cut_connection_is_nothing(make: Make, shared: Database, gate: Gate) -> None:
    """Client and bee connect again, and every result comes."""
    executor = make(2)
    futures = [executor.submit(jobs.hold, gate.path, n) for n in range(20)]
    gate.holds(1)
    shared.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()",
        shared.name,
    )
    gate.open()
    futures += [executor.submit(jobs.mul, n, 1) for n in range(20)]
    assert [future.result() for future in futures] == [*range(20)] * 2


@pytest.mark.parametrize("kind", OURS)
def test_a_database_that_stays_away_ends_the_futures(kind: str, database: Database, gate: Gate) -> None:
    """After ``reconnect_timeout``, with an error that says so."""
    executor = maker(kind, database.dsn)(1, reconnect_timeout=1)
    future = executor.submit(jobs.hold, gate.path)
    gate.holds(1)
    name = database.name
    database.server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    database.server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", name)
    with pytest.raises((ConnectionError, BrokenExecutor)):
        future.result()
    executor.shutdown()
    database.server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


@pytest.mark.parametrize("kind", ["durable"])
@pytest.mark.parametrize("max_workers", [0, 1])
def test_nested_jobs_do_not_wait_for_their_own_runner(make: Make, shared: Database, max_workers: int) -> None:
    """Every runner busy with a job that waits for jobs of its own jobset: its executor brings one along at least."""
    executor = make(2)
    jobset_id = executor._client.jobset.id
    calls = [executor.submit(jobs.nested, shared.dsn, jobset_id, n, max_workers) for n in range(2)]
    assert not wait(calls, timeout=60).not_done
    assert [call.result() for call in calls] == [0, 3]


@pytest.mark.parametrize("kind", ["durable"])
def test_jobs_of_jobs_go_before_others(make: Make, shared: Database) -> None:
    """Or each runner that is brought along would begin another job that brings one. Other jobsets have their own."""
    executor = make(1)
    assert executor.submit(jobs.nest, shared.dsn, executor._client.jobset.id).result() == (1, 1)
    assert executor.submit(jobs.nest, shared.dsn, new_id()).result() == (0, 0)


@pytest.mark.parametrize("kind", OURS)
def test_nobody_to_work_is_said(make: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, with the command that starts a bee."""
    monkeypatch.setattr("workerbee.client.watcher.NO_BEES_SECONDS", 0.1)
    executor = make(0)
    future = executor.submit(time.sleep, 0)
    eventually(lambda: "-m workerbee.bee" in caplog.text, what="the warning")
    assert future.cancel()
