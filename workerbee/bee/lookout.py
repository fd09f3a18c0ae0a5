"""When a bee looks after others: the seldomer the more bees there are, for any of them can help."""

from __future__ import annotations

from workerbee.store import jitter

#: Seconds between one bee's looks, for each bee that there is: up to so many seconds where they are few, and beyond
#: that so many for each of a crowd. So all together look ten times a second, and a crowd a hundred times.
FEW_SECONDS, FEW_MAX_SECONDS, CROWD_SECONDS, CROWD_MAX_SECONDS = 0.1, 1.5, 0.01, 10.0
#: The shortest and the longest pause of a bee that always finds enough to claim.
SATED_SECONDS = (1.0, 300.0)


def pause(n_bees: int, *, sated: bool = False) -> float:
    """Seconds between one bee's looks where there are so many bees.

    Up to 15 bees: 0.1 for each. To 150: 1.5. Beyond: 0.01 for each, at most 10.
    """
    if sated:
        return min(max(SATED_SECONDS[0], FEW_SECONDS * n_bees), SATED_SECONDS[1])
    return min(max(min(FEW_SECONDS * n_bees, FEW_MAX_SECONDS), CROWD_SECONDS * n_bees), CROWD_MAX_SECONDS)


class Lookout:
    """Says when. ``now`` is always of the same clock, in seconds."""

    def __init__(self, now: float) -> None:
        self._last = self._next = now
        self._sated = False

    def due(self, now: float, *, n_bees: int, sated: bool) -> bool:
        """Tell whether to look now, which is then taken to be done; ``sated``: there was enough to claim."""
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
