"""Changing a jobset as a whole: over one connection and without a thread, whoever brought its jobs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from uuid import uuid4

from workerbee.store import Catalogue, ClientStore, Connection
from workerbee.wire.job import Jobset, Options

#: Jobs in one statement.
CHUNK = 2000

Run = tuple[int, int]


class Changing:
    """Cancels and retries jobs of one jobset; futures hear of it where they are."""

    def __init__(self, connection: Connection, jobset: Jobset) -> None:
        self._store = ClientStore(connection, jobset, uuid4())

    def cancel(self, functions: Collection[int] | None = None, *, below: int = 2**31 - 1) -> int:
        """Cancel what waits and what runs of these functions' jobs (None: of all); how many.

        With ``below`` only what has a lower priority. Runners of what runs are killed by their bees within a second.
        """
        return self.cancel_runs(self._store.open_runs(functions, below=below))

    def cancel_runs(self, runs: list[Run]) -> int:
        """Cancel these runs, waiting or running, as far as they haven't ended; how many."""
        return sum(len(self._store.cancel_running(chunk)) for chunk in _chunks(runs))

    def retry_runs(self, runs: list[Run]) -> int:
        """Start a new run after each of these that failed or was cancelled; how many."""
        return sum(self._store.reopen(chunk, Options()) for chunk in _chunks(runs))

    def retry(
        self,
        functions: Collection[int] | None = None,
        options: Options = Options(),  # noqa: B008 (it can't be changed)
        stand_ins: Mapping[int, int] | None = None,
    ) -> Iterator[tuple[list[Run], bool]]:
        """Start a new run of what failed or was cancelled of these functions' jobs (None: of all), with these options.

        Gives the new (job, run) in portions, and whether all of a portion were opened here rather than by others.
        ``stand_ins`` says which functions run jobs of others.
        """
        for chunk in _chunks(self._store.ended_badly(functions)):
            opened = self._store.reopen(chunk, options, stand_ins)
            yield [(job, run + 1) for job, run in chunk], opened == len(chunk)


def drop(connection: Connection, jobset: Jobset) -> bool:
    """Delete a jobset with its jobs and results; False if somebody is reading it: it is swept when they have done."""
    return Catalogue(connection).drop_jobset(jobset)


def _chunks(runs: list[Run]) -> Iterator[list[Run]]:
    for start in range(0, len(runs), CHUNK):
        yield runs[start : start + CHUNK]
