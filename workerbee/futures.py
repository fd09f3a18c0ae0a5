"""The future of one job: a real `concurrent.futures.Future` that asks the database before it is cancelled."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING, RUNNING
from contextlib import suppress
from typing import Any

# Held to make what others wait on, and to end a future that nobody has looked at: one or the other is first.
# A thread may hold it twice: a signal's handler and a finalizer look at futures wherever they interrupt.
_OBSERVING = threading.RLock()
if hasattr(os, "register_at_fork"):  # a child may ask a future of its parent's
    os.register_at_fork(
        before=_OBSERVING.acquire,
        after_in_child=_OBSERVING._at_fork_reinit,  # type: ignore[attr-defined]  # noqa: SLF001 (as concurrent.futures does)
        after_in_parent=_OBSERVING.release,
    )


class _Observed:
    """An attribute that is made by the first look at it, which also notes that somebody has looked."""

    def __set_name__(self, _owner: type[JobFuture], name: str) -> None:
        self._name = name

    def __get__(self, future: JobFuture | None, _owner: type[JobFuture] | None = None) -> Any:
        if future is None:
            return self
        future.observe()
        return vars(future)[self._name]


class JobFuture(Future[Any]):
    """Resolves from the job's row. ``job`` and ``run`` name it once it is stored.

    What a `Future` needs for those who wait for it (its condition and lists, a dozen objects) is made when
    the first one looks. Most of many futures have ended by then, and what was never made needs no time of
    the garbage collector, which with 20,000 futures took half of all that a client does.
    """

    _condition: Any = _Observed()
    _waiters: Any = _Observed()
    _done_callbacks: Any = _Observed()

    # The superclass's __init__ would make all of these.
    def __init__(self, cancel_job: Callable[[JobFuture], bool]) -> None:
        self._state = PENDING
        self._result = None
        self._exception = None
        self._observed = False
        self._cancel_job = cancel_job
        self.job: int | None = None
        self.run: int | None = None
        self.queued = True  # not yet taken by the flusher
        self.wanted = True  # somebody may still wait for it
        self.inserted = False  # this process brought the job, rather than found it

    def observe(self) -> None:
        """Make what somebody can wait on."""
        made = {"_condition": threading.Condition(), "_waiters": [], "_done_callbacks": []}
        with _OBSERVING:
            for name, thing in made.items():
                vars(self).setdefault(name, thing)  # what the same thread has made meanwhile stays
            self._observed = True

    def result(self, timeout: float | None = None) -> Any:
        """The job's result; see `concurrent.futures.Future.result`."""
        if self._state == FINISHED and self._exception is None:
            return self._result  # set before the state was
        return super().result(timeout)

    @property
    def stored_job(self) -> int:
        """The job's id, of a future that has one."""
        assert self.job is not None  # noqa: S101
        return self.job

    @property
    def stored_run(self) -> int:
        """The run that it waits for, of a future that has a job."""
        assert self.run is not None  # noqa: S101
        return self.run

    @property
    def ended(self) -> bool:
        """As `done()`, without making what somebody could wait on."""
        return self._state in (CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED)

    def cancel(self) -> bool:
        """Cancel the job if it isn't running and nobody else waits for it.

        A job that a bee has begun and given back, or that waits for another attempt, isn't running,
        though its future goes on to say so. Waits at most a second for the database; False if the job
        runs, has ended, or can't be reached in time.
        """
        if self.done():
            return self.cancelled()
        return self.abandon() if self._cancel_job(self) else self.cancelled()  # by another thread, meanwhile

    def abandon(self) -> bool:
        """Cancel this future alone, whatever its job does; False if it has ended otherwise."""
        with _OBSERVING:
            if not self._observed:
                if self._state != FINISHED:
                    self._state = CANCELLED_AND_NOTIFIED
                return self._state != FINISHED
        with self._condition:
            if self._state == FINISHED:
                return False
            if self._state in (CANCELLED, CANCELLED_AND_NOTIFIED):
                return True
            self._state = CANCELLED
            # Waiters are told at once (python/cpython#136655): nobody else will pick this future up.
            self.set_running_or_notify_cancel()
            self._condition.notify_all()
        self._invoke_callbacks()  # type: ignore[attr-defined]
        return True

    def begin(self) -> None:
        """The job may have started."""
        with _OBSERVING:
            if not self._observed:
                self._state = RUNNING if self._state == PENDING else self._state
                return
        with self._condition:
            if self._state == PENDING:
                self.set_running_or_notify_cancel()

    def resolve(self, value: Any, error: BaseException | None) -> None:
        """End with a value or an error, unless it has ended before."""
        with _OBSERVING:
            if not self._observed:
                if self._state != FINISHED:
                    self._result, self._exception = value, error
                    self._state = FINISHED
                return
        # After a COMMIT whose answer was lost, a call may be found to have run already that a hint resolves too.
        with suppress(InvalidStateError):
            if error is not None:
                self.set_exception(error)
            else:
                self.set_result(value)
