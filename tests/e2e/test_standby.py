"""A hot standby: it can be read; who wants to write is told what it is, and goes on when it is promoted."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import workerbee
from tests import jobs, servers
from tests.bees import Bee
from tests.servers import Database, Server
from tests.waiting import eventually
from workerbee import WorkerbeeExecutor
from workerbee.errors import DatabaseUnavailableError

SAYS = "read-only.*a standby, say: name the primary"


@pytest.fixture
def standby(server: Server, database: Database) -> Iterator[Database]:
    """With a jobset ``work``, in which one job is done."""
    with WorkerbeeExecutor(1, jobset_id="work", dsn=database.dsn) as executor:
        assert executor.submit(jobs.double, 1).result(60) == 2
    with servers.server(standby_of=server) as made:
        yield Database(made, database.name)


def test_a_standby_before_and_after_its_promotion(standby: Database, caplog: pytest.LogCaptureFixture) -> None:
    """Constructors, clients and bees that came before all go on after it."""
    handle = workerbee.open("work", dsn=standby.dsn)
    eventually(lambda: [row["result"] for row in handle.results()] == [2])
    assert "1 completed" in str(handle.status())
    with pytest.raises(DatabaseUnavailableError, match=SAYS):
        WorkerbeeExecutor(0, jobset_id="work", dsn=standby.dsn, reconnect_timeout=0.1)
    caplog.clear()
    with (
        Bee(standby.dsn, "work", "--busywait") as bee,
        ThreadPoolExecutor(2) as threads,
        caplog.at_level(logging.WARNING),
    ):
        waiting = threads.submit(WorkerbeeExecutor, 0, jobset_id="work", dsn=standby.dsn)
        pausing = threads.submit(handle.pause)
        bee.says("a standby, say")
        eventually(lambda: caplog.text.count("a standby, say") == 2)
        standby.execute("SELECT pg_promote()")
        assert pausing.result(60) is True
        handle.resume()
        with waiting.result(60) as executor:
            assert executor.submit(jobs.double, 1).result(60) == 2
            assert executor.submit(jobs.double, 2).result(60) == 4
