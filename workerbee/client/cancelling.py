"""Cancelling: calls that are still queued are taken back, and stored jobs are ended in the database, page by page.

The server also ends a statement that isn't answered in time, before the next one begins. So however often somebody
cancels, the server executes one statement at most.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from operator import attrgetter
from typing import TypeVar

from workerbee.client.desk import Desk
from workerbee.client.flusher import Flusher
from workerbee.client.futures import JobFuture, abandon_all, not_ended
from workerbee.client.ledger import Ledger
from workerbee.store import Cancelled, backoff, is_dropped, is_passing

T = TypeVar("T")

#: Seconds that the database may take to cancel one future, and each page of many.
PATIENCE_SECONDS, PAGE_PATIENCE_SECONDS = 1.0, 10.0
#: Jobs in a page at first and at most, and the seconds that it should take.
PAGE_JOBS, PAGE_SECONDS = (2_000, 20_000), (0.1, 0.4)
_JOB, _RUN, _BOTH = attrgetter("job"), attrgetter("run"), attrgetter("job", "run")
#: Seconds that bees have to give back jobs that they have not begun, and after which they are asked again.
RECALL_SECONDS, RECALL_AGAIN_SECONDS = 0.25, 1.0
#: Tries to cancel jobs whose batches bees were just changing.
TRIES = 5


class Cancelling:
    """Cancels futures and their jobs; any thread may use it."""

    def __init__(self, desk: Desk, ledger: Ledger, flusher: Flusher, ask: Callable[[list[int]], None]) -> None:
        """``ask`` has the watcher look at these jobs."""
        self._connection, self._catalogue, self._store, self._jobset, *_, self._log = desk
        self._ledger = ledger
        self._flusher = flusher
        self._ask = ask
        self._busy = threading.Lock()  # held while a statement is executed
        self._page = PAGE_JOBS[0]
        self._recalled_at = -RECALL_AGAIN_SECONDS

    @property
    def is_busy(self) -> bool:
        """Tell whether a thread, maybe this one, waits for the database here."""
        return self._busy.locked()

    def cancel(self, future: JobFuture) -> bool:
        """Cancel a job unless it has begun; True if its future may end: the job won't run, or others want it."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        taken, under_way = self._flusher.withdraw([future], deadline)
        if taken or under_way:
            return bool(taken)
        self._flusher.wait_until_quiet(deadline)  # another call that is being stored may turn out to be this job
        if future.job is None:
            return False
        if self._ledger.is_shared(future) or not future.inserted:
            if future.running():
                return False
            self._ledger.forget([future])
            return True
        attempt, left = _Attempt(PATIENCE_SECONDS, self._ledger.forget), [future]
        future.is_held = True  # else the watcher, which hears of it, might be faster, and call back in another thread
        try:
            for _ in range(TRIES):
                left = self._cancel_page(left, attempt) if left else left
            if future.wanted and self._is_cancelled(future, attempt):
                self._ledger.forget([future])
            self._recall([future], attempt)
        except BaseException:  # an interrupt, say
            if not future.wanted:
                future.abandon()
            raise
        finally:
            future.is_held = False
            if future.wanted:
                self._ask([future.job])  # an end may have been passed over
        return not future.wanted

    def _is_cancelled(self, future: JobFuture, attempt: _Attempt) -> bool:
        """Look whether somebody else has just cancelled the job."""
        ends = self._within(attempt, lambda: list(chain(*self._store.finished([future.stored_job]))))
        return any(end.run == future.run and end.status == "cancelled" for end in ends or ())

    def cancel_waiting(self, futures: Iterable[JobFuture]) -> None:
        """Cancel the jobs that haven't started, and their futures; a job that others want goes on without us."""
        _, stored = self.withdraw(futures)
        ours = [f for f in stored if f.inserted]
        attempt = _Attempt(PAGE_PATIENCE_SECONDS, self.detach)
        left = self._cancel_stored(ours, attempt)
        self._recall(ours, attempt)
        self._say_left([f for f in left if f.wanted and not f.ended], attempt)
        self.detach(f for f in stored if not f.inserted and not f.running())

    def cancel_running(self, futures: Iterable[JobFuture]) -> int:
        """End jobs as cancelled, also running ones, whose runners are killed. Returns how many."""
        n, stored = self.withdraw(futures)
        attempt = _Attempt(PAGE_PATIENCE_SECONDS)
        self._say_left(self._cancel_stored(stored, attempt), attempt)
        return n + attempt.n_cancelled

    def withdraw(self, futures: Iterable[JobFuture]) -> tuple[int, list[JobFuture]]:
        """Cancel the calls that are still queued. Returns how many, and the futures of stored ones."""
        chosen = not_ended(futures)
        taken, under_way = self._flusher.withdraw(chosen, time.monotonic() + PAGE_PATIENCE_SECONDS)
        abandon_all(taken)
        if under_way:
            self._log.warning("%d calls are just being stored, and were not cancelled", len(under_way))
        if taken or under_way:
            chosen = [future for future in chosen if not (future in taken or future in under_way)]
        return len(taken), [future for future in chosen if future.run is not None]

    def detach(self, futures: Iterable[JobFuture]) -> None:
        """Cancel these futures, and leave their jobs alone."""
        futures = list(futures)
        self._ledger.forget(futures)
        abandon_all(futures)

    def _cancel_stored(self, futures: list[JobFuture], attempt: _Attempt) -> list[JobFuture]:
        """Cancel these, page by page. Returns those that are left, as they were changing or there was no time."""
        left = sorted(sorted(futures, key=_JOB), key=_RUN)  # quicker than by pairs: most are in order
        for _ in range(TRIES):
            left = [f for page in self._pages(left, attempt) for f in self._cancel_page(page, attempt)]
            if not left or attempt.is_over:
                break
        return left

    def _say_left(self, left: list[JobFuture], attempt: _Attempt) -> None:
        if left:
            self._log.warning(
                "%d jobs of %s were cancelled, and %d were not: %s",
                attempt.n_cancelled,
                self._jobset.name,
                len(left),
                attempt.trouble or "bees were just changing what they hold",
            )

    def _pages(self, futures: list[JobFuture], attempt: _Attempt) -> Iterator[list[JobFuture]]:
        """Divide the futures into pages, each with its own time limit; the end after one that took too long."""
        start = 0
        while start < len(futures):
            if attempt.is_over:
                yield futures[start:]
                return
            attempt.goes_on()
            yield futures[start : (start := start + self._page)]

    def _cancel_page(self, page: list[JobFuture], attempt: _Attempt) -> list[JobFuture]:
        """Cancel these in one statement. Returns those that are left, as `_cancel_stored` does."""
        answer = self._within(attempt, lambda: self._cancel(list(map(_BOTH, self._known(page))), attempt))
        if answer is None:
            return page
        attempt.n_cancelled += answer.n
        if attempt.let_go is not None:
            attempt.let_go(page if answer.jobs is None else _of(page, answer.jobs))
        return _of(page, [job for job, _ in answer.undecided])

    def _known(self, page: list[JobFuture]) -> list[JobFuture]:
        """Leave out what a server has lost that took another's place: its ids may be other calls' by now."""
        if not self._connection.lineage.successions:
            return page
        known = self._store.known([(future.stored_job, future.sign) for future in page])
        return [future for future in page if (future.stored_job, future.sign) in known]

    def _recall(self, futures: Iterable[JobFuture], attempt: _Attempt) -> None:
        """Cancel jobs that bees hold and no runner has begun: the bees are asked to give them back."""
        left = [f for f in futures if f.wanted and not f.ended]
        now = time.monotonic()
        if left and now > self._recalled_at + RECALL_AGAIN_SECONDS:
            self._recalled_at = now
            self._within(attempt, lambda: self._catalogue.recall(self._jobset.number))
        until, pause = self._recalled_at + RECALL_SECONDS, 0.005
        while left and not attempt.is_over and time.monotonic() < until:
            time.sleep(pause)
            pause *= 2
            for page in self._pages(left, attempt):
                self._cancel_page(page, attempt)
            left = [f for f in left if f.wanted and not f.ended]

    def _within(self, attempt: _Attempt, action: Callable[[], T]) -> T | None:
        """Run ``action``, and try it again after passing errors; None if there was no answer in time."""
        for pause in backoff():
            if attempt.is_over or not self._busy.acquire(timeout=attempt.left):
                break
            try:
                self._connection.patience = max(0.05, attempt.left)
                return action()
            except Exception as error:
                if not is_passing(error) and not is_dropped(error):
                    raise
                attempt.trouble = " ".join(str(error).split())
                if is_dropped(error):
                    break
            finally:
                self._busy.release()
            time.sleep(min(pause, attempt.left))
        return None

    def _cancel(self, runs: list[tuple[int, int]], attempt: _Attempt) -> Cancelled:
        began = time.monotonic()
        answer = self._store.cancel(runs, running=attempt.let_go is None)
        self._judge(len(runs), time.monotonic() - began)
        return answer

    def _judge(self, n: int, seconds: float) -> None:
        """Make the next page larger if this one was quick, and smaller if it was slow."""
        least, most = PAGE_SECONDS
        if seconds > most:
            self._page = max(PAGE_JOBS[0] // 4, self._page // 2)
        elif seconds < least and n >= self._page:
            self._page = min(PAGE_JOBS[1], self._page * 2)


class _Attempt:
    """One call of a method here: until when there is time, and what it has reached so far.

    ``let_go`` is given the futures of jobs that are cancelled. Without it running jobs are cancelled, too, and futures
    learn of it as of any end.
    """

    def __init__(self, patience: float, let_go: Callable[[list[JobFuture]], None] | None = None) -> None:
        self._patience = patience
        self.let_go = let_go
        self.n_cancelled = 0
        self.trouble = ""
        self.goes_on()

    def goes_on(self) -> None:
        self.deadline = time.monotonic() + self._patience

    @property
    def left(self) -> float:
        return max(0.0, self.deadline - time.monotonic())

    @property
    def is_over(self) -> bool:
        return self.left <= 0


def _of(futures: list[JobFuture], jobs: list[int]) -> list[JobFuture]:
    """Choose the futures that wait for one of these jobs."""
    chosen = set(jobs)
    return [future for future in futures if future.job in chosen]
