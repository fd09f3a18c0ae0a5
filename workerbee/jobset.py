"""`JobSet`: the same script on every machine, each deciding for itself what to do next."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from workerbee import server
from workerbee.bee.channel import Caller, Channel, Position
from workerbee.bee.output import Dividers
from workerbee.bee.runner import Runner
from workerbee.blobs import LEAST_BYTES, Depot
from workerbee.client.adding import Adder, OwnFolder
from workerbee.client.capture import Capture
from workerbee.client.local_bee import LocalBee
from workerbee.client.spectators import until_dropped
from workerbee.errors import (
    BrokenWorkerbeeError,
    DatabaseUnavailableError,
    JobsetExistsError,
    JobsetNotFoundError,
)
from workerbee.handle import MoreVerbs, Place, Watched, spectating
from workerbee.logs import print_to_stdout
from workerbee.orders import BeeEvent, Dropped, Empty, ExitStatus, Log, Orders
from workerbee.wire.imports import Bound
from workerbee.wire.job import valid_id

JobFunction = Callable[[dict[str, Any]], Any]

#: Seconds that a run waits for the first job of a jobset.
EMPTY_SECONDS = 60.0


class JobSet(Bound, MoreVerbs):
    """A durable set of jobs, each a dict; every machine's script sets it up, adds to it and runs it.

    Without ``host`` (and PGHOST, PGHOSTADDR, PGSERVICE) the embedded server is used; then ``port``,
    ``user`` and ``password`` raise ValueError. ``logger_name`` names the logger; the default one prints to
    stdout, unless it has been given handlers. ``large_values`` is the URL of a place that all machines see, such as
    "file:///shared/values", or any that fsspec knows: inputs and results of ``large_values_from`` bytes or more are
    files there, signed by the user's key, which each machine then needs.

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
        *,
        large_values: str | None = None,
        large_values_from: int = LEAST_BYTES,
    ) -> None:
        self.jobset_id = valid_id(jobset_id)
        large = None if large_values is None else Depot.of(large_values, large_values_from)
        self._logger = logging.getLogger(logger_name)
        if logger_name == "workerbee":
            print_to_stdout(self._logger)
        self._server = server.resolve(
            logger=self._logger, host=host, port=port, user=user, password=password, dbname=dbname
        )
        self._lock = threading.RLock()
        self._is_closed = False
        try:
            key = None if large is None else self._server.key()
            self._adder = Adder(self.jobset_id, self._server.dsn, self._logger, large, key)
        except BaseException:
            self._server.close()
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
        self._adder.connection.close()
        self._server.close()

    def setup_jobset(self, ignore_existing_jobset: bool = False) -> bool:  # noqa: FBT001, FBT002 (the origin's signature)
        """Create the jobset; True for the one process that did, and is to add its first jobs.

        If that process is gone and nobody has added anything, it is True for one other process, which then takes its
        place. Raises JobsetExistsError if the jobset is there already, unless ``ignore_existing_jobset``: then False.
        """
        with self._lock:
            is_made = self._adder.make()
            is_taken = not is_made and self._adder.take_place()
        if not (is_made or is_taken or ignore_existing_jobset):
            raise JobsetExistsError(self.jobset_id)
        what = "created" if is_made else "found" if not is_taken else "took over, empty as its maker has left it,"
        self._logger.info("%s the jobset %s", what, self.jobset_id)
        return is_made or is_taken

    def add_job(self, input_data: dict[str, Any]) -> None:
        """Add one job. Raises as `add_jobs` does."""
        self.add_jobs([input_data])

    def add_jobs(self, input_datas: Iterable[dict[str, Any]]) -> None:
        """Add jobs, all or none.

        Each ``input_data`` is a dict that ``json.dumps(allow_nan=False)`` takes, and comes back as JSON
        gives it. No two in the jobset may be equal, nor have the same ``'id'``.

        Raises InputDataError, UniqueInputDataConstraintError, JobsetNotFoundError, LargeValuesError.
        """
        with self._lock:
            n_added = self._adder.add(input_datas)
        if n_added:
            self._logger.info("added %d job%s to %s", n_added, "s" * (n_added != 1), self.jobset_id)

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
        What is printed meanwhile in this process is shown as ever, and kept with the job that runs.

        Raises JobsetNotFoundError (also if nobody adds the first job within a minute), InputDataError (a
        result that JSON can't hold), LargeValuesError, DatabaseUnavailableError, BrokenWorkerbeeError (its bee was
        killed).
        """
        with self._lock:
            kept = self._adder.kept()
        orders = Orders(
            self._server.dsn,
            jobset_id=self.jobset_id,
            busywait=busywait,
            wait=EMPTY_SECONDS,
            grace=5.0,  # what a bee has left to store when its caller is gone is little
            only_functionless=True,
            max_n_retry_attempts=max_n_retry_attempts,
            max_busywait_sleep=Orders.max_busywait_sleep if max_busywait_sleep is None else max_busywait_sleep,
            max_failure_sleep=Orders.max_failure_sleep if max_failure_sleep is None else max_failure_sleep,
            log_level=self._logger.getEffectiveLevel(),
        )
        self._explain(*self._serve(orders, job_function, kept))

    def _serve(self, orders: Orders, job_function: JobFunction, kept: OwnFolder | None) -> tuple[list[BeeEvent], int]:
        """Be the only runner of a bee with these orders. Returns what the bee has reported, and its exit status."""
        ours, theirs = socket.socketpair()
        mark, capture = Position.create(), Capture()
        events: list[BeeEvent] = []

        def hear(event: BeeEvent) -> None:
            if isinstance(event, Log):
                self._logger.log(event.level, "%s", event.message)
            else:
                events.append(event)

        bee = LocalBee(caller=Caller(theirs, mark.fd, *capture.pipes), prints=capture.prints)
        bee.begin(orders)
        theirs.close()
        capture.begin()

        def listen() -> None:
            bee.events(hear)
            capture.show_rest()

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        channel = Channel(ours)
        dividers = Dividers(mark, capture.outputs, capture.settle)
        try:
            signer, large = (None, None) if kept is None else (kept.signer, kept.folder)
            runner = Runner(channel, mark, bee="here", own=job_function, dividers=dividers, signer=signer, large=large)
            runner.serve()
        finally:
            capture.end()
            channel.close()
            status = bee.wait(30)
            listener.join(5)
            capture.finish()
            mark.close()
        return events, status

    def _explain(self, events: list[BeeEvent], status: int) -> None:
        """Raise what made the bee end other than by the end of the work."""
        if any(isinstance(event, Dropped) for event in events):
            raise JobsetNotFoundError(self.jobset_id, dropped=True)
        if any(isinstance(event, Empty) for event in events):
            raise JobsetNotFoundError(self.jobset_id, empty_for=EMPTY_SECONDS)
        if status == ExitStatus.NO_DATABASE:
            raise DatabaseUnavailableError("PostgreSQL hasn't come back; what was finished before is stored")
        if status != ExitStatus.OK:
            raise BrokenWorkerbeeError(f"the bee ended with status {status}; its log says why")

    @contextmanager
    def _at(self) -> Iterator[Place]:
        with self._lock, until_dropped(self.jobset_id):
            yield Place(self._adder.connection, self._adder.find().jobset)

    def _watched(self) -> Watched:
        with self._at() as (connection, jobset):
            return Watched(jobset, partial(spectating, connection), lambda: self._is_closed)
