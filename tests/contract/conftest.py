"""The executors that the cases of this directory run over, and the ways in which ours may differ.

``threads`` and ``processes`` are the standard library's, the oracles; ``temporary`` and ``durable`` are ours.
A case that asks for the fixture ``pool`` or ``make`` runs over all four. One that is about a difference says
so by its own list of kinds.

The agreed differences from ProcessPoolExecutor:

- ``max_workers=0`` is no error: the bees are elsewhere (test_construction.py)
- what can't be pickled is raised by ``submit``, in the caller's stack (test_errors.py)
- a job's SystemExit, KeyboardInterrupt, GeneratorExit and asyncio.CancelledError arrive as RemoteError (test_submit.py)
- a runner's death is its job's alone, after three of them; the executor goes on (test_deaths.py)
- ``running()`` may be late (test_futures.py waits for it), and remains when the job waits once more, given back by
  its bee or for another attempt: a Future has no way back; but ``cancel()`` works then (test_futures.py)
- an exception in a chunk of ``map`` belongs to its call: those before it in the chunk are given out first (test_map.py)
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, wait
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.servers import Database, Server
from tests.waiting import eventually
from workerbee import WorkerbeeExecutor

Make = Callable[..., Executor]
Open = Callable[..., WorkerbeeExecutor]

OURS = ("temporary", "durable")
KINDS = ("threads", "processes", *OURS)


@pytest.fixture(scope="session")
def shared(server: Server) -> Iterator[Database]:
    """One database for all cases; whoever takes it away, or counts what is in it, asks for ``database``."""
    database = server.new_database()
    yield database
    database.drop()


def maker(kind: str, dsn: str) -> Make:
    """Makes executors of one kind; a durable jobset's id is new unless it is given."""
    if kind == "threads":
        return ThreadPoolExecutor
    if kind == "processes":
        return lambda *args, **options: ProcessPoolExecutor(*args, mp_context=get_context("spawn"), **options)
    if kind == "temporary":
        return lambda *args, **options: WorkerbeeExecutor(*args, dsn=dsn, **options)
    return lambda *args, **options: WorkerbeeExecutor(*args, **({"dsn": dsn, "jobset_id": new_id()} | options))


def new_id() -> str:
    """An id that no jobset has."""
    return f"contract_{uuid4().hex[:12]}"


@pytest.fixture
def reopen(shared: Database) -> Iterator[Open]:
    """Executors of one durable jobset; each call is another one, as in another process."""
    jobset_id = new_id()
    made: list[WorkerbeeExecutor] = []

    def open_one(max_workers: int = 1, **options: Any) -> WorkerbeeExecutor:
        made.append(WorkerbeeExecutor(max_workers, dsn=shared.dsn, jobset_id=jobset_id, **options))
        return made[-1]

    yield open_one
    for executor in made:
        executor.shutdown(cancel_futures=True)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Which executor a case runs over; a case may give its own list by ``parametrize``."""
    return request.param


@pytest.fixture
def make(kind: str, shared: Database) -> Iterator[Make]:
    """Makes executors of this kind that are shut down after the case."""
    make_one = maker(kind, shared.dsn)
    with ExitStack() as stack:

        def made(*args: Any, **options: Any) -> Executor:
            if kind == "processes" and "max_tasks_per_child" in options and sys.version_info < (3, 11):
                pytest.skip("process pools have it since Python 3.11")
            executor = make_one(*args, **options)
            stack.callback(executor.shutdown)
            return executor

        yield made


@pytest.fixture(scope="package")
def pools(shared: Database) -> Iterator[dict[str, Executor]]:
    """The executor of each kind, with two workers, that the cases share which leave it as it was."""
    with ExitStack() as stack:
        running = {kind: stack.enter_context(maker(kind, shared.dsn)(2)) for kind in KINDS}
        for executor in running.values():
            wait([executor.submit(time.sleep, 0.1) for _ in range(2)])  # both workers are there
        yield running


@pytest.fixture
def pool(kind: str, pools: dict[str, Executor]) -> Executor:
    """A running executor with two workers; a case leaves nothing pending in it."""
    return pools[kind]


class Gate:
    """Where jobs wait (`jobs.hold`) until the case opens it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.path = str(path)

    def holds(self, n: int) -> None:
        """Wait until ``n`` jobs have come to it."""
        eventually(lambda: self.count() >= n, what=f"{n} jobs at the gate")

    def count(self) -> int:
        return len([*self._path.parent.glob(f"{self._path.name}.*")])

    def open(self) -> None:
        self._path.touch()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """A closed gate, which opens at the latest at the end of the case."""
    closed = Gate(tmp_path / "gate")
    yield closed
    closed.open()
