"""A jobset as a whole, as an executor sees it: what it holds, and changes to it, whoever brought the jobs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from workerbee.changing import Changing
from workerbee.client.client import Client
from workerbee.client.futures import JobFuture
from workerbee.client.registry import SUPERSEDED
from workerbee.handle import WATCH_SECONDS, Place, Verbs, Watched, checked_columns
from workerbee.reading import Choice, Chosen, Connection, Counts, Progress, Reading
from workerbee.wire import functions
from workerbee.wire.job import Options


class Whole(Verbs):
    """The verbs of an executor, and of its views, that are about all jobs of its jobset; also after shutdown."""

    _client: Client
    _functions: functions.Cache
    _options: Options
    _version: str | None

    def progress(self) -> Progress:
        """Count the jobs that wait, run, are completed, failed or cancelled, each by its latest run."""
        with self._reading() as reading:
            return reading.progress()

    def events(self) -> Counts:
        """Count what has happened in the jobset so far: runs added, reopened and ended, attempts and losses."""
        with self._reading() as reading:
            return reading.events()

    def results(
        self,
        fn: Callable[..., Any] | str | None = None,
        *,
        version: str | None = None,
        all: bool = False,  # noqa: A002 (what a user means)
        on_error: str = "skip",
        columns: Collection[str] = (),
    ) -> Iterator[dict[str, Any]]:
        """Stream what is stored, in submit order: one flat dict a job, input and output side by side.

        Of one function, ``fn`` or its name, else the one that was submitted last, here or else by anybody. It is the
        function as it is now, or in the ``version`` of `with_options` (or as the column ``version`` names it), or with
        ``all`` in all versions; ``all`` without a function gives all jobs.

        ``job_id`` and ``status`` come first; then the ``columns`` that are asked for, of function, version, attempt,
        host, started, finished (datetimes) and duration (seconds); then the keys of ``input_data``; then the keys of
        a dict result, or ``result``. A key that is there already is prefixed with ``input_`` or ``output_``.
        ``on_error="return"`` adds the failed and cancelled jobs, with the exception as ``error``.
        A result that can't be had, because its row was changed or its class isn't here, is an ``error`` too.

        Raises ValueError for another ``on_error``, or a column that there isn't.
        """
        columns = checked_columns(on_error, columns)
        return self._stored(self._choice(fn, version, every=all), with_failed=on_error == "return", columns=columns)

    def _stored(self, choice: Choice, *, with_failed: bool, columns: tuple[str, ...]) -> Iterator[dict[str, Any]]:
        with self._reading() as reading:
            chosen = self._chosen(reading, choice)
            yield from reading.results(chosen, with_failed=with_failed, columns=columns)

    def retry(
        self,
        fn: Callable[..., Any] | str | None = None,
        *,
        version: str | None = None,
        all: bool = False,  # noqa: A002 (what a user means)
    ) -> list[JobFuture]:
        """Start a new run of each job that failed or was cancelled, with this executor's options; give their futures.

        The jobs are chosen as in `results`. With a function, what failed runs the code that it has now, and what is
        completed stays (see `adopt`); ``executor.with_options(timeout=60).retry()`` gives them a minute each.

        Raises RuntimeError after shutdown.
        """
        self._client.refuse_if_closing()
        if callable(fn) and version is None and self._functions.describe(fn, self._version).named:
            self._adopt(fn, only_new=True)
        with self._client.reading() as connection:
            Changing(connection, self._client.jobset).find_lost()
            chosen = self._chosen(self._reader(connection), self._choice(fn, version, every=all))
            stand_ins = self._client.registry(connection).current(chosen.functions or ())
            portions = Changing(connection, self._client.jobset).retry(chosen.numbers, self._options, stand_ins)
            return [f for runs, ours in portions for f in self._client.await_runs(runs, ours=ours)]

    def adopt(self, fn: Callable[..., Any]) -> bool:
        """Have ``fn`` count as the same function as before its last change: it was mended, and not made another.

        What is completed stays, and is the result of the same call of ``fn``; what waits, and what is submitted or
        retried from now on, runs the new code. This is kept in the jobset, for other processes too. False if no other
        version of ``fn`` is there. (Calls with a `version` need no adoption: the version says that they are the same.)

        Raises ValueError for lambdas, closures, partials and methods: others may have the same name.
        """
        return self._adopt(fn, only_new=False)

    def _adopt(self, fn: Callable[..., Any], *, only_new: bool) -> bool:
        function = self._functions.describe(fn, self._version)
        with self._client.reading() as connection:
            adopted = self._client.registry(connection).adopt(function, only_new=only_new)
        self._client.forget_functions()
        return adopted

    def cancel_superseded(self) -> int:
        """Cancel all that waits or runs of functions that have changed since. Returns how many jobs."""
        with self._client.reading() as connection:
            return Changing(connection, self._client.jobset).cancel(below=SUPERSEDED)

    def cancel(self, fn: Callable[..., Any] | str | None = None, *, version: str | None = None) -> int:
        """Cancel all that waits and runs, or only jobs of ``fn`` as `results` chooses them. Returns how many.

        Whoever brought them and wherever they run: their runners are killed within a second or so.
        """
        n = self._client.cancel_queued() if fn is None and version is None else 0
        with self._client.reading() as connection:
            changing = Changing(connection, self._client.jobset)
            if fn is None and version is None:
                n += changing.cancel()
            else:
                n += changing.cancel(self._chosen(self._reader(connection), self._choice(fn, version)).numbers)
        self._client.look()
        return n

    @contextmanager
    def _at(self) -> Iterator[Place]:
        with self._client.reading() as connection:
            yield Place(connection, self._client.jobset)

    def _watched(self) -> Watched:
        client = self._client  # and not the executor, which may be collected while it is watched
        return Watched(client.jobset, partial(client.reading, WATCH_SECONDS), client.ended.is_set)

    def _reader(self, connection: Connection) -> Reading:
        return Reading(connection, self._client.jobset, self._client.signer)

    @contextmanager
    def _reading(self, patience: float | None = None) -> Iterator[Reading]:
        with self._client.reading(patience) as connection:
            yield self._reader(connection)

    def _choice(self, fn: Callable[..., Any] | str | None, version: str | None, *, every: bool = False) -> Choice:
        version = version if version is not None else self._version
        if isinstance(fn, str):
            return Choice(fn, None, version, every)
        if fn is None:
            latest = None if every else self._client.latest
            return Choice(latest and latest.name, latest and latest.identity, version, every)
        function = self._functions.describe(fn)
        return Choice(function.name, function.identity, version, every)

    def _chosen(self, reading: Reading, choice: Choice) -> Chosen:
        chosen = reading.choose(choice)
        if chosen.n_others:
            self._client.log.log(
                logging.INFO if chosen.functions else logging.WARNING,
                "%s of %s as it is now; %d other functions or versions are left out (all=True takes them)",
                "jobs" if chosen.functions else "there is no job",
                chosen.name,
                chosen.n_others,
            )
        return chosen
