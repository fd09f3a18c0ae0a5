"""joblib: no single submits; it batches tasks by itself."""

from __future__ import annotations

from joblib import Parallel, delayed, parallel_config

from tests.benchmarks import timing
from tests.benchmarks.jobs import identity, noop
from tests.benchmarks.timing import Figures, Place

SETTINGS = "Parallel(n_jobs=2, backend='loky', batch_size='auto', pre_dispatch='all'); in the row 'map' batch_size=100"


def submit(place: Place) -> Figures:
    with Parallel(n_jobs=place.workers, pre_dispatch="all") as parallel:
        return timing.rate_of(lambda datas: parallel(delayed(noop)(data) for data in datas), place.n)


def map(place: Place) -> Figures:  # noqa: A001 (the row's name)
    with Parallel(n_jobs=place.workers, batch_size=100, pre_dispatch="all") as parallel:
        return timing.mapped(lambda items: parallel(delayed(identity)(item) for item in items), place.n)


def results(place: Place) -> Figures:
    with Parallel(n_jobs=place.workers) as parallel:
        return timing.results_of(lambda fn, items: parallel(delayed(fn)(item) for item in items), place.n)


def arguments(place: Place) -> Figures:
    with Parallel(n_jobs=place.workers) as parallel:
        return timing.arguments_of(lambda fn, items: parallel(delayed(fn)(item) for item in items), place.n)


def search(place: Place) -> Figures:
    with parallel_config("loky", n_jobs=place.workers):
        return timing.scikit("search", place.n)


def forest(place: Place) -> Figures:
    with parallel_config("loky", n_jobs=place.workers):
        return timing.scikit("forest", place.n)
