"""How much work is worth holding, from durations alone."""

from __future__ import annotations

import pytest

from workerbee.bee.pace import ALIKE, HOLD_SECONDS, LOADING_SECONDS, MOST_FUNCTIONS, MOST_HELD, Pace, portion


def learned(*seconds: float) -> Pace:
    pace = Pace()
    for s in seconds:
        pace.learn((1, 1), s)
    pace.judge()
    return pace


@pytest.mark.parametrize(
    ("seconds", "cost"),
    [
        ((), 1),
        ((60.0,), 1),
        ((HOLD_SECONDS,), 1),
        ((HOLD_SECONDS / 10,), 0.1),
        ((0.0,), 1 / MOST_HELD),
        ((0.0, 1.0), 1),
        ((0.0, 0.1), 0.02 / HOLD_SECONDS),
    ],
    ids=["unknown", "long", "just long", "short", "nothing", "one long one", "it has become longer"],
)
def test_a_job_costs_a_part_of_a_runner(seconds: tuple[float, ...], cost: float) -> None:
    """A whole one, unless its function's jobs have been short."""
    pace = learned(*seconds)
    assert pace.cost((1, 1)) == pytest.approx(cost)
    assert pace.cost((1, 2)) == pace.cost((2, 1)) == 1, "another function's job"
    assert pace.costs(1) == ({1: pytest.approx(cost)} if cost < 1 else {})
    assert pace.costs(2) == {}


def test_durations_count_when_they_were_judged() -> None:
    """For a claim not before; for what is handed out at once."""
    pace = Pace()
    pace.learn((1, 1), 0.001)
    assert (pace.seconds((1, 1)), pace.cost((1, 1))) == (0.001, 1)
    pace.judge()
    assert pace.cost((1, 1)) < 0.01


def test_only_so_many_functions_are_remembered() -> None:
    """Those of which a job has ended last."""
    pace = Pace()
    for n in range(10 * MOST_FUNCTIONS):
        pace.learn((1, n), 0.001)
        pace.learn((1, 0), 0.001)
    pace.judge()
    assert len(pace.costs(1)) == MOST_FUNCTIONS
    assert {0, 10 * MOST_FUNCTIONS - 1} <= pace.costs(1).keys()


def test_where_the_first_jobs_of_several_functions_were_short_so_may_be_those_of_others() -> None:
    """By the longest of the last ones, within a jobset, and with what it takes to load a function."""
    pace = Pace()
    for n in range(ALIKE):
        pace.judge()
        assert (pace.unknown(1), pace.seconds((1, 99))) == (1, None)
        pace.learn((1, n), 0.002 if n == 3 else 0.001)
    pace.judge()
    likely = 0.002 + LOADING_SECONDS
    assert pace.seconds((1, 99)) == likely
    assert pace.unknown(1) == pace.cost((1, 99)) == pytest.approx(likely / HOLD_SECONDS)
    assert pace.costs(1)[3] == pytest.approx(0.002 / HOLD_SECONDS), "what is known counts"
    assert (pace.unknown(2), pace.seconds((2, 99))) == (1, None)
    pace.learn((1, 99), 60.0)
    pace.judge()
    assert pace.unknown(1) == 1
    assert pace.costs(1)[3] < 1


def test_first_jobs_of_only_so_many_jobsets_are_remembered() -> None:
    """Those in which a function was new last."""
    pace = Pace()
    for jobset in range(2 * MOST_FUNCTIONS):
        for n in range(ALIKE):
            pace.learn((jobset, n), 0.001)
    pace.judge()
    assert sum(pace.unknown(jobset) < 1 for jobset in range(2 * MOST_FUNCTIONS)) == MOST_FUNCTIONS


@pytest.mark.parametrize(
    ("n_ready", "pace", "expected"),
    [
        (100, None, 1),
        (100, 1.0, 1),
        (100, 0.001, 25),
        (8, 0.001, 4),
        (7, 0.001, 4),
        (20, 0.00001, 50),
        (10_000, 0.0, 250),
    ],
    ids=["unknown", "long", "a moment's work", "a fair share", "rounded up", "not worth dividing", "never more"],
)
def test_a_message_brings_a_moments_work(n_ready: int, pace: float | None, expected: int) -> None:
    """Divided among two runners, unless the messages would cost more than the work."""
    assert portion(n_ready, 2, pace) == expected
