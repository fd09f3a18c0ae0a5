"""What a jobset's tables say of its large values in files."""

from __future__ import annotations

from collections.abc import Iterator

from workerbee.store.queries import Queries
from workerbee.store.writer import Writer
from workerbee.wire.job import NO_FUNCTION, FunctionRow, Outcome

#: Jobs that are looked at in one statement.
PAGE_JOBS = 2000


class LentValues:
    """The places of a jobset's large values, and the results that are there."""

    def __init__(self, queries: Queries, writer: Writer) -> None:
        self._queries = queries
        self._writer = writer

    def places(self) -> list[FunctionRow]:
        """Read where the large values are: the rows, as they are signed."""
        return [
            FunctionRow(NO_FUNCTION, bytes(digest), name, codec, bytes(body), python, bytes(mac))
            for digest, name, codec, body, python, mac in self._queries.run("places", {})
        ]

    def lose(self, failure: Outcome, cause: bytes) -> bool:
        """Record that the value of the run before this ``failure`` is lost; False if somebody has, or it isn't so."""
        params = {"job": failure.job, "run": failure.run - 1, "record": failure.data.decode(), "mac": failure.mac}
        rows = self._queries.run("lose", params | {"cause": cause, "writer": self._writer.name()})
        return bool(rows[0][0])

    def lent_results(self) -> Iterator[list[int]]:
        """Find the jobs whose latest run is completed, with its value in a file: those of some jobs after the other."""
        after = 0
        while after is not None:
            [(after, found)] = self._queries.run("lent_results", {"after": after, "n": PAGE_JOBS})
            if found:
                yield found
