"""Bees that can't run what is there: they say so to their batch system, and to the clients that wait for it."""

from __future__ import annotations

import importlib
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType

import psycopg2.extensions
import pytest

from tests import jobs
from tests.bees import PROJECT, Bee
from tests.servers import Database
from tests.waiting import eventually
from workerbee import JobSet, WorkerbeeExecutor
from workerbee.client import watcher


@pytest.fixture
def only_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module that bees don't find."""
    (tmp_path / "only_here.py").write_text("def triple(x):\n    return {'y': 3} if isinstance(x, dict) else 3 * x\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("only_here")
    del sys.modules["only_here"]


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    monkeypatch.setattr(watcher, "NO_BEES_SECONDS", 0.1)

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            kept.append(record.getMessage())

    kept: list[str] = []
    handler = Kept(logging.WARNING)
    logging.getLogger("workerbee").addHandler(handler)
    yield kept
    logging.getLogger("workerbee").removeHandler(handler)


@pytest.fixture
def places(environment: Path) -> dict[str, dict[str, str]]:
    """Environments of bees, by what they say of them."""
    other = environment / "other"
    other.write_text("ab" * 32)
    other.chmod(0o600)
    return {
        f"no key file at {environment / 'none'}; copy": {"WORKERBEE_KEY_FILE": str(environment / "none")},
        f"its signature doesn't hold with the key [0-9a-f]+ in {other}: it was made with another, or forged; copy": {
            "WORKERBEE_KEY_FILE": str(other)
        },
        "only_here:triple can't be (imported|loaded) here|it can't be loaded here: .*only_here": {},
    }


def test_bees_that_are_in_the_wrong_place_have_failed(
    one_database: Database, only_here: ModuleType, places: dict[str, dict[str, str]], warnings: list[str]
) -> None:
    """Each that could run nothing says why and exits with 70; one that has run something with 0; the client is told."""
    with WorkerbeeExecutor(0, jobset_id="wrong", dsn=one_database.dsn) as executor, ExitStack() as stack:
        executor.submit(only_here.triple, 2)
        executor.flush()
        bees = {
            said: stack.enter_context(Bee(one_database.dsn, "wrong", environment=place))
            for said, place in places.items()
        }
        for said, bee in bees.items():
            assert bee.wait() == 70, bee.output
            assert re.search(f"could run nothing of wrong: .*({said})", bee.output)
        # Each reason is told once: some client looks while a bee is still there, another after all have gone.
        told = re.compile("bees that (are there can't|were there couldn't) run them: on ")
        eventually(lambda: any(map(told.search, warnings)))
        executor.submit(jobs.double, 2)
        executor.flush()
        assert stack.enter_context(Bee(one_database.dsn, "wrong")).wait() == 0
        executor.cancel_running()


def test_clients_are_told_where_all_bees_refuse(
    one_database: Database, only_here: ModuleType, places: dict[str, dict[str, str]], warnings: list[str]
) -> None:
    """Once, with the reason; and not where one of them does the work."""
    with WorkerbeeExecutor(0, jobset_id="all_refuse", dsn=one_database.dsn) as executor, ExitStack() as stack:
        lost = executor.submit(only_here.triple, 2)
        for place in list(places.values())[1:]:
            stack.enter_context(Bee(one_database.dsn, "all_refuse", "--busywait", environment=place))
        told = "jobs of only_here:triple wait in all_refuse, and 2 of 2 bees that are there can't run them: on "
        eventually(lambda: [w for w in warnings if told + os.uname().nodename in w])
        assert executor.submit(jobs.double, 2).result(30) == 4
        assert not lost.done()
        executor.cancel_running()
    assert len([w for w in warnings if told in w]) <= 2, "one for each reason"


def test_a_bee_without_a_key_runs_what_needs_none(
    one_database: Database, places: dict[str, dict[str, str]], only_here: ModuleType, tmp_path: Path
) -> None:
    """The dicts of add_jobs, by --function; if that can't be imported there, it has failed too."""
    parts = psycopg2.extensions.parse_dsn(one_database.dsn)
    jobset = JobSet("keyless", **{k: parts[k] for k in ("host", "port", "user", "password", "dbname") if k in parts})
    jobset.setup_jobset()
    jobset.add_jobs([{"x": 1}])
    jobset.close()
    keyless = next(iter(places.values()))
    with Bee(one_database.dsn, "keyless", "--function", "only_here:triple", environment=keyless) as bee:
        assert bee.wait() == 70, bee.output
        assert "only_here:triple can't be imported here" in bee.output
    path = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(PROJECT)])}
    with Bee(one_database.dsn, "keyless", "--function", "only_here:triple", environment=keyless | path) as bee:
        assert bee.wait() == 0, bee.output
