"""oban: a queue in PostgreSQL; the free edition keeps no results."""

from __future__ import annotations

import asyncio
from typing import Any

from oban import Oban, worker
from oban.schema import install

from tests.benchmarks import queues
from tests.benchmarks.timing import Figures, Place

SETTINGS = "enqueue_many of 1000; two processes with a limit of 50 on the queue; asynchronous; no results"
LEFT = "SELECT count(*) FROM oban_jobs WHERE state NOT IN ('completed', 'cancelled', 'discarded')"


@worker(queue="default")
class Noop:
    async def process(self, job: Any) -> None:
        pass


def work(dsn: str) -> None:
    async def run() -> None:
        pool = await Oban.create_pool(dsn=queues.url(dsn), max_size=20)
        async with Oban(pool=pool, queues={"default": 50}):
            await asyncio.Event().wait()

    asyncio.run(run())


def submit(place: Place) -> Figures:
    return _measured(place, queues.rate)


def latency(place: Place) -> Figures:
    return _measured(place, queues.latency)


def _measured(place: Place, measure: Any) -> Figures:
    with asyncio.Runner() as runner:
        pool = runner.run(Oban.create_pool(dsn=queues.url(place.dsn)))
        runner.run(install(pool))
        oban = Oban(pool=pool)
        runner.run(oban.start())

        def enqueue(datas: list[dict[str, Any]]) -> None:
            for start in range(0, len(datas), 1000):
                runner.run(oban.enqueue_many([Noop.new(data) for data in datas[start : start + 1000]]))

        with queues.workers(place, __name__):
            return dict(measure(place, enqueue, LEFT))
