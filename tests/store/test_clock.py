"""The server's clock is set, forward or back: what was written before looks older than it is, or lies ahead."""

from __future__ import annotations

from uuid import uuid4

import pytest

from tests.store.hive import ANY, LEASE, Hive, Puppet
from workerbee.store import Connection

#: Seconds by which the clock is set back: hardly more than what a statement may have been under way, and an hour.
BACK = [2.5, 3600.0]


def set_clock(hive: Hive, seconds: float) -> None:
    """Forward by so many seconds: everything that was written becomes so much older."""
    columns = {
        "bee": ("seen_at", "lease_until", "served_since"),
        "batch": ("claimed_at", "marked_at", "due_at"),
        "jobset": ("seen_at",),
        "attempt": ("at",),
    }
    for table, moved in columns.items():
        change = ", ".join(f"{column} = {column} - make_interval(secs => %(s)s)" for column in moved)
        hive.run(f"UPDATE {{{table}}} SET {change}", s=seconds)


def set_served(hive: Hive, bee: Puppet) -> None:
    """Let the bee have been served for longer than any step is."""
    query = "UPDATE {bee} SET served_since = served_since - interval '1 day' WHERE incarnation = %(b)s"
    hive.run(query, b=str(bee.incarnation))


def holder_and_judge(hive: Hive) -> tuple[Puppet, Puppet]:
    """One that holds a job, and one that may judge, with leases as bees have them where work is held."""
    hive.add(1)
    holder, judge = hive.bee("a"), hive.bee("b")
    holder.take()
    for bee in (holder, judge):
        bee.beat(lease=2.0)
    return holder, judge


@pytest.mark.parametrize("seconds", [2.5, 5.0, 3600.0, *(-s for s in BACK)])
def test_nobody_judges_after_a_step_before_it_is_served_again(hive: Hive, seconds: float) -> None:
    """The judge has to be seen, and served for two leases, by the new clock: by then who lives was heard."""
    holder, judge = holder_and_judge(hive)
    set_served(hive, judge)
    set_clock(hive, seconds)
    assert judge.save() == [], "unseen since the step"
    judge.beat(lease=2.0)
    assert judge.rescue(1.0) == [], "seen, and not served for two leases"
    holder.beat(lease=2.0)
    set_served(hive, judge)
    judge.beat(lease=2.0)
    assert judge.save() == [], "the holder was heard"
    holder.lapse()
    assert judge.save() == [str(holder.incarnation)]


def test_half_of_the_judges_own_lease_must_be_left(hive: Hive) -> None:
    """So a step that its lease outlasts doesn't end the lease of somebody who beat a little earlier."""
    holder, judge = holder_and_judge(hive)
    holder.lapse()
    query = "UPDATE {bee} SET seen_at = now() - %(s)s * interval '1 second', lease_until = now() + %(l)s * interval"
    query += " '1 second' WHERE incarnation = %(b)s"
    hive.run(query, s=40, l=20, b=str(judge.incarnation))
    assert judge.save() == []
    hive.run(query, s=20, l=40, b=str(judge.incarnation))
    assert judge.save() == [str(holder.incarnation)]


@pytest.mark.parametrize("seconds", BACK)
def test_who_was_not_seen_since_the_clock_was_set_back_is_gone(hive: Hive, seconds: float) -> None:
    """Its lease lies ahead for as long as the step was, and holds nothing up."""
    holder, judge = holder_and_judge(hive)
    set_clock(hive, -seconds)
    judge.beat(lease=2.0)
    set_served(hive, judge)
    assert judge.save() == [str(holder.incarnation)]
    assert hive.attempts(1) == ["lost"]


@pytest.mark.parametrize("seconds", BACK)
def test_what_is_held_unbegun_since_before_the_clock_was_set_back_is_taken_over(hive: Hive, seconds: float) -> None:
    """A mark that lies ahead stands still."""
    hive.add(10)
    holder, idle = hive.bee("a"), hive.bee("b")
    holder.take(10, start=2)
    set_clock(hive, -seconds)
    assert idle.take_over(ANY) == 4


def test_nothing_is_claimed_of_a_client_that_was_not_seen_since(hive: Hive, line: Connection) -> None:
    """A temporary jobset's client lives if it says so by today's clock, whichever way that was set."""
    temporary = Hive(line, client=uuid4())
    temporary.add(1)
    bee = temporary.bee()

    def offered() -> bool:
        return any(temporary.jobset in offers for offers in temporary.catalogue.offers())

    for seconds in (3600.0, -3600.0):
        set_clock(temporary, seconds)
        assert (offered(), bee.claim(1, 1, ANY)) == (False, [])
        assert temporary.catalogue.touch_client(temporary.jobset)
        assert offered()
    assert bee.take()


def test_what_was_written_ahead_becomes_as_old_as_it_is(hive: Hive) -> None:
    """Bees, claims, marks, and pauses longer than any; done by every bee that notices, it is done once."""
    hive.add(3)
    gone, lives = hive.bee("a"), hive.bee("b")
    batch = gone.take(1)
    hive.age(batch, 10)
    gone.start(batch, 1)
    gone.lapse()
    lives.miss(lives.take(1))
    due = "UPDATE {batch} SET due_at = now() + interval '200 seconds' WHERE due_at IS NOT NULL AND jobset = {number}"
    hive.run(due)
    set_clock(hive, -3600.0)
    lives.beat()
    new = lives.take(1)
    ages = """
    SELECT extract(epoch FROM now() - seen_at)::integer, extract(epoch FROM lease_until - seen_at)::integer,
           (SELECT max(extract(epoch FROM due_at - now()))::integer FROM {batch} WHERE jobset = {number}),
           (SELECT max(extract(epoch FROM now() - claimed_at))::integer FROM {batch} WHERE id = %(new)s)
      FROM {bee} WHERE incarnation = %(b)s
    """
    for _ in range(2):
        hive.catalogue.set_back(3600.0, 300.0)
        [(silent, lease, pause, held)] = hive.run(ages, b=str(gone.incarnation), new=new.id)
        assert (silent, lease, held) == (pytest.approx(3, abs=2), 2, pytest.approx(0, abs=2))
        assert pause == pytest.approx(200, abs=5)
        claimed = "SELECT extract(epoch FROM now() - claimed_at), extract(epoch FROM now() - marked_at) FROM {batch}"
        [(claimed_ago, marked_ago)] = hive.run(claimed + " WHERE id = %(batch)s", batch=batch.id)
        assert (float(claimed_ago), float(marked_ago)) == (pytest.approx(10, abs=3), pytest.approx(0, abs=3))
    set_served(hive, lives)
    assert lives.rescue(LEASE) == [str(gone.incarnation)]
