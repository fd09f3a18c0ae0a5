"""The client: one jobset as one process uses it, with the two threads that store its calls and resolve its futures.

::

    submit ─▶ flusher ─(add)─▶ database ─(hint, or poll)─▶ watcher ─▶ futures
                 └──────────── ledger: who waits for what ────────────┘

If one of the threads breaks, every future gets the reason.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from functools import partial
from uuid import uuid4

from workerbee.client import spectators
from workerbee.client.cancelling import Cancelling
from workerbee.client.desk import Desk
from workerbee.client.dispatcher import Dispatcher
from workerbee.client.employer import Employer
from workerbee.client.flusher import Flusher, Pending
from workerbee.client.futures import JobFuture
from workerbee.client.ledger import Ledger
from workerbee.client.local_bee import LocalBee
from workerbee.client.registry import Registry
from workerbee.client.remarks import Remarks
from workerbee.client.watcher import Watcher
from workerbee.errors import (
    BrokenWorkerbeeError,
    DatabaseUnavailableError,
    JobsetNotFoundError,
    LostValueError,
)
from workerbee.following import output_of
from workerbee.keeping import record_loss
from workerbee.memory import MEMORY, Memory
from workerbee.orders import Orders
from workerbee.server import Server
from workerbee.store import QUERY_SECONDS, Catalogue, ClientStore, Connection, is_dropped, retrying
from workerbee.store.reader import JobsetReader
from workerbee.wire import codec, functions, lending
from workerbee.wire.job import Jobset, Options, Stored
from workerbee.wire.printed import NOTHING, Output
from workerbee.wire.signing import Key, Signer
from workerbee.wire.values import Values


class Client:
    """Stores calls, resolves their futures, and cancels them; any thread may use it."""

    def __init__(
        self,
        found: Server,
        jobset: Jobset,
        key: Key,
        *,
        logger: logging.Logger,
        reconnect_timeout: float | None,
        max_payload: int,
        large: lending.Lending | None = None,
    ) -> None:
        self.jobset = jobset
        self.ended, self._halted = threading.Event(), threading.Event()
        self.n_local = 0  # runners of the local bee
        self.interrupted = False  # whether its caller was told, after an interrupt, what goes on
        self.latest: functions.Function | None = None  # the function that was submitted last
        self.log, self._patience, self.max_payload = logger, reconnect_timeout, max_payload
        self._server = found
        self._broken: BaseException | None = None
        self._closing = self._all_stored = False
        self._remarks = Remarks(logger)
        self._bee: Employer | None = None
        self._memory: Memory | None = None
        # What puts large arguments away: those of calls that are remembered, and those of others.
        self.lender = self.passing_lender = None if large is None else large.lender()
        self.apart = Values()  # arrays that calls share
        self.on_interrupt: Callable[[BaseException], None] = lambda _: None  # when a waiting thread is interrupted
        self._cancel, self._pass_on, self._output_of = self.cancel, self._interrupted, self._read_output  # bound once
        self._dispatcher = Dispatcher()
        self._call_later = self._dispatcher.put
        self._given_up: queue.SimpleQueue[deque[JobFuture]] = queue.SimpleQueue()
        self.signer = Signer(key, jobset.uuid)
        connection = Connection(found.dsn, application="workerbee control")
        self._desk = Desk.at(connection, jobset, self.signer, uuid4(), logger)
        self._ledger = Ledger()
        self._watcher = Watcher(self._desk.another("watcher"), self._ledger, self._dispatcher)
        self.look = self._watcher.look  # soon, whether any job that is waited for has ended
        self._watcher.look_closer = partial(_record_loss, self.reading, self._desk)
        self._flusher = Flusher(self._desk.another("flusher"), self._ledger, self._watcher)
        self._cancelling = Cancelling(self._desk, self._ledger, self._flusher, self._watcher.ask)
        self._ending = threading.Lock()
        self._threads = [
            threading.Thread(target=self._guarded, args=(body,), name=f"workerbee {name}", daemon=True)
            for name, body in (("flusher", self._flush_calls), ("watcher", self._watch))
        ]
        self._alive = len(self._threads)
        for thread in self._threads:
            thread.start()

    # Submitting

    def submit(self, function: functions.Function, call: codec.Call, options: Options, *, unique: bool) -> JobFuture:
        """Queue a call. Raises what broke the executor, and RuntimeError after the end."""
        future = JobFuture(self._cancel, self._call_later, self._pass_on, self._output_of)
        if call.codec == MEMORY and self._memory is not None:
            future.lent = self._memory.lent(call.data)
        self._remarks.on(function, call, unique=unique)
        self.latest = function
        try:
            self.refuse_if_closing()
            if self._bee is not None:
                self._bee.meet(function.digest)
            self._flusher.put(Pending(future, function, call, options, unique))
        finally:
            self._raise_if_broken()
        return future

    def refuse_if_closing(self) -> None:
        """Raises RuntimeError after the end."""
        if self._closing:
            raise RuntimeError("cannot schedule new futures after shutdown")

    def await_runs(self, runs: Mapping[tuple[int, int], bytes | None], *, ours: bool) -> list[JobFuture]:
        """Make futures of these stored (job, run) with their signs. ``ours``: cancelling a future cancels its job."""
        futures = []
        for (job, run), sign in runs.items():
            future = JobFuture(self._cancel, self._call_later, self._pass_on, self._output_of)
            future.job, future.run, future.sign, future.queued, future.inserted = job, run, sign, False, ours
            futures.append(future)
        self._ledger.expect(futures)
        self._watcher.ask([job for job, _ in runs])
        return futures

    def flush(self, timeout: float | None = None) -> None:
        """Return when everything submitted so far is stored. Raises TimeoutError, or what broke the executor."""
        stored = self._flusher.flush(timeout)
        if not stored and timeout is None:
            self._halted.wait()  # the flusher has ended, and the reason is about to be set
        self._raise_if_broken()
        if not stored:
            raise TimeoutError("not everything was stored in time")

    def _raise_if_broken(self) -> None:
        if self._broken is not None:
            raise BrokenWorkerbeeError(f"the executor is broken: {self._broken}") from self._broken

    # The threads

    def _flush_calls(self) -> None:
        self._flusher.run(self._patiently)
        self._all_stored = True
        self._watcher.wake()

    def _watch(self) -> None:
        self._watcher.run(self._patiently, self._is_needed)

    def _is_needed(self) -> bool:
        self._let_go()
        return self._broken is None and not (self._all_stored and not self._ledger)

    def _patiently(self, action: Callable[[], None]) -> None:
        retrying(action, patience=self._patience, pause=lambda seconds: not self._halted.wait(seconds), log=self.log)

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
        """End all futures with the reason why the client can't go on."""
        if self._broken is not None:
            return
        if is_dropped(error):
            error = JobsetNotFoundError(self.jobset.name, dropped=True)
        self._broken = error
        self._halted.set()
        self._flusher.close()
        self._watcher.wake()
        if not isinstance(error, (BrokenWorkerbeeError, DatabaseUnavailableError)):
            cause, error = error, BrokenWorkerbeeError(f"the executor broke: {error!r}")
        if cause is not None:
            error.__cause__ = cause
        for future in dict.fromkeys([*self._flusher.not_stored(), *self._ledger.clear()]):
            if not future.done():
                future.resolve(None, error)

    def _interrupted(self, interrupt: BaseException) -> None:
        self.on_interrupt(interrupt)

    # Cancelling

    def cancel(self, future: JobFuture) -> bool:
        """Cancel a job unless it has begun; True if its future may end: the job won't run, or others want it."""
        return self._cancelling.cancel(future) or (future.job is None and self._broken is not None)

    def cancel_queued(self) -> int:
        """Cancel the calls that aren't stored yet. Returns how many."""
        return self._cancelling.withdraw(self._flusher.not_stored())[0]

    def cancel_running(self, futures: Iterable[JobFuture] | None = None) -> int:
        """End jobs as cancelled, also running ones, whose runners are killed. Returns how many."""
        return self._cancelling.cancel_running(self._awaited() if futures is None else futures)

    def _awaited(self) -> list[JobFuture]:
        """Give all futures that haven't ended, of stored calls and of calls that aren't stored yet."""
        return [*self._flusher.not_stored(), *self._ledger.futures()]

    def give_up(self, futures: deque[JobFuture]) -> None:
        """Drop futures that nobody wants any more. A temporary jobset's jobs are cancelled; others go on without us.

        The garbage collector may call this in any thread, with any lock held; then the watcher does it soon.
        """
        self._given_up.put(futures)
        if self._ledger.locked() or self._cancelling.is_busy or threading.current_thread() in self._threads:
            self._watcher.wake()
        else:
            self._let_go()

    def _let_go(self) -> None:
        with suppress(queue.Empty):
            while True:
                futures = self._given_up.get_nowait()
                left = [future for future in futures if not future.ended]
                futures.clear()
                if self.jobset.is_temporary:
                    self._cancelling.cancel_waiting(left)
                else:
                    self._cancelling.detach(left)
                self._watcher.wake()

    def registry(self, connection: Connection) -> Registry:
        """Give access to the jobset's functions, for use by the caller's own thread."""
        return Registry(ClientStore(connection, self.jobset, self._desk.writer), self.jobset, self.signer, self.log)

    def forget_functions(self) -> None:
        """Forget what is known of functions, as something was adopted."""
        self._flusher.registry.forget()

    # Bees of our own

    def employ(self, bee: LocalBee, n_workers: int, max_tasks: int | None, *, prefix_output: bool = False) -> None:
        """Have this local bee, or another if it dies, work with so many runners until the end."""
        if self.jobset.is_temporary and (memory := Memory.make()) is not None:
            self._memory = self._watcher.memory = memory
            self.passing_lender = memory.lender()
        orders = Orders(
            self._server.dsn,
            number=self.jobset.number,
            workers=n_workers,
            busywait=True,
            max_tasks_per_child=max_tasks,
            max_payload=self.max_payload,
            prefix_output=prefix_output,
            reconnect_timeout=self._patience,
            log_level=max(logging.WARNING, self.log.getEffectiveLevel()),
            memory="" if self._memory is None else self._memory.path,
        )
        self.n_local = n_workers
        self._bee = Employer(self.jobset.name, bee, orders, log=self.log, give_up=self._break)

    # Reading

    def _read_output(self, future: JobFuture) -> Output:
        """Read what its job has printed; nothing if that isn't there any more, and maybe another has its id."""
        if future.job is not None:
            with self.reading() as connection:
                if ClientStore(connection, self.jobset, self._desk.writer).known([(future.job, future.sign)]):
                    return output_of(JobsetReader(connection, self.jobset), future.job, future.run)
        return Output.of(NOTHING)

    def reading(self, patience: float | None = None) -> AbstractContextManager[Connection]:
        """Give a connection for the caller's own thread, also after the end. Raises JobsetNotFoundError.

        An outage is waited out; with ``patience``, each query has so many seconds instead.
        """
        return spectators.reading(self._server, self.jobset, self.log, outage=self._patience, patience=patience)

    def live_runners(self) -> int:
        """Count the runners that could do this jobset's jobs now."""
        with self.reading(QUERY_SECONDS) as connection:
            return Catalogue(connection).live_runners(self.jobset.number)

    # Ending

    def close(self, *, cancel: bool = False) -> None:
        """Take no more calls; with ``cancel``, cancel what has not started; end when all that remains is done."""
        if self.ended.is_set():
            return
        self._closing = True
        if cancel:
            self._cancelling.cancel_waiting(self._awaited())
        self._flusher.close()
        self._watcher.wake()

    def detach_and_close(self, patience: float | None = None) -> None:
        """End when all calls are stored, and wait ``patience`` seconds for that; jobs go on without us."""
        if self.ended.is_set():
            return
        self._closing = True
        try:
            self.flush(patience)
        except TimeoutError:
            self.log.warning("%d calls are still being stored", len(self._flusher.not_stored()))
        except BrokenWorkerbeeError as error:
            self.log.warning("not everything could be stored: %s", error)
        finally:
            self._cancelling.detach(self._awaited())
            self.close()

    def abandon(self) -> None:
        """End now, and leave jobs undone: for a temporary jobset, whose results nobody else can have."""
        self._closing = True
        futures = self._awaited()
        self._flusher.withdraw(futures, 0.0)
        self._cancelling.detach(futures)
        self.close()

    def quit(self) -> None:
        """End without waiting; the local bee gives back what it runs."""
        if self._bee is not None:
            self._bee.stop()
        self.close()
        self._cancelling.detach(self._awaited())
        if self._memory is not None:
            self._memory.close()
        self.ended.set()

    def wait(self) -> None:
        """Wait for the end. Raises RuntimeError in a callback: it would wait for itself."""
        if self._dispatcher.is_caller():
            raise RuntimeError("a callback can't wait for the end of its executor; use shutdown(wait=False) there")
        self.ended.wait()

    def disown(self) -> None:
        """Leave everything to the parent, in a forked child: the threads and the bee don't exist here."""
        self._broken = BrokenWorkerbeeError("an executor doesn't survive a fork; make a new one in the child process")
        self.ended = threading.Event()  # a thread that doesn't exist in the child may hold the old one's lock
        self.ended.set()
        if self._bee is not None:
            self._bee.disown()
        if self._memory is not None:
            self._memory.disown()

    def _end(self) -> None:
        """Let callbacks and the local bee finish after the last thread, and drop a temporary jobset."""
        self._dispatcher.close()
        if self._bee is not None:
            self._bee.stop() if self._broken is not None or self.jobset.is_temporary else self._bee.drain()
            self._bee.wait(30 if self.jobset.is_temporary else None)
        if self._memory is not None:
            self._memory.close()
        try:
            if self.jobset.is_temporary:
                self._desk.catalogue.drop_jobset(self.jobset)
        except Exception as error:  # noqa: BLE001 (it is swept later)
            self.log.debug("the temporary jobset is left to be swept: %s", error)
        self._desk.connection.close()
        self._server.close()
        self._threads = []  # so that they are freed even if something keeps this object
        self.ended.set()


def _record_loss(
    reading: Callable[[float], AbstractContextManager[Connection]], desk: Desk, end: Stored, error: BaseException
) -> None:
    """Record it if a large value is lost, before its future says so: its call, submitted again, is then run."""
    if isinstance(error, LostValueError):
        with suppress(Exception), reading(QUERY_SECONDS) as connection:
            record_loss(ClientStore(connection, desk.jobset, desk.writer), desk.signer, end, error)
