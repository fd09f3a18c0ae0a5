"""Steering from outside: retry, cancel and drop, which say how much and ask."""

from __future__ import annotations

import click.testing
import pytest

from tests.servers import Database
from tests.store.hive import Hive
from tests.store.test_reader import fail_for_good
from workerbee.cli import main
from workerbee.store import Connection, JobsetReader, schema


@pytest.fixture
def study(database: Database) -> Hive:
    """Jobs 1 to 6: two that failed for one cause, one for another, one cancelled, one running, one waiting."""
    connection = Connection(database.dsn)
    schema.ensure(connection)
    hive = Hive(connection, "study")
    bee = hive.bee()
    for job, message in zip(hive.add(3), ("unlucky 1", "unlucky 2", "no disk"), strict=True):
        fail_for_good(bee, job, message)
    hive.add()
    assert hive.client.cancel_waiting([(4, 1)]) == {4}
    hive.add()
    bee.take()
    hive.add()
    return hive


def say(database: Database, *arguments: str) -> click.testing.Result:
    return click.testing.CliRunner().invoke(main, [*arguments, "--dsn", database.dsn])


def statuses(hive: Hive) -> list[str]:
    return [row.status for row in JobsetReader(hive.connection, hive.jobset).jobs()]


BEFORE = ["failed", "failed", "failed", "cancelled", "running", "waiting"]


@pytest.mark.parametrize(
    ("arguments", "after"),
    [
        (("--yes",), ["waiting", "waiting", "waiting", "cancelled", "running", "waiting"]),
        (("--yes", "--cancelled"), ["waiting", "waiting", "waiting", "waiting", "running", "waiting"]),
        (("--yes", "--group", "1"), ["waiting", "waiting", "failed", "cancelled", "running", "waiting"]),
        (("--yes", "--group", "2"), ["failed", "failed", "waiting", "cancelled", "running", "waiting"]),
        (("2", "4", "5", "99"), ["failed", "waiting", "failed", "waiting", "running", "waiting"]),
        (("--dry-run",), BEFORE),
    ],
)
def test_retry_starts_what_is_chosen_and_nothing_else(
    database: Database, study: Hive, arguments: tuple[str, ...], after: list[str]
) -> None:
    """All failures, a group of them, some ids; what runs, waits or has completed is left alone."""
    assert statuses(study) == BEFORE
    result = say(database, "retry", "study", *arguments)
    assert result.exit_code == 0, result.output
    assert statuses(study) == after


def test_cancel_ends_what_is_open(database: Database, study: Hive) -> None:
    """What waits and what runs; a second time there is nothing left to cancel."""
    assert say(database, "cancel", "study", "--yes").stdout == "2 jobs of study were cancelled\n"
    assert statuses(study) == ["failed", "failed", "failed", "cancelled", "cancelled", "cancelled"]
    assert say(database, "cancel", "study", "--yes").stdout == "0 jobs of study were cancelled\n"


def test_cancel_takes_ids(database: Database, study: Hive) -> None:
    """Only those, as far as they are open."""
    assert say(database, "cancel", "study", "1", "6").stdout == "1 jobs of study were cancelled\n"
    assert statuses(study)[4:] == ["running", "cancelled"]


def test_drop_deletes(database: Database, study: Hive) -> None:
    """The jobset and its tables are gone."""
    assert say(database, "drop", "study", "--yes").stdout == "study is dropped\n"
    assert say(database, "status", "study").exit_code == 2
    assert database.execute("SELECT to_regclass('workerbee.study')") == [(None,)]


@pytest.mark.parametrize("command", [("retry",), ("cancel",), ("drop",)])
def test_without_anybody_to_ask_it_wants_yes(database: Database, study: Hive, command: tuple[str, ...]) -> None:
    """It says what it would have done, and does nothing."""
    result = say(database, *command, "study")
    assert result.exit_code == 2
    assert "say --yes to do it" in result.stderr
    assert statuses(study) == BEFORE


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("retry", "study", "--group", "9"), "there are 2 groups of failures now"),
        (("retry", "study", "1", "--group", "1"), "not both"),
        (("retry", "studi"), "did you mean 'study'?"),
        (("drop", "study", "studi", "--yes"), "did you mean 'study'?"),
        (("cancel", "studi"), "did you mean 'study'?"),
    ],
)
def test_mistakes_change_nothing(database: Database, study: Hive, arguments: tuple[str, ...], said: str) -> None:
    """Each is answered by what to do; with one wrong name nothing is dropped."""
    result = say(database, *arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert statuses(study) == BEFORE
