"""Every column of every table holds what nobody would write: it ends its own job at most, and nobody else's."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import closing
from functools import partial

import click.testing
import psycopg2
import pytest

from tests import jobs
from tests.bees import Bee
from tests.dashboard.stage import local
from tests.hostile_rows import OF_A_JOB, Case, cases
from tests.servers import Database
from workerbee import WorkerbeeExecutor
from workerbee.cli import main
from workerbee.client import watcher

COMMANDS = ("status", "status --json", "status rows", "status rows --json", "bees", "bees --json", "jobs list rows")
COMMANDS += ("jobs list rows --json", "failures rows", "failures rows --json", "report rows -o -", "results rows")
COMMANDS += ("jobs show rows 1", "jobs logs rows 1")
VIEWS = ("", "jobset/rows", "jobset/fine", "jobset/rows/jobs", "jobset/rows/jobs?status=failed", "bees", "launches")
VIEWS += ("index.json", "jobset/rows.json", "jobset/rows/jobs.json", "bees.json", "metrics")


@pytest.fixture
def clients(lax: Database) -> Iterator[tuple[WorkerbeeExecutor, WorkerbeeExecutor]]:
    """The client of the jobset whose rows are changed, and another's."""
    rows, fine = (WorkerbeeExecutor(0, jobset_id=name, dsn=lax.dsn) for name in ("rows", "fine"))
    yield rows, fine
    for executor in (rows, fine):
        executor.shutdown(wait=False, cancel_futures=True)


def named(name: str, x: int) -> int:
    return len(name) * x


def write(database: Database, every: list[tuple[Case, Future[int] | None]]) -> None:
    """Write what the server takes of these cases, in jobs that stand in a header each."""
    with closing(database.connect()) as connection, connection.cursor() as cursor:
        cursor.execute('TRUNCATE workerbee."batch$"')
        cursor.execute(
            'INSERT INTO workerbee."batch$" (jobset, function, run, due_at, jobs)'
            " SELECT 1, function, 1, '3000-1-1', ARRAY[id] FROM workerbee.\"job$1\" ORDER BY id"
        )
        refused = 0
        for n, (case, future) in enumerate(every, 1):
            try:
                cursor.execute(case.statement(n, getattr(future, "job", None)))
            except psycopg2.Error:
                refused += 1
        assert refused < len(every) / 5
        cursor.execute("UPDATE workerbee.\"batch$\" SET due_at = NULL WHERE due_at = '3000-1-1'")


def look(database: Database, last: int) -> None:
    """Look at everything by every command and view."""
    for command in COMMANDS:
        result = click.testing.CliRunner().invoke(main, [*command.split(), "--dsn", database.dsn])
        assert result.exit_code == 0, (command, result.output, result.exception)
    with local(database.dsn) as page:
        for view in VIEWS:
            assert page.get(f"/{view}").status_code == 200, view
        for job in range(1, last + 1):
            assert page.get(f"/jobset/rows/job/{job}").status_code in (200, 404), job  # some have lost their id


def test_no_value_ends_more_than_its_own_job(
    lax: Database, clients: tuple[WorkerbeeExecutor, WorkerbeeExecutor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the bee, not the client, no neighbour, nobody who looks; and nothing waits for ever."""
    monkeypatch.setattr(watcher, "NO_BEES_SECONDS", 1.0)
    rows, fine = clients
    later = rows.with_options(run_at=4e9)
    every: list[tuple[Case, Future[int] | None]] = []
    for n, case in enumerate(c for c in cases(lax) if c.column.table not in ("jobset$", "version$")):
        call = partial(named, str(n)) if case.column.table == "function" else jobs.double
        every.append((case, later.submit(call, n) if case.column.table in OF_A_JOB else None))
    good = [later.submit(jobs.double, -n) for n in range(1, 51)]
    rows.flush()
    write(lax, every)
    last = len(good) + sum(future is not None for _, future in every)
    with Bee(lax.dsn, "--busywait") as bee:
        assert fine.submit(jobs.double, 1).result(30) == 2, bee.output
        assert [future.result(60) for future in good] == [-2 * n for n in range(1, 51)], bee.output
        ending = [future for case, future in every if future is not None and not case.waits]
        wait(ending, 60)
        assert [str(case) for case, future in every if future in ending and not future.done()] == [], bee.output
        latest = [executor.submit(jobs.double, 10**6) for executor in clients]
        wait(latest, 60)
        assert [future.done() for future in latest] == [True, True], bee.output
        assert [future.result() for future in latest] == [2 * 10**6] * 2
        look(lax, last)
        assert len(list(rows.results(on_error="return"))) > len(good)
        assert "left alone" not in bee.output
        assert "Traceback" not in bee.output
        leaving = threading.Thread(target=partial(rows.shutdown, cancel_futures=True), daemon=True)
        leaving.start()
        leaving.join(30)
        assert not leaving.is_alive()
        bee.terminate()
        assert bee.wait() == 0, bee.output
