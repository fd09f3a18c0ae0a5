"""Looking from outside: the commands that read, with what they print, their JSON, and the status they end with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import click.testing
import pytest

from tests.bees import PROJECT
from tests.servers import Database
from tests.store.hive import Hive, make_study
from tests.waiting import eventually
from workerbee.cli import main
from workerbee.store import Connection

NOWHERE = "host=127.0.0.1 port=1"


@pytest.fixture(scope="module")
def study(shared: Database) -> Iterator[Hive]:
    """The jobset ``study``: twelve completed jobs, two that failed for one cause, one that runs and one that waits."""
    connection = Connection(shared.dsn)
    hive = make_study(connection, "study", "node-17", 12)
    yield hive
    connection.close()


def say(database: Database, *arguments: str) -> click.testing.Result:
    return click.testing.CliRunner().invoke(main, [*arguments, "--dsn", database.dsn])


def documents(result: click.testing.Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_status_lists_the_jobsets(shared: Database, study: Hive) -> None:
    """A line each, with how much is done and who works."""
    result = say(shared, "status")
    assert result.exit_code == 0
    [line] = [line for line in result.stdout.splitlines() if line.startswith("study ")]
    assert line.split()[1:7] == ["87", "%", "16", "2", "2", "1"]
    [row] = [row for row in documents(say(shared, "status", "--json")) if row["jobset"] == "study"]
    assert (row["percent"], row["bees"], row["events"]["failed"]) == (87, 1, 2)


def test_status_says_how_large_jobsets_are(shared: Database, study: Hive) -> None:
    """With what their jobs have printed; of all or of one."""
    assert "PRINTED" in say(shared, "status", "--size").stdout
    [row] = documents(say(shared, "status", "study", "--size", "--json"))
    assert row["jobset"] == "study"
    assert row["bytes"] > 8192 * 5
    assert 0 <= row["text_bytes"] < row["bytes"]


def test_status_says_in_a_sentence_how_a_jobset_goes(shared: Database, study: Hive) -> None:
    """How much, until when, and what fails most."""
    result = say(shared, "status", "study")
    assert result.stdout.startswith("Under way: 87 % of 16 jobs have ended, 2 are open; ")
    assert "ValueError: unlucky #" in result.stdout
    [document] = documents(say(shared, "status", "study", "--json"))
    assert document["schema"] == "workerbee.status/1"
    assert document["jobs"] == {"waiting": 1, "running": 1, "completed": 12, "failed": 2, "cancelled": 0}
    assert len(document["seconds_left"]) == 2


def test_status_gives_no_finish_beside_a_job_that_takes_longer_than_all_before(shared: Database) -> None:
    """It says how long that one has run."""
    with closing(Connection(shared.dsn)) as connection:
        hive = Hive(connection)
        bee, ids = hive.bee(), hive.add(20)
        bee.succeed(bee.take(20), *ids)
        hive.add()
        hive.age(bee.take(), 180.0)
        said = say(shared, "status", str(hive.jobset.id)).stdout
    assert "1 is open, with 1 runner; one job has run for 3.0 min." in " ".join(said.split())


def test_bees_are_listed_with_their_hosts(shared: Database, study: Hive) -> None:
    """Those that serve the jobset, with what they have begun."""
    [row] = documents(say(shared, "bees", "study", "--json"))
    assert (row["host"], row["state"], row["begun"]) == ("node-17", "alive", 1)
    assert "node-17" in say(shared, "bees", "study").stdout


def test_jobs_are_listed_in_pages(shared: Database, study: Hive) -> None:
    """By id, and by what they are at; the next page's beginning is named on stderr."""
    page = say(shared, "jobs", "list", "study", "--limit", "2")
    assert page.stderr == "there may be more: --after 2\n"
    assert [row["job"] for row in documents(say(shared, "jobs", "list", "study", "--after", "14", "--json"))] == [
        15,
        16,
    ]
    failed = documents(say(shared, "jobs", "list", "study", "--status", "failed", "--json"))
    assert [(row["job"], row["output"]) for row in failed] == [
        (13, "ValueError: unlucky 13"),
        (14, "ValueError: unlucky 14"),
    ]


def test_one_job_is_shown_with_its_error(shared: Database, study: Hive) -> None:
    """Input, attempts with their hosts, and the traceback."""
    shown = say(shared, "jobs", "show", "study", "13").stdout
    for part in ("job 13 of study: failed", '{"n": 13}', "node-17", "ValueError: unlucky 13", "File a.py, line 1"):
        assert part in shown
    [document] = documents(say(shared, "jobs", "show", "study", "13", "--json"))
    assert document["schema"] == "workerbee.job/1"
    assert [event["kind"] for event in document["events"]] == ["error", "failed"]


def test_failures_are_grouped_by_their_cause(shared: Database, study: Hive) -> None:
    """Two messages that differ in a number are one row."""
    [group] = documents(say(shared, "failures", "study", "--json"))
    assert (group["jobs"], group["type"], group["message"]) == (2, "ValueError", "unlucky #")
    assert "unlucky #" in say(shared, "failures", "study").stdout


@pytest.mark.parametrize(
    "command", [("status", "studie"), ("bees", "studie"), ("jobs", "list", "studie"), ("failures", "studie")]
)
def test_a_missing_jobset_is_named_with_the_nearest(shared: Database, study: Hive, command: tuple[str, ...]) -> None:
    """Status 2, and nothing on stdout."""
    result = say(shared, *command)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "did you mean 'study'?" in result.stderr


def test_a_missing_job_is_a_mistake(shared: Database, study: Hive) -> None:
    result = say(shared, "jobs", "show", "study", "999")
    assert result.exit_code == 2
    assert "no job 999 in study" in result.stderr


def test_without_a_database_the_status_is_69() -> None:
    result = click.testing.CliRunner().invoke(main, ["status", "--dsn", NOWHERE])
    assert result.exit_code == 69
    assert "can't connect" in result.stderr


def test_a_database_without_jobsets_is_left_as_it_is(database: Database) -> None:
    """Reading makes nothing, not even the schema."""
    result = say(database, "status")
    assert result.exit_code == 2
    assert "no jobset was ever made in this database" in result.stderr
    assert database.execute("SELECT count(*) FROM pg_namespace WHERE nspname = 'workerbee'") == [(0,)]


def test_wait_ends_with_what_became_of_the_jobs(shared: Database, study: Hive) -> None:
    """0 if all completed, 1 if some didn't, 124 if the time is up; with --fail-fast at the first that didn't."""
    assert say(shared, "wait", "study", "--timeout", "0").exit_code == 124
    failed = say(shared, "wait", "study", "--fail-fast")
    assert (failed.exit_code, failed.stdout) == (1, "")
    assert "2 jobs of study failed or were cancelled: workerbee failures study" in failed.stderr


def test_wait_notices_the_end(shared: Database, study: Hive) -> None:
    """It looks until nothing is open."""
    other = Hive(study.connection)
    bee = other.bee()
    other.add(2)
    batch = bee.take(2)
    waiting = subprocess.Popen(
        command("wait", str(other.jobset.id), "--dsn", shared.dsn), env=os.environ | {"PYTHONPATH": str(PROJECT)}
    )
    looks = (
        "SELECT 1 FROM pg_stat_activity WHERE application_name = 'workerbee command' AND datname = current_database()"
    )
    eventually(lambda: study.connection.run(looks), what="it looks")
    assert waiting.poll() is None
    bee.succeed(batch)
    assert waiting.wait(60) == 0


def test_the_schema_is_shown_and_installed(database: Database) -> None:
    """Status 1 until it is there; its SQL can be read before."""
    assert say(database, "schema", "show").exit_code == 1
    text = click.testing.CliRunner().invoke(main, ["schema", "sql"]).stdout
    assert 'CREATE TABLE workerbee."batch$"' in text
    assert "version 2 is here" in say(database, "schema", "install").stdout
    assert documents(say(database, "schema", "show", "--json"))[0]["present"] == 2
    assert "already" in say(database, "schema", "install").stdout


def test_what_could_steer_a_terminal_is_shown_and_not_sent(shared: Database, study: Hive) -> None:
    """Text out of a row is somebody else's."""
    bee = study.bee("evil\x1b[2Jhost")
    shown = say(shared, "bees", "study").stdout
    assert "\x1b" not in shown
    assert "evil\\x1b[2Jhost" in shown
    study.catalogue.leave(bee.incarnation)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "workerbee", *arguments]


def test_a_closed_pipe_is_no_error(shared: Database, study: Hive) -> None:
    """``workerbee … | head -1`` says nothing on stderr."""
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run(
        command("jobs", "list", "study", "--json", "--dsn", shared.dsn),
        stdout=writer,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        check=False,
        timeout=60,
    )
    os.close(writer)
    assert (process.returncode, process.stderr) == (0, b"")


def test_help_loads_no_driver() -> None:
    """It comes at once."""
    code = (
        "import sys, workerbee.cli\n"
        "try: workerbee.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'psycopg2', 'rich', 'cloudpickle', 'multiprocessing'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(PROJECT)}, check=True, timeout=60)
