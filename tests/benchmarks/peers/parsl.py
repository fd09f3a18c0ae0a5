"""Parsl: its high-throughput executor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import parsl
from parsl.concurrent import ParslPoolExecutor
from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.providers import LocalProvider

from tests.benchmarks import timing
from tests.benchmarks.jobs import identity
from tests.benchmarks.timing import Figures, Place

SETTINGS = (
    "HighThroughputExecutor(max_workers_per_node=2, prefetch_capacity=100, encrypted=False), one local block, "
    "no monitoring, no logging; ParslPoolExecutor.submit"
)


@contextmanager
def _executor(place: Place) -> Iterator[Any]:
    pool = HighThroughputExecutor(
        address="127.0.0.1",
        max_workers_per_node=place.workers,
        prefetch_capacity=100,
        encrypted=False,
        provider=LocalProvider(init_blocks=1, max_blocks=1),
    )
    config = Config(executors=[pool], run_dir=place.directory, initialize_logging=False, strategy="none")
    with parsl.load(config) as kernel, ParslPoolExecutor(dfk=kernel) as executor:
        yield executor


def submit(place: Place) -> Figures:
    with _executor(place) as executor:
        return timing.rate(executor.submit, place.n)


def latency(place: Place) -> Figures:
    with _executor(place) as executor:
        return timing.round_trips(lambda i: executor.submit(identity, i).result(), place.n)


def sleeps(place: Place) -> Figures:
    with _executor(place) as executor:
        return timing.share_of_ideal(executor.submit, place.n, place.workers)
