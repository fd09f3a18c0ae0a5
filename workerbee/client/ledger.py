"""The ledger: the futures that this process waits for, by job, from before their rows can be seen until they end."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Iterable

from workerbee.client.futures import JobFuture
from workerbee.wire.job import Stored

#: Jobs that are compared at once in search of a gap between their ids.
STRIDE_JOBS = 500
#: First job, last job, run.
Range = tuple[int, int, int]


class Ledger:
    """Futures by the job that they wait for; any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._futures: dict[int, list[JobFuture]] = {}
        self._reopened: set[int] = set()  # jobs that a future waits for in another run than the first
        self._early: set[int] = set()  # jobs whose end was seen before their ids were confirmed

    def __len__(self) -> int:
        """Count the jobs that are waited for."""
        return len(self._futures)

    def __contains__(self, job: int) -> bool:
        return job in self._futures

    def locked(self) -> bool:
        """Tell whether a thread, maybe this one, holds the ledger's lock."""
        return self._lock.locked()

    def expect(self, futures: Iterable[JobFuture]) -> None:
        """Book futures under their jobs. It is called before anybody can see the rows.

        Futures without a run wait for `confirm`: their ids may turn out to belong to other jobs.
        """
        with self._lock:
            for future in futures:  # this loop is run for each job, hence in few steps
                booked = self._futures.get(future.job)  # type: ignore[arg-type]
                if future.wanted and (booked is None or future not in booked):
                    self._book(future)

    def confirm(self, futures: Iterable[JobFuture]) -> set[int]:
        """Note that these futures' ids are really theirs. Returns the jobs whose end was seen already."""
        with self._lock:
            jobs = set()
            for future in futures:
                if future.run is None and future.job is not None:
                    future.run = 1
                    jobs.add(future.job)
            seen = jobs & self._early
            self._early -= jobs
        return seen

    def disclaim(self, futures: Iterable[JobFuture]) -> None:
        """Note that these futures' ids belong to other jobs: the futures have no job now."""
        with self._lock:
            for future in futures:
                self._remove(future)
                self._early.discard(future.stored_job)
                future.job = None

    def move(self, moves: Iterable[tuple[JobFuture, int, int]]) -> None:
        """Let futures wait for another (job, run) than they were booked under."""
        with self._lock:
            for future, job, run in moves:
                self._remove(future)
                self._early.discard(future.job or 0)
                future.job, future.run = job, run
                if future.wanted:
                    self._book(future)

    def forget(self, futures: Iterable[JobFuture]) -> None:
        """Stop waiting for these futures."""
        with self._lock:
            for future in futures:
                future.wanted = False
                job = future.job or 0
                booked = self._futures.get(job)
                if booked is not None and len(booked) == 1 and booked[0] is future:  # as nearly all are
                    del self._futures[job]
                else:
                    self._remove(future)

    def take(self, ends: Iterable[Stored]) -> list[tuple[Stored, list[JobFuture]]]:
        """Take out the futures that these ended runs resolve."""
        taken = []
        with self._lock:
            for end in ends:
                booked = self._futures.get(end.job)
                if booked is None:
                    continue
                if len(booked) == 1 and booked[0].run == end.run and not booked[0].is_held:  # as nearly all are
                    taken.append((end, self._futures.pop(end.job)))
                    continue
                if any(f.run is None for f in booked):
                    self._early.add(end.job)
                futures = [f for f in booked if f.run == end.run and not f.is_held]
                if len(futures) == len(booked):
                    del self._futures[end.job]
                else:
                    chosen = set(futures)  # not asked again: another thread may let go of one just now
                    self._futures[end.job] = [f for f in booked if f not in chosen]
                if futures:
                    taken.append((end, futures))
        return taken

    def is_shared(self, future: JobFuture) -> bool:
        """Tell whether another future of this process waits for the same job."""
        with self._lock:
            return future.job is not None and len(self._futures.get(future.job, ())) > 1

    def ranges(self) -> list[Range]:
        """Give all jobs that are waited for as sorted ranges of neighbouring ids."""
        with self._lock:
            self._reopened &= self._futures.keys()
            first = sorted(self._futures.keys() - self._reopened if self._reopened else self._futures)
            later = {(job, future.run or 1) for job in self._reopened for future in self._futures[job]}
        return sorted([*_first_runs(first), *((job, job, run) for job, run in later)])

    def of(self, runs: Iterable[tuple[int, int]]) -> list[JobFuture]:
        """Give the futures of these (job, run)."""
        with self._lock:
            return [f for job, run in runs for f in self._futures.get(job, ()) if f.run == run]

    def newest(self, n: int, *, before: int | None) -> list[tuple[int, int]]:
        """Give (job, run) of the last ``n`` stored jobs in here, of those ``before`` an id (None: of all)."""
        with self._lock:
            jobs = heapq.nlargest(n, self._futures if before is None else (j for j in self._futures if j < before))
            return [(job, run) for job in jobs for run in {f.run for f in self._futures[job]} if run is not None]

    def futures(self) -> list[JobFuture]:
        """Give all futures."""
        with self._lock:
            return [f for booked in self._futures.values() for f in booked]

    def clear(self) -> list[JobFuture]:
        """Remove and return all futures."""
        with self._lock:
            futures = [f for booked in self._futures.values() for f in booked]
            self._futures.clear()
        return futures

    def _book(self, future: JobFuture) -> None:
        self._futures.setdefault(future.stored_job, []).append(future)
        if future.run not in (None, 1):
            self._reopened.add(future.stored_job)

    def _remove(self, future: JobFuture) -> None:
        job = future.job
        booked = self._futures.get(job) if job is not None else None
        if job is not None and booked and future in booked:
            if len(booked) > 1:
                booked.remove(future)
            else:
                del self._futures[job]


def _first_runs(jobs: list[int]) -> list[Range]:
    """Give the first runs of these sorted jobs as ranges; jobs without a gap between them aren't looked at singly."""
    ranges: list[Range] = []
    for start in range(0, len(jobs), STRIDE_JOBS):
        some = jobs[start : start + STRIDE_JOBS]
        if some[-1] - some[0] == len(some) - 1:
            begin = ranges.pop()[0] if ranges and ranges[-1][1] == some[0] - 1 else some[0]
            ranges.append((begin, some[-1], 1))
            continue
        begin = last = some[0]
        for job in some:
            if job > last + 1:
                ranges.append((begin, last, 1))
                begin = job
            last = job
        ranges.append((begin, last, 1))
    return ranges
