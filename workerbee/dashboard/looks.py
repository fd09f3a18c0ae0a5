"""What each view of the page knows, as plain facts: the same for its HTML and its JSON."""

from __future__ import annotations

import itertools
import re
import time
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from workerbee.client.spectators import until_dropped
from workerbee.dashboard.course import course_of
from workerbee.dashboard.facts import (
    Facts,
    bee_facts,
    cause_facts,
    departed_facts,
    event_facts,
    job_facts,
    net,
    text_facts,
)
from workerbee.dashboard.sampler import NothingSeenError, Part, Sampler
from workerbee.dashboard.shown import moment
from workerbee.errors import JobsetNotFoundError
from workerbee.outlook import outlook, percent_of
from workerbee.reading import (
    BeeRow,
    BegunRow,
    CauseRow,
    DepartedRow,
    DoingRow,
    EndedBy,
    Event,
    JobPage,
    JobRow,
    JobsetRow,
    Minute,
    Progress,
    Reader,
    TextRow,
    Wanted,
)

#: Rows of each list.
JOBSETS, JOBS, CAUSES, RUNNERS, BEES = 40, 50, 12, 12, 200
#: Executions of a job whose texts are shown.
TEXTS = 5
#: Failures that are counted by their cause, and ended jobs whose durations are drawn.
FAILURES, DURATIONS = 20_000, 1000
#: Seconds that a rate is taken over.
WINDOW = 60.0
#: Seconds of a sparkline, and of a step in it.
HOUR_SECONDS, STEP_SECONDS = 3600.0, 120.0
#: Seconds of each span of history, and of a step in it.
SPANS: dict[str, tuple[float, float]] = {"hour": (3600.0, 60.0), "day": (86_400.0, 900.0), "all": (1e10, 3600.0)}
#: Seconds for which a list of past minutes, or a job that has ended, counts as new.
SLOW = 15.0

_IDS = re.compile(r"[a-z0-9_]{1,48}")


class Running(NamedTuple):
    """A jobset with its numbers, and what its bees are at."""

    row: JobsetRow
    progress: Progress
    quartiles: tuple[float, float, float, float] | None


class Life(NamedTuple):
    """A job, what happened to it, who is at it, and what its executions have printed."""

    row: JobRow
    events: list[Event]
    begun: list[BegunRow]
    texts: list[TextRow]


class Looks:
    """Looks at the database through one sampler. Raises JobsetNotFoundError, and NothingSeenError in an outage."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self._rates = _Rates()

    # All jobsets

    def home(self) -> Facts:
        """The jobsets, the last active first, and a line on the server."""
        rows = self._sampler.part("lately", lambda reader: reader.lately(JOBSETS + 1))
        shown = rows.value[:JOBSETS]
        numbers = tuple(row.jobset.number for row in shown)
        pasts = self._sampler.part(
            ("histories", numbers), lambda reader: reader.histories(numbers, time.time() - 3600), fresh=SLOW
        )
        jobsets = [self._line(row, pasts.value.get(row.jobset.number, [])) for row in shown]
        return self._told(rows, jobsets=jobsets, more=len(rows.value) > JOBSETS, server=self._server())

    def _line(self, row: JobsetRow, past: Sequence[EndedBy]) -> Facts:
        counts = row.counts
        rates = _rates_of(row, past)
        recent = self._rates.of(row.jobset.number, counts.completed + counts.failed + counts.cancelled)
        speed = recent if recent is not None else rates[-1]
        finish = time.time() + counts.open / speed if speed and counts.open and row.paused_at is None else None
        return {
            "jobset": row.jobset.id,
            "percent": percent_of(counts.added, counts.open),
            "jobs": net(counts),
            "rate": speed,
            "rates": rates,
            "finish": moment(finish and 60 * round(finish / 60)),
            "bees": row.n_bees,
            "runners": row.n_runners,
            "active": moment(row.active_at),
            "paused": row.paused_at is not None,
        }

    def _server(self) -> Facts | None:
        try:
            line = self._sampler.part("server", lambda reader: reader.server_line(), fresh=5.0).value
        except NothingSeenError:
            return None
        try:
            n_bytes = self._sampler.part("size", lambda reader: reader.database_size(), fresh=60.0).value
        except NothingSeenError:
            n_bytes = None
        facts = line._asdict()
        del facts["clock"]
        return facts | {"bytes": n_bytes}

    def counters(self) -> list[JobsetRow]:
        """The jobsets with their counters, the last active first."""
        return self._sampler.part("lately", lambda reader: reader.lately(JOBSETS + 1)).value

    # One jobset

    def jobset(self, jobset_id: str, span: str = "hour") -> Facts:
        """Read how a jobset goes, why its jobs fail, what runs longest, and who works on it."""
        with until_dropped(jobset_id):
            part = self._running(jobset_id)
            row, progress, quartiles = part.value
            history = self._history(row, span)
            facts = self._course(part.value, self._history(row, "hour"))
            facts |= self._failures(row, progress) | self._longest(row, progress, quartiles)
            facts |= {"rates": self._rates_over(row, history, span), "durations": self._durations(row)}
            facts |= self._bees_of(row)
            return self._told(part, jobset=jobset_id, span=span, **facts)

    def _running(self, jobset_id: str) -> Part[Running]:
        def read(reader: Reader) -> Running:
            rows = reader.jobsets(1, jobset_id=jobset_id) if _IDS.fullmatch(jobset_id) else []
            if not rows:
                raise JobsetNotFoundError(jobset_id, tuple(str(row.jobset.id) for row in reader.jobsets()))
            one = reader.of(rows[0].jobset)
            return Running(rows[0], one.progress(), one.recent_durations())

        return self._sampler.part(("jobset", jobset_id), read)

    def find(self, jobset_id: str) -> JobsetRow:
        """The jobset of this id."""
        return self._running(jobset_id).value.row

    def _course(self, running: Running, history: Sequence[Minute]) -> Facts:
        row, progress, quartiles = running
        view = outlook(row.jobset.name, progress, n_bees=row.n_bees, n_runners=row.n_runners, quartiles=quartiles)
        paused = None if row.paused_at is None else f"{row.paused_by}" + (f" ({row.paused_why})" * bool(row.paused_why))
        course = course_of(view, progress, row.counts, history, now=time.time(), paused=paused)
        ended = row.counts.completed + row.counts.failed + row.counts.cancelled
        return {
            "course": course._asdict(),
            "percent": view.percent,
            "jobs": progress._asdict(),
            "added": progress.added,
            "events": row.counts._asdict(),
            "rate": self._rates.of(row.jobset.number, ended),
            "paused": moment(row.paused_at),
            "bees": row.n_bees,
            "runners": row.n_runners,
            "made": moment(row.created_at),
            "active": moment(row.active_at),
        }

    def _history(self, row: JobsetRow, span: str) -> list[Minute]:
        seconds, step = SPANS[span]
        return self._sampler.part(
            ("history", row.jobset.number, span),
            lambda reader: reader.of(row.jobset).history_steps(max(0.0, time.time() - seconds), step),
            fresh=SLOW,
        ).value

    def _rates_over(self, row: JobsetRow, history: Sequence[Minute], span: str) -> list[tuple[float, int, int, int]]:
        """Give times, and how many were done, had failed and were lost by then."""
        counts = row.counts
        told = [(m.at, m.counts.completed, m.counts.failed, m.counts.lost) for m in history]
        if not told and row.created_at > time.time() - SPANS[span][0]:
            told = [(row.created_at, 0, 0, 0)]
        return [*told, (float(int(time.time())), counts.completed, counts.failed, counts.lost)] if told else []

    def _failures(self, row: JobsetRow, progress: Progress) -> Facts:
        """Causes, counted anew when there are other failures."""
        if not progress.failed:
            return {"failures": [], "failures_of": 0}
        try:
            causes: list[CauseRow] = self._sampler.part(
                ("causes", row.jobset.number),
                lambda reader: reader.of(row.jobset).causes(CAUSES, most=FAILURES),
                fresh=5.0,
            ).value
        except NothingSeenError:
            return {"failures": None, "failures_of": progress.failed}
        is_all = all(cause.is_all for cause in causes)
        return {
            "failures": [cause_facts(cause) for cause in causes],
            "failures_of": progress.failed,
            "failures_counted": None if is_all else sum(cause.n for cause in causes),
        }

    def _longest(
        self, row: JobsetRow, progress: Progress, quartiles: tuple[float, float, float, float] | None
    ) -> Facts:
        p95 = quartiles[3] if quartiles else None
        begun: list[BegunRow] = []
        if progress.running:
            begun = self._sampler.part(
                ("begun", row.jobset.number), lambda reader: reader.of(row.jobset).begun_jobs(3 * RUNNERS)
            ).value
        copied = {one.job for one in begun if one.copy}
        longest = [
            one._asdict() | {"beyond_p95": p95 is not None and one.since > p95, "copied": one.job in copied}
            for one in begun[: 2 * RUNNERS]
        ]
        return {"p95": p95, "longest": longest[:RUNNERS], "n_running": progress.running}

    def _durations(self, row: JobsetRow) -> list[float]:
        ends = self._sampler.part(
            ("ends", row.jobset.number),
            lambda reader: reader.of(row.jobset).recent_ends(DURATIONS),
            fresh=5.0,
        ).value
        return [seconds for _, _, seconds in ends if seconds is not None]

    # Jobs

    def jobs(self, jobset_id: str, wanted: Wanted, after: int) -> Facts:
        """A page of jobs."""
        with until_dropped(jobset_id):
            row = self.find(jobset_id)
            part: Part[JobPage] = self._sampler.part(
                ("jobs", row.jobset.number, wanted, after),
                lambda reader: reader.of(row.jobset).jobs(after, JOBS, wanted),
            )
        page = part.value
        return self._told(part, jobset=jobset_id, jobs=[job_facts(job) for job in page.rows], after=page.after)

    def job(self, jobset_id: str, job: int) -> Facts | None:
        """One job with its life; None if there is none."""

        def read(reader: Reader) -> Life | None:
            one = reader.of(row.jobset)
            rows = one.jobs_of([job])
            begun = one.begun_jobs(job=job) if rows and rows[0].status == "running" else []
            return Life(rows[0], one.life(job), begun, one.texts(job, TEXTS)) if rows else None

        with until_dropped(jobset_id):
            row = self.find(jobset_id)
            part = self._sampler.part(("job", row.jobset.number, job), read)
        if part.value is None:
            return None
        found, life, begun, texts = part.value
        events = [event_facts(event) for event in life]
        return self._told(
            part,
            jobset=jobset_id,
            job=job_facts(found),
            running=[one._asdict() for one in begun],
            error=next((event["error"] for event in reversed(events) if event["error"]), None),
            events=events,
            printed=[text_facts(text) for text in texts if text.printed.size],
        )

    # Bees

    def bees(self) -> Facts:
        """List who works, where, and at what; and who has left."""
        part = self._sampler.part("bees", lambda reader: reader.bees(n=BEES + 1))
        left: list[DepartedRow] = self._sampler.part("departed", lambda reader: reader.departed(n=50)).value
        doing: list[DoingRow] = self._sampler.part("doing", lambda reader: reader.doing()).value
        bees = [bee_facts(bee, doing) for bee in part.value[:BEES]]
        return self._told(part, bees=bees, more=len(part.value) > BEES, departed=[departed_facts(one) for one in left])

    def _bees_of(self, row: JobsetRow) -> Facts:
        bees: list[BeeRow] = self._sampler.part(
            ("bees", row.jobset.number), lambda reader: reader.bees(row.jobset, RUNNERS + 1)
        ).value
        doing: list[DoingRow] = self._sampler.part(
            ("doing", row.jobset.number), lambda reader: reader.doing(row.jobset)
        ).value
        return {
            "bee_rows": [bee_facts(bee, doing) for bee in bees[:RUNNERS]],
            "more_bees": len(bees) > RUNNERS,
        }

    def _told(self, part: Part[Any], **facts: Any) -> Facts:
        """The facts with when they were so, and since when nobody answers."""
        at = {"at": moment(float(int(part.at))), "away_since": moment(self._sampler.away_since), "is_cut": part.is_cut}
        return at | facts


class _Rates:
    """Ends a second over the last looks, by jobset."""

    def __init__(self) -> None:
        self._ends: OrderedDict[int, deque[tuple[float, int]]] = OrderedDict()

    def of(self, number: int, n_ended: int) -> float | None:
        """The rate with one more look; None at the first."""
        now = time.monotonic()
        ends = self._ends.setdefault(number, deque())
        self._ends.move_to_end(number)
        if not ends or now - ends[-1][0] > 0.5:
            ends.append((now, n_ended))
        while len(ends) > 2 and ends[0][0] < now - WINDOW:
            ends.popleft()
        while len(self._ends) > 2 * JOBSETS:
            self._ends.popitem(last=False)
        (began, before), (until, n) = ends[0], ends[-1]
        return max(0.0, (n - before) / (until - began)) if until > began else None


def _rates_of(row: JobsetRow, past: Sequence[EndedBy]) -> list[float]:
    """Ends a second in the last hour, in steps of two minutes."""
    now, counts = time.time(), row.counts
    first = [past[0]._replace(at=0.0)] if past and row.created_at < now - HOUR_SECONDS else []
    known = [*first, *past, EndedBy(now, counts.completed, counts.failed, counts.lost)]
    times = [ended.at for ended in known]
    places = [
        bisect_right(times, now - HOUR_SECONDS + STEP_SECONDS * n) for n in range(int(HOUR_SECONDS / STEP_SECONDS) + 1)
    ]
    ended = [known[n - 1].completed + known[n - 1].failed if n else 0 for n in places]
    return [max(0, after - before) / STEP_SECONDS for before, after in itertools.pairwise(ended)]
