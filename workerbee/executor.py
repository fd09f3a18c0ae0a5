"""`WorkerbeeExecutor`: a `concurrent.futures.Executor` whose jobs are rows in PostgreSQL.

With no ``jobset_id`` it is a process pool that can't lose work while it lives; with one, the work
outlives the process, and running the same calls again only does what is missing.
"""

from __future__ import annotations

import atexit
import itertools
import json
import logging
import os
import threading
import time
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from concurrent.futures import wait as wait_for
from datetime import datetime
from types import TracebackType
from typing import Any
from uuid import uuid4

from workerbee import codec, functions, server
from workerbee.client import Client
from workerbee.errors import BrokenWorkerbeeError, JobsetNotFoundError, KeyMismatchError
from workerbee.futures import JobFuture
from workerbee.job import Jobset, Options
from workerbee.jobset import valid_id
from workerbee.local import LocalBee
from workerbee.signing import Key
from workerbee.store import Catalogue, ClientStore, Connection, Counts, passing, schema

_live: weakref.WeakSet[Client] = weakref.WeakSet()


class _Submits(Executor):
    """What an executor and its option views share: turning calls into jobs."""

    _options: Options
    _unique: bool
    _version: str | None

    @property
    def _executor(self) -> WorkerbeeExecutor:
        raise NotImplementedError

    @property
    def _max_workers(self) -> int:
        # Dask reads this at each compute, and takes it for the number of calls that may be under way.
        executor = self._executor
        try:
            return max(executor._n_workers, executor.live_workers())  # noqa: SLF001
        except Exception as error:
            if not passing(error):
                raise
            return executor._n_workers  # noqa: SLF001

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Schedule ``fn(*args, **kwargs)``; its future.

        Raises EncodingError if the call can't be stored, RuntimeError after shutdown, and
        BrokenWorkerbeeError when the executor can't go on.
        """
        return self._executor._submit(fn, args, kwargs, self)  # noqa: SLF001

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[Any]:
        """``map(fn, *iterables)`` by jobs; results in order, exceptions at their position.

        ``timeout`` counts in seconds from this call. With ``buffersize`` at most so many calls are
        ahead of the results taken, and inputs are drawn as they are needed. In a temporary jobset
        ``chunksize`` calls share a job; in a durable one every call is a job of its own.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and not isinstance(buffersize, int):
            raise TypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        end = None if timeout is None else time.monotonic() + timeout
        calls: Iterator[tuple[Any, ...]] = zip(*iterables, strict=False)
        temporary = self._executor._jobset.temporary  # noqa: SLF001
        if chunksize > 1 and temporary:
            chunks = iter(lambda: tuple(itertools.islice(calls, chunksize)), ())
            submit = _submitter(self, Chunk(fn), ((chunk,) for chunk in chunks))
            return itertools.chain.from_iterable(map(_open, _results(self, submit, end, buffersize)))
        return _results(self, _submitter(self, fn, calls), end, buffersize)

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
        """A view of this executor whose calls are run with these options; it is an Executor itself.

        Higher ``priority`` first. A job that runs longer than ``timeout`` seconds is killed and raises
        TimeoutError. ``run_at`` is a datetime with a time zone, or seconds since the epoch.
        ``unique=False`` makes every call a job of its own; ``version`` is part of what a call is.
        """
        if timeout is not None and timeout <= 0:
            raise ValueError("timeout must be > 0 seconds")
        if max_n_retry_attempts is not None and max_n_retry_attempts < 1:
            raise ValueError("max_n_retry_attempts must be >= 1")
        given = {
            "priority": priority,
            "timeout": timeout,
            "due": _epoch(run_at),
            "max_attempts": max_n_retry_attempts,
            "speculate": speculate,
        }
        options = Options(**(self._options._asdict() | {k: v for k, v in given.items() if v is not None}))
        return OptionsView(
            self._executor,
            options,
            self._unique if unique is None else unique,
            self._version if version is None else version,
        )

    def __reduce__(self) -> Any:
        raise TypeError("an executor can't be pickled; inside a job, make one with the same jobset_id")


class WorkerbeeExecutor(_Submits):
    """An Executor whose calls are jobs in PostgreSQL, run by bees.

    Without ``jobset_id`` the jobset is temporary: its own, and dropped at shutdown. With one it is
    durable: the same call again is the same job, whoever submits it and whenever.

    ``dsn``, ``host`` …, or PGHOST, PGHOSTADDR, PGSERVICE name the server; else the embedded one is
    used. ``max_workers`` local runner processes are started; None: one a core when the server is
    embedded or on this machine, else none, because the bees are elsewhere. ``initializer(*initargs)``
    runs once in every runner before its first job. ``max_n_retry_attempts`` is for jobs that raise
    JobFailedError. ``max_payload`` (bytes) limits arguments and results. After ``reconnect_timeout``
    seconds without the database, futures end with DatabaseUnavailableError; None: they wait for ever.

    Raises JobsetIdError, KeyMismatchError, DatabaseUnavailableError, UnsupportedDatabaseError,
    EmbeddedServerError.
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
    ) -> None:
        _check(max_workers, initializer, max_tasks_per_child)
        if jobset_id is not None:
            valid_id(jobset_id)
        self._options = Options(max_attempts=max_n_retry_attempts, speculate=jobset_id is not None)
        self._unique = jobset_id is not None
        self._version = None
        self._functions = functions.Cache(initializer, initargs)
        self._logger = logging.getLogger(logger_name)
        self._shut_down = False
        self._pid = os.getpid()
        self._warned: set[Any] = set()
        self._server = server.resolve(
            dsn, self._logger, host=host, port=port, user=user, password=password, dbname=dbname
        )
        try:
            key = Key.load_or_make()
            self._jobset = self._open_jobset(jobset_id, key)
        except BaseException:
            self._server.close()
            raise
        n_local = (os.cpu_count() or 1) if self._server.local else 0
        n_local = n_local if max_workers is None else max_workers
        self._n_workers = max(1, n_local)
        self._client = client = Client(
            self._server.dsn,
            self._jobset,
            key,
            writer=uuid4(),
            logger=self._logger,
            reconnect_timeout=reconnect_timeout,
            max_payload=max_payload,
        )
        if n_local:
            client.employ(self._local_bee(n_local, max_tasks_per_child, reconnect_timeout, max_payload))
        _live.add(client)
        self._finalizer = weakref.finalize(self, _abandon, client, self._server)
        self._finalizer.atexit = False

    @property
    def _executor(self) -> WorkerbeeExecutor:
        return self  # not an attribute: an executor that nobody holds is to be gone at once

    def _open_jobset(self, jobset_id: str | None, key: Key) -> Jobset:
        connection = Connection(self._server.dsn, application="workerbee client")
        try:
            schema.ensure(connection)
            catalogue = Catalogue(connection)
            if jobset_id is None:
                jobset = catalogue.create_jobset(None, key=key.fingerprint, speculate=False, client=uuid4())
            else:
                jobset = catalogue.find_jobset(jobset_id)
                jobset = jobset or catalogue.create_jobset(jobset_id, key=key.fingerprint, speculate=True)
                jobset = jobset or catalogue.find_jobset(jobset_id)
            if jobset is None:
                raise JobsetNotFoundError(str(jobset_id), dropped=True)
            theirs = catalogue.adopt_key(jobset.number, key.fingerprint)
            if theirs != key.fingerprint:
                raise KeyMismatchError(jobset.name, theirs, key.fingerprint)
            catalogue.sweep()
            return jobset
        finally:
            connection.close()

    def _local_bee(self, n: int, max_tasks: int | None, reconnect_timeout: float | None, max_payload: int) -> LocalBee:
        return LocalBee(
            {
                "dsn": self._server.dsn,
                "number": self._jobset.number,
                "workers": n,
                "busywait": True,
                "max_tasks_per_child": max_tasks,
                "max_payload": max_payload,
                "reconnect_timeout": reconnect_timeout,
                "log_level": max(logging.WARNING, self._logger.getEffectiveLevel()),
            }
        )

    def _submit(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], view: _Submits
    ) -> JobFuture:
        function = self._functions.describe(fn, view._version)  # noqa: SLF001
        call = codec.encode_call(args, kwargs)
        if len(call.data) > codec.WARN_BYTES:
            self._warn_large(fn, len(call.data))
        if view._unique and (call.identity is None or not function.memo):  # noqa: SLF001
            self._warn_unmemoised(fn, function.memo)
        if self._shut_down:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if os.getpid() != self._pid:
            raise BrokenWorkerbeeError("an executor doesn't survive a fork; make a new one in the child process")
        return self._client.submit(function, call, view._options, unique=view._unique)  # noqa: SLF001

    def _warn_large(self, fn: Callable[..., Any], size: int) -> None:
        site = (getattr(fn, "__qualname__", type(fn).__qualname__), "large")
        if site not in self._warned:
            self._warned.add(site)
            warnings.warn(codec.too_much("a call", fn, size), stacklevel=4)

    def _warn_unmemoised(self, fn: Callable[..., Any], function_is_plain: bool) -> None:  # noqa: FBT001
        site = (getattr(fn, "__qualname__", repr(fn)), "memo")
        if site not in self._warned:
            self._warned.add(site)
            what = "arguments that aren't exactly JSON" if function_is_plain else "state that isn't exactly JSON"
            self._logger.info(
                "calls of %s have %s: each one is a job of its own, also when it is submitted again",
                site[0],
                what,
            )

    def flush(self, timeout: float | None = None) -> None:
        """Return when everything submitted so far is stored and will survive this process."""
        self._client.flush(timeout)

    def cancel_running(self, futures: Iterable[Future[Any]] | None = None) -> int:
        """Cancel these (or all) jobs of this executor, also those that run: their runners are killed. How many."""
        return self._client.cancel_running(
            None if futures is None else [f for f in futures if isinstance(f, JobFuture)]
        )

    def progress(self) -> Counts:
        """What has happened in the jobset so far, whoever did it."""
        with _reading(self._server.dsn) as connection:
            return Catalogue(connection).counts(self._jobset.number)

    def live_workers(self) -> int:
        """How many runners could do this executor's jobs now, here and elsewhere."""
        with _reading(self._server.dsn) as connection:
            return Catalogue(connection).live_runners(self._jobset.number)

    def results(self, on_error: str = "skip") -> Iterator[dict[str, Any]]:
        """Stream what is stored, in submit order: one flat dict a job, input and output side by side.

        ``job_id`` and ``status`` come first; then the keys of ``input_data``; then the keys of a dict
        result, or ``result``. An output key that the input has too is prefixed with ``output_``.
        ``on_error="return"`` adds the failed and cancelled jobs, with the exception as ``error``.
        """
        if on_error not in ("skip", "return"):
            raise ValueError("on_error must be 'skip' or 'return'")
        return self._results(on_error == "return")

    def _results(self, with_failed: bool) -> Iterator[dict[str, Any]]:  # noqa: FBT001
        with _reading(self._server.dsn) as connection:
            store = ClientStore(connection, self._jobset, uuid4())
            after = 0
            while page := store.results(after, 500):
                for job, _, end, call, _ in page:
                    after = job
                    if end is not None and (end.status == "completed" or with_failed):
                        yield _flat(job, call, end, *self._client.decode(end))

    def retry(self) -> int:
        """Start a new run of every job that failed or was cancelled; how many."""
        with _reading(self._server.dsn) as connection:
            store = ClientStore(connection, self._jobset, uuid4())
            return sum(store.reopen(chunk, self._options) for chunk in _chunks(store.ended_badly(), 1000))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 (Executor's)
        """Take no more calls; with ``wait``, return when all futures are done and nothing is left running.

        Any thread may call it, any number of times.
        """
        self._shut_down = True
        if os.getpid() != self._pid:
            return
        self._client.close(cancel=cancel_futures)
        if wait:
            self._client.ended.wait()
            self._server.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        if kind is not None and issubclass(kind, KeyboardInterrupt) and not self._jobset.temporary:
            self._logger.warning(
                "interrupted; the jobs of %s go on where there are bees, and the same code attaches to them",
                self._jobset.name,
            )
            self._shut_down = True
            self._client.close(detach=True)
            return None
        self.shutdown(wait=True)
        return None

    def __repr__(self) -> str:
        return f"<WorkerbeeExecutor: {self._jobset.name} on {self._server!r}, {self._n_workers} workers>"


class OptionsView(_Submits):
    """An executor seen with other options; it shares everything else with the executor it came from."""

    def __init__(self, executor: WorkerbeeExecutor, options: Options, unique: bool, version: str | None) -> None:  # noqa: FBT001
        self._origin = executor
        self._options = options
        self._unique = unique
        self._version = version

    @property
    def _executor(self) -> WorkerbeeExecutor:
        return self._origin

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002
        """Shut down the executor itself."""
        self._executor.shutdown(wait, cancel_futures=cancel_futures)


class Chunk:
    """Some calls of one function as one job, whose result is the list of their outcomes."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn

    def __call__(self, calls: tuple[tuple[Any, ...], ...]) -> list[tuple[Any, bytes | None]]:
        outcomes: list[tuple[Any, bytes | None]] = []
        for args in calls:
            try:
                outcomes.append((self.fn(*args), None))
            except Exception as error:  # noqa: BLE001 (it belongs to this call alone)
                outcomes.append((None, codec.encode_error(error)))
        return outcomes


def _open(outcomes: list[tuple[Any, bytes | None]]) -> Iterator[Any]:
    for value, error in outcomes:
        if error is not None:
            raise codec.decode_error(error, trusted=True)
        yield value


def _submitter(executor: _Submits, fn: Callable[..., Any], calls: Iterable[tuple[Any, ...]]) -> Iterator[Future[Any]]:
    return (executor.submit(fn, *args) for args in calls)


def _results(
    executor: _Submits, submit: Iterator[Future[Any]], end: float | None, buffersize: int | None
) -> Iterator[Any]:
    """Submit at once what may be, and hand out results as they are asked for."""
    futures = deque(submit if buffersize is None else itertools.islice(submit, buffersize))
    owner = weakref.ref(executor._executor)  # noqa: SLF001

    def results() -> Iterator[Any]:
        try:
            while futures:
                wait_for([futures[0]], None if end is None else max(0.0, end - time.monotonic()))
                if buffersize is not None and owner() is not None:
                    futures.extend(itertools.islice(submit, 1))
                yield futures.popleft().result(0)
        finally:
            _give_up(owner(), futures)

    return results()


def _give_up(executor: WorkerbeeExecutor | None, futures: deque[Future[Any]]) -> None:
    """An iterator that is left early: its calls are cancelled if temporary, else only no longer waited for."""
    left = [f for f in futures if isinstance(f, JobFuture) and not f.done()]
    futures.clear()
    if executor is None or not left:
        return
    if executor._jobset.temporary:  # noqa: SLF001
        executor._client.cancel_all(left)  # noqa: SLF001


def _flat(job: int, call: Any, end: Any, value: Any, error: BaseException | None) -> dict[str, Any]:
    row: dict[str, Any] = {"job_id": job, "status": end.status}
    if call.codec != codec.PICKLE:
        row |= json.loads(call.data)
    if end.status != "completed":
        row["error"] = error
    elif isinstance(value, dict):
        row |= {f"output_{k}" if k in row else k: v for k, v in value.items()}
    else:
        row["result"] = value
    return row


def _check(max_workers: int | None, initializer: Any, max_tasks: int | None) -> None:
    if max_workers is not None and max_workers < 0:
        raise ValueError("max_workers must be greater than 0, or 0 for no local bees")
    if initializer is not None and not callable(initializer):
        raise TypeError("initializer must be a callable")
    if max_tasks is not None:
        if not isinstance(max_tasks, int):
            raise TypeError("max_tasks_per_child must be an integer")
        if max_tasks <= 0:
            raise ValueError("max_tasks_per_child must be >= 1")


def _epoch(when: datetime | float | None) -> float | None:
    if isinstance(when, datetime):
        if when.tzinfo is None:
            raise ValueError("run_at must have a time zone, such as datetime.now(timezone.utc)")
        return when.timestamp()
    return when


class _reading:  # noqa: N801 (used as a context manager function)
    """A connection of the caller's own thread, for the time of a reading."""

    def __init__(self, dsn: str) -> None:
        self._connection = Connection(dsn, application="workerbee reader")

    def __enter__(self) -> Connection:
        return self._connection

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def _chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _abandon(client: Client, found: server.Server) -> None:
    """The executor was collected without a shutdown: what was submitted is finished, then all ends."""
    client.close()
    threading.Thread(target=_let_go, args=(client, found), daemon=True).start()


def _let_go(client: Client, found: server.Server) -> None:
    client.ended.wait()
    found.close()


def _at_exit() -> None:
    """Interpreter exit: temporary jobsets are waited for, as a process pool's work is; durable ones are left."""
    for client in list(_live):
        if client.jobset.temporary:
            client.close()
        elif not client.ended.is_set():
            client.close(detach=True)
    for client in list(_live):
        client.ended.wait()


# Before the interpreter joins its threads and forbids new ones, as concurrent.futures itself does.
getattr(threading, "_register_atexit", atexit.register)(_at_exit)
