"""Jobsets: their names, their views, their end."""

from __future__ import annotations

import time
from collections.abc import Callable
from uuid import UUID, uuid4

import psycopg2
import pytest
from psycopg2 import extensions

from tests.servers import Database
from tests.store.hive import Hive
from workerbee import JobSet, WorkerbeeExecutor
from workerbee.errors import JobsetIdError, UnsupportedDatabaseError
from workerbee.store import Catalogue, Connection, is_passing, schema
from workerbee.wire.job import Jobset

ORIGINS = [
    "id",
    "input_data",
    "output_data",
    "n_claims",
    "n_failed_attempts",
    "time_last_claimed",
    "time_last_completed",
    "job_duration",
    "status",
    "function",
    "host",
    "bee",
    "error",
]


@pytest.mark.parametrize("jobset_id", ["bee", "jobset", "user", "2016", "a_result", "x" * 48, "_", "select", "job"])
def test_any_valid_id_names_its_view(line: Connection, jobset_id: str) -> None:
    """Whoever selects from it by its bare name sees one row a job with the origin's columns and a status."""
    hive = Hive(line, jobset_id)
    hive.add(2)
    hive.bee().take()
    columns = (
        "SELECT column_name FROM information_schema.columns WHERE table_schema = 'workerbee' AND table_name = %(t)s"
    )
    assert [c for (c,) in line.run(columns + " ORDER BY ordinal_position", {"t": jobset_id})] == ORIGINS
    assert line.run(f'SELECT id, n_claims, status FROM workerbee."{jobset_id}" ORDER BY id') == [
        (1, 1, "running"),
        (2, 0, "waiting"),
    ]
    assert hive.catalogue.find_jobset(jobset_id) == hive.jobset


@pytest.mark.parametrize(
    "jobset_id",
    ["Capital", 'a"quote', "a'quote", "a space", "", "x" * 49, "bee$", "ä", "a-b", "a.b", "a\n", "a\0b", None, 7, b"a"],
)
def test_other_ids_are_refused(shared: Database, jobset_id: object) -> None:
    """By the caller's own line, before the server is asked, and by the table."""
    with pytest.raises(ValueError):
        JobSet(jobset_id, host="127.0.0.1", port=1)  # type: ignore[arg-type]


def test_one_of_many_creates_a_jobset(line: Connection, connect: Callable[[], Connection]) -> None:
    """The others learn that it is there; who tries again after a lost answer still is its creator."""
    uuid = uuid4()
    first = create(line, "once", uuid)
    assert first is not None
    assert create(connect(), "once", uuid4()) is None
    assert create(line, "once", uuid) == first


def create(connection: Connection, jobset_id: str, uuid: UUID) -> Jobset | None:
    return Catalogue(connection).create_jobset(jobset_id, key=None, speculate=True, uuid=uuid)


def test_a_dropped_jobset_leaves_nothing(hive: Hive) -> None:
    """Tables, view, batches and counters are gone; a jobset of that name is another one."""
    hive.add(3)
    assert hive.catalogue.drop_jobset(hive.jobset)
    assert hive.catalogue.find_jobset(str(hive.jobset.id)) is None
    left = "SELECT relname FROM pg_class WHERE relname ~ %(n)s OR relname = %(id)s"
    number = str(hive.jobset.number)
    assert hive.connection.run(left, {"n": rf"\${number}$", "id": hive.jobset.id}) == []
    for table in ("batch", "counter"):
        assert hive.run(f"SELECT 1 FROM {{{table}}} WHERE jobset = {{number}}") == []
    again = Hive(hive.connection, hive.jobset.id)
    assert (again.jobset.number != hive.jobset.number, again.jobset.uuid != hive.jobset.uuid) == (True, True)


def test_a_reader_puts_a_drop_off(hive: Hive, connect: Callable[[], Connection]) -> None:
    """It is marked, nobody claims from it any more, and the next sweep drops it; meanwhile its name may wait."""
    hive.add(1)
    reader = connect()
    reader.run("BEGIN")
    reader.run(f'SELECT * FROM workerbee."{hive.jobset.id}"')
    assert not hive.catalogue.drop_jobset(hive.jobset)
    assert hive.catalogue.find_jobset(str(hive.jobset.id)) is None
    with pytest.raises(psycopg2.Error) as refused:
        Hive(hive.connection, hive.jobset.id)
    assert is_passing(refused.value)
    reader.run("COMMIT")
    again = Hive(hive.connection, hive.jobset.id)  # the old tables are still there
    again.add(1)
    assert hive.catalogue.sweep() >= 1
    assert again.status(1) == "waiting"
    with pytest.raises(psycopg2.errors.UndefinedTable):
        hive.run("SELECT 1 FROM {job}")


def test_a_sweep_hardly_waits_for_readers(line: Connection, connect: Callable[[], Connection]) -> None:
    """Beside one who reads all of what is dropped, as pg_dump does; what he leaves is swept by the next."""
    catalogue, reader = Catalogue(line), connect()
    made = [catalogue.create_jobset(f"swept_{n}", key=None, speculate=False) for n in range(20)]
    reader.run("BEGIN")
    for jobset in filter(None, made):
        reader.run(f'SELECT FROM workerbee."{jobset.id}"')
    line.run("UPDATE workerbee.\"jobset$\" SET dropped_at = now() WHERE id LIKE 'swept_%'")
    began = time.monotonic()
    catalogue.sweep()
    assert time.monotonic() - began < 10
    left = "SELECT 1 FROM workerbee.\"jobset$\" WHERE id LIKE 'swept_%'"
    assert len(line.run(left)) == 20
    reader.run("COMMIT")
    while catalogue.sweep():
        pass
    assert not line.run(left)


def test_a_temporary_jobset_outlives_its_client_by_an_hour(line: Connection) -> None:
    """Then anybody drops it; before that a sweep leaves it alone."""
    old, young = Hive(line, client=uuid4()), Hive(line, client=uuid4())
    for hive, minutes in ((old, 61), (young, 59)):
        query = "UPDATE {jobset} SET seen_at = now() - make_interval(mins => %(m)s) WHERE number = {number}"
        hive.run(query, m=minutes)
    old.catalogue.sweep()
    assert old.catalogue.find_jobset_by_number(old.jobset.number) is None
    assert young.catalogue.find_jobset_by_number(young.jobset.number) == young.jobset
    assert not old.catalogue.touch_client(old.jobset)


@pytest.mark.parametrize("is_whole", [True, False], ids=["whole", "a table dropped by hand"])
def test_another_users_leftovers_are_in_nobodys_way(database: Database, *, is_whole: bool) -> None:
    """Who shares a database may not drop what others own, and needn't: they sweep it themselves."""
    role = f"guest_{database.name}"
    owner, guest = Connection(database.dsn), Connection(extensions.make_dsn(database.dsn, user=role))
    schema.ensure(owner)
    hive = Hive(owner, client=uuid4())
    hive.run("UPDATE {jobset} SET seen_at = now() - interval '61 minutes' WHERE number = {number}")
    if not is_whole:
        hive.run("DROP TABLE {job} CASCADE")
    database.execute(f"CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA workerbee TO {role}")
    database.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA workerbee TO {role}")
    try:
        assert Catalogue(guest).sweep() == 0
        assert Catalogue(owner).sweep() == 1
    finally:
        guest.close()
        owner.close()
        database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.parametrize("table", ["job", "function", "run", "outcome"])
def test_a_primary_key_that_somebody_has_dropped_is_missed(database: Database, table: str) -> None:
    """A run would have two ends, or an id two jobs, without a word; put back, all is well."""
    WorkerbeeExecutor(0, jobset_id="work", dsn=database.dsn).shutdown()
    name = f'workerbee."{table}$1"'
    [(name_of_key, key)] = database.execute(
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'p' AND conrelid = %s::regclass",
        name,
    )
    database.execute(f'ALTER TABLE {name} DROP CONSTRAINT "{name_of_key}"')
    with pytest.raises(UnsupportedDatabaseError, match=rf'"{table}\$1" has lost its primary key; have that put right'):
        WorkerbeeExecutor(0, jobset_id="work", dsn=database.dsn)
    WorkerbeeExecutor(0, jobset_id="other", dsn=database.dsn).shutdown()
    database.execute(f"ALTER TABLE {name} ADD {key}")
    WorkerbeeExecutor(0, jobset_id="work", dsn=database.dsn).shutdown()


def test_row_level_security_on_a_jobsets_tables_is_named(database: Database) -> None:
    """Where no policy lets a user see anything, its futures would wait for ever."""
    WorkerbeeExecutor(0, jobset_id="work", dsn=database.dsn).shutdown()
    role = f"guest_{database.name}"
    database.execute(f"CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA workerbee TO {role}")
    database.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA workerbee TO {role}")
    database.execute(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA workerbee TO {role}")
    database.execute('ALTER TABLE workerbee."outcome$1" ENABLE ROW LEVEL SECURITY')
    theirs = extensions.make_dsn(database.dsn, user=role)
    try:
        with pytest.raises(UnsupportedDatabaseError, match=r'"outcome\$1" has row-level security without a policy'):
            WorkerbeeExecutor(0, jobset_id="work", dsn=theirs)
        database.execute(f'CREATE POLICY all_of_it ON workerbee."outcome$1" TO {role} USING (true)')
        WorkerbeeExecutor(0, jobset_id="work", dsn=theirs).shutdown()
    finally:
        database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_the_first_key_is_adopted(hive: Hive) -> None:
    """A jobset made without a key belongs to the first that signs in it."""
    assert [hive.catalogue.adopt_key(hive.jobset, key) for key in ("one", "two")] == ["one", "one"]


def test_what_remains(hive: Hive) -> None:
    """Whether there are batches, held ones among them, of which functions, and whether there ever was a job."""
    remaining = lambda: tuple(hive.catalogue.remaining(hive.jobset.number))  # noqa: E731
    bee = hive.bee()
    assert remaining() == (False, False, None, False, None)
    hive.add(1, function=4)
    assert remaining() == (True, False, [4], True, None)
    batch = bee.take()
    assert remaining() == (True, True, None, True, None)
    bee.succeed(batch)
    assert remaining() == (False, False, None, True, None)


def test_bees_are_counted_and_forgotten(hive: Hive, line: Connection) -> None:
    """Live ones, those that may serve a jobset, and those that vanished long ago and hold nothing."""
    gone, holder = hive.bee("a"), hive.bee("b")
    hive.add(1)
    holder.take()
    assert hive.catalogue.live_bees(hive.jobset.number) == 2
    hive.catalogue.leave(gone.incarnation)
    assert hive.catalogue.live_bees(hive.jobset.number) == 1
    hive.run(
        "UPDATE {bee} SET lease_until = now() - interval '2 hours' WHERE incarnation = %(b)s", b=str(holder.incarnation)
    )
    hive.catalogue.sweep()
    known = "SELECT 1 FROM {bee} WHERE incarnation = %(b)s"
    assert hive.run(known, b=str(holder.incarnation))
    holder.release_unknown([])
    hive.catalogue.sweep()
    assert not hive.run(known, b=str(holder.incarnation))


TAKEN = {
    "view": "VIEW {} AS SELECT 1 AS mine",
    "materialized view": "MATERIALIZED VIEW {} AS SELECT 1 AS mine",
    "table": "TABLE {} (mine integer)",
    "sequence": "SEQUENCE {}",
    "type": "TYPE {} AS (mine integer)",
}


@pytest.mark.parametrize("kind", TAKEN)
def test_a_name_that_is_taken_by_something_else_is_refused(line: Connection, kind: str) -> None:
    """What somebody has made in our schema stays as it is, and no jobset is left half made."""
    name = f"taken_by_{kind.replace(' ', '_')}"
    line.run("CREATE " + TAKEN[kind].format(f"workerbee.{name}"))
    with pytest.raises(JobsetIdError, match=f"somebody has made a {kind} of this name.* choose another jobset_id"):
        create(line, name, uuid4())
    assert line.run(f"SELECT relname FROM pg_class WHERE relname = '{name}'") == [(name,)]
    assert Catalogue(line).find_jobset(name) is None
    assert create(line, f"{name}_not", uuid4()) is not None
