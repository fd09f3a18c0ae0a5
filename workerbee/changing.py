"""Changes of a jobset as a whole: over one connection and without a thread, whoever added its jobs."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple
from uuid import uuid4

from workerbee import keeping, resources
from workerbee.errors import LargeValuesError
from workerbee.store import Catalogue, ClientStore, Connection, Run, retrying, schema
from workerbee.store.reader import JobsetReader
from workerbee.store.seen import JobRow, Wanted
from workerbee.wire.job import Jobset, Options
from workerbee.wire.signing import Key, Signer

#: Jobs in one statement.
CHUNK_JOBS = 2000


class Changing:
    """Cancels and retries jobs of one jobset; futures hear of it where they are."""

    def __init__(self, connection: Connection, jobset: Jobset) -> None:
        self._store = ClientStore(connection, jobset, uuid4())
        self._reader = JobsetReader(connection, jobset)
        self._catalogue = Catalogue(connection)
        self._jobset = jobset

    def find_lost(self, jobs: Sequence[int] | None = None) -> None:
        """Record which large results are lost, so that they are retried: of these ``jobs``, or of all.

        Where they can't be seen from here, that is said, and none of them counts as lost.
        """
        signer = _signer(self._jobset)
        try:
            if signer is not None and jobs is None:
                keeping.find_all_lost(self._store, signer)
            elif signer is not None and jobs:
                keeping.find_lost(self._store, signer, jobs, whole=True)
        except LargeValuesError as error:
            logging.getLogger("workerbee").warning("which results are lost isn't known: %s", error)

    def count(self, wanted: Wanted) -> int:
        """Count the wanted jobs."""
        return sum(len(rows) for rows in self._reader.pages(wanted))

    def retry_wanted(self, wanted: Wanted) -> int:
        """Start a new run of those wanted jobs that failed or were cancelled. Returns how many."""
        return sum(self.retrying(wanted))

    def retrying(self, wanted: Wanted) -> Iterator[int]:
        """Retry page by page; yield how many jobs of each page."""
        return (self.retry_runs(_runs(rows)) for rows in self._reader.pages(wanted))

    def cancel_wanted(self, wanted: Wanted) -> int:
        """Cancel those wanted jobs that wait or run. Returns how many."""
        return sum(self.cancelling(wanted))

    def cancelling(self, wanted: Wanted) -> Iterator[int]:
        """Cancel page by page; yield how many jobs of each page."""
        return (self.cancel_runs(_runs(rows)) for rows in self._reader.pages(wanted))

    def pause(self, why: str | None = None) -> bool:
        """Have no jobs of the jobset claimed from now on; running ones go on. False if it was paused already."""
        return self._catalogue.pause(self._jobset, by=resources.user(), why=why)

    def resume(self) -> bool:
        """Have its jobs claimed again; False if it wasn't paused."""
        return self._catalogue.resume(self._jobset)

    def cancel(self, functions: Collection[int] | None = None, *, below: int = 2**31 - 1) -> int:
        """Cancel waiting and running jobs of these functions (None: of all). Returns how many.

        ``below``: only jobs with a lower priority. Bees kill the runners of running jobs within a second.
        """
        n = self.cancel_runs(self._store.open_runs(functions, below=below))
        if n:  # jobs that bees gave back meanwhile may have been in none of the pages
            n += self.cancel_runs(self._store.open_runs(functions, below=below))
        return n

    def cancel_runs(self, runs: list[Run]) -> int:
        """Cancel those of these runs that haven't ended. Returns how many."""
        return sum(len(self._store.cancel_running(chunk)) for chunk in _chunks(runs))

    def retry_runs(self, runs: list[Run]) -> int:
        """Start a new run after each of these that failed or was cancelled. Returns how many."""
        return sum(self._store.reopen(chunk, Options()) for chunk in _chunks(runs))

    def retry(
        self,
        functions: Collection[int] | None = None,
        options: Options = Options(),  # noqa: B008 (it can't be changed)
        stand_ins: Mapping[int, int] | None = None,
    ) -> Iterator[tuple[dict[Run, bytes | None], bool]]:
        """Start a new run of these functions' jobs (None: of all) that failed or were cancelled, with these options.

        Yields the new (job, run) in portions, each with the sign by which its job is known, and whether all runs of the
        portion were opened here and none by others.
        ``stand_ins`` says which functions run the jobs of others.
        """
        after = 0
        while runs := self._store.ended_badly(functions, after=after):
            opened = self._store.reopen(runs, options, stand_ins)
            signs = self._store.signatures(job for job, _ in runs)
            yield {(job, run + 1): signs[job].sign for job, run in runs if job in signs}, opened == len(runs)
            after = runs[-1][0]


class Drop(NamedTuple):
    """The result of a drop: whether the tables are gone, and why large values are left in files, in sentences."""

    is_gone: bool
    left: list[str]


def drop(connection: Connection, jobset: Jobset) -> Drop:
    """Delete a jobset with its jobs and results. If somebody is reading it, its tables are deleted later."""
    catalogue, store = Catalogue(connection), ClientStore(connection, jobset, uuid4())
    catalogue.mark_dropped(jobset)  # from here on nobody has any use for its large values
    left = keeping.remove(store, _signer(jobset))
    return Drop(catalogue.drop_jobset(jobset), left)


def _signer(jobset: Jobset) -> Signer | None:
    key = Key.load()
    return None if key is None else Signer(key, jobset.uuid)


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
