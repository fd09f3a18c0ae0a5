"""Futures: their states, cancelling, callbacks, and waiting for many."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import logging
import threading
import time
import weakref
from concurrent.futures import (
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    CancelledError,
    Executor,
    Future,
    ThreadPoolExecutor,
    as_completed,
    wait,
)
from pathlib import Path

import pytest
from tqdm import tqdm

from tests.bees import Bee
from tests.contract import jobs
from tests.contract.conftest import OURS, Gate, Make
from tests.servers import Database
from tests.waiting import eventually
from workerbee import WorkerbeeExecutor


def test_a_future_runs_and_is_done(pool: Executor, gate: Gate) -> None:
    """Its states, in their order; ``running`` may be late."""
    future = pool.submit(jobs.hold, gate.path, 1)
    eventually(future.running, what="a running future")
    assert not future.done()
    assert not future.cancel()
    gate.open()
    assert future.result() == 1
    assert future.done()
    assert not future.running()
    assert not future.cancel()


def test_a_result_may_not_be_there_in_time(pool: Executor, gate: Gate) -> None:
    """The TimeoutError of `concurrent.futures`, the builtin one since Python 3.11; and the future goes on."""
    future = pool.submit(jobs.hold, gate.path, 1)
    for ask in (future.result, future.exception):
        with pytest.raises(concurrent.futures.TimeoutError):
            ask(timeout=0.01)
    gate.open()
    assert future.result() == 1


def test_what_is_cancelled_before_its_start_never_runs(make: Make, gate: Gate, tmp_path: Path) -> None:
    """``cancel`` is True, and stays so, and the function isn't called."""
    executor = make(1)
    path = tmp_path / "ran"
    executor.submit(jobs.hold, gate.path)
    gate.holds(1)
    futures = [executor.submit(jobs.note, str(path), n) for n in range(10)]
    assert futures[-1].cancel()
    assert futures[-1].cancelled()
    assert futures[-1].cancel()
    with pytest.raises(CancelledError):
        futures[-1].result(timeout=0)
    gate.open()
    executor.shutdown()
    assert jobs.noted(path) == [str(n) for n in range(9)]


@pytest.mark.parametrize("kind", OURS)
def test_what_a_bee_has_claimed_can_be_cancelled(make: Make, gate: Gate, tmp_path: Path) -> None:
    """What has begun by the database's word isn't cancelled; what is cancelled doesn't run, wherever it lies."""
    executor = make(1)
    path = tmp_path / "ran"
    wait([executor.submit(jobs.note, str(tmp_path / "quick"), n) for n in range(50)])  # a bee claims many of such jobs
    futures = [executor.submit(jobs.hold, gate.path), *(executor.submit(jobs.note, str(path), n) for n in range(60))]
    gate.holds(1)
    executor.flush()
    cancelled = {n for n, future in enumerate(futures[1:]) if n >= 40 and future.cancel()}
    gate.open()
    executor.shutdown()
    assert sorted(map(int, jobs.noted(path))) == [n for n in range(60) if n not in cancelled]


@pytest.mark.parametrize("kind", ["durable"])
def test_what_a_bee_has_given_back_can_be_cancelled(make: Make, shared: Database, gate: Gate, tmp_path: Path) -> None:
    """Agreed difference: such a future goes on to say that it runs."""
    executor = make(0)
    with Bee(shared.dsn, executor._client.jobset.id, "--busywait", "--grace", 0) as bee:
        future = executor.submit(jobs.hold, gate.path)
        gate.holds(1)
        eventually(future.running)
        assert not future.cancel()
        bee.terminate()
        bee.wait()
    assert future.running()
    assert future.cancel()
    assert wait([future], timeout=0).done == {future}
    assert executor.progress().open == 0


@pytest.mark.parametrize("kind", OURS)
def test_who_waits_is_told_at_once(make: Make, gate: Gate) -> None:
    """Of a cancelled future; a pool tells it when a worker comes upon it, if at all."""
    executor = make(1)
    executor.submit(jobs.hold, gate.path)
    gate.holds(1)
    future = executor.submit(jobs.mul, 1, 1)
    assert future.cancel()
    assert wait([future], timeout=0).done == {future}


@pytest.mark.parametrize("kind", OURS)
def test_cancelled_rows_are_told_apart(make: Make, gate: Gate) -> None:
    """What was cancelled is counted as that, and as nothing else."""
    executor = make(1)
    executor.submit(jobs.hold, gate.path)
    gate.holds(1)
    futures = [executor.submit(jobs.mul, n, n) for n in range(5)]
    executor.flush()
    assert all(future.cancel() for future in futures)
    assert executor.progress().cancelled == 5


def test_callbacks_are_called_in_order(pool: Executor, gate: Gate) -> None:
    """With the future, once it is done; one that is added later is called at once."""
    called: list[tuple[int, int]] = []
    future = pool.submit(jobs.hold, gate.path, 7)
    for n in range(5):
        future.add_done_callback(lambda f, n=n: called.append((n, f.result())))
    assert called == []
    gate.open()
    future.result()
    eventually(lambda: len(called) == 5)
    future.add_done_callback(lambda f: called.append((5, f.result())))
    assert called == [(n, 7) for n in range(6)]


def test_a_callback_that_raises_is_logged(pool: Executor, gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    """The callbacks after it are called, and the executor goes on."""
    called: list[Future[int]] = []
    future = pool.submit(jobs.hold, gate.path)

    def fail(_: Future[int]) -> None:
        raise LookupError("of a callback")

    future.add_done_callback(fail)
    future.add_done_callback(called.append)
    with caplog.at_level(logging.ERROR, "concurrent.futures"):
        gate.open()
        eventually(lambda: called)
    assert "of a callback" in caplog.text
    assert pool.submit(jobs.mul, 2, 3).result() == 6


@pytest.mark.parametrize("kind", OURS)
def test_what_was_just_cancelled_otherwise_counts_as_cancelled(make: Make, gate: Gate) -> None:
    """Before its future has heard of that."""
    executor = make(1)
    assert isinstance(executor, WorkerbeeExecutor)
    executor.submit(jobs.hold, gate.path)
    gate.holds(1)
    for n in range(10):
        future = [executor.submit(jobs.mul, n, i) for i in range(400)][-1]  # so many that no hint tells of each
        executor.flush()
        executor.cancel(jobs.mul)
        assert future.cancel()


@pytest.mark.parametrize("is_stored", [False, True])
def test_a_cancelled_future_calls_back(make: Make, gate: Gate, is_stored: bool) -> None:
    """In the thread that cancels, before `cancel` returns."""
    executor = make(1)
    executor.submit(jobs.hold, gate.path)
    gate.holds(1)
    futures = [executor.submit(jobs.mul, n, 1) for n in range(100)][5:]  # the first may be on their way to a worker
    if is_stored and isinstance(executor, WorkerbeeExecutor):
        executor.flush()
    for future in futures:
        called: list[threading.Thread] = []
        future.add_done_callback(lambda _, called=called: called.append(threading.current_thread()))  # type: ignore[misc]
        assert future.cancel()
        assert called == [threading.current_thread()]


@pytest.mark.parametrize("kind", OURS)
def test_futures_of_several_executors_mix(pools: dict[str, Executor], kind: str, gate: Gate) -> None:
    """``wait`` and ``as_completed`` take them together."""
    with ThreadPoolExecutor(1) as threads:
        quick = [pools[kind].submit(jobs.mul, 2, 3), threads.submit(jobs.mul, 2, 3), pools["processes"].submit(int)]
        held = [pools[kind].submit(jobs.hold, gate.path, 6), threads.submit(jobs.hold, gate.path, 6)]
        assert set(quick) <= wait([*quick, *held], timeout=0.5).done | wait(quick).done
        first = wait(held, timeout=0.01, return_when=FIRST_COMPLETED)
        assert first.not_done == set(held)
        gate.open()
        assert {future.result() for future in as_completed([*quick, *held])} == {6, 0}


def test_waiting_ends_at_the_first_error(pool: Executor, gate: Gate) -> None:
    """FIRST_EXCEPTION, with what else is done by then."""
    held = pool.submit(jobs.hold, gate.path)
    failing = pool.submit(jobs.reciprocal, 0)
    done, not_done = wait([held, failing], return_when=FIRST_EXCEPTION)
    assert (done, not_done) == ({failing}, {held})


def test_as_completed_gives_each_once(pool: Executor) -> None:
    """Duplicates are one future."""
    future = pool.submit(jobs.mul, 2, 3)
    assert list(as_completed([future] * 3)) == [future]


def test_as_completed_times_out(pool: Executor, gate: Gate) -> None:
    """It says how many are missing."""
    futures = [pool.submit(jobs.hold, gate.path), pool.submit(jobs.mul, 2, 3)]
    with pytest.raises(concurrent.futures.TimeoutError, match=r"1 \(of 2\) futures unfinished"):
        list(as_completed(futures, timeout=1))


def test_a_future_keeps_nothing_after_it(pool: Executor) -> None:
    """Result and future are free to go when their owner lets them go."""
    future = pool.submit(jobs.plain, 1)
    seen, itself = weakref.ref(future.result()), weakref.ref(future)
    del future
    eventually(lambda: gc.collect() is not None and seen() is None and itself() is None, what="the end of a future")


def test_arguments_are_let_go(pool: Executor) -> None:
    """A call that is done keeps no argument of its."""
    thing = jobs.Plain(1)
    seen = weakref.ref(thing)
    pool.submit(jobs.capture, thing).result()
    del thing
    eventually(lambda: gc.collect() is not None and seen() is None, what="the end of an argument")


# asyncio and tqdm


def test_asyncio_runs_in_the_executor(pool: Executor) -> None:
    """``run_in_executor`` awaits results and raises errors."""

    async def main() -> int:
        loop = asyncio.get_running_loop()
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(pool, jobs.reciprocal, 0)
        return await loop.run_in_executor(pool, jobs.mul, 6, 7)

    assert asyncio.run(main()) == 42


@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize("kind_of_error", [CancelledError, asyncio.CancelledError])
def test_a_job_that_raises_a_cancellation_cancels_nobody(pool: Executor, kind_of_error: type[BaseException]) -> None:
    """A task group would say nothing of a task that was cancelled. With a process pool it is."""

    async def main() -> bool:
        waiting = asyncio.wrap_future(pool.submit(jobs.throw, kind_of_error("the job's own")))
        await asyncio.wait([waiting])
        assert kind_of_error.__name__ in str(waiting.exception())
        return waiting.cancelled()

    assert not asyncio.run(main())


def test_asyncio_gathers_a_thousand(pool: Executor) -> None:
    """Wrapped futures, all at once."""

    async def main() -> list[int]:
        return await asyncio.gather(*(asyncio.wrap_future(pool.submit(jobs.mul, n, 2)) for n in range(1000)))

    assert asyncio.run(main()) == [2 * n for n in range(1000)]


def test_cancelling_a_task_cancels_its_call(make: Make, gate: Gate, tmp_path: Path) -> None:
    """The job never runs."""
    executor = make(1)
    path = tmp_path / "ran"
    executor.submit(jobs.hold, gate.path)
    gate.holds(1)
    for n in range(5):
        executor.submit(jobs.mul, n, n)

    async def main() -> None:
        call = asyncio.get_running_loop().run_in_executor(executor, jobs.note, str(path), "ran")
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(main())
    gate.open()
    executor.shutdown()
    assert jobs.noted(path) == []


def test_tqdm_counts_what_is_completed(pool: Executor) -> None:
    """A progress bar over ``as_completed``."""
    futures = [pool.submit(jobs.mul, n, n) for n in range(10)]
    with tqdm(as_completed(futures), total=10, disable=None) as bar:
        assert sorted(future.result() for future in bar) == [n * n for n in range(10)]


# Jobs that run


@pytest.mark.parametrize("kind", OURS)
def test_running_jobs_can_be_cancelled(make: Make, gate: Gate) -> None:
    """``cancel_running`` ends their runner, and another takes its place."""
    executor = make(1)
    assert isinstance(executor, WorkerbeeExecutor)
    futures = [executor.submit(jobs.hold, gate.path, n) for n in range(3)]
    gate.holds(1)
    assert executor.cancel_running(futures[:2]) == 2
    for future in futures[:2]:
        with pytest.raises(CancelledError):
            future.result()
    gate.holds(2)
    assert executor.cancel_running() == 1
    assert executor.submit(jobs.mul, 2, 3).result() == 6


@pytest.mark.parametrize("kind", OURS)
def test_what_is_still_queued_is_cancelled_with_what_runs(make: Make, gate: Gate) -> None:
    """``cancel_running`` right after many a ``submit``: none of the calls runs later."""
    executor = make(1)
    assert isinstance(executor, WorkerbeeExecutor)
    futures = [executor.submit(jobs.hold, gate.path)]
    gate.holds(1)
    futures += [executor.submit(jobs.mul, n, n) for n in range(3000)]
    assert executor.cancel_running() == len(futures)
    assert not wait(futures, timeout=30).not_done
    assert all(future.cancelled() for future in futures)
    assert executor.submit(jobs.mul, 2, 3).result() == 6


def test_many_threads_cancel_at_once(make: Make, gate: Gate) -> None:
    """Each cancelled future has been cancelled once, and none of them hangs."""
    executor = make(1)
    held = executor.submit(jobs.hold, gate.path)
    gate.holds(1)
    futures = [executor.submit(time.sleep, 0) for _ in range(40)]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda future: future.cancel(), futures * 2))
    gate.open()
    assert not wait([held, *futures], timeout=30).not_done
    answered = [first or second for first, second in zip(answers[:40], answers[40:], strict=True)]
    assert answered == [future.cancelled() for future in futures]
    assert any(answered)
