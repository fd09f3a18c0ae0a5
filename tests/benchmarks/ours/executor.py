"""The executor's rates and times."""

from __future__ import annotations

import time
from concurrent.futures import as_completed
from contextlib import closing
from uuid import uuid4

import psutil
import psycopg2

from tests.benchmarks import timing
from tests.benchmarks.jobs import identity, noop
from tests.benchmarks.timing import Figures, Place
from workerbee import WorkerbeeExecutor


def executor(place: Place, jobset_id: str | None = None, *, files: bool = False) -> WorkerbeeExecutor:
    """Make an executor; with ``files``, large values are files on this disk."""
    large = f"file://{place.directory}" if files else None
    return WorkerbeeExecutor(place.workers, dsn=place.dsn, jobset_id=jobset_id, large_values=large)


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

        figures = timing.round_trips(lambda i: ours.submit(identity, i).result(), place.n, two_commits)
    return figures | {"over_two_commits_ms": figures["p50_ms"] - figures["beside_p50_ms"]}


def sleeps(place: Place) -> Figures:
    with executor(place, fresh()) as ours:
        return timing.share_of_ideal(ours.submit, place.n, place.workers)


def results(place: Place) -> Figures:
    with executor(place) as ours:
        return timing.results(ours.submit, place.n)


def arguments(place: Place) -> Figures:
    with executor(place) as ours:
        return timing.arguments(ours.submit, place.n)


def durable_results(place: Place, *, files: bool = False) -> Figures:
    with executor(place, fresh(), files=files) as ours:
        return timing.results(ours.submit, place.n)


def durable_arguments(place: Place, *, files: bool = False) -> Figures:
    with executor(place, fresh(), files=files) as ours:
        return timing.arguments(ours.submit, place.n)


def dask(place: Place, workload: str, **settings: int) -> Figures:
    with executor(place) as ours:
        return timing.dask(ours, workload, place.n, **settings)


def scikit(place: Place, workload: str) -> Figures:
    from joblib import parallel_config  # noqa: PLC0415

    import workerbee.joblib  # noqa: F401, PLC0415 (makes the backend known, for these rows alone)

    with executor(place) as ours, parallel_config("workerbee", executor=ours):
        return timing.scikit(workload, place.n)


def finish(place: Place) -> Figures:
    """Fill the jobset that `reattach` attaches to."""
    with executor(place, "finished") as ours:
        return timing.mapped(lambda items: ours.map(noop, ({"i": i} for i in items)), place.n)


def reattach(place: Place) -> Figures:
    """The same cell in another process: by `map` as it was, and by looking at each future."""
    figures = {}
    for name, results in (("seconds", _mapped), ("as_completed_s", _looked_at)):
        began = time.perf_counter()
        with WorkerbeeExecutor(0, dsn=place.dsn, jobset_id="finished") as ours:
            assert results(ours, place.n) == place.n
            figures[name] = time.perf_counter() - began
    return figures


def _mapped(ours: WorkerbeeExecutor, n: int) -> int:
    return sum(1 for _ in ours.map(noop, ({"i": i} for i in range(n))))


def _looked_at(ours: WorkerbeeExecutor, n: int) -> int:
    return len([future.result() for future in as_completed([ours.submit(noop, {"i": i}) for i in range(n)])])


def memory(place: Place) -> Figures:
    """Resident megabytes of this process and of its bee's, in the first tenth of the jobs and at most after it."""
    with executor(place, fresh()) as ours:
        mine = psutil.Process()
        bees = mine.children(recursive=True)
        samples = []
        began = time.perf_counter()
        results = ours.map(noop, ({"i": i} for i in range(place.n)), buffersize=5000)
        for i, _ in enumerate(results):
            if i % max(1, place.n // 200) == 0:
                samples.append((_resident([mine]), _resident(bees)))
        elapsed = time.perf_counter() - began
    first, later = samples[: len(samples) // 10], samples[len(samples) // 10 :]
    client, bee = (max(mb) for mb in zip(*first, strict=True))
    most_client, most_bee = (max(mb) for mb in zip(*later, strict=True))
    return {
        "client_mb": most_client,
        "client_growth": most_client / client,
        "bee_mb": most_bee,
        "bee_growth": most_bee / bee,
        "jobs_per_s": place.n / elapsed,
    }


def _resident(processes: list[psutil.Process]) -> float:
    return float(sum(process.memory_info().rss for process in processes)) / 2**20
