"""Headers: in which of them jobs stood, for who cancels one job after the other.

Nothing finds a job's header but a look at all headers of its jobset. For who cancels many jobs at once that is nothing,
but each statement that cancels one job would take as long as there are headers. So after some such looks it is
remembered where all jobs stood. That may be wrong by now: a job that isn't found there is looked for everywhere.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from psycopg2 import errors

from workerbee.store import queries
from workerbee.store.connection import Row

#: Looks at all headers before it is read where jobs stand, which takes as long as some looks; and of how many headers.
LOOKS, MOST_HEADERS = 20, 200_000
#: Headers whose jobs lie between each other's, as those of some functions whose calls were submitted in turns.
NEIGHBOURS = 8


class Headers:
    """Remembers the first and the last job of each header."""

    def __init__(self, of_jobset: queries.Queries) -> None:
        self._queries = of_jobset
        self._n_looks = 0
        self._forget()

    def cancel(self, job: int, params: Mapping[str, Any]) -> list[Row]:
        """Run the query of this name for one job: at first where it stood, and then wherever it may stand."""
        if self._n_looks >= LOOKS:
            self._read()
        if near := self._near(job):
            with suppress(errors.UniqueViolation):
                rows = self._queries.run("cancel", {**params, "headers": queries.array(near)}, "in known headers")
                if not rows[0][1]:  # otherwise it isn't decided, as the job stands elsewhere by now
                    return rows
        self._n_looks += 1
        return self._queries.insert("cancel", params)

    def _near(self, job: int) -> list[int]:
        """Give the headers in which the job may have stood."""
        end = bisect_right(self._firsts, job)
        return [self._ids[i] for i in range(max(0, end - NEIGHBOURS), end) if self._lasts[i] >= job]

    def _read(self) -> None:
        self._n_looks = 0
        self._forget()
        for first, last, header in self._queries.run("headers", {"n": MOST_HEADERS}):
            self._firsts.append(first)
            self._lasts.append(last)
            self._ids.append(header)

    def _forget(self) -> None:
        self._firsts, self._lasts, self._ids = array("q"), array("q"), array("q")
