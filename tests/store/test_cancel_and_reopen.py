"""Cancelling and running anew."""

from __future__ import annotations

from collections.abc import Callable

from tests.store.hive import ANY, Hive, ids_of, until_waiting
from workerbee.job import Options
from workerbee.store import Connection


def test_what_waits_is_cancelled(hive: Hive) -> None:
    """It has its outcome, and is no longer there to be claimed."""
    hive.add(3)
    assert hive.client.cancel_waiting([(2, 1)]) == {2}
    assert (hive.waiting(), hive.status(2)) == ([[1, 3]], "cancelled")
    assert hive.client.cancel_waiting([(1, 1), (3, 1)]) == {1, 3}
    assert hive.waiting() == []
    counts = hive.catalogue.counts(hive.jobset.number)
    assert (counts.cancelled, counts.open) == (3, 0)


def test_what_is_held_but_not_begun_is_cancelled(hive: Hive) -> None:
    """Beyond the mark; the holder hears of it when it moves the mark."""
    hive.add(4)
    bee = hive.bee()
    batch = bee.take(4, start=2)
    assert hive.client.cancel_waiting([(i, 1) for i in (2, 3)]) == {3}
    assert bee.start(batch, 4) == (3, [1, 2, 4])


def test_a_cancellation_and_a_start_take_turns(hive: Hive, connect: Callable[[], Connection]) -> None:
    """While the mark moves, a cancellation waits, and then sees what has begun."""
    hive.add(3)
    bee = hive.bee("a", connect())
    batch = bee.take(3, start=0)
    bee.connection.run("BEGIN")
    bee.start(batch, 2)
    cancelled: list[set[int]] = []
    until_waiting(
        lambda: cancelled.append(hive.client.cancel_waiting([(2, 1), (3, 1)])),
        connect(),
        what="the cancellation waiting for the mark",
        then=bee.connection,
    )
    assert cancelled == [{3}]


def test_only_the_run_that_was_asked_for_is_cancelled(hive: Hive) -> None:
    """A run of before or after is another matter."""
    hive.add(1)
    assert hive.client.cancel_waiting([(1, 2)]) == set()
    assert hive.waiting() == [[1]]


def test_a_running_job_is_ended(hive: Hive) -> None:
    """The outcome is cancelled, and what its bee brings later is late."""
    hive.add(1)
    bee = hive.bee()
    batch = bee.take()
    assert hive.client.cancel_running([(1, 1)]) == {1}
    bee.succeed(batch)
    assert hive.outcome(1) == "cancelled"
    assert hive.catalogue.counts(hive.jobset.number).late == 1


def test_a_job_cancelled_among_running_ones_never_begins(hive: Hive) -> None:
    """Whoever ends jobs, started or not, ends those that wait or are held unbegun before they run."""
    hive.add(3)
    hive.add(1)
    bee = hive.bee()
    batch = bee.take(3, start=1)
    assert hive.client.cancel_running([(i, 1) for i in (1, 2, 4)]) == {1, 2, 4}
    assert bee.start(batch, 3) == (2, [1, 3])
    assert bee.claim(5, 5, ANY) == []


def test_a_completed_job_is_not_cancelled(hive: Hive) -> None:
    """After the outcome nothing changes."""
    hive.add(1)
    bee = hive.bee()
    bee.succeed(bee.take())
    assert hive.client.cancel_running([(1, 1)]) == set()
    assert hive.outcome(1) == "completed"


def test_a_retry_that_waits_is_cancelled(hive: Hive) -> None:
    """Also in its pause."""
    hive.add(1)
    bee = hive.bee()
    bee.miss(bee.take())
    assert hive.client.cancel_waiting([(1, 1)]) == {1}
    assert (hive.waiting(), hive.outcome(1)) == ([], "cancelled")


def test_ended_badly_is_run_anew(hive: Hive) -> None:
    """A failed or cancelled run is followed by a new one, which has attempts of its own."""
    hive.add(3)
    bee = hive.bee()
    batch = bee.take(3)
    bee.miss(batch, 1, attempts=1)
    hive.client.cancel_running([(2, 1)])
    bee.succeed(batch, 3)
    assert hive.client.ended_badly() == [(1, 1), (2, 1)]
    assert hive.client.reopen([(1, 1), (2, 1), (3, 1)], Options(priority=2)) == 2
    assert (hive.client.ended_badly(), hive.waiting()) == ([], [[1, 2]])
    again = bee.take(2)
    assert (again.run, [job.attempts for job in again.jobs]) == (2, [0, 0])
    bee.succeed(again)
    assert (hive.outcome(1, 1), hive.outcome(1, 2), hive.status(1)) == ("failed", "completed", "completed")
    counts = hive.catalogue.counts(hive.jobset.number)
    assert (counts.reopened, counts.open) == (2, 0)


def test_one_of_many_callers_opens_a_run(hive: Hive) -> None:
    """Opening it again opens nothing."""
    hive.add(1)
    hive.client.cancel_waiting([(1, 1)])
    assert hive.client.reopen([(1, 1)], Options()) == 1
    assert hive.client.reopen([(1, 1)], Options()) == 0
    assert hive.waiting() == [[1]]
    assert hive.client.reopen([(1, 2)], Options()) == 0  # that run is open


def test_many_jobs_run_anew_in_small_batches(hive: Hive) -> None:
    """As they were added."""
    ids = hive.add(450)
    hive.client.cancel_waiting([(i, 1) for i in ids])
    hive.client.reopen([(i, 1) for i in ids], Options())
    assert [len(jobs) for jobs in hive.waiting()] == [200, 200, 50]


def test_the_old_run_says_nothing_of_the_new_one(hive: Hive) -> None:
    """Who still runs an ended run brings results for that one only, and the view shows the job once."""
    hive.add(1)
    bee, other = hive.bee("a"), hive.bee("b")
    batch = bee.take()
    hive.client.cancel_running([(1, 1)])
    hive.client.reopen([(1, 1)], Options())
    assert hive.run("SELECT id, status FROM {view}") == [(1, "waiting")]
    bee.succeed(batch)
    assert (hive.outcome(1, 1), hive.outcome(1, 2), hive.waiting()) == ("cancelled", None, [[1]])
    assert ids_of(other.take()) == [1]
