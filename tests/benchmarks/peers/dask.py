"""Dask distributed: a scheduler in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dask
from distributed import Client

from tests.benchmarks import timing
from tests.benchmarks.jobs import identity, noop
from tests.benchmarks.timing import Figures, Place

SETTINGS = (
    "Client(n_workers=2, threads_per_worker=1), no dashboard, worker-saturation: inf, no work stealing; "
    "client.map(pure=False, batch_size=1000) and client.gather"
)


@contextmanager
def _client(place: Place) -> Iterator[Client]:
    settings = {"distributed.scheduler.worker-saturation": "inf", "distributed.scheduler.work-stealing": False}
    with (
        dask.config.set(settings),
        Client(n_workers=place.workers, threads_per_worker=1, dashboard_address=None) as client,
    ):
        yield client


def submit(place: Place) -> Figures:
    with _client(place) as client:
        return timing.rate_of(
            lambda datas: client.gather(client.map(noop, datas, pure=False, batch_size=1000)), place.n
        )


def latency(place: Place) -> Figures:
    with _client(place) as client:
        return timing.round_trips(lambda i: client.submit(identity, i, pure=False).result(), place.n)


def sleeps(place: Place) -> Figures:
    with _client(place) as client:
        return timing.share_of_ideal(lambda *call: client.submit(*call, pure=False), place.n, place.workers)


def results(place: Place) -> Figures:
    with _client(place) as client:
        return timing.results(lambda *call: client.submit(*call, pure=False), place.n)


def arguments(place: Place) -> Figures:
    with _client(place) as client:
        return timing.arguments(lambda *call: client.submit(*call, pure=False), place.n)


def dask_array(place: Place) -> Figures:
    with _client(place) as client:
        return timing.dask(client, "array", place.n)


def dask_frame(place: Place) -> Figures:
    with _client(place) as client:
        return timing.dask(client, "dataframe", place.n)


def dask_delayed(place: Place) -> Figures:
    with _client(place) as client:
        return timing.dask(client, "delayed", place.n)
