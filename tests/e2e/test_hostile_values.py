"""Values, exceptions and callbacks that raise, exit, recurse, wait: nothing hangs, and nobody else is harmed."""

from __future__ import annotations

import asyncio
import gc
import itertools
import re
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, as_completed, wait
from contextlib import suppress
from typing import Any

import dask
import pytest
from joblib import Parallel, delayed, parallel_config

import workerbee.joblib
from tests import hostile
from tests.servers import Server
from tests.waiting import eventually
from workerbee import WorkerbeeExecutor
from workerbee.errors import EncodingError

assert workerbee.joblib  # makes joblib's backend known

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]
#: What is given, what holds it, and what is thrown; each with a neighbour.
CALLS = [
    call
    for kind, names in (
        ("give", [cls.__name__ for cls in hostile.VALUES]),
        ("member", [cls.__name__ for cls in hostile.VALUES[::3]]),
        ("throw", [cls.__name__ for cls in [*hostile.ERRORS, *hostile.LEAVING]]),
    )
    for name in names
    for call in ((kind, name), ("plain", name))
]
PATIENCE = 60
HARMLESS = [("plain", "before"), ("give", "StrFailValue")]


@pytest.fixture(scope="module", params=["temporary", "durable"])
def executor(request: pytest.FixtureRequest, server: Server) -> Iterator[WorkerbeeExecutor]:
    database = server.new_database()
    jobset_id = None if request.param == "temporary" else "hostile"
    with WorkerbeeExecutor(2, dsn=database.dsn, jobset_id=jobset_id) as running:
        running.submit(int).result()
        yield running
    database.drop()
    gc.collect()  # what raises when it is freed is freed here, and not in another test


def is_unharmed(executor: WorkerbeeExecutor) -> bool:
    """Whether it goes on."""
    return executor.submit(divmod, 7, 2).result(PATIENCE) == (3, 1)


def outcome(future: Future[Any]) -> str:
    """How a future has ended: a value's class, or an exception's."""
    try:
        error = future.exception(PATIENCE)
    except CancelledError:
        return "cancelled"
    return type.__getattribute__(type(future.result() if error is None else error), "__name__")


def expected(call: tuple[str, str], got: str) -> bool:
    """Whether a call may end like this: as what it says, or as what took its place."""
    kind, name = call
    if kind == "plain":
        return got == "int"
    stands_for_it = {"RemoteError", "EncodingError", "ValueError", "RecursionError"}
    return got in ({name, "dict"} | stands_for_it if kind == "member" else {name} | stands_for_it)


def test_futures_end(executor: WorkerbeeExecutor) -> None:
    """By submit and wait and as_completed: each as it should, neighbours too, and their repr can be shown."""
    futures = {executor.submit(hostile.act, call): call for call in CALLS}
    assert not wait(list(futures), PATIENCE).not_done
    wrong = {call: got for f, call in futures.items() if not expected(call, got := outcome(f))}
    assert not wrong
    assert all(map(repr, as_completed(futures, PATIENCE)))
    assert is_unharmed(executor)


def test_map_gives_each_in_its_place(executor: WorkerbeeExecutor) -> None:
    """One job a call, and in a temporary jobset some calls a job: an error ends the iterator, and is its own call's."""
    for chunksize in (1, 4):
        for worst in [("throw", "EqLeaveError"), ("throw", "SystemExit"), ("give", "SetstateLeaveValue")]:
            calls = [*HARMLESS, worst, ("plain", "after")]
            given = executor.map(hostile.act, calls, chunksize=chunksize, timeout=PATIENCE)
            assert [type(value).__name__ for value in itertools.islice(given, len(HARMLESS))] == ["int", "StrFailValue"]
            with pytest.raises(Exception) as caught:
                next(given)
            assert not isinstance(caught.value, (StopIteration, TimeoutError))
    assert is_unharmed(executor)


def test_results_are_read(executor: WorkerbeeExecutor) -> None:
    """Each row has what its future had, or says why not."""
    wait([executor.submit(hostile.act, call) for call in CALLS[:200]], PATIENCE)
    rows = list(executor.results(on_error="return"))
    assert len(rows) >= len({*CALLS[:200]})
    assert all(row["status"] in ("completed", "failed") for row in rows)


def test_results_with_hostile_keys_are_read(executor: WorkerbeeExecutor) -> None:
    """Keys that act when they are compared: such a dict stays whole, as the job's result."""
    wait([executor.submit(hostile.keyed, act) for act in hostile.KEYS], PATIENCE)
    rows = list(executor.results(hostile.keyed))
    assert [row["status"] for row in rows] == ["completed"] * len(hostile.KEYS)
    assert [len(row.get("result", row)) for row in rows if "b" not in row] == [2] * 5  # the others act and go on
    assert is_unharmed(executor)


def test_asyncio_awaits(executor: WorkerbeeExecutor) -> None:
    """Every awaitable ends, and the loop goes on."""
    calls = CALLS

    async def gathered() -> list[Any]:
        loop = asyncio.get_running_loop()
        waiting = [loop.run_in_executor(executor, hostile.act, call) for call in calls]
        return await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), PATIENCE)

    got = asyncio.run(gathered())
    assert [type(value) for value, call in zip(got, calls, strict=True) if call[0] == "plain"] == [int] * (
        len([call for call in calls if call[0] == "plain"])
    )
    by_call = dict(zip(calls, got, strict=True))
    assert isinstance(by_call["throw", "StopIteration"], RuntimeError), "as later versions of asyncio raise"
    assert is_unharmed(executor)


def test_arguments_end_too(executor: WorkerbeeExecutor) -> None:
    """What can't be sent is raised by submit; all else runs, or fails alone."""
    futures = []
    interrupted = set()
    for cls in hostile.VALUES:
        for value in (cls("x"), [cls("x")]):
            try:
                futures.append(executor.submit(hostile.hold, value))
            except EncodingError:
                continue
            except KeyboardInterrupt:
                interrupted.add(cls.__name__)
    # Whose interrupts could be the user's own; an attribute that is missing is asked for by Python 3.10's pickle.
    assert interrupted <= {"ReduceInterruptValue", "ClassInterruptValue", "GetattrInterruptValue"}
    assert not wait(futures, PATIENCE).not_done
    assert {outcome(future) for future in futures} <= {"int", "RemoteError", "ValueError", "RecursionError"}
    assert is_unharmed(executor)


@pytest.mark.parametrize("act", hostile.ACTS, ids=lambda act: act.__name__)
def test_callbacks_harm_nobody(executor: WorkerbeeExecutor, act: Callable[[], None]) -> None:
    """Whatever one does, the others are called, and all futures end."""
    called: list[int] = []
    futures = [executor.submit(divmod, n, 7) for n in range(60)]
    for future in futures[::20]:
        with suppress(BaseException):  # of a future that has ended it is called here and now, as any future does
            future.add_done_callback(lambda _: act())
    for future in futures:
        future.add_done_callback(lambda _: called.append(1))
    assert not wait(futures, PATIENCE).not_done
    eventually(lambda: len(called) == len(futures), PATIENCE)
    assert is_unharmed(executor)


def test_a_callback_can_wait(executor: WorkerbeeExecutor) -> None:
    """For a second future, for another's callback, and for ever: the rest goes on without it."""
    told, for_ever = threading.Event(), threading.Event()
    got: list[Any] = []
    first, second, third = (executor.submit(divmod, n, 5) for n in range(3))
    first.add_done_callback(lambda _: got.append(executor.submit(divmod, 7, 2).result(PATIENCE)))
    second.add_done_callback(lambda _: got.append(told.wait(PATIENCE)))
    third.add_done_callback(lambda _: for_ever.wait(2 * PATIENCE))
    executor.submit(divmod, 8, 3).add_done_callback(lambda _: told.set())
    eventually(lambda: len(got) == 2, PATIENCE)
    assert is_unharmed(executor)
    for_ever.set()


def test_one_that_leaves_among_thousands(executor: WorkerbeeExecutor) -> None:
    """The futures that end together with one whose callback exits."""
    futures = [executor.submit(divmod, n, 7) for n in range(3000)]
    with suppress(SystemExit):  # as above
        futures[1500].add_done_callback(lambda _: sys.exit())
    assert not wait(futures, PATIENCE).not_done
    assert is_unharmed(executor)


#: Without those that end whoever looks at them: libraries do.
LIBRARY = [cls.__name__ for cls in hostile.ERRORS if not re.search("Interrupt|Leave|End", cls.__name__)]


@pytest.mark.parametrize("library", ["dask", "joblib"])
def test_libraries_end(executor: WorkerbeeExecutor, library: str) -> None:
    """Their calls return what is given, or raise."""

    def compute(how: str, names: list[str]) -> list[Any]:
        if library == "dask":
            work = [dask.delayed(hostile.act, pure=False)((how, name)) for name in names]
            return list(dask.compute(*work, scheduler=executor))
        with parallel_config("workerbee", executor=executor):
            return list(Parallel(n_jobs=2)(delayed(hostile.act)((how, name)) for name in names))

    assert [type(v).__name__ for v in compute("give", ["StrFailValue", "EqLeaveValue"])] == [
        "StrFailValue",
        "EqLeaveValue",
    ]
    for name in LIBRARY[::8]:
        with pytest.raises(Exception):  # noqa: B017 (libraries make their own of some)
            compute("throw", [name, name])
    assert compute("plain", ["a", "bc"]) == [1, 2]
    assert is_unharmed(executor)
