"""Beside a session that holds an old snapshot, what was claimed since stays in the indexes, and is to be no burden."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from statistics import median
from uuid import uuid4

import pytest

from tests.servers import Server
from tests.store.explaining import Explaining, blocks
from tests.store.hive import ANY, Hive, Puppet, ids_of
from tests.waiting import eventually
from workerbee.store import Connection, front, schema, writer

#: Headers of one job that were claimed and closed since, half of them after they came due.
CLAIMED = 20_000

QUEUE = """
INSERT INTO {job} (id, codec, input) SELECT n, 'json', '{{}}' FROM generate_series(1, %(n)s) n;
INSERT INTO {batch} (jobset, function, run, jobs)
SELECT {number}, 0, 1, ARRAY[n] FROM generate_series(1, %(n)s::bigint) n;
"""
PAST = """
INSERT INTO {batch} (jobset, function, run, place, due_at, jobs)
SELECT {number}, 0, 1, -n, CASE WHEN n %% 2 = 0 THEN now() - interval '1 minute' END, ARRAY[-n]
  FROM generate_series(1, %(n)s::bigint) n;
UPDATE {batch} SET bee = %(bee)s, claim = %(bee)s, claimed_at = now(), due_at = NULL
 WHERE jobset = {number} AND jobs[1] < 0;
DELETE FROM {batch} WHERE jobset = {number} AND jobs[1] < 0;
"""


@pytest.fixture(scope="module")
def burdened(server: Server) -> Iterator[tuple[Hive, Puppet, float]]:
    """A jobset of many jobs, most of them ended long ago; a bee that explains itself, and what its cycle touched."""
    database = server.new_database()
    with closing(Connection(database.dsn)) as line, closing(Explaining(database.dsn)) as explaining:
        schema.ensure(line)
        hive = Hive(line)
        hive.catalogue.reserve_jobs(hive.jobset, 1000)
        hive.run(QUEUE, n=1000)
        bee = hive.bee("a", explaining)
        before = median(cycle(bee) for _ in range(9))
        with closing(database.connect()) as other, other.cursor() as cursor:
            cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            cursor.execute("SELECT 1")
            hive.run(PAST, n=CLAIMED, bee=str(uuid4()))
            yield hive, bee, before
    database.drop()


def cycle(bee: Puppet) -> float:
    """Claim a job that waits and have it tried again, claim another and complete it: the pages that this touches."""
    explaining = bee.connection
    assert isinstance(explaining, Explaining)
    explaining.plans.clear()
    bee.miss(bee.take(), attempts=1000)
    bee.succeed(bee.take())
    return sum(map(blocks, explaining.plans))


def test_a_claim_passes_over_little_of_what_was_claimed(
    burdened: tuple[Hive, Puppet, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After some looks at the whole queue, those that follow begin where the last one ended."""
    monkeypatch.setattr(front, "BUSY_FACTOR", 1e9)
    _, bee, before = burdened
    touched = [cycle(bee) for _ in range(20)]
    assert median(touched) <= 1.3 * before
    assert max(touched) > 3 * before, "there was no burden"


def test_what_comes_before_the_front_is_found_soon(burdened: tuple[Hive, Puppet, float]) -> None:
    """What is urgent, or was given back to its old place, doesn't wait for the queue to end."""
    hive, bee, _ = burdened
    batch = bee.take()
    for _ in range(5):
        cycle(bee)
    bee.release(batch, ids_of(batch), untouched=True)
    [urgent] = hive.add(1, priority=7)
    found: list[int] = []

    def looked() -> bool:
        found.extend(job for batch in bee.claim(1, 1, ANY) for job in ids_of(batch))
        return {urgent, *ids_of(batch)} <= set(found)

    eventually(looked)


def test_what_comes_before_the_front_is_found_where_nothing_else_is(
    hive: Hive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look from the front on that finds nothing is followed by one at all, once that was long enough ago."""
    monkeypatch.setattr(front, "CHEAP_SECONDS", -1.0)
    monkeypatch.setattr(front, "BUSY_FACTOR", 1e9)
    hive.add(1)
    bee = hive.bee()
    for _ in range(front.FEW_LOOKS):
        bee.release(batch := bee.take(), ids_of(batch), untouched=True)
    bee.succeed(bee.take())
    [urgent] = hive.add(1, priority=7)
    claimed = eventually(lambda: bee.claim(1, 1, ANY))
    assert ids_of(claimed[0]) == [urgent]


def test_what_a_bee_takes_from_others_it_finds_at_once(hive: Hive, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a look at the whole would take."""
    for name in ("BUSY_FACTOR", "IDLE_FACTOR"):
        monkeypatch.setattr(front, name, 1e9)
    monkeypatch.setattr(front, "CHEAP_SECONDS", -1.0)
    for n in (2, 2, 6):
        hive.add(n)
    dead, slow, bee = hive.bee("a"), hive.bee("b"), hive.bee("c")
    first, second = dead.take(2), slow.take(2, start=0)
    hive.age(second, 9)
    for _ in range(front.FEW_LOOKS):
        bee.take()
    assert bee.unseen
    dead.lapse()
    assert bee.save()
    claimed = [job for batch in bee.claim(9, 9, ANY) for job in ids_of(batch)]
    assert set(claimed) >= set(ids_of(first))
    assert bee.take_over(ANY)
    assert ids_of(bee.take(2)) == ids_of(second)


def test_counters_are_in_several_rows(hive: Hive, monkeypatch: pytest.MonkeyPatch) -> None:
    """All versions of a row that is changed again and again stay as well."""
    monkeypatch.setattr(writer, "ROW_STATEMENTS", 2)
    other = Hive(hive.connection)
    bee = other.bee()
    for _ in range(6):
        other.add(1)
        bee.succeed(bee.take())
    rows = other.run("SELECT added, completed FROM {counter} WHERE jobset = {number} ORDER BY added")
    assert rows == [(0, 2)] * 3 + [(2, 0)] * 3
    assert (counts := other.catalogue.counts(other.jobset.number)).added == counts.completed == 6


def test_bees_that_begin_at_one_front_pass_over_each_others_locks(
    hive: Hive, connect: Callable[[], Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither waits for the other."""
    monkeypatch.setattr(front, "BUSY_FACTOR", 1e9)
    monkeypatch.setattr(front, "CHEAP_SECONDS", -1.0)
    first, second = bees = hive.bee("a", connect()), hive.bee("b")
    for _ in range(9):
        hive.add(1)
    for _ in range(front.FEW_LOOKS):
        for bee in bees:
            bee.take()
    first.connection.run("BEGIN")
    claimed = ids_of(first.take())
    claimed += ids_of(second.take())
    first.connection.run("COMMIT")
    assert claimed == [7, 8]
