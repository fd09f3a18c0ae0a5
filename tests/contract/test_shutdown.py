"""The end of an executor: by shutdown, by being collected, by the interpreter's exit, in a fork."""

from __future__ import annotations

import gc
import multiprocessing
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, wait
from pathlib import Path
from textwrap import dedent
from typing import Any

import psutil
import pytest

from tests.contract import jobs
from tests.contract.conftest import OURS, Gate, Make, maker, new_id
from tests.servers import Database
from tests.waiting import eventually
from workerbee import WorkerbeeExecutor


def test_shutdown_waits_for_what_is_submitted(make: Make) -> None:
    """All futures are done when it returns."""
    executor = make(2)
    futures = [executor.submit(time.sleep, 0.02) for _ in range(10)]
    executor.shutdown()
    assert all(future.done() and future.exception() is None for future in futures)


def test_after_shutdown_nothing_is_taken(make: Make) -> None:
    """RuntimeError, the same words for all; also in a map."""
    executor = make(1)
    executor.shutdown()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(jobs.mul, 1, 1)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.map(abs, [1])


@pytest.mark.parametrize("kind", ["processes", *OURS])
def test_workers_do_at_their_end_what_jobs_have_left_to_it(make: Make, tmp_path: Path) -> None:
    """What multiprocessing and the interpreter are to do at the exit, and semaphores that have a name on this host."""
    executor = make(1)
    executor.submit(jobs.leave_for_the_exit, str(tmp_path)).result()
    executor.shutdown()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["interpreter", "multiprocessing", "pool"]
    assert not Path("/dev/shm", f"sem.{(tmp_path / 'pool').read_text()}").exists()


@pytest.mark.parametrize("kind", OURS)  # a pool waits for ever
def test_a_thread_that_a_job_has_left_does_not_keep_shutdown(make: Make, gate: Gate) -> None:
    """Nor does what is to be done at the exit, if it takes too long."""
    executor = make(1)
    pid = executor.submit(jobs.leave_a_thread, gate.path).result()
    executor.shutdown()
    assert not psutil.pid_exists(pid)


@pytest.mark.parametrize("kind", ["threads", *OURS])  # only the first call of a process pool's waits
def test_shutdown_can_be_called_again(make: Make) -> None:
    """From any thread, any number of times, in any mixture; who waits comes back when all is done."""
    executor = make(1)
    future = executor.submit(time.sleep, 0.1)
    modes = [{"wait": False}, {}, {"cancel_futures": True}, {"wait": False, "cancel_futures": True}, {}]
    found_done = []

    def shut_down(mode: dict[str, bool]) -> None:
        executor.shutdown(**mode)
        if mode.get("wait", True):
            found_done.append(future.done())

    threads = [threading.Thread(target=shut_down, args=[mode]) for mode in modes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    executor.shutdown()
    assert found_done == [True] * 3


def test_shutdown_without_waiting_lets_work_finish(make: Make, gate: Gate) -> None:
    """Futures that are pending then are done later."""
    executor = make(1)
    futures = [executor.submit(jobs.hold, gate.path, n) for n in range(3)]
    executor.shutdown(wait=False)
    with pytest.raises(RuntimeError):
        executor.submit(jobs.mul, 1, 1)
    gate.open()
    assert [future.result() for future in futures] == [0, 1, 2]


def test_shutdown_cancels_what_has_not_started(make: Make, gate: Gate, tmp_path: Path) -> None:
    """``cancel_futures``: what runs is finished, the rest is cancelled and doesn't run."""
    executor = make(1)
    path = tmp_path / "ran"
    held = executor.submit(jobs.hold, gate.path, 1)
    gate.holds(1)
    futures = [executor.submit(jobs.note, str(path), n) for n in range(20)]
    ending = threading.Thread(target=executor.shutdown, kwargs={"cancel_futures": True})
    ending.start()
    eventually(lambda: sum(future.cancelled() for future in futures) >= 15)
    gate.open()
    ending.join()
    assert held.result() == 1
    assert all(future.done() for future in futures)
    assert len(jobs.noted(path)) == sum(not future.cancelled() for future in futures)


@pytest.mark.parametrize("quick", [abs, jobs.hold], ids=["another function", "the same"])
@pytest.mark.parametrize("one_by_one", [False, True], ids=["at shutdown", "one by one"])
def test_long_jobs_after_quick_ones_can_be_cancelled(
    make: Make, gate: Gate, tmp_path: Path, quick: Callable[..., Any], one_by_one: bool
) -> None:
    """How fast jobs were is no reason to begin many that turn out to be long: what no runner has got is cancelled."""
    executor = make(2)
    opened = tmp_path / "open"
    opened.touch()
    wait([executor.submit(quick, *((n,) if quick is abs else (str(opened), n))) for n in range(300)])
    futures = [executor.submit(jobs.hold, gate.path, n) for n in range(100)]
    gate.holds(2)
    if one_by_one:  # as a TaskGroup that an error ends
        for future in futures:
            future.cancel()
    ending = threading.Thread(target=executor.shutdown, kwargs={"cancel_futures": not one_by_one})
    ending.start()
    eventually(lambda: sum(future.cancelled() for future in futures) >= 94)
    gate.open()
    ending.join()
    assert all(future.done() for future in futures)


def test_the_block_waits(make: Make) -> None:
    """``with`` ends with a shutdown that waits, also when the block raises."""
    executor = make(1)
    futures: list[Future[Any]] = []

    def leave_early() -> None:
        with executor:
            futures.append(executor.submit(time.sleep, 0.05))
            raise LookupError

    with pytest.raises(LookupError):
        leave_early()
    assert futures[0].done()


@pytest.mark.parametrize("kind", OURS)
def test_a_callback_cannot_wait_for_the_end(make: Make, gate: Gate) -> None:
    """It would wait for itself: an error says so, as a pool's thread can't join itself; the end comes."""
    executor = make(1)
    future = executor.submit(jobs.hold, gate.path)
    raised: list[BaseException] = []

    def end(_: Future[Any]) -> None:
        try:
            executor.shutdown()
        except RuntimeError as error:
            raised.append(error)

    future.add_done_callback(end)
    gate.open()
    future.result()
    eventually(lambda: raised)
    executor.shutdown()


@pytest.mark.parametrize("kind", OURS)
def test_an_interrupted_block(make: Make, gate: Gate, caplog: pytest.LogCaptureFixture, kind: str) -> None:
    """Ctrl-C leaves at once: a durable jobset goes on and one line says how to attach; a temporary one ends with it."""
    executor = make(1)
    future = executor.submit(jobs.hold, gate.path)
    gate.holds(1)

    def interrupted() -> None:
        with executor:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert future.cancelled()
    said = "The same code attaches to them" if kind == "durable" else "what runs is stopped"
    assert said in caplog.text


@pytest.mark.parametrize("kind", OURS)
def test_nothing_is_left_running(make: Make) -> None:
    """Bee and runners are gone when shutdown returns, and no thread of ours is left."""
    threads = set(threading.enumerate())
    executor = make(2)
    pids = {executor.submit(os.getpid).result(), executor._client._bee.process.pid}
    executor.shutdown()
    assert not any(map(psutil.pid_exists, pids))
    eventually(lambda: not set(threading.enumerate()) - threads, what="the end of the executor's threads")


@pytest.mark.parametrize("kind", ["temporary"])
def test_a_temporary_jobset_is_dropped(kind: str, database: Database) -> None:
    """Nothing of it is left in the database."""
    with WorkerbeeExecutor(1, dsn=database.dsn) as executor:
        executor.submit(jobs.mul, 1, 1).result()
        number = executor._client.jobset.number
    tables = "SELECT relname FROM pg_class WHERE relname LIKE %s"
    assert database.execute(tables, f"%${number}%") == []


def test_an_executor_that_is_collected_finishes(kind: str, shared: Database) -> None:
    """Without a shutdown: its futures are done, and it ends."""
    executor: Executor | None = maker(kind, shared.dsn)(1)
    assert executor is not None
    futures = [executor.submit(time.sleep, 0.02) for _ in range(5)]
    gone = weakref.ref(executor)
    executor = None
    eventually(lambda: gc.collect() is not None and gone() is None, what="the end of an executor")
    assert all(future.exception() is None for future in futures)


@pytest.mark.parametrize("kind", OURS)
def test_a_view_keeps_its_executor(kind: str, shared: Database) -> None:
    """Who holds a view holds the executor that it is a view of."""
    view = maker(kind, shared.dsn)(1).with_options(priority=1)  # type: ignore[attr-defined]
    gc.collect()
    assert view.submit(jobs.mul, 2, 3).result() == 6
    view.shutdown()


# The interpreter's exit


def run(source: str, *args: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own; its arguments are ``sys.argv[1:]``."""
    return subprocess.run(
        [sys.executable, "-c", dedent(source), *args],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p or "." for p in sys.path)},
        check=True,
    )


LEAVING = """
    import sys
    from tests.contract import jobs
    from tests.contract.conftest import maker
    if __name__ == "__main__":
        kind, dsn, path, options = sys.argv[1:]
        executor = maker(kind, dsn)(**eval(options))
        for n in range(5):
            executor.submit(jobs.note, path, n)
"""


@pytest.mark.parametrize("kind", ["threads", "processes", "temporary"])
def test_the_interpreters_exit_waits(kind: str, shared: Database, tmp_path: Path) -> None:
    """Pending futures are done before the process ends, and nothing is complained about."""
    path = tmp_path / "ran"
    done = run(LEAVING, kind, shared.dsn, str(path), "{'max_workers': 1}")
    assert jobs.noted(path) == list("01234")
    assert done.stderr == ""


@pytest.mark.parametrize("kind", ["durable"])
def test_the_interpreters_exit_leaves_a_durable_jobset(kind: str, shared: Database, tmp_path: Path) -> None:
    """After a flush: nobody was there to run the calls, and all of them are there for the next process."""
    path, jobset_id = tmp_path / "ran", new_id()
    run(LEAVING, kind, shared.dsn, str(path), repr({"jobset_id": jobset_id, "max_workers": 0}))
    with WorkerbeeExecutor(1, dsn=shared.dsn, jobset_id=jobset_id) as executor:
        assert executor.progress().added == 5
        assert list(executor.map(jobs.note, [str(path)] * 5, range(5))) == list(range(5))
    assert jobs.noted(path) == list("01234")


# Forks


def in_a_fork(action: Any, *args: Any) -> int | None:
    """Call it in a forked child, which then leaves as Python does; the exit status, or None if it hangs."""
    process = multiprocessing.get_context("fork").Process(target=action, args=args)
    process.start()
    process.join(10)
    if process.exitcode is None:
        process.kill()
        process.join()
        return None
    return process.exitcode


def use_in_a_fork(executor: WorkerbeeExecutor) -> None:
    with pytest.raises(BrokenExecutor, match="fork"):
        executor.submit(jobs.mul, 1, 1)
    executor.shutdown()


@pytest.mark.parametrize("kind", OURS)
def test_a_fork_has_no_executor(make: Make) -> None:
    """It is told so, it can leave, and the parent's goes on."""
    executor = make(1)
    assert executor.submit(jobs.mul, 2, 3).result() == 6
    assert in_a_fork(use_in_a_fork, executor) == 0
    assert executor.submit(jobs.mul, 2, 4).result() == 8


def linger(path: str) -> None:
    Path(path).touch()
    time.sleep(60)


@pytest.mark.parametrize("kind", OURS)
def test_a_fork_does_not_keep_the_bee(make: Make, tmp_path: Path) -> None:
    """The bee hears its client's end though a child of the client lives on."""
    executor = make(1)
    executor.submit(jobs.mul, 2, 3).result()
    path = tmp_path / "forked"
    child = multiprocessing.get_context("fork").Process(target=linger, args=[str(path)])
    child.start()
    eventually(path.exists)
    executor.shutdown()
    assert not psutil.pid_exists(executor._client._bee.process.pid)
    child.kill()
    child.join()


@pytest.mark.parametrize("kind", OURS)
def test_cancelled_futures_do_not_hold_the_end(make: Make, gate: Gate) -> None:
    """Whatever mixture of ends the futures have, shutdown returns."""
    executor = make(1)
    held = executor.submit(jobs.hold, gate.path)
    gate.holds(1)
    futures = [executor.submit(jobs.reciprocal, n % 3) for n in range(30)]
    for future in futures[::2]:
        future.cancel()
    gate.open()
    executor.shutdown()
    assert wait([held, *futures], timeout=0).not_done == set()
    with pytest.raises(CancelledError):
        futures[28].result()
