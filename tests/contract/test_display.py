"""What a notebook shows of an executor: what there is to know, at once, and never an error."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import wait

import pytest
from IPython.core.formatters import HTMLFormatter

from tests.contract import jobs
from tests.contract.conftest import OURS, Make, maker
from tests.faultproxy import FaultProxy
from tests.servers import Database, Server
from tests.waiting import eventually
from workerbee import WorkerbeeExecutor


def shown(executor: WorkerbeeExecutor) -> dict[str, str]:
    """The table of an executor, as a notebook has it."""
    html = HTMLFormatter()(executor)
    assert html is not None
    return dict(re.findall("<tr><th>([^<]*)</th><td>([^<]*)</td></tr>", html))


@pytest.mark.parametrize("kind", OURS)
def test_counts_and_bees_are_shown(make: Make) -> None:
    """The jobs by state, with the jobset's name; a state in which none is isn't mentioned."""
    executor = make(2)
    wait([executor.submit(jobs.reciprocal, n) for n in range(3)])
    eventually(lambda: shown(executor).get("completed") == "2")
    table = shown(executor)
    table.pop("server")
    assert table == {
        "jobset": executor._client.jobset.name,
        "completed": "2",
        "failed": "1",
        "bees": "1",
        "runners": "2",
    }


@pytest.mark.parametrize("kind", OURS)
def test_an_executor_that_has_ended_says_so(make: Make) -> None:
    """And asks no database."""
    executor = make(0)
    executor.shutdown()
    assert shown(executor)["state"] == "shut down"


@pytest.fixture
def marked_up(server: Server) -> Iterator[Database]:
    """A database with markup in its name."""
    server.execute('CREATE DATABASE "<b>&"')
    database = Database(server, "<b>&")
    yield database
    database.drop()


def test_all_is_escaped(marked_up: Database) -> None:
    """Names, and what the server says."""
    with WorkerbeeExecutor(0, dsn=marked_up.dsn) as executor:
        assert "dbname=&lt;b&gt;&amp;" in shown(executor)["server"]
        marked_up.drop()
        assert "&lt;b&gt;&amp;&quot; does not exist" in shown(executor)["state"]


@pytest.mark.parametrize("kind", OURS)
def test_a_database_that_gives_no_answer_isnt_waited_for(
    kind: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said that there is none."""
    monkeypatch.setattr("workerbee.executor.GLANCE_SECONDS", 0.1)
    with FaultProxy("127.0.0.1", database.server.port) as proxy:
        executor = maker(kind, proxy.dsn(database.dsn))(0)
        proxy.stall()
        assert "no answer" in shown(executor)["state"]
        proxy.resume()
        executor.shutdown()
