"""When a bee claims and whether it listens, by a clock of the test's own."""

from __future__ import annotations

import pytest

from workerbee.bee.hunger import CROWD, MAX_PAUSE_SECONDS, MIN_PAUSE_SECONDS, Hunger
from workerbee.bee.pace import SATED, Appetite

TWO = Appetite(2, 2.0, 2)
SPREAD = 0.21  # no two bees are in step


def hungry(*, max_jobs: int | None = None, max_pause: float = 30.0) -> Hunger:
    return Hunger(0.0, max_pause=max_pause, max_jobs=max_jobs)


def look(
    hunger: Hunger,
    now: float,
    n: int = 0,
    *,
    is_sated: bool = False,
    was_help: bool = False,
    n_bees: int = 1,
    is_lively: bool = True,
) -> float:
    """Seconds until the next look after one that brought ``n`` jobs; 0: at once."""
    hunger.fed(now, n, is_sated=is_sated, was_help=was_help, n_bees=n_bees, is_lively=is_lively)
    return max(0.0, hunger.claim_at - now)


@pytest.mark.parametrize(
    ("appetite", "max_jobs", "n_taken", "claim_at", "expected"),
    [
        (TWO, None, 9, 0.0, TWO),
        (TWO, None, 9, 10.0, TWO),
        (TWO, None, 9, 10.1, None),
        (SATED, None, 9, 0.0, None),
        (TWO, 10, 9, 0.0, Appetite(1, 2.0, 1)),
        (TWO, 9, 9, 0.0, Appetite(0, 2.0, 0)),
        (TWO, 9, 10, 0.0, Appetite(0, 2.0, 0)),
    ],
    ids=["at once", "now", "not yet", "nothing", "the last one", "no more", "a copy too many"],
)
def test_what_is_wanted(
    appetite: Appetite, max_jobs: int | None, n_taken: int, claim_at: float, expected: Appetite | None
) -> None:
    """As much as the runners want, but no more than so many in all; who wants none still looks after others."""
    hunger = hungry(max_jobs=max_jobs)
    hunger.claim_at = claim_at
    assert hunger.wants(10.0, appetite, n_taken=n_taken, n_bees=1) == expected


@pytest.mark.parametrize(
    ("n", "is_sated", "was_help", "pause"),
    [
        (5, True, False, 0.0),
        (0, False, True, 0.0),
        (1, False, False, MIN_PAUSE_SECONDS),
        (0, False, False, 2 * MIN_PAUSE_SECONDS),
    ],
    ids=["all of it", "others' work", "not enough", "nothing"],
)
def test_the_next_look(n: int, is_sated: bool, was_help: bool, pause: float) -> None:
    """At once where there may be more, else soon."""
    assert look(hungry(), 10.0, n, is_sated=is_sated, was_help=was_help) == pytest.approx(pause, rel=SPREAD)


@pytest.mark.parametrize(
    ("n_bees", "is_lively", "max_pause", "longest"),
    [
        (1, True, 30.0, 0.1),
        (64, True, 30.0, 1.5),
        (1, False, 30.0, MAX_PAUSE_SECONDS),
        (1, False, 0.5, 0.5),
    ],
    ids=["alone", "in a crowd", "nothing goes on", "as it was told"],
)
def test_looks_in_vain_become_rare(n_bees: int, is_lively: bool, max_pause: float, longest: float) -> None:
    """Each pause is twice the one before, up to the longest; one job, or a hint, and it begins anew."""
    hunger = hungry(max_pause=max_pause)
    pauses = [look(hunger, 10.0 * k, n_bees=n_bees, is_lively=is_lively) for k in range(12)]
    assert pauses[0] == pytest.approx(2 * MIN_PAUSE_SECONDS, rel=SPREAD)
    assert pauses[-1] == pytest.approx(longest, rel=SPREAD)
    hunger.hurry()
    assert hunger.wants(0.0, TWO, n_taken=0, n_bees=n_bees) == TWO
    assert look(hunger, 500.0, 1) == pytest.approx(MIN_PAUSE_SECONDS, rel=SPREAD)


def test_in_a_crowd_only_the_hungry_listen() -> None:
    """Who has had enough for a while stops, and starts when looks bring nothing; then hints were missed."""
    hunger = hungry()
    look(hunger, 1.0, n_bees=CROWD)
    hunger.wants(1.2, SATED, n_taken=0, n_bees=CROWD)
    assert hunger.listens, "not for long enough"
    hunger.wants(1.3, SATED, n_taken=0, n_bees=CROWD - 1)
    assert hunger.listens, "no crowd"
    look(hunger, 1.3, 5, is_sated=True, n_bees=CROWD)
    assert not hunger.listens
    assert look(hunger, 2.0, n_bees=CROWD) > 0
    assert look(hunger, 2.1, n_bees=CROWD) > 0
    assert not hunger.listens, "hunger must last"
    assert look(hunger, 2.2, n_bees=CROWD) > 0
    assert look(hunger, 2.4, n_bees=CROWD) == 0.0
    assert hunger.listens


def test_what_a_look_cannot_see_is_looked_for_in_time() -> None:
    """It puts no look off."""
    for within, pause in ((0.03, 0.03), (0.5, 2 * MIN_PAUSE_SECONDS)):
        hunger = hungry()
        hunger.fed(10.0, 0, is_sated=False, was_help=False, n_bees=1, is_lively=True, look_within=within)
        assert hunger.claim_at - 10.0 == pytest.approx(pause, rel=SPREAD)
