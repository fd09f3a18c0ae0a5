"""`submit`: how calls are taken, and what of them comes back."""

from __future__ import annotations

import builtins
import copy
import os
import pickle
import threading
import traceback
from concurrent.futures import Executor, Future
from typing import Any

import numpy as np
import pytest

from tests.contract import jobs
from tests.contract.conftest import OURS
from workerbee import WorkerbeeExecutor
from workerbee.errors import EncodingError, RemoteError

BY_PROCESS = ["processes", *OURS]


def test_a_result_comes_back(pool: Executor) -> None:
    """The future of a call is a Future, and has its result."""
    future = pool.submit(jobs.mul, 2, 8)
    assert isinstance(future, Future)
    assert future.result() == 16


def test_every_keyword_is_the_functions_own(pool: Executor) -> None:
    """``submit`` has no keyword of its own, ``self`` and ``fn`` included."""
    everything = {"self": 1, "fn": 2, "timeout": 3, "priority": 4, "chunksize": 5}
    assert pool.submit(jobs.capture, 6, **everything).result() == ((6,), everything)


def test_the_function_is_positional(pool: Executor) -> None:
    """``fn=`` alone is no function to call."""
    with pytest.raises(TypeError):
        pool.submit(fn=jobs.mul, x=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        pool.submit()  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "value",
    [
        None,
        2**80,
        -0.0,
        float("inf"),
        "\0\ud800",
        b"\xff",
        (1, [2, (3,)]),
        {1: {2.5}},
        {"a": [1, None]},
        frozenset("a"),
    ],
    ids=repr,
)
def test_values_come_back_as_they_were(pool: Executor, value: Any) -> None:
    """Equal and of the same type, whether JSON has a word for them or not."""
    ((came,), _) = pool.submit(jobs.capture, value).result()
    assert came == value
    assert repr(came) == repr(value)


def test_arrays_come_back_as_they_were(pool: Executor) -> None:
    """Type, shape and contents of an array."""
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    ((came,), _) = pool.submit(jobs.capture, array).result()
    assert came.dtype == array.dtype
    assert (came == array).all()


@pytest.mark.parametrize("kind", BY_PROCESS)
def test_jobs_run_elsewhere(pool: Executor) -> None:
    """A call runs in another process."""
    assert pool.submit(os.getpid).result() != os.getpid()


@pytest.mark.parametrize("kind", OURS)
def test_functions_of_here_travel(pool: Executor) -> None:
    """Closures, lambdas and local classes need no module there, unlike a process pool's."""
    base = 3

    class Local:
        def __call__(self, n: int) -> int:
            return base**n

    assert pool.submit(lambda n: base + n, 4).result() == 7
    assert pool.submit(Local(), 2).result() == 9
    assert pool.submit(jobs.Plain("here").method).result() == "here"


def test_many_threads_submit_at_once(pool: Executor) -> None:
    """No call is lost or mixed up."""
    results: dict[int, list[int]] = {}

    def submit_some(n: int) -> None:
        futures = [pool.submit(jobs.mul, n, m) for m in range(50)]
        results[n] = [future.result() for future in futures]

    threads = [threading.Thread(target=submit_some, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {n: [n * m for m in range(50)] for n in range(8)}


# Errors


def test_an_error_is_the_functions_own(pool: Executor) -> None:
    """Type and arguments of an exception are kept."""
    future = pool.submit(jobs.reciprocal, 0)
    with pytest.raises(ZeroDivisionError, match="division by zero"):
        future.result()
    assert isinstance(future.exception(), ZeroDivisionError)


@pytest.mark.parametrize("kind", BY_PROCESS)
def test_an_error_brings_its_traceback(pool: Executor) -> None:
    """What is printed shows the line that raised, over there."""
    error = pool.submit(jobs.reciprocal, 0).exception()
    assert error is not None
    shown = "".join(traceback.format_exception(error))
    assert "in reciprocal" in shown
    assert "return 1 / x" in shown


@pytest.mark.parametrize("kind", OURS)
def test_an_error_says_where_it_happened(pool: Executor) -> None:
    """Job, attempt, bee and host are noted with it."""
    error = pool.submit(jobs.reciprocal, 0).exception()
    assert error is not None
    text = " ".join(getattr(error, "__notes__", [])) or str(error.__cause__)
    for what in ("job ", "attempt 1", "bee ", f"host {os.uname().nodename}"):
        assert what in text


@pytest.mark.parametrize("kind", OURS)
def test_a_picky_exception_comes_back(pool: Executor) -> None:
    """One whose constructor wants other arguments than it keeps; a process pool breaks by it."""
    with pytest.raises(jobs.PickyError, match="7 at home") as caught:
        pool.submit(jobs.fail_picky).result()
    assert caught.value.code == 7


def test_what_is_no_exception_but_more_comes_back(pool: Executor) -> None:
    """A BaseException of the user's, and a group with one, are what they were."""
    given: list[BaseException] = [jobs.GivenUp("no licence", 3)]
    if group := getattr(builtins, "BaseExceptionGroup", None):
        given.append(group("some", [jobs.GivenUp("no licence", 3), ValueError(1)]))
    for error in given:
        again = pool.submit(jobs.throw, error).exception()
        assert type(again) is type(error)
        assert repr(again) == repr(error)


@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize("how", ["exit", "interrupt"])
def test_what_would_end_an_interpreter_arrives_as_an_error(pool: Executor, how: str) -> None:
    """Agreed difference: SystemExit and KeyboardInterrupt of a job are a RemoteError, and the runner goes on."""
    with pytest.raises(RemoteError, match="SystemExit: 3" if how == "exit" else "KeyboardInterrupt"):
        pool.submit(jobs.leave_by, how).result()
    assert pool.submit(jobs.mul, 2, 3).result() == 6


@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize("what", [jobs.Unpicklable(), threading.Lock()], ids=["own", "lock"])
def test_what_cannot_be_stored_is_refused_at_once(pool: Executor, what: object) -> None:
    """Agreed difference: ``submit`` itself raises, in the stack of whoever made the mistake."""
    with pytest.raises(EncodingError) as caught:
        pool.submit(jobs.capture, what)
    assert isinstance(caught.value, pickle.PicklingError)
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize("kind", OURS)
def test_arguments_that_do_not_load_fail_their_job_alone(pool: Executor) -> None:
    """A process pool breaks by them."""
    with pytest.raises(LookupError, match="poison"):
        pool.submit(jobs.capture, jobs.Poison()).result()
    assert pool.submit(jobs.mul, 2, 3).result() == 6


@pytest.mark.parametrize("kind", BY_PROCESS)
def test_a_result_that_cannot_be_stored_fails_its_job(pool: Executor) -> None:
    """The error says that it was the result."""
    with pytest.raises(TypeError, match="stays here"):
        pool.submit(jobs.make_unpicklable).result()


@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize(("poison", "error"), [(LookupError, LookupError), (SystemExit, RemoteError)])
def test_a_result_that_does_not_load_fails_its_future(
    pool: Executor, poison: type[BaseException], error: type[Exception]
) -> None:
    """Neither the executor nor this process ends by it; a process pool breaks."""
    with pytest.raises(error, match="poison"):
        pool.submit(jobs.make_poison, poison).result()
    assert pool.submit(jobs.mul, 2, 3).result() == 6


def test_an_executor_is_not_pickled(pool: Executor) -> None:
    """Nor copied: it is bound to its process."""
    with pytest.raises(TypeError):
        pickle.dumps(pool)


@pytest.mark.parametrize("kind", OURS)
def test_what_belongs_to_this_process_is_a_stub_in_a_job(pool: WorkerbeeExecutor) -> None:
    """An executor, a view, a future and a method, wherever they are: a stub says what it is, and what to do."""
    future = pool.submit(jobs.mul, 2, 3)

    class Holder:
        held = pool

        def use(self) -> tuple[str, str]:
            return repr(self.held), jobs.refusal(self.held, "submit")

    for given in (pool, pool.with_options(priority=1)):
        assert pool.submit(jobs.refusal, given, "map").result().startswith("AttributeError: an executor of ")
    assert "pass its result()" in pool.submit(jobs.refusal, future, "result").result()
    assert "can't be called here" in pool.submit(jobs.refusal, pool.submit, "__call__").result()
    assert pool.submit(lambda: (repr(future), jobs.refusal(pool, "__enter__")[:9])).result() == (
        "<stub of the future of a job>",
        "TypeError",
    )
    seen, refusal = pool.submit(Holder().use).result()
    assert seen.startswith("<stub of an executor of ")
    assert "has no submit here: inside a job, make another one" in refusal
    (held,), _ = pool.submit(jobs.capture, [{"a": future}]).result()
    assert repr(held) == "[{'a': <stub of the future of a job>}]"
    for mine in (pool, future, pool.with_options(priority=1)):
        with pytest.raises(TypeError, match="can't be pickled; "):
            copy.copy(mine)
