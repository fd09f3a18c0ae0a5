"""Dask on bees: any collection, computed by an executor as the scheduler."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from threadpoolctl import threadpool_info

from tests.servers import Database
from tests.waiting import eventually
from workerbee import JobFailedError, WorkerbeeExecutor
from workerbee.executor import AHEAD


@pytest.fixture
def on_bees(executor: WorkerbeeExecutor) -> Iterator[None]:
    """In its scope Dask computes by the executor, unless told otherwise."""
    with dask.config.set(scheduler=executor):
        yield


def wait_for(gate: Path) -> None:
    while not gate.exists():
        time.sleep(0.01)


class OddError(Exception):
    """An exception that can't be made from its message alone."""

    def __init__(self, code: int, *, where: str) -> None:
        super().__init__(f"{code} at {where}")
        self.code = code


@dask.delayed(pure=False)
def process() -> int:
    """Where Dask's tasks run."""
    return os.getpid()


@dask.delayed
def fail(error: type[Exception]) -> None:
    """Dask's tasks may fail."""
    raise OddError(3, where="a bee") if error is OddError else error("on a bee")


# The ways to say it


def test_as_an_argument(executor: WorkerbeeExecutor) -> None:
    """``dask.compute(…, scheduler=executor)`` runs in bees."""
    (pid,) = dask.compute(process(), scheduler=executor)
    assert pid != os.getpid()
    assert process().compute(scheduler=executor) != os.getpid()


@pytest.mark.parametrize("setting", ["scheduler", "pool"])
def test_as_a_setting(executor: WorkerbeeExecutor, setting: str) -> None:
    """``dask.config.set(scheduler=executor)`` and, for the threaded scheduler, ``pool=executor``."""
    with dask.config.set({setting: executor}):
        assert process().compute() != os.getpid()


def test_as_a_view_with_options(database: Database) -> None:
    """A view is an executor too: its options hold for Dask's tasks."""
    with WorkerbeeExecutor(1, dsn=database.dsn) as executor, pytest.raises(TimeoutError):
        dask.delayed(time.sleep)(60).compute(scheduler=executor.with_options(timeout=0.2))


def test_all_runners_count(database: Database) -> None:
    """Dask keeps calls under way for each living runner, here or elsewhere."""
    with WorkerbeeExecutor(0, dsn=database.dsn, jobset_id="dask") as elsewhere:
        assert elsewhere._max_workers == AHEAD
        with WorkerbeeExecutor(3, dsn=database.dsn, jobset_id="dask") as local:
            local.submit(int).result()
            assert elsewhere._max_workers == local._max_workers == 3 * AHEAD


def test_runners_find_work_when_they_are_through(executor: WorkerbeeExecutor, tmp_path: Path) -> None:
    """Many more calls are under way than there are runners, so that none is idle for the time of a round trip."""
    gate = tmp_path / "gate"
    computed = executor.progress().completed
    tasks = [dask.delayed(wait_for, pure=False)(gate) for _ in range(5 * AHEAD)]
    with ThreadPoolExecutor(1) as thread:
        sums = thread.submit(dask.compute, *tasks, scheduler=executor)
        try:
            assert eventually(lambda: executor.progress().open == 2 * AHEAD)
        finally:
            gate.touch()
        assert len(sums.result()) == 5 * AHEAD
    assert executor.progress().completed == computed + 5 * AHEAD


def test_chunks_of_tasks(executor: WorkerbeeExecutor) -> None:
    """The setting ``chunksize`` makes one job of so many tasks, where as many are ready."""
    tasks = [process() for _ in range(40)]
    counts = []
    for chunksize in (1, 10):
        before = executor.progress().completed
        with dask.config.set(scheduler=executor, chunksize=chunksize):
            assert os.getpid() not in dask.compute(*tasks)
        counts.append(executor.progress().completed - before)
    assert counts == [40, 4]


# Collections, against what NumPy and pandas say


def test_delayed(on_bees: None) -> None:
    """A graph with shared and nested parts, of lambdas and keyword arguments."""
    double = dask.delayed(lambda x, plus=0: 2 * x + plus)
    ones = [double(n, plus=1) for n in range(10)]
    total = dask.delayed(sum)(ones)
    assert dask.compute(total, {"first": ones[0], "last": [ones[-1]]}) == (100, {"first": 1, "last": [19]})


def test_bag(on_bees: None) -> None:
    """Words counted."""
    words = ["the", "bee", "that", "the", "queen", "saw", "saw", "the", "queen"]
    counts = dict(db.from_sequence(words, npartitions=4).frequencies())
    assert counts == {"the": 3, "bee": 1, "that": 1, "queen": 2, "saw": 2}


def test_array(on_bees: None) -> None:
    """A matrix product, a standard deviation and a decomposition, against NumPy's and the threaded scheduler's."""
    numbers = np.random.default_rng(0).normal(size=(300, 200))
    array = da.from_array(numbers, chunks=(100, 100))
    np.testing.assert_allclose((array.T @ array).compute(), numbers.T @ numbers)
    assert array.std().compute() == pytest.approx(numbers.std())
    values = da.linalg.svd(array.rechunk((100, 200)))[1]
    np.testing.assert_allclose(values.compute(), np.linalg.svd(numbers)[1])
    random = da.random.default_rng(1).normal(size=(400, 400), chunks=100)
    assert random.mean().compute() == random.mean().compute(scheduler="threads")


def test_dataframe(on_bees: None) -> None:
    """A grouped mean and a merge, against pandas'."""
    generator = np.random.default_rng(0)
    frame = pd.DataFrame({"key": generator.integers(0, 7, 1000), "value": generator.normal(size=1000)})
    names = pd.DataFrame({"key": range(7), "name": list("abcdefg")})
    lazy = dd.from_pandas(frame, npartitions=4)
    means = lazy.groupby("key").value.mean().compute().sort_index()
    pd.testing.assert_series_equal(means, frame.groupby("key").value.mean())
    merged = lazy.merge(names, on="key").name.value_counts().compute().sort_index()
    assert merged.to_dict() == frame.merge(names, on="key").name.value_counts().to_dict()


def test_persisted(on_bees: None, executor: WorkerbeeExecutor) -> None:
    """``persist`` computes on bees once; what is made of it later uses that."""
    before = executor.progress().completed
    array = da.ones(100, chunks=25).map_blocks(lambda block: block * os.getpid()).persist()
    assert executor.progress().completed > before
    [pids] = {tuple(array.compute(scheduler=scheduler)) for scheduler in ("sync", executor)}
    assert os.getpid() not in pids


def test_xarray(on_bees: None) -> None:
    """A climatology over chunked data is what it is in memory."""
    days = pd.date_range("2001-01-01", periods=730)
    field = 10 + np.sin(np.arange(730) * 2 * np.pi / 365)[:, None] * np.ones(4)
    whole = xr.DataArray(field, coords={"time": days}, dims=("time", "x"), name="t")
    monthly = whole.chunk(time=100).groupby("time.month").mean()
    xr.testing.assert_allclose(monthly.compute(), whole.groupby("time.month").mean())
    assert float(monthly.sel(month=4).mean()) == pytest.approx(10.97, abs=0.02)


# Errors


@pytest.mark.parametrize("error", [ZeroDivisionError, OddError, JobFailedError, CancelledError])
def test_errors_keep_their_type(executor: WorkerbeeExecutor, error: type[Exception]) -> None:
    """What a task raises is what ``compute`` raises; Dask sees no difference to a local scheduler."""
    with pytest.raises(error, match="a bee"):
        fail(error).compute(scheduler=executor.with_options(max_n_retry_attempts=1))


def test_it_goes_on_after_an_error(on_bees: None) -> None:
    """A graph that failed leaves nothing in the way of the next."""
    with pytest.raises(OddError):
        dask.compute(fail(OddError), *[process() for _ in range(20)])
    assert da.ones(100, chunks=10).sum().compute() == 100


def test_a_killed_runner_costs_nothing(database: Database, tmp_path: Path) -> None:
    """A runner that dies under a graph is replaced, and the result is as if it had lived."""

    @dask.delayed(pure=False)
    def die_once(mark: Path) -> int:
        if mark.exists():
            return 5
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    with WorkerbeeExecutor(2, dsn=database.dsn) as executor:
        mark = tmp_path / "died"
        assert dask.delayed(sum)([die_once(mark), 1]).compute(scheduler=executor) == 6


def threads() -> set[int]:
    """How many threads BLAS may have."""
    np.ones(1)
    return {library["num_threads"] for library in threadpool_info()}


def test_tasks_compute_in_one_thread_each(executor: WorkerbeeExecutor) -> None:
    """As in Dask's own workers; other calls have as many as their libraries like."""
    alone = executor.submit(threads).result()
    assert dask.compute(dask.delayed(threads)(), scheduler=executor) == ({1},)
    assert executor.submit(threads).result() == alone


def test_whoever_says_how_many_threads_there_are_has_them(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the variables of the libraries."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    with WorkerbeeExecutor(1, dsn=database.dsn) as executor:
        assert dask.compute(dask.delayed(threads)(), scheduler=executor) == ({2},)
