"""Work that comes back: given back by its holder, or taken back from a bee that is gone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from uuid import uuid4

import pytest

from tests.store.hive import ANY, LEASE, Hive, Puppet, ids_of, until_waiting
from tests.waiting import eventually
from workerbee.store import Connection

# Release


def test_released_work_returns_to_its_old_place(hive: Hive) -> None:
    """Before what was queued after it, uncharged."""
    hive.add(3)
    hive.add(1)
    bee = hive.bee()
    batch = bee.take(3, start=1)
    bee.release(batch, [2, 3], untouched=True)
    assert hive.waiting() == [[2, 3], [4]]
    assert hive.held() == [(str(bee.incarnation), [1], 1)]
    bee.release(batch, [1], untouched=False)
    assert sorted(hive.waiting()[:2]) == [[1], [2, 3]]
    assert hive.waiting()[2] == [4]
    assert (hive.held(), hive.attempts(1)) == ([], [])


def test_what_may_have_run_is_looked_at_again(hive: Hive) -> None:
    """Touched work may have an outcome by the time it is claimed; untouched work is claimed without a look."""
    hive.add(2)
    bee = hive.bee()
    batch = bee.take(2)
    bee.release(batch, [1], untouched=True)
    bee.release(batch, [2], untouched=False)
    assert {b.again: ids_of(b) for b in bee.claim(5, 5, ANY)} == {False: [1], True: [2]}


def test_what_has_ended_is_not_given_back(hive: Hive) -> None:
    """A job that was cancelled while its bee was cut off isn't run when the bee gives back what it doesn't know of."""
    hive.add(2)
    bee = hive.bee()
    bee.take(2)
    assert hive.client.cancel_running([(1, 1)]) == {1}
    bee.release_unknown([])
    assert (hive.waiting(), hive.held()) == ([[2]], [])


def test_the_mark_follows_what_is_given_back(hive: Hive) -> None:
    """Jobs given back from before the mark move it."""
    hive.add(4)
    bee = hive.bee()
    batch = bee.take(4, start=3)
    bee.release(batch, [1, 4], untouched=False)
    assert hive.held() == [(str(bee.incarnation), [2, 3], 2)]


def test_only_the_holder_gives_back(hive: Hive) -> None:
    """Another bee or an older claim can't, and giving back twice doubles nothing."""
    hive.add(2)
    bee, other = hive.bee("a"), hive.bee("b")
    batch = bee.take(2)
    other.release(batch, [1, 2], untouched=True)
    bee.release(batch._replace(claim=uuid4()), [1, 2], untouched=True)
    assert hive.waiting() == []
    for _ in range(2):
        bee.release(batch, [1, 2], untouched=True)
    assert hive.waiting() == [[1, 2]]


def test_unknown_claims_are_given_back(hive: Hive) -> None:
    """After a cut connection a bee keeps what it knows of, and no other."""
    for _ in range(3):
        hive.add(2)
    bee, other = hive.bee("a"), hive.bee("b")
    known, unknown, others = bee.take(2), bee.take(2), other.take(2)
    assert bee.held_claims() == {known.id: (known.claim, [1, 2]), unknown.id: (unknown.claim, [3, 4])}
    bee.release_unknown([known.claim])
    assert hive.waiting() == [[3, 4]]
    assert [jobs for _, jobs, _ in hive.held()] == [[1, 2], [5, 6]]
    assert other.start(others, 2) == (2, [5, 6])


def test_an_unknown_claim_with_nothing_left_is_closed(hive: Hive) -> None:
    """Else it would keep every bee waiting for it."""
    hive.add(2)
    bee, other = hive.bee("a"), hive.bee("b")
    hive.age(bee.take(2, start=0), 2)
    other.take_over(ANY)
    bee.release_unknown([])
    assert hive.held() == []


# Rescue


def test_work_of_a_lapsed_bee_comes_back(hive: Hive) -> None:
    """What it had not begun as it was, at its old place; what it had begun, each job alone, as a loss."""
    hive.add(4)
    hive.add(1)
    gone, bee = hive.bee("a"), hive.bee("b")
    gone.take(4, start=2)
    gone.lapse()
    assert bee.save() == [str(gone.incarnation)]
    assert sorted(hive.waiting()) == [[1], [2], [3, 4], [5]]
    assert hive.waiting()[-1] == [5]
    assert [hive.attempts(i) for i in (1, 2, 3)] == [["lost"], ["lost"], []]
    assert hive.catalogue.counts(hive.jobset.number).lost == 2
    assert {tuple(ids_of(b)): b.again for b in bee.claim(9, 9, ANY)} == {
        (1,): True,
        (2,): True,
        (3, 4): False,
        (5,): False,
    }


def test_what_was_finished_does_not_come_back(hive: Hive) -> None:
    """A bee may vanish between storing results and closing the batch."""
    hive.add(2)
    gone, bee = hive.bee("a"), hive.bee("b")
    gone.succeed(gone.take(2), 1, close=False)
    gone.lapse()
    bee.save()
    assert (hive.waiting(), hive.attempts(1)) == ([[2]], [])


def test_a_live_bee_is_left_in_peace(hive: Hive) -> None:
    """Nothing is taken from a bee whose lease holds, nor by a bee from itself."""
    hive.add(1)
    hive.add(1)
    live, bee = hive.bee("a"), hive.bee("b")
    live.take()
    bee.take()
    hive.run(
        "UPDATE {bee} SET backend = -1 WHERE incarnation = %(b)s", b=str(bee.incarnation)
    )  # by which it is suspect
    eventually(
        lambda: hive.run(
            "SELECT 1 FROM {bee} WHERE incarnation = %(b)s AND seen_at < now() - interval '10 ms'",
            b=str(bee.incarnation),
        )
    )
    assert bee.save() == []


def test_a_bee_that_left_its_row_behind_is_gone(hive: Hive) -> None:
    """Work held by nobody that is known comes back too, and nobody is blamed."""
    hive.add(1)
    gone, bee = hive.bee("a"), hive.bee("b")
    gone.take()
    hive.catalogue.leave(gone.incarnation)
    bee.save()
    assert hive.waiting() == [[1]]
    assert hive.run("SELECT alone FROM {attempt}") == [(False,)]


def test_the_end_of_its_connection_makes_a_bee_suspect(hive: Hive, connect: Callable[[], Connection]) -> None:
    """Half a lease of silence is enough then; with the connection open it is not."""
    hive.add(1)
    gone, bee = hive.bee("a", connect()), hive.bee("b")
    gone.beat()
    gone.take()
    hive.run(
        "UPDATE {bee} SET seen_at = now() - interval '5 seconds' WHERE incarnation = %(b)s", b=str(gone.incarnation)
    )
    assert bee.save() == []
    gone.connection.close()
    assert eventually(bee.save) == [str(gone.incarnation)]
    assert hive.waiting() == [[1]]


def test_a_bee_that_was_cut_off_itself_does_not_judge(hive: Hive) -> None:
    """Only who was served for two leases without a break may say that others are dead."""
    hive.add(1)
    gone, bee = hive.bee("a"), hive.bee("b")
    gone.take()
    gone.lapse()
    # Ahead of the clock, so that however slow this test is, two leases aren't over.
    served = "UPDATE {bee} SET served_since = now() + %(ahead)s * interval '1 hour' WHERE incarnation = %(bee)s"
    hive.run(served, ahead=1, bee=str(bee.incarnation))
    assert bee.save() == []
    hive.run(served, ahead=-1, bee=str(bee.incarnation))
    assert bee.save() == [str(gone.incarnation)]


def test_nobody_judges_in_the_first_leases_of_the_server(hive: Hive) -> None:
    """After a restart every bee gets the time to come back."""
    hive.add(1)
    gone, bee = hive.bee("a"), hive.bee("b")
    gone.take()
    gone.lapse()
    [(up,)] = hive.run("SELECT extract(epoch FROM now() - pg_postmaster_start_time())::double precision")
    hive.run(
        "UPDATE {bee} SET served_since = now() - interval '1 year' WHERE incarnation = %(b)s", b=str(bee.incarnation)
    )
    assert bee.rescue(up * 2) == []
    assert bee.rescue(LEASE) == [str(gone.incarnation)]


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ("seen_at = now() - interval '1 second'", False),
        ("seen_at = now() - interval '3 seconds', lease_until = now() + interval '1 second'", True),
        ("seen_at = now() - interval '9 seconds', lease_until = now() + interval '21 seconds'", False),
        ("seen_at = now() - interval '12 seconds', lease_until = now() + interval '18 seconds'", True),
        ("seen_at = now() - interval '3 seconds', lease_until = now() - interval '1 second'", True),
        ("backend = -1", True),
    ],
    ids=["beat in time", "missed beats", "idle beat in time", "idle bee cut off", "lapsed", "another connection"],
)
def test_a_break_starts_the_service_anew(hive: Hive, change: str, broken: bool) -> None:
    """Silence beyond a bee's own rhythm, and a new connection, count as a break."""
    bee = hive.bee()
    bee.beat()
    hive.run(
        "UPDATE {bee} SET served_since = now() - interval '1 hour', " + change + " WHERE incarnation = %(b)s",
        b=str(bee.incarnation),
    )
    bee.beat()
    query = "SELECT served_since > now() - interval '1 minute' FROM {bee} WHERE incarnation = %(b)s"
    assert hive.run(query, b=str(bee.incarnation)) == [(broken,)]


# A loss, and who is to blame


def lose(hive: Hive, host: str, judge: Puppet, n: int = 1) -> Puppet:
    """A bee on ``host`` that vanished while it ran ``n`` jobs."""
    gone = hive.bee(host)
    gone.claim(n, n, ANY)
    gone.lapse()
    assert judge.save() == [str(gone.incarnation)]
    return gone


def test_a_bee_that_comes_back_had_not_vanished(hive: Hive) -> None:
    """Within a minute: the loss is withdrawn, from the count and from the blame; the claim still shows."""
    hive.add(1)
    judge = hive.bee("judge")
    away = lose(hive, "a", judge)
    assert away.beat()
    away.came_back()
    assert hive.attempts(1) == ["away"]
    assert hive.catalogue.counts(hive.jobset.number).lost == 0
    assert not away.beat()
    assert judge.take().jobs[0].n_hosts_lost == 0


def test_after_a_minute_it_stays_lost(hive: Hive) -> None:
    """Who comes back later than that has lost its work."""
    hive.add(1)
    away = lose(hive, "a", hive.bee("judge"))
    hive.run("UPDATE {attempt} SET at = at - interval '61 seconds'")
    assert away.beat()
    away.came_back()
    assert hive.attempts(1) == ["lost"]
    assert hive.catalogue.counts(hive.jobset.number).lost == 1


def test_only_a_job_that_ran_alone_is_suspect(hive: Hive) -> None:
    """Neighbours that had begun too, here or in another jobset, leave it open which one it was."""
    hive.add(2)
    judge = hive.bee("judge")
    lose(hive, "a", judge, n=2)
    assert hive.run("SELECT alone FROM {attempt}") == [(False,), (False,)]
    lose(hive, "b", judge)
    assert hive.run("SELECT job, alone FROM {attempt} WHERE host = 'b'") == [(1, True)]


def test_work_in_another_jobset_counts_as_company(hive: Hive, line: Connection) -> None:
    """A bee that serves them all had begun something else as well, whichever is rescued first."""
    other = Hive(line)
    hive.add(1)
    other.add(1)
    gone, judge, other_judge = hive.bee("a"), hive.bee("b"), other.bee("b")
    gone.take()
    twin = other.bee("a")
    twin._bee = str(gone.incarnation)
    twin.take()
    gone.lapse()
    assert judge.save()
    assert other_judge.save()
    assert [h.run("SELECT alone FROM {attempt}") for h in (hive, other)] == [[(False,)], [(False,)]]


def test_the_third_vanished_host_waits_for_the_verdict(hive: Hive) -> None:
    """The job rests for the minute in which its bees may come back; then it is known as what ended three."""
    hive.add(1)
    judge = hive.bee("judge")
    lose(hive, "a", judge)
    lose(hive, "a", judge)
    lose(hive, "b", judge)
    assert hive.run("SELECT due_at IS NULL FROM {batch} WHERE jobset = {number}") == [(True,)]
    lose(hive, "c", judge)
    query = "SELECT due_at > now() + interval '50 seconds' FROM {batch} WHERE jobset = {number}"
    assert hive.run(query) == [(True,)]
    hive.make_due()
    assert judge.take().jobs[0].n_hosts_lost == 3


def test_a_copy_of_a_dead_bee_brings_nothing_back(hive: Hive) -> None:
    """While one copy is in good hands, the loss of the other is noted and no more; whichever it was."""
    for _ in range(5):
        hive.add(1)
    holder, helper, judge = (hive.bee(h) for h in "abc")
    for _ in range(3):
        holder.succeed(holder.take())
    one, two = holder.take(), holder.take()
    hive.age(one, 10)
    hive.age(two, 9)
    [copy], [other] = helper.speculate(ANY), helper.speculate(ANY)
    helper.lapse()
    judge.save()
    assert (hive.waiting(), len(hive.held())) == ([], 2)
    assert [ids_of(b) for b in judge.speculate(ANY)] == [ids_of(copy)]
    holder.lapse()
    judge.save()
    assert hive.waiting() == [ids_of(other)]


def test_copies_given_back_leave_one_batch(hive: Hive) -> None:
    """Whichever of two copies is given back first, the job stays with the other, and comes back from the last."""
    for _ in range(4):
        hive.add(1)
    holder, helper = hive.bee("a"), hive.bee("b")
    for _ in range(3):
        holder.succeed(holder.take())
    original = holder.take()
    hive.age(original, 10)
    [copy] = helper.speculate(ANY)
    holder.release(original, [4], untouched=False)
    assert (hive.waiting(), hive.held()) == ([], [(str(helper.incarnation), [4], 1)])
    helper.release(copy, [4], untouched=False)
    assert (hive.waiting(), hive.held()) == ([[4]], [])


def test_what_a_copy_made_a_moment_ago_has_stays_there(hive: Hive, connect: Callable[[], Connection]) -> None:
    """Giving back has to wait for the making of a copy, and then sees it: the job isn't in two batches."""
    for _ in range(4):
        hive.add(1)
    holder, helper = hive.bee("a"), hive.bee("b", connect())
    for _ in range(3):
        holder.succeed(holder.take())
    original = holder.take()
    hive.age(original, 10)
    helper.connection.run("BEGIN")
    assert helper.speculate(ANY)
    until_waiting(
        lambda: holder.release(original, [4], untouched=False),
        connect(),
        what="the holder waiting for the copy",
        then=helper.connection,
    )
    assert (hive.waiting(), hive.held()) == ([], [(str(helper.incarnation), [4], 1)])


#: A clock that stands still while somebody holds an advisory lock, and with it a statement that has begun.
STANDING_CLOCK = """
CREATE SCHEMA standing;
CREATE FUNCTION standing.now() RETURNS timestamptz LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN pg_catalog.now(); END $$;
SET search_path = standing, pg_catalog
"""


@pytest.mark.parametrize("verb", ["rescue", "speculate"])
def test_nothing_is_done_by_a_snapshot_before_a_copy(hive: Hive, connect: Callable[[], Connection], verb: str) -> None:
    """A statement that began before a copy was made, and got the header's lock after it, leaves both as they are."""
    for _ in range(4):
        hive.add(1)
    holder, helper, late = hive.bee("a"), hive.bee("b"), hive.bee("c", connect())
    for _ in range(3):
        holder.succeed(holder.take())
    hive.age(holder.take(), 10)
    holder.lapse()
    late.connection.run(STANDING_CLOCK)
    hive.run("SELECT pg_advisory_lock(1)")
    thread = threading.Thread(target=late.save if verb == "rescue" else lambda: late.speculate(ANY))
    thread.start()
    eventually(lambda: hive.run("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"))
    assert helper.speculate(ANY)
    hive.run("SELECT pg_advisory_unlock(1)")
    thread.join(30)
    assert not thread.is_alive()
    late.connection.run("RESET search_path; DROP SCHEMA standing CASCADE")
    assert (hive.waiting(), {bee for bee, _, _ in hive.held()}) == (
        [],
        {str(holder.incarnation), str(helper.incarnation)},
    )
