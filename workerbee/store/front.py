"""Where a bee begins to look for work: at the beginning of the queue, or where it last found some.

While any session of the server holds an old snapshot, what was claimed since can't be cleaned from the indexes, and
each look at the whole queue passes over all of it. So where that takes long, a bee begins where its last look ended,
and looks at the whole again when that costs little beside what was done meanwhile. What came back to an old place, or
has a higher priority, is found then: after twenty times as long as such a look takes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from math import inf
from typing import NamedTuple

#: A look that takes less (seconds) isn't worth being avoided; judged by the quickest of the last few at the whole.
CHEAP_SECONDS, FEW_LOOKS = 0.0005, 3
#: How many times as long as a look at the whole takes nobody makes another: where there is work, and where none is.
BUSY_FACTOR, IDLE_FACTOR = 20.0, 4.0
#: Seconds by which a transaction may have chosen the time at which its jobs are due before others see them.
LATE_SECONDS = 0.2
#: Lower priorities that are looked at before the whole is.
LEVELS = 3


class FrontPlace(NamedTuple):
    """From where on to look: at this priority from this place on, and at what came due ``since``."""

    priority: int
    place: int
    since: float


class Front:
    """Says where claims are to look, by what came of the last ones. Times are in seconds."""

    def __init__(self) -> None:
        self._levels: list[tuple[int, int]] = []  # (priority, place) where work was found last, the most urgent last
        self._since = -inf
        self._costs: deque[float] = deque(maxlen=FEW_LOOKS)
        self._looked_at = -inf

    def looks(self) -> Iterator[FrontPlace | None]:
        """Say where to look, one after the other until there is work; None: at the whole queue."""
        if self._rest(BUSY_FACTOR) > 0:
            yield FrontPlace(*self._levels[-1], self._since)
            while len(self._levels) > 1:
                self._levels.pop()
                yield FrontPlace(*self._levels[-1], self._since)
            if self._rest(IDLE_FACTOR) > 0:
                return
        yield None

    @property
    def quiet_seconds(self) -> float:
        """Say how long the whole isn't to be looked at, where nothing was found elsewhere."""
        return self._rest(IDLE_FACTOR)

    def _rest(self, times: float) -> float:
        cost = min(self._costs) if len(self._costs) == FEW_LOOKS else 0.0
        return self._looked_at + times * cost - time.monotonic() if cost > CHEAP_SECONDS and self._levels else 0.0

    def note(self, looked_at: FrontPlace | None, last: tuple[int, int], seconds: float, now: float) -> None:
        """A look of so many seconds, at the server's time ``now``, took work: the last was of this (priority, place).

        One that found nothing tells nothing.
        """
        if looked_at is None:
            self._costs.append(seconds)
            self._looked_at = time.monotonic()
        self._levels = [*[level for level in self._levels if level[0] < last[0]][-LEVELS:], last]
        self._since = now - LATE_SECONDS

    def forget(self) -> None:
        """Look at the whole next: work has come back."""
        self._levels.clear()
