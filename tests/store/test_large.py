"""What is large goes in parts and in several statements, and is there as a whole or not at all."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from contextlib import closing, nullcontext
from typing import Any
from uuid import uuid4

import psycopg2
import pytest

from tests.poolers import pgbouncer
from tests.servers import Database, Server
from tests.store.hive import ANY, Hive, new_job, success
from tests.waiting import eventually
from workerbee import JobSet
from workerbee.errors import UniqueInputDataConstraintError
from workerbee.store import BeeStore, ClientStore, Connection, is_dropped, is_passing, is_unstorable
from workerbee.wire.job import FunctionRow

#: Bytes that no statement needs to have.
BOUND = 6_000_000


class Measuring(Connection):
    """Notes how long its longest statement is."""

    longest = 0

    def _answer(self, pg: Any, text: str, deadline: float) -> list[tuple[Any, ...]]:
        self.longest = max(self.longest, len(text))
        return super()._answer(pg, text, deadline)


def function(body: bytes, digest: bytes = b"digest") -> FunctionRow:
    return FunctionRow(0, digest, "f", "pickle;version=00", body, "3.12", b"mac")


def test_functions_come_back_as_they_were(hive: Hive, shared: Database) -> None:
    """Large and small ones, stored one by one and together, for clients and for bees, which renew their lease."""
    large, small = function(bytes(range(256)) * 10_000, b"a"), function(b"small", b"b")
    line = Measuring(shared.dsn)
    store = ClientStore(line, hive.jobset, uuid4())
    numbers = store.put_functions({large: b"i", small: b"i"})
    assert store.put_function(large, b"i") == numbers[b"a"]
    assert line.longest < 9_000_000
    alive: list[None] = []
    bee = BeeStore(line, hive.jobset, uuid4(), "host", lambda: alive.append(None))
    for known in (store.get_function, bee.get_function):
        assert known(numbers[b"a"]) == large._replace(number=numbers[b"a"])
        assert known(numbers[b"b"]) == small._replace(number=numbers[b"b"])
    assert len(alive) > 5
    assert {row.codec.partition(";parts")[0] for row in store.versions("f")} == {"pickle;version=00"}
    line.close()


def test_one_body_in_two_records_is_stored_once(hive: Hive) -> None:
    """As of a function that stands in for others: its parts are known by what is in them."""
    body = b"x" * 2_000_000
    hive.client.put_function(function(body, b"a"), b"i")
    [(before,)] = hive.run("SELECT count(*) FROM {part}")
    hive.client.put_functions({function(body, b"b"): b"i"})
    assert hive.run("SELECT count(*) FROM {part}") == [(before,)] == [(8,)]
    assert hive.client.get_function(2) == function(body, b"b")._replace(number=2)


def test_rows_of_the_former_version_are_read(hive: Hive) -> None:
    """It stored a body whole, however large it was."""
    body = b"x" * 2_000_000
    hive.run(
        "INSERT INTO {function} (digest, identity, name, codec, body, python, mac)"
        " VALUES (%(digest)s, 'i', 'f', 'pickle;version=00', %(body)s, '3.12', 'mac')",
        digest=b"digest",
        body=body,
    )
    stored = function(body)._replace(number=1)
    assert hive.client.get_function(1) == hive.bee().get_function(1) == stored
    assert hive.client.put_function(function(body), b"i") == 1


@pytest.mark.parametrize("codec", ["pickle;parts=3", "pickle;parts=x", "pickle;parts=99999999999999999999", ";parts="])
def test_a_record_without_its_parts_is_given_as_it_is(hive: Hive, codec: str) -> None:
    """Whoever verifies its signature finds that out; nobody waits for parts that aren't there."""
    hive.run(
        "INSERT INTO {function} (digest, identity, name, codec, body, python, mac)"
        " VALUES ('d', 'i', 'f', %(codec)s, %(body)s, '3.12', 'mac')",
        codec=codec,
        body=b"0123456789abcdef",
    )
    for known in (hive.client.get_function, hive.bee().get_function):
        record = known(1)
        assert record is not None
        assert (record.codec, record.body) == (codec, b"0123456789abcdef")


# How they travel


VALUE = bytes(range(256)) * 12_000


@pytest.mark.parametrize("way", ["direct", "with a limit", "pooled"])
def test_values_travel_as_they_are(hive: Hive, server: Server, shared: Database, way: str) -> None:
    """Both ways and for both sides, never written out in a statement; through a pooler too."""
    with (
        pgbouncer(server) if way == "pooled" else nullcontext(server.port) as port,
        closing(Measuring(psycopg2.extensions.make_dsn(shared.dsn, host="127.0.0.1", port=port))) as line,
    ):
        line.patience = 15.0 if way == "with a limit" else 60.0
        client, bee = ClientStore(line, hive.jobset, uuid4()), hive.bee("a", line)
        job = hive.catalogue.reserve_jobs(hive.jobset, 1) or 0
        client.add([new_job(job)._replace(codec="pickle", data=VALUE)])
        batch = bee.take()
        assert batch.jobs[0].data == VALUE
        bee.complete([success(job)._replace(codec="pickle", data=VALUE)], [batch], hint=None)
        assert [[end.data for end in some] for some in client.finished([job])] == [[VALUE]]
        assert line.longest < 50_000
        assert line.is_direct == (way != "pooled")


def test_what_travels_so_fails_as_everything_does(hive: Hive, shared: Database) -> None:
    """With the server's own SQLSTATE; the connection goes on, and a lost one is made anew."""
    with closing(Connection(shared.dsn)) as line:
        client = ClientStore(line, hive.jobset, uuid4())
        assert client.parts.put(1, 1, "pickle", VALUE)[0] == "parts"
        reader = client._queries
        asked = {"job": "one", "run": 1, "token": str(uuid4()), "first": 1, "last": 2}
        with pytest.raises(psycopg2.errors.InvalidTextRepresentation) as told:
            reader.carry("get_parts", asked)
        assert told.value.pgcode == "22P02"
        assert is_unstorable(told.value)
        generation = line.generation
        assert reader.carry("get_parts", asked | {"job": 1}) == []
        assert line.generation == generation
        shared.execute("SELECT pg_terminate_backend(%s)", backend := line.backend)
        eventually(lambda: not shared.execute("SELECT FROM pg_stat_activity WHERE pid = %s", backend))
        with pytest.raises(psycopg2.Error) as lost:
            reader.carry("get_parts", asked | {"job": 1})
        assert is_passing(lost.value)
        assert reader.carry("get_parts", asked | {"job": 1}) == []
        hive.run("DROP TABLE {part} CASCADE")
        with pytest.raises(psycopg2.errors.UndefinedTable) as gone:
            client.parts.put(1, 1, "pickle", VALUE)
        assert is_dropped(gone.value)
        assert line.run("SELECT 1") == [(1,)]


def test_parts_whose_row_never_came_are_swept(hive: Hive) -> None:
    """After a while; what a job or an outcome refers to stays, and so do functions."""
    [job] = hive.add(1)
    large = hive.catalogue.reserve_jobs(hive.jobset, 1) or 0
    hive.client.add([new_job(large)._replace(codec="pickle", data=VALUE)])
    bee = hive.bee("a")
    batch = bee.take()
    bee.complete([success(job)._replace(codec="pickle", data=VALUE)], [batch], hint=None)
    hive.client.put_function(function(VALUE), b"i")
    kept = hive.run("SELECT job, run, token, seq FROM {part} ORDER BY 1, 2, 3, 4")
    for at, run in (job, 1), (large, 0), (large, 1):
        hive.client.parts.put(at, run, "pickle", VALUE)
    hive.client.parts.sweep_parts()
    assert len(hive.run("SELECT 1 FROM {part}")) == 2 * len(kept)
    hive.run("UPDATE {part} SET at = at - interval '3 hours'")
    hive.client.parts.put(job, 2, "pickle", VALUE)
    hive.client.parts.sweep_parts()
    left = hive.run(
        "SELECT job, run, token, seq FROM {part} WHERE (job, run) <> (%(job)s, 2) ORDER BY 1, 2, 3, 4", job=job
    )
    assert left == kept
    assert len(hive.run("SELECT 1 FROM {part}")) > len(kept)


# Many jobs, and large ones


@pytest.fixture
def jobset(shared: Database) -> Any:
    made = JobSet(f"t{uuid4().hex[:12]}", **_address(shared.dsn))
    made.setup_jobset()
    adder = made._adder
    adder.connection.close()
    adder.connection = adder._catalogue.connection = Measuring(shared.dsn)
    yield made
    made.close()


def _address(dsn: str) -> dict[str, Any]:
    parts = psycopg2.extensions.parse_dsn(dsn)
    return {name: parts[name] for name in ("host", "port", "user", "dbname") if name in parts}


INPUTS: dict[str, Callable[[int], dict[str, Any]]] = {
    "many": lambda n: {"n": n},
    "large": lambda n: {"n": n, "text": "x" * 900_000},
    "in parts": lambda n: {"n": n, "text": "x" * 1_500_000},
}


@pytest.mark.parametrize(("kind", "n"), [("many", 20_300), ("large", 8), ("in parts", 5)])
def test_what_is_added_together_is_there_as_a_whole_or_not_at_all(jobset: JobSet, kind: str, n: int) -> None:
    """In statements that are never long, however much it is; also if only the last one is there already."""
    inputs = [INPUTS[kind](i) for i in range(n)]
    jobset.add_job(inputs[-1])
    with pytest.raises(UniqueInputDataConstraintError):
        jobset.add_jobs(inputs)
    catalogue = jobset._adder._catalogue
    found = catalogue.find_jobset(jobset.jobset_id)
    assert found is not None
    assert catalogue.counts(found.number).added == 1
    jobset.add_jobs(inputs[:-1])
    assert catalogue.counts(found.number).added == n
    assert jobset._adder.connection.longest < BOUND  # type: ignore[attr-defined]
    store = ClientStore(jobset._adder.connection, found, uuid4())
    page = store.results(0, n=5)
    assert [json.loads(store.call_of(row)[1]) for row in page] == [inputs[-1], *inputs[:4]]
    if kind == "many":
        rows = jobset._adder.connection.run(
            'SELECT cardinality(jobs) FROM workerbee."batch$" WHERE jobset = %(n)s', {"n": found.number}
        )
        assert sorted(size for (size,) in rows) == [1, 99, *[200] * 101]


def test_an_interrupted_addition_leaves_nothing(
    jobset: JobSet, shared: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut off between two of its statements: all is tried again, with the same ids."""
    inputs = [INPUTS["large"](i) for i in range(9)]
    run, calls = jobset._adder.connection.run, []

    def interrupted(query: Any, params: Any = None) -> Any:
        if params is not None and "lot_function" in params:
            calls.append(query)
            if len(calls) == 2:
                shared.execute("SELECT pg_terminate_backend(%s)", backend := jobset._adder.connection.backend)
                eventually(lambda: not shared.execute("SELECT FROM pg_stat_activity WHERE pid = %s", backend))
        return run(query, params)

    monkeypatch.setattr(jobset._adder.connection, "run", interrupted)
    jobset.add_jobs(inputs)
    found = jobset._adder._catalogue.find_jobset(jobset.jobset_id)
    assert found is not None
    store = ClientStore(jobset._adder.connection, found, uuid4())
    assert [row.job for row in store.results(0)] == list(range(1, 10))
    assert jobset._adder._catalogue.counts(found.number).added == 9


def test_a_page_of_results_is_bounded(hive: Hive) -> None:
    """By what its values take, before anybody knows what they take; and it is never empty."""
    value = json.dumps(secrets.token_hex(400_000)).encode()
    hive.add(8)
    bee = hive.bee("a")
    for batch in bee.claim(8, 8, ANY):
        bee.complete([success(job.id)._replace(data=value) for job in batch.jobs], [batch], hint=None)
    got: list[int] = []
    while page := hive.client.results(got[-1] if got else 0):
        assert sum(len(row.output or "") for row in page) < BOUND
        got += [row.job for row in page]
    assert len(got) == 8
    assert len(hive.client.results(0)) < 8
