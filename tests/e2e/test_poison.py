"""Jobs that kill, hang or flood their runner: each is blamed alone, with what is known of its end."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from psycopg2 import sql

from tests import poison
from tests.bees import Bee
from tests.servers import Database
from tests.waiting import eventually
from workerbee import WorkerbeeExecutor
from workerbee.errors import RunnerDiedError


@contextmanager
def employing(database: Database) -> Iterator[WorkerbeeExecutor]:
    """An executor with a local bee of one runner, which misses no heartbeat meanwhile."""
    with WorkerbeeExecutor(1, dsn=database.dsn) as executor:
        yield executor
        # The one is set anew after a gap: they are equal as long as no heartbeat came too late.
        assert database.execute('SELECT served_since = started_at FROM workerbee."bee$"') == [(True,)]


@pytest.fixture
def executor(database: Database) -> Iterator[WorkerbeeExecutor]:
    with employing(database) as executor:
        yield executor


@contextmanager
def stdout_to(fd: int) -> Iterator[None]:
    """Processes started in the block print there."""
    before = os.dup(1)
    os.dup2(fd, 1)
    try:
        yield
    finally:
        os.dup2(before, 1)
        os.close(before)


def among_neighbours(executor: WorkerbeeExecutor, submit: Callable[[], Future[Any]]) -> Future[Any]:
    """The future of a poisonous job that has ended, in the middle of others that came back unharmed."""
    list(executor.map(poison.neighbour, range(20)))  # known to be short, so that the next ones travel together
    before = [executor.submit(poison.neighbour, n) for n in range(10)]
    poisoned = submit()
    after = [executor.submit(poison.neighbour, n) for n in range(10)]
    assert [f.result(60) for f in before + after] == [*range(10), *range(10)]
    poisoned.exception(60)
    return poisoned


def all_of(error: BaseException | None) -> str:
    """What an error says of itself, its notes among it, wherever this version of Python keeps them."""
    return f"{error}\n{getattr(error, '__notes__', '')}\n{error and error.__cause__}"


def attempts(database: Database) -> list[tuple[str, int]]:
    """Kinds of attempts that are recorded in the database's one jobset, and how many of each."""
    [(number,)] = database.execute('SELECT number FROM workerbee."jobset$"')
    table = sql.Identifier("workerbee", f"attempt${number}")
    query = sql.SQL("SELECT kind, count(*)::integer FROM {} GROUP BY kind ORDER BY kind")
    return database.execute(query.format(table))


def gone(pid: int) -> bool:
    with suppress(psutil.Error):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


@pytest.mark.parametrize(
    ("job", "evidence"),
    [
        (poison.segfault, ["SIGSEGV", "here it comes", "Segmentation fault", "in segfault"]),
        (poison.exit_at_once, ["exited with status 7"]),
        (poison.ExitWhenLoaded(), ["exited with status 9"]),
        (poison.devour, ["SIGKILL", "peak memory 3"]),
    ],
)
def test_a_job_that_kills_its_runner_is_blamed_after_three_deaths(
    executor: WorkerbeeExecutor, database: Database, job: Callable[[], None], evidence: list[str]
) -> None:
    """Its future raises, and knows the signal, the peak memory, the last output, the host and the attempt."""
    error = among_neighbours(executor, lambda: executor.submit(job)).exception()
    assert isinstance(error, RunnerDiedError)
    assert isinstance(error, BrokenProcessPool)
    for fact in [*evidence, "peak memory", "attempt 3", f"host {os.uname().nodename}"]:
        assert fact in all_of(error)
    assert attempts(database) == [("died", 3)]


def test_a_job_over_its_memory_limit_fails_alone(executor: WorkerbeeExecutor, database: Database) -> None:
    """What the limit raises is the job's own exception, and costs nobody a runner."""
    error = among_neighbours(executor, lambda: executor.submit(poison.exceed_memory_limit)).exception()
    assert isinstance(error, MemoryError)
    assert attempts(database) == [("error", 1)]


def test_an_endless_job_ends_at_its_timeout(executor: WorkerbeeExecutor, database: Database) -> None:
    """It is killed, never tried again, and its TimeoutError tells what it had printed."""
    endless = executor.with_options(timeout=0.5)
    error = among_neighbours(executor, lambda: endless.submit(poison.loop_for_ever)).exception()
    assert isinstance(error, TimeoutError)
    for fact in ["0.5 s", "round and round", "peak memory", "attempt 1", f"host {os.uname().nodename}"]:
        assert fact in all_of(error)
    assert attempts(database) == [("error", 1)]


def test_a_job_that_holds_the_gil_misses_no_heartbeat(executor: WorkerbeeExecutor) -> None:
    """No thread of its process runs for longer than a lease; its bee, and what is behind it, don't mind."""
    assert among_neighbours(executor, lambda: executor.submit(poison.hold_the_gil, 3.0)).result() == 3.0


def test_a_job_that_prints_without_end_blocks_nobody(database: Database, tmp_path: Path) -> None:
    """100 MB of output pass through the bee while it keeps its heartbeat."""
    printed = tmp_path / "printed"
    with printed.open("wb") as file, stdout_to(file.fileno()), employing(database) as executor:
        assert among_neighbours(executor, lambda: executor.submit(poison.print_much, 100)).result() == 100
        eventually(lambda: printed.stat().st_size > 100_000_000, what="all of the output")


def test_output_that_nobody_reads_blocks_nobody(database: Database) -> None:
    """A full pipe, or a network file system that hangs, is no reason to miss a heartbeat."""
    unread, end = os.pipe()
    with stdout_to(end), employing(database) as executor:
        assert among_neighbours(executor, lambda: executor.submit(poison.print_much, 2)).result() == 2
    os.close(unread)
    os.close(end)


def test_children_of_a_killed_job_end_with_it(executor: WorkerbeeExecutor, tmp_path: Path) -> None:
    """A timeout leaves none of the processes that the job had started."""
    pids = tmp_path / "pids"
    hanging = executor.with_options(timeout=1.0)
    among_neighbours(executor, lambda: hanging.submit(poison.start_children_and_hang, str(pids)))
    children = [int(pid) for pid in pids.read_text().split()]
    assert len(children) == 3
    eventually(lambda: all(map(gone, children)), what="the end of the job's children")


def test_children_that_a_job_leaves_end_with_the_bee(database: Database) -> None:
    """They neither keep the runner from the next jobs nor the executor from its end."""
    with WorkerbeeExecutor(1, dsn=database.dsn) as executor:
        children = among_neighbours(executor, lambda: executor.submit(poison.leave_children, 3)).result()
        assert not any(map(gone, children))
    eventually(lambda: all(map(gone, children)), what="the end of the job's children")


def test_a_forked_child_that_comes_back_is_not_a_second_runner(executor: WorkerbeeExecutor) -> None:
    """Only the parent's return is the job's result, and the child takes no other job."""
    assert among_neighbours(executor, lambda: executor.submit(poison.return_twice)).result() == "the parent"
    assert list(executor.map(poison.neighbour, range(50))) == list(range(50))


@pytest.fixture
def client(database: Database) -> Iterator[WorkerbeeExecutor]:
    """An executor whose bees are the test's."""
    with WorkerbeeExecutor(0, dsn=database.dsn) as executor:
        yield executor


def bees(database: Database) -> dict[int, bool]:
    """The bees that are there, by pid, and whether each rests."""
    return dict(database.execute('SELECT pid, resting FROM workerbee."bee$"'))


def test_a_broken_machine_spoils_no_jobset(database: Database, client: WorkerbeeExecutor) -> None:
    """A bee whose jobs all fail at once leaves the work to those that do well, instead of taking most of it."""
    with Bee(database.dsn, environment={"BROKEN_MACHINE": "1"}) as broken, Bee(database.dsn), Bee(database.dsn):
        eventually(lambda: len(bees(database)) == 3)
        futures = [client.submit(poison.fail_on_a_broken_machine, n) for n in range(150)]
        spoiled = [f for f in futures if f.exception(60) is not None]
        assert 1 <= len(spoiled) <= 10
        assert bees(database)[broken.process.pid]
        assert sum(bees(database).values()) == 1
        broken.says("all that this bee tries of .*fail_on_a_broken_machine fails")


def test_jobs_that_fail_everywhere_are_no_reason_to_rest(database: Database, client: WorkerbeeExecutor) -> None:
    """Where no bee does well, the jobs are at fault, and end as fast as they can."""
    with Bee(database.dsn), Bee(database.dsn):
        eventually(lambda: len(bees(database)) == 2)
        futures = [client.submit(poison.fail_everywhere, n) for n in range(300)]
        well = [client.submit(poison.neighbour, n) for n in range(300)]
        assert {type(f.exception(60)) for f in futures} == {KeyError}
        assert [f.result(60) for f in well] == list(range(300))


def test_what_fails_holds_up_nothing_else(database: Database, client: WorkerbeeExecutor) -> None:
    """A bee that rests from one function goes on with others, of this tenant and of another."""
    with (
        WorkerbeeExecutor(0, jobset_id="fails", dsn=database.dsn) as failing,
        Bee(database.dsn) as bee,
    ):
        database.execute(
            'INSERT INTO workerbee."bee$" (incarnation, host, pid, python, version, runners, lease_until)'
            " VALUES ('00000000-0000-0000-0000-000000000001', 'able', 1, '3.11', '1', 1, now() + interval '1 hour')"
            " RETURNING 1"
        )
        for n in range(300):
            failing.submit(poison.fail_everywhere, n)
        bee.says("all that this bee tries of .*fail_everywhere fails")
        for n in range(20):
            assert client.submit(poison.neighbour, n).result(60) == n
            assert failing.submit(poison.neighbour, n).result(60) == n
        assert 5 <= failing.progress().failed <= 9, "it tries one after 2 s, 4 s, 8 s"
        failing.cancel()


NONSENSE: dict[str, Callable[[WorkerbeeExecutor], Future[Any]]] = {
    "text": lambda ex: ex.submit(poison.write_everywhere, b"progress: 10 %\n" * 100),
    "zeros": lambda ex: ex.submit(poison.write_everywhere, bytes(100)),
    "a few letters": lambda ex: ex.submit(poison.write_everywhere, b"abc"),
    "a long way to go": lambda ex: ex.submit(poison.write_everywhere, b"\xff" * 8),
    "gigabytes": lambda ex: ex.submit(poison.say, size=1 << 34),
    "nothing": lambda ex: ex.submit(poison.say),
    "marshal that takes gigabytes": lambda ex: ex.submit(poison.say, b"(\xff\xff\xff\x7f"),
    "no duration": lambda ex: ex.submit(poison.say, *END, _end(seconds=float("nan"))),
    "an odd function": lambda ex: ex.submit(poison.say, b"Uxx"),
}
END = (b"D", struct.pack("!I", 1))


def _end(n: int = 1, seconds: float = 0.0) -> bytes:
    """One job's end as a runner says it."""
    return struct.pack("!QBBdQ?16s?", n, 0, 1, seconds, 0, False, b"", False)


def test_nonsense_over_a_runners_channel(executor: WorkerbeeExecutor) -> None:
    """Its runner is killed for it, and the job blamed that wrote it; never the bee, nor the job's neighbours."""
    for kind, submit in NONSENSE.items():
        error = among_neighbours(executor, partial(submit, executor)).exception()
        assert isinstance(error, RunnerDiedError), kind
        assert "its channel made no sense" in str(error)


def test_what_nobody_asked_for_changes_nothing(executor: WorkerbeeExecutor) -> None:
    """The end of a job that this runner doesn't have."""
    ends = [_end(n) for n in (0, 10**9, 2**64 - 1)]
    said = (b"D", struct.pack("!I", len(ends)), *ends)
    assert among_neighbours(executor, lambda: executor.submit(poison.say, *said)).result() is None


def test_a_function_that_never_loads_can_be_cancelled(executor: WorkerbeeExecutor) -> None:
    """Its runner is killed in the middle of the import, and others go on."""
    future = executor.submit(poison.HangWhenLoaded())
    eventually(future.running)
    eventually(lambda: executor.cancel_running([future]))
    assert executor.submit(poison.neighbour, 1).result(60) == 1
