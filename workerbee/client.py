"""The client's engine: two threads that store calls and resolve futures.

::

    submit ─▶ _queue ─▶ flusher ─(add)─▶ database ─(hint, or poll)─▶ watcher ─▶ futures

The flusher sends at once when it is idle, and gathers while its COMMIT is in flight. The watcher asks
for the ids that it still waits for; a hint only says which to ask for first. Neither holds a lock while
a future's callbacks run. If one of the two breaks, every future gets a BrokenWorkerbeeError.
"""

from __future__ import annotations

import itertools
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

from workerbee import codec, functions
from workerbee.errors import (
    BrokenWorkerbeeError,
    DatabaseUnavailableError,
    InitializerFailedError,
    JobsetNotFoundError,
    PayloadTooLargeError,
)
from workerbee.futures import JobFuture
from workerbee.job import Function, Jobset, NewJob, Options, Stored
from workerbee.local import LocalBee
from workerbee.signing import Key, Signer
from workerbee.store import Catalogue, ClientStore, Connection, Wake, gone, passing, retrying

#: Jobs, and bytes, in one flush.
FLUSH, FLUSH_BYTES = 1000, 4_000_000
#: Seconds between looks without a hint, and jobs in each.
POLL, POLL_JOBS = (0.005, 1.0), 1000
#: Seconds between signs of life of a temporary jobset's client, and between looks at what has begun.
TOUCH, BEGUN = 2.0, 0.1
CANCEL_PATIENCE = 1.0
NO_BEES = 10.0


class Pending(NamedTuple):
    """A call on its way into the database."""

    future: JobFuture
    function: functions.Function
    call: codec.Call
    options: Options
    unique: bool


class Client:
    """One jobset as one process uses it, for futures."""

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
        self._dsn = dsn
        self._writer = writer
        self._log = logger
        self._patience = reconnect_timeout
        self._max_payload = max_payload
        self._signer = Signer(key, jobset.uuid)
        self._lock = threading.Condition()
        self._queue: deque[Pending] = deque()
        self._in_flight = 0
        self._waiting: dict[int, list[JobFuture]] = {}
        self._asked: deque[int] = deque()
        self._numbers: dict[bytes, int] = {}
        self._ids: deque[int] = deque()
        self._block = 64
        self._all_known = False  # the last flush brought nothing new: look before adding
        self._broken: BaseException | None = None
        self._closing = False
        self._bee: LocalBee | None = None
        self._bee_draining = False
        self._wake = Wake()
        self._control = threading.Lock()
        self._control_connection = Connection(dsn, application="workerbee control")
        self.ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._guarded, args=(body,), name=f"workerbee {body.__name__[1:]}", daemon=True)
            for body in (self._flush_all, self._watch)
        ]
        self._alive = len(self._threads)
        for thread in self._threads:
            thread.start()

    # Submitting (any thread)

    def submit(self, function: functions.Function, call: codec.Call, options: Options, *, unique: bool) -> JobFuture:
        """Queue a call. Raises what broke the executor; the caller has checked for a shutdown."""
        size = len(call.data)
        if size > self._max_payload:
            raise PayloadTooLargeError("the arguments", size, self._max_payload)
        future = JobFuture(self.cancel)
        with self._lock:
            if self._broken is not None:
                raise BrokenWorkerbeeError(f"the executor is broken: {self._broken}") from self._broken
            self._queue.append(Pending(future, function, call, options, unique))
            if len(self._queue) == 1:
                self._lock.notify_all()
        return future

    def flush(self, timeout: float | None = None) -> None:
        """Return when everything submitted so far is stored. Raises TimeoutError, or what broke the executor."""
        with self._lock:
            stored = self._lock.wait_for(lambda: self._broken or not (self._queue or self._in_flight), timeout)
            if self._broken is not None:
                raise BrokenWorkerbeeError(f"the executor is broken: {self._broken}") from self._broken
        if not stored:
            raise TimeoutError("not everything was stored in time")

    # The flusher

    def _flush_all(self) -> None:
        connection = Connection(self._dsn, application="workerbee client")
        try:
            while self._take():
                self._patiently(partial(self._send, connection, self._batch))
                with self._lock:
                    self._in_flight = 0
                    self._lock.notify_all()
        finally:
            connection.close()

    def _take(self) -> bool:
        """Wait for calls and take them into ``_batch``; False when there will be no more."""
        with self._lock:
            self._lock.wait_for(lambda: self._queue or self._closing or self._broken)
            if self._broken is not None or not self._queue:
                return False
            self._batch: list[Pending] = []
            size = 0
            while self._queue and len(self._batch) < FLUSH and size < FLUSH_BYTES:
                pending = self._queue.popleft()
                size += len(pending.call.data)
                self._batch.append(pending)
            self._in_flight = len(self._batch)
            return True

    def _send(self, connection: Connection, batch: list[Pending]) -> None:
        """Store a batch of calls; safe to repeat after a COMMIT whose answer was lost."""
        store, catalogue = ClientStore(connection, self.jobset, self._writer), Catalogue(connection)
        digests = [self._digest(p) for p in batch]
        known: dict[bytes, Any] = {}
        if self._all_known:
            known = store.same_calls(d for d in digests if d is not None)
        jobs: list[NewJob] = []
        for pending, digest in zip(batch, digests, strict=True):
            if digest in known:
                continue
            if pending.future.job is None:
                pending.future.job, pending.future.run = self._next_id(catalogue), 1
            number = self._number(store, pending.function)
            jobs.append(self._new_job(pending, digest, number))
        self._expect(p.future for p, d in zip(batch, digests, strict=True) if d not in known)
        inserted = store.add(jobs, hint=True) if jobs else set()
        missing = {job.digest for job in jobs if job.id not in inserted and job.digest is not None}
        self._all_known = not inserted
        if missing:
            known |= store.same_calls(missing)
        for pending in batch:
            pending.future.inserted = pending.future.job in inserted or pending.future.inserted
        if known:
            self._attach(store, batch, digests, known, inserted)

    def _digest(self, pending: Pending) -> bytes | None:
        if not pending.unique or pending.call.identity is None or not pending.function.memo:
            return None
        return codec.digest(b"call", pending.function.identity, pending.call.identity)

    def _new_job(self, pending: Pending, digest: bytes | None, number: int) -> NewJob:
        job = pending.future.job
        assert job is not None  # noqa: S101
        call = pending.call
        mac = self._signer.sign("call", job, 0, call.codec, pending.function.digest, call.data)
        return NewJob(job, number, pending.options, call.codec, call.data, mac, digest)

    def _number(self, store: ClientStore, function: functions.Function) -> int:
        number = self._numbers.get(function.digest)
        if number is None:
            mac = self._signer.sign("function", 0, 0, function.codec, function.digest, function.body)
            record = Function(0, function.digest, function.name, function.codec, function.body, function.python, mac)
            number = store.put_function(record, function.identity)
            if not self.jobset.temporary:
                self._say_what_changed(store, function)
            self._numbers[function.digest] = number
        return number

    def _say_what_changed(self, store: ClientStore, function: functions.Function) -> None:
        others = store.namesakes(function.name, function.identity)
        aside = sum(o.n_results for o in others)
        if aside:
            what = "its Python" if others[-1].python != function.python else "its code or what it names"
            self._log.warning(
                "%s has changed (%s) since it was last used in %s: it computes anew; %d stored results are left aside",
                function.name,
                what,
                self.jobset.name,
                aside,
            )

    def _next_id(self, catalogue: Catalogue) -> int:
        if not self._ids:
            first = catalogue.reserve_jobs(self.jobset.number, self._block)
            if first is None:
                raise JobsetNotFoundError(self.jobset.name, dropped=True)
            self._ids.extend(range(first, first + self._block))
            self._block = min(20_000, self._block * 4)
        return self._ids.popleft()

    def _expect(self, futures: Iterable[JobFuture]) -> None:
        """Book futures before their rows can be seen, so that no result comes too early."""
        with self._lock:
            for future in futures:
                booked = self._waiting.setdefault(future.stored_job, [])
                if future not in booked:
                    booked.append(future)
        self._wake.set()

    def _attach(
        self,
        store: ClientStore,
        batch: list[Pending],
        digests: list[bytes | None],
        known: dict[bytes, Any],
        inserted: set[int],
    ) -> None:
        """Calls that are jobs already: wait for those, and run anew what had failed or been cancelled."""
        again = {}
        moved = []
        for pending, digest in zip(batch, digests, strict=True):
            future = pending.future
            same = known.get(digest) if digest is not None else None
            if same is None or future.job in inserted or (future.inserted and future.job == same.job):
                continue
            run = same.run
            if same.status in ("failed", "cancelled"):
                again[same.job, same.run] = pending.options
                run += 1
            moved.append((future, same.job, run))
        for options in set(again.values()):
            store.reopen([key for key, o in again.items() if o == options], options)
        with self._lock:
            for future, job, run in moved:
                self._unbook(future)
                future.job, future.run = job, run
                self._waiting.setdefault(job, []).append(future)
            self._asked.extend(job for _, job, _ in moved)
        self._wake.set()

    def _unbook(self, future: JobFuture) -> None:
        booked = self._waiting.get(future.stored_job) if future.job is not None else None
        if booked and future in booked:
            booked.remove(future)
            if not booked:
                del self._waiting[future.stored_job]

    # The watcher

    def _watch(self) -> None:
        connection = Connection(self._dsn, application="workerbee client")
        connection.listen([f"workerbee$done${self.jobset.number}"])
        catalogue = Catalogue(connection)
        watcher = _Watcher(self, connection, catalogue)
        try:
            while not (self._closing and self._idle()) and self._broken is None:
                heard = connection.wait(watcher.sleep(), self._wake)
                hints = [payload for _, payload in heard]
                self._patiently(partial(watcher.look, hints))
        finally:
            connection.close()

    def _idle(self) -> bool:
        with self._lock:
            return not (self._queue or self._in_flight or self._waiting)

    def resolve(self, stored: Stored) -> bool:
        """Resolve the futures of this run, if there are any; outside all locks, because callbacks run."""
        with self._lock:
            futures = [f for f in self._waiting.get(stored.job, ()) if f.run == stored.run]
            for future in futures:
                self._unbook(future)
        if futures:
            value, error = self.decode(stored)
            for future in futures:
                if stored.status == "cancelled":
                    future.abandon()
                else:
                    future.resolve(value, error)
        return bool(futures)

    def decode(self, stored: Stored) -> tuple[Any, BaseException | None]:
        """What an outcome holds, once its signature is found to hold: a value, or an error."""
        kind = "result" if stored.status == "completed" else "error"
        signed = stored.mac is not None and self._signer.verify(
            stored.mac, kind, stored.job, stored.run, stored.codec or "", b"", stored.data
        )
        if kind == "error":
            return None, codec.decode_error(stored.data, trusted=signed) if stored.status == "failed" else None
        if not signed and (stored.mac is not None or stored.codec != codec.JSON):
            return None, codec.SignatureError(stored.job)
        try:
            return codec.decode(stored.codec or "", stored.data), None
        except BaseException as error:  # noqa: BLE001 (unpickling runs user code)
            return None, error

    # Cancelling (any thread)

    def cancel(self, future: JobFuture) -> bool:
        """Whether the future may be cancelled now: its job won't run, or isn't ours to stop."""
        deadline = time.monotonic() + CANCEL_PATIENCE
        with self._lock:
            for n, pending in enumerate(self._queue):
                if pending.future is future:
                    del self._queue[n]
                    return True
            self._lock.wait_for(lambda: not self._in_flight or self._broken, max(0, deadline - time.monotonic()))
            if future.job is None:
                return self._broken is not None
            shared = len(self._waiting.get(future.job, ())) > 1
            if shared or not future.inserted:
                self._unbook(future)
                return True
        done = self._cancel_rows([future], deadline)
        return future.job in done

    def cancel_all(self, futures: Iterable[JobFuture]) -> None:
        """Cancel many at once, as far as they haven't started; the futures too."""
        wanted = set(futures)
        with self._lock:
            queued = [p for p in self._queue if p.future in wanted]
            self._queue = deque(p for p in self._queue if p.future not in wanted)
            self._lock.notify_all()
            stored = [f for f in wanted if f.job is not None and not f.done() and f.inserted]
        for pending in queued:
            pending.future.abandon()
        for chunk in _chunks(stored, 2000):
            done = self._cancel_rows(chunk, time.monotonic() + 10)
            for future in chunk:
                if future.job in done:
                    future.abandon()

    def cancel_running(self, futures: Iterable[JobFuture] | None = None) -> int:
        """End jobs as cancelled, also those that run; their runners are killed. How many."""
        with self._lock:
            chosen = [f for fs in self._waiting.values() for f in fs] if futures is None else list(futures)
        chosen = [f for f in chosen if f.job is not None and not f.done()]
        store_call = lambda store, keys: store.cancel_running(keys)  # noqa: E731
        return len(self._controlled(store_call, chosen, time.monotonic() + 10))

    def _cancel_rows(self, futures: list[JobFuture], deadline: float) -> set[int]:
        done: set[int] = set()
        for _ in range(3):  # a batch may have been split under our eyes
            left = [f for f in futures if f.job not in done and f._state == "PENDING"]  # noqa: SLF001
            if not left:
                break
            done |= self._controlled(lambda store, keys: store.cancel_waiting(keys), left, deadline)
        with self._lock:
            for future in futures:
                if future.job in done:
                    self._unbook(future)
        return done

    def _controlled(
        self, action: Callable[[ClientStore, Any], set[int]], futures: list[JobFuture], deadline: float
    ) -> set[int]:
        """Run a cancellation on the control connection, within the time; nothing if the database is away."""
        keys = [(f.job, f.run) for f in futures]
        if not self._control.acquire(timeout=max(0, deadline - time.monotonic())):
            return set()
        try:
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
            case "initializer":
                cause = codec.decode_error(event["error"].encode(), trusted=True)
                self._break(InitializerFailedError(f"the initializer raised {cause!r}"), cause)
            case "broken":
                self._break(BrokenWorkerbeeError(f"the local bee can't go on: {event['error']}"), None)
            case "ended" if not self._bee_draining and event["status"] != 0:
                self._break(BrokenWorkerbeeError(f"the local bee ended with status {event['status']}"), None)

    def warn_if_nobody_works(self, catalogue: Catalogue) -> None:
        """Once: say that no bee is there, and how to start one."""
        if catalogue.live_bees(self.jobset.number) == 0:
            name = self.jobset.id or ""
            self._log.warning(
                "jobs wait in %s and no bee is there to do them; start one with: %s -m workerbee.bee %s",
                self.jobset.name,
                sys.executable,
                name,
            )

    # Ending

    def close(self, *, cancel: bool = False, detach: bool = False) -> None:
        """Take no more calls; end when all is done, or with ``detach`` as soon as all is stored."""
        if cancel:
            with self._lock:
                everything = [p.future for p in self._queue] + [f for fs in self._waiting.values() for f in fs]
            self.cancel_all(everything)
        if detach:
            self.flush()
            with self._lock:
                left = [f for fs in self._waiting.values() for f in fs]
                self._waiting.clear()
            for future in left:
                future.abandon()
        with self._lock:
            self._closing = True
            self._lock.notify_all()
        self._wake.set()

    def _guarded(self, body: Callable[[], None]) -> None:
        try:
            body()
        except BaseException as error:  # noqa: BLE001 (whatever it is, no future may hang)
            self._break(error, None)
        finally:
            with self._lock:
                self._alive -= 1
                last = self._alive == 0
            self._wake.set()
            if last:
                self._end()

    def _break(self, error: BaseException, cause: BaseException | None) -> None:
        """Nothing can be done any more: every future gets the reason."""
        if gone(error):
            error = JobsetNotFoundError(self.jobset.name, dropped=True)
        with self._lock:
            if self._broken is not None:
                return
            self._broken = error
            futures = [p.future for p in self._queue] + [f for fs in self._waiting.values() for f in fs]
            futures += [p.future for p in getattr(self, "_batch", ()) if self._in_flight]
            self._queue.clear()
            self._waiting.clear()
            self._lock.notify_all()
        for future in dict.fromkeys(futures):
            broken = error
            if not isinstance(error, (BrokenWorkerbeeError, DatabaseUnavailableError)):
                broken = BrokenWorkerbeeError(f"the executor broke: {error!r}")
                broken.__cause__ = error
            elif cause is not None:
                broken.__cause__ = cause
            if not future.done():
                future.resolve(None, broken)
        self._wake.set()

    def _end(self) -> None:
        """The last thread is done: let the local bee finish, and drop what was temporary."""
        bee = self._bee
        if bee is not None:
            self._bee_draining = True
            bee.stop() if self._broken is not None or self.jobset.temporary else bee.drain()
            bee.wait(None if not self.jobset.temporary else 30)
        try:
            if self.jobset.temporary:
                connection = self._control_connection
                Catalogue(connection).drop_jobset(self.jobset)
        except Exception as error:  # noqa: BLE001 (it is swept later)
            self._log.debug("the temporary jobset is left to be swept: %s", error)
        self._control_connection.close()
        self._wake.close()
        self.ended.set()

    def _patiently(self, action: Callable[[], Any]) -> None:
        def pause(seconds: float) -> bool:
            time.sleep(seconds)
            return self._broken is None

        retrying(action, patience=self._patience, pause=pause)


class _Watcher:
    """The rounds of the watching thread: when to look, and at what."""

    def __init__(self, client: Client, connection: Connection, catalogue: Catalogue) -> None:
        self._client = client
        self._connection = connection
        self._catalogue = catalogue
        self._store: ClientStore | None = None
        self._pause = POLL[0]
        now = time.monotonic()
        self._next_poll = self._next_touch = self._next_begun = now
        self._warn_at: float | None = None
        self._warned = False
        self._n_seen = 0

    def sleep(self) -> float:
        """Seconds until something is due; a hint or a new future ends the sleep before."""
        now = time.monotonic()
        client = self._client
        timers = [now + 3600.0]
        if client.jobset.temporary:
            timers.append(self._next_touch)
        if client._asked:  # noqa: SLF001
            timers.append(now)
        if client._waiting:  # noqa: SLF001
            timers += [self._next_poll, self._next_begun]
        return max(0.0, min(timers) - now)

    def look(self, hints: list[str]) -> None:
        """One round: what hints name, what was asked for, and in turn everything that is waited for."""
        client = self._client
        self._store = self._store or ClientStore(self._connection, client.jobset, client._writer)  # noqa: SLF001
        now = time.monotonic()
        if client.jobset.temporary and now >= self._next_touch:
            if not self._catalogue.touch_client(client.jobset.number):
                raise JobsetNotFoundError(client.jobset.name, dropped=True)
            self._next_touch = now + TOUCH
        wanted = [job for hint in hints for job in _hinted(hint) if job in client._waiting]  # noqa: SLF001
        while client._asked:  # noqa: SLF001
            wanted.append(client._asked.popleft())  # noqa: SLF001
        found = self._fetch(wanted)
        if found:
            self._pause = POLL[0]
        elif now >= self._next_poll and client._waiting:  # noqa: SLF001
            self._poll(now)
        if now >= self._next_begun and client._waiting:  # noqa: SLF001
            self._mark_begun(now)

    def _fetch(self, jobs: list[int]) -> int:
        assert self._store is not None  # noqa: S101
        found = 0
        for chunk in _chunks(jobs, POLL_JOBS):
            for stored in self._store.finished(chunk):
                found += self._client.resolve(stored)
        if found:
            self._next_poll = time.monotonic() + self._pause
        return found

    def _poll(self, now: float) -> None:
        """Look at the next window of what is waited for; every job has its turn."""
        client = self._client
        with client._lock:  # noqa: SLF001
            window = list(itertools.islice(client._waiting, POLL_JOBS))  # noqa: SLF001
            for job in window:  # to the back of the line
                client._waiting[job] = client._waiting.pop(job)  # noqa: SLF001
        found = self._fetch(window)
        self._pause = POLL[0] if found else min(POLL[1], self._pause * 2)
        self._next_poll = time.monotonic() + self._pause
        if found:
            self._warn_at = None
        elif self._warn_at is None:
            self._warn_at = now + NO_BEES
        elif now > self._warn_at and not self._warned:
            client.warn_if_nobody_works(self._catalogue)
            self._warned = True

    def _mark_begun(self, now: float) -> None:
        assert self._store is not None  # noqa: S101
        client = self._client
        begun = self._store.begun()
        with client._lock:  # noqa: SLF001
            futures = [f for job, run in begun for f in client._waiting.get(job, ()) if f.run == run]  # noqa: SLF001
        for future in futures:
            future.begin()
        self._next_begun = time.monotonic() + BEGUN


def _hinted(hint: str) -> Iterable[int]:
    """The job ids in a hint: ranges such as ``1-200 207``. A forged one only makes us look in vain."""
    for part in hint.split():
        first, _, last = part.partition("-")
        if first.isdecimal() and (not last or last.isdecimal()):
            start, end = int(first), int(last or first)
            if end - start < 10_000:
                yield from range(start, end + 1)


def _chunks(items: list[Any], size: int) -> Iterable[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
