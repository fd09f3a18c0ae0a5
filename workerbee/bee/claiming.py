"""How a bee takes work: from what waits, or from bees that are gone or slow."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from math import inf
from typing import NamedTuple

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
from workerbee.bee.tasks import End, Record, Records, Task
from workerbee.timing import LEASE_SECONDS
from workerbee.wire.job import NO_FUNCTION, Batch, EndKind, FunctionRow, Jobset

#: Functions in one statement, and bytes of functions that the jobs of one claim may bring.
MOST_FETCHED, MOST_FUNCTION_BYTES = 16, 16_000_000


class Taken(NamedTuple):
    """The result of a look: how many jobs, and whether that is all that was wanted."""

    n: int
    is_sated: bool


class Claiming:
    """Claims jobs, gets their functions, and books them. ``program`` is what runners of new functions work for."""

    def __init__(
        self,
        service: Service,
        crew: Crew,
        presence: Presence,
        damper: Damper,
        refusals: Refusals,
        recorder: Recorder,
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
        self._records = Records()
        self._lookout = Lookout(now)
        self._program = program
        self._only_functionless = only_functionless
        self._log = log
        self._bytes_a_job = 0.0  # of functions that the last claim brought for each of its jobs
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
        batches = store.claim(wanted.jobs, wanted.start, scope, budget=wanted.runners, costs=costs, other=other)
        if not batches:
            return Taken(0, is_sated=False)
        self._take(served, batches)
        n = sum(len(batch.jobs) for batch in batches)
        spent = sum(len(batch.jobs) * costs.get(batch.function, other) for batch in batches)
        return Taken(n, is_sated=n == wanted.jobs or spent + 1e-6 >= wanted.runners)

    def look_within(self) -> float:
        """In how many seconds a look sees work that the last ones couldn't see, as they looked at fronts of queues."""
        unseen = [served.store.unseen for served in self._holdings.each_served()]
        return min(filter(None, unseen), default=inf)

    # What others left

    def is_time_to_help(self, now: float, *, is_sated: bool) -> bool:
        """Tell whether to look after others now, which is then taken to be done."""
        return self._lookout.due(now, n_bees=self._presence.n_bees, sated=is_sated)

    def help_others(self, now: float, *, is_idle: bool) -> bool:
        """Put back what dead bees held; if idle, help stragglers too. Whether that has brought or made work."""
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
        """Take over what a slow bee has not begun, or else a copy of its slowest job; whether there was any."""
        store = served.store
        scope = served.scope.without(self._damper.caps(served, now))
        if store.take_over(scope):
            return True
        copies = store.speculate(scope) if store.jobset.speculate else []
        if copies:
            self._take(served, copies)
        return bool(copies)

    # Booking

    def _take(self, served: Served, batches: list[Batch]) -> None:
        # Before anything is booked: what an outage interrupts here is a claim that we don't know of.
        known = self._records_of(served, batches)
        self._presence.took_work()
        for batch in batches:
            self.n_taken += len(batch.jobs)
            held = self._holdings.take(served, batch, known.get(batch.function))
            if batch.function in known:
                self._holdings.begin(held, without=self._blamed(held) | self._refusals.fail_hopeless(held))
            else:
                reason = f"function {batch.function} isn't stored"
                self._refusals.hear(Unusable(*held.function, reason, None))
                failed = self._refusals.fail_hopeless(held)
                self._holdings.give_back(held, [job for job in batch.jobs if job.id not in failed], untouched=True)

    def _blamed(self, held: Held) -> set[int]:
        """Jobs that took three bees on different hosts with them, each alone with it, aren't tried again."""
        blamed = [job for job in held.batch.jobs if job.n_hosts_lost >= DEATHS]
        for job in blamed:
            evidence = f"{job.n_hosts_lost} bees on different hosts vanished while they ran this job and nothing else"
            self._recorder.keep(End(Task(held, job), EndKind.LOST, "", b"", None, 0.0, evidence))
        return {job.id for job in blamed}

    def _records_of(self, served: Served, batches: list[Batch]) -> dict[int, Record | None]:
        """The functions of these batches that can be had, with their records; None for those that need none."""
        known: dict[int, Record | None] = {}
        missing = []
        for function in dict.fromkeys(batch.function for batch in batches):
            record = self._known(served.jobset, function)
            if function == NO_FUNCTION or self._only_functionless or record is not None:
                known[function] = record
            else:
                missing.append(function)
        if missing:
            self._crew.be_workers_of(self._program())  # as its client was when it stored the functions
        for start in range(0, len(missing), MOST_FETCHED):
            for function, found in served.store.get_functions(missing[start : start + MOST_FETCHED]).items():
                known[function] = self._know(served.jobset, found)
        fetched = sum(record.size for function in missing if (record := known.get(function)) is not None)
        self._bytes_a_job = fetched / max(1, sum(len(batch.jobs) for batch in batches))
        return known

    def _know(self, jobset: Jobset, function: FunctionRow) -> Record:
        record = Record(str(jobset.uuid), tuple(function), time.monotonic())
        self._records.keep((jobset.number, function.number), record)
        return record

    def _known(self, jobset: Jobset, function: int) -> Record | None:
        """The record of a function, if it is here still."""
        record = self._records.get((jobset.number, function))
        return record if record is not None and record.jobset == str(jobset.uuid) else None
