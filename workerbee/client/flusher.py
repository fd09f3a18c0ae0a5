"""The flusher is the thread that stores calls: at once when it is idle, and several together after each COMMIT.

A call's id comes from a block that was reserved before, so that storing it again after a COMMIT whose
answer was lost changes nothing. If the jobset has a call already, the future waits for that job, which is run anew if
it had failed or been cancelled.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from functools import partial
from typing import NamedTuple
from weakref import WeakSet

from workerbee.blobs import BLOB
from workerbee.client.desk import Desk
from workerbee.client.futures import JobFuture
from workerbee.client.ledger import Ledger
from workerbee.client.registry import Registered, Registry
from workerbee.client.watcher import Watcher
from workerbee.errors import EncodingError, JobsetNotFoundError
from workerbee.keeping import find_lost
from workerbee.store import HintThrottle, SameCall, is_unstorable
from workerbee.wake import Wake
from workerbee.wire import codec, functions
from workerbee.wire.job import NewJob, Options
from workerbee.wire.values import Value

#: Jobs, and bytes, in one flush.
FLUSH_JOBS, FLUSH_BYTES = 1000, 4_000_000
#: Ids reserved at first and at most; each block is four times the one before.
BLOCK_IDS = (64, 20_000)


class Pending(NamedTuple):
    """A call on its way into the database."""

    future: JobFuture
    function: functions.Function
    call: codec.Call
    options: Options
    unique: bool


class Flusher:
    """Stores what is put, in order. ``run`` is the thread's body; the other methods are for any thread."""

    def __init__(self, desk: Desk, ledger: Ledger, watcher: Watcher) -> None:
        self._connection, self._catalogue, self._store, self._jobset, self._signer, _, self._log = desk
        self._ledger = ledger
        self._watcher = watcher
        self._queue: deque[Pending] = deque()
        self._batch: list[Pending] = []  # being stored
        self._n_taken = self._n_stored = 0  # calls that were taken from the queue, and of these the stored ones
        self._settled = threading.Condition()
        self._withdrawn: set[JobFuture] = set()
        self._met: WeakSet[Value] = WeakSet()  # arrays of calls that were taken from the queue
        self._wake = Wake()
        self._is_asleep = False
        self._closing = False
        self._ended = False
        self.registry = Registry(self._store, desk.jobset, desk.signer, desk.log)
        self._ids: deque[int] = deque()
        self._block = BLOCK_IDS[0]
        self._look_first = False  # the last flush found all its calls stored already
        self._pace = HintThrottle()
        self._unhinted = False

    # Any thread

    def put(self, pending: Pending) -> None:
        """Queue a call. Raises RuntimeError when the thread has ended."""
        # No lock is taken, as this is done for each job, and the queue's own operations are atomic. If an interrupt
        # comes between two steps, the next call makes up for it.
        self._queue.append(pending)
        if self._is_asleep:
            self._wake.set()
        if self._ended and pending in self._queue:
            with suppress(ValueError):
                self._queue.remove(pending)  # otherwise a flush would wait for it
            raise RuntimeError("cannot schedule new futures after shutdown")

    def withdraw(self, futures: Collection[JobFuture], deadline: float) -> tuple[set[JobFuture], set[JobFuture]]:
        """Take back the calls that are still queued, and wait until those that are on their way are stored.

        Returns what was taken back, and what was still on its way at the ``deadline``.
        """
        with self._settled:
            taken = {future for future in futures if future.queued}
            self._withdrawn |= taken
            batch = self._batch
            under_way = {p.future for p in batch}.intersection(futures)
            stored = not under_way or self._settled.wait_for(
                lambda: self._batch is not batch or self._ended, max(0.0, deadline - time.monotonic())
            )
            return taken, set() if stored else under_way

    def wait_until_quiet(self, deadline: float) -> None:
        """Wait, until ``deadline``, for the calls that are on their way: the ledger then knows them by their jobs."""
        with self._settled:
            self._reaches(self._n_taken, max(0.0, deadline - time.monotonic()))

    def flush(self, timeout: float | None) -> bool:
        """Wait until all that was put before is stored; False if it takes longer, or never will be."""
        with self._settled:
            n = self._n_taken + len(self._queue)
            self._wake.set()  # the last `put` may have been interrupted before it did this
            return self._reaches(n, timeout)

    def _reaches(self, n: int, timeout: float | None) -> bool:
        """Wait until the first ``n`` calls are stored; False if they aren't in time."""
        self._settled.wait_for(lambda: self._ended or self._n_stored >= n, timeout)
        return self._n_stored >= n

    def not_stored(self) -> list[JobFuture]:
        """Give the futures of all that isn't stored yet."""
        with self._settled:
            return [p.future for p in [*self._batch, *self._queue] if p.future not in self._withdrawn]

    def close(self) -> None:
        """End when all that was put is stored."""
        self._closing = True
        self._wake.set()

    # The thread

    def run(self, patiently: Callable[[Callable[[], None]], None]) -> None:
        """Store what is put until `close`; ``patiently`` calls again what an outage interrupts."""
        try:
            while self._take():
                patiently(partial(self._store_calls, self._batch))
                # Not earlier: a job that a failover has lost may be given up from now on, but the next try to store the
                # batch would have stored it again.
                if seen := self._ledger.confirm(p.future for p in self._batch):
                    self._watcher.ask(seen)
                with self._settled:
                    self._batch = []
                    self._n_stored = self._n_taken
                    self._settled.notify_all()
        finally:
            self._ended = True
            with self._settled:
                self._settled.notify_all()
            self._connection.close()
            self._wake.close()

    def _take(self) -> bool:
        """Wait for calls and take them into the batch; False when there will be no more."""
        while not self._batch:
            self._is_asleep = True
            if not self._queue:
                if self._closing:
                    self._ended = True
                    if not self._queue:
                        return False
                    self._ended = False
                else:
                    self._connection.wait(3600.0, self._wake)
            self._is_asleep = False
            with self._settled:
                self._gather()
        return True

    def _gather(self) -> None:
        size = 0
        while self._queue and len(self._batch) < FLUSH_JOBS and size < FLUSH_BYTES:
            pending = self._queue.popleft()
            self._n_taken += 1
            pending.future.queued = False
            if self._withdrawn and pending.future in self._withdrawn:
                self._withdrawn.discard(pending.future)
            else:
                size += len(pending.call.data) + self._new_bytes(pending.call.taken)
                self._batch.append(pending)
        if not self._batch:  # all calls were withdrawn
            self._n_stored = self._n_taken
        self._settled.notify_all()

    def _new_bytes(self, arrays: Iterable[Value]) -> int:
        """Count the bytes of arrays that weren't among those of earlier calls."""
        new = {value for value in arrays if value not in self._met}
        self._met.update(new)
        return sum(value.taken.size for value in new)

    def _store_calls(self, batch: list[Pending]) -> None:
        """Store a batch of calls; one that PostgreSQL refuses fails its own future, and no other."""
        try:
            self._send(batch)
        except Exception as error:
            if not is_unstorable(error):
                raise
            if len(batch) > 1:
                self._store_calls(batch[: len(batch) // 2])
                self._store_calls(batch[len(batch) // 2 :])
            else:
                self._ledger.forget([batch[0].future])
                batch[0].future.resolve(None, EncodingError("the call", error))

    def _send(self, batch: list[Pending]) -> None:
        """Store a batch of calls; safe to repeat after a COMMIT whose answer was lost."""
        self._store.parts.put_values(value for p in batch for value in p.call.taken)
        functions_of = {id(p.function): p.function for p in batch}
        self.registry.register_all(functions_of.values())
        stored_as = {key: self.registry.register(function) for key, function in functions_of.items()}
        digests = [_digest(p, stored_as[id(p.function)]) for p in batch]
        known: dict[bytes, SameCall] = {}
        if self._look_first:
            known = self._store.same_calls(d for d in digests if d is not None)
        new = [(p, d) for p, d in zip(batch, digests, strict=True) if d is None or d not in known]
        untried = {p.future for p, _ in new if p.future.job is None}
        jobs = [self._new_job(p, d, stored_as[id(p.function)]) for p, d in new]
        self._ledger.expect(p.future for p, _ in new)
        self._watcher.expect()
        used = [stored_as[key] for key in {id(p.function) for p, _ in new}]
        inserted = self._add(jobs, {function.number: function.digest for function in used})
        if inserted is None:
            self._log.warning("functions of %s are stored anew: the database has lost them", self._jobset.name)
            self.registry.forget()
            self._send(batch)
            return
        self._look_first = not inserted
        left = [(p, job) for (p, _), job in zip(new, jobs, strict=True) if job.id not in inserted]
        strangers: list[Pending] = []
        if left:
            known |= self._store.same_calls(job.digest for _, job in left if job.digest is not None)
            strangers = self._strangers(left, known, untried)
            self._ledger.disclaim(p.future for p in strangers)
        for pending, _ in new:
            pending.future.inserted = pending.future.inserted or pending.future.job in inserted
        if known:
            self._attach(zip(batch, digests, strict=True), known)
        if strangers:
            self._take_new_ids(strangers)

    def _strangers(
        self, left: list[tuple[Pending, NewJob]], known: dict[bytes, SameCall], untried: set[JobFuture]
    ) -> list[Pending]:
        """Find calls whose ids are somebody else's jobs: neither the same calls, nor stored by an earlier try."""
        stored = self._store.signatures(job.id for p, job in left if job.digest is None and p.future not in untried)
        ours = {job: signs.mac for job, signs in stored.items()}
        return [
            p for p, job in left if (job.digest not in known if job.digest is not None else ours.get(job.id) != job.mac)
        ]

    def _take_new_ids(self, batch: list[Pending]) -> None:
        """Give these calls new ids, after a database that has lost its last commits gave ids a second time."""
        self._log.warning(
            "%d ids of %s were given out twice (has the database lost its last commits?): these calls get new ones",
            len(batch),
            self._jobset.name,
        )
        self._ids.clear()
        self._store.skip_ids()
        self._send(batch)

    def _add(self, jobs: list[NewJob], functions: dict[int, bytes]) -> set[int] | None:
        """Insert the jobs, and tell the bees, in the same transaction or soon after; see `ClientStore.add`."""
        if not jobs:
            return set()
        hint = self._pace.shares(len(jobs))
        inserted = self._store.add(jobs, hint=hint, functions=functions)
        self._unhinted = self._unhinted or bool(inserted and not hint)
        if self._unhinted and self._pace.follows(is_last=not self._queue):
            self._catalogue.hint_work(self._jobset.number)
            self._unhinted = False
        return inserted

    def _new_job(self, pending: Pending, digest: bytes | None, function: Registered) -> NewJob:
        future, call = pending.future, pending.call
        if future.job is None:
            future.job = self._next_id()
        mac = self._signer.sign_call(future.job, call.codec, function.digest, call.data)
        future.sign, future.is_remembered = digest or mac, digest is not None
        return NewJob(future.job, function.number, pending.options, call.codec, call.data, mac, digest)

    def _next_id(self) -> int:
        if not self._ids:
            first = self._catalogue.reserve_jobs(self._jobset, self._block)
            if first is None:
                raise JobsetNotFoundError(self._jobset.name, dropped=True)
            self._ids.extend(range(first, first + self._block))
            self._block = min(BLOCK_IDS[1], self._block * 4)
        return self._ids.popleft()

    def _attach(self, calls: Iterable[tuple[Pending, bytes | None]], known: dict[bytes, SameCall]) -> None:
        """Have futures of calls that are jobs already wait for these; reopen what failed or was cancelled."""
        reopened: dict[tuple[Options, functions.Function], list[tuple[JobFuture, SameCall]]] = {}
        moves = []
        lost = self._lost(known.values())
        for pending, digest in calls:
            same = known.get(digest) if digest is not None else None
            if same is None or (pending.future.inserted and pending.future.job == same.job):
                continue
            run = same.run
            if same.job in lost:  # which is recorded, as a run that has failed
                run += 1
                same = same._replace(run=run, status="failed")
            if same.status in ("failed", "cancelled"):
                reopened.setdefault((pending.options, pending.function), []).append((pending.future, same))
                run += 1
            moves.append((pending.future, same.job, run))
            pending.future.sign, pending.future.is_remembered = digest, True
        for (options, function), calls_again in reopened.items():
            runs = list(dict.fromkeys((same.job, same.run) for _, same in calls_again))
            stand_ins = self.registry.stand_ins(function, (same.function for _, same in calls_again))
            if self._store.reopen(runs, options, stand_ins) == len(runs):
                for future, _ in calls_again:
                    future.inserted = True
        self._ledger.move(moves)
        self._watcher.ask([job for _, job, _ in moves])

    def _lost(self, known: Iterable[SameCall]) -> set[int]:
        """Find those of these jobs that are completed and whose large results aren't there any more."""
        lent = [same.job for same in known if same.status == "completed" and same.codec == BLOB]
        return set(find_lost(self._store, self._signer, lent, whole=False)) if lent else set()


def _digest(pending: Pending, function: Registered) -> bytes | None:
    """Give the digest that identifies a call; None if it is never the same as another."""
    if not pending.unique or pending.call.identity is None or not pending.function.memo:
        return None
    return codec.digest(b"call", function.identity, pending.call.identity)
