"""The bee: claims jobs, has its crew run them, records how they end, and looks after what others left.

One thread, which goes round: record what has ended, say "alive", look after others, claim. Every round is
one look at the clock and at most a few statements. Wherever it waits, for an answer of the database or
for the next thing to do, it serves the runners (`crew.Crew.serve`), so that neither waits for the other.
In an outage it goes on trying, about once a second, with what has ended kept in memory until it is stored.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import random
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from workerbee import codec
from workerbee.breaker import Breaker
from workerbee.crew import Appetite, Crew, End, Held, Task, Unusable
from workerbee.errors import (
    DatabaseUnavailableError,
    EncodingError,
    JobsetNotFoundError,
    RunnerDiedError,
    WorkerbeeError,
)
from workerbee.job import NO_FUNCTION, Batch, Function, Job, Jobset, Outcome
from workerbee.signing import Key, Signer
from workerbee.store import (
    BeeFacts,
    BeeStore,
    Catalogue,
    Connection,
    Limits,
    Pace,
    Scope,
    Wake,
    gone,
    results_hint,
    retrying,
    schema,
    unstorable,
)

#: Seconds between heartbeats, and what each one is good for, while the bee holds work or sees others do.
BEAT, LEASE = 0.5, 2.0
#: The same for a bee in whose jobsets nothing is going on.
IDLE_BEAT, IDLE_LEASE = 8.0, 30.0
#: Seconds between looks for work that no hint announced.
POLL = (0.02, 5.0)
DEATHS = 3
#: Ends of jobs that have none: they are given back, and those of the second kind have surely not run.
RETURNED = ("recalled", "untouched")
#: Bytes of results in one statement.
STATEMENT = 4_000_000
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
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))


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
        forward: Callable[[bytes], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._log = log
        self._tell = tell
        self._incarnation = uuid4()
        self._host = socket.gethostname()
        self._wake = Wake()
        self._crew = Crew(
            settings.workers,
            bee=str(self._incarnation)[:8],
            wake=self._wake,
            environment=settings.environment,
            max_payload=settings.max_payload,
            named=settings.functions,
            max_tasks=settings.max_tasks_per_child,
            own=own,
            forward=forward,
        )
        self._connection = Connection(
            settings.dsn, application=f"workerbee bee {str(self._incarnation)[:8]}", wait=self._wait_for
        )
        self._catalogue = Catalogue(self._connection)
        self._limits = Limits(settings.max_n_retry_attempts, 1.0, settings.max_failure_sleep)
        self._key = Key.load()
        self._facts: BeeFacts | None = None
        self._jobsets: dict[int, BeeStore] = {}
        self._scopes: dict[int, Scope] = {}
        self._held: dict[int, Held] = {}
        self._arrivals: deque[Held] = deque()  # claimed, and not yet given to the crew
        self._unhinted: dict[int, list[Outcome]] = {}
        self._pace = Pace()
        self._unrecorded: list[End] = []
        self._generation = 0
        self._drain_by: float | None = None
        self._stop_now = self._said_draining = False
        self._started = time.monotonic()
        self._n_claimed = 0
        self._next_beat = self._next_claim = self._next_care = self._next_look = 0.0
        self._pause = POLL[0]
        self._lively = True
        self._n_bees = 1
        self._breaker = Breaker()
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
            self._status = EXIT_DATABASE
        except WorkerbeeError as error:
            self._log.error("%s", error)
            self._status = EXIT_USAGE
        except Exception as error:  # noqa: BLE001 (the crew must be dismissed)
            self._tell({"event": "crashed", "error": repr(error)})
            self._log.exception("this bee has met a fault of its own, and ends")
        finally:
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
            if any(channel == "workerbee$work" for channel, _ in self._rest(self._sleep())):
                self._hurry()

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

    def _hurry(self) -> None:
        """There may be work, here or with others that may need help soon."""
        self._next_claim = 0.0
        self._lively = True
        self._next_beat = min(self._next_beat, time.monotonic() + BEAT)

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
        drained = self._drain_by is not None and (self._facts is None or time.monotonic() > self._drain_by)
        return self._stop_now or drained

    def _arrive(self) -> None:
        """Install or check the schema, find the jobset, and say that this bee is here."""
        schema.ensure(self._connection)
        settings = self._settings
        jobset = self._find() if settings.jobset_id is not None or settings.number is not None else None
        self._facts = BeeFacts(
            self._incarnation,
            jobset and jobset.number,
            self._host,
            os.getpid(),
            platform.python_version(),
            settings.workers,
        )
        self._connection.listen(["workerbee$work"])
        self._beat()
        if jobset is not None:
            self._serve(jobset)
        name = "every jobset" if jobset is None else jobset.name
        self._log.info("bee %s serves %s with %d runner(s)", str(self._incarnation)[:8], name, settings.workers)

    def _find(self) -> Jobset:
        """The jobset this bee was started for; waits for it to be made."""
        settings = self._settings
        deadline = self._started + settings.wait
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
            if time.monotonic() >= deadline or self._stop_now or self._drain_by is not None:
                self._tell({"event": "missing"})
                self._log.error("%s", missing)
                raise Leaving(EXIT_CRASH)
            if not told:
                self._log.warning("%s; waiting %.0f s for it", missing, settings.wait)
                told = True
            self._rest(min(1.0, max(0.01, deadline - time.monotonic())))

    def _serve(self, jobset: Jobset) -> BeeStore:
        store = self._jobsets.get(jobset.number)
        if store is None:
            if self._key is not None and jobset.key not in (None, self._key.fingerprint):
                self._log.warning(
                    "the jobset %s was signed with key %s, and this bee's is %s: it runs no function of it",
                    jobset.name,
                    jobset.key,
                    self._key.fingerprint,
                )
            store = BeeStore(self._connection, jobset, self._incarnation, self._host, self._beat_if_due)
            self._scopes[jobset.number] = self._scope(store)
            self._jobsets[jobset.number] = store
        return store

    def _scope(self, store: BeeStore) -> Scope:
        settings = self._settings
        if settings.only_functionless:
            return Scope(only=(NO_FUNCTION,))
        refused = self._scopes[store.jobset.number].refused if store.jobset.number in self._scopes else ()
        if settings.functions:
            named = (n for name in settings.functions for n in store.functions_named(name))
            return Scope((NO_FUNCTION, *named), refused)
        return Scope(refused=(NO_FUNCTION, *refused))

    # One round

    def _round(self) -> None:
        now = time.monotonic()
        if self._connection.generation != self._generation:
            self._reconcile()
        self._sort_out(self._crew.collect())
        self._record()
        self._begin()
        self._beat_if_due()
        if now >= self._next_look:
            self._next_look = now + BEAT
            self._stop_overtaken()
        self._start_more()
        if self._should_leave(now):
            self._leave()
        if self._drain_by is None and not self._stop_now:
            self._give_back_what_waits()
            self._claim(now)

    def _sleep(self) -> float:
        now = time.monotonic()
        timers = [self._next_beat]
        if self._unrecorded:
            timers.append(now)
        if self._unhinted:
            timers.append(now + 0.02)
        if self._drain_by is not None:
            timers.append(self._drain_by)
        elif self._crew.appetite().claim:
            timers.append(self._next_claim)
        if self._settings.lifetime is not None:
            timers.append(self._started + self._settings.lifetime)
        if any(h.unstarted for h in self._held.values()):
            timers.append(now + 0.05)
        return max(0.0, min(timers) - now)

    def _reconcile(self) -> None:
        """After a cut connection: what was claimed without our knowing goes back, what was taken is dropped."""
        for number, store in list(self._jobsets.items()):
            with self._dropped(number):
                store.release_unknown(h.batch.claim for h in self._held.values())
                still = store.held_claims()
                for held in [h for h in self._held.values() if h.jobset.number == number]:
                    if still.get(held.batch.id, (None,))[0] != held.batch.claim:
                        self._abandon(held)
        self._generation = self._connection.generation
        self._next_beat = 0.0  # before anybody takes the end of the old connection for ours

    def _abandon(self, held: Held) -> None:
        """The claim is lost. What runs may still succeed first; what has not begun is no longer ours."""
        for job in held.unstarted:
            held.open.pop(job.id, None)
        held.unstarted.clear()

    # How jobs end

    def _sort_out(self, ends: Iterable[End | Unusable]) -> None:
        for end in ends:
            if isinstance(end, Unusable):
                self._refuse(end)
            elif end.task.held.jobset.number in self._jobsets:  # else it was dropped meanwhile
                self._unrecorded.append(end)
                if end.kind not in ("recalled", "stopped"):
                    self._note(end)

    def _note(self, end: End) -> None:
        """Let the breaker know, and let others know of the breaker."""
        was_open = self._breaker.open
        self._breaker.note((end.task.held.jobset.number, end.task.job.id), failed=end.kind != "completed")
        if self._breaker.room is not None:
            self._next_claim = 0.0  # its end made room for another
        if self._breaker.open != was_open:
            self._next_beat = 0.0
            if self._breaker.open:
                self._log.warning(
                    "all that this bee tries fails: while others do well, it rests and tries one job a time"
                )

    def _refuse(self, unusable: Unusable) -> None:
        """A function that can't be run here: its jobs are left to other bees."""
        number, function = unusable.jobset, unusable.function
        scope = self._scopes[number]
        if function in scope.refused:
            return
        self._scopes[number] = scope._replace(refused=(*scope.refused, function))
        name = self._jobsets[number].jobset.name
        self._log.warning("this bee leaves some jobs of %s to others: %s", name, unusable.reason)
        if unusable.error is not None:
            self._tell({"event": "initializer", "error": unusable.error.decode()})
        else:
            self._tell({"event": "unusable", "reason": unusable.reason})
        for held in self._held.values():
            if (held.jobset.number, held.batch.function) == (number, function):
                self._return_unstarted(held)

    def _record(self) -> None:
        """Store what has ended: successes together, failures one by one; each stays here until it is stored."""
        by_jobset: dict[int, list[End]] = {}
        for end in self._unrecorded:
            by_jobset.setdefault(end.task.held.jobset.number, []).append(end)
        for number, ends in by_jobset.items():
            with self._dropped(number):
                self._release_all([e for e in ends if e.kind in RETURNED])
                self._record_failures(number, [e for e in ends if e.kind not in ("completed", *RETURNED)])
                self._record_successes(number, [e for e in ends if e.kind == "completed"])
        self._unrecorded.clear()
        self._hint()

    def _record_successes(self, number: int, ends: list[End]) -> None:
        """Store results, together as far as they fit into one statement; what can't be stored fails its own job."""
        for portion in _portions(ends) or [[]]:
            try:
                self._complete(number, portion)
            except Exception as error:
                if not unstorable(error) or not portion:
                    raise
                if len(portion) > 1:
                    self._record_successes(number, portion[: len(portion) // 2])
                    self._record_successes(number, portion[len(portion) // 2 :])
                else:
                    self._record_failures(number, [self._unstored(portion[0], error)])

    def _unstored(self, end: End, error: Exception) -> End:
        """The failure of a job whose result PostgreSQL refuses."""
        refusal = EncodingError("the result", error)
        outcome = self._own_outcome(end.task, "error", refusal, end.duration)
        return end._replace(kind="error", codec=outcome.codec, data=outcome.data, mac=outcome.mac)

    def _complete(self, number: int, ends: list[End]) -> None:
        store = self._jobsets[number]
        ending = {(e.task.held, e.task.job.id) for e in ends}
        touched = {e.task.held for e in ends} | {h for h in self._held.values() if h.jobset.number == number}
        closed = [h.batch for h in touched if h.batch.id in self._held and all((h, job) in ending for job in h.open)]
        if not ends and not closed:
            return
        ended = [Outcome(e.task.job.id, e.task.job.run, "completed", e.codec, e.data, e.mac, e.duration) for e in ends]
        shared = number not in self._unhinted and self._pace.shares(len(ended), writers=self._n_bees)
        store.complete(ended, closed, hint=results_hint(ended) if ended and shared else None)
        if ended and not shared:
            self._unhinted.setdefault(number, []).extend(ended)
        for end in ends:
            end.task.held.open.pop(end.task.job.id, None)
        for batch in closed:
            self._held.pop(batch.id, None)

    def _hint(self) -> None:
        """Say what has ended since the last hint, in a transaction of its own."""
        if self._unhinted and self._pace.follows(idle=not self._held, writers=self._n_bees):
            unhinted, self._unhinted = self._unhinted, {}
            for number, outcomes in unhinted.items():
                self._catalogue.hint_done(number, results_hint(outcomes))

    def _record_failures(self, number: int, ends: list[End]) -> None:
        store = self._jobsets[number]
        for end in ends:
            held, job = end.task
            if end.kind != "stopped" and job.id in held.open:
                outcome, limits = self._charge(end)
                verdict = store.fail(held.batch, outcome, limits, _summary(outcome.data))
                # In a caller's own run nothing else says so.
                level = logging.WARNING if self._settings.only_functionless else logging.INFO
                self._log.log(level, "job %d of %s: %s (%s)", job.id, held.jobset.name, end.kind, verdict)
            held.open.pop(job.id, None)
            self._crew.settled()

    def _charge(self, end: End) -> tuple[Outcome, Limits]:
        """A failed attempt as it is to be recorded, and how many of its kind make the last one."""
        job = end.task.job
        if end.kind in ("failed", "error"):
            limits = self._limits if end.kind == "failed" else Limits(1)
            return Outcome(job.id, job.run, end.kind, end.codec, end.data, end.mac, end.duration), limits
        if end.kind == "timeout":
            timeout = f"its timeout of {end.task.held.batch.timeout:g} s"
            error: Exception = TimeoutError(f"job {job.id} ran longer than {timeout}; its runner was {end.evidence}")
            return self._own_outcome(end.task, "error", error, end.duration), Limits(1)
        what = "ended its runner" if end.kind == "died" else "was lost with its bee"
        error = RunnerDiedError(f"job {job.id} {what}, for the last of {DEATHS} times: {end.evidence}")
        return self._own_outcome(end.task, end.kind, error, end.duration), Limits(DEATHS if end.kind == "died" else 1)

    def _own_outcome(self, task: Task, kind: str, error: Exception, duration: float) -> Outcome:
        job = task.job
        notes = [f"job {job.id}, attempt {job.attempts + 1}, bee {str(self._incarnation)[:8]}, host {self._host}"]
        record = codec.encode_error(error, notes=notes, text_only=self._key is None)
        mac = None
        if self._key is not None and task.held.batch.function != NO_FUNCTION:
            mac = Signer(self._key, task.held.jobset.uuid).sign("error", job.id, job.run, "error", b"", record)
        return Outcome(job.id, job.run, kind, "error", record, mac, duration)

    # Heartbeats, and what others left

    def _beat_if_due(self) -> None:
        if time.monotonic() >= self._next_beat:
            self._beat()

    def _beat(self) -> None:
        assert self._facts is not None  # noqa: S101 (set by _arrive)
        self._lively = bool(self._held) or bool(self._catalogue.held_elsewhere(self._incarnation, self._facts.jobset))
        beat, lease = (BEAT, LEASE) if self._lively else (IDLE_BEAT, IDLE_LEASE)
        given_up, self._n_bees = self._catalogue.beat(self._facts, lease=lease, resting=self._breaker.open)
        self._next_beat = time.monotonic() + beat * random.uniform(0.9, 1.1)  # noqa: S311
        if given_up:
            for number, store in list(self._jobsets.items()):
                with self._dropped(number):
                    store.came_back()

    def _stop_overtaken(self) -> None:
        for number in {h.jobset.number for h in self._held.values()}:
            with self._dropped(number):
                for batch, job in self._jobsets[number].overtaken():
                    held = self._held.get(batch)
                    if held is not None and job in held.open:
                        self._crew.stop(held, job)

    def _care(self) -> list[Batch]:
        """With a runner free and nothing to claim: put back what dead bees held, and help stragglers."""
        assert self._facts is not None  # noqa: S101
        if not self._lively:
            return []
        for number in self._catalogue.held_elsewhere(self._incarnation, self._facts.jobset):
            jobset = self._catalogue.find_jobset_by_number(number)
            if jobset is None:
                continue
            with self._dropped(number):
                store = self._serve(jobset)
                bees = store.rescue(LEASE)
                if bees:
                    self._log.warning("took back the work of %s in %s", ", ".join(b[:8] for b in bees), jobset.name)
                    self._next_claim = 0.0
                elif jobset.speculate and not self._breaker.open and (copies := store.speculate(self._scopes[number])):
                    return self._take(store, copies)
        return []

    # Claiming

    def _claim(self, now: float) -> None:
        """Claim as much as is wanted; where nothing is to be had, look after others, and then wait a little."""
        appetite = self._crew.appetite()
        if not appetite.claim or now < self._next_claim:
            return
        appetite = self._dampened(appetite, now)
        if self._settings.max_jobs is not None:
            appetite = appetite.at_most(self._settings.max_jobs - self._n_claimed)
        n = self._claim_offered(appetite) if appetite.claim else 0
        if n:
            self._pause = POLL[0]
        if (n and n == appetite.claim) or (not n and self._has_cared(now)):
            self._next_claim = 0.0
            return
        if not n:
            limit = min(1.5, 0.1 * self._n_bees) if self._lively else min(POLL[1], self._settings.max_busywait_sleep)
            self._pause = min(limit, self._pause * 2)
        self._next_claim = time.monotonic() + self._pause * random.uniform(0.8, 1.2)  # noqa: S311

    def _dampened(self, appetite: Appetite, now: float) -> Appetite:
        """The appetite of a bee whose last jobs failed: no more than it may spoil, and nothing in a rest."""
        assert self._facts is not None  # noqa: S101
        room = self._breaker.room
        if room is None or (room == 0 and not self._catalogue.working_bees(self._facts)):
            return appetite
        held = sum(len(h.open) for h in self._held.values())
        if room == 0 and (held or self._breaker.rest(now)):
            return Appetite(0, 0)
        return appetite.at_most(max(0, max(1, room) - held))

    def _claim_offered(self, appetite: Appetite) -> int:
        """Claim from the first jobset that has work; how many jobs."""
        for store in self._offers():
            with self._dropped(store.jobset.number):
                batches = store.claim(appetite.claim, appetite.start, self._scopes[store.jobset.number])
                if batches:
                    self._take(store, batches)
                    return sum(len(batch.jobs) for batch in batches)
        return 0

    def _has_cared(self, now: float) -> bool:
        """Look after others, if it is time to; whether that may have made work, or brought some."""
        if now < self._next_care:
            return False
        self._next_care = now + min(1.5, 0.1 * self._n_bees)
        if self._care() or (self._next_claim == 0.0 and self._lively):
            return True
        self._look_for_named()
        self._perhaps_exhausted()
        return False

    def _look_for_named(self) -> None:
        """Functions of the names that this bee was started with may have been stored meanwhile."""
        if self._settings.functions:
            for number, store in list(self._jobsets.items()):
                with self._dropped(number):
                    self._scopes[number] = self._scope(store)

    def _offers(self) -> Iterator[BeeStore]:
        """The jobsets to try, in a fair order."""
        assert self._facts is not None  # noqa: S101
        if self._facts.jobset is not None:
            yield self._jobsets[self._facts.jobset]
            return
        offers = self._catalogue.offers()
        random.shuffle(offers)
        for jobset in offers:
            yield self._serve(jobset)

    def _take(self, store: BeeStore, batches: list[Batch]) -> list[Batch]:
        for batch in batches:
            held = Held(store.jobset, batch, {job.id: job for job in batch.jobs})
            self._held[batch.id] = held
            self._arrivals.append(held)
            self._n_claimed += len(batch.jobs)
            self._next_beat = min(self._next_beat, time.monotonic() + BEAT / 4 if not self._lively else self._next_beat)
        self._begin()
        return batches

    def _begin(self) -> None:
        """Give the crew what was claimed; what an outage interrupts is taken up again."""
        while self._arrivals:
            held = self._arrivals[0]
            number, jobs = held.jobset.number, held.batch.jobs
            with self._dropped(number):
                if self._make_known(self._jobsets[number], held.batch.function):
                    self._blame(held)
                    held.unstarted.extend(jobs[held.batch.started :])
                    self._crew.give(held, jobs[: held.batch.started])
                else:
                    held.unstarted.extend(jobs)
                    self._return_unstarted(held)
                self._arrivals.popleft()

    def _blame(self, held: Held) -> None:
        """A job that took three bees on different hosts with it, each alone with it, isn't tried again."""
        for job in held.batch.jobs:
            if job.vanished >= DEATHS:
                evidence = f"{job.vanished} bees on different hosts vanished while they ran this job and nothing else"
                self._unrecorded.append(End(Task(held, job), "lost", "", b"", None, 0.0, evidence))

    def _make_known(self, store: BeeStore, number: int) -> bool:
        """Give the crew the record of a function; False if it isn't to be had."""
        if number == NO_FUNCTION or self._settings.only_functionless or self._crew.knows(store.jobset.number, number):
            return True
        record = store.get_function(number)
        if record is not None:
            self._crew.know(store.jobset, record)
        return record is not None

    def _start_more(self) -> None:
        """Move the mark of batches whose started jobs are nearly done: a slice of about 100 ms of work."""
        if self._stop_now or self._drain_by is not None:
            return
        for held in list(self._held.values()):
            if held.unstarted and self._crew.idle:
                with self._dropped(held.jobset.number):
                    done = len(held.batch.jobs) - len(held.unstarted)
                    started, jobs = self._jobsets[held.jobset.number].start(
                        held.batch, done + max(1, self._crew.appetite().start)
                    )
                    mine = set(jobs[:started])
                    ready = [j for j in held.unstarted if j.id in mine]
                    left = set(jobs[started:])
                    for job in held.unstarted:
                        if job.id not in mine and job.id not in left:
                            held.open.pop(job.id, None)  # cancelled, or taken over
                    held.unstarted = type(held.unstarted)(j for j in held.unstarted if j.id in left)
                    self._crew.give(held, ready)

    def _give_back_what_waits(self) -> None:
        """Jobs that wait here behind long ones are of more use elsewhere."""
        self._return(self._crew.take_back(all_ready=False), "recalled")

    def _return_unstarted(self, held: Held) -> None:
        self._return([Task(held, job) for job in held.unstarted], "untouched")
        held.unstarted.clear()

    def _return(self, tasks: Iterable[Task], kind: str) -> None:
        """Have these given back with what is recorded next; until that is stored, they are ours."""
        self._unrecorded.extend(End(task, kind, "", b"", None, 0.0) for task in tasks)

    def _release_all(self, ends: list[End]) -> None:
        by_held: dict[tuple[Held, str], list[Job]] = {}
        for end in ends:
            by_held.setdefault((end.task.held, end.kind), []).append(end.task.job)
        for (held, kind), jobs in by_held.items():
            self._release(held, jobs, untouched=kind == "untouched")

    def _release(self, held: Held, jobs: Iterable[Job], *, untouched: bool) -> None:
        ids = [job.id for job in jobs if job.id in held.open]
        if ids:
            self._jobsets[held.jobset.number].release(held.batch, ids, untouched=untouched)
        # Not before that is stored: a batch with nothing open is deleted.
        for job in ids:
            del held.open[job]

    # Ending

    def _perhaps_exhausted(self) -> None:
        assert self._facts is not None  # noqa: S101
        if self._settings.busywait or self._facts.jobset is None or self._held:
            return
        rest = self._catalogue.remaining(self._facts.jobset)
        if not rest.any_batch:
            if rest.ever_added:
                self._log.info("all jobs of %s are done", self._settings.jobset_id)
                self._leave()
            elif time.monotonic() > self._started + self._settings.wait:
                self._tell({"event": "empty"})
                self._log.error(
                    "%s never had a job; bees end when all jobs are done, and this one has waited long enough",
                    self._settings.jobset_id,
                )
                raise Leaving(EXIT_CRASH)
            return
        scope = self._scopes[self._facts.jobset]
        waiting = set(rest.functions or ())
        runnable = waiting.difference(scope.refused)
        if self._settings.functions:
            runnable.intersection_update(scope.only or ())
        if not self._settings.only_functionless and waiting and not rest.any_held and not runnable:
            store = self._jobsets[self._facts.jobset]
            names = ", ".join(_name_of(store.get_function(number)) for number in sorted(waiting))
            self._log.warning("what remains in %s is not for this bee: the jobs of %s", store.jobset.name, names)
            self._leave()

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
        over = settings.lifetime is not None and now > self._started + settings.lifetime
        full = settings.max_jobs is not None and self._n_claimed >= settings.max_jobs
        if (over or full) and self._drain_by is None:
            self._status = EXIT_LIFETIME
            self._drain_by = now + settings.grace
        if self._drain_by is None:
            return False
        if not self._said_draining:
            self._said_draining = True
            self._log.info("claiming nothing more; what runs may take %.0f s to finish", self._drain_by - now)
        self._return(self._crew.take_back(all_ready=True), "recalled")
        for held in self._held.values():
            self._return_unstarted(held)
        return now > self._drain_by or (self._crew.empty and not self._unrecorded)

    def _leave(self) -> None:
        """Give back everything, say goodbye, and end."""
        self._sort_out(self._crew.collect())
        self._record()
        for number, store in list(self._jobsets.items()):
            with self._dropped(number):
                for held in [h for h in self._held.values() if h.jobset.number == number]:
                    self._release(held, list(held.open.values()), untouched=False)
                self._record_successes(number, [])
                store.release_unknown(())
        self._catalogue.leave(self._incarnation)
        raise Leaving(self._status if self._status == EXIT_LIFETIME or self._crew.broken else EXIT_OK)

    def _dropped(self, number: int) -> _Dropped:
        return _Dropped(self, number)

    def forget(self, number: int) -> None:
        """The jobset is gone: so is all that this bee held of it."""
        name = self._jobsets[number].jobset.name if number in self._jobsets else str(number)
        self._log.warning("%s was dropped while it was in use; its work ends here", name)
        self._tell({"event": "dropped", "number": number})
        for held in [h for h in self._held.values() if h.jobset.number == number]:
            for job in held.open:
                self._crew.stop(held, job)
            del self._held[held.batch.id]
        self._arrivals = deque(held for held in self._arrivals if held.jobset.number != number)
        self._unrecorded = [e for e in self._unrecorded if e.task.held.jobset.number != number]
        self._jobsets.pop(number, None)
        if self._facts is not None and self._facts.jobset == number:
            raise Leaving(EXIT_CRASH)


class _Dropped:
    """Ends the work on one jobset, and on no other, when its tables turn out to be gone."""

    def __init__(self, supervisor: Supervisor, number: int) -> None:
        self._supervisor = supervisor
        self._number = number

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        if error is not None and gone(error):
            self._supervisor.forget(self._number)
            return True
        return False


def _name_of(function: Function | None) -> str:
    return "no function (JobSet.run and --function MODULE:NAME run them)" if function is None else function.name


def _portions(ends: list[End]) -> list[list[End]]:
    """The ends in as few statements as their size allows."""
    portions: list[list[End]] = []
    size = STATEMENT
    for end in ends:
        size += len(end.data)
        if size > STATEMENT:
            portions.append([])
            size = len(end.data)
        portions[-1].append(end)
    return portions


def _summary(record: bytes) -> str:
    """An error record without its pickle, for the list of attempts."""
    facts = json.loads(record)
    return json.dumps({k: facts.get(k) for k in ("type", "message", "notes")})
