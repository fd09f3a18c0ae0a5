"""What an executor is made from: workers, initializers, tasks per worker."""

from __future__ import annotations

import os
from concurrent.futures import BrokenExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from enum import Enum
from typing import Any

import numpy as np
import pytest

from tests.contract import jobs
from tests.contract.conftest import OURS, Gate, Make
from tests.servers import Database
from workerbee import WorkerbeeExecutor
from workerbee.errors import JobsetIdError
from workerbee.executor import AHEAD

BY_PROCESS = ["processes", *OURS]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_workers": -1}, ValueError),
        ({"initializer": 3}, TypeError),
        ({"max_tasks_per_child": 0}, ValueError),
        ({"max_tasks_per_child": 1.5}, TypeError),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", BY_PROCESS)
def test_mistakes_are_named(make: Make, options: dict[str, Any], error: type[Exception]) -> None:
    """Before anything is started."""
    with pytest.raises(error, match=next(iter(options))):
        make(**options)


@pytest.mark.parametrize("jobset_id", ["", "Texture", "a b", "x" * 49, 3])
def test_an_id_that_names_no_jobset_is_refused(jobset_id: Any, shared: Database) -> None:
    """The error says what an id looks like."""
    with pytest.raises(JobsetIdError, match="lowercase"):
        WorkerbeeExecutor(0, dsn=shared.dsn, jobset_id=jobset_id)


@pytest.mark.parametrize("kind", OURS)
def test_no_workers_means_that_the_bees_are_elsewhere(make: Make) -> None:
    """Agreed difference: 0 is a number of local workers, and Dask still has calls under way."""
    executor = make(0)
    future = executor.submit(jobs.mul, 2, 3)
    executor.flush()
    assert executor._max_workers == AHEAD
    assert executor.live_workers() == 0
    assert future.cancel()


def test_work_is_spread_over_the_workers(make: Make, gate: Gate) -> None:
    """As many jobs run at once as there are workers."""
    executor = make(3)
    assert executor._max_workers in (3, 3 * AHEAD)
    futures = [executor.submit(jobs.hold, gate.path, n) for n in range(3)]
    gate.holds(3)
    gate.open()
    wait(futures)


def test_an_initializer_runs_before_the_jobs(make: Make) -> None:
    """In every worker, with its arguments; jobs see what it has set."""
    try:
        executor = make(2, initializer=jobs.set_state, initargs=("set",))
        assert [executor.submit(jobs.get_state).result() for _ in range(4)] == ["set"] * 4
    finally:
        jobs.set_state("untouched")  # a thread's initializer has set it here


@pytest.mark.parametrize("kind", OURS)
def test_an_initializer_of_here_sets_globals(make: Make) -> None:
    """One that travels by value shares its globals with the functions of its module."""
    space: dict[str, Any] = {"__name__": "__main__"}
    exec("def begin(v):\n global k\n k = v\ndef f(x):\n return k + x", space)
    executor = make(2, initializer=space["begin"], initargs=(40,))
    assert list(executor.map(space["f"], range(4))) == [40, 41, 42, 43]
    assert list(executor.map(space["f"], range(4), chunksize=3)) == [40, 41, 42, 43]
    assert executor.submit(jobs.call, space["f"], 4).result() == 44
    assert "k" not in space


def test_a_failing_initializer_breaks_the_executor(make: Make) -> None:
    """Its futures end with BrokenExecutor, and so do later calls; ours say why."""
    executor = make(1, initializer=jobs.fail_to_start, initargs=("no licence",))
    try:
        future = executor.submit(jobs.get_state)
    except BrokenExecutor:
        pass  # it was quick
    else:
        with pytest.raises(BrokenExecutor):
            future.result()
    with pytest.raises(BrokenExecutor):
        executor.submit(jobs.get_state)


@pytest.mark.parametrize("kind", OURS)
def test_a_failing_initializer_is_the_cause(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Of what the futures raise, with its traceback; every future gets it."""
    executor = make(2, initializer=jobs.fail_to_start, initargs=("no licence",))
    futures = [executor.submit(jobs.mul, n, n) for n in range(5)]
    for future in futures:
        with pytest.raises(BrokenProcessPool, match="no licence") as caught:
            future.result()
        assert isinstance(caught.value.__cause__, LookupError)
        assert "in fail_to_start" in str(caught.value.__cause__.__cause__)
    assert "Exception in initializer" in caplog.text


@pytest.mark.parametrize("kind", ["processes", "temporary"])  # a durable jobset asks for its pid only once
def test_a_worker_is_replaced_after_its_tasks(make: Make) -> None:
    """``max_tasks_per_child`` jobs in each process, in a row."""
    executor = make(1, max_tasks_per_child=3)
    pids = [executor.submit(os.getpid).result() for _ in range(7)]
    assert len(set(pids)) == 3
    assert pids[:3] == [pids[0]] * 3
    assert pids[3:6] == [pids[3]] * 3


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"priority": 2.5}, TypeError),
        ({"priority": "1,2"}, TypeError),
        ({"priority": 2**31}, ValueError),
        ({"max_n_retry_attempts": 0}, ValueError),
        ({"timeout": 0}, ValueError),
        ({"timeout": float("nan")}, ValueError),
        ({"timeout": "soon"}, ValueError),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", OURS)
def test_options_that_none_can_be_are_named(make: Make, options: dict[str, Any], error: type[Exception]) -> None:
    """At once, in the caller's stack."""
    with pytest.raises(error):
        make(max_workers=1).with_options(**options)


class Priority(int, Enum):
    HIGH = 7


@pytest.mark.parametrize(
    "options",
    [{"priority": True}, {"priority": Priority.HIGH}, {"max_n_retry_attempts": np.int64(3)}, {"speculate": 2}],
    ids=str,
)
@pytest.mark.parametrize("kind", OURS)
def test_options_are_taken_for_what_they_mean(make: Make, options: dict[str, Any]) -> None:
    """Whatever counts as an integer or is true: it is a number or a truth value in the database."""
    assert make(max_workers=1).with_options(**options).submit(abs, -8).result() == 8
