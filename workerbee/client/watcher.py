"""The watcher is the thread that resolves futures. It asks for the ids that are waited for, and for no others.

A hint says which to ask for first, and may carry a small result; whatever it carries is used only if its
signature holds. Without hints the thread polls. It runs no user code: the dispatcher does.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial

from workerbee.client.desk import Desk
from workerbee.client.dispatcher import HELD_UP_SECONDS, Dispatcher
from workerbee.client.futures import JobFuture
from workerbee.client.ledger import Ledger
from workerbee.errors import JobLostError, JobsetNotFoundError
from workerbee.memory import MEMORY, Memory
from workerbee.resources import Few
from workerbee.store import parse_hint
from workerbee.timing import TOUCH_SECONDS
from workerbee.wake import Wake
from workerbee.wire import codec
from workerbee.wire.causes import cause_of_record
from workerbee.wire.ends import decode, failure, holds
from workerbee.wire.job import Stored
from workerbee.wire.signing import Signer

#: Seconds between looks that no hint asked for: while hints are heard, and while they can't be.
POLL_SECONDS, DEAF_POLL_SECONDS = (0.5, 1.0), (0.005, 0.1)
#: Without hints, an end may be seen late by this share of the time since the last end, but by at most a second.
LATE_SHARE = 0.002
#: A watcher that hears hints and waits for nothing looks at the ledger this often, so that nobody needs to wake it.
IDLE_SECONDS = 0.25
#: Ended jobs, ranges of jobs, and seconds in one look; the pause after it is so many times as long as the look.
PAGE_JOBS, MOST_RANGES, LOOK_SECONDS, REST_FACTOR = 1000, 1000, 0.5, 10
#: Functions that a warning names.
NAMED_FUNCTIONS = 5
#: Seconds between looks at which jobs have begun.
BEGUN_SECONDS = 0.1
#: After so many seconds without an end, see whether there are bees to do the work; and the longest pause between looks.
NO_BEES_SECONDS, SELDOM_SECONDS = 10.0, 60.0


class Watcher:
    """Resolves the futures in the ledger. ``run`` is the thread's body; the others are for any thread."""

    def __init__(self, desk: Desk, ledger: Ledger, dispatcher: Dispatcher) -> None:
        self._connection, self._catalogue, self._store, self._jobset, self._signer, _, self._log = desk
        self.memory: Memory | None = None  # the large results of the local bee
        self.look_closer: Callable[[Stored, BaseException], None] = lambda *_: None  # at a result that can't be had
        self._ledger = ledger
        self._dispatcher = dispatcher
        self._asked: deque[int] = deque()
        self._wake = Wake()
        self._pause = POLL_SECONDS[0]
        self._next_poll = self._next_touch = self._next_begun = 0.0
        self._generation = self._successions = 0
        self._position = 0  # the job up to which the last look has come, if it had to stop
        self._waiting_since: float | None = None
        self._next_census = 0.0
        self._warned: Few[str] = Few()  # the reasons that were warned of; "": there are no bees
        self._said_deaf = self._look_soon = False
        self._doubts = False  # whether the server may have lost commits
        self._before: int | None = None  # the jobs before this one are the next to be looked for

    def expect(self) -> None:
        """Note that the ledger has new jobs. The thread is woken only if no hint would tell it of their ends."""
        if self._connection.is_deaf:
            self._wake.set()

    def ask(self, jobs: Iterable[int]) -> None:
        """Look at these jobs at once: they may have ended long ago."""
        self._asked.extend(jobs)
        self._wake.set()

    def look(self) -> None:
        """Look soon at all jobs that are waited for."""
        self._look_soon = True
        self._wake.set()

    def wake(self) -> None:
        """Wake the thread, to see whether there is still something to do."""
        self._wake.set()

    def run(self, patiently: Callable[[Callable[[], None]], None], more: Callable[[], bool]) -> None:
        """Watch as long as ``more()``; ``patiently`` calls again what an outage interrupts."""
        self._connection.listen([f"workerbee$done${self._jobset.number}"])
        hints: list[str] = []
        try:
            while more():
                patiently(partial(self._look, hints))
                hints = [payload for _, payload in self._connection.wait(self._sleep(), self._wake)]
        finally:
            self._connection.close()
            self._wake.close()

    def _sleep(self) -> float:
        """Give the seconds until something is due; a hint or a question ends the sleep earlier."""
        timers = [time.monotonic() + (3600.0 if self._connection.is_deaf else IDLE_SECONDS)]
        if self._jobset.is_temporary:
            timers.append(self._next_touch)
        if self._asked:
            timers.append(0.0)
        if self._dispatcher.is_behind():
            timers.append(time.monotonic() + HELD_UP_SECONDS)
        if self._ledger:
            timers += [self._next_poll, self._next_begun]
        return max(0.0, min(timers) - time.monotonic())

    def _look(self, hints: list[str]) -> None:
        """Go one round: take what hints say, ask for what was asked for, and look at the others in turn."""
        now = time.monotonic()
        self._dispatcher.tend()
        if self._connection.generation != self._generation:  # the connection is new, and hints may have been missed
            self._doubts = bool(self._generation)  # another server may have taken its place
            self._generation, self._before = self._connection.generation, None
            self._look_soon = True
        if self._connection.lineage.successions != self._successions:
            self._disown()
        if self._look_soon:
            self._look_soon = False
            self._next_poll = 0.0
        if self._jobset.is_temporary and now >= self._next_touch:
            if not self._catalogue.touch_client(self._jobset):
                raise JobsetNotFoundError(self._jobset.name, dropped=True)
            self._next_touch = now + TOUCH_SECONDS
            if self.memory is not None:
                self.memory.tidy(self._ledger.__contains__)
        found = self._fetch(self._wanted(hints))
        if self._ledger and now >= self._next_poll:
            self._poll(now, found)
        if self._ledger and now >= self._next_begun:
            self._mark_begun()
        if not self._ledger:
            self._waiting_since = None
        if self.memory is not None:
            self.memory.spares.rest(is_idle=not self._ledger)

    def _wanted(self, hints: list[str]) -> list[int]:
        """List the jobs to ask for: those hinted at whose result didn't come along, and those asked for."""
        wanted: list[int] = []
        for hint in hints:
            jobs, ends = parse_hint(hint)
            good = [end for end in ends if holds(end, self._signer)]
            self._resolve(good)
            wanted += [job for job in jobs if job in self._ledger]
            if not jobs and not good:
                self._next_poll = 0.0
        while self._asked:
            wanted.append(self._asked.popleft())
        return wanted

    def _fetch(self, jobs: list[int]) -> int:
        found = 0
        for ends in self._store.finished(jobs):
            found += self._resolve(ends)
        return found

    def _poll(self, now: float, found: int) -> None:
        """Look at all that is waited for, and decide when to look again."""
        found += self._sweep(now + LOOK_SECONDS)
        deaf = self._connection.is_deaf  # known only after the connection was used
        if deaf and not self._said_deaf:
            self._log.info("this connection hears no notifications (a pooler?): looking for results by polling")
            self._said_deaf = True
        after = time.monotonic()
        first, most = DEAF_POLL_SECONDS if deaf else POLL_SECONDS
        if found or self._waiting_since is None:
            self._waiting_since, self._pause = after, first
        elif not self._position:
            most = max(most, min(1.0, LATE_SHARE * (after - self._waiting_since)), REST_FACTOR * (after - now))
            self._pause = min(most, self._pause * 2)
        self._next_poll = after + self._pause
        waited = after - self._waiting_since
        is_time = waited > NO_BEES_SECONDS and after >= self._next_census
        if self._doubts or is_time:
            self._give_up_lost()
        if is_time:
            self._next_census = after + min(SELDOM_SECONDS, waited)
            self._warn_if_nobody_works()

    def _sweep(self, deadline: float) -> int:
        """Ask for all that is waited for, from where the last look had to stop. Returns how many have ended."""
        found = 0
        left = [(max(a, self._position + 1), b, run) for a, b, run in self._ledger.ranges() if b > self._position]
        while left and time.monotonic() < deadline:
            ranges, left = left[:MOST_RANGES], left[MOST_RANGES:]
            jobs = self._store.ended(ranges, PAGE_JOBS)
            found += self._fetch(jobs)
            self._position = jobs[-1] if len(jobs) == PAGE_JOBS else ranges[-1][1]
            if len(jobs) == PAGE_JOBS:
                return found
        if not left:
            self._position = 0
        return found

    def _give_up_lost(self) -> None:
        """End futures whose jobs were deleted, which would wait for ever. The newest are the likeliest to be lost.

        The end is recorded first, so that the same call, submitted again, is run.
        """
        runs = self._ledger.newest(PAGE_JOBS, before=self._before)
        lost = self._store.losses.lost(runs) if runs else []
        if lost:
            ends = [failure(job, run, self._signer, JobLostError(self._jobset.name, job)) for job, run in lost]
            self._store.losses.give_up(ends, cause_of_record(ends[0].data).digest)
        futures = self._ledger.of(lost)
        self._before = runs[-1][0] if len(runs) >= PAGE_JOBS else None
        self._doubts = bool(futures) and self._before is not None
        self._give_up(futures)

    def _give_up(self, futures: list[JobFuture]) -> None:
        if futures:
            self._log.warning("%d jobs of %s are in the database no more", len(futures), self._jobset.name)
        self._ledger.forget(futures)
        for future in futures:
            future.resolve(None, JobLostError(self._jobset.name, future.stored_job))

    def _disown(self) -> None:
        """Give up futures whose jobs are other calls' by now, before a server is believed that may lack commits."""
        successions = self._connection.lineage.successions
        futures = [future for future in self._ledger.futures() if future.run is not None]
        for start in range(0, len(futures), PAGE_JOBS):
            page = futures[start : start + PAGE_JOBS]
            known = self._store.known([(future.stored_job, future.sign) for future in page])
            self._give_up([future for future in page if (future.stored_job, future.sign) not in known])
        self._successions = successions

    def _warn_if_nobody_works(self) -> None:
        n = self._catalogue.live_bees(self._jobset.number)
        name = self._jobset.name
        if n == 0:
            start = f"{sys.executable} -m workerbee.bee {self._jobset.id or ''}"
            self._warn("", f"jobs wait in {name} and no bee is there to do them; start one with: {start}")
        functions: dict[tuple[int, str, str], list[str]] = {}
        for function, refusing, host, reason in self._store.refused():
            functions.setdefault((refusing, host, reason), []).append(function)
        for (refusing, host, reason), names in functions.items():
            what = ", ".join(names[:NAMED_FUNCTIONS]) + (" …" if names[NAMED_FUNCTIONS:] else "")
            who = f"{refusing} of {n} bees that are there can't" if n else "the bees that were there couldn't"
            self._warn(reason, f"jobs of {what} wait in {name}, and {who} run them: on {host}, {reason}")

    def _warn(self, reason: str, message: str) -> None:
        """Warn for each reason once."""
        if reason not in self._warned:
            self._warned.add(reason)
            self._log.warning("%s", message)

    def _mark_begun(self) -> None:
        began = time.monotonic()
        for future in self._ledger.of(self._store.begun()):
            future.begin()
        now = time.monotonic()
        self._next_begun = now + max(BEGUN_SECONDS, 20 * (now - began))

    # What an end says

    def _resolve(self, ends: Iterable[Stored]) -> int:
        """Resolve the futures of these runs. Returns how many of the runs were waited for.

        A future that was taken from the ledger is resolved in any case: here if that calls no user code, otherwise by
        the dispatcher.
        """
        taken = deque(self._ledger.take(ends))
        n = len(taken)
        while taken:  # no variable keeps what is resolved, so that a caller's `del` frees it
            end, futures = taken.popleft()
            if self.memory is not None and end.status == "completed":
                # At its end a job's arguments are freed; its result stays as long as its futures.
                is_lent = end.codec == MEMORY and holds(end, self._signer)
                lent = self.memory.lent(end.data) if is_lent else None
                # A later run may be a retry of what is remembered.
                if lent is not None and (end.run > 1 or any(future.is_remembered for future in futures)):
                    self.memory.remember(lent)
                for future in futures:
                    future.lent = lent
                lent = None
            if end.codec == codec.JSON or end.status == "cancelled":
                _resolve_run(end, futures, self._signer, self.look_closer)
            else:
                self._dispatcher.put(partial(_resolve_run, end, futures, self._signer, self.look_closer))
            del end, futures
        return n


def _resolve_run(
    end: Stored, futures: list[JobFuture], signer: Signer, look_closer: Callable[[Stored, BaseException], None]
) -> None:
    for future in futures:
        if end.status == "cancelled":
            future.abandon()
        else:
            value, error = decode(end, signer)  # each future gets a value of its own
            if error is not None and end.status == "completed":
                look_closer(end, error)
            future.resolve(value, error)
            del value
