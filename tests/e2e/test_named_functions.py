"""``--function``: bees that run what the command line names, and nothing else."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg2.extensions
import pytest
from psycopg2 import sql

from tests.bees import Bee
from tests.servers import Database
from tests.waiting import eventually
from workerbee import JobSet, WorkerbeeExecutor


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module that client and bees can import."""
    (tmp_path / "named_by_hand.py").write_text(
        "def square(data): return {'y': data['x'] ** 2}\ndef add(a, b=1): return a + b\ndef other(a): return 'other'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    yield importlib.import_module("named_by_hand")
    del sys.modules["named_by_hand"]


@pytest.fixture
def jobset(database: Database) -> Iterator[JobSet]:
    """A jobset of dicts without a function."""
    parts = psycopg2.extensions.parse_dsn(database.dsn)
    made = JobSet("named", **{k: parts[k] for k in ("host", "port", "user", "password", "dbname") if k in parts})
    made.setup_jobset()
    yield made
    made.close()


def stored(database: Database) -> list[tuple[Any, ...]]:
    return database.execute("SELECT output_data, status FROM workerbee.named ORDER BY id")


def plant(database: Database, mark: Path) -> None:
    """Put a pickle into the first job's row that would make the file ``mark``."""
    pickle = f"cos\nsystem\n(Vtouch {mark}\ntR.".encode()
    [(table,)] = database.execute(
        "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace"
        " WHERE nspname = 'workerbee' AND relkind = 'r' AND relname ~ '^job[$][0-9]+$'"
    )
    update = sql.SQL("UPDATE {} SET codec = 'pickle', input = NULL, payload = %s WHERE id = 1")
    database.execute(update.format(sql.SQL(table)), pickle)


def test_named_functions_run_jobs_that_bring_none(module: ModuleType, database: Database, jobset: JobSet) -> None:
    """The first one named runs the dicts of add_jobs, and the bee ends when they are done."""
    jobset.add_jobs({"x": n} for n in range(20))
    with Bee(database.dsn, "named", "--function", "named_by_hand:square", "--function", "named_by_hand:add") as bee:
        assert bee.process.wait(60) == 0, bee.output
    assert stored(database) == [({"y": n**2}, "completed") for n in range(20)]


@pytest.mark.parametrize("with_key", [True, False], ids=["with the key", "without it"])
def test_jobs_that_name_the_function_are_run(
    module: ModuleType, database: Database, jobset: JobSet, with_key: bool, environment: Path
) -> None:
    """An executor's JSON calls of that function run, also in a bee that was there first and has no key."""
    key = {} if with_key else {"WORKERBEE_KEY_FILE": str(environment / "none")}
    options = ("named", "--function", "named_by_hand:square", "--function", "named_by_hand:add", "--busywait")
    with (
        Bee(database.dsn, *options, environment=key) as bee,
        WorkerbeeExecutor(0, jobset_id="named", dsn=database.dsn) as executor,
    ):
        assert [executor.submit(module.add, n, b=2).result(60) for n in range(3)] == [2, 3, 4], bee.output
        left = executor.submit(module.other, 1)
        executor.flush()
        assert executor.submit(module.add, 10).result(60) == 11
        assert not left.done(), "it wasn't named"
        executor.cancel_running([left])


def test_a_bee_ends_when_only_other_functions_wait(module: ModuleType, database: Database, jobset: JobSet) -> None:
    """What is left is not for this bee: it says so and exits with 0."""
    with WorkerbeeExecutor(0, jobset_id="named", dsn=database.dsn) as executor:
        future = executor.submit(module.other, 1)
        executor.flush()
        with Bee(database.dsn, "named", "--function", "named_by_hand:add") as bee:
            assert bee.process.wait(60) == 0, bee.output
            assert "not for this bee" in bee.output
        executor.cancel_running([future])


def test_a_pickle_planted_in_the_table_is_not_loaded(
    module: ModuleType, database: Database, jobset: JobSet, tmp_path: Path
) -> None:
    """Whoever can write rows can't have code run: the job fails, and the others go on."""
    mark = tmp_path / "unpickled"
    jobset.add_jobs([{"x": 1}, {"x": 2}])
    plant(database, mark)
    with Bee(database.dsn, "named", "--function", "named_by_hand:square") as bee:
        assert bee.process.wait(60) == 0, bee.output
    statuses = [status for _, status in stored(database)]
    assert statuses == ["failed", "completed"]
    assert not mark.exists()


def test_a_function_that_is_not_of_the_form_is_refused(database: Database) -> None:
    """A misspelt option is a usage error at once."""
    with Bee(database.dsn, "named", "--function", "square") as bee:
        assert bee.process.wait(30) == 2
        assert "MODULE:NAME" in bee.output


def test_jobset_run_unpickles_nothing(module: ModuleType, database: Database, jobset: JobSet, tmp_path: Path) -> None:
    """The same row under JobSet.run."""
    mark = tmp_path / "unpickled"
    jobset.add_jobs([{"x": 1}, {"x": 2}])
    plant(database, mark)
    jobset.run(lambda data: data)
    assert [status for _, status in stored(database)] == ["failed", "completed"]
    assert not mark.exists()


def test_a_bee_is_not_for_the_jobset_that_has_its_jobsets_number(module: ModuleType, database: Database) -> None:
    """In a new schema the numbers begin anew: who waits for more of one jobset does nothing of another, and ends."""

    def add(name: str, *numbers: int) -> JobSet:
        jobset = JobSet(name, **psycopg2.extensions.parse_dsn(database.dsn))
        jobset.setup_jobset()
        jobset.add_jobs([{"x": n} for n in numbers])
        return jobset

    arguments = ("--busywait", "--function")
    with Bee(database.dsn, "words", *arguments, "named_by_hand:square") as bee, closing(add("words", 1, 2)):
        eventually(lambda: database.execute("SELECT 1 FROM workerbee.words HAVING bool_and(status = 'completed')"))
        database.execute("DROP SCHEMA workerbee CASCADE")
        with closing(add("prices", *range(20))):
            assert bee.wait() != 0
            assert database.execute("SELECT DISTINCT status FROM workerbee.prices") == [("waiting",)]
