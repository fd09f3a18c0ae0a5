"""How a jobset goes, as one value."""

from __future__ import annotations

from typing import NamedTuple

from workerbee.outlook import outlook
from workerbee.store import Catalogue, Connection, Counts, JobsetReader, Progress
from workerbee.wire.job import Jobset


class Status(NamedTuple):
    """How a jobset goes; as text it is a sentence.

    ``jobs`` counts them by state, ``events`` all that has happened. ``percent`` of the jobs have ended: rounded down,
    100 only if nothing is open. ``seconds_left`` is a range, None if nobody can say; ``advice`` a command that helps;
    ``paused`` says by whom and why (None: it isn't).
    """

    jobset: str
    jobs: Progress
    events: Counts
    percent: int
    seconds_left: tuple[float, float] | None
    bees: int
    runners: int
    paused: str | None
    sentence: str
    advice: str | None

    def __str__(self) -> str:
        return self.sentence

    @property
    def is_over(self) -> bool:
        """Whether nothing is open."""
        return not self.jobs.open


def status_of(connection: Connection, jobset: Jobset) -> Status:
    """How a jobset goes now."""
    catalogue, reader = Catalogue(connection), JobsetReader(connection, jobset)
    progress = reader.progress()
    bees, runners = catalogue.live_bees(jobset.number), catalogue.live_runners(jobset.number)
    view = outlook(jobset.name, progress, n_bees=bees, n_runners=runners, quartiles=reader.recent_durations())
    paused = catalogue.remaining(jobset.number).paused
    advice = f"workerbee resume {jobset.name}" if paused is not None and progress.open else view.advice
    sentence = f"Paused by {paused}. {view.sentence}" if paused is not None and progress.open else view.sentence
    return Status(
        jobset=jobset.name,
        jobs=progress,
        events=catalogue.counts(jobset.number),
        percent=view.percent,
        seconds_left=view.seconds_left,
        bees=bees,
        runners=runners,
        paused=paused,
        sentence=sentence,
        advice=advice,
    )
