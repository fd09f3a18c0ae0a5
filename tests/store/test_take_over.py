"""Taking over: what a slow bee holds and has not begun is given to those that have nothing to do."""

from __future__ import annotations

from collections.abc import Callable

from tests.store.hive import ANY, Hive, ids_of
from workerbee.store import Connection, Scope


def test_half_of_the_unbegun_tail_is_claimable_again(hive: Hive) -> None:
    """The holder keeps what it has begun and the first half of the rest; another bee claims the other half."""
    hive.add(10)
    slow, idle = hive.bee("a"), hive.bee("b")
    batch = slow.take(10, start=2)
    hive.age(batch, 0.3)
    assert idle.take_over(ANY) == 4
    assert hive.held() == [(str(slow.incarnation), [1, 2, 3, 4, 5, 6], 2)]
    assert ids_of(idle.take(10)) == [7, 8, 9, 10]


def test_a_stuck_bee_keeps_only_what_it_has_begun(hive: Hive) -> None:
    """A mark that has stood still for a second says that the rest is of more use elsewhere."""
    hive.add(10)
    stuck, idle = hive.bee("a"), hive.bee("b")
    hive.age(stuck.take(10, start=2), 1.5)
    assert idle.take_over(ANY) == 8
    assert hive.held() == [(str(stuck.incarnation), [1, 2], 2)]
    assert hive.waiting() == [[3, 4, 5, 6, 7, 8, 9, 10]]


def test_the_holder_learns_of_it_before_it_begins_more(hive: Hive) -> None:
    """Moving the mark tells the holder what is left to it: no job is run twice."""
    hive.add(4)
    slow, idle = hive.bee("a"), hive.bee("b")
    batch = slow.take(4, start=1)
    hive.age(batch, 1.5)
    idle.take_over(ANY)
    assert slow.start(batch, 4) == (1, [1])


def test_a_mark_that_moves_is_left_in_peace(hive: Hive) -> None:
    """A bee that was given its batch, or began more of it, a moment ago is not slow."""
    hive.add(10)
    busy, idle = hive.bee("a"), hive.bee("b")
    batch = busy.take(10, start=1)
    assert idle.take_over(ANY) == 0
    hive.age(batch, 1.5)
    busy.start(batch, 2)
    assert idle.take_over(ANY) == 0


def test_begun_work_and_own_work_are_not_taken(hive: Hive) -> None:
    """Nothing is taken up to the mark, and a bee takes nothing from itself."""
    hive.add(2)
    hive.add(2)
    begun, own = hive.bee("a"), hive.bee("b")
    hive.age(begun.take(2), 1.5)
    hive.age(own.take(2, start=0), 1.5)
    assert own.take_over(ANY) == 0
    assert begun.take_over(ANY) == 2


def test_only_what_the_bee_could_run_is_taken(hive: Hive) -> None:
    """Jobs of functions that the bee refuses stay where they are."""
    hive.add(2, function=7)
    slow, idle = hive.bee("a"), hive.bee("b")
    hive.age(slow.take(2, start=0), 1.5)
    assert idle.take_over(Scope(refused=(7,))) == 0
    assert idle.take_over(Scope(only=(0,))) == 0
    assert idle.take_over(Scope(only=(7,))) == 2


def test_taken_over_work_keeps_its_place_and_its_options(hive: Hive) -> None:
    """It comes before what was queued after it, as if it had never been claimed."""
    hive.add(2, priority=3, timeout=5.0, max_attempts=2, speculate=False)
    hive.add(1, priority=3)
    slow, idle = hive.bee("a"), hive.bee("b")
    hive.age(slow.take(2, start=0), 1.5)
    idle.take_over(ANY)
    assert hive.waiting() == [[1, 2], [3]]
    batch = idle.take(2)
    assert (batch.timeout, batch.max_attempts, batch.again) == (5.0, 2, False)


def test_a_batch_that_is_being_changed_is_passed_over(hive: Hive, connect: Callable[[], Connection]) -> None:
    """While the holder moves its mark, nobody waits for the outcome to take from it."""
    hive.add(4)
    slow, idle = hive.bee("a", connect()), hive.bee("b")
    batch = slow.take(4, start=0)
    hive.age(batch, 1.5)
    slow.connection.run("BEGIN")
    slow.start(batch, 2)
    assert idle.take_over(ANY) == 0
    slow.connection.run("COMMIT")
