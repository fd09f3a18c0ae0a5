"""How much one statement may bring or carry, where nobody knows how large it is and how slow the link."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

#: Bytes in one statement; with less than the least, the time it took says nothing of the link.
LEAST_BYTES, MOST_BYTES = 250_000, 4_000_000
#: How many times more or less the next one may be.
STEP_FACTOR = 4
#: Rows in one statement, at first.
FIRST_ROWS = 100
#: A statement isn't delayed if its rate is this share of a larger one's.
SHARE_OF_RATE = 0.7


@dataclass
class Moved:
    """The rows and bytes that a statement has moved."""

    rows: int = 0
    bytes: int = 0


class Ration:
    """As many ``bytes`` as one statement moves in about ``seconds``, judged by the last one.

    Who waits for a statement says nothing meanwhile, not even that it is alive. One that didn't come to its end
    was too large, too.

    Where nothing delays a statement, one of ``enough`` bytes is the fastest: more don't fit into the processor's cache.
    But larger ones come first. Until it has met such, the server's C library gives memory back to the kernel after each
    statement, and the kernel's fresh pages take longer than all that is done with them.
    """

    def __init__(self, most_rows: int, seconds: float, enough: int = MOST_BYTES) -> None:
        self._most_rows = most_rows
        self._seconds = seconds
        self._enough = enough
        self._is_met = False  # whether the server has met a large statement
        self._rate_of_more = 0.0  # bytes a second in the last statement that had more than enough
        self._is_far = False
        self._weight = LEAST_BYTES / FIRST_ROWS  # bytes a row
        self.bytes = LEAST_BYTES

    @property
    def rows(self) -> int:
        """Say how many rows that is, if they are like the last ones; one at least."""
        return max(1, min(self._most_rows, int(self.bytes / self._weight)))

    @contextmanager
    def use(self) -> Iterator[Moved]:
        """Enter this around a statement; the block says what it has moved."""
        limit = self.bytes
        self.bytes = max(LEAST_BYTES, limit // STEP_FACTOR)
        moved = Moved()
        began = time.monotonic()
        yield moved
        took = max(time.monotonic() - began, 1e-6)
        fitting = min(STEP_FACTOR * max(limit, moved.bytes), int(moved.bytes * self._seconds / took))
        self.bytes = max(LEAST_BYTES, min(self._best(moved.bytes, took), fitting))
        if moved.rows:
            self._weight = max(1.0, moved.bytes / moved.rows)

    def _best(self, n_bytes: int, took: float) -> int:
        """Say how many bytes would be best for the next statement, as this one took so many seconds for so many."""
        if n_bytes > self._enough:
            self._is_met = self._is_met or n_bytes >= STEP_FACTOR * self._enough
            self._rate_of_more = n_bytes / took
        elif self._is_met and n_bytes >= LEAST_BYTES:
            self._is_far = n_bytes / took < SHARE_OF_RATE * self._rate_of_more
        return self._enough if self._is_met and not self._is_far else MOST_BYTES
