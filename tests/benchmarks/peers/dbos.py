"""DBOS: durable workflows in PostgreSQL, with results."""

from __future__ import annotations

import os
import threading
from typing import Any

from dbos import DBOS, DBOSClient

from tests.benchmarks import queues
from tests.benchmarks.timing import Figures, Place

SETTINGS = "workflows on a queue without limits, polled every 50 ms; two executors; DBOSClient.enqueue, one by one"
LEFT = "SELECT count(*) FROM dbos.workflow_status WHERE status IN ('ENQUEUED', 'PENDING', 'DELAYED')"


def work(dsn: str) -> None:
    _launch(dsn, f"worker-{os.getpid()}")
    threading.Event().wait()


def _launch(dsn: str, executor: str) -> None:
    DBOS(
        config={
            "name": "noop",
            "system_database_url": queues.url(dsn),
            "application_version": "1",
            "executor_id": executor,
            "log_level": "ERROR",
        }
    )

    @DBOS.workflow(name="noop")
    def noop(data: dict[str, Any]) -> None:
        pass

    DBOS.launch()
    DBOS.register_queue("noop", polling_interval_sec=0.05)


def submit(place: Place) -> Figures:
    return _measured(place, queues.rate)


def latency(place: Place) -> Figures:
    return _measured(place, queues.latency)


def _measured(place: Place, measure: Any) -> Figures:
    _launch(place.dsn, "setup")  # the tables, before the workers race for them
    DBOS.destroy()
    client = DBOSClient(system_database_url=queues.url(place.dsn))

    def enqueue(datas: list[dict[str, Any]]) -> None:
        for data in datas:
            client.enqueue({"queue_name": "noop", "workflow_name": "noop", "app_version": "1"}, data)

    with queues.workers(place, __name__):
        return dict(measure(place, enqueue, LEFT))
