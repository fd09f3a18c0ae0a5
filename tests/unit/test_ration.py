"""How much is asked for at once: as the last answers came."""

from __future__ import annotations

import pytest

from workerbee.store import ration
from workerbee.store.ration import STEP, Ration


class Link:
    """What a ration is used on, with a clock that only its statements move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, per_s: float) -> None:
        self.per_s = per_s
        self.ration = Ration(1000, 0.5, first=100)
        self._now = 0.0
        monkeypatch.setattr(ration.time, "monotonic", lambda: self._now)

    def move(self, n: int, *, there: int = 10**9) -> int:
        """A statement for at most ``n`` of what is ``there``; how much is right for the next one."""
        with self.ration.use(n := min(n, self.ration.n)) as used:
            used.n = min(n, there)
            self._now += used.n / self.per_s
        return self.ration.n


def test_where_all_is_quick_it_is_soon_as_much_as_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """From a careful beginning, by steps, to the most."""
    link = Link(monkeypatch, 1e6)
    assert [link.move(5000) for _ in range(3)] == [100 * STEP, 1000, 1000]


def test_what_is_slow_is_kept_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the rows are large or the link is slow: half a second of it, and one at least."""
    link = Link(monkeypatch, 20.0)
    assert link.move(4) == 10
    link.per_s = 1.0
    assert link.move(10) == 1
    link.per_s = 1000.0
    assert link.move(10) == STEP


def test_what_never_came_to_its_end_was_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each try over a link that is cut again and again is for less."""
    link = Link(monkeypatch, 1000.0)
    for wanted in (100 // STEP, 100 // STEP**2, 1, 1):
        with pytest.raises(ConnectionError), link.ration.use(link.ration.n):
            raise ConnectionError
        assert link.ration.n == wanted


def test_a_small_statement_that_took_long_is_no_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is slow for a moment isn't a slow link: it never becomes less than the least."""
    link = Link(monkeypatch, 1.0)
    link.ration = Ration(1000, 0.5, first=100, least=50)
    assert link.move(3) == 50
    link.per_s = 1e6
    assert link.move(500) == 200


def test_little_says_nothing_of_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """One row of a hundred that were asked for, however long it took, is no measure."""
    link = Link(monkeypatch, 1.0)
    assert link.move(100, there=1) == 100
