"""A large array that many calls of a jobset have is stored and sent once; what is changed is another one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import psycopg2
import pytest
from psycopg2 import sql

from tests.bees import Bee
from tests.servers import Database
from tests.waiting import eventually
from workerbee import WorkerbeeExecutor
from workerbee.client.flusher import FLUSH_BYTES
from workerbee.errors import SignatureError
from workerbee.store.parts import PART_BYTES

N = 150_000  # items: 1.2 MB
PARTS = -(-8 * N // PART_BYTES)


@pytest.fixture
def executor(database: Database) -> Iterator[WorkerbeeExecutor]:
    with WorkerbeeExecutor(1, dsn=database.dsn, jobset_id="sharing") as made:
        made.submit(int).result()
        yield made


def ramp() -> np.ndarray[Any, Any]:
    return np.arange(N, dtype=float)


def add(array: np.ndarray[Any, Any], n: int) -> float:
    array += n  # which is the job's own
    return float(array[0])


def parts(database: Database, executor: WorkerbeeExecutor, of: str = "true") -> int:
    table = sql.Identifier("workerbee", f"part${executor._client.jobset.number}")
    [(n,)] = database.execute(sql.SQL("SELECT count(*) FROM {} WHERE " + of).format(table))
    return int(n)


def shelf_of(pid: int) -> Path:
    """The directory of the bee that is this process."""
    children = psutil.Process(pid).children(recursive=True)
    [path] = {word for child in children for word in child.cmdline() if word.startswith("/dev/shm/workerbee-")}
    return Path(path)


def test_an_array_of_many_calls_is_stored_once(executor: WorkerbeeExecutor, database: Database) -> None:
    """As it is at each submit; each call has its own of it."""
    array = ramp()
    futures = [executor.submit(add, array, n) for n in range(20)]
    futures += [executor.submit(add, ramp(), n) for n in range(20, 25)]
    executor.flush()
    assert parts(database, executor) == PARTS
    array[0] = 100
    assert executor.submit(add, array, 1).result() == 101
    assert [future.result() for future in futures] == list(range(25))
    assert parts(database, executor) == 2 * PARTS
    assert len(list(shelf_of(executor._client._bee.process.pid).iterdir())) == 2  # type: ignore[union-attr]


def test_a_job_does_not_wait_until_the_arrays_of_others_are_stored(database: Database) -> None:
    """Each of them comes with its call; calls with an array that is stored already come together."""
    with WorkerbeeExecutor(0, dsn=database.dsn, jobset_id="sharing") as executor:
        executor.submit(first_plus, ramp(), 0)
        executor.flush()
        jobs = sql.Identifier("workerbee", f"job${executor._client.jobset.number}")
        with closing(psycopg2.connect(database.dsn)) as other, other.cursor() as held:
            held.execute(sql.SQL("LOCK TABLE {} IN SHARE MODE").format(jobs))
            for n in range(30):
                executor.submit(first_plus, ramp(), n)
            for n in range(4):
                executor.submit(first_plus, np.full(FLUSH_BYTES // 8, float(n)), n)
            other.rollback()
        executor.flush()
        executor.shutdown(cancel_futures=True)
        stored = database.execute(sql.SQL("SELECT count(*) FROM {} GROUP BY xmin::text ORDER BY 1").format(jobs))
    # The first call; those that came until it was stored; the others with the first of the arrays; three arrays.
    assert 5 <= len(stored) <= 6, stored


def test_another_client_of_the_jobset_stores_nothing_anew(executor: WorkerbeeExecutor, database: Database) -> None:
    """Nor is anything lost if the database has lost what was stored before."""
    executor.submit(add, ramp(), 1).result()
    with WorkerbeeExecutor(0, dsn=database.dsn, jobset_id="sharing") as other:
        assert other.submit(add, ramp(), 2).result() == 2
        assert parts(database, executor) == PARTS
        for which in ("true", f"seq = {PARTS}"):
            table = sql.Identifier("workerbee", f"part${executor._client.jobset.number}")
            database.execute(sql.SQL("DELETE FROM {} WHERE " + which).format(table))
            assert other.submit(add, ramp(), 3).result() == 3
            assert parts(database, executor) == PARTS


def test_an_array_that_was_changed_in_the_database_is_refused(executor: WorkerbeeExecutor, database: Database) -> None:
    """The call's signature covers it; its neighbours aren't touched."""
    waiting = executor.with_options(run_at=4_000_000_000)
    changed, gone = (waiting.submit(add, ramp() + n, n) for n in (1, 2))
    executor.flush()
    number = executor._client.jobset.number
    table = sql.Identifier("workerbee", f"part${number}")
    tokens = [t for (t,) in database.execute(sql.SQL("SELECT token FROM {} WHERE seq = 1 ORDER BY at").format(table))]
    database.execute(
        sql.SQL("UPDATE {} SET data = overlay(data PLACING '\\x01' FROM 5) WHERE seq = 2 AND token = %s").format(table),
        (tokens[0],),
    )
    database.execute(sql.SQL("DELETE FROM {} WHERE seq = 2 AND token = %s").format(table), (tokens[1],))
    database.execute('UPDATE workerbee."batch$" SET due_at = now()')
    for future in (changed, gone):
        assert type(future.exception(60)) is SignatureError
    assert executor.submit(add, ramp(), 5).result() == 5


def test_nothing_is_left_of_a_bee(database: Database) -> None:
    """A killed one's guardian removes what its calls shared; another one does at its end."""
    with WorkerbeeExecutor(0, dsn=database.dsn, jobset_id="left") as executor:
        for n, end in enumerate([Bee.kill, Bee.terminate]):
            with Bee(database.dsn, "left", "--busywait") as bee:
                assert executor.submit(add, ramp(), n).result(60) == n
                shelf = shelf_of(bee.process.pid)
                assert len(list(shelf.iterdir())) == 1
                end(bee)
                eventually(lambda shelf=shelf: not shelf.exists(), 30)  # type: ignore[misc]


def first_plus(array: np.ndarray[Any, Any], n: int) -> float:
    return add(array.copy(), n)


def closure(array: np.ndarray[Any, Any], n: int) -> Callable[[], float]:
    return lambda: float(array[0]) + n


WAYS: dict[str, Callable[[np.ndarray[Any, Any], int], Callable[[], float]]] = {
    "partials": lambda array, n: partial(first_plus, array, n),
    "closures": closure,
}


@pytest.mark.parametrize("make", WAYS.values(), ids=WAYS)
def test_so_is_one_of_many_functions(
    executor: WorkerbeeExecutor, database: Database, make: Callable[[np.ndarray[Any, Any], int], Callable[[], float]]
) -> None:
    """However each of them brings it along."""
    futures = [executor.submit(make(ramp(), n)) for n in range(12)]
    assert [future.result() for future in futures] == list(range(12))
    assert parts(database, executor) == PARTS
    number = executor._client.jobset.number
    [(n, largest)] = database.execute(
        f"SELECT count(*), max(octet_length(body)) FROM workerbee.\"function${number}\" WHERE codec LIKE '%values%'"
    )
    assert n == 12
    assert largest < 10_000
