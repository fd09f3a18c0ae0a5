"""What a crew keeps ready, hands out and gives back, without any runner."""

from __future__ import annotations

from itertools import count

import pytest

from workerbee.bee.backlog import Backlog, place
from workerbee.bee.pace import HOLD_SECONDS, MOST_HELD, MOST_IN_HAND, SATED, Appetite, FunctionKey
from workerbee.bee.tasks import Lot, Task
from workerbee.wire.job import Job

F, G, ELSEWHERE = (1, 3), (1, 4), (2, 3)
_numbers = count(1)


def give(backlog: Backlog, function: FunctionKey, n: int) -> None:
    backlog.give(Lot(function, None, None), [Job(next(_numbers), 1, "json", b"", None) for _ in range(n)])


def known(seconds: float, *functions: FunctionKey) -> Backlog:
    """A backlog that knows how long the jobs of these functions take."""
    backlog = Backlog()
    for function in functions:
        backlog.pace.learn(function, seconds)
    backlog.pace.judge()
    return backlog


def functions_of(tasks: list[Task]) -> list[FunctionKey]:
    return [task.lot.function for task in tasks]


@pytest.mark.parametrize(
    ("seconds", "n_given", "size", "expected"),
    [
        (None, 0, 2, Appetite(2 * MOST_HELD, 2.0, 2 * MOST_HELD)),
        (None, 1, 2, Appetite(MOST_HELD, 1.0, MOST_HELD)),
        (None, 2, 2, SATED),
        (60.0, 3, 4, Appetite(MOST_HELD, 1.0, MOST_HELD)),
        (HOLD_SECONDS / 10, 5, 2, Appetite(int(1.5 * MOST_HELD), 1.5, int(1.5 * MOST_HELD))),
        (HOLD_SECONDS / 10, 11, 2, SATED),
    ],
    ids=["nothing to do", "one is busy", "all are busy", "long ones", "short ones", "enough of them"],
)
def test_how_much_is_wanted(seconds: float | None, n_given: int, size: int, expected: Appetite) -> None:
    """As much as keeps each runner busy for a moment; a job that may be long takes one for itself."""
    backlog = Backlog() if seconds is None else known(seconds, F)
    give(backlog, F, n_given)
    assert backlog.appetite(size) == expected


def test_one_message_brings_jobs_of_one_function() -> None:
    """As many as are worth a message, and one where nobody knows how long it takes."""
    backlog = known(1e-5, F)
    for function, n in ((F, 3), (G, 2), (F, 1000)):
        give(backlog, function, n)
    got = [functions_of(backlog.next_portion(1)) for _ in range(4)]
    assert got == [[F] * 3, [G], [G], [F] * MOST_IN_HAND]
    assert len(backlog.next_portion(1, 7)) == 7


@pytest.mark.parametrize(
    ("seconds", "n_in_hand", "may"),
    [(0.001, 12, True), (0.001, 13, False), (0.04, 1, True), (0.04, 2, False), (0.06, 1, False), (None, 1, False)],
)
def test_what_may_follow_in_a_runners_hands(seconds: float | None, n_in_hand: int, may: bool) -> None:
    """Some milliseconds of work, or one job behind another that isn't long."""
    backlog = Backlog() if seconds is None else known(seconds, F)
    give(backlog, F, 2)
    [task, *_] = backlog.next_portion(2, 1)
    assert backlog.may_follow(task, n_in_hand) == may


def test_what_spoils_its_runner_runs_alone() -> None:
    """And what is put back comes first, in its order."""
    backlog = known(1e-5, F)
    give(backlog, F, 6)
    tasks = backlog.next_portion(1)
    backlog.put_back(tasks)
    backlog.run_alone(tasks[1:3])
    assert not backlog.may_follow(tasks[1], 1)
    assert backlog.may_follow(tasks[4], 1)
    assert [backlog.next_portion(1) for _ in range(4)] == [tasks[:1], tasks[1:2], tasks[2:3], tasks[3:]]
    for task in tasks:
        backlog.end(task)
    assert backlog.appetite(1) == Appetite(MOST_HELD, 1.0, MOST_HELD)


def test_what_is_recalled() -> None:
    """One jobset's jobs go back; nothing is taken ahead until a job has ended."""
    backlog = known(1e-5, F)
    give(backlog, F, 10)
    give(backlog, ELSEWHERE, 1)
    assert functions_of(backlog.recall(1)) == [F] * 10
    assert backlog.n_ready == 1
    assert (backlog.appetite(2), backlog.room_for(F, 2)) == (Appetite(1, 1.0, 1), 1)
    [task] = backlog.next_portion(1)
    backlog.have_run(F, 1e-5)
    backlog.end(task)
    assert backlog.appetite(2).jobs > 100


def test_what_has_become_long_is_of_more_use_elsewhere() -> None:
    backlog = known(60.0, F)
    give(backlog, F, 10)
    assert len(backlog.take_surplus(1)) == 8
    assert backlog.n_ready == 2
    assert backlog.take_surplus(1) == []
    assert len(backlog.take_last(2)) == 2
    assert backlog.take_surplus(1) == []


def test_what_nobody_here_is_to_run() -> None:
    """A function that no runner can load, until its jobset is gone; and jobs that have ended elsewhere."""
    backlog = Backlog()
    for function in (F, G, ELSEWHERE):
        give(backlog, function, 2)
    barred = backlog.bar(F)
    assert functions_of(barred) == [F, F]
    assert backlog.is_barred(barred[0])
    backlog.forget(F[0])
    assert not backlog.is_barred(barred[0])
    [doomed] = backlog.next_portion(1)
    backlog.put_back([doomed])
    assert backlog.take_doomed({place(doomed)}) == [doomed]
    assert functions_of(backlog.take_last(3)) == [G, ELSEWHERE, ELSEWHERE]


def test_what_no_runner_can_run_has_a_bound() -> None:
    """However many functions there are, some are remembered, and the last one surely."""
    backlog = Backlog()
    for number in range(10_000):
        backlog.bar((1, number))
    last = Task(Lot((1, 9_999), None, None), Job(1, 1, "json", b"{}", None))
    assert backlog.is_barred(last)
    assert len(backlog._barred) <= 1000
    backlog.forget(1)
    assert not backlog.is_barred(last)
