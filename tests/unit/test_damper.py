"""What a bee takes of functions that fail with it, from the ends of jobs, a clock, and what other bees can."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from workerbee.bee import damper
from workerbee.bee.damper import Damper, costs_of
from workerbee.bee.holdings import Holdings, Served
from workerbee.bee.tasks import End, Lot, Task
from workerbee.wire.job import EndKind, Job

F, G = 1, 2


class DampedBee:
    """A damper over what a bee holds, which is set by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.n_able = 1
        self.n_asked = 0
        self.now = 100.0
        self.held: list[Any] = []
        monkeypatch.setattr(damper, "time", SimpleNamespace(monotonic=lambda: self.now))
        jobset, store = SimpleNamespace(number=9), SimpleNamespace(able_bees=self._able)
        self.served = cast("Served", SimpleNamespace(jobset=jobset, store=store))
        holdings = SimpleNamespace(of=lambda number: self.held, served={9: self.served})
        self.damper = Damper(cast("Holdings", holdings), cast("Any", None))

    def _able(self, function: int) -> int:
        self.n_asked += 1
        return self.n_able

    def ends(self, function: int, *jobs: int, kind: EndKind = EndKind.ERROR) -> None:
        for job in jobs:
            task = Task(Lot((9, function), None, None), Job(job, 1, "", b"", None))
            self.damper.note(End(task, kind, "", b"", None, 0.0))

    def holds(self, function: int, n: int) -> None:
        self.held = [SimpleNamespace(function=(9, function), open=range(n))]

    def caps(self) -> dict[int, int]:
        return self.damper.caps(self.served, self.now)


@pytest.fixture
def bee(monkeypatch: pytest.MonkeyPatch) -> DampedBee:
    return DampedBee(monkeypatch)


def test_only_what_fails_is_limited(bee: DampedBee) -> None:
    bee.ends(G, 1, kind=EndKind.COMPLETED)
    assert bee.caps() == {}
    bee.ends(F, 2)
    assert bee.caps() == {F: 4}
    bee.holds(F, 3)
    assert bee.caps() == {F: 1}
    bee.holds(G, 3)
    assert bee.caps() == {F: 4}
    bee.ends(F, 3, 4, 5, 6)
    assert bee.caps() == {F: 0}
    assert bee.damper.is_resting
    bee.ends(G, 7, kind=EndKind.COMPLETED)
    assert bee.caps() == {F: 0}
    assert not bee.damper.is_resting
    bee.now += 2.1
    assert bee.caps() == {F: 1}
    bee.holds(F, 1)
    assert bee.caps() == {F: 0}
    bee.ends(F, 8, kind=EndKind.COMPLETED)
    assert bee.caps() == {}


def test_where_no_other_can_nothing_is_limited(bee: DampedBee) -> None:
    """And others are asked after now and then, and not for ever."""
    bee.n_able = 0
    bee.ends(F, *range(5))
    for _ in range(3):
        assert bee.caps() == {}
    assert bee.n_asked == 1
    bee.n_able, bee.now = 1, bee.now + 1.1
    assert bee.caps() == {F: 0}
    bee.n_able, bee.now = 0, bee.now + 130
    assert bee.caps() == {F: 1}
    assert bee.n_asked == 2


def test_functions_without_number(bee: DampedBee) -> None:
    """Only the last ones are remembered."""
    for function in range(200):
        bee.ends(function, 1)
    assert len(bee.caps()) == damper.MOST_FUNCTIONS


@pytest.mark.parametrize(
    ("costs", "caps", "runners", "expected"),
    [
        ({}, {F: 4}, 2.0, {F: 1.0}),
        ({F: 0.01, G: 0.01}, {F: 4}, 2.0, {F: 0.5, G: 0.01}),
        ({F: 0.01}, {F: 0}, 2.0, {F: 0.01}),
        ({F: 0.01}, {F: 1}, 0.5, {F: 0.5}),
    ],
)
def test_costs_keep_to_the_caps(
    costs: dict[int, float], caps: dict[int, int], runners: float, expected: dict[int, float]
) -> None:
    assert costs_of(costs, caps, runners) == expected
