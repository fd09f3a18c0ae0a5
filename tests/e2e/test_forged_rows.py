"""Whoever can only write to the database can't have code run: not in a bee, and not in a client."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest
from psycopg2 import sql

from tests.bees import Bee
from tests.servers import Database
from workerbee import WorkerbeeExecutor
from workerbee.errors import RemoteError, SignatureError


def change(database: Database, update: str, planted: bytes) -> None:
    """Run an update of the only jobset's tables, as somebody may who has the right to write them."""
    [(number,)] = database.execute('SELECT number FROM workerbee."jobset$"')
    tables = {name: sql.Identifier("workerbee", f"{name}${number}") for name in ("job", "outcome", "function")}
    error = {"type": "x.Y", "message": "m", "traceback": "", "notes": [], "pickle": base64.b64encode(planted).decode()}
    values = {"planted": sql.Literal(planted), "error": sql.Literal(json.dumps(error))}
    database.execute(sql.SQL(update).format(**tables, **values))


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """A file that is made if code of ours is run."""
    return tmp_path / "mark"


@pytest.fixture
def planted(mark: Path) -> bytes:
    return f"cos\nsystem\n(Vtouch {mark}\ntR.".encode()


@pytest.fixture
def executor(database: Database) -> Iterator[WorkerbeeExecutor]:
    with WorkerbeeExecutor(0, jobset_id="forged", dsn=database.dsn) as made:
        yield made


def run(database: Database) -> None:
    with Bee(database.dsn, "forged") as bee:
        assert bee.process.wait(60) == 0, bee.output


RESULTS = {
    "a pickle": "UPDATE {outcome} SET codec = 'pickle', output = NULL, payload = {planted}",
    "an unsigned pickle": "UPDATE {outcome} SET codec = 'pickle', output = NULL, payload = {planted}, mac = NULL",
    "another value": "UPDATE {outcome} SET output = '99'",
    "another job's": "UPDATE {outcome} o SET output = p.output, mac = p.mac FROM {outcome} p WHERE p.job <> o.job",
    "another signature": "UPDATE {outcome} SET mac = decode(repeat('00', 16), 'hex')",
}


@pytest.mark.parametrize("update", RESULTS.values(), ids=RESULTS)
def test_a_forged_result_is_not_believed(
    executor: WorkerbeeExecutor, database: Database, mark: Path, planted: bytes, update: str
) -> None:
    """A future of a changed outcome raises, and nothing is unpickled; the same goes for results()."""
    executor.submit(abs, -1)
    executor.submit(abs, -2)
    executor.flush()
    run(database)
    change(database, update, planted)
    with WorkerbeeExecutor(0, jobset_id="forged", dsn=database.dsn) as again:
        assert {type(row.get("error")) for row in again.results()} == {SignatureError}
        with pytest.raises(SignatureError):
            again.submit(abs, -1).result(60)
    assert not mark.exists()


def test_a_forged_error_is_text(executor: WorkerbeeExecutor, database: Database, mark: Path, planted: bytes) -> None:
    """The pickle in an error record that nobody has signed stays one."""
    executor.submit(abs, -1)
    executor.flush()
    run(database)
    change(database, "UPDATE {outcome} SET status = 'failed', codec = 'error', output = {error}::json", planted)
    [row] = executor.results(on_error="return")
    assert type(row["error"]) is RemoteError
    assert row["error"].type_name == "x.Y"
    assert not mark.exists()


CALLS = {
    "a pickle": "UPDATE {job} SET codec = 'pickle', input = NULL, payload = {planted}",
    "other arguments": """UPDATE {job} SET input = '{{"args": [-7], "kwargs": {{}}}}'""",
    "no signature": "UPDATE {job} SET mac = NULL",
}


@pytest.mark.parametrize("update", CALLS.values(), ids=CALLS)
def test_a_forged_call_is_not_run(
    executor: WorkerbeeExecutor, database: Database, mark: Path, planted: bytes, update: str
) -> None:
    """A job whose row was changed fails by name, in the client too."""
    future = executor.submit(abs, -1)
    executor.flush()
    change(database, update, planted)
    run(database)
    with pytest.raises(SignatureError, match="find out who else can write"):
        future.result(60)
    assert not mark.exists()


def test_a_forged_function_is_left_alone(
    executor: WorkerbeeExecutor, database: Database, mark: Path, planted: bytes
) -> None:
    """A bee names the function that it won't load, and goes."""
    future = executor.submit(abs, -1)
    executor.flush()
    change(database, "UPDATE {function} SET codec = 'pickle', body = {planted}", planted)
    with Bee(database.dsn, "forged") as bee:
        assert bee.process.wait(60) == 70, bee.output
        assert "its signature doesn't hold" in bee.output
    assert not mark.exists()
    executor.cancel_running([future])


def test_a_hint_of_anybody_is_only_a_hint(executor: WorkerbeeExecutor, database: Database) -> None:
    """Any role may notify: whatever it says, futures get what is stored."""
    role = f"nobody_{database.name}"
    database.execute(f"CREATE ROLE {role} LOGIN")
    try:
        futures = [executor.submit(abs, -n) for n in range(3)]
        executor.flush()
        [(number,)] = database.execute('SELECT number FROM workerbee."jobset$"')
        hints = [
            "9" * 5000,
            "1-" + "9" * 5000,
            "\u0663",
            "1\n1 1 json zz 5",
            f"1\n1 {'9' * 5000} json 00 5",
            "1\n1 1 json",
        ]
        hints += ["1-3\n" + f"1 1 json {'00' * 16} 99", "1-99999999999999999999", "\n" * 50, "1 -"]
        with (
            psycopg2.connect(database.dsn.replace("user=postgres", f"user={role}")) as theirs,
            theirs.cursor() as cursor,
        ):
            for channel in (f"workerbee$done${number}", "workerbee$work"):
                for hint in hints:
                    cursor.execute("SELECT pg_notify(%s, %s)", (channel, hint))
        theirs.close()
        run(database)
        assert [f.result(30) for f in futures] == [0, 1, 2]
        assert executor.submit(abs, -7).cancel()
    finally:
        database.execute(f"DROP ROLE {role}")
