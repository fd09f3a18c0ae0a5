"""How much is asked for at once: as the last answers came."""

from __future__ import annotations

import pytest

from workerbee.store import ration
from workerbee.store.ration import LEAST_BYTES, MOST_BYTES, STEP_FACTOR, Ration


class Link:
    """What a ration is used on, with a clock that only its statements move."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, bytes_per_s: float, delay: float = 0.03, enough: int = MOST_BYTES
    ) -> None:
        self.bytes_per_s = bytes_per_s
        self.delay = delay
        self.ration = Ration(1000, 0.5, enough)
        self._now = 0.0
        monkeypatch.setattr(ration.time, "monotonic", lambda: self._now)

    def move(self, rows: int, weight: int) -> tuple[int, int]:
        """A statement of so many rows of ``weight`` bytes; the bytes and rows that are right for the next one."""
        with self.ration.use() as moved:
            moved.rows, moved.bytes = rows, rows * weight
            self._now += self.delay + moved.bytes / self.bytes_per_s
        return self.ration.bytes, self.ration.rows


def test_small_rows_are_as_many_as_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a few bytes were under way: it wasn't the link."""
    assert Link(monkeypatch, 1e6).move(1, 50) == (LEAST_BYTES, 1000)


def test_a_fast_link_carries_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """From a careful beginning, by steps."""
    link = Link(monkeypatch, 1e9)
    assert [link.move(n, 100_000) for n in (1, 10, 40)] == [(LEAST_BYTES * 4, 10), (MOST_BYTES, 40), (MOST_BYTES, 40)]


def test_a_slow_link_carries_half_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """And one row, however large it is."""
    link = Link(monkeypatch, 1e6)
    link.ration.bytes = MOST_BYTES
    size, rows = link.move(40, 100_000)
    assert 0.4e6 < size <= 0.5e6
    assert rows == 4
    assert link.move(1, 10_000_000)[1] == 1


def test_what_never_came_to_its_end_was_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each try over a link that is cut again and again is for less."""
    link = Link(monkeypatch, 1e9)
    link.ration.bytes = MOST_BYTES
    for wanted in (MOST_BYTES // STEP_FACTOR, LEAST_BYTES, LEAST_BYTES):
        with pytest.raises(ConnectionError), link.ration.use():
            raise ConnectionError
        assert link.ration.bytes == wanted


def test_nothing_weighs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer without rows leaves what is known of a row's weight."""
    link = Link(monkeypatch, 1e9)
    before = link.move(10, 100_000)[1]
    link.move(0, 0)
    assert link.ration._weight == 100_000
    assert link.ration.rows <= before


@pytest.mark.parametrize(
    ("delay", "then"), [(0.0001, [500_000, 500_000, 500_000]), (0.005, [500_000, 2_000_000, MOST_BYTES])]
)
def test_enough_is_as_good_as_more_if_nothing_delays_it(
    monkeypatch: pytest.MonkeyPatch, delay: float, then: list[int]
) -> None:
    """After larger ones, as the server then keeps its memory; what is far away gets the most."""
    link = Link(monkeypatch, 2e8, delay, enough=500_000)
    sizes = [LEAST_BYTES]
    for _ in range(5):
        sizes.append(link.move(sizes[-1] // 1000, 1000)[0])
    assert sizes == [LEAST_BYTES, 4 * LEAST_BYTES, MOST_BYTES, *then]


def test_a_link_that_has_become_slow_gets_more_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And less again when it is as before, which the end of a value shows; what is tiny says nothing."""
    link = Link(monkeypatch, 2e8, 0.0001, enough=500_000)
    assert link.move(4000, 1000)[0] == 500_000
    assert link.move(10, 1000)[0] == 500_000
    link.delay = 0.03
    assert link.move(500, 1000)[0] == 4 * 500_000
    assert link.move(2000, 1000)[0] == MOST_BYTES
    link.delay = 0.0001
    assert [link.move(n, 1000)[0] for n in (4000, 400)] == [MOST_BYTES, 500_000]
