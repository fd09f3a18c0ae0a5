"""Speculating: one more copy of a straggler, when there is nothing else to do."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.store.hive import ANY, Hive, Puppet, ids_of, runs_of, success
from workerbee.store import Connection, Scope
from workerbee.wire.job import Batch


def straggling(
    hive: Hive, ages: list[float], durations: tuple[float, ...] = (0.1, 0.1, 0.1, 0.1)
) -> tuple[Puppet, list[Batch]]:
    """A bee that holds one job a batch for so long, in a jobset whose other jobs took ``durations``."""
    bee = hive.bee("slow")
    for duration in durations:
        hive.add(1)
        batch = bee.take()
        bee.complete([success(batch.jobs[0].id, duration=duration)], [batch], hint=None)
    held = []
    for age in ages:
        hive.add(1)
        held.append(bee.take())
        hive.age(held[-1], age)
    return bee, held


def test_the_longest_straggler_gets_a_copy(hive: Hive) -> None:
    """It is begun at once, and counted as a copy, neither as a failure nor as a loss."""
    _, held = straggling(hive, [2.0, 5.0])
    helper = hive.bee()
    [copy] = helper.speculate(ANY)
    assert (ids_of(copy), copy.started, copy.copy) == (ids_of(held[1]), 1, True)
    assert hive.attempts(copy.jobs[0].id) == ["copy"]
    counts = hive.catalogue.counts(hive.jobset.number)
    assert (counts.speculative, counts.lost, counts.retried) == (1, 0, 0)


def test_each_straggler_gets_one_copy(hive: Hive) -> None:
    """The next idle bee helps the next one; with a copy of each under way there is nothing left to do."""
    _, held = straggling(hive, [5.0, 2.0])
    helper, other = hive.bee("a"), hive.bee("b")
    copies = [b for bee in (helper, other) for b in bee.speculate(ANY)]
    assert [ids_of(c) for c in copies] == [ids_of(h) for h in held]
    assert hive.bee("c").speculate(ANY) == []


@pytest.mark.parametrize(
    ("age", "durations", "copies"),
    [
        (150.0, (100.0,) * 4, 0),  # not twice the median
        (300.0, (100.0,) * 4, 1),
        (1000.0, (100.0, 100.0, 100.0, 2000.0), 0),  # within what one in twenty takes
        (5000.0, (100.0,) * 2, 0),  # too little is known of how long it takes
    ],
)
def test_only_what_takes_much_longer_is_a_straggler(
    hive: Hive, age: float, durations: tuple[float, ...], copies: int
) -> None:
    """Beyond the 95th percentile and twice the median of its function's jobs."""
    straggling(hive, [age], durations)
    assert len(hive.bee().speculate(ANY)) == copies


def test_jobs_that_follow_one_another_share_the_time(hive: Hive) -> None:
    """A batch whose bee has begun several is late only when all of them should be done."""
    straggling(hive, [])
    hive.add(10)
    slow, helper = hive.bee("slow"), hive.bee()
    batch = slow.take(10)
    hive.age(batch, 1.0)
    assert helper.speculate(ANY) == []
    hive.age(batch, 2.0)
    assert [ids_of(b) for b in helper.speculate(ANY)] == [[5]]


def test_own_excluded_and_foreign_work_is_not_copied(hive: Hive) -> None:
    """Not one's own, not what the client wants once only, not what this bee can't run."""
    slow, [once, other] = straggling(hive, [5.0, 2.0])
    hive.add(1)
    hive.age(hive.bee("quick").take(), 0.1)  # by others' work it is known how long such a job takes
    assert slow.speculate(ANY) == []
    assert hive.bee().speculate(Scope(refused=(0,))) == []
    assert hive.bee().speculate(Scope(only=(4,))) == []
    hive.run("UPDATE {batch} SET speculate = false WHERE id = %(b)s", b=once.id)
    assert [ids_of(b) for b in hive.bee().speculate(ANY)] == [ids_of(other)]


def test_a_finished_job_is_not_copied(hive: Hive) -> None:
    """Its batch may not be closed yet."""
    slow, [held] = straggling(hive, [5.0])
    slow.succeed(held, close=False)
    assert hive.bee().speculate(ANY) == []


def test_the_first_copy_wins(hive: Hive) -> None:
    """And the other one is told."""
    slow, [held] = straggling(hive, [5.0])
    helper = hive.bee()
    [copy] = helper.speculate(ANY)
    helper.succeed(copy)
    assert slow.overtaken(runs_of(held)).ended == {(held.jobs[0].id, 1)}
    slow.succeed(held)
    counts = hive.catalogue.counts(hive.jobset.number)
    assert (counts.completed, counts.late, counts.open) == (5, 1, 0)
    assert (hive.waiting(), hive.held()) == ([], [])


def test_two_helpers_at_once_make_one_copy(hive: Hive, connect: Callable[[], Connection]) -> None:
    """The second passes the straggler over while the first is at it."""
    straggling(hive, [5.0])
    first, second = hive.bee("a", connect()), hive.bee("b")
    first.connection.run("BEGIN")
    assert len(first.speculate(ANY)) == 1
    assert second.speculate(ANY) == []
    first.connection.run("COMMIT")
    assert second.speculate(ANY) == []
