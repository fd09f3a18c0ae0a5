"""loky: a process pool that survives its workers' deaths."""

from __future__ import annotations

from loky import get_reusable_executor

from tests.benchmarks import timing
from tests.benchmarks.jobs import identity
from tests.benchmarks.timing import Figures, Place

SETTINGS = "get_reusable_executor(max_workers=2); in the row 'map' chunksize=100"


def submit(place: Place) -> Figures:
    return timing.rate(get_reusable_executor(max_workers=place.workers).submit, place.n)


def map(place: Place) -> Figures:  # noqa: A001 (the row's name)
    executor = get_reusable_executor(max_workers=place.workers)
    return timing.mapped(lambda items: executor.map(identity, items, chunksize=100), place.n)


def latency(place: Place) -> Figures:
    executor = get_reusable_executor(max_workers=place.workers)
    return timing.round_trips(lambda i: executor.submit(identity, i).result(), place.n)


def sleeps(place: Place) -> Figures:
    return timing.share_of_ideal(get_reusable_executor(max_workers=place.workers).submit, place.n, place.workers)


def results(place: Place) -> Figures:
    return timing.results(get_reusable_executor(max_workers=place.workers).submit, place.n)


def arguments(place: Place) -> Figures:
    return timing.arguments(get_reusable_executor(max_workers=place.workers).submit, place.n)


def dask_array(place: Place) -> Figures:
    return timing.dask(get_reusable_executor(max_workers=place.workers), "array", place.n)


def dask_frame(place: Place) -> Figures:
    return timing.dask(get_reusable_executor(max_workers=place.workers), "dataframe", place.n)


def dask_delayed(place: Place) -> Figures:
    return timing.dask(get_reusable_executor(max_workers=place.workers), "delayed", place.n, chunksize=1)
