"""The executor's rates and times."""

from __future__ import annotations

import time
from concurrent.futures import as_completed
from contextlib import closing
from uuid import uuid4

import psycopg2

from tests.benchmarks import timing
from tests.benchmarks.jobs import identity, noop
from tests.benchmarks.timing import Figures, Place
from workerbee import WorkerbeeExecutor


def executor(place: Place, jobset_id: str | None = None) -> WorkerbeeExecutor:
    return WorkerbeeExecutor(place.workers, dsn=place.dsn, jobset_id=jobset_id)


def fresh() -> str:
    """The id of a new jobset."""
    return f"fresh_{uuid4().hex[:12]}"


def submit(place: Place) -> Figures:
    with executor(place, fresh()) as ours:
        return timing.rate(ours.submit, place.n)


def map(place: Place) -> Figures:  # noqa: A001 (the row's name)
    with executor(place) as ours:
        return timing.mapped(lambda items: ours.map(identity, items, chunksize=100), place.n)


def latency(place: Place) -> Figures:
    """Round trips, and between them pairs of the least that a durable one needs: a commit there and a commit back."""
    with executor(place, fresh()) as ours, closing(psycopg2.connect(place.dsn)) as raw, raw.cursor() as cursor:
        cursor.execute("CREATE TABLE raw (i integer)")
        raw.commit()

        def two_commits() -> None:
            for _ in range(2):
                cursor.execute("INSERT INTO raw VALUES (1)")
                raw.commit()

        figures = timing.round_trips(ours.submit, place.n, two_commits)
    return figures | {"over_two_commits_ms": figures["p50_ms"] - figures["beside_p50_ms"]}


def sleeps(place: Place) -> Figures:
    with executor(place, fresh()) as ours:
        return timing.share_of_ideal(ours.submit, place.n, place.workers)


def finish(place: Place) -> Figures:
    """Fill the jobset that `reattach` attaches to."""
    with executor(place, "finished") as ours:
        return timing.mapped(lambda items: ours.map(noop, ({"i": i} for i in items)), place.n)


def reattach(place: Place) -> Figures:
    began = time.perf_counter()
    with WorkerbeeExecutor(0, dsn=place.dsn, jobset_id="finished") as ours:
        for future in as_completed([ours.submit(noop, {"i": i}) for i in range(place.n)]):
            future.result()
        return {"seconds": time.perf_counter() - began}
