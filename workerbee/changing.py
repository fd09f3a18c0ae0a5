"""Changing a jobset as a whole: over one connection and without a thread, whoever brought its jobs."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from uuid import uuid4

from workerbee import resources
from workerbee.store import Catalogue, ClientStore, Connection, JobRow, JobsetReader, Run, Wanted, retrying, schema
from workerbee.wire.job import Jobset, Options

#: Jobs in one statement.
CHUNK_JOBS = 2000


class Changing:
    """Cancels and retries jobs of one jobset; futures hear of it where they are."""

    def __init__(self, connection: Connection, jobset: Jobset) -> None:
        self._store = ClientStore(connection, jobset, uuid4())
        self._reader = JobsetReader(connection, jobset)
        self._catalogue = Catalogue(connection)
        self._jobset = jobset

    def count(self, wanted: Wanted) -> int:
        """Count the jobs that are meant."""
        return sum(len(rows) for rows in self._reader.pages(wanted))

    def retry_wanted(self, wanted: Wanted) -> int:
        """Start a new run of those jobs that are meant and have failed or were cancelled; how many."""
        return sum(self.retrying(wanted))

    def retrying(self, wanted: Wanted) -> Iterator[int]:
        """The same page by page: how many of each."""
        return (self.retry_runs(_runs(rows)) for rows in self._reader.pages(wanted))

    def cancel_wanted(self, wanted: Wanted) -> int:
        """Cancel those jobs that are meant and wait or run; how many."""
        return sum(self.cancelling(wanted))

    def cancelling(self, wanted: Wanted) -> Iterator[int]:
        """The same page by page: how many of each."""
        return (self.cancel_runs(_runs(rows)) for rows in self._reader.pages(wanted))

    def pause(self, why: str | None = None) -> bool:
        """Have nothing of the jobset claimed from now on; what runs goes on. False if it was paused already."""
        return self._catalogue.pause(self._jobset, by=resources.user(), why=why)

    def resume(self) -> bool:
        """Have its jobs claimed again; False if it wasn't paused."""
        return self._catalogue.resume(self._jobset)

    def cancel(self, functions: Collection[int] | None = None, *, below: int = 2**31 - 1) -> int:
        """Cancel what waits and what runs of these functions' jobs (None: of all); how many.

        With ``below`` only what has a lower priority. Runners of what runs are killed by their bees within a second.
        """
        n = self.cancel_runs(self._store.open_runs(functions, below=below))
        if n:  # what bees gave back while that was read may have been in none of its pages
            n += self.cancel_runs(self._store.open_runs(functions, below=below))
        return n

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
        after = 0
        while runs := self._store.ended_badly(functions, after=after):
            opened = self._store.reopen(runs, options, stand_ins)
            yield [(job, run + 1) for job, run in runs], opened == len(runs)
            after = runs[-1][0]


def drop(connection: Connection, jobset: Jobset) -> bool:
    """Delete a jobset with its jobs and results; False if somebody is reading it: it is swept when they have done."""
    return Catalogue(connection).drop_jobset(jobset)


def rename(connection: Connection, jobset: Jobset, jobset_id: str) -> bool:
    """Give a jobset another id; False if another jobset has it."""
    return Catalogue(connection).rename_jobset(jobset, jobset_id)


def upgrade_schema(connection: Connection, patience: float) -> None:
    """Bring the schema and all jobsets' tables to this program's version, and wait so many seconds for others.

    Raises UnsupportedDatabaseError, and DatabaseUnavailableError where others use the tables for longer.
    """
    log = logging.getLogger("workerbee")
    retrying(lambda: schema.ensure(connection), patience=patience, log=log, opening=True)


def _runs(rows: Iterable[JobRow]) -> list[Run]:
    return [(row.id, row.run) for row in rows]


def _chunks(runs: list[Run]) -> Iterator[list[Run]]:
    for start in range(0, len(runs), CHUNK_JOBS):
        yield runs[start : start + CHUNK_JOBS]
