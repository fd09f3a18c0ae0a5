"""executorlib: an executor for clusters, over ZeroMQ."""

from __future__ import annotations

from executorlib import SingleNodeExecutor

from tests.benchmarks import timing
from tests.benchmarks.jobs import identity
from tests.benchmarks.timing import Figures, Place

SETTINGS = (
    "SingleNodeExecutor(max_workers=2, block_allocation=True, disable_dependencies=True, hostname_localhost=True): "
    "workers that stay, and no search for futures among the arguments"
)


def _executor(place: Place) -> SingleNodeExecutor:
    return SingleNodeExecutor(
        max_workers=place.workers, block_allocation=True, disable_dependencies=True, hostname_localhost=True
    )


def submit(place: Place) -> Figures:
    with _executor(place) as executor:
        return timing.rate(executor.submit, place.n)


def latency(place: Place) -> Figures:
    with _executor(place) as executor:
        return timing.round_trips(lambda i: executor.submit(identity, i).result(), place.n)


def sleeps(place: Place) -> Figures:
    with _executor(place) as executor:
        return timing.share_of_ideal(executor.submit, place.n, place.workers)
