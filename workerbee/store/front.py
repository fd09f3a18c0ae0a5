"""Where a bee begins to look for work: at the beginning of the queue, or where it last found some.

While any session of the server holds an old snapshot, what was claimed since can't be cleaned from the indexes, and
each look at the whole queue passes over all of it. So where that takes long, a bee begins where its last look ended,
and looks at the whole again when that costs little beside what was done meanwhile. What came back to an old place, or
has a higher priority, is found then: after twenty times as long as such a look takes.
"""

from __future__ import annotations

import time
from collections import deque
from math import inf
from typing import NamedTuple

#: A look that takes less (seconds) isn't worth being avoided; judged by the quickest of the last few at the whole.
CHEAP, FEW = 0.0005, 3
#: How many times as long as a look at the whole takes nobody makes another: where there is work, and where none is.
BUSY, IDLE = 20.0, 4.0
#: Seconds by which a transaction may have chosen the time at which its jobs are due before others see them.
LATE = 0.2


class Position(NamedTuple):
    """From where on to look: at this priority from this place on, at lower ones, and at what came due ``since``."""

    priority: int
    place: int
    since: float


WHOLE = Position(2**31 - 1, 0, -inf)


class Front:
    """Says from where on the next claim is to look, by what came of the last ones. Times are in seconds."""

    def __init__(self) -> None:
        self._position = WHOLE
        self._costs: deque[float] = deque(maxlen=FEW)
        self._looked_at = -inf

    def position(self) -> Position:
        """Where to look first."""
        return self._position if self._rest(BUSY) > 0 else WHOLE

    @property
    def rest(self) -> float:
        """How long the whole isn't to be looked at, where nothing was found from the position on."""
        return self._rest(IDLE)

    def _rest(self, times: float) -> float:
        cost = min(self._costs) if len(self._costs) == FEW else 0.0
        if cost <= CHEAP or self._position == WHOLE:
            return 0.0
        return self._looked_at + times * cost - time.monotonic()

    def note(self, looked_from: Position, seconds: float, next_at: tuple[int, int] | None, now: float) -> None:
        """A look at the server's time ``now`` took so many seconds; the next may begin at this priority and place.

        None: it has found nothing.
        """
        if looked_from == WHOLE:
            self._costs.append(seconds)
            self._looked_at = time.monotonic()
        self._position = Position(*(next_at or self._position[:2]), now - LATE)

    def forget(self) -> None:
        """Look at the whole next: work has come back."""
        self._position = WHOLE
