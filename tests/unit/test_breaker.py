"""The circuit breaker of a bee, from outcomes and a clock alone."""

from __future__ import annotations

from workerbee.bee.breaker import CHANCE, Breaker


def failed(breaker: Breaker, *jobs: int) -> None:
    for job in jobs:
        breaker.note(job, failed=True)


def test_five_different_jobs_that_fail_in_a_row_open_it() -> None:
    """What room there is shrinks with each; the same job failing again is no new evidence."""
    breaker = Breaker()
    rooms = [breaker.room]
    for job in (1, 2, 2, 2, 3, 4, 5):
        failed(breaker, job)
        rooms.append(breaker.room)
    assert rooms == [None, 4, 3, 3, 3, 2, 1, 0]
    assert breaker.is_open


def test_one_success_closes_it() -> None:
    """The machine works: whatever failed before was the jobs' own fault."""
    breaker = Breaker()
    failed(breaker, *range(5))
    breaker.note(6, failed=False)
    assert breaker.room is None
    assert not breaker.is_open


def test_where_half_of_the_jobs_fail_a_row_of_five_is_nothing() -> None:
    """As many must fail as chance brings about once in a million times."""
    breaker = Breaker()
    for job in range(100):
        breaker.note(job, failed=job % 2 == 0)
    failed(breaker, *range(1000, 1019))
    assert not breaker.is_open
    failed(breaker, 1019)
    assert breaker.is_open
    assert 0.5**20 < CHANCE < 0.5**19


def test_rests_double_up_to_a_minute_until_a_success() -> None:
    """Each failed try makes the next pause longer; a rest begins once, however often it is asked for."""
    breaker = Breaker()
    failed(breaker, *range(5))
    now, rests = 100.0, []
    for job in range(5, 12):
        rests.append(breaker.rest(now))
        assert breaker.rest(now + 1) == rests[-1] - 1
        now += rests[-1]
        assert breaker.rest(now) == 0
        failed(breaker, job)
    assert rests == [2, 4, 8, 16, 32, 60, 60]
    breaker.note(99, failed=False)
    failed(breaker, *range(5))
    assert breaker.rest(now) == 2
