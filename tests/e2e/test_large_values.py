"""Arrays of 100 MB as arguments and results: they pass, with a warning, and no bee seems dead meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest

from tests.servers import Database
from workerbee import WorkerbeeExecutor
from workerbee.errors import PayloadTooLargeError
from workerbee.store.ration import MOST_BYTES


@pytest.fixture
def executor(database: Database) -> Iterator[WorkerbeeExecutor]:
    with WorkerbeeExecutor(1, dsn=database.dsn, max_payload=110_000_000) as made:
        made.submit(int).result(60)
        yield made


class Leases:
    """Looks at the bees' leases until it is told to stop."""

    def __init__(self, database: Database) -> None:
        self.shortest = float("inf")
        self._database = database
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Leases:  # noqa: PYI034 (Self came with Python 3.11)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        query = 'SELECT min(extract(epoch FROM lease_until - now()))::float FROM workerbee."bee$"'
        while not self._stop.wait(0.1):
            [(left,)] = self._database.execute(query)
            self.shortest = min(self.shortest, left)


@pytest.mark.parametrize("kind", [np.array, pd.DataFrame])
def test_arrays_of_100_mb_pass(executor: WorkerbeeExecutor, database: Database, kind: Callable[..., Any]) -> None:
    """There and back, equal, while the bee's lease never lapses; the caller is warned at his own line."""
    array = kind(np.arange(12_500_000.0))
    with Leases(database) as leases, pytest.warns(UserWarning, match="of numpy:negative takes 100 MB") as warned:
        result = executor.submit(np.negative, array).result(120)
    assert type(result) is type(array)
    assert np.array_equal(result, -array)
    assert [warning.filename for warning in warned] == [__file__]
    assert leases.shortest > 0


SIZE = 40_000_000  # beyond what malloc keeps for later


def filled(n: int, value: float) -> np.ndarray[Any, Any]:
    return np.full(n, value)


@pytest.fixture(scope="module")
def durable(one_database: Database) -> Iterator[WorkerbeeExecutor]:
    with WorkerbeeExecutor(1, dsn=one_database.dsn, jobset_id="memory") as made:
        made.submit(filled, 1_000_000, 0).result(60)
        yield made


WAYS: dict[str, Callable[[WorkerbeeExecutor], object]] = {
    "results": lambda executor: [executor.submit(filled, SIZE // 8, n).result(60)[0] for n in range(2)],
    "arrays as arguments": lambda executor: [executor.submit(len, filled(SIZE // 8, n)).result(60) for n in range(2)],
    "bytes as arguments": lambda executor: [executor.submit(len, bytes(SIZE)).result(60) for n in range(2)],
}


@pytest.mark.filterwarnings("ignore:.* takes 40 MB")
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_no_process_takes_more_than_twice_a_value(durable: WorkerbeeExecutor, way: Callable[..., object]) -> None:
    """Neither client nor bee nor runner, beside what each has anyway and a few statements of 4 MB."""
    processes = {"client": psutil.Process()}
    for child in processes["client"].children(recursive=True):
        for name in ("child", "runner"):
            if f"workerbee.bee.{name}" in child.cmdline():
                processes[name] = child
    before = {name: _resident_at_most(process, anew=True) for name, process in processes.items()}
    way(durable)
    grown = {name: _resident_at_most(process) - before[name] for name, process in processes.items()}
    assert len(grown) == 3
    assert {name: n for name, n in grown.items() if n > 2 * SIZE + 4 * MOST_BYTES} == {}


def _resident_at_most(process: psutil.Process, *, anew: bool = False) -> int:
    """The most bytes that a process has had resident at once, since this was last asked ``anew``."""
    if anew:
        Path(f"/proc/{process.pid}/clear_refs").write_text("5")
    [line] = [line for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if "VmHWM" in line]
    return int(line.split()[1]) * 1024


def test_what_is_over_the_limit_is_refused(executor: WorkerbeeExecutor) -> None:
    """Arguments in the caller's stack, a result as its future's exception; both say what to do."""
    with pytest.raises(PayloadTooLargeError, match="limit of 110 MB is exceeded by the arguments"):
        executor.submit(np.negative, np.zeros(15_000_000))
    future = executor.submit(np.zeros, 15_000_000)
    with pytest.raises(PayloadTooLargeError, match=r"exceeded by the result; .*max_payload"):
        future.result(120)
    assert executor.submit(abs, -1).result(60) == 1


@pytest.mark.parametrize(
    "value",
    [np.arange(6).reshape(2, 3), np.array(["a", None], dtype=object), (np.int8(1), {1: b"\0"})],
    ids=["array", "array of objects", "tuple"],
)
def test_small_ones_come_back_as_they_were(executor: WorkerbeeExecutor, value: Any) -> None:
    """The same path for what isn't JSON, however small."""
    again = executor.submit(lambda x: x, value).result(60)
    assert type(again) is type(value)
    assert repr(again) == repr(value)


def naming(size: int) -> dict[str, Callable[..., Any]]:
    """Functions that bring so many bytes along, each in its own way."""
    data = np.ones(size // 8)
    scope: dict[str, Any] = {"data": data, "__name__": "__main__"}
    exec("def of_global(x):\n    return x + data[0]", scope)

    class Model:
        def __init__(self) -> None:
            self.data = data

        def predict(self, x: float) -> float:
            return float(x + self.data[0])

    Model.__module__ = "__main__"
    return {
        "a global": scope["of_global"],
        "a closure": lambda x: x + data[0],
        "a default": lambda x, data=data: x + data[0],
        "a partial": partial(lambda data, x: x + data[0], data),
        "a method": Model().predict,
    }


def test_functions_over_the_limit_are_refused(database: Database) -> None:
    """In the caller's stack, with nothing stored; so is an initializer with its arguments. The executor goes on."""
    with WorkerbeeExecutor(1, dsn=database.dsn, max_payload=1_000_000) as executor:
        for function in naming(1_200_000).values():
            with pytest.raises(PayloadTooLargeError, match=r"limit of 1 MB is exceeded by the function .*max_payload"):
                executor.submit(function, 1)
            with pytest.raises(PayloadTooLargeError):
                executor.map(function, range(3), chunksize=2)
        with pytest.raises(PayloadTooLargeError):
            executor.adopt(naming(1_200_000)["a global"])
        number = executor._client.jobset.number
        stored = database.execute(
            f'SELECT (SELECT count(*) FROM workerbee."function${number}"), count(*) FROM workerbee."part${number}"'
        )
        assert stored == [(0, 0)]
        assert executor.submit(abs, -1).result(60) == 1
    with (
        WorkerbeeExecutor(
            1, dsn=database.dsn, max_payload=1_000_000, initializer=np.sum, initargs=(np.ones(150_000),)
        ) as executor,
        pytest.raises(PayloadTooLargeError, match=r"1 MB is exceeded by the function .* its initializer"),
    ):
        executor.submit(abs, -1)


def test_a_large_function_passes(executor: WorkerbeeExecutor, database: Database) -> None:
    """In parts, while the bee's lease never lapses; the caller is warned once."""
    function = naming(30_000_000)["a global"]
    with Leases(database) as leases, pytest.warns(UserWarning, match="of_global.* takes 30 MB") as warned:
        results = list(executor.map(function, range(3), timeout=120))
    assert results == [1, 2, 3]
    assert len(warned) == 1
    assert leases.shortest > 0
    number = executor._client.jobset.number
    [(largest,)] = database.execute(f'SELECT max(octet_length(body)) FROM workerbee."function${number}"')
    assert largest < 1_000_000
