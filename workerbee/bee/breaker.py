"""The circuit breaker of a bee: it tells whether the failures here point at the bee rather than at the jobs.

On a broken machine every job fails, and so quickly that its bee would take more work than any other. So a bee
whose last jobs all failed rests while other bees do well, and tries one job after each rest.
"""

from __future__ import annotations

from collections.abc import Hashable
from math import ceil, log

#: A bee is suspected after so many failures in a row. Where jobs often fail anyway, the row must be so long that its
#: probability is below ``CHANCE``.
IN_A_ROW, CHANCE = 5, 1e-6
#: Seconds of the first rest, and of the longest.
REST_SECONDS = (2.0, 60.0)


class Breaker:
    """Counts the different jobs that have failed here since one last succeeded."""

    def __init__(self) -> None:
        self._row: set[Hashable] = set()
        self._n_failed = self._n_ended = 0  # before the present row of failures
        self._pause = REST_SECONDS[0]
        self._until: float | None = None

    def note(self, job: Hashable, *, failed: bool) -> None:
        """Note that a job has ended here."""
        if failed:
            self._row.add(job)
            self._until = None
        else:
            self._n_failed += len(self._row)
            self._n_ended += len(self._row) + 1
            self._row.clear()
            self._pause = REST_SECONDS[0]

    @property
    def room(self) -> int | None:
        """Count the failures until this bee is suspected (0: it is suspected); None if the last job succeeded."""
        if not self._row:
            return None
        often = self._n_failed / self._n_ended if self._n_ended else 0.0
        enough = max(IN_A_ROW, ceil(log(CHANCE) / log(often))) if often else IN_A_ROW
        return max(0, enough - len(self._row))

    @property
    def is_open(self) -> bool:
        """Tell whether this bee is suspected."""
        return self.room == 0

    def rest(self, now: float) -> float:
        """Give the seconds that are left of the rest. It begins with the first call after a failure."""
        if self._until is None:
            self._until = now + self._pause
            self._pause = min(REST_SECONDS[1], self._pause * 2)
        return max(0.0, self._until - now)
