"""The front: where a bee begins to look for work, at the beginning of the queue or where it last found some.

While a session of the server holds an old snapshot, index entries of jobs that were claimed since can't be removed, and
each look at the whole queue has to pass over all of them. If that takes long, a bee begins where its last look ended.
It looks at the whole queue again only after twenty times as long as such a look takes. Jobs that were put back at an
old place, or have a higher priority, are found then.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from math import inf
from typing import NamedTuple

#: Looks at the whole queue aren't avoided if the quickest of the last few took fewer seconds than this.
CHEAP_SECONDS, FEW_LOOKS = 0.0005, 3
#: The pause between two looks at the whole queue, in multiples of what such a look takes: where there is work, and
#: where there is none.
BUSY_FACTOR, IDLE_FACTOR = 20.0, 4.0
#: A transaction may set the time at which its jobs are due so many seconds before others can see these jobs.
LATE_SECONDS = 0.2
#: Lower priorities that are looked at before the whole is.
LEVELS = 3


class FrontPlace(NamedTuple):
    """A place to look: at this priority from this place on, and at jobs that came due ``since`` then."""

    priority: int
    place: int
    since: float


class Front:
    """Decides where claims look, by the results of the last ones. Times are in seconds."""

    def __init__(self) -> None:
        self._levels: list[tuple[int, int]] = []  # (priority, place) where work was found last, the most urgent last
        self._since = -inf
        self._costs: deque[float] = deque(maxlen=FEW_LOOKS)
        self._looked_at = -inf

    def looks(self) -> Iterator[FrontPlace | None]:
        """Give the places to look at, one after the other until there is work; None: the whole queue."""
        if self._seconds_left(BUSY_FACTOR) > 0:
            yield FrontPlace(*self._levels[-1], self._since)
            while len(self._levels) > 1:
                self._levels.pop()
                yield FrontPlace(*self._levels[-1], self._since)
            if self._seconds_left(IDLE_FACTOR) > 0:
                return
        yield None

    @property
    def quiet_seconds(self) -> float:
        """Give the seconds until the whole queue is looked at again, if nothing was found elsewhere."""
        return self._seconds_left(IDLE_FACTOR)

    def _seconds_left(self, times: float) -> float:
        cost = min(self._costs) if len(self._costs) == FEW_LOOKS else 0.0
        return self._looked_at + times * cost - time.monotonic() if cost > CHEAP_SECONDS and self._levels else 0.0

    def note(self, looked_at: FrontPlace | None, last: tuple[int, int], seconds: float, now: float) -> None:
        """Note a look that took work: its ``seconds``, the server's time ``now``, its ``last`` (priority, place).

        A look that found nothing isn't noted.
        """
        if looked_at is None:
            self._costs.append(seconds)
            self._looked_at = time.monotonic()
        self._levels = [*[level for level in self._levels if level[0] < last[0]][-LEVELS:], last]
        self._since = now - LATE_SECONDS

    def forget(self) -> None:
        """Look at the whole queue next, as work was put back."""
        self._levels.clear()
