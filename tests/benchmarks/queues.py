"""For peers that are queues in PostgreSQL: their workers as processes, and a job is done when its row says so."""

from __future__ import annotations

import importlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlencode

import psycopg2
from psycopg2 import extensions

from tests.benchmarks import timing
from tests.benchmarks.timing import Figures, Place

#: Adds jobs with these dicts to the queue, in the fewest transactions that the peer offers.
Enqueue = Callable[[list[dict[str, Any]]], object]


@contextmanager
def workers(place: Place, module: str) -> Iterator[None]:
    """So many processes in which the peer's ``work(dsn)`` runs."""
    command = [sys.executable, "-m", "tests.benchmarks.queues", module, place.dsn]
    started = [subprocess.Popen(command, stdin=subprocess.DEVNULL) for _ in range(place.workers)]
    try:
        yield
    finally:
        for worker in started:
            worker.kill()
            worker.wait()


def rate(place: Place, enqueue: Enqueue, left: str) -> Figures:
    """``left`` is the query that counts the jobs that aren't done."""
    with _counter(place.dsn, left) as count:
        return timing.rate_of(lambda datas: _done(enqueue, datas, count, 0.02), place.n)


def latency(place: Place, enqueue: Enqueue, left: str) -> Figures:
    with _counter(place.dsn, left) as count:
        return timing.round_trips(lambda i: _done(enqueue, [{"i": i}], count, 0.001), place.n)


def url(dsn: str) -> str:
    """The connection string as a URL."""
    parts = extensions.parse_dsn(dsn)
    where = urlencode({"host": parts["host"], "port": parts["port"]})  # in the query, where a directory may stand
    return f"postgresql://{parts['user']}@/{parts['dbname']}?{where}"


def _done(enqueue: Enqueue, datas: list[dict[str, Any]], count: Callable[[], int], pause: float) -> None:
    enqueue(datas)
    while count():
        time.sleep(pause)


@contextmanager
def _counter(dsn: str, query: str) -> Iterator[Callable[[], int]]:
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        connection.autocommit = True

        def count() -> int:
            cursor.execute(query)
            return int(cursor.fetchone()[0])

        yield count


if __name__ == "__main__":
    importlib.import_module(sys.argv[1]).work(sys.argv[2])
