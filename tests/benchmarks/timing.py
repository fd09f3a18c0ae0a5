"""How a rate and a round trip are taken, the same for us and for every peer."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from tests.benchmarks.jobs import ITEMS, filled, last, noop, sleep

#: What one measurement gives: numbers by name.
Figures = dict[str, float]
Submit = Callable[..., Any]  # gives something with a `result`

WARM = 200
SLEEP = 0.05
ENOUGH = 10.0
#: In every job's data: what was stored by another process's jobs isn't taken for ours.
RUN = uuid4().hex[:8]


@dataclass(frozen=True)
class Place:
    """Where to measure: a database, a directory of one's own, how many jobs and runner processes.

    ``dsn`` is for whoever would be on the server's machine, ``tcp`` for what would be elsewhere.
    """

    dsn: str
    tcp: str
    directory: str
    n: int
    workers: int = 2


def rate(submit: Submit, n: int, n_warm: int = WARM) -> Figures:
    """No-op jobs a second, from the first submit to the last result, on an executor warmed with ``n_warm`` jobs."""
    return rate_of(lambda datas: _wait([submit(noop, data) for data in datas]), n, n_warm)


def rate_of(run: Callable[[list[dict[str, Any]]], object], n: int, n_warm: int = WARM) -> Figures:
    """The same of whatever ``run`` does to have a no-op job done with each of the dicts."""
    run([{"warm": i, "run": RUN} for i in range(n_warm)])
    datas = [{"i": i, "run": RUN} for i in range(n)]
    began = time.perf_counter()
    run(datas)
    return {"jobs_per_s": n / (time.perf_counter() - began)}


def results(submit: Submit, n: int) -> Figures:
    """MB/s of arrays that jobs return, on an executor warmed with a few."""
    return results_of(_by(submit), n)


def results_of(run: Callable[[Callable[..., object], list[Any]], object], n: int) -> Figures:
    """The same of whatever ``run`` does to have a function called with each of some items, and to give the results."""
    return _moved(lambda few: run(filled, [float(i) for i in range(few)]), n)


def arguments(submit: Submit, n: int) -> Figures:
    """MB/s of arrays that jobs get, which are made before."""
    return arguments_of(_by(submit), n)


def arguments_of(run: Callable[[Callable[..., object], list[Any]], object], n: int) -> Figures:
    """The same of whatever ``run`` does."""
    arrays = [filled(float(i)) for i in range(n)]
    return _moved(lambda few: run(last, arrays[:few]), n)


def _by(submit: Submit) -> Callable[[Callable[..., object], list[Any]], object]:
    def run(fn: Callable[..., object], items: list[Any]) -> object:
        futures = [submit(fn, item) for item in items]
        _wait(futures)
        return futures

    return run


def _moved(run: Callable[[int], object], n: int) -> Figures:
    run(min(n, 4))
    began = time.perf_counter()
    run(n)
    return {"mb_per_s": n * ITEMS * 8 / 1e6 / (time.perf_counter() - began)}


def dask(scheduler: Any, workload: str, n: int, **settings: Any) -> Figures:
    """Seconds that a workload of `tests.benchmarks.daskwork` takes, after a first time for the imports."""
    from dask import config  # noqa: PLC0415 (for these rows alone)

    from tests.benchmarks import daskwork  # noqa: PLC0415

    compute = getattr(daskwork, workload)
    with config.set(scheduler=scheduler, **settings):
        compute(n)
        began = time.perf_counter()
        compute(n)
        return {"seconds": time.perf_counter() - began}


def scikit(workload: str, n: int) -> Figures:
    """Seconds that a workload of `tests.benchmarks.scikit` takes with the backend that joblib has, as `dask` does."""
    from tests.benchmarks import scikit as work  # noqa: PLC0415 (for these rows alone)

    fit = getattr(work, workload)
    fit(min(n, 1000))
    began = time.perf_counter()
    fit(n)
    return {"seconds": time.perf_counter() - began}


def round_trips(call: Callable[[int], object], n: int, beside: Callable[[], None] = lambda: None) -> Figures:
    """Milliseconds from a call to its result, one call after the other; ``beside`` is timed in between.

    There are ``n`` calls, or as many as fit into `ENOUGH` seconds: some peers take one for each.
    """
    for i in range(1, 20):
        call(-i)
    time.sleep(1)
    ours, others = [], []
    last = time.perf_counter() + ENOUGH
    while len(ours) < n and time.perf_counter() < last:
        began = time.perf_counter()
        call(len(ours))
        ended = time.perf_counter()
        beside()
        ours.append(1e3 * (ended - began))
        others.append(1e3 * (time.perf_counter() - ended))
    ours.sort()
    others.sort()
    n = len(ours)
    return {"p50_ms": ours[n // 2], "p99_ms": ours[int(0.99 * n)], "beside_p50_ms": others[n // 2]}


def share_of_ideal(submit: Submit, n: int, workers: int) -> Figures:
    """How much of the runners' time goes into jobs of 50 ms."""
    _wait([submit(sleep, {"seconds": SLEEP, "warm": i}) for i in range(2 * workers)])
    began = time.perf_counter()
    _wait([submit(sleep, {"seconds": SLEEP, "i": i}) for i in range(n)])
    return {"share_of_ideal": n * SLEEP / workers / (time.perf_counter() - began)}


def mapped(results: Callable[[range], Any], n: int) -> Figures:
    """Items a second through a `map`; ``results(items)`` are iterated."""
    for _ in results(range(100)):
        pass
    began = time.perf_counter()
    count = sum(1 for _ in results(range(n)))
    elapsed = time.perf_counter() - began
    if count != n:
        raise RuntimeError(f"{count} results of {n}")
    return {"items_per_s": n / elapsed}


def _wait(futures: list[Any]) -> None:
    for future in futures:
        future.result()
