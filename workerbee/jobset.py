"""`JobSet`: the same script on every machine, each deciding for itself what to do next."""

from __future__ import annotations

import logging
import os
import platform
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from workerbee import server
from workerbee.bee.channel import Channel, Mark
from workerbee.bee.runner import Runner
from workerbee.client.local_bee import LocalBee
from workerbee.client.spectators import until_dropped
from workerbee.errors import (
    BrokenWorkerbeeError,
    DatabaseUnavailableError,
    JobsetExistsError,
    JobsetNotFoundError,
    UniqueInputDataConstraintError,
)
from workerbee.handle import MoreVerbs, Place, Watched, spectating
from workerbee.logs import print_to_stdout
from workerbee.orders import Dropped, Empty, Event, Log, Orders, Status
from workerbee.store import Catalogue, ClientStore, Connection, Maker, retrying, schema
from workerbee.wire import codec, inputs
from workerbee.wire.imports import Bound
from workerbee.wire.job import NO_FUNCTION, NewJob, Options, valid_id

JobFunction = Callable[[dict[str, Any]], Any]

T = TypeVar("T")

#: Seconds that a run waits for the first job of a jobset.
EMPTY = 60.0


class JobSet(Bound, MoreVerbs):
    """A durable set of jobs, each a dict; every machine's script sets it up, adds to it and runs it.

    Without ``host`` (and PGHOST, PGHOSTADDR, PGSERVICE) the embedded server is used; then ``port``,
    ``user`` and ``password`` raise ValueError. ``logger_name`` names the logger; the default one prints to
    stdout, unless it has been given handlers.

    Raises JobsetIdError, ValueError, DatabaseUnavailableError, UnsupportedDatabaseError, EmbeddedServerError.
    """

    def __init__(
        self,
        jobset_id: str,
        host: str | None = None,
        port: str | int | None = None,
        user: str | None = None,
        password: str | None = None,
        dbname: str | None = None,
        logger_name: str = "workerbee",
    ) -> None:
        self.jobset_id = valid_id(jobset_id)
        self._logger = logging.getLogger(logger_name)
        if logger_name == "workerbee":
            print_to_stdout(self._logger)
        self._server = server.resolve(
            logger=self._logger, host=host, port=port, user=user, password=password, dbname=dbname
        )
        self._connection = Connection(self._server.dsn, application="workerbee jobset")
        self._catalogue = Catalogue(self._connection)
        self._store: ClientStore | None = None
        self._lock = threading.RLock()
        self._is_closed = False
        try:
            self._patiently(lambda: schema.ensure(self._connection), opening=True)
        except BaseException:
            self.close()
            raise

    def _stands_for(self) -> tuple[str, str]:
        return f"JobSet({self.jobset_id!r})", "inside a job, make one with the same id"

    def __repr__(self) -> str:
        return f"JobSet({self.jobset_id!r}) on {self._server!r}"

    def close(self) -> None:
        """Let go of the server. Not needed: the end of the process does the same."""
        if self._watch is not None:
            self._watch.stop()
        self._is_closed = True
        self._connection.close()
        self._server.close()

    def setup_jobset(self, ignore_existing_jobset: bool = False) -> bool:  # noqa: FBT001, FBT002 (the origin's signature)
        """Create the jobset; True for the one process that did, and is to add its first jobs.

        If that process is gone and nobody has added anything, it is True for one other process, which then takes its
        place. Raises JobsetExistsError if the jobset is there already, unless ``ignore_existing_jobset``: then False.
        """
        maker = Maker(socket.gethostname(), os.getpid(), platform.python_version())
        uuid = uuid4()  # the same for every try, so that a COMMIT whose answer was lost counts as ours
        with self._lock:
            created = self._patiently(
                lambda: self._catalogue.create_jobset(self.jobset_id, key=None, speculate=True, uuid=uuid, maker=maker)
            )
            taken = created is None and self._patiently(
                lambda: self._catalogue.become_maker(self.jobset_id, maker, _age())
            )
        if created is None and not taken and not ignore_existing_jobset:
            raise JobsetExistsError(self.jobset_id)
        what = "created" if created else "found" if not taken else "took over, empty as its maker has left it,"
        self._logger.info("%s the jobset %s", what, self.jobset_id)
        return created is not None or taken

    def add_job(self, input_data: dict[str, Any]) -> None:
        """Add one job. Raises as `add_jobs` does."""
        self.add_jobs([input_data])

    def add_jobs(self, input_datas: Iterable[dict[str, Any]]) -> None:
        """Add jobs, all or none.

        Each ``input_data`` is a dict that ``json.dumps(allow_nan=False)`` takes, and comes back as JSON
        gives it. No two in the jobset may be equal, nor have the same ``'id'``.

        Raises InputDataError, UniqueInputDataConstraintError, JobsetNotFoundError.
        """
        given = list(input_datas)
        if not given:
            return
        texts = [inputs.check_input(data) for data in given]
        digests = [codec.digest(b"input", codec.canonical_text(text)) for text in texts]
        keys = [None if (i := inputs.id_identity(text)) is None else codec.digest(b"id", i) for text in texts]
        self._refuse_repetition(given, digests, by_id=False)
        self._refuse_repetition(given, keys, by_id=True)
        with self._lock:
            added = False
            while not added:
                # Reserved once, so that jobs which an earlier try has stored are known by their ids.
                first = self._patiently(lambda: self._reserve(len(given)))
                jobs = [
                    NewJob(first + n, NO_FUNCTION, Options(), codec.JSON, text.encode(), None, digest, key)
                    for n, (text, digest, key) in enumerate(zip(texts, digests, keys, strict=True))
                ]
                added = self._patiently(partial(self._add, given, jobs, count()))
        self._logger.info("added %d job%s to %s", len(given), "s" * (len(given) != 1), self.jobset_id)

    def _reserve(self, n: int) -> int:
        first = self._catalogue.reserve_jobs(self._bound().jobset, n)
        if first is None:
            raise JobsetNotFoundError(self.jobset_id, dropped=True)
        return first

    def _add(self, given: list[dict[str, Any]], jobs: list[NewJob], tries: Iterator[int]) -> bool:
        """Whether they are stored now; False if their ids are somebody else's jobs."""
        store = self._bound()
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
        self._logger.warning(
            "ids of %s were given out twice (has the database lost its last commits?): taking new ones", self.jobset_id
        )
        store.skip_ids()
        return False

    def _refuse_repetition(self, given: list[dict[str, Any]], marks: list[Any], *, by_id: bool) -> None:
        seen = set()
        for data, mark in zip(given, marks, strict=True):
            if mark is not None and mark in seen:
                raise UniqueInputDataConstraintError(self.jobset_id, data, by_id=by_id)
            seen.add(mark)

    def run(
        self,
        job_function: JobFunction,
        busywait: bool = False,  # noqa: FBT001, FBT002 (the origin's signature)
        max_busywait_sleep: float | None = None,
        max_failure_sleep: float | None = None,
        max_n_retry_attempts: int = 10,
    ) -> None:
        """Run jobs of this jobset in this process until all are done, by whomever.

        ``job_function(input_data)`` may return what JSON can hold; it is stored. JobFailedError has the
        job tried again, at most ``max_n_retry_attempts`` times in all, with pauses that double up to
        ``max_failure_sleep`` seconds. Any other exception is recorded as a failed attempt and then
        raised here. KeyboardInterrupt and SystemExit give the job back. With ``busywait`` the end of
        the jobs is not the end: it looks for more, at least every ``max_busywait_sleep`` seconds.

        Raises JobsetNotFoundError (also if nobody adds the first job within a minute), InputDataError (a
        result that JSON can't hold), DatabaseUnavailableError, BrokenWorkerbeeError (its bee was killed).
        """
        with self._lock:
            self._patiently(self._bound)
        ours, theirs = socket.socketpair()
        mark = Mark.create()
        orders = Orders(
            self._server.dsn,
            jobset_id=self.jobset_id,
            busywait=busywait,
            wait=EMPTY,
            grace=5.0,  # what a bee has left to store when its caller is gone is little
            only_functionless=True,
            max_n_retry_attempts=max_n_retry_attempts,
            max_busywait_sleep=Orders.max_busywait_sleep if max_busywait_sleep is None else max_busywait_sleep,
            max_failure_sleep=Orders.max_failure_sleep if max_failure_sleep is None else max_failure_sleep,
            log_level=self._logger.getEffectiveLevel(),
        )
        events: list[Event] = []

        def hear(event: Event) -> None:
            if isinstance(event, Log):
                self._logger.log(event.level, "%s", event.message)
            else:
                events.append(event)

        bee = LocalBee(orders, caller=(theirs, mark.fd))
        theirs.close()
        listener = threading.Thread(target=bee.events, args=(hear,), daemon=True)
        listener.start()
        channel = Channel(ours)
        try:
            Runner(channel, mark, bee="here", own=job_function).serve()
        finally:
            channel.close()
            status = bee.wait(30)
            listener.join(5)
            mark.close()
        self._explain(events, status)

    def _explain(self, events: list[Event], status: int) -> None:
        """Raise what made the bee end other than by the end of the work."""
        if any(isinstance(event, Dropped) for event in events):
            raise JobsetNotFoundError(self.jobset_id, dropped=True)
        if any(isinstance(event, Empty) for event in events):
            raise JobsetNotFoundError(self.jobset_id, empty_for=EMPTY)
        if status == Status.NO_DATABASE:
            raise DatabaseUnavailableError("PostgreSQL hasn't come back; what was finished before is stored")
        if status != Status.OK:
            raise BrokenWorkerbeeError(f"the bee ended with status {status}; its log says why")

    @contextmanager
    def _at(self) -> Iterator[Place]:
        with self._lock, until_dropped(self.jobset_id):
            yield Place(self._connection, self._patiently(self._bound).jobset)

    def _watched(self) -> Watched:
        with self._at() as (connection, jobset):
            return Watched(jobset, partial(spectating, connection), lambda: self._is_closed)

    def _bound(self) -> ClientStore:
        """The jobset as it is now in the database. Raises JobsetNotFoundError."""
        found = self._catalogue.find_jobset(self.jobset_id)
        if found is None:
            raise JobsetNotFoundError(self.jobset_id, self._catalogue.jobset_ids())
        if self._store is None or self._store.jobset.uuid != found.uuid:
            self._store = ClientStore(self._connection, found, uuid4())
        return self._store

    def _patiently(self, action: Callable[[], T], *, opening: bool = False) -> T:
        return retrying(action, patience=3600.0, log=self._logger, opening=opening)


def _age() -> float:
    """Seconds since this process was started."""
    fields = Path("/proc/self/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
