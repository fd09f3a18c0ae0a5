"""absurd: durable workflows in PostgreSQL, with results."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from absurd_sdk import Absurd

from tests.benchmarks import queues
from tests.benchmarks.timing import Figures, Place

SETTINGS = "one queue; spawn, one by one; two workers, each claiming 100 at a time and polling every 20 ms"
LEFT = "SELECT count(*) FROM absurd.t_default WHERE state NOT IN ('completed', 'failed', 'cancelled')"


def _app(dsn: str) -> Absurd:
    app = Absurd(queues.url(dsn))

    @app.register_task(name="noop")
    def noop(data: dict[str, Any], _: Any) -> None:
        pass

    return app


def work(dsn: str) -> None:
    _app(dsn).start_worker(batch_size=100, poll_interval=0.02)


def submit(place: Place) -> Figures:
    return _measured(place, queues.rate)


def latency(place: Place) -> Figures:
    return _measured(place, queues.latency)


def _measured(place: Place, measure: Any) -> Figures:
    control = "import sys, absurdctl; sys.exit(absurdctl.main())"
    subprocess.run([sys.executable, "-c", control, "init", "-d", queues.url(place.dsn)], check=True)
    app = _app(place.dsn)
    app.create_queue()

    def enqueue(datas: list[dict[str, Any]]) -> None:
        for data in datas:
            app.spawn("noop", data)

    with queues.workers(place, __name__):
        return dict(measure(place, enqueue, LEFT))
