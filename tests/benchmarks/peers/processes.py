"""`concurrent.futures.ProcessPoolExecutor`: in memory, nothing survives."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor

from tests.benchmarks import timing
from tests.benchmarks.jobs import identity
from tests.benchmarks.timing import Figures, Place

SETTINGS = "ProcessPoolExecutor(2), the platform's start method; chunksize 1, in the row 'map' 100"


def submit(place: Place) -> Figures:
    with ProcessPoolExecutor(place.workers) as executor:
        return timing.rate(executor.submit, place.n)


def map(place: Place) -> Figures:  # noqa: A001 (the row's name)
    with ProcessPoolExecutor(place.workers) as executor:
        return timing.mapped(lambda items: executor.map(identity, items, chunksize=100), place.n)


def latency(place: Place) -> Figures:
    with ProcessPoolExecutor(place.workers) as executor:
        return timing.round_trips(lambda i: executor.submit(identity, i).result(), place.n)


def sleeps(place: Place) -> Figures:
    with ProcessPoolExecutor(place.workers) as executor:
        return timing.share_of_ideal(executor.submit, place.n, place.workers)


def results(place: Place) -> Figures:
    with ProcessPoolExecutor(place.workers) as executor:
        return timing.results(executor.submit, place.n)


def arguments(place: Place) -> Figures:
    with ProcessPoolExecutor(place.workers) as executor:
        return timing.arguments(executor.submit, place.n)


def dask_array(place: Place) -> Figures:
    with ProcessPoolExecutor(place.workers) as executor:
        return timing.dask(executor, "array", place.n)


def dask_frame(place: Place) -> Figures:
    with ProcessPoolExecutor(place.workers) as executor:
        return timing.dask(executor, "dataframe", place.n)


def dask_delayed(place: Place) -> Figures:
    with ProcessPoolExecutor(place.workers) as executor:
        return timing.dask(executor, "delayed", place.n, chunksize=1)
