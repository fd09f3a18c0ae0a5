"""The sentence that says how a jobset goes, and when it will be done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from workerbee.dashboard.shown import Moment
from workerbee.outlook import Outlook
from workerbee.reading import Counts, Minute, Progress

#: Ends that are looked at to say that jobs fail, at the least and at the most, and the share that counts as such.
FEW, RECENT, MOSTLY = 20, 500, 0.5


class Course(NamedTuple):
    """The course of a jobset, in a word and a sentence; ``finish`` is a range of times, None if nobody can say."""

    kind: str
    sentence: str
    finish: tuple[Moment, Moment] | None
    advice: str | None


def course_of(
    view: Outlook, progress: Progress, counts: Counts, history: Sequence[Minute], *, now: float, paused: str | None
) -> Course:
    """Judge how a jobset goes now; ``paused`` says by whom and why."""
    left = view.seconds_left
    finish = None if left is None or paused is not None else (Moment(now + left[0]), Moment(now + left[1]))
    n, n_failed = recent_ends(counts, history)
    if not progress.open:
        kind = "empty" if not progress.added else "failed" if progress.failed else "done"
        return Course(kind, view.sentence, None, view.advice)
    if paused is not None:
        return Course("paused", f"Paused by {paused}: {progress.open:,} jobs wait.", None, None)
    if n >= FEW and n_failed >= MOSTLY * n:
        return Course("failing", f"Failing: {100 * n_failed // n} % of the last {n:,}.", finish, None)
    if view.advice is not None:
        return Course("nobody", "Nobody works on it: no bee is there.", None, view.advice)
    if finish is None:
        return Course("under way", f"Under way: {view.percent} % of {progress.added:,} jobs have ended.", None, None)
    return Course("on course", "On course: done", finish, None)


def recent_ends(counts: Counts, history: Sequence[Minute]) -> tuple[int, int]:
    """Count those of the last runs that have ended, of about 500 or all that there are, and those that failed."""
    ended = counts.completed + counts.failed
    before = [m.counts for m in history if m.counts.completed + m.counts.failed <= ended - RECENT]
    completed, failed = (before[-1].completed, before[-1].failed) if before else (0, 0)
    return ended - completed - failed, counts.failed - failed
