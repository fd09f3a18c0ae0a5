"""pgqueuer: a queue in PostgreSQL; it keeps no results."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import asyncpg
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from tests.benchmarks import queues
from tests.benchmarks.timing import Figures, Place

SETTINGS = "asyncpg, durable tables; one enqueue of all; two workers with batch_size=100; asynchronous; no results"
LEFT = "SELECT count(*) FROM pgqueuer"


def work(dsn: str) -> None:
    async def run() -> None:
        queuer = PgQueuer(AsyncpgDriver(await asyncpg.connect(queues.url(dsn))))

        @queuer.entrypoint("noop")
        async def noop(job: Job) -> None:
            json.loads(job.payload or b"{}")

        await queuer.run(batch_size=100)

    asyncio.run(run())


def submit(place: Place) -> Figures:
    return _measured(place, queues.rate)


def latency(place: Place) -> Figures:
    return _measured(place, queues.latency)


def _measured(place: Place, measure: Any) -> Figures:
    with asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(queues.url(place.dsn)))
        queries = Queries(AsyncpgDriver(connection))
        runner.run(queries.install())

        def enqueue(datas: list[dict[str, Any]]) -> None:
            n = len(datas)
            runner.run(queries.enqueue(["noop"] * n, [json.dumps(data).encode() for data in datas], [0] * n))

        with queues.workers(place, __name__):
            return dict(measure(place, enqueue, LEFT))
