"""The mark of what has begun, and success."""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

import pytest

from tests.store.hive import Hive, Puppet, new_job, runs_of, success
from tests.waiting import eventually
from workerbee.store import Connection
from workerbee.wake import Wake
from workerbee.wire.job import Batch, Options


def test_the_mark_moves_forward_only(hive: Hive) -> None:
    """A repeated or an older ``start`` takes nothing back, and none goes beyond the batch."""
    hive.add(4)
    bee = hive.bee()
    batch = bee.take(4, start=1)
    assert bee.start(batch, 3) == (3, [1, 2, 3, 4])
    assert bee.start(batch, 2) == (3, [1, 2, 3, 4])
    assert bee.start(batch, 99) == (4, [1, 2, 3, 4])


def test_only_the_holder_starts(hive: Hive) -> None:
    """Another incarnation, or the same one by an older claim, is told that it holds nothing."""
    hive.add(2)
    bee, other = hive.bee("a"), hive.bee("a")
    batch = bee.take(2, start=0)
    assert other.start(batch, 1) == (0, [])
    assert bee.start(batch._replace(claim=uuid4()), 1) == (0, [])
    assert hive.held() == [(str(bee.incarnation), [1, 2], 0)]


def test_a_success_ends_the_run(hive: Hive) -> None:
    """It is readable under the origin's names, and its batch is gone."""
    hive.add(1)
    bee = hive.bee()
    bee.succeed(bee.take())
    [row] = hive.run(
        "SELECT output_data, n_claims, n_failed_attempts, time_last_claimed <= time_last_completed,"
        " extract(epoch FROM job_duration)::double precision, status FROM {view}"
    )
    assert row == ({"done": 1}, 1, 0, True, 0.01, "completed")
    assert (hive.waiting(), hive.held()) == ([], [])


def test_the_first_success_counts_and_a_later_one_is_late(hive: Hive) -> None:
    """Whoever commits first is the one whose result is kept, lease or not."""
    hive.add(1)
    zombie, bee = hive.bee("a"), hive.bee("b")
    first = zombie.take()
    zombie.lapse()
    bee.save()
    second = bee.take()
    assert zombie.complete([success(1, duration=7.0)], [first], hint=None)
    assert not bee.complete([success(1)], [second], hint=None)
    assert hive.run("SELECT bee::text, duration FROM {outcome}") == [(str(zombie.incarnation), 7.0)]
    counts = hive.catalogue.counts(hive.jobset.number)
    assert (counts.completed, counts.late, counts.open) == (1, 1, 0)
    assert hive.attempts(1) == ["lost", "late"]


def test_completing_again_changes_nothing(hive: Hive) -> None:
    """After a COMMIT whose answer was lost, the same outcomes are sent once more: they aren't late."""
    hive.add(2)
    bee = hive.bee()
    batch = bee.take(2)
    bee.succeed(batch)
    bee.succeed(batch)
    counts = hive.catalogue.counts(hive.jobset.number)
    assert (counts.completed, counts.late) == (2, 0)


def test_only_the_holder_closes_a_batch(hive: Hive) -> None:
    """A bee that has lost its claim can't remove what another one holds."""
    hive.add(2)
    bee, other = hive.bee("a"), hive.bee("b")
    batch = bee.take(2)
    other.succeed(batch, 1)
    bee.complete([], [batch._replace(claim=uuid4())], hint=None)
    assert hive.held() == [(str(bee.incarnation), [1, 2], 2)]


def test_a_result_rides_in_the_hint_only_if_it_is_the_recorded_one(
    hive: Hive, connect: Callable[[], Connection]
) -> None:
    """When another's result was first, the hint tells which jobs ended and nothing more."""
    hive.add(2)
    bee, other = hive.bee("a"), hive.bee("b")
    bee.take(2)
    listener, wake = connect(), Wake()
    listener.listen([f"workerbee$done${hive.jobset.number}"])
    listener.run("SELECT 1")
    other.complete([success(1)], [], hint="1\nmine")
    bee.complete([success(1), success(2)], [], hint="1 2\nours")
    heard: list[str] = []

    def all_heard() -> bool:
        heard.extend(payload for _, payload in listener.wait(0.05, wake))
        return len(heard) == 2

    eventually(all_heard)
    wake.close()
    assert heard == ["1\nmine", "1 2"]


VERBS: dict[str, Callable[[Hive, Puppet, Batch], object]] = {
    "reserve": lambda hive, bee, batch: hive.catalogue.reserve_jobs(hive.jobset, 1),
    "add": lambda hive, bee, batch: hive.client.add([new_job(9)]),
    "complete": lambda hive, bee, batch: bee.succeed(batch, 1, close=False),
    "fail": lambda hive, bee, batch: bee.miss(batch, 2, attempts=1),
    "cancel what waits": lambda hive, bee, batch: hive.client.cancel_waiting([(4, 1)]),
    "cancel what runs": lambda hive, bee, batch: hive.client.cancel_running([(2, 1)]),
    "reopen": lambda hive, bee, batch: hive.client.reopen([(3, 1)], Options()),
    "claim": lambda hive, bee, batch: bee.take(1),
}


@pytest.mark.parametrize("verb", VERBS)
def test_what_is_acknowledged_is_flushed_where_the_default_is_not_to(hive: Hive, verb: str) -> None:
    """A server with synchronous_commit off makes no job, outcome or block of ids lossy; claims may be lost."""
    hive.add(4)
    bee = hive.bee()
    batch = bee.take(3)
    bee.miss(batch, 3, attempts=1)
    run = hive.connection.run
    try:
        run("SET synchronous_commit = off")
        run("BEGIN")
        VERBS[verb](hive, bee, batch)
        assert run("SHOW synchronous_commit") == [("off" if verb == "claim" else "on",)]
        run("COMMIT")
    finally:
        run("RESET synchronous_commit")


def test_losers_learn_that_they_run_in_vain(hive: Hive) -> None:
    """A bee's look names those of its jobs whose run has ended elsewhere."""
    hive.add(3)
    bee, other = hive.bee("a"), hive.bee("b")
    batch = bee.take(3)
    other.succeed(batch, 2, close=False)
    bee.succeed(batch, 3, close=False)
    assert bee.overtaken(runs_of(batch)).ended == {(2, 1)}
    hive.client.cancel_running([(1, 1)])
    assert bee.overtaken(runs_of(batch)).ended == {(1, 1), (2, 1)}
