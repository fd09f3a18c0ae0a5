"""What ``workerbee top`` knows: one look after the other at a jobset, its rate, and since when nobody answers."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field, replace

from workerbee.cli.database import found
from workerbee.outlook import Outlook, outlook, percent_of
from workerbee.reading import (
    BeeRow,
    BegunRow,
    CauseRow,
    Event,
    JobRow,
    JobsetReader,
    JobsetRow,
    Progress,
    Reader,
    is_passing,
)

#: Seconds over which a rate is taken, and rows of each list.
WINDOW_SECONDS, ROWS = 30.0, 100
#: Counting causes rests for so many times what it took.
REST_FACTOR = 50


@dataclass(frozen=True)
class Seen:
    """One look. ``away_since`` (epoch) says that the database didn't answer, and the rest is of an earlier look."""

    at: float
    jobset: JobsetRow | None = None
    jobsets: list[JobsetRow] = field(default_factory=list)
    progress: Progress | None = None
    outlook: Outlook | None = None
    rate: float | None = None
    causes: list[CauseRow] = field(default_factory=list)
    begun: list[BegunRow] = field(default_factory=list)
    bees: list[BeeRow] = field(default_factory=list)
    job: tuple[JobRow, list[Event]] | None = None
    away_since: float | None = None

    @property
    def line(self) -> str:
        """The look in one line."""
        if self.away_since is not None:
            return f"the database hasn't answered since {time.strftime('%H:%M:%S', time.localtime(self.away_since))}"
        if self.outlook is None:
            going = sum(1 for row in self.jobsets if row.counts.open)
            return f"{len(self.jobsets):,} jobsets, {going:,} with open jobs"
        if self.is_over:
            return self.outlook.sentence
        rate = "" if not self.rate else f" {self.rate:.3g} jobs/s."
        failed = "" if self.progress is None or not self.progress.failed else f" {self.progress.failed:,} failed."
        return f"{self.outlook.sentence}{rate}{failed}"

    @property
    def is_over(self) -> bool:
        """Tell whether there is nothing more to wait for."""
        return self.away_since is None and self.progress is not None and not self.progress.open


class Look:
    """Looks at one jobset, or at all; what was seen last stays where the database is away.

    ``same`` is the option by which an advised command means the same server.
    """

    def __init__(self, reader: Reader, jobset_id: str | None, same: str = "") -> None:
        self.reader = reader
        self._same = same
        self.jobset_id = jobset_id
        self.job: int | None = None
        self._ends: deque[tuple[float, int]] = deque()
        self._causes = _Causes()
        self._last = Seen(time.time())
        if jobset_id is not None:
            found(reader, jobset_id)  # a mistake is said at once

    def choose(self, jobset_id: str | None) -> None:
        """Look at this one from now on, or at all."""
        self.jobset_id, self.job = jobset_id, None
        self._ends.clear()
        self._causes = _Causes()

    def refreshed(self) -> Seen:
        """Look at it anew. Raises JobsetNotFoundError once it was dropped."""
        try:
            self._last = self._all() if self.jobset_id is None else self._one(self.jobset_id)
        except Exception as error:
            if not is_passing(error):
                raise
            since = self._last.away_since
            self._last = replace(self._last, away_since=time.time() if since is None else since)
        return self._last

    def _all(self) -> Seen:
        return Seen(time.time(), jobsets=self.reader.jobsets(ROWS))

    def _one(self, jobset_id: str) -> Seen:
        row, reader = found(self.reader, jobset_id)
        progress = reader.progress()
        begun = reader.begun_jobs(ROWS) if progress.running else []
        view = outlook(
            jobset_id,
            progress,
            n_bees=row.n_bees,
            n_runners=row.n_runners,
            quartiles=reader.recent_durations(),
            longest=max((one.since for one in begun), default=0.0),
        )
        return Seen(
            time.time(),
            jobset=row,
            progress=progress,
            outlook=view if view.advice is None else view._replace(advice=view.advice + self._same),
            rate=self._rate(progress),
            causes=self._causes.of(reader, progress.failed),
            begun=begun,
            bees=self.reader.bees(row.jobset, ROWS),
            job=self._job(reader),
        )

    def _job(self, reader: JobsetReader) -> tuple[JobRow, list[Event]] | None:
        rows = [] if self.job is None else reader.jobs_of([self.job])
        return (rows[0], reader.life(rows[0].id)) if rows else None

    def _rate(self, progress: Progress) -> float | None:
        """Ends a second over the last looks; None at the first."""
        now = time.monotonic()
        self._ends.append((now, progress.added - progress.open))
        while len(self._ends) > 2 and self._ends[0][0] < now - WINDOW_SECONDS:
            self._ends.popleft()
        (began, before), (_, n) = self._ends[0], self._ends[-1]
        return None if len(self._ends) < 2 else max(0.0, (n - before) / (now - began))


class _Causes:
    """Causes of failures, which are counted again when there are others, and never for a great part of the time."""

    def __init__(self) -> None:
        self._rows: list[CauseRow] = []
        self._n_failed = self._due = 0.0

    def of(self, reader: JobsetReader, n_failed: int) -> list[CauseRow]:
        began = time.monotonic()
        if n_failed != self._n_failed and began >= self._due:
            self._rows = reader.causes(ROWS) if n_failed else []
            self._n_failed, now = n_failed, time.monotonic()
            self._due = now + REST_FACTOR * (now - began)
        return self._rows


def percent(row: JobsetRow) -> int:
    """The share of a jobset that has ended, in percent."""
    return percent_of(row.counts.added, row.counts.open)
