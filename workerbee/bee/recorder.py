"""How a bee records the ends of its jobs: successes together, failures one by one, each kept until it is stored."""

from __future__ import annotations

import json
import logging
from typing import Any

from workerbee.bee.crew import DEATHS, Crew, End, Task
from workerbee.bee.holdings import Holdings
from workerbee.errors import EncodingError, FunctionUnavailable, RunnerDiedError
from workerbee.store import Catalogue, Limits, Pace, is_unstorable, results_hint
from workerbee.wire.failures import encode_error
from workerbee.wire.job import NO_FUNCTION, READABLE, Outcome
from workerbee.wire.signing import Key, Signer

#: Attempts; the largest integer of PostgreSQL.
UNLIMITED = 2**31 - 1
#: Characters of a message and of an input in the log.
SAID = 300


class Judge:
    """What an end is recorded as: whose failure it was, and whether it is the last of its kind.

    ``key`` signs what it has to say itself.
    """

    def __init__(self, *, bee: str, host: str, limits: Limits) -> None:
        self._bee = bee
        self._host = host
        self.key: Key | None = None
        self._limits = limits

    def charge(self, end: End) -> tuple[Outcome, Limits]:
        """A failed attempt as it is to be recorded, and how many of its kind make the last one."""
        job = end.task.job
        if end.kind in ("failed", "error"):
            limits = self._limits if end.kind == "failed" else Limits(1)
            return Outcome(job.id, job.run, end.kind, end.codec, end.data, end.mac, end.duration), limits
        if end.kind == "timeout":
            timeout = f"its timeout of {end.task.held.batch.timeout:g} s"
            error: Exception = TimeoutError(f"job {job.id} ran longer than {timeout}; its runner was {end.evidence}")
            return self._own_outcome(end.task, "error", error, end.duration), Limits(1)
        if end.kind == "refused":
            return self._own_outcome(end.task, "error", FunctionUnavailable(end.evidence), 0.0), Limits(1)
        if end.kind == "orphaned":
            # Killed, or preempted: nobody here knows. Who claims it next judges by the hosts, as when a bee vanishes.
            error = RunnerDiedError(f"job {job.id} was lost with the process that had called for it")
            return self._own_outcome(end.task, "lost", error, end.duration), Limits(UNLIMITED)
        what = "ended its runner" if end.kind == "died" else "was lost with its bee"
        error = RunnerDiedError(f"job {job.id} {what}, for the last of {DEATHS} times: {end.evidence}")
        return self._own_outcome(end.task, end.kind, error, end.duration), Limits(DEATHS if end.kind == "died" else 1)

    def unstored(self, end: End, refusal: Exception) -> End:
        """The failure of a job whose result PostgreSQL refuses."""
        outcome = self._own_outcome(end.task, "error", EncodingError("the result", refusal), end.duration)
        return end._replace(kind="error", codec=outcome.codec, data=outcome.data, mac=outcome.mac)

    def _own_outcome(self, task: Task, kind: str, error: Exception, duration: float) -> Outcome:
        """An outcome with an error of ours, signed as a runner signs its own."""
        job = task.job
        notes = [f"job {job.id}, attempt {job.attempts + 1}, bee {self._bee}, host {self._host}"]
        record = encode_error(error, notes=notes, text_only=self.key is None)
        mac = None
        if self.key is not None and task.held.batch.function != NO_FUNCTION:
            mac = Signer(self.key, task.held.jobset.uuid).sign("error", job.id, job.run, "error", b"", record)
        return Outcome(job.id, job.run, kind, "error", record, mac, duration)


class Tally:
    """What a bee has done: jobs completed and failed, and the seconds that its runners were in them."""

    def __init__(self) -> None:
        self.n_done = self.n_failed = 0
        self.seconds = 0.0

    def note(self, *, failed: bool, seconds: float, done: bool = False) -> None:
        """An execution has ended so."""
        self.n_done += done
        self.n_failed += failed
        self.seconds += seconds

    @property
    def ran_nothing(self) -> bool:
        """Whether no job was executed at all."""
        return self.n_done == 0 and self.seconds == 0.0

    def __str__(self) -> str:
        return f"done {self.n_done}, failed {self.n_failed}, busy {self.seconds:.0f} s"


class Recorder:
    """Stores ends; what an outage interrupts is stored in the next round. ``n_bees`` live bees share the hints."""

    def __init__(
        self, holdings: Holdings, catalogue: Catalogue, crew: Crew, judge: Judge, log: logging.Logger, failures: int
    ) -> None:
        """Failures are logged at the level ``failures``."""
        self._holdings = holdings
        self._catalogue = catalogue
        self._crew = crew
        self._judge = judge
        self._log = log
        self._level = failures
        self.tally = Tally()
        self._ends: list[End] = []
        self._unhinted: dict[int, list[Outcome]] = {}
        self._pace = Pace()
        self.n_bees = 1

    @property
    def idle(self) -> bool:
        """All is stored."""
        return not self._ends

    @property
    def hints_due(self) -> bool:
        """Something has been stored of which nobody was told."""
        return bool(self._unhinted)

    def keep(self, end: End) -> None:
        """Have an end stored."""
        self._ends.append(end)

    def record(self) -> None:
        """Store all ends, close the batches that have nothing open, and say so."""
        if not (self._ends or self._unhinted or len(self._holdings)):
            return
        by_jobset: dict[int, list[End]] = {number: [] for number in self._holdings.jobsets()}
        for end in self._ends:
            by_jobset.setdefault(end.task.held.jobset.number, []).append(end)
        for number, ends in by_jobset.items():
            if number in self._holdings.served:
                with self._holdings.guard(number):
                    self._record_failures(number, [e for e in ends if e.kind != "completed"])
                    self._record_successes(number, [e for e in ends if e.kind == "completed"])
        self._ends.clear()
        self._hint()

    def _record_successes(self, number: int, ends: list[End]) -> None:
        """Store results, as many in one statement as its size allows; a refused one fails its own job."""
        for portion in _portions(ends, self._holdings.served[number].store.room) or [[]]:
            try:
                self._complete(number, portion)
            except Exception as error:
                if not is_unstorable(error) or not portion:
                    raise
                if len(portion) > 1:
                    self._record_successes(number, portion[: len(portion) // 2])
                    self._record_successes(number, portion[len(portion) // 2 :])
                else:
                    self._record_failures(number, [self._judge.unstored(portion[0], error)])

    def _complete(self, number: int, ends: list[End]) -> None:
        ending = {(e.task.held, e.task.job.id) for e in ends}
        closed = [h.batch for h in self._holdings.of(number) if all((h, job) in ending for job in h.open)]
        if not ends and not closed:
            return
        outcomes = [
            Outcome(e.task.job.id, e.task.job.run, "completed", e.codec, e.data, e.mac, e.duration) for e in ends
        ]
        shared = number not in self._unhinted and self._pace.shares(len(outcomes), writers=self.n_bees)
        hint = results_hint(outcomes) if outcomes and shared else None
        self._holdings.served[number].store.complete(outcomes, closed, hint=hint)
        if outcomes and not shared:
            self._unhinted.setdefault(number, []).extend(outcomes)
        for end in ends:
            self.tally.note(failed=False, seconds=end.duration, done=True)
            end.task.held.open.pop(end.task.job.id, None)
        self._holdings.close(closed)

    def _record_failures(self, number: int, ends: list[End]) -> None:
        for end in ends:
            held, job = end.task
            if end.kind != "stopped" and job.id in held.open:
                outcome, limits = self._judge.charge(end)
                summary = _summary(outcome.data)
                verdict = self._holdings.served[number].store.fail(held.batch, outcome, limits, summary)
                self.tally.note(failed=verdict == "failed", seconds=end.duration)
                said = _said(end, json.loads(summary))
                self._log.log(self._level, "job %d of %s: %s (%s)", job.id, held.jobset.name, said, verdict)
            held.open.pop(job.id, None)
            if end.kind != "stopped":
                self._crew.settled()

    def _hint(self) -> None:
        """Say what has ended since the last hint, in a transaction of its own."""
        if self._unhinted and self._pace.follows(idle=not len(self._holdings), writers=self.n_bees):
            unhinted, self._unhinted = self._unhinted, {}
            for number, outcomes in unhinted.items():
                self._catalogue.hint_done(number, results_hint(outcomes))


def _portions(ends: list[End], room: int) -> list[list[End]]:
    """The ends in as few statements as their size allows; ``room`` is bytes in each."""
    portions: list[list[End]] = []
    size = room
    for end in ends:
        size += len(end.data)
        if size > room:
            portions.append([])
            size = len(end.data)
        portions[-1].append(end)
    return portions


def _said(end: End, summary: dict[str, Any]) -> str:
    """A failure in one line: what it was, and of which input, where a person can read that."""
    job = end.task.job
    name = str(summary.get("type") or end.kind).removeprefix("builtins.")
    what = f"{name}: {summary.get('message') or ''}"
    given = job.data[: SAID + 1].decode(errors="replace") if job.codec in READABLE else ""
    line = " ".join(f"{what[:SAID]} {given if len(given) <= SAID else given[:SAID] + '…'}".split())
    return f"{end.kind}: {line}" if end.kind in ("failed", "died", "lost") else line


def _summary(record: bytes) -> str:
    """An error record without its pickle, for the list of attempts."""
    facts = json.loads(record)
    return json.dumps({k: facts.get(k) for k in ("type", "message", "notes")})
