"""`map`: order, errors at their position, laziness, and what becomes of an iterator that is left."""

from __future__ import annotations

import concurrent.futures
import gc
import itertools
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, wait
from pathlib import Path
from typing import Any

import pytest

from tests.contract import jobs
from tests.contract.conftest import OURS, Gate, Make, new_id
from tests.waiting import eventually
from workerbee import WorkerbeeExecutor
from workerbee.errors import EncodingError

#: The standard library has had ``buffersize`` since 3.14.
BUFFERED = [*OURS] if sys.version_info < (3, 14) else ["threads", "processes", *OURS]


@pytest.mark.parametrize("chunksize", [1, 3, 100])
def test_results_come_in_order(pool: Executor, chunksize: int) -> None:
    """As ``map`` gives them, whoever finishes first, and the shortest iterable decides."""
    results = pool.map(jobs.mul, range(20), itertools.count(), chunksize=chunksize)
    assert list(results) == [n * n for n in range(20)]


def test_nothing_maps_to_nothing(pool: Executor) -> None:
    """No input, no result; and no iterable at all is no input."""
    assert list(pool.map(jobs.mul, [], [])) == []
    assert list(pool.map(jobs.get_state)) == []


@pytest.mark.parametrize("chunksize", [0, -1])
@pytest.mark.parametrize("kind", ["processes", *OURS])
def test_a_chunksize_is_positive(pool: Executor, chunksize: int) -> None:
    """The call raises, before anything is drawn."""
    drawn = iter([1])
    with pytest.raises(ValueError, match="chunksize must be >= 1"):
        pool.map(abs, drawn, chunksize=chunksize)
    assert list(drawn) == [1]


@pytest.mark.parametrize(
    ("buffersize", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("1", TypeError)]
)
@pytest.mark.parametrize("kind", BUFFERED)
def test_a_buffersize_is_positive(pool: Executor, buffersize: Any, error: type[Exception]) -> None:
    """The call raises, not the first step."""
    with pytest.raises(error, match="buffersize must be"):
        pool.map(abs, [1], buffersize=buffersize)  # type: ignore[call-arg]


def test_calls_are_submitted_at_once(make: Make, tmp_path: Path) -> None:
    """Nobody needs to look at the results."""
    executor = make(2)
    path = tmp_path / "ran"
    executor.map(jobs.note, [str(path)] * 5, range(5))
    executor.shutdown()
    assert sorted(jobs.noted(path)) == list("01234")


def test_an_error_is_raised_at_its_position(pool: Executor) -> None:
    """Results before it are given out; after it the iterator has ended."""
    results = pool.map(jobs.reciprocal, [1, 2, 0, 4])
    assert [next(results), next(results)] == [1, 0.5]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) == []


@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize("chunksize", [1, 2, 3, 10])
def test_chunks_do_not_move_an_error(pool: Executor, chunksize: int) -> None:
    """Agreed difference: a process pool drops the results before it in the same chunk."""
    results = pool.map(jobs.reciprocal, [1, 2, 0, 4], chunksize=chunksize)
    assert [next(results), next(results)] == [1, 0.5]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_an_iterable_that_raises_raises_at_the_call(pool: Executor) -> None:
    """Whatever drawing the inputs raises comes out of ``map``."""

    def inputs() -> Iterator[int]:
        yield 1
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        pool.map(abs, inputs())


@pytest.mark.parametrize("kind", OURS)
def test_an_input_that_cannot_be_stored_raises_at_the_call(make: Make, gate: Gate) -> None:
    """And in a temporary jobset what was submitted before it is cancelled."""
    executor = make(1)
    executor.submit(jobs.hold, gate.path)
    gate.holds(1)
    with pytest.raises(EncodingError):
        executor.map(jobs.capture, [1, jobs.Unpicklable(), 3])


def test_a_timeout_counts_from_the_call(pool: Executor, gate: Gate) -> None:
    """What is done by then is given out; then TimeoutError."""
    results = pool.map(jobs.hold, [gate.path], timeout=0.05)
    with pytest.raises(concurrent.futures.TimeoutError):
        next(results)


@pytest.mark.parametrize("kind", ["threads", "processes", "temporary"])
def test_a_timeout_gives_up_what_has_not_started(make: Make, gate: Gate, tmp_path: Path) -> None:
    """Calls behind the one that took too long never run."""
    executor = make(1)
    path = tmp_path / "ran"
    first = executor.submit(jobs.hold, gate.path)
    gate.holds(1)
    results = executor.map(jobs.note, [str(path)] * 50, range(50), timeout=0)
    with pytest.raises(concurrent.futures.TimeoutError):
        next(results)
    gate.open()
    first.result()
    executor.shutdown()
    assert len(jobs.noted(path)) < 5  # a process pool has sent some ahead


def leave_by_closing(results: Any) -> None:
    results.close()


def leave_by_an_error(results: Any) -> None:
    with pytest.raises(LookupError):
        results.throw(LookupError())


LEAVE = [leave_by_closing, leave_by_an_error]


def started_map(executor: Executor, gate: Gate) -> Any:
    """The iterator over 20 jobs that wait at the gate and one before them, whose result has been taken."""
    first = Gate(Path(f"{gate.path}-first"))
    results = executor.map(jobs.hold, [first.path, *[gate.path] * 20], range(21))
    first.holds(1)
    time.sleep(0.1)  # of jobs that take so long a bee begins only as many as it has runners
    first.open()
    assert next(results) == 0
    return results


def throw_into(results: Any) -> None:
    with pytest.raises(LookupError):
        results.throw(LookupError())


LEAVE: dict[str, Callable[[Any], None]] = {
    "closed": lambda results: results.close(),
    "thrown into": throw_into,
    "dropped": lambda results: None,
}


@pytest.mark.parametrize("leave", LEAVE.values(), ids=LEAVE)
@pytest.mark.parametrize("kind", ["threads", "processes", "temporary"])
def test_an_iterator_that_is_left_cancels_the_rest(make: Make, gate: Gate, leave: Callable[[Any], None]) -> None:
    """What has not started by then never runs."""
    executor = make(1)
    leave(started_map(executor, gate))
    gc.collect()
    gate.open()
    executor.shutdown()
    assert gate.count() < 5  # a process pool has sent some ahead


@pytest.mark.parametrize("kind", ["temporary"])
def test_an_iterator_may_be_collected_in_the_middle_of_anything(make: Make, gate: Gate) -> None:
    """The garbage collector comes when it likes: here while the books of what is waited for are locked."""
    executor = make(1)
    results = [started_map(executor, gate)]
    with executor._client._ledger._lock:
        results.clear()
        gc.collect()
    eventually(lambda: not executor._client._ledger.futures()[1:], what="the end of the rest")
    gate.open()
    executor.shutdown()
    assert gate.count() == 1


@pytest.mark.parametrize("leave", LEAVE.values(), ids=LEAVE)
@pytest.mark.parametrize("kind", ["durable"])
def test_a_durable_map_goes_on_without_its_iterator(make: Make, gate: Gate, leave: Callable[[Any], None]) -> None:
    """Leaving only detaches: the rows stay, shutdown doesn't wait for them, and the next map has the results."""
    jobset_id = new_id()
    executor = make(1, jobset_id=jobset_id)
    leave(started_map(executor, gate))
    gc.collect()
    assert executor.progress().cancelled == 0
    gate.open()
    executor.shutdown()
    again = make(1, jobset_id=jobset_id)
    assert list(again.map(jobs.hold, [gate.path] * 20, range(1, 21))) == list(range(1, 21))
    assert again.progress().added == 21


@pytest.mark.parametrize("kind", BUFFERED)
@pytest.mark.parametrize("chunksize", [1, 2])
def test_a_buffer_draws_no_more_than_it_holds(pool: Executor, chunksize: int) -> None:
    """From an endless generator, so many calls ahead of the results taken."""
    source = itertools.count()
    results = pool.map(jobs.mul, source, itertools.repeat(2), buffersize=3, chunksize=chunksize)
    assert [next(results) for _ in range(10)] == list(range(0, 20, 2))
    assert next(source) <= 10 + 4 * chunksize
    results.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", BUFFERED)
@pytest.mark.parametrize("buffersize", [1, 2, 100])
def test_a_buffer_loses_nothing(pool: Executor, buffersize: int) -> None:
    """Whatever its size, every result comes, in order."""
    assert list(pool.map(jobs.mul, range(7), range(7), buffersize=buffersize)) == [n * n for n in range(7)]


@pytest.mark.parametrize("kind", OURS)
def test_a_buffered_map_keeps_its_executor(make: Make, shared: Any) -> None:
    """As long as there is more to submit; the standard library's ends early and says nothing."""
    results = WorkerbeeExecutor(1, dsn=shared.dsn).map(jobs.mul, range(10), range(10), buffersize=2)
    gc.collect()
    assert list(results) == [n * n for n in range(10)]


@pytest.mark.parametrize("kind", ["threads", "processes", *OURS])
def test_results_are_let_go(pool: Executor) -> None:
    """Nobody keeps what the iterator has given out."""
    for thing in pool.map(jobs.plain, range(10)):
        seen = weakref.ref(thing)
        del thing
        eventually(lambda seen=seen: gc.collect() is not None and seen() is None, what="the end of a result")


def test_a_map_from_a_callback(pool: Executor) -> None:
    """Callbacks may submit."""
    mapped: list[Iterator[int]] = []
    future = pool.submit(jobs.mul, 1, 1)
    future.add_done_callback(lambda _: mapped.append(pool.map(jobs.mul, [2], [3])))
    wait([future])
    eventually(lambda: mapped)
    assert list(mapped[0]) == [6]
