"""Failing: an attempt that counts, a retry in its place, or the end of the run; only from the holder."""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

import pytest

from tests.store.hive import ANY, Hive, Puppet, failure, ids_of, until_waiting
from workerbee.store import Connection, Limits
from workerbee.wire.job import Batch


def test_a_failed_job_is_retried_behind_what_waits(hive: Hive) -> None:
    """It becomes a batch of its own, after what was queued when it failed; its batch goes on without it."""
    hive.add(3)
    hive.add(1)
    bee = hive.bee()
    batch = bee.take(3)
    assert bee.miss(batch, 2) == "retried"
    assert hive.waiting() == [[4], [2]]
    assert hive.held() == [(str(bee.incarnation), [1, 3], 2)]
    assert (hive.status(2), hive.attempts(2)) == ("retrying", ["failed"])


def test_the_pause_doubles_up_to_its_limit(hive: Hive) -> None:
    """Exponential backoff with jitter, by the database's clock."""
    hive.add(1)
    bee = hive.bee()
    pauses = []
    for _ in range(5):
        batch = bee.take()
        assert bee.fail(batch, failure(1), Limits(10, 8.0, 30.0), "{}") == "retried"
        query = "SELECT extract(epoch FROM due_at - now())::double precision FROM {batch} WHERE due_at > now()"
        [(pause,)] = hive.run(query + " AND jobset = {number}")
        pauses.append(pause)
        hive.make_due()
    for pause, most in zip(pauses, [8, 16, 30, 30, 30], strict=True):
        assert most / 2 - 5 < pause <= most


@pytest.mark.parametrize(("own", "attempts"), [(None, 3), (2, 2)])
def test_the_last_attempt_ends_the_run(hive: Hive, own: int | None, attempts: int) -> None:
    """After as many attempts as the bee allows, or the job where it says so; the error is the outcome."""
    hive.add(1, max_attempts=own)
    bee = hive.bee()
    verdicts = []
    for _ in range(attempts):
        verdicts.append(bee.miss(bee.take(), attempts=3))
        hive.make_due()
    assert verdicts == ["retried"] * (attempts - 1) + ["failed"]
    assert (hive.outcome(1), hive.waiting()) == ("failed", [])
    counts = hive.catalogue.counts(hive.jobset.number)
    assert (counts.failed, counts.retried, counts.open) == (1, attempts - 1, 0)


def test_kinds_are_charged_apart(hive: Hive) -> None:
    """The deaths of its runners don't use up the attempts that a job may ask for, nor the other way round."""
    hive.add(1)
    bee = hive.bee()
    assert bee.miss(bee.take(), kind="died", attempts=2) == "retried"
    assert bee.miss(bee.take(), kind="failed", attempts=2) == "retried"
    hive.make_due()
    assert bee.miss(bee.take(), kind="died", attempts=2) == "failed"


def test_a_job_whose_runner_died_keeps_its_place(hive: Hive) -> None:
    """It is tried again at once, before what was queued after it."""
    hive.add(1)
    hive.add(1)
    bee = hive.bee()
    assert bee.miss(bee.take(), kind="died") == "retried"
    assert ids_of(bee.take()) == [1]


def test_the_mark_follows_what_is_taken_out(hive: Hive) -> None:
    """Only a job before the mark moves it."""
    hive.add(4)
    bee = hive.bee()
    batch = bee.take(4, start=2)
    bee.miss(batch, 1)
    assert hive.held() == [(str(bee.incarnation), [2, 3, 4], 1)]
    bee.miss(batch, 4)
    assert hive.held() == [(str(bee.incarnation), [2, 3], 1)]


def test_a_failure_counts_only_from_the_holder(hive: Hive) -> None:
    """Another bee, an older claim, and a bee whose work was given to others change nothing."""
    hive.add(1)
    bee, other = hive.bee("a"), hive.bee("b")
    batch = bee.take()
    assert other.miss(batch) == "ignored"
    assert bee.miss(batch._replace(claim=uuid4())) == "ignored"
    bee.lapse()
    other.save()
    assert bee.miss(batch) == "ignored"
    assert (hive.attempts(1), hive.waiting()) == (["lost"], [[1]])


def test_failing_again_changes_nothing(hive: Hive) -> None:
    """After a COMMIT whose answer was lost the failure is sent once more: one attempt, one retry."""
    hive.add(1)
    bee = hive.bee()
    batch = bee.take()
    assert bee.miss(batch) == "retried"
    assert bee.miss(batch) == "ignored"
    assert (hive.attempts(1), hive.waiting()) == (["failed"], [[1]])


def test_after_the_outcome_a_failure_changes_nothing(hive: Hive) -> None:
    """The run has ended: no attempt, no retry; the job only leaves the batch."""
    hive.add(1)
    bee, other = hive.bee("a"), hive.bee("b")
    batch = bee.take()
    other.succeed(batch, close=False)
    assert bee.miss(batch, attempts=1) == "noted"
    assert (hive.outcome(1), hive.attempts(1), hive.waiting()) == ("completed", [], [])


# While another copy runs


def raced(hive: Hive, connection: Connection | None = None) -> tuple[Puppet, Batch, Puppet, Batch]:
    """A job that two bees run: the one that claimed it, and one that made a copy."""
    for _ in range(3):
        hive.add(1)
    [straggler] = hive.add(1)
    holder, helper = hive.bee("a", connection), hive.bee("b")
    for _ in range(3):
        holder.succeed(holder.take())
    original = holder.take()
    assert ids_of(original) == [straggler]
    hive.age(original, 10)
    [copy] = helper.speculate(ANY)
    return holder, original, helper, copy


@pytest.mark.parametrize("first", ["original", "copy"])
def test_the_last_copy_decides(hive: Hive, first: str) -> None:
    """The first failure of two running copies is an attempt; the second ends the run, or has it retried."""
    holder, original, helper, copy = raced(hive)
    order = [(holder, original), (helper, copy)][:: 1 if first == "original" else -1]
    assert [bee.miss(batch, attempts=1) for bee, batch in order] == ["noted", "failed"]
    assert hive.outcome(4) == "failed"
    assert sorted(hive.attempts(4)) == ["copy", "failed", "failed"]


def test_the_last_copy_has_it_retried_once(hive: Hive) -> None:
    """Two failures of two copies schedule one retry."""
    holder, original, helper, copy = raced(hive)
    assert [holder.miss(original, attempts=5), helper.miss(copy, attempts=5)] == ["noted", "retried"]
    assert hive.waiting() == [[4]]


def test_the_other_copy_may_still_succeed(hive: Hive) -> None:
    """A failure beside a running copy ends nothing."""
    holder, original, helper, copy = raced(hive)
    assert holder.miss(original, attempts=1) == "noted"
    helper.succeed(copy)
    assert hive.outcome(4) == "completed"


def test_a_dead_bees_copy_is_not_waited_for(hive: Hive) -> None:
    """Whose lease has lapsed has no say; and its rescue brings the job back no second time."""
    holder, original, helper, copy = raced(hive)
    holder.lapse()
    assert helper.miss(copy, attempts=5) == "retried"
    helper.save()
    assert hive.waiting() == [[4]]
    assert holder.miss(original) == "ignored"


def test_copies_that_fail_at_once_take_turns(hive: Hive, connect: Callable[[], Connection]) -> None:
    """The second waits for the first, and then judges by what that one has left: no deadlock, one verdict."""
    holder, original, helper, copy = raced(hive, connect())
    holder.connection.run("BEGIN")
    assert holder.miss(original, attempts=2) == "noted"
    verdicts: list[str] = []
    until_waiting(
        lambda: verdicts.append(helper.miss(copy, attempts=2)),
        connect(),
        what="the second failure waiting for the first",
        then=holder.connection,
    )
    assert verdicts == ["failed"]  # its own attempt is the second: it has seen the first


def test_a_copy_made_a_moment_ago_is_seen(hive: Hive, connect: Callable[[], Connection]) -> None:
    """A failure that had to wait for the making of a copy doesn't end the run behind that copy's back."""
    for _ in range(4):
        hive.add(1)
    holder, helper = hive.bee("a"), hive.bee("b", connect())
    for _ in range(3):
        holder.succeed(holder.take())
    original = holder.take()
    hive.age(original, 10)
    helper.connection.run("BEGIN")
    assert helper.speculate(ANY)
    verdicts: list[str] = []
    until_waiting(
        lambda: verdicts.append(holder.miss(original, attempts=1)),
        connect(),
        what="the failure waiting for the copy",
        then=helper.connection,
    )
    assert (verdicts, hive.outcome(4)) == (["noted"], None)
