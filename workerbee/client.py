"""One jobset as one process uses it for futures: two threads, and what happens when one of them can't go on.

::

    submit ─▶ flusher ─(add)─▶ database ─(hint, or poll)─▶ watcher ─▶ futures
                 └──────────── ledger: who waits for what ────────────┘

If one of the threads breaks, every future gets the reason.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from uuid import UUID

from workerbee import codec, functions
from workerbee.errors import (
    BrokenWorkerbeeError,
    DatabaseUnavailableError,
    InitializerFailedError,
    JobsetNotFoundError,
    PayloadTooLargeError,
)
from workerbee.flusher import Flusher, Pending
from workerbee.futures import JobFuture
from workerbee.job import Jobset, Options, Stored
from workerbee.ledger import Ledger
from workerbee.local import LocalBee
from workerbee.signing import Key, Signer
from workerbee.store import Catalogue, ClientStore, Connection, gone, passing, retrying
from workerbee.watcher import Watcher

#: Seconds that cancelling one future, and many, waits for the database.
CANCEL_PATIENCE, CANCEL_ALL_PATIENCE = 1.0, 10.0
CHUNK = 2000


class Client:
    """Stores calls, resolves their futures, and cancels them; any thread may use it."""

    def __init__(
        self,
        dsn: str,
        jobset: Jobset,
        key: Key,
        *,
        writer: UUID,
        logger: logging.Logger,
        reconnect_timeout: float | None,
        max_payload: int,
    ) -> None:
        self.jobset = jobset
        self.ended = threading.Event()
        self._log = logger
        self._patience = reconnect_timeout
        self._max_payload = max_payload
        self._writer = writer
        self._broken: BaseException | None = None
        self._halted = threading.Event()
        self._closing = False
        self._bee: LocalBee | None = None
        self._bee_draining = False
        self._cancel = self.cancel  # one object for all futures
        self._control = threading.Lock()
        self._control_connection = Connection(dsn, application="workerbee control")
        signer = Signer(key, jobset.uuid)
        self._ledger = Ledger()
        self._watcher = Watcher(
            Connection(dsn, application="workerbee watcher"), jobset, signer, writer, ledger=self._ledger, log=logger
        )
        self._flusher = Flusher(
            Connection(dsn, application="workerbee flusher"),
            jobset,
            signer,
            writer,
            ledger=self._ledger,
            watcher=self._watcher,
            log=logger,
        )
        bodies = (self._flush_calls, self._watch)
        self._alive = len(bodies)
        self._ending = threading.Lock()
        for body in bodies:
            name = f"workerbee {body.__name__.strip('_')}"
            threading.Thread(target=self._guarded, args=(body,), name=name, daemon=True).start()

    # Submitting

    def submit(self, function: functions.Function, call: codec.Call, options: Options, *, unique: bool) -> JobFuture:
        """Queue a call. Raises what broke the executor, and RuntimeError after the end."""
        if len(call.data) > self._max_payload:
            raise PayloadTooLargeError("the arguments", len(call.data), self._max_payload)
        future = JobFuture(self._cancel)
        try:
            self._flusher.put(Pending(future, function, call, options, unique))
        finally:
            self._raise_if_broken()
        return future

    def flush(self, timeout: float | None = None) -> None:
        """Return when everything submitted so far is stored. Raises TimeoutError, or what broke the executor."""
        stored = self._flusher.flush(timeout)
        if not stored and timeout is None:
            self._halted.wait()  # the flusher has ended, and why is about to be known
        self._raise_if_broken()
        if not stored:
            raise TimeoutError("not everything was stored in time")

    def _raise_if_broken(self) -> None:
        if self._broken is not None:
            raise BrokenWorkerbeeError(f"the executor is broken: {self._broken}") from self._broken

    def decode(self, end: Stored) -> tuple[Any, BaseException | None]:
        """The value or the error of a stored end."""
        return self._watcher.decode(end)

    # The threads

    def _flush_calls(self) -> None:
        self._flusher.run(self._patiently)
        self._watcher.wake()

    def _watch(self) -> None:
        self._watcher.run(self._patiently, self._is_needed)

    def _is_needed(self) -> bool:
        return self._broken is None and not (self._closing and self._flusher.quiet and not self._ledger)

    def _patiently(self, action: Callable[[], None]) -> None:
        retrying(action, patience=self._patience, pause=lambda seconds: not self._halted.wait(seconds), log=self._log)

    def _guarded(self, body: Callable[[], None]) -> None:
        try:
            body()
        except BaseException as error:  # noqa: BLE001 (whatever it is, no future may hang)
            self._break(error, None)
        finally:
            with self._ending:
                self._alive -= 1
                last = not self._alive
            if last:
                self._end()

    def _break(self, error: BaseException, cause: BaseException | None) -> None:
        """Nothing can be done any more: every future gets the reason."""
        if self._broken is not None:
            return
        if gone(error):
            error = JobsetNotFoundError(self.jobset.name, dropped=True)
        self._broken = error
        self._halted.set()
        self._flusher.close()
        self._watcher.wake()
        if not isinstance(error, (BrokenWorkerbeeError, DatabaseUnavailableError)):
            cause, error = error, BrokenWorkerbeeError(f"the executor broke: {error!r}")
        if cause is not None:
            error.__cause__ = cause
        for future in dict.fromkeys([*self._flusher.pending(), *self._ledger.clear()]):
            if not future.done():
                future.resolve(None, error)

    # Cancelling

    def cancel(self, future: JobFuture) -> bool:
        """Whether the future may be cancelled now: its job won't run, or isn't ours to stop."""
        deadline = time.monotonic() + CANCEL_PATIENCE
        if self._flusher.withdraw(future, deadline):
            return True
        if future.job is None:
            return self._broken is not None
        if self._ledger.is_shared(future) or not future.inserted:
            self._ledger.forget(future)
            return True
        return future.job in self._cancel_rows([future], deadline)

    def cancel_all(self, futures: Iterable[JobFuture]) -> None:
        """Cancel many at once, as far as they haven't started; the futures too."""
        deadline = time.monotonic() + CANCEL_ALL_PATIENCE
        stored = []
        for future in futures:
            if self._flusher.withdraw(future, deadline):
                future.abandon()
            elif future.inserted and not future.done():
                stored.append(future)
        for chunk in _chunks(stored):
            done = self._cancel_rows(chunk, deadline)
            for future in chunk:
                if future.job in done:
                    future.abandon()

    def cancel_running(self, futures: Iterable[JobFuture] | None = None) -> int:
        """End jobs as cancelled, also those that run; their runners are killed. How many."""
        chosen = self._ledger.futures() if futures is None else list(futures)
        chosen = [f for f in chosen if f.job is not None and not f.done()]
        deadline = time.monotonic() + CANCEL_ALL_PATIENCE
        return len(self._controlled(ClientStore.cancel_running, chosen, deadline))

    def _cancel_rows(self, futures: list[JobFuture], deadline: float) -> set[int]:
        done: set[int] = set()
        for _ in range(3):  # a batch may be split under our eyes
            left = [f for f in futures if f.job not in done and not (f.running() or f.done())]
            if not left:
                break
            done |= self._controlled(ClientStore.cancel_waiting, left, deadline)
        for future in futures:
            if future.job in done:
                self._ledger.forget(future)
        return done

    def _controlled(
        self,
        action: Callable[[ClientStore, list[tuple[int, int]]], set[int]],
        futures: list[JobFuture],
        deadline: float,
    ) -> set[int]:
        """Run a cancellation on the control connection, within the time; nothing if the database is away."""
        keys = [(f.stored_job, f.stored_run) for f in futures]
        if not self._control.acquire(timeout=max(0.0, deadline - time.monotonic())):
            return set()
        try:
            self._control_connection.patience = max(0.05, deadline - time.monotonic())
            return action(ClientStore(self._control_connection, self.jobset, self._writer), keys)
        except Exception as error:
            if not passing(error) and not gone(error):
                raise
            return set()
        finally:
            self._control.release()

    # Bees of our own

    def employ(self, bee: LocalBee) -> None:
        """A local bee, whose reports are heard until its end."""
        self._bee = bee
        threading.Thread(target=bee.events, args=(self._hear,), name="workerbee local bee", daemon=True).start()

    def _hear(self, event: dict[str, Any]) -> None:
        match event["event"]:
            case "log":
                self._log.log(event["level"], "%s", event["message"])
            case "initializer":
                cause = codec.decode_error(event["error"].encode(), trusted=True)
                logging.getLogger("concurrent.futures").critical("Exception in initializer:", exc_info=cause)
                self._break(InitializerFailedError(f"the initializer raised {cause!r}"), cause)
            case "broken":
                self._break(BrokenWorkerbeeError(f"the local bee can't go on: {event['error']}"), None)
            case "ended" if not self._bee_draining and event["status"] != 0:
                self._break(BrokenWorkerbeeError(f"the local bee ended with status {event['status']}"), None)

    # Ending

    def close(self, *, cancel: bool = False, detach: bool = False) -> None:
        """Take no more calls; end when all is done, or with ``detach`` as soon as all is stored."""
        if cancel:
            self.cancel_all([*self._flusher.pending(), *self._ledger.futures()])
        if detach:
            self.flush()
            for future in self._ledger.clear():
                future.abandon()
        self._closing = True
        self._flusher.close()
        self._watcher.wake()

    def _end(self) -> None:
        """The last thread is done: let the local bee finish, and drop what was temporary."""
        bee = self._bee
        if bee is not None:
            self._bee_draining = True
            bee.stop() if self._broken is not None or self.jobset.temporary else bee.drain()
            bee.wait(None if not self.jobset.temporary else 30)
        try:
            if self.jobset.temporary:
                Catalogue(self._control_connection).drop_jobset(self.jobset)
        except Exception as error:  # noqa: BLE001 (it is swept later)
            self._log.debug("the temporary jobset is left to be swept: %s", error)
        self._control_connection.close()
        self.ended.set()


def _chunks(futures: list[JobFuture]) -> Iterator[list[JobFuture]]:
    for start in range(0, len(futures), CHUNK):
        yield futures[start : start + CHUNK]
