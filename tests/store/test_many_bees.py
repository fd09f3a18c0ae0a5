"""What every bee asks with each heartbeat."""

from __future__ import annotations

from uuid import uuid4

import pytest

from tests.store.hive import Hive
from workerbee.store import BeeFacts, Connection


def test_a_bee_hears_where_others_hold_work(line: Connection) -> None:
    """Each jobset once, however many hold something there; not where only this bee does; or of one jobset alone."""
    shared, others, own, unclaimed = (Hive(line) for _ in range(4))
    for hive in (shared, others, own, unclaimed):
        hive.add(5)
    me = shared.bee()
    for hive in (shared, others):
        for _ in range(2):
            hive.bee().take()
    me.take()
    mine = own.bee()
    mine.take()
    held = shared.catalogue.held_elsewhere
    assert held(me.incarnation, None) == [h.jobset.number for h in (shared, others, own)]
    assert held(mine.incarnation, None) == [h.jobset.number for h in (shared, others)]
    assert held(me.incarnation, others.jobset.number) == [others.jobset.number]
    assert held(mine.incarnation, own.jobset.number) == []
    assert held(me.incarnation, unclaimed.jobset.number) == []


@pytest.mark.parametrize("n", [3, 99, 100, 150])
def test_bees_are_counted_or_at_least_not_thought_few(hive: Hive, n: int) -> None:
    """Up to a hundred the number is exact; beyond, it is never below that."""
    hive.run("DELETE FROM {bee}")
    hive.run(
        "INSERT INTO {bee} (incarnation, jobset, host, pid, python, version, runners, lease_until)"
        " SELECT md5(i::text)::uuid, {number}, 'a', 1, '3.11', '1', 1, now() + CASE WHEN i > 0 THEN interval '1 minute'"
        " ELSE interval '-1 second' END FROM generate_series(0, %(n)s) i",
        n=n,
    )
    me = BeeFacts(uuid4(), hive.jobset.number, "a", 1, "3.11", 1)
    counted = hive.catalogue.beat(me, lease=60.0, resting=False).n_bees
    assert counted == n if n < 100 else counted >= 100
    hive.run("DELETE FROM {bee}")
