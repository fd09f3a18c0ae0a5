"""Steering from outside: retry, cancel and drop, which say how much and ask."""

from __future__ import annotations

import json

import click.testing
import pytest

from tests.servers import Database
from tests.store.hive import ANY, Hive, fail_for_good
from workerbee.cli import main
from workerbee.store import Connection, schema
from workerbee.store.reader import JobsetReader
from workerbee.wire.causes import cause_of


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
    return [row.status for row in JobsetReader(hive.connection, hive.jobset).jobs().rows]


BEFORE = ["failed", "failed", "failed", "cancelled", "running", "waiting"]


@pytest.mark.parametrize(
    ("arguments", "after"),
    [
        (("--yes",), ["waiting", "waiting", "waiting", "cancelled", "running", "waiting"]),
        (("--yes", "--cancelled"), ["waiting", "waiting", "waiting", "waiting", "running", "waiting"]),
        (("--yes", "--group", "1"), ["waiting", "waiting", "failed", "cancelled", "running", "waiting"]),
        (("--yes", "--group", "2"), ["failed", "failed", "waiting", "cancelled", "running", "waiting"]),
        (("2", "4", "5"), ["failed", "waiting", "failed", "waiting", "running", "waiting"]),
        (("--dry-run",), BEFORE),
        (("--yes", "--status", "cancelled"), ["failed", "failed", "failed", "waiting", "running", "waiting"]),
        (("--yes", "--host", "elsewhere"), BEFORE),
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


def test_retry_of_a_job_that_isnt_there(database: Database, study: Hive) -> None:
    """Nothing is started, not even those that are there."""
    result = say(database, "retry", "study", "2", "99")
    assert (result.exit_code, "99" in result.stderr) == (2, True)
    assert statuses(study) == BEFORE


def test_cancel_ends_what_is_open(database: Database, study: Hive) -> None:
    """What waits and what runs; a second time there is nothing left to cancel."""
    assert say(database, "cancel", "study", "--yes").stdout == "2 jobs of study were cancelled\n"
    assert statuses(study) == ["failed", "failed", "failed", "cancelled", "cancelled", "cancelled"]
    assert say(database, "cancel", "study", "--yes").stdout == "0 jobs of study were cancelled\n"


def test_cancel_takes_ids(database: Database, study: Hive) -> None:
    """Only those, as far as they are open."""
    assert say(database, "cancel", "study", "1", "6").stdout == "1 jobs of study were cancelled\n"
    assert statuses(study)[4:] == ["running", "cancelled"]


def test_groups_are_called_by_their_digest(database: Database, study: Hive) -> None:
    """Which stays when groups come and go; what fails on and on is cancelled by it."""
    cause = cause_of("ValueError", "no disk", "  File a.py, line 1").digest.hex()
    assert cause[:8] in say(database, "failures", "study").stdout
    assert say(database, "retry", "study", "--group", cause[:6], "--yes").exit_code == 0
    assert statuses(study) == ["failed", "failed", "waiting", "cancelled", "running", "waiting"]
    listed = say(database, "jobs", "list", "study", "--group", "1", "--json").stdout.splitlines()
    assert [json.loads(line)["job"] for line in listed] == [1, 2]
    assert say(database, "cancel", "study", "--group", cause, "--yes").stdout == "1 jobs of study were cancelled\n"
    assert statuses(study)[2:4] == ["cancelled", "cancelled"]
    assert statuses(study)[5] == "waiting"


def test_cancel_takes_a_status(database: Database, study: Hive) -> None:
    """What runs goes on where only what waits is to end."""
    said = say(database, "cancel", "study", "--status", "waiting,retrying", "--yes").stdout
    assert said == "1 jobs of study were cancelled\n"
    assert statuses(study)[4:] == ["running", "cancelled"]


def test_a_pause_lasts_until_it_is_ended(database: Database, study: Hive) -> None:
    """Nothing is begun meanwhile; status says by whom and what to do; both can be said twice."""
    bee = study.bee()
    assert "study is paused: workerbee resume study" in say(database, "pause", "study", "--why", "no disk").stdout
    assert "was paused already, by " in say(database, "pause", "study").stdout
    assert bee.claim(9, 9, ANY) == []
    shown = say(database, "status", "study").stdout
    assert "Paused since" in shown
    assert ": no disk" in shown
    assert shown.splitlines()[-1].startswith("next: workerbee resume study")
    assert json.loads(say(database, "status", "study", "--json").stdout)["paused_why"] == "no disk"
    assert say(database, "resume", "study").stdout == "study goes on\n"
    assert say(database, "resume", "study").stdout == "study wasn't paused\n"
    assert len(bee.claim(9, 9, ANY)) == 1


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
        (("retry", "study", "--group", "abcdef"), "none of them is 'abcdef'"),
        (("retry", "study", "--status", "completed"), "completed: there are failed, cancelled"),
        (("cancel", "study", "--status", "failed"), "failed: there are waiting, retrying, running"),
        (("cancel", "study", "1", "--host", "h"), "not both"),
        (("pause", "studi"), "did you mean 'study'?"),
        (("resume", "studi"), "did you mean 'study'?"),
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
