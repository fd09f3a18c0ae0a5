"""Ray: tasks on a local cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray

from tests.benchmarks import jobs, timing
from tests.benchmarks.timing import SLEEP, Figures, Place

SETTINGS = "ray.init(num_cpus=2), no dashboard; one ray.get of all references"


@contextmanager
def _cluster(place: Place) -> Iterator[None]:
    ray.init(num_cpus=place.workers, include_dashboard=False, log_to_driver=False, _temp_dir=place.directory)
    try:
        yield
    finally:
        ray.shutdown()


def submit(place: Place) -> Figures:
    with _cluster(place):
        noop = ray.remote(jobs.noop)
        return timing.rate_of(lambda datas: ray.get([noop.remote(data) for data in datas]), place.n)


def latency(place: Place) -> Figures:
    with _cluster(place):
        identity = ray.remote(jobs.identity)
        return timing.round_trips(lambda i: ray.get(identity.remote(i)), place.n)


def sleeps(place: Place) -> Figures:
    with _cluster(place):
        sleep = ray.remote(jobs.sleep)
        rate = timing.rate_of(lambda ds: ray.get([sleep.remote(d | {"seconds": SLEEP}) for d in ds]), place.n)
        return {"share_of_ideal": rate["jobs_per_s"] * SLEEP / place.workers}


def results(place: Place) -> Figures:
    with _cluster(place):
        return timing.results_of(_all, place.n)


def arguments(place: Place) -> Figures:
    with _cluster(place):
        return timing.arguments_of(_all, place.n)


def _all(fn: Callable[..., object], items: list[Any]) -> object:
    remote = ray.remote(fn)
    return ray.get([remote.remote(item) for item in items])
