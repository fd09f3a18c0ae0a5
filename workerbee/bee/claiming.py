"""How a bee takes work: from what waits, or from bees that are gone or slow."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import Any, NamedTuple

from workerbee.bee import damper
from workerbee.bee.crew import DEATHS, Crew
from workerbee.bee.damper import Damper
from workerbee.bee.holdings import Held, Served
from workerbee.bee.lookout import Lookout
from workerbee.bee.messages import Unusable
from workerbee.bee.pace import Appetite
from workerbee.bee.presence import Presence
from workerbee.bee.recorder import Recorder
from workerbee.bee.refusals import Refusals
from workerbee.bee.service import Service
from workerbee.bee.shelf import Shelf
from workerbee.bee.tasks import End, Record, Records, Task
from workerbee.errors import DatabaseUnavailableError
from workerbee.store import UNREAD, Fits
from workerbee.timing import LEASE_SECONDS
from workerbee.wire import values
from workerbee.wire.job import NO_FUNCTION, Batch, EndKind, FunctionRow, Jobset

#: Functions that are fetched in one statement, and bytes of functions that the jobs of one claim may need.
MOST_FETCHED, MOST_FUNCTION_BYTES = 16, 16_000_000


class Taken(NamedTuple):
    """The result of a claim: how many jobs it brought, and whether that is as many as were wanted."""

    n: int
    is_sated: bool


class Claiming:
    """Claims jobs, fetches their functions and what they share, and books them.

    ``program`` gives the program of new runners.
    """

    def __init__(
        self,
        service: Service,
        crew: Crew,
        presence: Presence,
        damper: Damper,
        refusals: Refusals,
        recorder: Recorder,
        shelf: Shelf | None,
        *,
        now: float,
        program: Callable[[], bytes],
        only_functionless: bool,
        log: logging.Logger,
    ) -> None:
        self._service = service
        self._holdings = service.holdings
        self._crew = crew
        self._presence = presence
        self._damper = damper
        self._refusals = refusals
        self._recorder = recorder
        self._shelf = shelf
        self._records = Records()
        self._lookout = Lookout(now)
        self._program = program
        self._only_functionless = only_functionless
        self._log = log
        self._bytes_a_job = 0.0  # bytes of functions for each job of the last claim
        #: Jobs taken so far.
        self.n_taken = 0

    def claim(self, appetite: Appetite, now: float) -> Taken:
        """Claim from the first jobset that has work."""
        for jobset in self._service.offers():
            with self._holdings.guard(jobset.number):
                served = self._service.serve(jobset)
                taken = self._claim_of(served, appetite, now)
                if taken.n:
                    return taken
        return Taken(0, is_sated=False)

    def _claim_of(self, served: Served, appetite: Appetite, now: float) -> Taken:
        store = served.store
        wanted = appetite.at_most(min(store.portion, max(1, int(MOST_FUNCTION_BYTES / max(1.0, self._bytes_a_job)))))
        caps = self._damper.caps(served, now)
        scope = served.scope.without(f for f, n in caps.items() if not n)
        costs = damper.costs_of(self._crew.pace.costs(served.jobset.number), caps, wanted.runners)
        other = self._crew.pace.unknown(served.jobset.number)
        limits: dict[str, Any] = {"budget": wanted.runners, "costs": costs, "other": other}
        fits = self._holdings.scales()
        batches = store.claim(wanted.jobs, wanted.start, scope, fits=fits, **limits)
        if not batches:
            return Taken(0, is_sated=False)
        self._take(served, batches, fits)
        n = sum(len(batch.jobs) for batch in batches)
        spent = sum(len(batch.jobs) * costs.get(batch.function, other) for batch in batches)
        return Taken(n, is_sated=n == wanted.jobs or spent + 1e-6 >= wanted.runners)

    def look_within(self) -> float:
        """Say in how many seconds a claim will see the whole queue, and not only its front as the last ones did."""
        unseen = [served.store.unseen for served in self._holdings.each_served()]
        return min(filter(None, unseen), default=inf)

    # What others left

    def is_time_to_help(self, now: float, *, is_sated: bool) -> bool:
        """Tell whether to look after others now. A True starts the next interval."""
        return self._lookout.due(now, n_bees=self._presence.n_bees, sated=is_sated)

    def help_others(self, now: float, *, is_idle: bool) -> bool:
        """Put back what dead bees held; if idle, help slow bees too. Returns whether there is more to do by that."""
        if not (self._presence.is_lively and self._presence.may_judge()):
            return False
        has_made_work = False
        for number in self._presence.held_elsewhere():
            jobset = self._service.by_number(number)
            if jobset is None:
                continue
            with self._holdings.guard(number):
                served = self._service.serve(jobset)
                bees = served.store.rescue(LEASE_SECONDS)
                if bees:
                    self._log.warning("took back the work of %s in %s", ", ".join(b[:8] for b in bees), jobset.name)
                if bees or (is_idle and not has_made_work and self._help_out(served, now)):
                    has_made_work = True
        return has_made_work

    def _help_out(self, served: Served, now: float) -> bool:
        """Take jobs that a slow bee has not begun, or else a copy of its slowest job. Returns whether there was any."""
        store = served.store
        scope = served.scope.without(self._damper.caps(served, now))
        if store.take_over(scope):
            return True
        copies = store.speculate(scope) if store.jobset.speculate else []
        if copies:
            self._take(served, copies)
        return bool(copies)

    # Booking

    def _take(self, served: Served, batches: list[Batch], fits: Fits = lambda _: True) -> None:
        # What calls need comes first: if an outage interrupts this, nothing is booked, and the claim given back later.
        known = self._records_of(served, batches)
        batches, lacking = self._stocked(served, batches, known, fits)
        self._presence.took_work()
        for batch in batches:
            self.n_taken += len(batch.jobs)
            held = self._holdings.take(served, batch, known.get(batch.function))
            if batch.function in known and batch.function not in lacking:
                self._holdings.begin(held, without=self._blamed(held) | self._refusals.fail_hopeless(held))
            else:
                reason = lacking.get(batch.function, f"function {batch.function} isn't stored")
                self._refusals.hear(Unusable(*held.function, reason, None))
                failed = self._refusals.fail_hopeless(held)
                self._holdings.give_back(held, [job for job in batch.jobs if job.id not in failed], untouched=True)

    def _stocked(
        self, served: Served, batches: list[Batch], known: dict[int, Record | None], fits: Fits
    ) -> tuple[list[Batch], dict[int, str]]:
        """Have at hand what calls, and the functions that are ``known``, share.

        Returns the batches, in which calls are unread if there is no room for them, and why functions can't be called.
        """
        lacking: dict[int, str] = {}
        of_functions = {number: record.shared for number, record in known.items() if record is not None}
        if not any(of_functions.values()) and not any(values.taken(j.codec) for batch in batches for j in batch.jobs):
            return batches, lacking
        needed = self._holdings.shared()
        for batch in batches:
            for n, job in enumerate(batch.jobs):
                new = {*of_functions.get(batch.function, ()), *values.taken(job.codec)} - needed
                if new and not fits(sum(taken.size for taken in new)):
                    batch.jobs[n] = job._replace(codec=UNREAD, data=b"")
                elif new and (reason := self._fetch(served, new)):
                    lacking[batch.function] = reason
                else:
                    needed |= new
        if self._shelf is not None:
            self._shelf.clear(needed)
        return batches, lacking

    def _fetch(self, served: Served, new: set[values.TakenArray]) -> str:
        """Put what calls share on the shelf. Returns why that can't be."""
        if self._shelf is None:
            return "there is no directory here for what its calls share"
        try:
            for taken in new:
                with suppress(ValueError):  # it isn't stored, so that its call's signature won't hold
                    self._shelf.stock(taken, served.store.parts.get_value)
        except DatabaseUnavailableError:
            raise
        except OSError as error:
            return f"there is no room here for what its calls share ({error.strerror})"
        return ""

    def _blamed(self, held: Held) -> set[int]:
        """Find the jobs with which three bees on different hosts died, while nothing else ran: they fail."""
        blamed = [job for job in held.batch.jobs if job.n_hosts_lost >= DEATHS]
        for job in blamed:
            evidence = f"{job.n_hosts_lost} bees on different hosts vanished while they ran this job and nothing else"
            self._recorder.keep(End(Task(held, job), EndKind.LOST, "", b"", None, 0.0, evidence))
        return {job.id for job in blamed}

    def _records_of(self, served: Served, batches: list[Batch]) -> dict[int, Record | None]:
        """Give the records of these batches' functions, without those that can't be had; None where none is needed."""
        known: dict[int, Record | None] = {}
        missing = []
        for function in dict.fromkeys(batch.function for batch in batches):
            record = self._known(served.jobset, function)
            if function == NO_FUNCTION or self._only_functionless or record is not None:
                known[function] = record
            else:
                missing.append(function)
        if missing:
            self._crew.be_workers_of(self._program())  # at least as new as when the client stored these functions
        for start in range(0, len(missing), MOST_FETCHED):
            for function, found in served.store.get_functions(missing[start : start + MOST_FETCHED]).items():
                known[function] = self._know(served.jobset, found)
        fetched = sum(len(record.function[4]) for n in missing if (record := known.get(n)) is not None)
        self._bytes_a_job = fetched / max(1, sum(len(batch.jobs) for batch in batches))
        return known

    def _know(self, jobset: Jobset, function: FunctionRow) -> Record:
        record = Record(str(jobset.uuid), tuple(function), time.monotonic())
        self._records.keep((jobset.number, function.number), record)
        return record

    def _known(self, jobset: Jobset, function: int) -> Record | None:
        """Give the record of a function, if this bee still has it, and from the server that is there now."""
        record = self._records.get((jobset.number, function))
        is_good = record is not None and record.jobset == str(jobset.uuid) and self._service.is_of_today(record.since)
        return record if is_good else None
