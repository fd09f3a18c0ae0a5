"""What is not to grow: a bee with each jobset, memory with large partials, a poll with what is waited for."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from statistics import median
from uuid import uuid4

import psutil
from psycopg2.extensions import make_dsn

from tests import poolers
from tests.bees import Bee
from tests.benchmarks.jobs import noop
from tests.benchmarks.looks import LOOKS
from tests.benchmarks.results import Bar, at_most
from tests.servers import Database, Server
from workerbee import WorkerbeeExecutor
from workerbee.store import BeeStore, Catalogue, Connection, Scope
from workerbee.wire.job import EndKind, Outcome
from workerbee.wire.signing import Key, Signer

#: At most so many jobsets, futures that wait, and partials.
JOBSETS, FUTURES, PARTIALS = 500, 100_000, 300
#: The bytes of a partial.
PARTIAL_BYTES = 1_000_000


def measure(running: Server, jobs: int, say: Callable[[str], None]) -> list[Bar]:
    """The bars; how much there is of each goes with the number of ``jobs``."""
    n_jobsets, n_futures = max(4, min(JOBSETS, jobs // 100)), max(10, min(FUTURES, jobs // 10))
    n_partials = max(4, min(PARTIALS, jobs // 100))
    say(f"a bee of {n_jobsets:,} jobsets")
    with _place(running) as database:
        a_jobset = _jobsets(database, n_jobsets)
    say(f"{n_partials:,} partials of 1 MB")
    with _place(running) as database:
        client, bee = _partials(database, n_partials)
    bars = [
        at_most(f"bee's growth by each jobset after {n_jobsets // 2:,}", a_jobset / 1e3, 20, " kB"),
        at_most(f"client's growth by {n_partials:,} partials of 1 MB, over half of them", client, 1.1, " x"),
        at_most(f"bee's growth by {n_partials:,} partials of 1 MB, over half of them", bee, 1.1, " x"),
    ]
    if poolers.program() is None:
        return bars
    say(f"behind PgBouncer, {n_futures:,} futures that wait")
    with _place(running) as database, poolers.pgbouncer(running) as port:
        took = _polled(database, make_dsn(database.dsn, host="127.0.0.1", port=port), n_futures)
    return [*bars, at_most(f"behind PgBouncer, from end to result, {n_futures:,} waiting", took, 0.2, " s")]


@contextmanager
def _place(running: Server) -> Iterator[Database]:
    database = running.new_database()
    yield database
    database.drop()


def _jobsets(database: Database, n: int) -> float:
    """Bytes by which a bee and its runner grow with each jobset, of the second half of so many."""
    with Bee(database.dsn, "--busywait") as bee:

        def meet(jobset: int) -> int:
            with WorkerbeeExecutor(0, jobset_id=f"met_{jobset}", dsn=database.dsn) as executor:
                executor.submit(noop, {}).result()
            return _held(bee)

        half, *_, whole = [meet(jobset) for jobset in range(n)][n // 2 - 1 :]
        return (whole - half) / (n - n // 2)


def _partials(database: Database, n: int) -> tuple[float, float]:
    """How many times as large the client, and its bee with its runner, are after so many as after half of them."""
    with Bee(database.dsn, "--busywait") as bee, WorkerbeeExecutor(0, jobset_id="growth", dsn=database.dsn) as executor:

        def call(_: int) -> tuple[int, int]:
            assert executor.submit(partial(_length, os.urandom(PARTIAL_BYTES))).result() == PARTIAL_BYTES
            return psutil.Process().memory_full_info().uss, _held(bee)

        half, *_, whole = [call(i) for i in range(n)][n // 2 - 1 :]
        return whole[0] / half[0], whole[1] / half[1]


def _length(data: bytes) -> int:
    return len(data)


def _held(bee: Bee) -> int:
    """The bytes that a bee and its runners have for themselves."""
    return sum(process.memory_full_info().uss for process in [psutil.Process(bee.process.pid), *bee.runners()])


def _polled(database: Database, pooled: str, n: int) -> float:
    """Seconds from the end of a job to its result, in a client that waits for so many others too."""
    with WorkerbeeExecutor(0, jobset_id="growth", dsn=pooled) as executor:
        waiting = [executor.submit(noop, {"i": i}) for i in range(n)]
        executor.flush()
        with closing(Connection(database.dsn)) as connection:
            jobset = Catalogue(connection).find_jobset("growth")
            key = Key.load()
            assert jobset is not None
            assert key is not None
            bee, signer, took = BeeStore(connection, jobset, uuid4(), "host"), Signer(key, jobset.uuid), []
            for look in range(LOOKS):
                future = executor.with_options(priority=1).submit(noop, {"look": look})
                executor.flush()
                [batch] = bee.claim(1, 1, Scope())
                job = batch.jobs[0].id
                assert job == future.job
                mac = signer.sign_end(job, 1, "json", b"null", is_value=True)
                bee.complete([Outcome(job, 1, EndKind.COMPLETED, "json", b"null", mac, 1.0)], [batch], hint=None)
                began = time.monotonic()
                future.result()
                took.append(time.monotonic() - began)
        assert not any(future.done() for future in waiting)
        executor.shutdown(cancel_futures=True)
    return median(took)
