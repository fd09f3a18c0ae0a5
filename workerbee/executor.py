"""`WorkerbeeExecutor`: a `concurrent.futures.Executor` whose jobs are rows in PostgreSQL.

With no ``jobset_id`` it is a process pool that can't lose work while it lives; with one, the work
outlives the process, and running the same calls again only does what is missing.
"""

from __future__ import annotations

import itertools
import logging
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future
from contextlib import ExitStack, closing
from datetime import datetime
from html import escape
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from workerbee import resources, server
from workerbee.blobs import LEAST_BYTES, Depot
from workerbee.client import leaving
from workerbee.client.client import Client
from workerbee.client.futures import JobFuture
from workerbee.client.local_bee import LocalBee
from workerbee.client.opening import find_or_make
from workerbee.perform import Jobs
from workerbee.program import is_importing
from workerbee.reading import is_passing
from workerbee.whole import Whole
from workerbee.wire import codec, functions
from workerbee.wire.chunks import Chunk, unpacked, value_of
from workerbee.wire.imports import Bound
from workerbee.wire.job import Options, valid_id

P = ParamSpec("P")
T = TypeVar("T")

#: Calls that Dask keeps under way for each runner, so that no runner is idle during a round trip.
AHEAD = 32
#: Seconds that a notebook's display waits for each of its numbers.
GLANCE_SECONDS = 1.0


class _Submitter(Bound, Whole, Executor):
    """Turns calls into jobs, for an executor and its option views alike."""

    def __init__(
        self,
        client: Client,
        cache: functions.Cache,
        options: Options,
        *,
        unique: bool,
        version: str | None = None,
    ) -> None:
        self._client = client
        self._functions = cache
        self._options = options
        self._unique = unique
        self._version = version

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        if isinstance(error, KeyboardInterrupt):
            leaving.interrupted(self._client, error)
        else:
            self.shutdown(wait=True)
        return None

    @property
    def _max_workers(self) -> int:
        # Dask reads this at each compute, and keeps so many calls under way. There must be more than there are runners.
        try:
            live = self._client.live_runners()
        except Exception as error:
            if not is_passing(error):
                raise
            live = 0
        return AHEAD * max(1, self._client.n_local, live)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> JobFuture[T]:
        """Schedule ``fn(*args, **kwargs)``, and give its future.

        Raises EncodingError if the call can't be stored, RuntimeError after shutdown, and
        BrokenWorkerbeeError when the executor can't go on.
        """
        function = self._functions.describe(fn, self._version)
        lender = self._client.lender if self._unique else self._client.passing_lender
        return self._client.submit(
            function,
            codec.encode_call(args, kwargs, self._client.max_payload, lender, self._client.apart),
            self._options,
            unique=self._unique,
        )

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Make a job of each call that ``map(fn, *iterables)`` makes; results come in order, an error in its place.

        ``timeout`` counts in seconds from this call. With ``buffersize`` at most so many jobs are
        ahead of the results taken, and inputs are drawn as they are needed. In a temporary jobset
        ``chunksize`` calls share a job, hence its timeout, and if one raises JobFailedError, all are tried
        again; in a durable one every call is a job of its own.

        An iterator that is closed, dropped or ended by an exception cancels the calls that it has not
        given out, if the jobset is temporary; in a durable one they go on without it.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and not isinstance(buffersize, int):
            raise TypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        end = None if timeout is None else time.monotonic() + timeout
        calls: Iterator[tuple[Any, ...]] = zip(*iterables, strict=False)
        if chunksize == 1 or not self._client.jobset.is_temporary:
            return self._results(fn, calls, end, buffersize)
        chunks = iter(lambda: tuple(itertools.islice(calls, chunksize)), ())
        return _opened(self._results(Chunk(fn), ((chunk,) for chunk in chunks), end, buffersize))

    def _results(
        self, fn: Callable[..., Any], calls: Iterator[tuple[Any, ...]], end: float | None, buffersize: int | None
    ) -> Generator[Any, None, None]:
        """Submit at once what may be; the results, as they are asked for."""
        submitted = (self.submit(fn, *call) for call in calls)
        futures: deque[JobFuture] = deque()
        client = self._client
        try:
            futures.extend(itertools.islice(submitted, buffersize))
        except BaseException:
            client.give_up(futures)
            raise
        # The iterator keeps the executor alive only as long as there is more to submit.
        return _taken(client, futures, None if buffersize is None else submitted, end)

    def with_options(
        self,
        *,
        priority: int | None = None,
        timeout: float | None = None,
        run_at: datetime | float | None = None,
        max_n_retry_attempts: int | None = None,
        unique: bool | None = None,
        speculate: bool | None = None,
        version: str | None = None,
    ) -> OptionsView:
        """Give a view of this executor whose calls are run with these options; it is an Executor itself.

        Higher ``priority`` first. A job that runs longer than ``timeout`` seconds is killed and raises
        TimeoutError. ``run_at`` is a datetime with a time zone, or seconds since the epoch.
        ``unique=False`` makes every call a job of its own; ``version`` is part of what a call is.
        ``speculate=False`` spares a job of a durable jobset the second copy that a bee without work makes of
        whatever takes far longer than others.

        Raises TypeError and ValueError for what no option can be.
        """
        options = self._options.but(
            priority=priority,
            due=_epoch(run_at),
            timeout=timeout,
            max_n_retry_attempts=max_n_retry_attempts,
            speculate=speculate,
        )
        return OptionsView(
            self,
            self._client,
            self._functions,
            options,
            unique=self._unique if unique is None else unique,
            version=self._version if version is None else version,
        )

    def _stands_for(self) -> tuple[str, str]:
        advice = "inside a job, make another one" + " with the same jobset_id" * (not self._client.jobset.is_temporary)
        return f"an executor of {self._client.jobset.name}", advice

    def flush(self, timeout: float | None = None) -> None:
        """Wait until all submitted is stored, to outlive this process. Raises TimeoutError after ``timeout`` s."""
        self._client.flush(timeout)

    def cancel_running(self, futures: Iterable[Future[Any]] | None = None) -> int:
        """Cancel these jobs of this executor, or all: runners of those that run are killed. Returns how many."""
        return self._client.cancel_running(
            None if futures is None else [f for f in futures if isinstance(f, JobFuture)]
        )

    def live_workers(self) -> int:
        """Count the runners that could do this executor's jobs now, here and elsewhere."""
        with self._reading() as reading:
            return reading.n_runners()


class WorkerbeeExecutor(_Submitter):
    """An Executor whose calls are jobs in PostgreSQL, run by bees.

    As a process pool, whose work can also outlive the process::

        with WorkerbeeExecutor(jobset_id="annealing_2026") as executor:
            energies = list(executor.map(simulate, [{"temperature": t} for t in range(100)]))
            table = pandas.DataFrame(executor.results())

    Without ``jobset_id`` the jobset is temporary: its own, and dropped at shutdown. With one it is
    durable: the same call again is the same job, whoever submits it and whenever.

    ``dsn``, ``host`` …, or PGHOST, PGHOSTADDR, PGSERVICE name the server; else the embedded one is
    used. ``max_workers`` local runner processes are started; None: one a core when the server is
    embedded or on this machine, else none, because the bees are elsewhere. Inside a job, an executor of the
    job's own jobset has at least one, and its calls go before others (priority 1), so that jobs that wait for jobs
    don't wait for ever. ``initializer(*initargs)`` runs once in every runner before its first job.
    ``max_n_retry_attempts`` is for jobs that raise JobFailedError. ``max_payload`` (bytes) limits functions, arguments
    and results. ``large_values``, of a durable jobset, is the URL of a place that all its clients and bees see, such as
    "file:///shared/values", or any that fsspec knows: arguments and results of ``large_values_from`` bytes or more are
    files there. With ``prefix_output`` each line that a job prints begins with its number. After ``reconnect_timeout``
    seconds without the database, futures end with DatabaseUnavailableError; None: they wait for ever.

    Raises JobsetIdError, KeyFileError, KeyMismatchError, LargeValuesError, DatabaseUnavailableError,
    UnsupportedDatabaseError, EmbeddedServerError; ConnectionStringError and ValueError for options that can't be.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        jobset_id: str | None = None,
        dsn: str | None = None,
        host: str | None = None,
        port: str | int | None = None,
        user: str | None = None,
        password: str | None = None,
        dbname: str | None = None,
        initializer: Callable[..., Any] | None = None,
        initargs: tuple[Any, ...] = (),
        max_tasks_per_child: int | None = None,
        max_n_retry_attempts: int = 10,
        logger_name: str = "workerbee",
        reconnect_timeout: float | None = 3600.0,
        max_payload: int = codec.MAX_BYTES,
        prefix_output: bool = False,
        large_values: str | None = None,
        large_values_from: int = LEAST_BYTES,
    ) -> None:
        _check(max_workers, initializer, max_tasks_per_child)
        large = _checked_jobset(jobset_id, large_values, large_values_from)
        self._logger = log = logging.getLogger(logger_name)
        self._server = server.resolve(dsn, log, host=host, port=port, user=user, password=password, dbname=dbname)
        with ExitStack() as undo:
            undo.callback(self._server.close)
            if max_workers is None:
                max_workers = resources.cores() if self._server.is_local else 0
            bee = LocalBee() if max_workers else None  # gets ready while the jobset is looked for
            if bee is not None:
                undo.callback(bee.wait, 0)
            key = self._server.key()
            jobset, folder = find_or_make(
                jobset_id, self._server.dsn, key, patience=reconnect_timeout, log=log, large=large
            )
            client = Client(
                self._server,
                jobset,
                key,
                logger=log,
                reconnect_timeout=reconnect_timeout,
                max_payload=max_payload,
                large=folder,
            )
            undo.pop_all()
        nested = jobset.uuid == Jobs.of  # all runners may be busy with jobs that wait for jobs of this executor
        super().__init__(
            client,
            functions.Cache(initializer, initargs, max_payload=max_payload, apart=client.apart, large=large),
            Options(int(nested), speculate=not jobset.is_temporary).but(max_n_retry_attempts=max_n_retry_attempts),
            unique=not jobset.is_temporary,
        )
        leaving.see_off(client)
        self._finalizer = weakref.finalize(self, client.close)
        self._finalizer.atexit = False
        if bee is not None or nested:
            client.employ(bee or LocalBee(), max_workers or 1, max_tasks_per_child, prefix_output=prefix_output)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 (Executor's)
        """Take no more calls; with ``wait``, return when all futures are done and nothing is left running.

        Any thread may call it, any number of times; but a future's callback, which can't wait, gets a RuntimeError.
        """
        self._client.close(cancel=cancel_futures)
        if wait:
            self._client.wait()

    def _repr_html_(self) -> str:
        """Show in a notebook the jobset, its counts and its bees, if the database says so at once."""
        shown = {"jobset": self._client.jobset.name, "server": repr(self._server)} | self._glance()
        rows = (f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>" for name, value in shown.items())
        return f"<table><caption>WorkerbeeExecutor</caption>{''.join(rows)}</table>"

    def _glance(self) -> dict[str, Any]:
        if self._client.ended.is_set():
            return {"state": "shut down"}  # an embedded server must not be started again for a display
        try:
            with self._reading(GLANCE_SECONDS) as reading:
                return reading.glance()
        except Exception as error:  # noqa: BLE001 (a notebook shows what there is)
            return {"state": error}

    def __repr__(self) -> str:
        return (
            f"<WorkerbeeExecutor: {self._client.jobset.name} on {self._server!r}, {self._client.n_local} local workers>"
        )


class OptionsView(_Submitter):
    """An executor seen with other options; it shares everything else with the executor it came from."""

    def __init__(self, origin: _Submitter, *shared: Any, **options: Any) -> None:
        super().__init__(*shared, **options)
        self._origin = origin  # so that it isn't collected before its views

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 (Executor's)
        """Shut down the executor itself."""
        self._origin.shutdown(wait, cancel_futures=cancel_futures)


def _taken(
    client: Client, futures: deque[JobFuture], more: Iterator[JobFuture] | None, end: float | None
) -> Generator[Any, None, None]:
    """Yield the results of futures in order, and take one of ``more`` for each; abandon the others at the end."""
    try:
        while futures:
            if more is not None:
                futures.extend(itertools.islice(more, 1))
            yield _first(futures, end)
    except KeyboardInterrupt as interrupt:
        if not client.jobset.is_temporary:
            leaving.say_what_goes_on(client, interrupt)
        raise
    finally:
        client.give_up(futures)


def _first(futures: deque[JobFuture], end: float | None) -> Any:
    """Take out the first future and wait for its result, of which no reference is kept here."""
    value = futures[0].result(None if end is None else max(0.0, end - time.monotonic()))
    futures.popleft()
    return value


def _opened(chunks: Generator[Any, None, None]) -> Generator[Any, None, None]:
    """Yield the results inside the results of chunks."""
    with closing(chunks):
        for outcomes in chunks:
            left = unpacked(outcomes)[::-1]
            del outcomes
            while left:
                yield value_of(*left.pop())


def _check(max_workers: int | None, initializer: Any, max_tasks: int | None) -> None:
    if is_importing():
        raise RuntimeError(
            "this process is a worker that imports the script for its functions; make executors under "
            "if __name__ == '__main__':"
        )
    if max_workers is not None and max_workers < 0:
        raise ValueError("max_workers must be greater than 0, or 0 for no local bees")
    if initializer is not None and not callable(initializer):
        raise TypeError("initializer must be a callable")
    if max_tasks is not None:
        if not isinstance(max_tasks, int):
            raise TypeError("max_tasks_per_child must be an integer")
        if max_tasks <= 0:
            raise ValueError("max_tasks_per_child must be >= 1")


def _checked_jobset(jobset_id: str | None, large_values: str | None, least: int) -> Depot | None:
    """Check the id of a jobset, and give the place for its large values. Raises JobsetIdError, ValueError."""
    if jobset_id is not None:
        valid_id(jobset_id)
    if large_values is None:
        return None
    if jobset_id is None:
        raise ValueError("large_values is for durable jobsets: name one by jobset_id")
    return Depot.of(large_values, least)


def _epoch(when: datetime | float | None) -> float | None:
    if isinstance(when, datetime):
        if when.tzinfo is None:
            raise ValueError("run_at must have a time zone, such as datetime.now(timezone.utc)")
        return when.timestamp()
    return when
