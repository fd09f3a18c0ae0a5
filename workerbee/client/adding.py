"""A `JobSet` in the database: it is made, found again, and given jobs that consist of an input alone."""

from __future__ import annotations

import logging
import os
import platform
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from uuid import UUID, uuid4

from workerbee.blobs import BLOB, Depot, Folder
from workerbee.client.opening import adopt
from workerbee.errors import JobsetNotFoundError, UniqueInputDataConstraintError
from workerbee.keeping import open_folder
from workerbee.store import Catalogue, ClientStore, Connection, Maker, retrying, schema
from workerbee.wire import codec, inputs
from workerbee.wire.job import NO_FUNCTION, NewJob, Options
from workerbee.wire.signing import Key, Signer

#: Seconds for which an outage is waited out.
PATIENCE_SECONDS = 3600.0

T = TypeVar("T")


class OwnFolder(NamedTuple):
    """The folder with the large values of a jobset, and what signs for them."""

    jobset: UUID
    signer: Signer
    folder: Folder


class Adder:
    """Makes the jobset of an id and adds jobs to it, over one connection and for one thread at a time.

    Its methods wait out an outage. Raises DatabaseUnavailableError, UnsupportedDatabaseError.
    """

    def __init__(
        self, jobset_id: str, dsn: str, log: logging.Logger, large: Depot | None = None, key: Key | None = None
    ) -> None:
        """``large``: the place for large inputs and results, whose rows ``key`` then signs."""
        self.jobset_id = jobset_id
        self._large = large
        self._key = key
        self._kept: OwnFolder | None = None
        self.connection = Connection(dsn, application="workerbee jobset")
        self._catalogue = Catalogue(self.connection)
        self._store: ClientStore | None = None
        self._log = log
        try:
            self._patiently(lambda: schema.ensure(self.connection), opening=True)
        except BaseException:
            self.connection.close()
            raise

    def make(self) -> bool:
        """Make the jobset; False if it exists already."""
        uuid = uuid4()  # the same for every try: if a COMMIT's answer is lost, the next try recognises our jobset
        make = partial(self._catalogue.create_jobset, self.jobset_id, key=None, speculate=True)
        return self._patiently(lambda: make(uuid=uuid, maker=_maker())) is not None

    def take_place(self) -> bool:
        """Take the place of the jobset's maker, if that process is gone and nobody has added a job."""
        return self._patiently(lambda: self._catalogue.become_maker(self.jobset_id, _maker(), _age()))

    def find(self) -> ClientStore:
        """Find the jobset that has this id now. Raises JobsetNotFoundError."""
        return self._patiently(self._find)

    def kept(self) -> OwnFolder | None:
        """Find where the large values of the jobset are, and what signs for them; None: in the database.

        Raises JobsetNotFoundError, KeyMismatchError, LargeValuesError.
        """
        return self._patiently(self._keep)

    def _keep(self) -> OwnFolder | None:
        store = self._find()
        if self._large is None or self._key is None:
            return None
        if self._kept is None or self._kept.jobset != store.jobset.uuid:
            adopt(self._catalogue, store.jobset, self._key, self._log)
            signer = Signer(self._key, store.jobset.uuid)
            self._kept = OwnFolder(store.jobset.uuid, signer, open_folder(store, signer, self._large))
        return self._kept

    def add(self, given: Iterable[dict[str, Any]]) -> int:
        """Add all of these jobs or none. Returns how many they are.

        Raises InputDataError, UniqueInputDataConstraintError, JobsetNotFoundError, LargeValuesError.
        """
        given = list(given)
        texts = [inputs.check_input(data) for data in given]
        digests = [codec.digest(b"input", codec.canonical_text(text)) for text in texts]
        keys = [None if (i := inputs.id_identity(text)) is None else codec.digest(b"id", i) for text in texts]
        self._refuse_repetition(given, digests, by_id=False)
        self._refuse_repetition(given, keys, by_id=True)
        kept = self.kept()
        lender = None if kept is None else kept.folder.lender()
        values = [codec.lent(codec.JSON, text.encode(), lender) for text in texts]
        is_added = not given
        while not is_added:
            # Reserved once, so that a second try recognises the jobs of the first by their ids.
            first = self._patiently(lambda: self._reserve(len(given)))
            jobs = [
                NewJob(id_, NO_FUNCTION, Options(), *value, _sign(kept, id_, value), digest, key)
                for id_, value, digest, key in zip(
                    range(first, first + len(values)), values, digests, keys, strict=True
                )
            ]
            is_added = self._patiently(partial(self._add, given, jobs, count()))
        return len(given)

    def _refuse_repetition(self, given: list[dict[str, Any]], marks: list[Any], *, by_id: bool) -> None:
        seen = set()
        for data, mark in zip(given, marks, strict=True):
            if mark is not None and mark in seen:
                raise UniqueInputDataConstraintError(self.jobset_id, data, by_id=by_id)
            seen.add(mark)

    def _reserve(self, n: int) -> int:
        first = self._catalogue.reserve_jobs(self._find().jobset, n)
        if first is None:
            raise JobsetNotFoundError(self.jobset_id, dropped=True)
        return first

    def _add(self, given: list[dict[str, Any]], jobs: list[NewJob], tries: Iterator[int]) -> bool:
        """Store the jobs; False if other jobs have these ids."""
        store = self._find()
        is_first = next(tries) == 0
        if store.add(jobs, whole=True):
            return True
        taken, taken_keys = store.taken_inputs(
            [job.digest for job in jobs if job.digest], [job.key for job in jobs if job.key]
        )
        if not is_first and all(job.id == taken.get(job.digest or b"") for job in jobs):
            return True  # the COMMIT of an earlier try, whose answer was lost, had added them
        for data, job in zip(given, jobs, strict=True):
            if job.digest in taken or job.key in taken_keys:
                raise UniqueInputDataConstraintError(self.jobset_id, data, by_id=job.digest not in taken)
        self._log.warning(
            "ids of %s were given out twice (has the database lost its last commits?): taking new ones", self.jobset_id
        )
        store.skip_ids()
        return False

    def _find(self) -> ClientStore:
        found = self._catalogue.find_jobset(self.jobset_id)
        if found is None:
            raise JobsetNotFoundError(self.jobset_id, self._catalogue.jobset_ids())
        if self._store is None or self._store.jobset.uuid != found.uuid:
            self._store = ClientStore(self.connection, found, uuid4())
        return self._store

    def _patiently(self, action: Callable[[], T], *, opening: bool = False) -> T:
        return retrying(action, patience=PATIENCE_SECONDS, log=self._log, opening=opening)


def _sign(kept: OwnFolder | None, job: int, value: codec.Encoded) -> bytes | None:
    """Sign for a file; an input that is there itself is nobody's secret."""
    return kept.signer.sign_call(job, value.codec, b"", value.data) if kept and value.codec == BLOB else None


def _maker() -> Maker:
    return Maker(socket.gethostname(), os.getpid(), platform.python_version())


def _age() -> float:
    """Give the seconds since this process was started."""
    fields = Path("/proc/self/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
