"""How a jobset goes, as one value."""

from __future__ import annotations

from typing import NamedTuple

from workerbee.outlook import outlook
from workerbee.reading import Connection, Counts, Figures, Progress, figures
from workerbee.wire.job import Jobset


class Status(NamedTuple):
    """The state of a jobset; as text it is a sentence.

    ``jobs`` counts them by state, ``events`` all that has happened. ``percent`` of the jobs have ended: rounded down,
    100 only if nothing is open. ``seconds_left`` is a range, as if all ``runners`` worked for this jobset alone; None
    if nobody can say. ``advice`` is a command that helps; ``paused`` says by whom and why (None: it isn't).
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
        """Tell whether nothing is open."""
        return not self.jobs.open


def status_of(connection: Connection, jobset: Jobset) -> Status:
    """Read how a jobset goes now."""
    return _status(jobset.name, figures(connection, jobset))


def _status(name: str, seen: Figures) -> Status:
    view = outlook(
        name,
        seen.jobs,
        n_bees=seen.n_bees,
        n_runners=seen.n_runners,
        quartiles=seen.quartiles,
        longest=seen.longest,
    )
    is_held_up = seen.paused is not None and bool(seen.jobs.open)
    return Status(
        jobset=name,
        jobs=seen.jobs,
        events=seen.events,
        percent=view.percent,
        seconds_left=view.seconds_left,
        bees=seen.n_bees,
        runners=seen.n_runners,
        paused=seen.paused,
        sentence=f"Paused by {seen.paused}. {view.sentence}" if is_held_up else view.sentence,
        advice=f"workerbee resume {name}" if is_held_up else view.advice,
    )
