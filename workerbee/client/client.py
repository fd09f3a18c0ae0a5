"""One jobset as one process uses it for futures: two threads, and what happens when one of them can't go on.

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
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, suppress
from uuid import uuid4

from workerbee.client import spectators
from workerbee.client.cancelling import Cancelling
from workerbee.client.desk import Desk
from workerbee.client.dispatcher import Dispatcher
from workerbee.client.employer import Employer
from workerbee.client.flusher import Flusher, Pending
from workerbee.client.futures import JobFuture
from workerbee.client.ledger import Ledger
from workerbee.client.registry import Registry
from workerbee.client.remarks import Remarks
from workerbee.client.watcher import Watcher
from workerbee.errors import (
    BrokenWorkerbeeError,
    DatabaseUnavailableError,
    JobsetNotFoundError,
)
from workerbee.following import output_of
from workerbee.memory import MEMORY, Lender, Memory
from workerbee.orders import Orders
from workerbee.server import Server
from workerbee.store import QUERY_SECONDS, Catalogue, ClientStore, Connection, JobsetReader, is_dropped, retrying
from workerbee.wire import codec, functions
from workerbee.wire.job import Jobset, Options
from workerbee.wire.printed import NOTHING, Output
from workerbee.wire.signing import Key, Signer


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
    ) -> None:
        self.jobset = jobset
        self.ended = threading.Event()
        self.n_local = 0  # runners of our own
        self.interrupted = False  # its caller was told what goes on
        self.latest: functions.Function | None = None  # what was submitted last
        self.log = logger
        self._patience = reconnect_timeout
        self.max_payload = max_payload
        self._server = found
        self._broken: BaseException | None = None
        self._halted = threading.Event()
        self._closing = self._all_stored = False
        self._remarks = Remarks(logger)
        self._bee: Employer | None = None
        self._memory: Memory | None = None
        self.lender: Lender | None = None  # for large arguments, where a bee of our own can have them
        self.on_interrupt: Callable[[BaseException], None] = lambda _: None  # of who waits for a future
        # One object each for all futures.
        self._cancel, self._pass_on, self._output_of = self.cancel, self._interrupted, self._read_output
        self._dispatcher = Dispatcher()
        self._call_later = self._dispatcher.put
        self._given_up: queue.SimpleQueue[deque[JobFuture]] = queue.SimpleQueue()
        self.signer = Signer(key, jobset.uuid)
        connection = Connection(found.dsn, application="workerbee control")
        self._desk = Desk.at(connection, jobset, self.signer, uuid4(), logger)
        self._ledger = Ledger()
        self._watcher = Watcher(self._desk.another("watcher"), self._ledger, self._dispatcher)
        self._flusher = Flusher(self._desk.another("flusher"), self._ledger, self._watcher)
        self._cancelling = Cancelling(self._desk, self._ledger, self._flusher)
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
        self._remarks.on(function, call, unique=unique)
        self.latest = function
        future = JobFuture(self._cancel, self._call_later, self._pass_on, self._output_of)
        if call.codec == MEMORY and self._memory is not None:
            future.lent = self._memory.lent(call.data)
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

    def await_runs(self, runs: Iterable[tuple[int, int]], *, ours: bool) -> list[JobFuture]:
        """Futures of these (job, run), which are stored already; ``ours``: their cancellation is the jobs'."""
        futures = []
        for job, run in runs:
            future = JobFuture(self._cancel, self._call_later, self._pass_on, self._output_of)
            future.job, future.run, future.queued, future.inserted = job, run, False, ours
            futures.append(future)
        self._ledger.expect(futures)
        self._watcher.ask([job for job, _ in runs])
        return futures

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
        """Nothing can be done any more: every future gets the reason."""
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
        for future in dict.fromkeys([*self._flusher.pending(), *self._ledger.clear()]):
            if not future.done():
                future.resolve(None, error)

    def _interrupted(self, interrupt: BaseException) -> None:
        self.on_interrupt(interrupt)

    # Cancelling

    def cancel(self, future: JobFuture) -> bool:
        """Cancel a job unless it has begun; True if its future may be cancelled: it won't run or isn't ours to stop."""
        return self._cancelling.cancel(future) or (future.job is None and self._broken is not None)

    def cancel_queued(self) -> int:
        """Cancel what isn't stored yet; how many."""
        return self._cancelling.withdraw(self._flusher.pending())[0]

    def cancel_running(self, futures: Iterable[JobFuture] | None = None) -> int:
        """End jobs as cancelled, also those that run; their runners are killed. How many."""
        return self._cancelling.cancel_running(self._awaited() if futures is None else futures)

    def _awaited(self) -> list[JobFuture]:
        """All futures that haven't ended, of calls that are stored and of those that aren't yet."""
        return [*self._flusher.pending(), *self._ledger.futures()]

    def give_up(self, futures: deque[JobFuture]) -> None:
        """Nobody wants these any more: a temporary jobset's jobs are cancelled, others go on without us.

        The garbage collector may ask for it, in any thread and with any lock held; then the watcher does it soon.
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
        """The jobset's functions, for the caller's own thread."""
        return Registry(ClientStore(connection, self.jobset, self._desk.writer), self.jobset, self.signer, self.log)

    def forget_functions(self) -> None:
        """Look at functions anew: something was adopted."""
        self._flusher.registry.forget()

    def look(self) -> None:
        """Look at once whether what is waited for has ended."""
        self._watcher.look()

    # Bees of our own

    def employ(self, n_workers: int, max_tasks_per_child: int | None, *, prefix_output: bool = False) -> None:
        """Have a local bee with so many runners until the end."""
        if self.jobset.is_temporary and (memory := Memory.make()) is not None:
            self._memory = self._watcher.memory = memory
            self.lender = Lender(memory)
        orders = Orders(
            self._server.dsn,
            number=self.jobset.number,
            workers=n_workers,
            busywait=True,
            max_tasks_per_child=max_tasks_per_child,
            max_payload=self.max_payload,
            prefix_output=prefix_output,
            reconnect_timeout=self._patience,
            log_level=max(logging.WARNING, self.log.getEffectiveLevel()),
            memory="" if self._memory is None else self._memory.path,
        )
        self.n_local = n_workers
        self._bee = Employer(self.jobset.name, orders, log=self.log, give_up=self._break)

    # Reading

    def _read_output(self, future: JobFuture) -> Output:
        """Read what its job has printed."""
        if future.job is None:
            return Output.of(NOTHING)
        with self.reading() as connection:
            return output_of(JobsetReader(connection, self.jobset), future.job, future.run)

    def reading(self, patience: float | None = None) -> AbstractContextManager[Connection]:
        """A connection for the caller's own thread, also after the end. Raises JobsetNotFoundError.

        An outage is waited out; with ``patience``, each query has so many seconds instead.
        """
        return spectators.reading(self._server, self.jobset, self.log, outage=self._patience, patience=patience)

    def live_runners(self) -> int:
        """Count the runners that could do this jobset's jobs now."""
        with self.reading(QUERY_SECONDS) as connection:
            return Catalogue(connection).live_runners(self.jobset.number)

    # Ending

    def close(self, *, cancel: bool = False) -> None:
        """Take no more calls; with ``cancel`` take back what has not started; end when all the rest is done."""
        if self.ended.is_set():
            return
        self._closing = True
        if cancel:
            self._cancelling.cancel_waiting(self._awaited())
        self._flusher.close()
        self._watcher.wake()

    def detach_and_close(self, patience: float | None = None) -> None:
        """End as soon as all is stored, and wait so long for that; what isn't done goes on without us."""
        if self.ended.is_set():
            return
        self._closing = True
        try:
            self.flush(patience)
        except TimeoutError:
            self.log.warning("%d calls are still being stored", len(self._flusher.pending()))
        except BrokenWorkerbeeError as error:
            self.log.warning("not everything could be stored: %s", error)
        finally:
            self._cancelling.detach(self._awaited())
            self.close()

    def abandon(self) -> None:
        """End now, and leave undone what isn't done: of a temporary jobset, whose results nobody else can have."""
        self._closing = True
        futures = self._awaited()
        self._flusher.withdraw(futures, 0.0)
        self._cancelling.detach(futures)
        self.close()

    def quit(self) -> None:
        """End without another wait: what the local bee runs is given back."""
        self._closing = True
        if self._bee is not None:
            self._bee.stop()
        self.ended.set()

    def wait(self) -> None:
        """Wait for the end. Raises RuntimeError in a callback: it would wait for itself."""
        if self._dispatcher.is_caller():
            raise RuntimeError("a callback can't wait for the end of its executor; use shutdown(wait=False) there")
        self.ended.wait()

    def disown(self) -> None:
        """In a forked child: all of this is the parent's, and nothing here ever ends by itself."""
        self._broken = BrokenWorkerbeeError("an executor doesn't survive a fork; make a new one in the child process")
        self.ended = threading.Event()  # the old one's lock may be held by a thread that isn't here
        self.ended.set()
        if self._bee is not None:
            self._bee.disown()
        if self._memory is not None:
            self._memory.disown()

    def _end(self) -> None:
        """The last thread is done: let callbacks and the local bee finish, and drop what was temporary."""
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
        self._threads = []  # which are kept by nobody, whatever keeps this
        self.ended.set()
