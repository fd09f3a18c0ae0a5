"""The bee: claims jobs, has its crew run them, records how they end, and looks after what others left.

One thread, which goes round: record what has ended, say "alive", look after others, claim. Every round is
one look at the clock and at most a few statements. Wherever it waits, for an answer of the database or
for the next thing to do, it serves the runners (`crew.Crew.serve`), so that neither waits for the other.
In an outage it goes on trying, about once a second, with what has ended kept in memory until it is stored.
"""

from __future__ import annotations

import logging
import os
import platform
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from workerbee import resources
from workerbee.bee import damper, lookout
from workerbee.bee.crew import DEATHS, Appetite, Crew, End, Held, Task
from workerbee.bee.damper import Damper
from workerbee.bee.holdings import Holdings, Served
from workerbee.bee.lookout import Lookout
from workerbee.bee.messages import Unusable
from workerbee.bee.presence import BEAT, LEASE, Presence
from workerbee.bee.recorder import Judge, Recorder
from workerbee.bee.refusals import Refusals
from workerbee.bee.runner_process import Launch, Record
from workerbee.errors import DatabaseUnavailableError, JobsetNotFoundError, WorkerbeeError
from workerbee.program import hash_seed
from workerbee.store import (
    BeeFacts,
    BeeStore,
    Catalogue,
    Connection,
    Limits,
    Scope,
    Wake,
    jitter,
    retrying,
    schema,
)
from workerbee.wire import codec
from workerbee.wire.job import NO_FUNCTION, Batch, Function, Jobset
from workerbee.wire.signing import Key

#: Seconds for which a jobset is left alone in which nothing works.
AVOID = 300.0
#: No retry waits longer (seconds), but where a bee was told otherwise.
LONGEST_PAUSE = 300.0
#: Seconds between looks for work that no hint announced.
POLL = (0.02, 5.0)
#: Where hints of work are heard. Among so many bees, one does without after so many seconds with enough work, and
#: until it pauses so long.
WORK, CROWD, FED, HUNGRY = "workerbee$work", 16, 0.25, 0.1
#: Functions in one statement, and bytes of functions that the jobs of one claim may bring.
FETCH, FUNCTIONS = 16, 16_000_000
EXIT_OK, EXIT_USAGE, EXIT_DATABASE, EXIT_CRASH, EXIT_LIFETIME = 0, 2, 69, 70, 75


@dataclass(frozen=True)
class Settings:
    """What a bee is to do. Times are in seconds; ``number`` names a (temporary) jobset that has no id."""

    dsn: str
    jobset_id: str | None = None
    number: int | None = None
    workers: int = 1
    busywait: bool = False
    max_busywait_sleep: float = 30.0
    wait: float = 600.0
    functions: tuple[str, ...] = ()
    only_functionless: bool = False
    max_n_retry_attempts: int = 10
    max_failure_sleep: float = 300.0
    max_tasks_per_child: int | None = None
    max_payload: int = codec.MAX_BYTES
    grace: float = 30.0
    lifetime: float | None = None
    max_jobs: int | None = None
    reconnect_timeout: float | None = 3600.0
    flags: tuple[str, ...] = ()
    hash_seed: str = field(default_factory=hash_seed)


class Leaving(Exception):  # noqa: N818 (it is no error)
    """Ends the supervisor's rounds with this exit status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Supervisor:
    """One bee. `run` returns its exit status."""

    def __init__(
        self,
        settings: Settings,
        log: logging.Logger,
        *,
        own: tuple[socket.socket, int] | None = None,
        tell: Callable[[dict[str, Any]], None] = lambda _: None,
        forward: Callable[[int, bytes], None] = lambda _, __: None,
        program: Callable[[], bytes] = lambda: b"",
    ) -> None:
        self._settings = settings
        self._log = log
        self._tell = tell
        self._program = program
        self._incarnation = uuid4()
        self._host = resources.host()
        self._wake = Wake()
        self._crew = Crew(
            settings.workers,
            wake=self._wake,
            launch=Launch(
                tuple(settings.flags),
                settings.hash_seed,
                (str(self._incarnation)[:8], str(settings.max_payload), *settings.functions),
            ),
            program=program(),
            max_tasks=settings.max_tasks_per_child,
            own=own,
            forward=forward,
        )
        self._connection = Connection(
            settings.dsn, application=f"workerbee bee {str(self._incarnation)[:8]}", wait=self._wait_for
        )
        self._catalogue = Catalogue(self._connection)
        self._holdings = Holdings(self._crew, self._dropped, self._avoid)
        self._judge = Judge(
            bee=str(self._incarnation)[:8],
            host=self._host,
            limits=Limits(settings.max_n_retry_attempts, 1.0, settings.max_failure_sleep),
        )
        # In a caller's own run nothing else says so.
        level = logging.WARNING if settings.only_functionless else logging.INFO
        self._recorder = Recorder(self._holdings, self._catalogue, self._crew, self._judge, log, level)
        self._avoided: dict[int, float] = {}  # jobsets in which nothing works, and until when
        self._drain_by: float | None = None
        self._stop_now = self._said_draining = False
        self._started = time.monotonic()
        self._n_claimed = 0
        self._next_claim = self._next_look = 0.0
        self._pause = POLL[0]
        self._hungry_at = self._started
        self._weight = 0.0  # bytes of functions that the last claim brought for each of its jobs
        self._damper = Damper(self._holdings, log)
        self._presence = Presence(
            self._catalogue,
            log,
            holds=lambda: len(self._holdings) > 0,
            rests=lambda: self._damper.resting,
            on_given_up=self._come_back,
            longest_pause=max(LONGEST_PAUSE, settings.max_failure_sleep),
        )
        is_clients = settings.number is not None
        self._refusals = Refusals(self._holdings, self._recorder, self._presence, own=is_clients, tell=tell, log=log)
        self._lookout = Lookout(self._started)
        self._status = EXIT_CRASH

    # Life

    def run(self) -> int:
        """Serve until there is no reason to."""
        try:
            self._live()
        except Leaving as leaving:
            self._status = leaving.status
        except DatabaseUnavailableError as error:
            self._log.error("%s", error)
            self._status = EXIT_LIFETIME if self._over() else EXIT_DATABASE
        except WorkerbeeError as error:
            self._log.error("%s", error)
            self._status = EXIT_USAGE
        except Exception as error:  # noqa: BLE001 (the crew must be dismissed)
            self._tell({"event": "crashed", "error": repr(error)})
            self._log.exception("this bee has met a fault of its own, and ends")
        finally:
            self._log.info("bee %s ends: %s", str(self._incarnation)[:8], self._recorder.tally)
            self._crew.dismiss()
            self._connection.close()
            self._wake.close()
        return self._status

    def drain(self, *, now: bool = False) -> None:
        """Claim nothing more, finish what runs within the grace period; ``now``: give all of it back."""
        if now:
            self._stop_now = True
        elif self._drain_by is None:
            self._drain_by = time.monotonic() + self._settings.grace
        else:
            self._stop_now = True
        self._wake.set()

    def _live(self) -> None:
        self._patiently(self._arrive)
        while True:
            self._patiently(self._round)
            for channel, hint in self._rest(self._sleep()):
                if channel == WORK:
                    self._hear(hint)

    def _rest(self, seconds: float) -> list[tuple[str, str]]:
        """Serve the runners until a message, a notification or a wake-up; the notifications."""
        heard = self._connection.notifications()
        if not heard:
            self._crew.serve(seconds, self._connection.fileno())
            heard = self._connection.notifications()
        return heard

    def _wait_for(self, fd: int, writing: bool, timeout: float) -> bool:  # noqa: FBT001
        """How the connection waits for its answers."""
        return self._crew.serve(timeout, fd, writing=writing, only=True)

    def _hear(self, hint: str) -> None:
        """There is work in a jobset, or what is held of it in advance is wanted back."""
        word, _, number = hint.partition(" ")
        if word == "recall" and number.isdecimal() and int(number[:10]) in self._holdings.served:
            self._holdings.give_back_tasks(self._crew.recall(int(number[:10])))
        else:
            self._hurry()

    def _hurry(self) -> None:
        """There may be work, here or with others that may need help soon."""
        self._next_claim = 0.0
        self._presence.lively = True
        self._presence.beat_soon(BEAT)

    def _patiently(self, action: Callable[[], None]) -> None:
        retrying(action, patience=self._settings.reconnect_timeout, pause=self._pause_for, log=self._log)

    def _pause_for(self, seconds: float) -> bool:
        """Wait before the next try, without losing a stop; False when the bee is to end anyway."""
        self._connection.drop()
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and not self._out_of_time():
            self._rest(left)
        return not self._out_of_time()

    def _out_of_time(self) -> bool:
        """Whether to end without the database: drained with nothing in hand, or past the grace period."""
        drained = self._drain_by is not None and (not self._presence.has_arrived or time.monotonic() > self._drain_by)
        return self._stop_now or drained or self._over(self._settings.grace)

    def _over(self, grace: float = 0.0) -> bool:
        """Whether the bee's lifetime has passed, and so many seconds more."""
        lifetime = self._settings.lifetime
        return lifetime is not None and time.monotonic() > self._started + lifetime + grace

    def _arrive(self) -> None:
        """Install or check the schema, find the jobset, and say that this bee is here."""
        schema.ensure(self._connection)
        settings = self._settings
        jobset = self._find() if settings.jobset_id is not None or settings.number is not None else None
        facts = BeeFacts(
            self._incarnation,
            jobset and jobset.number,
            self._host,
            os.getpid(),
            platform.python_version(),
            settings.workers,
        )
        self._connection.listen([WORK])
        self._presence.arrive(facts)
        if jobset is not None:
            self._serve(jobset)
        name = "every jobset" if jobset is None else jobset.name
        self._log.info("bee %s serves %s with %d runner(s)", str(self._incarnation)[:8], name, settings.workers)

    def _find(self) -> Jobset:
        """The jobset this bee was started for; waits for it to be made."""
        settings = self._settings
        deadline = time.monotonic() + settings.wait
        told = False
        while True:
            found = (
                self._catalogue.find_jobset(settings.jobset_id)
                if settings.jobset_id is not None
                else self._catalogue.find_jobset_by_number(settings.number or 0)
            )
            if found is not None:
                return found
            missing = JobsetNotFoundError(settings.jobset_id or str(settings.number), self._catalogue.jobset_ids())
            if self._over():
                raise Leaving(EXIT_LIFETIME)
            if time.monotonic() >= deadline or self._stop_now or self._drain_by is not None:
                self._tell({"event": "missing"})
                self._log.error("%s", missing)
                raise Leaving(EXIT_CRASH)
            if not told:
                self._log.warning("%s; waiting %.0f s for it", missing, settings.wait)
                told = True
            self._rest(min(1.0, max(0.01, deadline - time.monotonic())))

    def _serve(self, jobset: Jobset) -> Served:
        served = self._holdings.served.get(jobset.number)
        if served is not None and served.store.jobset.uuid != jobset.uuid:
            self._holdings.drop(jobset.number)
            served = None
        if served is None:
            # Not before: the first client makes the key, and a bee may have been there earlier.
            self._judge.key = key = Key.load()
            if key is not None and jobset.key not in (None, key.fingerprint):
                self._log.warning(
                    "the jobset %s was signed with key %s, and this bee's is %s: it runs no function of it",
                    jobset.name,
                    jobset.key,
                    key.fingerprint,
                )
            store = BeeStore(self._connection, jobset, self._incarnation, self._host, self._presence.beat_if_due)
            served = self._holdings.served[jobset.number] = Served(store, Scope(only=()))
            self._set_scope(served)
        return served

    def _set_scope(self, served: Served) -> None:
        """Which functions' jobs to take, besides those that were found to be unusable."""
        settings = self._settings
        refused = served.scope.refused
        if settings.only_functionless:
            served.scope = Scope(only=(NO_FUNCTION,))
        elif settings.functions:
            named = (n for name in settings.functions for n in served.store.functions_named(name))
            served.scope = Scope((NO_FUNCTION, *named), refused)
        else:
            served.scope = Scope(refused=(NO_FUNCTION, *refused))

    # One round

    def _round(self) -> None:
        now = time.monotonic()
        if self._presence.must_reconcile(now):
            self._holdings.reconcile()
            self._presence.reconciled(now)
        self._settle()
        self._presence.beat_if_due()
        if now >= self._next_look:
            self._next_look = now + BEAT
            self._holdings.stop_overtaken()
        if self._should_leave(now):
            self._leave()
        if self._drain_by is None and not self._stop_now:
            self._holdings.start_more()
            # Jobs that wait here behind long ones are of more use elsewhere.
            self._holdings.give_back_tasks(self._crew.take_back(all_ready=False))
            self._holdings.return_booked()
            self._claim(now)

    def _settle(self) -> None:
        """Tell the database what has ended here, and what is given back."""
        self._sort_out(self._crew.collect())
        self._refusals.settle()
        if self._damper.settle():
            self._presence.beat_soon()
        self._holdings.return_booked()
        self._recorder.n_bees = self._presence.n_bees
        self._recorder.record()

    def _sleep(self) -> float:
        now = time.monotonic()
        timers = [self._presence.next_beat]
        if not self._recorder.idle:
            timers.append(now)
        if self._recorder.hints_due:
            timers.append(now + 0.02)
        if self._drain_by is not None:
            timers.append(self._drain_by)
        else:
            if self._crew.appetite().jobs:
                timers.append(self._next_claim)
            if self._settings.lifetime is not None:
                timers.append(self._started + self._settings.lifetime)
        if any(held.unstarted for held in self._holdings):
            timers.append(now + 0.05)
        return max(0.0, min(timers) - now)

    # How jobs end

    def _sort_out(self, ends: Iterable[End | Unusable]) -> None:
        for end in ends:
            if isinstance(end, Unusable):
                self._refusals.hear(end)
            elif end.task.held.jobset.number in self._holdings.served:  # else it was dropped meanwhile
                self._sort_out_end(end)

    def _sort_out_end(self, end: End) -> None:
        if end.kind == "recalled":
            self._holdings.give_back_tasks([end.task])
            return
        self._recorder.keep(end)
        if end.kind != "stopped" and self._damper.note(end):
            self._next_claim = 0.0

    # Heartbeats, and what others left

    def _come_back(self) -> None:
        """Others have taken this bee for dead: what they noted as lost is not."""
        for number, served in list(self._holdings.served.items()):
            with self._holdings.guard(number):
                served.store.came_back()

    def _care(self, *, idle: bool) -> bool:
        """Put back what dead bees held; if ``idle``, help stragglers too. Whether that has brought or made work."""
        if not (self._presence.lively and self._presence.may_judge()):
            return False
        made = False
        for number in self._presence.held_elsewhere():
            jobset = self._catalogue.find_jobset_by_number(number)
            if jobset is None or self._avoids(number):
                continue
            with self._holdings.guard(number):
                served = self._serve(jobset)
                bees = served.store.rescue(LEASE)
                if bees:
                    self._log.warning("took back the work of %s in %s", ", ".join(b[:8] for b in bees), jobset.name)
                if bees or (idle and not made and self._help(served)):
                    made = True
        return made

    def _help(self, served: Served) -> bool:
        """Take over what a slow bee has not begun, or else a copy of its slowest job; whether there was any."""
        store = served.store
        scope = served.scope.without(self._damper.caps(served, time.monotonic()))
        if store.take_over(scope):
            return True
        copies = store.speculate(scope) if store.jobset.speculate else []
        return bool(copies and self._take(store, copies))

    # Claiming

    def _claim(self, now: float) -> None:
        """Claim as much as is wanted, and look after others now and then; where there isn't enough, wait a little."""
        appetite = self._crew.appetite()
        if not appetite.jobs:
            self._listens_as_needed(now, sated=True)
        if not appetite.jobs or now < self._next_claim:
            return
        if self._settings.max_jobs is not None:
            appetite = appetite.at_most(self._settings.max_jobs - self._n_claimed)
        n, sated = self._claim_offered(appetite, now) if appetite.jobs else (0, False)
        if n:
            self._pause = POLL[0]
        made = self._has_cared(now, idle=not n, sated=sated)
        missed = self._listens_as_needed(now, sated=sated)
        if sated or made or missed:
            self._next_claim = 0.0
            return
        if not n:
            limit = lookout.pause(self._presence.n_bees) if self._presence.lively else self._settings.max_busywait_sleep
            self._pause = min(POLL[1], limit, self._pause * 2)
        unseen = [s.store.unseen for s in self._holdings.served.values() if s.store.unseen]
        self._next_claim = time.monotonic() + min([self._pause * jitter.uniform(0.8, 1.2), *unseen])

    def _listens_as_needed(self, now: float, *, sated: bool) -> bool:
        """Listen for hints, or stop; whether they are heard again from now on: what was said before is to be sought.

        A NOTIFY wakes every session that listens to anything. In a crowd that would be most of what a server
        does, if those listened that have enough to do.
        """
        if sated:
            if self._presence.n_bees >= CROWD and now > self._hungry_at + FED:
                self._connection.unlisten()
            return False
        self._hungry_at = now
        if self._connection.listens or self._pause < HUNGRY:
            return False
        self._connection.listen([WORK])
        return True

    def _claim_offered(self, appetite: Appetite, now: float) -> tuple[int, bool]:
        """Claim from the first jobset that has work; how many jobs, and whether it had all that was asked of it."""
        for jobset in self._offers():
            with self._holdings.guard(jobset.number):
                served = self._serve(jobset)
                store = served.store
                wanted = appetite.at_most(min(store.portion, max(1, int(FUNCTIONS / max(1.0, self._weight)))))
                caps = self._damper.caps(served, now)
                scope = served.scope.without(f for f, n in caps.items() if not n)
                costs = damper.costs_of(self._crew.pace.costs(jobset.number), caps, wanted.runners)
                batches = store.claim(wanted.jobs, wanted.start, scope, budget=wanted.runners, costs=costs)
                if batches:
                    self._take(store, batches)
                    n = sum(len(batch.jobs) for batch in batches)
                    spent = sum(len(batch.jobs) * costs.get(batch.function, 1.0) for batch in batches)
                    return n, n == wanted.jobs or spent + 1e-6 >= wanted.runners
        return 0, False

    def _has_cared(self, now: float, *, idle: bool, sated: bool) -> bool:
        """Look after others, if it is time to; whether that has brought or made work."""
        if not self._lookout.due(now, n_bees=self._presence.n_bees, sated=sated):
            return False
        if self._care(idle=idle):
            return True
        if idle:
            self._look_for_named()
            self._refusals.reconsider()
            self._perhaps_exhausted()
        return False

    def _look_for_named(self) -> None:
        """Functions of the names that this bee was started with may have been stored meanwhile."""
        if self._settings.functions:
            for number, served in list(self._holdings.served.items()):
                with self._holdings.guard(number):
                    self._set_scope(served)

    def _offers(self) -> Iterator[Jobset]:
        """The jobsets to try, in a fair order."""
        if self._presence.jobset is not None:
            yield self._holdings.served[self._presence.jobset].store.jobset
            return
        for offers in self._catalogue.offers():
            jitter.shuffle(offers)
            yield from (jobset for jobset in offers if not self._avoids(jobset.number))

    def _take(self, store: BeeStore, batches: list[Batch]) -> list[Batch]:
        # Before anything is booked: what an outage interrupts here is a claim that we don't know of.
        known = self._records_of(store, batches)
        self._presence.took_work()
        for batch in batches:
            held = self._holdings.take(store.jobset, batch)
            self._n_claimed += len(batch.jobs)
            if batch.function in known:
                held.record = known[batch.function]
                self._holdings.begin(held, without=self._blamed(held) | self._refusals.fail_hopeless(held))
            else:
                reason = f"function {batch.function} isn't stored"
                self._refusals.hear(Unusable(store.jobset.number, batch.function, reason, None))
                failed = self._refusals.fail_hopeless(held)
                self._holdings.give_back(held, [job for job in batch.jobs if job.id not in failed], untouched=True)
        return batches

    def _blamed(self, held: Held) -> set[int]:
        """Jobs that took three bees on different hosts with them, each alone with it, aren't tried again."""
        blamed = [job for job in held.batch.jobs if job.vanished >= DEATHS]
        for job in blamed:
            evidence = f"{job.vanished} bees on different hosts vanished while they ran this job and nothing else"
            self._recorder.keep(End(Task(held, job), "lost", "", b"", None, 0.0, evidence))
        return {job.id for job in blamed}

    def _records_of(self, store: BeeStore, batches: list[Batch]) -> dict[int, Record | None]:
        """The functions of these batches that can be had, with their records; None for those that need none."""
        known: dict[int, Record | None] = {}
        missing = []
        for function in dict.fromkeys(batch.function for batch in batches):
            record = self._crew.known(store.jobset, function)
            if function == NO_FUNCTION or self._settings.only_functionless or record is not None:
                known[function] = record
            else:
                missing.append(function)
        if missing:
            self._crew.be_workers_of(self._program())  # as its client was when it stored the functions
        for start in range(0, len(missing), FETCH):
            for function, found in store.get_functions(missing[start : start + FETCH]).items():
                known[function] = self._crew.know(store.jobset, found)
        fetched = sum(record.size for function in missing if (record := known.get(function)) is not None)
        self._weight = fetched / max(1, sum(len(batch.jobs) for batch in batches))
        return known

    # Ending

    def _perhaps_exhausted(self) -> None:
        number = self._presence.jobset
        if self._settings.busywait or number is None or len(self._holdings):
            return
        rest = self._catalogue.remaining(number)
        if not rest.any_batch:
            if rest.ever_added:
                if self._is_all_done(number):
                    self._leave()
            elif time.monotonic() > self._started + self._settings.wait:
                self._tell({"event": "empty"})
                self._log.error(
                    "%s never had a job; bees end when all jobs are done, and this one has waited long enough",
                    self._settings.jobset_id,
                )
                raise Leaving(EXIT_CRASH)
            return
        served = self._holdings.served[number]
        waiting = set(rest.functions or ())
        runnable = waiting.difference(served.scope.refused)
        if self._settings.functions:
            runnable.intersection_update(served.scope.only or ())
        if not self._settings.only_functionless and waiting and not rest.any_held and not runnable:
            self._leave_the_rest(served, sorted(waiting))

    def _leave_the_rest(self, served: Served, functions: list[int]) -> None:
        """End, as what remains is for other bees. One that ran nothing for what is missing here has failed."""
        name = served.store.jobset.name
        names = ", ".join(_name_of(served.store.get_function(number)) for number in functions)
        self._log.warning("what remains in %s is not for this bee: the jobs of %s", name, names)
        reasons = [served.refusals[number] for number in functions if number in served.refusals]
        if reasons and self._recorder.tally.ran_nothing:
            self._log.error("this bee could run nothing of %s: %s", name, reasons[0])
            self._leave(EXIT_CRASH)
        self._leave()

    def _is_all_done(self, number: int) -> bool:
        """Whether nothing is open, now that no batch is there; says so.

        Raises Leaving if jobs without an end stand in no batch: somebody must have deleted it.
        """
        counts = self._catalogue.counts(number)
        if counts.open > 0 and self._catalogue.remaining(number).any_batch:
            return False
        name = self._settings.jobset_id
        if counts.open > 0 and self._catalogue.counts(number) == counts:
            self._log.error(
                "%d jobs of %s have not ended, and no batch of them is left: somebody has deleted rows of the tables",
                counts.open,
                name,
            )
            raise Leaving(EXIT_CRASH)
        if counts.open > 0:
            return False
        self._log.info("all jobs of %s are done: %d failed, %d cancelled", name, counts.failed, counts.cancelled)
        return True

    def _should_leave(self, now: float) -> bool:
        settings = self._settings
        if self._crew.broken is not None:
            # What ends a caller's own run is raised there.
            level = logging.DEBUG if self._settings.only_functionless else logging.ERROR
            self._log.log(level, "ending: %s", self._crew.broken)
            self._tell({"event": "broken", "error": self._crew.broken})
            self._status = EXIT_CRASH
            return True
        if self._stop_now:
            return True
        full = settings.max_jobs is not None and self._n_claimed >= settings.max_jobs and not len(self._holdings)
        if (full or self._over()) and self._drain_by is None:
            self._status = EXIT_LIFETIME
            self._drain_by = now + settings.grace
        if self._drain_by is None:
            return False
        if not self._said_draining:
            self._said_draining = True
            self._log.info("claiming nothing more; what runs may take %.0f s to finish", self._drain_by - now)
        self._holdings.give_back_tasks(self._crew.take_back(all_ready=True))
        self._holdings.give_back_unstarted()
        self._holdings.return_booked()
        return now > self._drain_by or (self._crew.empty and self._recorder.idle)

    def _leave(self, status: int = EXIT_OK) -> None:
        """Give back everything, say goodbye, and end, with this status if there is no other reason."""
        self._settle()
        self._crew.take_back(all_ready=True)
        self._holdings.give_back_all()
        self._settle()
        for number, served in list(self._holdings.served.items()):
            with self._holdings.guard(number):
                served.store.release_unknown(())
        self._catalogue.leave(self._incarnation)
        raise Leaving(self._status if self._status == EXIT_LIFETIME or self._crew.broken else status)

    def _dropped(self, jobset: Jobset) -> None:
        """The jobset is gone, and what this bee held of it is forgotten."""
        self._log.warning("%s was dropped while it was in use; its work ends here", jobset.name)
        self._crew.forget(jobset)
        self._tell({"event": "dropped", "number": jobset.number})
        if self._presence.jobset == jobset.number:
            raise Leaving(EXIT_CRASH)

    def _avoid(self, jobset: Jobset, error: Exception) -> None:
        """Nothing works in this jobset: it lacks a right there, or what is stored makes no sense."""
        reason = f"{jobset.name} is left alone: {' '.join(str(error).split()) or repr(error)}"
        self._log.error("%s", reason)
        self._avoided[jobset.number] = time.monotonic() + AVOID
        if self._presence.jobset == jobset.number:
            self._tell({"event": "broken", "error": reason})
            raise Leaving(EXIT_CRASH)

    def _avoids(self, number: int) -> bool:
        return time.monotonic() < self._avoided.get(number, 0.0)


def _name_of(function: Function | None) -> str:
    return "no function (JobSet.run and --function MODULE:NAME run them)" if function is None else function.name
