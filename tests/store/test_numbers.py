"""A jobset's number comes again after a restore or in a new schema; its UUID doesn't, and everybody compares it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg2
import pytest

from tests.servers import Server
from tests.store.hive import ANY, Hive, Puppet, failure, new_job, success
from workerbee.store import Connection, schema
from workerbee.wire.job import FunctionRow, Options

FUNCTION = FunctionRow(0, b"digest", "m:f", "import", b"", "3.11", b"mac")
LARGE = FunctionRow(0, b"large", "m:f", "pickle", b"x" * 1_100_000, "3.11", b"mac")

#: What clients and bees of the former jobset may still say.
VERBS: dict[str, Callable[[Hive, Puppet], object]] = {
    "add": lambda hive, _: hive.client.add([new_job(9)]),
    "add, all or none": lambda hive, _: hive.client.add([new_job(9)], whole=True),
    "find the same": lambda hive, _: hive.client.same_calls([b"same"]),
    "find inputs": lambda hive, _: hive.client.taken_inputs([b"same"], []),
    "put a function": lambda hive, _: hive.client.put_function(FUNCTION, b"identity"),
    "find a large function": lambda hive, _: hive.client.put_function(LARGE, b"identity"),
    "get functions": lambda _, bee: bee.get_functions([1]),
    "get a function": lambda hive, _: hive.client.get_function(1),
    "name functions": lambda _, bee: bee.functions_named("m:f"),
    "put a part": lambda hive, _: hive.client.add([new_job(9)._replace(data=b'"' + b"x" * 1_100_000 + b'"')]),
    "sweep parts": lambda hive, _: hive.client.parts.sweep_parts(),
    "reopen": lambda hive, _: hive.client.reopen([(3, 1)], Options()),
    "cancel": lambda hive, _: hive.client.cancel_waiting([(2, 1)]),
    "stop": lambda hive, _: hive.client.cancel_running([(1, 1), (2, 1)]),
    "record a loss": lambda hive, _: hive.client.lent.lose(failure(3, 2), b"cause"),
    "look for large results": lambda hive, _: list(hive.client.lent.lent_results()),
    "look for places": lambda hive, _: hive.client.lent.places(),
    "look for ends": lambda hive, _: list(hive.client.finished([3])),
    "read results": lambda hive, _: hive.client.results(0),
    "look for failures": lambda hive, _: hive.client.ended_badly(),
    "look for what is open": lambda hive, _: hive.client.open_runs(),
    "claim": lambda _, bee: bee.claim(9, 9, ANY),
    "speculate": lambda _, bee: bee.speculate(ANY),
    "complete": lambda _, bee: bee.complete([success(1), success(2)], [], hint=None),
}


@pytest.fixture(scope="module")
def lives(server: Server) -> Iterator[tuple[Hive, Puppet, Hive]]:
    """A jobset and a bee of a schema that is no more, and the jobset that has its number now."""
    database = server.new_database()
    first, second = Connection(database.dsn), Connection(database.dsn)
    schema.ensure(first)
    former = Hive(first, "words")
    former.add(3)
    bee = former.bee()
    for verb in VERBS.values():  # all statements are prepared, and everything was seen once
        for _ in range(2):
            verb(former, bee)
            former.client.reopen(former.client.ended_badly(), Options())
    second.run("DROP SCHEMA workerbee CASCADE")
    schema.ensure(second)
    present = Hive(second, "prices")
    assert (former.jobset.number, present.jobset.number) == (1, 1)
    present.add(4)
    present.client.put_function(LARGE, b"identity")
    other = present.bee()
    batch = other.take(3)
    other.miss(batch, 3, attempts=1)
    present.age(batch, 60.0)
    yield former, bee, present
    first.close()
    second.close()
    database.drop()


def everything(hive: Hive) -> list[object]:
    tables = ("job", "function", "run", "outcome", "attempt", "part", "batch", "counter", "jobset")
    return [hive.run(f"SELECT t::text FROM {{{table}}} t ORDER BY 1") for table in tables]


@pytest.mark.parametrize("name", VERBS)
def test_another_jobset_is_not_taken_for_ours(lives: tuple[Hive, Puppet, Hive], name: str) -> None:
    """Whoever knew the number hears that its jobset is gone, as if its tables were; the other one stays as it is."""
    former, bee, present = lives
    before = everything(present)
    with pytest.raises(psycopg2.errors.UndefinedTable):
        VERBS[name](former, bee)
    assert everything(present) == before


def test_the_shared_tables_know_them_apart(lives: tuple[Hive, Puppet, Hive]) -> None:
    """No ids, no sign of life, no key and no drop for a jobset that is gone."""
    former, _, present = lives
    before = everything(present)
    assert former.catalogue.reserve_jobs(former.jobset, 1) is None
    assert not former.catalogue.touch_client(former.jobset)
    assert former.catalogue.adopt_key(former.jobset, "key") is None
    former.catalogue.drop_jobset(former.jobset)
    assert everything(present) == before
