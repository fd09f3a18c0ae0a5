"""The lookout: a bee looks after others the less often the more bees there are, as any of them can help."""

from __future__ import annotations

from workerbee.store import jitter

#: Seconds between one bee's looks: ``FEW_SECONDS`` for each bee, but at most ``FEW_MAX_SECONDS``; in a crowd
#: ``CROWD_SECONDS`` for each, but at most ``CROWD_MAX_SECONDS``. So all bees together look ten times a second, a crowd
#: a hundred times.
FEW_SECONDS, FEW_MAX_SECONDS, CROWD_SECONDS, CROWD_MAX_SECONDS = 0.1, 1.5, 0.01, 10.0
#: The shortest and the longest pause of a bee that always finds enough to claim.
SATED_SECONDS = (1.0, 300.0)


def pause(n_bees: int, *, sated: bool = False) -> float:
    """Give the seconds between one bee's looks, if there are ``n_bees`` bees.

    Up to 15 bees, that is 0.1 s for each; up to 150 bees, 1.5 s; beyond, 0.01 s for each, but at most 10 s.
    """
    if sated:
        return min(max(SATED_SECONDS[0], FEW_SECONDS * n_bees), SATED_SECONDS[1])
    return min(max(min(FEW_SECONDS * n_bees, FEW_MAX_SECONDS), CROWD_SECONDS * n_bees), CROWD_MAX_SECONDS)


class Lookout:
    """Decides when to look. ``now`` is always of the same clock, in seconds."""

    def __init__(self, now: float) -> None:
        self._last = self._next = now
        self._sated = False

    def due(self, now: float, *, n_bees: int, sated: bool) -> bool:
        """Tell whether to look now; a True starts the next interval. ``sated``: there was enough to claim."""
        if sated:
            self._next = self._last + pause(n_bees, sated=True)
        elif self._sated:
            # Work runs out for all bees at the same moment. They shouldn't all look at once.
            self._next = min(self._next, now + pause(n_bees) * jitter.random())
        self._sated = sated
        if now < self._next:
            return False
        self._last, self._next = now, now + pause(n_bees, sated=sated)
        return True
