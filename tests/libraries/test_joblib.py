"""joblib and scikit-learn on bees: ``parallel_config("workerbee", …)``."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import psutil
import pytest
from joblib import Parallel, delayed, parallel_config
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.svm import SVC
from threadpoolctl import threadpool_info

import workerbee.joblib
from tests.servers import Database
from tests.waiting import eventually
from workerbee import WorkerbeeExecutor, resources
from workerbee.errors import EncodingError
from workerbee.joblib import WorkerbeeBackend


class OddError(Exception):
    """An exception that can't be made from its message alone."""

    def __init__(self, code: int, *, where: str) -> None:
        super().__init__(f"{code} at {where}")
        self.code = code


@pytest.fixture
def on_bees(executor: WorkerbeeExecutor) -> Iterator[None]:
    """In its scope joblib's calls are jobs."""
    with parallel_config("workerbee", executor=executor):
        yield


def test_a_call_runs_in_runners_and_in_order(on_bees: None) -> None:
    """Results come in the order of the calls, from processes that aren't this one."""
    results = Parallel()(delayed(lambda n: (n, os.getpid()))(n) for n in range(20))
    assert [n for n, _ in results] == list(range(20))
    assert os.getpid() not in {pid for _, pid in results}


def test_an_option_view_is_an_executor_too(executor: WorkerbeeExecutor) -> None:
    """Joblib's calls then have these options."""
    with parallel_config("workerbee", executor=executor.with_options(priority=1)):
        assert Parallel()(delayed(abs)(-n) for n in range(4)) == [0, 1, 2, 3]


def test_small_calls_share_jobs(on_bees: None, executor: WorkerbeeExecutor) -> None:
    """Joblib sees how fast the calls are, so that thousands of tiny ones are far fewer jobs."""
    before = executor.progress().completed
    assert sum(Parallel()(delayed(abs)(-n) for n in range(2000))) == 1_999_000
    assert 0 < executor.progress().completed - before < 1000


def test_a_call_goes_on_after_another_of_the_same_block_has_ended(executor: WorkerbeeExecutor) -> None:
    """They share a backend, which knows only the last one."""
    with parallel_config("workerbee", executor=executor):
        results = Parallel(2, return_as="generator", pre_dispatch=2, verbose=10)(delayed(abs)(-n) for n in range(2000))
        assert Parallel(2)(delayed(abs)(-n) for n in range(4)) == [0, 1, 2, 3]
        assert sum(results) == 1_999_000


def test_an_error_keeps_its_type_and_its_traceback(on_bees: None) -> None:
    """What a call raises arrives as itself, with the remote traceback as its cause."""

    def fail(code: int) -> None:
        raise OddError(code, where="a bee")

    with pytest.raises(OddError) as caught:
        Parallel()(delayed(fail)(n) for n in (7,))
    assert caught.value.code == 7
    assert "in fail" in str(caught.value.__cause__)


def test_the_backend_goes_on_after_an_error(database: Database) -> None:
    """A failed call cancels its own work, and no other."""
    with WorkerbeeExecutor(2, dsn=database.dsn) as executor, parallel_config("workerbee", executor=executor):
        with pytest.raises(ValueError, match="invalid literal"):
            Parallel()(delayed(int)(text) for text in "1234x")
        assert Parallel()(delayed(int)(text) for text in "123") == [1, 2, 3]


def test_an_argument_that_cannot_be_pickled_is_an_error_of_the_call(database: Database) -> None:
    """Also when joblib submits it late, from a callback: the call raises instead of waiting for ever."""
    arguments = [*range(50), threading.Lock()]
    with (
        WorkerbeeExecutor(2, dsn=database.dsn) as executor,
        parallel_config("workerbee", executor=executor),
        pytest.raises(EncodingError, match="lock"),
    ):
        Parallel(batch_size=1)(delayed(repr)(argument) for argument in arguments)


@pytest.mark.parametrize("return_as", ["generator", "generator_unordered"])
def test_results_stream(on_bees: None, return_as: str) -> None:
    """Results can be had one by one, before the last call is drawn from its generator."""
    drawn: list[int] = []
    calls = (delayed(lambda n: n)(drawn.append(n) or n) for n in range(1000))
    results = Parallel(n_jobs=2, batch_size=1, return_as=return_as)(calls)
    first = next(results)
    assert len(drawn) < 1000
    rest = list(results)
    assert sorted([first, *rest]) == list(range(1000))
    assert return_as == "generator_unordered" or [first, *rest] == list(range(1000))


def test_a_call_that_takes_too_long_is_killed(database: Database, tmp_path: Path) -> None:
    """``timeout`` raises TimeoutError, and the runners are free for the next call."""

    def linger(n: int) -> None:
        Path(tmp_path, str(n)).write_text(str(os.getpid()))
        time.sleep(60)

    with WorkerbeeExecutor(2, dsn=database.dsn) as executor, parallel_config("workerbee", executor=executor):
        assert Parallel()(delayed(abs)(n) for n in (-1,)) == [1]
        with pytest.raises(multiprocessing.TimeoutError):  # joblib's
            Parallel(timeout=0.5)(delayed(linger)(n) for n in range(4))
        pids = [int(path.read_text()) for path in tmp_path.iterdir()]
        eventually(lambda: not any(map(psutil.pid_exists, pids)), what="the end of the jobs that joblib gave up")
        assert Parallel()(delayed(abs)(n) for n in (-2,)) == [2]


def nested(n: int) -> tuple[list[int], str]:
    """A call that makes calls of its own."""
    pool = Parallel(n_jobs=2)
    return pool(delayed(pow)(n, m) for m in range(3)), type(pool._backend).__name__


def test_nested_calls_stay_in_their_runner(on_bees: None) -> None:
    """With every runner busy with a call that makes calls, nothing waits for anything: they run in threads."""
    results = Parallel()(delayed(nested)(n) for n in range(8))
    assert results == [([1, n, n * n], "ThreadingBackend") for n in range(8)]


def test_n_jobs(executor: WorkerbeeExecutor) -> None:
    """-1, the default, is every living runner, a positive number is itself, and 0 means nothing."""
    backend = workerbee.joblib.WorkerbeeBackend(executor)
    assert backend.effective_n_jobs(-1) == 2
    assert backend.effective_n_jobs(7) == 7
    with pytest.raises(ValueError, match="n_jobs == 0"):
        backend.effective_n_jobs(0)
    with parallel_config(backend):
        assert joblib.effective_n_jobs() == 2


def test_without_bees_the_call_says_so(database: Database) -> None:
    """Where nobody would ever work, -1 is an error that says what to do; it never runs the calls here."""
    with (
        WorkerbeeExecutor(0, dsn=database.dsn) as executor,
        parallel_config("workerbee", executor=executor, wait_for_bees=0.2),
        pytest.raises(TimeoutError, match="start one"),
    ):
        Parallel()(delayed(os.getpid)() for _ in range(2))


def test_callbacks_report_progress(on_bees: None, capfd: pytest.CaptureFixture[str]) -> None:
    """Joblib's own progress is driven by our futures' callbacks."""
    Parallel(verbose=5, batch_size=1)(delayed(abs)(n) for n in range(10))
    assert "Done  10 out of  10" in capfd.readouterr().err


def test_an_executor_of_its_own_ends_with_it(database: Database) -> None:
    """Options make an executor, and it goes when the configuration does."""
    with parallel_config("workerbee", max_workers=1, dsn=database.dsn):
        (pid,) = set(Parallel()(delayed(os.getpid)() for _ in range(4)))
    eventually(lambda: not psutil.pid_exists(pid), what="the end of the backend's runner")


def test_an_array_is_taken_to_stay_as_it_is_until_its_call_ends(executor: WorkerbeeExecutor, tmp_path: Path) -> None:
    """As with joblib's own backend, which stores it once a call; in the next call it is looked at anew."""

    def at(array: np.ndarray[Any, Any]) -> float:
        return float(array[10_000])

    def changing() -> Iterator[Any]:
        for n in range(4):
            array[10_000] = n  # where no glance falls
            yield delayed(at)(array)

    array, flag = np.zeros(200_000), tmp_path / "flag"
    first = executor.submit(until, flag, array)  # keeps what is stored
    with parallel_config("workerbee", executor=executor), Parallel(2, batch_size=1, pre_dispatch=1) as parallel:
        assert parallel(changing()) == [0, 0, 0, 0]
        assert parallel(delayed(at)(array) for _ in range(2)) == [3, 3]
    flag.touch()
    assert first.result() == 0


def test_large_data_is_no_reason_to_warn(database: Database) -> None:
    """There is no other way to fit a model to it."""
    script = f"""
import joblib, numpy
import workerbee.joblib

if __name__ == "__main__":
    array = numpy.ones(1_500_000)
    with joblib.parallel_config("workerbee", dsn={database.dsn!r}, max_workers=1):
        print(joblib.Parallel()(joblib.delayed(numpy.sum)(array) for _ in range(2)))
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.count("1500000.0") == 2
    assert ended.stderr == ""


def until(flag: Path, array: np.ndarray[Any, Any]) -> float:
    eventually(flag.exists)
    return float(array[10_000])


def test_options_beside_an_executor_are_refused(executor: WorkerbeeExecutor) -> None:
    """Nothing that is said is ignored."""
    with pytest.raises(TypeError, match="max_workers"):
        parallel_config("workerbee", executor=executor, max_workers=3)


def test_threads_of_libraries_can_be_limited(executor: WorkerbeeExecutor) -> None:
    """``inner_max_num_threads`` holds for BLAS in the runners."""

    def threads() -> set[int]:
        np.ones((4, 4)) @ np.ones((4, 4))
        return {library["num_threads"] for library in threadpool_info()}

    with parallel_config("workerbee", executor=executor, inner_max_num_threads=1):
        assert Parallel()(delayed(threads)() for _ in range(2)) == [{1}, {1}]


def test_calls_share_the_cores(executor: WorkerbeeExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    """As loky's workers do, unless the environment says how many threads there are to be."""

    def threads() -> int:
        np.ones((4, 4)) @ np.ones((4, 4))
        return max(library["num_threads"] for library in threadpool_info())

    monkeypatch.setattr(resources, "cores", lambda: 6)
    for name in WorkerbeeBackend.MAX_NUM_THREADS_VARS:
        monkeypatch.delenv(name, raising=False)
    with parallel_config("workerbee", executor=executor, n_jobs=2):
        assert set(Parallel()(delayed(threads)() for _ in range(4))) == {3}
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    with parallel_config("workerbee", executor=executor, n_jobs=2):
        assert 3 not in Parallel()(delayed(threads)() for _ in range(4))


def test_grid_search_finds_what_it_finds_alone(on_bees: None) -> None:
    """scikit-learn's GridSearchCV chooses and scores on bees as it does in one process."""
    features, classes = load_iris(return_X_y=True)
    search = GridSearchCV(SVC(), {"C": [0.1, 1, 10], "gamma": [0.01, 0.1]}, cv=3)
    scores = search.fit(features, classes).cv_results_["mean_test_score"]
    assert search.best_params_ == {"C": 10, "gamma": 0.1}
    assert search.best_score_ == pytest.approx(0.9733, abs=0.01)
    with parallel_config("sequential"):
        alone = search.fit(features, classes).cv_results_["mean_test_score"]
    np.testing.assert_array_equal(scores, alone)


def test_cross_validation_scores(on_bees: None) -> None:
    """cross_val_score of a forest, whose own Parallel is nested in ours."""
    features, classes = load_iris(return_X_y=True)
    forest = RandomForestClassifier(10, random_state=0, n_jobs=2)
    scores = cross_val_score(forest, features, classes, cv=4)
    with parallel_config("sequential"):
        np.testing.assert_array_equal(scores, cross_val_score(forest, features, classes, cv=4))
    assert scores.mean() == pytest.approx(0.95, abs=0.03)
