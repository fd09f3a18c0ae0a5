"""Durable jobsets: what is the same call, what is run anew, and reading what is stored."""

from __future__ import annotations

import datetime as dt
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, wait
from contextlib import closing
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pandas as pd
import psycopg2
import pytest

from tests.contract import jobs
from tests.contract.conftest import Gate, Open
from tests.servers import Database
from tests.waiting import eventually
from workerbee import JobFailedError, WorkerbeeExecutor
from workerbee.client.cancelling import PAGE_PATIENCE_SECONDS
from workerbee.errors import SignatureError


@pytest.fixture
def busy(reopen: Open, gate: Gate) -> WorkerbeeExecutor:
    """An executor of that jobset, whose only runner is held until the gate opens."""
    executor = reopen()
    executor.submit(jobs.hold, gate.path)
    gate.holds(1)
    return executor


def defined(source: str) -> Any:
    """The function ``f`` of a source, as a script defines it."""
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(dedent(source), space)
    return space["f"]


def test_duplicates_in_one_map_are_one_job(reopen: Open, tmp_path: Path) -> None:
    """Every future resolves, and the function runs once a call."""
    path = tmp_path / "ran"
    executor = reopen()
    assert list(executor.map(jobs.note, [str(path)] * 6, [1, 2, 1, 2, 1, 3])) == [1, 2, 1, 2, 1, 3]
    assert sorted(jobs.noted(path)) == ["1", "2", "3"]
    assert executor.progress().added == 3


def test_the_next_map_runs_only_what_is_missing(reopen: Open, tmp_path: Path) -> None:
    """Also in another process, and in another order."""
    path = tmp_path / "ran"
    with reopen() as executor:
        assert list(executor.map(jobs.note, [str(path)] * 3, range(3))) == [0, 1, 2]
    assert list(reopen().map(jobs.note, [str(path)] * 5, [4, 2, 1, 0, 3])) == [4, 2, 1, 0, 3]
    assert sorted(jobs.noted(path)) == list("01234")


def test_results_are_there_without_a_bee(reopen: Open) -> None:
    """A call that has run is attached to."""
    with reopen() as executor:
        executor.submit(jobs.mul, 2, y=3).result()
    assert reopen(0).submit(jobs.mul, 2, y=3).result() == 6


def test_processes_that_submit_at_once_share_jobs(reopen: Open, shared: Database, tmp_path: Path) -> None:
    """Overlapping calls of three processes, in different orders, run once each."""
    path = tmp_path / "ran"
    executor = reopen(2)
    program = """
        import random, sys
        from tests.contract import jobs
        from workerbee import WorkerbeeExecutor
        dsn, jobset_id, path = sys.argv[1:]
        numbers = random.sample(range(60), 60)
        with WorkerbeeExecutor(0, dsn=dsn, jobset_id=jobset_id) as executor:
            assert list(executor.map(jobs.note, [path] * 60, numbers)) == numbers
    """
    arguments = [shared.dsn, str(executor._client.jobset.id), str(path)]
    clients = [subprocess.Popen([sys.executable, "-c", dedent(program), *arguments]) for _ in range(3)]
    assert [client.wait(60) for client in clients] == [0, 0, 0]
    assert sorted(map(int, jobs.noted(path))) == list(range(60))


def test_what_is_not_json_is_a_job_each_time(reopen: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And that is said once."""
    path = tmp_path / "ran"
    with caplog.at_level(logging.INFO, "workerbee"):
        executor = reopen()
        for _ in range(3):
            executor.submit(jobs.note, str(path), (1,)).result()
    assert len(jobs.noted(path)) == 3
    assert caplog.text.count("arguments that aren't exactly JSON") == 1


def test_one_and_one_point_zero_are_two(reopen: Open) -> None:
    """As are True and 1: identity is exact."""
    values = [1, 1.0, True, "1"]
    assert [repr(r) for r in reopen().map(jobs.plain_value, values)] == list(map(repr, values))


def test_cancelling_one_future_of_a_job_leaves_the_other(busy: WorkerbeeExecutor, gate: Gate) -> None:
    """The job is cancelled only with its last future."""
    one, other = busy.submit(jobs.mul, 2, 3), busy.submit(jobs.mul, 2, 3)
    assert one.cancel()
    gate.open()
    assert other.result() == 6
    with pytest.raises(CancelledError):
        one.result()


def test_cancelling_waits_for_no_call_but_its_own(
    reopen: Open, shared: Database, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is stored is cancelled meanwhile; what can't be stored in time is not, and runs."""
    executor = reopen()
    held = executor.submit(jobs.hold, gate.path)
    gate.holds(1)
    with closing(psycopg2.connect(shared.dsn)) as other:
        other.cursor().execute(f'LOCK TABLE workerbee."job${executor._client.jobset.number}" IN EXCLUSIVE MODE')
        late = executor.submit(jobs.mul, 2, 3)
        eventually(lambda: not late.queued)
        began = time.monotonic()
        assert executor.cancel_running([held]) == 1
        assert time.monotonic() - began < PAGE_PATIENCE_SECONDS / 2
        monkeypatch.setattr("workerbee.client.cancelling.PAGE_PATIENCE_SECONDS", 0.5)
        assert executor.cancel_running([late]) == 0
        assert not late.cancel()
        executor._client._cancelling.cancel_waiting([late])
    assert late.result(30) == 6
    assert held.cancelled()


def test_shutdown_lets_go_of_what_others_have_brought(reopen: Open) -> None:
    """``cancel_futures``: a call that was a job already is waited for no more, and stays one."""
    first = reopen(0)
    theirs = [first.submit(jobs.mul, n, n) for n in range(3)]
    first.flush()
    second = reopen(0)
    ours = [second.submit(jobs.mul, n, n) for n in range(3)]
    second.flush()
    second.shutdown(cancel_futures=True)
    assert all(future.cancelled() for future in ours)
    reopen(1)
    assert [future.result(30) for future in theirs] == [0, 1, 4]


def test_a_job_of_another_process_is_not_cancelled(reopen: Open, busy: WorkerbeeExecutor, gate: Gate) -> None:
    """Only who brought a job may cancel it; anybody else's future alone is cancelled."""
    mine = busy.submit(jobs.mul, 2, 3)
    busy.flush()
    guest = reopen(0)
    theirs = guest.submit(jobs.mul, 2, 3)
    guest.flush()
    assert theirs.cancel()
    gate.open()
    assert mine.result() == 6


def test_a_cancelled_job_is_cancelled_everywhere(reopen: Open, busy: WorkerbeeExecutor, gate: Gate) -> None:
    """A future elsewhere raises CancelledError."""
    mine = busy.submit(jobs.mul, 2, 3)
    busy.flush()
    guest = reopen(0)
    theirs = guest.submit(jobs.mul, 2, 3)
    guest.flush()
    assert mine.cancel()
    with pytest.raises(CancelledError):
        theirs.result(timeout=10)


def test_a_whole_jobset_is_cancelled_by_anybody(busy: WorkerbeeExecutor, reopen: Open, gate: Gate) -> None:
    """What waits and what runs, whoever brought it, and what isn't stored yet; or the jobs of one function."""
    held = busy._client._ledger.futures()
    waiting = [busy.submit(jobs.mul, n, n) for n in range(450)] + [busy.submit(jobs.plain_value, 7)]
    busy.flush()
    guest = reopen(0)
    assert guest.cancel(jobs.mul, version="none such") == 0
    assert guest.cancel("plain_value") == 1
    wait(waiting[-1:], 30)
    assert [future.cancelled() for future in waiting[-2:]] == [False, True]
    theirs = guest.submit(jobs.mul, -1, -1)
    assert guest.cancel() >= 451
    assert busy.cancel() == 0
    wait([*held, *waiting, theirs], 30)
    assert all(future.cancelled() for future in [*held, *waiting, theirs])
    assert busy.progress() in [(0, 0, 0, 0, n) for n in (452, 453)]  # the last may not have been stored
    assert busy.submit(jobs.mul, 2, 3).result(30) == 6  # and the runner is free


def test_a_failed_call_is_run_anew_when_it_is_submitted_again(reopen: Open, tmp_path: Path) -> None:
    """A new run of the same job."""
    path = tmp_path / "ran"
    executor = reopen()
    with pytest.raises(RuntimeError, match="run 1"):
        executor.submit(jobs.note_and_fail, str(path), 1).result()
    assert executor.submit(jobs.note_and_fail, str(path), 1).result() == 2
    assert executor.progress().added == 1


def test_a_cancelled_call_is_run_anew_when_it_is_submitted_again(busy: WorkerbeeExecutor, gate: Gate) -> None:
    """And its first future stays cancelled."""
    future = busy.submit(jobs.mul, 2, 3)
    busy.flush()
    assert future.cancel()
    again = busy.submit(jobs.mul, 2, 3)
    gate.open()
    assert again.result() == 6
    assert future.cancelled()


def test_what_was_opened_again_is_cancelled_like_what_was_added(busy: WorkerbeeExecutor, gate: Gate) -> None:
    """Whoever opens a run cancels its job, and not the future alone."""
    busy.submit(jobs.mul, 2, 3)
    busy.flush()
    busy.cancel(jobs.mul)
    again = [busy.submit(jobs.mul, 2, 3), busy.submit(jobs.mul, 2, 4)]
    busy.flush()
    assert [future.cancel() for future in again] == [True, True]
    assert busy.progress().cancelled == 2


def test_retry_runs_just_the_failures(reopen: Open, tmp_path: Path) -> None:
    """Their futures wait for them, and so does shutdown."""
    paths = [str(tmp_path / name) for name in "abc"]
    executor = reopen()
    wait([executor.submit(jobs.note_and_fail, path, n) for n, path in enumerate(paths)])
    one, two = executor.retry()
    assert one.result(30) == 2
    with pytest.raises(RuntimeError, match="run 2"):
        two.result(30)
    assert [len(jobs.noted(Path(path))) for path in paths] == [1, 2, 2]


def test_a_retry_has_the_options_of_what_it_is_called_on(reopen: Open) -> None:
    """What hung before, and was killed, is killed again."""
    executor = reopen()
    hasty = executor.with_options(timeout=0.2)
    with pytest.raises(TimeoutError):
        hasty.submit(time.sleep, 1000).result(30)
    [future] = hasty.retry()
    with pytest.raises(TimeoutError):
        future.result(30)
    assert (executor.progress().failed, executor.events().failed) == (1, 2)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("def f(x): return x", "def f(x): return x + 1"),
        ("def g(x): return x\ndef f(x): return g(x)", "def g(x): return x + 1\ndef f(x): return g(x)"),
        ("k = 0\ndef f(x): return x + k", "k = 1\ndef f(x): return x + k"),
    ],
    ids=["code", "helper", "global"],
)
def test_a_changed_function_computes_anew(
    reopen: Open, before: str, after: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One line says what changed, and how many results are left aside."""
    executor = reopen()
    assert list(executor.map(defined(before), range(3))) == [0, 1, 2]
    with caplog.at_level(logging.WARNING, "workerbee"):
        assert list(executor.map(defined(after), range(3))) == [1, 2, 3]
    lines = [record.getMessage() for record in caplog.records if "has changed" in record.getMessage()]
    assert len(lines) == 1
    assert "3 stored results" in lines[0]
    assert list(executor.map(defined(before), range(3))) == [0, 1, 2]
    assert executor.progress().added == 6


def test_a_reformatted_function_is_the_same(reopen: Open) -> None:
    """Comments, lines and docstrings don't count."""
    executor = reopen()
    executor.submit(defined("def f(x): return [x]"), 1).result()
    executor.submit(defined('\n\ndef f(x):\n  "Say."\n  # why\n  return [x]'), 1).result()
    assert executor.progress().added == 1


# Reading


def test_results_come_in_the_order_of_submission(reopen: Open) -> None:
    """One flat dict a job; failures only on request, with their exception."""
    executor = reopen()
    wait([executor.submit(jobs.measure, {"id": n, "size": n}) for n in range(4)])
    rows = list(executor.results())
    assert [row["id"] for row in rows] == [1, 2, 3]
    assert rows[0] == {"job_id": rows[0]["job_id"], "status": "completed", "id": 1, "size": 1, "output_size": 1.0}
    everything = list(executor.results(on_error="return"))
    assert [row["status"] for row in everything] == ["failed", *["completed"] * 3]
    assert isinstance(everything[0]["error"], ZeroDivisionError)
    with pytest.raises(ValueError, match="on_error"):
        executor.results(on_error="ignore")


def test_results_lose_no_key(reopen: Open) -> None:
    """Whatever a call names its values: ours keep their names, and each of its own is there."""
    executor = reopen()
    executor.submit(jobs.plain_value, {"job_id": "mine", "status": 2, "input_status": 3}).result()
    executor.submit(len, {"result": 4}).result()
    wait([executor.submit(jobs.measure, {"size": 0, "error": 5})])
    one, two, three = executor.results(all=True, on_error="return")
    assert isinstance(one.pop("job_id"), int)
    assert one == {
        "status": "completed",
        "input_job_id": "mine",
        "input_status": 2,
        "input_input_status": 3,
        "output_job_id": "mine",
        "output_status": 2,
        "output_input_status": 3,
    }
    assert (two["result"], two["output_result"]) == (4, 1)
    assert three["error"] == 5
    assert isinstance(three["output_error"], ZeroDivisionError)


def test_results_are_those_of_one_function_as_it_is_now(reopen: Open, caplog: pytest.LogCaptureFixture) -> None:
    """Of another, of a version, or of all, when asked; here or in another process, which sees what was added last."""
    executor = reopen()
    old, new = (defined(f"def f(x): return x + {n}") for n in (0, 10))
    two = executor.with_options(version="two")
    for view, fn in ((executor, jobs.plain_value), (executor, old), (executor, new), (two, new)):
        wait([view.submit(fn, n) for n in range(2)])
    executor.submit(new, 0).result()

    def values(*args: Any, **options: Any) -> list[Any]:
        return [row["result"] for row in executor.results(*args, **options)]

    assert values() == values(new) == [10, 11]
    assert values(old) == [0, 1]
    assert values(version="two") == values(new, version="two") == [r["result"] for r in two.results()] == [10, 11]
    assert values(jobs.plain_value) == values("plain_value") == [0, 1]
    assert values("f") == [10, 11]  # the last version of that name
    assert values(new, all=True) == [0, 1, 10, 11, 10, 11]
    assert values(all=True) == [0, 1, 0, 1, 10, 11, 10, 11]
    caplog.clear()
    assert values(len) == []
    assert "there is no job of builtins:len as it is now; 4 other functions or versions" in caplog.text
    assert [(r["result"], r["version"]) for r in reopen(0).results(columns=["version"])] == [(10, "two"), (11, "two")]
    hidden = [row["version"] for row in executor.results(columns="version")]
    assert values(version=hidden[0]) == [10, 11]


def test_results_say_where_and_when_on_request(reopen: Open, tmp_path: Path) -> None:
    """Also when the bee that did it is gone; a key of the user's stays beside ours."""
    with reopen() as executor:
        executor.submit(jobs.measure, {"size": 2, "host": "mine"}).result()
        executor.submit(jobs.note_and_ask_again, str(tmp_path / "a"), 1).result()
        wait([executor.submit(jobs.measure, {"size": 0})])
    columns = ["function", "version", "attempt", "host", "started", "finished", "duration"]
    one, two, three = reopen(0).results(all=True, on_error="return", columns=columns)
    assert list(one)[:9] == ["job_id", "status", *columns]
    assert one["function"] == "tests.contract.jobs:measure"
    assert (one["host"], one["input_host"], three["host"]) == (socket.gethostname(), "mine", socket.gethostname())
    assert (one["attempt"], two["attempt"], three["attempt"]) == (1, 2, 1)
    took = one["finished"] - one["started"]
    assert abs(took.total_seconds() - one["duration"]) < 0.001
    assert abs(one["finished"].timestamp() - time.time()) < 60
    with pytest.raises(ValueError, match="'colour'; there are function, version"):
        reopen(0).results(columns=["colour"])


def test_results_can_be_read_in_the_database(reopen: Open, shared: Database) -> None:
    """NumPy's numbers and arrays too, though they come back as they were; who changes what is read is found out."""
    executor = reopen()
    value = {"score": np.float64(0.5), "n": np.int8(3), "grid": np.array([[1, 2], [3, np.nan]]), "pair": (True, "x")}
    large = np.zeros(100_000)
    wait([executor.submit(jobs.plain_value, v) for v in (value, np.arange(3), large, object, np.array([{}]))])
    jobset = executor._client.jobset
    texts = [t for (t,) in shared.execute(f"SELECT output_data FROM workerbee.{jobset.id} ORDER BY id")]
    assert texts == [{"score": 0.5, "n": 3, "grid": [[1, 2], [3, None]], "pair": [True, "x"]}, [0, 1, 2], *[None] * 3]
    found = [row.get("result") for row in executor.results()]
    first = next(iter(executor.results()))
    assert (type(first["score"]), type(first["n"]), first["pair"]) == (np.float64, np.int8, (True, "x"))
    np.testing.assert_array_equal(first["grid"], value["grid"])
    np.testing.assert_array_equal(found[1], np.arange(3))
    np.testing.assert_array_equal(found[2], large)
    shared.execute(f"""UPDATE workerbee."outcome${jobset.number}" SET output = '[9]' WHERE output::text = '[0,1,2]'""")
    assert isinstance(list(executor.results())[1]["error"], SignatureError)


def test_results_make_a_data_frame(reopen: Open) -> None:
    """In one call, in another process, after the executor has ended."""
    with reopen() as executor:
        wait([executor.submit(jobs.measure, {"id": n, "size": n}) for n in range(1, 4)])
    frame = pd.DataFrame(reopen(0).results())
    assert list(frame["output_size"]) == [1.0, 0.5, 1 / 3]
    assert list(pd.DataFrame(executor.results())["id"]) == [1, 2, 3]


# Options


def test_unique_false_makes_every_call_a_job(reopen: Open, tmp_path: Path) -> None:
    """In whatever view."""
    path = tmp_path / "ran"
    view = reopen().with_options(unique=False)
    assert list(view.map(jobs.note, [str(path)] * 3, [1, 1, 1])) == [1, 1, 1]
    assert len(jobs.noted(path)) == 3


def test_a_version_is_part_of_the_call(reopen: Open, tmp_path: Path) -> None:
    """It stands for the code: the same version is the same call, also of changed code."""
    executor = reopen()
    one, two = executor.with_options(version="1"), executor.with_options(version="2")
    assert one.submit(defined("def f(x): return x"), 1).result() == 1
    assert one.submit(defined("def f(x): return -x"), 1).result() == 1
    assert two.submit(defined("def f(x): return -x"), 1).result() == -1


def test_higher_priorities_run_first(busy: WorkerbeeExecutor, gate: Gate, tmp_path: Path) -> None:
    """Then the older ones."""
    path = tmp_path / "order"
    futures = []
    for priority in (0, -5, 7, 3):
        view = busy.with_options(priority=priority)
        futures.append(view.submit(jobs.note_slowly, str(path), priority))
        busy.flush()
    gate.open()
    wait(futures)
    assert jobs.noted(path) == ["7", "3", "0", "-5"]


def test_a_timeout_kills(reopen: Open, gate: Gate) -> None:
    """TimeoutError, not tried again, and the runner is replaced."""
    executor = reopen()
    with pytest.raises(TimeoutError, match=r"longer than its timeout of 0.2 s"):
        executor.with_options(timeout=0.2).submit(jobs.hold, gate.path).result()
    assert gate.count() == 1
    assert executor.submit(jobs.mul, 2, 3).result() == 6


@pytest.mark.parametrize("when", [lambda t: t, lambda t: dt.datetime.fromtimestamp(t, dt.timezone.utc)])
def test_run_at_waits_until_then(reopen: Open, when: Callable[[float], Any]) -> None:
    """Given as seconds since the epoch, or as a datetime with its zone."""
    executor = reopen()
    executor.submit(jobs.mul, 1, 1).result()
    due = time.time() + 0.5
    assert executor.with_options(run_at=when(due)).submit(time.time).result() >= due - 0.01


def test_attempts_have_a_limit(reopen: Open, tmp_path: Path) -> None:
    """``max_n_retry_attempts`` is how many there are in all."""
    executor = reopen()
    with pytest.raises(JobFailedError, match="run 2"):
        executor.with_options(max_n_retry_attempts=2).submit(jobs.note_and_ask_again, str(tmp_path / "a"), 100).result()
    assert len(jobs.noted(tmp_path / "a")) == 2
    assert (
        executor.with_options(max_n_retry_attempts=2).submit(jobs.note_and_ask_again, str(tmp_path / "b"), 1).result()
    )


@pytest.mark.parametrize(
    "options",
    [{"timeout": 0}, {"max_n_retry_attempts": 0}, {"run_at": dt.datetime(2030, 1, 1)}],  # noqa: DTZ001
    ids=str,
)
def test_options_that_make_no_sense_are_refused(reopen: Open, options: dict[str, Any]) -> None:
    """By ``with_options`` itself."""
    with pytest.raises(ValueError, match=next(iter(options))):
        reopen(0).with_options(**options)


def test_a_view_is_an_executor(reopen: Open) -> None:
    """With map, options of its own, and the shutdown of the executor behind it."""
    executor = reopen()
    view = executor.with_options(priority=1).with_options(timeout=30)
    assert list(view.map(jobs.mul, range(3), range(3))) == [0, 1, 4]
    assert view._max_workers == executor._max_workers
    view.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(jobs.mul, 1, 1)


def test_progress_counts(busy: WorkerbeeExecutor, gate: Gate, tmp_path: Path) -> None:
    """What waits, runs, is completed, failed or cancelled, by whomever; each job by its latest run."""
    future = busy.submit(jobs.mul, 1, 1)
    busy.flush()
    assert future.cancel()
    others = [busy.submit(jobs.reciprocal, n) for n in range(3)]
    busy.flush()
    eventually(lambda: busy.progress() == (3, 1, 0, 0, 1))
    gate.open()
    wait(others)
    eventually(lambda: busy.progress() == (0, 0, 3, 1, 1))
    wait([*busy.retry("reciprocal"), *busy.retry("mul")])
    assert busy.progress()._asdict() == {"waiting": 0, "running": 0, "completed": 4, "failed": 1, "cancelled": 0}
    assert (busy.progress().added, busy.events().reopened, busy.events().failed) == (5, 2, 2)


def test_flush_waits_until_all_is_stored(reopen: Open, shared: Database) -> None:
    """What is flushed survives its process."""
    executor = reopen(0)
    for n in range(100):
        executor.submit(jobs.mul, n, n)
    executor.flush()
    assert executor.progress().added == 100
    executor._client.detach_and_close()
    assert sorted(reopen().map(jobs.mul, range(100), range(100))) == [n * n for n in range(100)]
