"""procrastinate: a queue in PostgreSQL; it keeps no results."""

from __future__ import annotations

from typing import Any

from procrastinate import App, PsycopgConnector, SyncPsycopgConnector

from tests.benchmarks import queues
from tests.benchmarks.timing import Figures, Place

SETTINGS = "batch_defer of 1000; two workers with concurrency=30; asynchronous tasks; LISTEN/NOTIFY on; no results"
LEFT = "SELECT count(*) FROM procrastinate_jobs WHERE status IN ('todo', 'doing')"


def _app(connector: Any) -> tuple[App, Any]:
    app = App(connector=connector)

    @app.task(name="noop")
    async def noop(data: dict[str, Any]) -> None:
        pass

    return app, noop


def work(dsn: str) -> None:
    app, _ = _app(PsycopgConnector(conninfo=dsn))
    app.run_worker(concurrency=30)


def submit(place: Place) -> Figures:
    return _measured(place, queues.rate)


def latency(place: Place) -> Figures:
    return _measured(place, queues.latency)


def _measured(place: Place, measure: Any) -> Figures:
    app, noop = _app(SyncPsycopgConnector(conninfo=place.dsn))

    def enqueue(datas: list[dict[str, Any]]) -> None:
        for start in range(0, len(datas), 1000):
            noop.batch_defer(*({"data": data} for data in datas[start : start + 1000]))

    with app.open():
        app.schema_manager.apply_schema()
        with queues.workers(place, __name__):
            return dict(measure(place, enqueue, LEFT))
