"""The future of one job: a real `concurrent.futures.Future` that asks the database before it is cancelled."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from concurrent.futures._base import CANCELLED, PENDING, RUNNING
from contextlib import suppress
from typing import Any


class JobFuture(Future[Any]):
    """Resolves from the job's row. ``job`` and ``run`` name it once it is stored."""

    def __init__(self, cancel_job: Callable[[JobFuture], bool]) -> None:
        super().__init__()
        self._cancel_job = cancel_job
        self.job: int | None = None
        self.run: int | None = None
        self.queued = True  # not yet taken by the flusher
        self.wanted = True  # somebody may still wait for it
        self.inserted = False  # this process brought the job, rather than found it

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
        with self._condition:
            if self._state == RUNNING:
                self._state = PENDING  # a Future that runs would refuse
        if not super().cancel():
            return False
        with self._condition:
            # Waiters are told at once (python/cpython#136655): nobody else will pick this future up.
            if self._state == CANCELLED:
                self.set_running_or_notify_cancel()
        return True

    def begin(self) -> None:
        """The job may have started."""
        with self._condition:
            if self._state == PENDING:
                self.set_running_or_notify_cancel()

    def resolve(self, value: Any, error: BaseException | None) -> None:
        """End with a value or an error, unless it has ended before."""
        # After a COMMIT whose answer was lost, a call may be found to have run already that a hint resolves too.
        self.begin()
        with suppress(InvalidStateError):
            if error is not None:
                self.set_exception(error)
            else:
                self.set_result(value)
