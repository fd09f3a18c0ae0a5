"""When a bee looks after others: the seldomer the more bees there are, for any of them can help."""

from __future__ import annotations

from workerbee.store import jitter

#: Seconds. Bees look ten times a second together, each after FEW for every bee there is, but at least once in
#: FEW_AT_MOST. With so many bees that this makes a hundred looks a second, it is MANY for every bee, to MANY_AT_MOST.
FEW, FEW_AT_MOST, MANY, MANY_AT_MOST = 0.1, 1.5, 0.01, 10.0
#: The shortest and the longest pause of a bee that always finds enough to claim.
SATED = (1.0, 300.0)


def pause(n_bees: int, *, sated: bool = False) -> float:
    """Seconds between one bee's looks where there are so many bees."""
    if sated:
        return min(max(SATED[0], FEW * n_bees), SATED[1])
    return min(max(min(FEW * n_bees, FEW_AT_MOST), MANY * n_bees), MANY_AT_MOST)


class Lookout:
    """Says when. ``now`` is always of the same clock, in seconds."""

    def __init__(self, now: float) -> None:
        self._last = self._next = now
        self._sated = False

    def due(self, now: float, *, n_bees: int, sated: bool) -> bool:
        """Whether to look now, which is then taken to be done; ``sated``: there was enough to claim."""
        if sated:
            self._next = self._last + pause(n_bees, sated=True)
        elif self._sated:
            # Work ends for all bees at the same moment; they don't look all at once.
            self._next = min(self._next, now + pause(n_bees) * jitter.random())
        self._sated = sated
        if now < self._next:
            return False
        self._last, self._next = now, now + pause(n_bees, sated=sated)
        return True
