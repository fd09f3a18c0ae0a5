"""An installation of the former version is upgraded by whoever comes first, under its running bees."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import psycopg2
import pytest
from psycopg2 import extensions

from tests.bees import Bee
from tests.servers import Database
from tests.store.former import Former
from workerbee.errors import DatabaseUnavailableError, UnsupportedDatabaseError
from workerbee.store import Catalogue, Connection, Maker, schema
from workerbee.store.connection import Query, Row
from workerbee.store.reader import JobsetReader, Reader

SHAPE = """
SELECT replace(c.relname, '$' || %(n)s, ''), c.relkind, c.relreplident, obj_description(c.oid, 'pg_class'),
       (SELECT array_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || a.attnotnull ORDER BY a.attnum)
          FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0),
       replace(COALESCE(pg_get_indexdef(i.indexrelid), ''), '$' || %(n)s, '')
  FROM pg_class c LEFT JOIN pg_index i ON i.indexrelid = c.oid
 WHERE c.relnamespace = 'workerbee'::regnamespace AND c.relname ~ ('[$]' || %(n)s || '(_|$)') ORDER BY 1
"""


@pytest.fixture
def former(database: Database) -> Iterator[Former]:
    """The installation, in a database of its own."""
    found = Former(database.dsn)
    yield found
    found.connection.close()


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    """A connection of this version."""
    with closing(Connection(database.dsn)) as made:
        yield made


def is_told(error: BaseException | None) -> bool:
    """Whether it says what to do."""
    return isinstance(error, psycopg2.Error) and error.pgcode == "28000" and "upgrade workerbee-executor" in str(error)


def test_bees_of_this_version_take_over_from_those_of_the_former(former: Former, database: Database) -> None:
    """What waits and what was running is done, what has ended stays, and a former bee hears what to do."""
    life = former.live()
    with (
        Bee(database.dsn, "study", "--function", "builtins:len") as one,
        Bee(database.dsn, "study", "--function", "builtins:len") as two,
    ):
        assert (one.wait(60), two.wait(60)) == (0, 0), one.output + two.output
    life.join(30)
    assert is_told(life.error), life.error
    with closing(Connection(database.dsn)) as connection:
        [row] = Reader(connection).jobsets(jobset_id="study")
        reader = JobsetReader(connection, row.jobset)
        assert tuple(reader.progress()) == (0, 0, 8, 3, 1)
        assert [(cause.n, cause.cause.message) for cause in reader.causes()] == [(2, "unlucky #"), (1, "no disk")]
        assert reader.run_facts([1])[1].host == "node-1"
        words = connection.run('SELECT host, refuses::text, doubts FROM workerbee."service$" ORDER BY host')
        assert ("node-1", '{"3": "no key"}', [4]) in words
        assert [jobs for (jobs,) in former.run("SELECT count(*) FROM {part}")] == [1], "a function's part stays"
        assert connection.run('SELECT bees FROM workerbee."history$" WHERE added = 12'), "a history is written"
        left = connection.run('SELECT last_words FROM workerbee."departed$"')
        assert [words.partition(";")[0] for (words,) in left] == ["nothing was left to do, or it was stopped"] * 2
        view = connection.run("SELECT id, status, host, error FROM workerbee.study WHERE id IN (1, 5) ORDER BY id")
        assert view == [(1, "completed", "node-1", None), (5, "failed", "node-1", "ValueError: unlucky 5")]


def test_a_former_client_hears_what_to_do(former: Former, connection: Connection) -> None:
    """When it would add jobs; until then it goes on."""
    former.reserve()
    schema.ensure(connection)
    with pytest.raises(psycopg2.Error) as told:
        former.reserve()
    assert is_told(told.value)
    assert Catalogue(connection).become_maker("study", Maker("node-9", 7, "3.11"), 0.0) is False, "jobs were added"
    [maker] = connection.run("""SELECT maker_host, maker_pid FROM workerbee."jobset$" WHERE id = 'study'""")
    assert maker == ("node-9", 7)


def test_upgraded_tables_are_as_new_ones(former: Former, connection: Connection) -> None:
    """Column by column, with their indexes and comments; and every object says what it is."""
    schema.ensure(connection)
    new = Catalogue(connection).create_jobset("new", key=None, speculate=True)
    assert new is not None
    shapes = [connection.run(SHAPE, {"n": str(number)}) for number in (former.number, new.number)]
    assert shapes[0] == shapes[1]
    assert len(shapes[0]) > 15
    silent = (
        "SELECT relname FROM pg_class WHERE relnamespace = 'workerbee'::regnamespace"
        " AND obj_description(oid, 'pg_class') IS NULL"
    )
    assert connection.run(silent) == []


def test_who_reads_for_long_is_waited_for(former: Former, connection: Connection, database: Database) -> None:
    """Nobody else waits meanwhile: the upgrade gives up its place in the queue and says why."""
    with closing(psycopg2.connect(database.dsn)) as other, other.cursor() as cursor:
        cursor.execute("SELECT * FROM workerbee.study")
        began = time.monotonic()
        with pytest.raises(DatabaseUnavailableError, match=r"in use by others.*study"):
            schema.ensure(connection)
        assert time.monotonic() - began < 10
        other.rollback()
    schema.ensure(connection)
    assert connection.run("""SELECT DISTINCT layout FROM workerbee."jobset$" """) == [(2,)]


class Cut(Connection):
    """A connection that is cut at its nth statement."""

    def __init__(self, dsn: str, n: int) -> None:
        super().__init__(dsn)
        self._left = n

    def run(self, query: Query, params: Mapping[str, Any] | None = None) -> list[Row]:
        self._left -= 1
        if self._left < 0:
            self.drop()
            raise DatabaseUnavailableError("cut")
        return super().run(query, params)


def test_a_killed_upgrade_is_gone_on_with(former: Former, database: Database, connection: Connection) -> None:
    """Wherever it was cut, the next one does the rest, and nothing twice."""
    n = 0
    while True:
        with closing(Cut(database.dsn, n)) as cut:
            try:
                schema.ensure(cut)
                break
            except DatabaseUnavailableError:
                n += 1
    assert n > 10
    [row] = Reader(connection).jobsets(jobset_id="study")
    reader = JobsetReader(connection, row.jobset)
    assert tuple(reader.progress()) == (3, 1, 4, 3, 1)
    assert sum(cause.n for cause in reader.causes() if cause.digest is not None) == 3


def test_many_upgrade_it_at_once(former: Former, database: Database) -> None:
    """Four of them, and all go on."""
    with ThreadPoolExecutor(4) as pool:
        connections = [Connection(database.dsn) for _ in range(4)]
        list(pool.map(_ensure, connections))
        for connection in connections:
            connection.close()
    assert database.execute("""SELECT DISTINCT layout FROM workerbee."jobset$" """) == [(2,)]


def _ensure(connection: Connection) -> None:
    while True:
        try:
            schema.ensure(connection)
        except DatabaseUnavailableError:
            continue
        except psycopg2.Error as error:
            if error.pgcode in ("40P01", "55P03"):
                continue
            raise
        return


def test_who_may_not_upgrade_it_is_told(former: Former, database: Database) -> None:
    """And when the owner has done it, those who could work before can work again."""
    database.execute("CREATE ROLE worker LOGIN")
    guest = Connection(extensions.make_dsn(database.dsn, user="worker"))
    try:
        database.execute(
            "GRANT USAGE ON SCHEMA workerbee TO worker;"
            " GRANT ALL ON ALL TABLES IN SCHEMA workerbee TO worker;"
            " GRANT ALL ON ALL SEQUENCES IN SCHEMA workerbee TO worker"
        )
        with pytest.raises(UnsupportedDatabaseError, match=r"version 1, .*may not upgrade it.*schema upgrade"):
            schema.ensure(guest)
        schema.ensure(former.connection)
        schema.ensure(guest)
        missing = "SELECT relname FROM pg_class WHERE relnamespace = 'workerbee'::regnamespace AND relkind = 'r'"
        missing += " AND NOT has_table_privilege('worker', oid, 'INSERT')"
        assert database.execute(missing) == []
    finally:
        guest.close()
        database.execute("DROP OWNED BY worker")
        database.execute("DROP ROLE worker")
