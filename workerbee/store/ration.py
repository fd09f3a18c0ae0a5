"""How much one statement may bring or carry, where nobody knows how large it is and how slow the link."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

#: How many times more or less the next one may be.
STEP = 4


@dataclass
class Used:
    """What came of a statement."""

    n: int = 0


class Ration:
    """As many rows, or bytes, as one statement moves in about ``seconds``, judged by the last one.

    Who waits for a statement says nothing meanwhile, not even that it is alive. One that didn't come to its end
    was too large, too. It stays between ``least`` and ``most``: of little, how long it takes says little.
    """

    def __init__(self, most: int, seconds: float, *, first: int, least: int = 1) -> None:
        self._least, self._most = least, most
        self._seconds = seconds
        self.n = first

    @contextmanager
    def use(self, asked: int) -> Iterator[Used]:
        """Around the statement for ``asked``, which is no more than `n`; the block says what it really was."""
        limit = self.n
        self.n = max(self._least, limit // STEP)
        used = Used()
        began = time.monotonic()
        yield used
        took = max(time.monotonic() - began, 1e-6)
        if 2 * used.n < asked:
            self.n = limit
        else:
            fitting = min(STEP * max(limit, used.n), int(used.n * self._seconds / took))
            self.n = max(self._least, min(self._most, fitting))
