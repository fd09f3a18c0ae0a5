"""What the views of jobsets know, as plain facts: the same for their HTML and their JSON."""

from __future__ import annotations

import itertools
import re
import time
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import NamedTuple

from workerbee.client.spectators import until_dropped
from workerbee.dashboard.course import course_of
from workerbee.dashboard.crowd import Crowd
from workerbee.dashboard.facts import Facts, cause_facts, net, told
from workerbee.dashboard.sampler import NothingSeenError, Part, Sampler
from workerbee.dashboard.shown import moment
from workerbee.errors import JobsetNotFoundError
from workerbee.outlook import outlook, percent_of
from workerbee.reading import BegunRow, CauseRow, EndedBy, JobsetRow, Minute, Progress, Reader

#: Rows of each list.
JOBSETS, CAUSES, LONGEST = 40, 12, 12
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
    begun: list[BegunRow]


class Looks:
    """Looks at jobsets through one sampler. Raises JobsetNotFoundError, and NothingSeenError in an outage."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self._crowd = Crowd(sampler)
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
        return told(self._sampler, rows, jobsets=jobsets, more=len(rows.value) > JOBSETS, server=self._server())

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
            row, progress = part.value.row, part.value.progress
            history = self._history(row, span)
            facts = self._course(part.value, self._history(row, "hour"))
            facts |= self._failures(row, progress) | _longest(part.value)
            facts |= {"rates": self._rates_over(row, history, span), "durations": self._durations(row)}
            facts |= self._crowd.of(row)
            return told(self._sampler, part, jobset=jobset_id, span=span, **facts)

    def _running(self, jobset_id: str) -> Part[Running]:
        def read(reader: Reader) -> Running:
            rows = reader.jobsets(1, jobset_id=jobset_id) if _IDS.fullmatch(jobset_id) else []
            if not rows:
                raise JobsetNotFoundError(jobset_id, tuple(str(row.jobset.id) for row in reader.jobsets()))
            one = reader.of(rows[0].jobset)
            return Running(rows[0], one.progress(), one.recent_durations(), one.begun_jobs(3 * LONGEST))

        return self._sampler.part(("jobset", jobset_id), read)

    def find(self, jobset_id: str) -> JobsetRow:
        """The jobset of this id."""
        return self._running(jobset_id).value.row

    def _course(self, running: Running, history: Sequence[Minute]) -> Facts:
        row, progress, quartiles, begun = running
        view = outlook(
            row.jobset.name,
            progress,
            n_bees=row.n_bees,
            n_runners=row.n_runners,
            quartiles=quartiles,
            longest=max((one.since for one in begun), default=0.0),
        )
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
        rates = [(m.at, m.counts.completed, m.counts.failed, m.counts.lost) for m in history]
        if not rates and row.created_at > time.time() - SPANS[span][0]:
            rates = [(row.created_at, 0, 0, 0)]
        return [*rates, (float(int(time.time())), counts.completed, counts.failed, counts.lost)] if rates else []

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

    def _durations(self, row: JobsetRow) -> list[float]:
        ends = self._sampler.part(
            ("ends", row.jobset.number),
            lambda reader: reader.of(row.jobset).recent_ends(DURATIONS),
            fresh=5.0,
        ).value
        return [seconds for _, _, seconds in ends if seconds is not None]


def _longest(running: Running) -> Facts:
    """List what runs longest, and which of it takes unusually long or has a copy."""
    p95 = running.quartiles[3] if running.quartiles else None
    copied = {one.job for one in running.begun if one.copy}
    longest = [
        one._asdict() | {"beyond_p95": p95 is not None and one.since > p95, "copied": one.job in copied}
        for one in running.begun[:LONGEST]
    ]
    return {"p95": p95, "longest": longest, "n_running": running.progress.running}


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
