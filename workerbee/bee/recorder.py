"""How a bee records the ends of its jobs: successes together, failures one by one, each kept until it is stored."""

from __future__ import annotations

import json
import logging
from itertools import groupby
from typing import Any

from workerbee import resources
from workerbee.bee.crew import Crew
from workerbee.bee.holdings import Holdings, Served, held_of
from workerbee.bee.judge import Judge
from workerbee.bee.tasks import End
from workerbee.store import MOST_TEXT_BYTES, Catalogue, HintThrottle, KeptText, is_unstorable, results_hint
from workerbee.wire.causes import cause_of_record
from workerbee.wire.job import READABLE, EndKind, Jobset, Outcome
from workerbee.wire.printed import NOTHING

#: The most characters of a message, and of an input, that are logged.
SAID_CHARS = 300
#: Texts in one statement.
TEXTS = 50


class Tally:
    """Counts what a bee has done: jobs completed and failed, and the seconds that its runners were in them."""

    def __init__(self) -> None:
        self.n_done = self.n_failed = 0
        self.seconds = 0.0

    def note(self, *, n_done: int = 0, n_failed: int = 0, seconds: float) -> None:
        """Count executions that have ended, and the seconds that they took together."""
        self.n_done += n_done
        self.n_failed += n_failed
        self.seconds += seconds

    @property
    def ran_nothing(self) -> bool:
        """Tell whether no job was executed at all."""
        return self.n_done == 0 and self.seconds == 0.0

    def __str__(self) -> str:
        return f"done {self.n_done}, failed {self.n_failed}, busy {self.seconds:.0f} s"


class Texts:
    """Stores what executions have printed, before their ends: so whoever hears of an end finds the text."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._full: resources.Few[Jobset] = resources.Few()

    def keep(self, served: Served, ends: list[End]) -> None:
        """Store what these executions have printed. A stored text doesn't change."""
        kept = [
            KeptText(end.task.job.id, end.task.job.run, held_of(end.task).batch.claim, failed, end.printed)
            for end in ends
            if end.printed is not NOTHING and end.printed.size
            for failed in [end.kind is not EndKind.COMPLETED]
        ]
        for start in range(0, len(kept), TEXTS):
            if not served.store.keep_texts(kept[start : start + TEXTS]):
                self._say_it_is_full(served.jobset)

    def _say_it_is_full(self, jobset: Jobset) -> None:
        if jobset not in self._full:
            self._full.add(jobset)
            self._log.warning(
                "what jobs of %s have printed takes %d MB on the server: from now on that of failed ones alone is kept",
                jobset.name,
                MOST_TEXT_BYTES >> 20,
            )


class Recorder:
    """Stores ends; those that an outage prevents are stored in the next round."""

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
        self._texts = Texts(log)
        self._ends: list[End] = []
        self._unhinted: dict[int, list[Outcome]] = {}
        self._pace = HintThrottle()
        self._n_bees = 1

    @property
    def has_ends(self) -> bool:
        """Tell whether anything is still to be stored."""
        return bool(self._ends)

    @property
    def hints_due(self) -> bool:
        """Tell whether ends were stored of which the clients haven't been told."""
        return bool(self._unhinted)

    def keep(self, end: End) -> None:
        """Have an end stored."""
        self._ends.append(end)

    def record(self, *, n_bees: int) -> None:
        """Store all ends, close finished batches, and send hints, the less often the more bees there are."""
        self._n_bees = n_bees
        if not (self._ends or self._unhinted or len(self._holdings)):
            return
        by_jobset: dict[int, list[End]] = {number: [] for number in self._holdings.jobsets()}
        for held, some in groupby(self._ends, lambda end: held_of(end.task)):
            if self._holdings.still_serves(held):
                kept = by_jobset.setdefault(held.function[0], [])
                kept.extend(end for end in some if end.task.job.id not in held.gone)
        for number, ends in by_jobset.items():
            if served := self._holdings.served.get(number):
                with self._holdings.guard(number):
                    self._texts.keep(served, ends)
                    self._record_failures(served, [e for e in ends if e.kind is not EndKind.COMPLETED])
                    self._record_successes(served, [e for e in ends if e.kind is EndKind.COMPLETED])
        self._ends.clear()
        self._hint()

    def _record_successes(self, served: Served, ends: list[End]) -> None:
        """Store results, as many in one statement as its size allows. A result that is refused fails its job."""
        for portion in _portions(ends, served.store.room) or [[]]:
            try:
                self._complete(served, portion)
            except Exception as error:
                if not is_unstorable(error) or not portion:
                    raise
                if len(portion) > 1:
                    self._record_successes(served, portion[: len(portion) // 2])
                    self._record_successes(served, portion[len(portion) // 2 :])
                else:
                    self._record_failures(served, [self._judge.unstored(portion[0], error)])

    def _complete(self, served: Served, ends: list[End]) -> None:
        number = served.jobset.number
        emptied = self._holdings.emptied_by(number, ends)
        if not ends and not emptied:
            return
        outcomes = [
            Outcome(job.id, job.run, kind, codec, data, mac, duration)
            for (_, job), kind, codec, data, mac, duration, _, _ in ends
        ]
        shared = number not in self._unhinted and self._pace.shares(len(outcomes), writers=self._n_bees)
        hint = results_hint(outcomes) if outcomes and shared else None
        if not served.store.complete(outcomes, [held.batch for held in emptied], hint=hint):
            outcomes = [outcome._replace(mac=None) for outcome in outcomes]  # no hint has results that don't count
        if outcomes and not shared:
            self._unhinted.setdefault(number, []).extend(outcomes)
        self.tally.note(n_done=len(ends), seconds=sum(end.duration for end in ends))
        self._holdings.strike_off(*[end.task for end in ends])
        self._holdings.close(emptied)

    def _record_failures(self, served: Served, ends: list[End]) -> None:
        for end in ends:
            held, job = held_of(end.task), end.task.job
            if end.kind is not EndKind.STOPPED and job.id in held.open:
                outcome, limits = self._judge.charge(end)
                summary = _summary(outcome.data)
                cause = cause_of_record(outcome.data).digest
                verdict = served.store.fail(held.batch, outcome, limits, summary, cause)
                self.tally.note(n_failed=int(verdict == "failed"), seconds=end.duration)
                said = _said(end, json.loads(summary))
                said = f"{said} ({verdict}, on {resources.host()})"
                self._log.log(self._level, "job %d of %s: %s", job.id, served.jobset.name, said)
            self._holdings.strike_off(end.task)
            if end.kind is not EndKind.STOPPED:
                self._crew.tell_recorded()

    def _hint(self) -> None:
        """Send a hint of what has ended since the last hint, in a transaction of its own."""
        if self._unhinted and self._pace.follows(is_last=not len(self._holdings), writers=self._n_bees):
            unhinted, self._unhinted = self._unhinted, {}
            for number, outcomes in unhinted.items():
                self._catalogue.hint_done(number, results_hint(outcomes))


def _portions(ends: list[End], room: int) -> list[list[End]]:
    """Divide ends among as few statements as their size allows; ``room`` is the bytes in each."""
    if sum([len(end.data) for end in ends]) <= room:
        return [ends] if ends else []
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
    """Describe a failure in one line: the error, and the input if that is readable."""
    job = end.task.job
    name = str(summary.get("type") or end.kind).removeprefix("builtins.")
    what = f"{name}: {summary.get('message') or ''}"
    given = job.data[: SAID_CHARS + 1].decode(errors="replace") if job.codec in READABLE else ""
    line = " ".join(f"{what[:SAID_CHARS]} {given if len(given) <= SAID_CHARS else given[:SAID_CHARS] + '…'}".split())
    return f"{end.kind}: {line}" if end.kind in (EndKind.FAILED, EndKind.DIED, EndKind.LOST) else line


def _summary(record: bytes) -> str:
    """Shorten an error record for the list of attempts: without its pickle, and without what the job has printed."""
    error = json.loads(record)
    return json.dumps({"type": error.get("type"), "message": error.get("message"), "notes": error.get("notes", [])[:1]})
