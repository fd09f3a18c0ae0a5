"""A connection as others leave it: the process's psycopg2, the server's defaults, full queues, silent hosts."""

from __future__ import annotations

import json
import re
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext, suppress
from itertools import pairwise
from uuid import UUID, uuid4

import psycopg2
import pytest
from psycopg2 import errors, extensions, extras

from tests import servers
from tests.poolers import pgbouncer
from tests.servers import Database, Server
from tests.store.hive import ANY, Hive, failure
from tests.waiting import eventually
from workerbee.errors import DatabaseUnavailableError
from workerbee.store import Catalogue, ClientStore, Connection, connection, is_passing, reach, schema
from workerbee.store.bee import KeptText, ShowRequest
from workerbee.store.queries import FILES, load
from workerbee.store.reader import Reader
from workerbee.store.seen import Wanted
from workerbee.store.statement import Statement, literal
from workerbee.wire.job import FunctionRow, Options
from workerbee.wire.printed import Printed

# Values


VALUES = [
    "",
    "it's",
    "back\\slash and 'quote'",
    "\\x41",
    "E'\\n'",
    "{1,2}",
    "%s %(n)s %%",
    "größe 日本 🐝",
    "a\nb\tc",
    "-- ; DROP",
    0,
    -1,
    2**62,
    -(2**62),
    True,
    False,
    None,
    0.1,
    -1.5e-300,
    1e300,
    float("inf"),
    b"",
    b"\x00\xff'\\",
    bytearray(b"abc"),
    memoryview(b"abc"),
]


@pytest.mark.parametrize("standard", ["on", "off"])
def test_values_arrive_as_they_are(connect: Callable[[], Connection], standard: str) -> None:
    """Whatever the server's defaults are: text is text, and no value is ever SQL."""
    line = connect()
    line.run("SELECT set_config('standard_conforming_strings', %(s)s, false)", {"s": standard})
    line.run("SET escape_string_warning = off; SET bytea_output = escape")
    for value in VALUES:
        kind = {str: "text", bool: "boolean", int: "bigint", float: "float8", type(None): "text"}.get(
            type(value), "bytea"
        )
        for query in (f"SELECT %(v)s::{kind}", Statement(f"SELECT %(v)s::{kind}, 1, '{standard}'")):
            for _ in range(3):  # as it is, and prepared
                got = line.run(query, {"v": value})[0][0]
                assert (bytes(got) if kind == "bytea" else got) == value
    several = [b"\x00'\\\"{},", b"", b"b"]
    assert [bytes(b) for (b,) in line.run("SELECT unnest(%(v)s::bytea[])", {"v": several})] == several
    texts = ['a"b', "c'd", "\\", "{,}", "NULL", ""]
    assert line.run("SELECT %(v)s::text[]", {"v": texts}) == [(texts,)]
    assert line.run("SELECT %(v)s::text[]", {"v": []}) == [([],)]


@pytest.mark.parametrize("value", ["a\0b", "\ud800"])
def test_text_that_postgresql_cant_hold(value: str) -> None:
    """Is the values' fault, and nobody else's."""
    with pytest.raises(psycopg2.DataError, match="can't hold"):
        literal(value)


@pytest.fixture
def spoiled() -> Iterator[None]:
    """psycopg2 as other libraries leave it: what a whole process may register, is registered."""

    class Wrong:
        def __init__(self, value: object) -> None:
            self.value = value

        def getquoted(self) -> bytes:
            return b"'spoiled'"

    adapters = extensions.adapters.copy()
    types = {**extensions.string_types}
    for kind in (str, int, float, bool, bytes, bytearray, memoryview, list, tuple, dict, type(None), UUID, object):
        extensions.register_adapter(kind, Wrong)
    extensions.register_adapter(list, extras.Json)
    extensions.register_adapter(dict, extras.Json)
    extras.register_uuid()
    everything = (16, 17, 20, 21, 23, 25, 26, 114, 700, 701, 705, 1043, 1184, 1700, 2950, 3802)
    arrays = (1000, 1001, 1005, 1007, 1009, 1016, 1021, 1022, 1231, 2951)
    for oids in (everything, arrays):
        extensions.register_type(extensions.new_type(oids, "SPOILED", lambda value, _: f"spoiled {value}"))
    yield
    extensions.adapters.clear()
    extensions.adapters.update(adapters)
    extensions.string_types.clear()
    extensions.string_types.update(types)


def test_what_others_register_with_psycopg2_is_theirs(shared: Database, spoiled: None) -> None:
    """Everything is stored and read as ever, over a connection of ours."""
    with closing(psycopg2.connect(shared.dsn)) as theirs, theirs.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetchall() == [("spoiled 1",)]
    line = Connection(shared.dsn)
    hive = Hive(line)
    hive.add(3)
    bee = hive.bee("a")
    batch = bee.take(3)
    assert [json.loads(job.data) for job in batch.jobs] == [{"n": n} for n in (1, 2, 3)]
    assert hive.catalogue.find_jobset(str(hive.jobset.id)) == hive.jobset
    assert bee.held_claims() == {batch.id: (batch.claim, [1, 2, 3])}
    store = ClientStore(line, hive.jobset, uuid4())
    digests = [b"\x00'\\", b"2"]
    assert store.same_calls(digests) == {}
    assert store.taken_inputs(digests, digests) == ({}, {})
    assert store.begun() == {(1, 1), (2, 1), (3, 1)}
    assert [row[0] for row in store.results(0)] == [1, 2, 3]
    assert Catalogue(line).counts(hive.jobset.number).added == 3
    line.close()


# The server's defaults


def live(line: Connection) -> None:
    """Ask everything that there is to ask, of a schema and a jobset made over this connection."""
    schema.ensure(line)
    hive = Hive(line)
    catalogue, client, name = hive.catalogue, hive.client, str(hive.jobset.id)
    assert catalogue.find_jobset(name) == catalogue.find_jobset_by_number(hive.jobset.number) == hive.jobset
    assert name in catalogue.jobset_ids()
    assert catalogue.adopt_key(hive.jobset, "key") == "key"
    function = FunctionRow(0, b"digest", "f", "cloudpickle", b"body", "3.11", b"mac")
    number = client.put_function(function, b"identity")
    assert client.put_function(function, b"identity") == number
    assert client.left_aside("f", b"other") == 0
    assert [known.number for known in client.versions("f")] == [number]
    hive.add(9, due=1.0)
    hive.add(9)
    one, two = hive.bee("one"), hive.bee("two")
    assert one.functions_named("f") == (number,)
    assert one.get_function(number) is not None
    assert [j.number for offers in catalogue.offers() for j in offers].count(hive.jobset.number) == 1
    first = one.take(6, 3)
    assert one.start(first, 4)[0] == 4
    one.succeed(first, 1, 2, close=False)
    one.succeed(first, 1, close=False)
    assert one.miss(first, 3) == "retried"
    assert one.miss(first, 4, kind="error", attempts=1) == "failed"
    one.release(first, [5], untouched=True)
    assert one.overtaken([(1, 1)]).ended == set()
    assert client.cancel_waiting([(7, 1), (8, 1)]) == {7, 8}
    assert client.cancel_running([(6, 1)]) == {6}
    assert set(client.ended_badly()) == {(4, 1), (6, 1), (7, 1), (8, 1)}
    assert client.reopen([(4, 1)], Options(0)) == 1
    assert {end.job for page in client.finished(range(1, 9)) for end in page} == {1, 2, 4, 6, 7, 8}
    assert len(client.results(0)) == 18
    assert client.begun() <= {(n, 1) for n in range(1, 7)}
    assert client.same_calls([b"none"]) == {}
    assert client.taken_inputs([b"none"], [b"none"]) == ({}, {})
    one.release_unknown([])
    for lost in one.claim(9, 1, ANY):
        hive.age(lost, 10)
    assert two.take_over(ANY) >= 1
    assert two.speculate(ANY) == []
    one.lapse()
    assert two.save() == [str(one.incarnation)]
    one.came_back()
    assert one.able_bees(1) >= 1
    one.doubt(1)
    one.trust(1)
    assert catalogue.live_bees(hive.jobset.number) >= 1
    assert catalogue.live_runners(hive.jobset.number) >= 1
    assert catalogue.held_elsewhere(one.incarnation, None) == []
    assert catalogue.counts(hive.jobset.number).open > 0
    assert catalogue.remaining(hive.jobset.number).ever_added
    steer(hive, number)
    look(line, hive)
    catalogue.hint_work(hive.jobset.number)
    catalogue.hint_done(hive.jobset.number, "1")
    assert {hive.status(n) for n in range(1, 19)} >= {"waiting", "completed"}
    large = hive.add(1)[0]
    client.parts.put(large, 1, "pickle", bytes(2_000_000))
    catalogue.leave(two.incarnation)
    catalogue.sweep()
    assert catalogue.drop_jobset(hive.jobset)


def steer(hive: Hive, number: int) -> None:
    """Ask what clients ask to have other code run what waits."""
    client = hive.client
    adopted = FunctionRow(0, b"adoption", "f", "adopted", b"identity", "3.11", b"mac")
    for identity in (b"one", b"another"):
        client.put_adoption(adopted, identity)
    assert [row.identity for row in client.versions("f") if row.digest == b"adoption"] == [b"another"]
    assert (client.get_function(number) or adopted).body == b"body"
    assert client.waiting_functions([0, number]) == [0]
    assert client.reprioritise([0], 0, -1) > 0
    assert client.reprioritise([0], 0, 1) > 0
    assert client.hand_over({0: number}) > 0
    assert client.hand_over({number: 0}) > 0
    assert client.refused() == []
    assert client.open_runs()
    assert client.signatures([1])[1].mac is None
    assert client.losses.lost([(1, 1), (10, 1), (99, 1)]) == [(99, 1)]
    assert client.losses.give_up([failure(10), failure(99)], b"cause") == 0
    assert set(client.ended([(1, 9, 1)], 99)) == {1, 2, 4, 6, 7, 8}
    client.skip_ids()
    client.small_functions()
    client.parts.sweep_parts()
    catalogue, jobset, one = hive.catalogue, hive.jobset, hive.bee("three")
    assert catalogue.pause(jobset, by="me", why="a reason")
    assert catalogue.resume(jobset)
    catalogue.ask(jobset, 9, by="me", seconds=9)
    catalogue.recall(jobset.number)
    catalogue.note_minute([jobset.number])
    catalogue.thin_history(jobset.number)
    catalogue.fold_counters(jobset.number, 0)
    catalogue.set_back(1, 300)
    catalogue.restore_key(jobset, "aa")
    printed = Printed(1, b"out", b"err", 3, 3)
    one.refuse(number, "a reason")
    one.show(ShowRequest(9, is_stack=False), 1, printed)
    one.keep_texts([KeptText(1, 1, uuid4(), True, printed)])


def look(line: Connection, hive: Hive) -> None:
    """Ask all that readers ask."""
    reader = Reader(line)
    its = reader.of(hive.jobset)
    [row] = reader.jobsets(jobset_id=hive.jobset.id)
    assert row.jobset.uuid == hive.jobset.uuid
    assert reader.jobsets()
    assert len(reader.bees(hive.jobset)) == 3 <= len(reader.bees())
    assert len(its.jobs().rows) == 18
    for status in ("completed", "failed", "cancelled", "retrying", "waiting", "running"):
        list(its.pages(Wanted((status,))))
    list(its.pages(Wanted(host="h")))
    assert its.life(1)
    its.begun_jobs()
    for cause in its.causes():
        list(its.pages(Wanted(("failed",), cause=cause.digest)))
        list(its.pages(Wanted(("retrying",), cause=cause.digest)))
    its.recent_durations()
    its.recent_ends()
    its.history()
    its.texts(1)
    its.tail(1)
    its.size()
    its.same_jobs([b"none"], [b"none"])
    its.inputs_before(9, 9)
    its.history_steps(0, 60)
    reader.departed()
    reader.launches()
    reader.lately()
    reader.histories([hive.jobset.number], 0)
    reader.server_line()
    reader.clock()
    reader.database_size()
    reader.doing()
    assert its.progress().added == 18
    assert [function.name for function in its.functions()] == ["f", "f"]
    its.newest()
    its.legible()
    assert its.run_facts([1, 2])


def traps(database: Database) -> int:
    """Hide each function and operator that our queries use behind a better match in ``public`` that raises."""
    texts = [text for file in FILES for text in load(file).values()]
    used = sorted(
        {name for text in texts for name in re.findall(r"\b([a-z_]+)\(", text)}
        | {"pg_backend_pid", "textcat", "date_part", "ln", "concat", "left", "pg_walfile_name", "pg_is_in_recovery"}
    )
    with closing(database.connect()) as admin, admin.cursor() as cursor:
        cursor.execute(
            "SELECT p.proname, pg_get_function_identity_arguments(p.oid), p.prorettype::regtype::text, p.proretset"
            "  FROM pg_proc p WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f'"
            "   AND p.provariadic = 0 AND p.proallargtypes IS NULL AND p.proname = ANY (%s)",
            [used],
        )
        statements = [
            f'CREATE FUNCTION public."{name}"({arguments}) RETURNS {"SETOF" * many} {result} LANGUAGE plpgsql'
            f" AS $$ BEGIN RAISE 'trapped by {name}'; END $$"
            for name, arguments, result, many in cursor.fetchall()
        ]
        # Better than the catalogue's own, which take anything, or arrays of anything.
        statements += [
            f"CREATE FUNCTION public.pg_column_size({kind}) RETURNS integer {trapped('pg_column_size')}"
            for kind in ("json", "bytea")
        ]
        statements += [
            f"CREATE FUNCTION public.{name} {trapped('cardinality')}"
            for kind in ("bigint", "integer", "text", "boolean", "uuid")
            for name in (
                f"cardinality({kind}[]) RETURNS integer",
                f"unnest({kind}[]) RETURNS SETOF {kind}",
                f"array_remove({kind}[], {kind}) RETURNS {kind}[]",
                f"array_position({kind}[], {kind}) RETURNS integer",
            )
        ]
        cursor.execute(
            "SELECT oprname, oprleft::regtype::text, oprright::regtype::text, oprresult::regtype::text"
            "  FROM pg_operator WHERE oprleft <> 0 AND oprresult <> 0 AND oprname = ANY (%(names)s)"
            "   AND oprleft::regtype::text = ANY (%(kinds)s) AND oprright::regtype::text = ANY (%(kinds)s)",
            {"names": re.findall(r"\S+", "= <> < <= > >= + - * / ^ || && <@ @> ->> ~"), "kinds": KINDS},
        )
        for n, (name, left, right, result) in enumerate(cursor.fetchall()):
            statements += [
                f"CREATE FUNCTION public.trap_{n}({left}, {right}) RETURNS {result} {trapped(name)}",
                f"CREATE OPERATOR public.{name} (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = public.trap_{n})",
            ]
        n_set = 0
        for statement in statements:
            with suppress(errors.InvalidFunctionDefinition, errors.SyntaxError, errors.FeatureNotSupported):
                cursor.execute(statement)
                n_set += 1
        cursor.execute(f'ALTER DATABASE "{database.name}" SET search_path = public, pg_catalog')
    return n_set


def trapped(name: str) -> str:
    return f"LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped by {name}'; END $$"


KINDS = [
    *("bigint", "integer", "text", "boolean", "uuid", "bytea", "numeric", "oid", "interval", "json", "xid", "real"),
    *("double precision", "timestamp with time zone", "anyarray", "anyelement", "anycompatiblearray", "anynonarray"),
    *("anycompatible", "bigint[]", "integer[]", "text[]", "uuid[]", "anycompatiblenonarray"),
]


@pytest.mark.parametrize("pooled", [False, True], ids=["direct", "pooled"])
def test_nobody_elses_functions_and_operators_are_called(server: Server, database: Database, pooled: bool) -> None:
    """Though any user may make them in ``public``, and the database looks there first."""
    assert traps(database) > 200
    with pytest.raises(errors.RaiseException, match="trapped by cardinality"):
        database.execute("SELECT cardinality(ARRAY[1])")
    with pgbouncer(server) if pooled else nullcontext(server.port) as port:
        line = Connection(database.dsn.replace(f"port={server.port}", f"port={port}"))
        live(line)
        assert line.is_direct != pooled
        line.close()


@pytest.mark.parametrize("pooled", [False, True], ids=["direct", "pooled"])
def test_defaults_of_others_change_nothing(server: Server, database: Database, pooled: bool) -> None:
    """Of the database, the role or the server."""
    for setting in (
        "default_transaction_isolation = serializable",
        "array_nulls = off",
        "standard_conforming_strings = off",
        "transform_null_equals = on",
        "bytea_output = escape",
        "extra_float_digits = -15",
        "datestyle = 'German'",
        "intervalstyle = 'sql_standard'",
        "timezone = 'Asia/Kathmandu'",
        "quote_all_identifiers = on",
        "xmloption = document",
        "synchronous_commit = off",
    ):
        database.execute(f'ALTER DATABASE "{database.name}" SET {setting}')
    database.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    with pgbouncer(server) if pooled else nullcontext(server.port) as port:
        line = Connection(database.dsn.replace(f"port={server.port}", f"port={port}"))
        live(line)
        assert line.run("SHOW transaction_isolation") == [("read committed",)]
        line.close()


# What a session keeps


def test_what_a_pooler_throws_away_is_not_missed(connect: Callable[[], Connection]) -> None:
    """Statements that somebody in between has deallocated: from then on nothing is told to the session."""
    line = connect()
    query = Statement("SELECT %(n)s::integer + 1")
    for n in range(3):
        assert line.run(query, {"n": n}) == [(n + 1,)]
    line.run("DEALLOCATE ALL")
    assert line.run(query, {"n": 7}) == [(8,)]
    assert not line.is_direct
    assert line.is_deaf
    other = connect()
    for n in range(3):
        other.run(query, {"n": n})
    other.run("BEGIN")
    other.run("DEALLOCATE ALL")
    with pytest.raises(errors.InvalidSqlStatementName) as caught:
        other.run(query, {"n": 7})  # what came before in the transaction is lost
    assert is_passing(caught.value)


def test_prepared_statements_have_a_bound(connect: Callable[[], Connection], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many, those stay that are used; a bee that meets a thousand jobsets costs the server no more than one."""
    monkeypatch.setattr(connection, "MOST_PREPARED", 10)
    line = connect()
    often = Statement("SELECT 'often'")
    for n in range(50):
        query = Statement("SELECT {}".replace("{}", str(n)))
        for _ in range(3):
            assert line.run(query) == [(n,)]
            assert line.run(often) == [("often",)]
    [(n_prepared, kept)] = line.run("SELECT count(*), bool_or(statement LIKE '%often%') FROM pg_prepared_statements")
    assert 5 < n_prepared <= 10
    assert kept


# Notifications


def test_a_full_queue_of_notifications_is_no_end(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Everything goes on without hints, which is said once; new connections know that they hear nothing."""
    if server.version < 170000:
        pytest.skip("this server's queue holds 8 GB")
    with servers.server(max_notify_queue_pages=64) as small, closing(small.connect()) as lazy, lazy.cursor() as cursor:
        cursor.execute("LISTEN anything")
        cursor.execute("BEGIN")
        cursor.execute("SELECT 1")
        with closing(small.connect()) as noisy, noisy.cursor() as other, pytest.raises(errors.ProgramLimitExceeded):
            while True:
                other.execute("SELECT pg_notify('anything', repeat('x', 7000) || n) FROM generate_series(1, 20) n")
        line, listener = Connection(small.dsn), Connection(small.dsn)
        live(line)
        live(line)
        assert [r.message for r in caplog.records if "queue of notifications is full" in r.message] != []
        assert len(caplog.records) == 1
        listener.listen(["workerbee$work"])
        assert listener.run("SELECT 1") == [(1,)]
        eventually(lambda: listener.is_deaf)
        cursor.execute("ROLLBACK")
        line.close()
        listener.close()


def test_too_much_for_a_statement_is_still_said(connect: Callable[[], Connection]) -> None:
    """The same SQLSTATE says that a value is too large: without its hint the statement fails as well."""
    line = connect()
    line.run("CREATE TEMPORARY TABLE t (v text PRIMARY KEY)")
    query = Statement("INSERT INTO t VALUES (%(v)s) RETURNING pg_notify('workerbee$work', '')::text")
    noise = "".join(map(chr, range(0x4E00, 0x9000)))
    with pytest.raises(errors.ProgramLimitExceeded):
        line.run(query, {"v": noise})
    assert line.run(query, {"v": "small"})


# Patience


@pytest.mark.parametrize("pooled", [False, True])
def test_the_server_ends_what_takes_too_long(server: Server, database: Database, pooled: bool) -> None:
    """Whether it runs, is being prepared or waits for a lock; what comes after it has a time of its own."""
    locked = Statement("SELECT pg_catalog.count(*) FROM public.held")
    database.execute("CREATE TABLE held ()")
    with pgbouncer(server) if pooled else nullcontext(server.port) as port:
        line = Connection(extensions.make_dsn(database.dsn, port=port), application="impatient")
        line.run(locked, {})
        with closing(psycopg2.connect(database.dsn)) as other:
            other.cursor().execute("LOCK TABLE held")
            line.patience = 0.3
            for query in ("SELECT pg_sleep(60)", locked, locked.text):
                with pytest.raises((errors.QueryCanceled, DatabaseUnavailableError)) as raised:
                    line.run(query, {} if query is locked else None)
                assert is_passing(raised.value)
                eventually(lambda: not database.execute(_ACTIVE), timeout=5)
        line.patience = connection.QUERY_SECONDS
        assert line.run("SHOW statement_timeout") == [("0",)]
        line.close()


_ACTIVE = """
SELECT query FROM pg_stat_activity
 WHERE state = 'active' AND pid <> pg_backend_pid() AND datname = current_database()
"""


# Where the server is


class Hung:
    """An address that takes connections and never answers."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def hung() -> Iterator[Hung]:
    with closing(Hung()) as made:
        yield made


def test_an_address_that_hangs_is_passed_over(shared: Database, hung: Hung) -> None:
    """As psql does with connect_timeout; for a while it isn't tried first."""
    parts = extensions.parse_dsn(shared.dsn)
    dsn = f"host=127.0.0.1,127.0.0.1 port={hung.port},{parts['port']} user=postgres dbname={shared.name}"
    for limit in (3.0, 1.0):
        line = Connection(dsn)
        began = time.monotonic()
        assert line.run("SELECT 1") == [(1,)]
        assert time.monotonic() - began < limit
        line.close()


def test_an_only_address_that_hangs_is_named(hung: Hung, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its host and port."""
    monkeypatch.setattr(reach, "CONNECT_SECONDS", 0.5)
    with pytest.raises(DatabaseUnavailableError, match=f"127.0.0.1 port {hung.port}: no answer"):
        Connection(f"host=127.0.0.1 port={hung.port} dbname=x").run("SELECT 1")


def test_all_addresses_hang_or_refuse(hung: Hung) -> None:
    """One that refuses is believed sooner than one that says nothing."""
    port = servers.free_port()
    with pytest.raises(DatabaseUnavailableError, match=f"port {port}: Connection refused"):
        Connection(f"host=127.0.0.1,127.0.0.1 port={hung.port},{port} dbname=x").run("SELECT 1")


def test_names_are_looked_up_beside_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver that takes its time: whoever waits for the connection goes on serving, and gives up in time."""
    served: list[float] = []
    release = threading.Event()
    monkeypatch.setattr(reach.psycopg2, "connect", lambda *_, **__: release.wait(20))

    def serve(fd: int, writing: bool, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not select.select([fd], [], [], 0.01)[0]:
            served.append(time.monotonic())
        return time.monotonic() < end

    line = Connection("host=nowhere.invalid dbname=x", wait=serve)
    line.patience = 0.5
    with pytest.raises(DatabaseUnavailableError, match=r"nowhere\.invalid"):
        line.run("SELECT 1")
    release.set()
    assert len(served) > 10
    assert max(b - a for a, b in pairwise(served)) < 0.3
