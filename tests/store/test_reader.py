"""Reading: each number and each row is what happened, in pages, with the right to SELECT alone."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg2
import pytest

from tests.servers import Database
from tests.store.hive import ANY, ONCE, Hive, Puppet, fail_for_good
from workerbee.store import Connection, Scope
from workerbee.store import reader as readers
from workerbee.store.reader import JobsetReader, Reader
from workerbee.store.seen import Wanted
from workerbee.wire.causes import cause_of_record
from workerbee.wire.job import EndKind, FunctionRow, Options, Outcome


def make_varied(hive: Hive, bee: Puppet) -> None:
    """Jobs 1 to 6: completed, failed, cancelled, running, retrying, waiting."""
    for _ in range(6):
        hive.add()
    bee.succeed(bee.take())
    fail_for_good(bee, 2)
    assert hive.client.cancel_waiting([(3, 1)]) == {3}
    bee.take()
    bee.miss(bee.take())


@pytest.fixture
def varied(hive: Hive) -> Hive:
    """Jobs 1 to 6: completed, failed, cancelled, running, retrying, waiting."""
    make_varied(hive, hive.bee("host-a"))
    return hive


def test_a_jobset_has_its_counters_and_bees(varied: Hive) -> None:
    """One row says what happened in it and who serves it."""
    [row] = Reader(varied.connection).jobsets(jobset_id=varied.jobset.id)
    assert row.jobset == varied.jobset
    assert (row.counts.added, row.counts.completed, row.counts.failed, row.counts.cancelled) == (6, 1, 1, 1)
    assert row.counts.open == 3
    assert (row.n_bees, row.n_runners) == (1, 1)
    assert Reader(varied.connection).jobsets(jobset_id="there_is_none") == []


def test_jobsets_come_newest_first_in_pages(hive: Hive) -> None:
    """Each page goes on below the last number; temporary ones are nobody's business."""
    newer = Hive(hive.connection)
    reader = Reader(hive.connection)
    page = reader.jobsets(1)
    assert [row.jobset for row in page] == [newer.jobset]
    assert [row.jobset for row in reader.jobsets(1, before=page[-1].jobset.number)] == [hive.jobset]


def test_each_status_is_told(varied: Hive) -> None:
    """Jobs are listed by id with their latest run's status, input and output."""
    reader = JobsetReader(varied.connection, varied.jobset)
    rows = reader.jobs().rows
    assert [row.status for row in rows] == ["completed", "failed", "cancelled", "running", "retrying", "waiting"]
    assert (rows[0].input, rows[0].output, rows[0].duration) == ('{"n": 1}', '{"done": 1}', pytest.approx(0.01))
    assert [row.id for row in reader.jobs(after=2, n=2).rows] == [3, 4]


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled", "running", "retrying", "waiting"])
def test_jobs_are_found_by_their_status(varied: Hive, status: str) -> None:
    """And what has another one is left out."""
    found = JobsetReader(varied.connection, varied.jobset).jobs(wanted=Wanted((status,))).rows
    assert [row.status for row in found] == [status]


def test_a_retried_failure_is_no_failure_any_more(varied: Hive) -> None:
    """The latest run counts, in lists and among the failures."""
    reader = JobsetReader(varied.connection, varied.jobset)
    [cause] = reader.causes()
    assert (cause.n, cause.cause.message, cause.hosts, cause.is_all) == (1, "no luck", ["host-a"], True)
    assert cause.digest is not None
    assert [job.id for job in reader.jobs(wanted=Wanted(cause=cause.digest)).rows] == [2]
    varied.client.reopen([(2, 1)], Options())
    assert reader.causes() == []
    assert reader.jobs(wanted=Wanted(("failed",), cause=cause.digest)).rows == []
    assert reader.jobs(wanted=Wanted(("failed",))) == ([], None)
    assert [(job.run, job.status) for job in reader.jobs_of([2, 99])] == [(2, "waiting")]


def test_a_job_has_a_life(varied: Hive) -> None:
    """Its attempts, its ends, and the runs that were opened, in order, without anything pickled."""
    varied.client.reopen([(2, 1)], Options())
    events = JobsetReader(varied.connection, varied.jobset).life(2)
    assert [(event.kind, event.run) for event in events] == [("error", 1), ("failed", 1), ("opened", 2)]
    varied.run("DELETE FROM {bee}")
    events = JobsetReader(varied.connection, varied.jobset).life(2)
    assert [event.host for event in events] == ["host-a", "host-a", None], "a bee that has left is still known"
    assert events[1].error == {"type": "ValueError", "message": "no luck", "traceback": "  File a.py, line 1"}


def test_what_is_begun_says_with_whom_and_for_how_long(varied: Hive) -> None:
    """A job that has ended isn't begun any more, though its batch is still held."""
    reader = JobsetReader(varied.connection, varied.jobset)
    [begun] = reader.begun_jobs()
    assert (begun.job, begun.host, begun.copy) == (4, "host-a", False)
    assert 0 <= begun.since <= reader.longest_run()


def test_bees_are_alive_or_silent(varied: Hive) -> None:
    """The last heard of comes first; a lapsed one is still shown, as not alive."""
    quiet = varied.bee("host-b")
    quiet.lapse()
    rows = Reader(varied.connection).bees(varied.jobset)
    assert [(row.host, row.alive) for row in rows] == [("host-a", True), ("host-b", False)]
    assert rows[0].n_started == 1
    assert rows[1].silent_for >= 2


def test_failures_are_grouped_by_their_cause(hive: Hive) -> None:
    """The most frequent first; a job that failed twice counts once, by its latest run."""
    bee = hive.bee()
    bee.note_host()
    for job, message in zip(hive.add(4), ("unlucky 1", "no disk", "unlucky 3", "unlucky 4"), strict=True):
        fail_for_good(bee, job, message)
    reader = JobsetReader(hive.connection, hive.jobset)
    causes = reader.causes()
    told = [(cause.cause.message, cause.n, cause.example) for cause in causes]
    assert told == [("unlucky #", 3, 4), ("no disk", 1, 2)]
    assert causes[0].hosts == ["a"]
    hive.client.reopen([(4, 1)], Options())
    [batch] = bee.claim(1, 1, ANY)
    record = b'{"type": "KeyError", "message": "x"}'
    outcome = Outcome(4, 2, EndKind.ERROR, "error", record, None, 0.1)
    bee.fail(batch, outcome, ONCE, "{}", cause_of_record(record).digest)
    assert [(cause.cause.message, cause.n) for cause in reader.causes()] == [("unlucky #", 2), ("x", 1), ("no disk", 1)]


FILTERS = {
    "all": (Wanted(), {1, 2, 3, 4, 5, 6, 7, 8, 9}),
    "failed or cancelled": (Wanted(("failed", "cancelled")), {2, 3, 8}),
    "open": (Wanted(("waiting", "retrying", "running")), {4, 5, 6, 7, 9}),
    "waiting": (Wanted(("waiting",)), {6, 9}),
    "running or failed": (Wanted(("running", "failed")), {2, 4, 7, 8}),
    "a function": (Wanted(function="m:f"), {7, 8, 9}),
    "a function without its module": (Wanted(function="f"), {7, 8, 9}),
    "a function's failures": (Wanted(("failed",), "m:f"), {8}),
    "a host": (Wanted(host="host-b"), {7, 8}),
    "a host's and completed": (Wanted(("completed", "running"), host="host-a"), {1, 4}),
    "another host": (Wanted(host="host-c"), set()),
    "another function": (Wanted(function="m:g"), set()),
}


@pytest.mark.parametrize("page", [1, 3, 1000])
@pytest.mark.parametrize("name", FILTERS)
def test_jobs_are_found_by_what_is_wanted(several: Hive, name: str, page: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By status, function and host, all at once, however small the looks are; in the order of ids, each once."""
    monkeypatch.setattr(readers, "PAGE_ROWS", page)
    monkeypatch.setattr(readers, "LOOK_JOBS", page)
    monkeypatch.setattr(readers, "LOOK_SECONDS", 60.0)  # however slow the machine is
    wanted, ids = FILTERS[name]
    reader = JobsetReader(several.connection, several.jobset)
    found = [row.id for rows in reader.pages(wanted) for row in rows]
    assert found == sorted(ids)
    assert [row.id for row in reader.jobs(2, 2, wanted).rows] == sorted(i for i in ids if i > 2)[:2]


@pytest.fixture(scope="module")
def several(shared: Database) -> Iterator[Hive]:
    """Jobs 1 to 6: completed, failed, cancelled, running, retrying, waiting. 7 to 9 of a function: running, failed,
    waiting, on another host.
    """
    connection = Connection(shared.dsn)
    hive = Hive(connection)
    bee = hive.bee("host-a")
    bee.note_host()
    make_varied(hive, bee)
    record = FunctionRow(0, b"d", "m:f", "import", b"m:f", "3.11", b"mac")
    function = hive.client.put_function(record, b"i")
    other = hive.bee("host-b")
    scope = Scope(only=(function,))
    for _ in range(3):
        hive.add(function=function)
    other.take(scope=scope)
    batch = other.take(scope=scope)
    other.fail(batch, Outcome(8, 1, EndKind.ERROR, "error", b"{}", None, 0.1), ONCE, "{}")
    yield hive
    connection.close()


def test_no_job_has_another_status() -> None:
    """A misspelt one is a mistake, not an empty page."""
    with pytest.raises(ValueError, match="no job has the status done"):
        Wanted(("done",))


def test_a_page_that_looked_long_enough_says_where_to_go_on(several: Hive, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no index for what is wanted, no look is without end."""
    monkeypatch.setattr(readers, "LOOK_JOBS", 1)
    monkeypatch.setattr(readers, "LOOK_SECONDS", 0.0)
    reader = JobsetReader(several.connection, several.jobset)
    assert reader.jobs(0, 5, Wanted(function="m:f")) == ([], 1)
    assert [row.id for row in reader.jobs(6, 5, Wanted(function="m:f")).rows] == [7]


@pytest.fixture
def observer(shared: Database, varied: Hive) -> Iterator[Connection]:
    """A connection of a role that may SELECT from the schema and nothing else."""
    varied.run("DROP ROLE IF EXISTS observer")
    varied.run("CREATE ROLE observer LOGIN")
    varied.run("GRANT USAGE ON SCHEMA workerbee TO observer")
    varied.run("GRANT SELECT ON ALL TABLES IN SCHEMA workerbee TO observer")
    dsn = psycopg2.extensions.make_dsn(shared.dsn, user="observer")
    connection = Connection(dsn)
    yield connection
    connection.close()
    varied.run("DROP OWNED BY observer")
    varied.run("DROP ROLE observer")


def test_select_is_all_the_right_it_takes(observer: Connection, varied: Hive) -> None:
    """An observer reads everything, and can change nothing."""
    [row] = Reader(observer).jobsets(jobset_id=varied.jobset.id)
    reader = JobsetReader(observer, row.jobset)
    assert len(reader.jobs().rows) == 6
    assert reader.history() == []
    assert reader.texts(1) == []
    assert reader.tail(1) is None
    assert reader.size()[0] > 0
    assert Reader(observer).departed(row.jobset) == []
    assert reader.causes()
    assert reader.begun_jobs()
    assert reader.life(2)
    assert reader.recent_durations() is not None
    assert Reader(observer).bees(row.jobset)
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        observer.run('DELETE FROM workerbee."batch$"')
