"""When bees look after others, by a clock of the test's own."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from workerbee.bee.lookout import Lookout

STEP = 0.02


def looks(bees: list[Lookout], begin: float, end: float, sated: Callable[[], bool] = lambda: False) -> int:
    """How often so many bees look, if each is asked every 20 ms."""
    steps = range(round(begin / STEP), round(end / STEP))
    return sum(bee.due(n * STEP, n_bees=len(bees), sated=sated()) for n in steps for bee in bees)


@pytest.mark.parametrize(("n_bees", "a_second"), [(1, 10), (15, 10), (64, 43), (1000, 100)])
def test_all_together_look_often_enough_and_not_more(n_bees: int, a_second: float) -> None:
    """A few bees ten times a second, and a crowd never as often as it is large."""
    bees = [Lookout(random.uniform(-20, 0)) for _ in range(n_bees)]
    looks(bees, 0, 11, sated=lambda: True)
    assert looks(bees, 11, 31) / 20 == pytest.approx(a_second, rel=0.25)


@pytest.mark.parametrize("n_bees", [2, 64])
def test_work_that_never_ends_puts_off_no_look(n_bees: int) -> None:
    """Whether there is always enough or now and then a little less."""
    for sated in (lambda: True, lambda: random.random() < 0.5):
        bees = [Lookout(0) for _ in range(n_bees)]
        longest = max(1.0, 0.1 * n_bees)
        for n in range(1, 5):
            seen = looks(bees, n * (longest + STEP), (n + 1) * (longest + STEP), sated)
            assert seen >= n_bees


def test_the_end_of_work_is_no_signal_for_all() -> None:
    """Bees that run out of work together spread their first looks."""
    bees = [Lookout(random.uniform(-6, 0)) for _ in range(64)]
    looks(bees, 0, 10, sated=lambda: True)
    assert looks(bees, 10, 10 + STEP) <= 20
    assert looks(bees, 10 + STEP, 11.6) >= 44
