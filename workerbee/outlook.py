"""The outlook of a jobset, in one sentence: how much is done, when the rest will be, or why nothing moves."""

from __future__ import annotations

from typing import NamedTuple

from workerbee.reading import Progress

#: A finish is estimated after so many jobs have completed.
ENOUGH_JOBS = 10
#: More have ended than there were, as anybody may write who has the rights.
MISCOUNTED = 'nobody knows what is open: rows of workerbee."counter$" were changed or deleted'


class Outlook(NamedTuple):
    """The first things that a reader wants to know.

    ``percent`` is rounded down, and 100 only if nothing is open. ``seconds_left`` is a range, None if nobody can say.
    """

    percent: int
    seconds_left: tuple[float, float] | None
    sentence: str
    advice: str | None


def outlook(
    name: str,
    progress: Progress,
    *,
    n_bees: int,
    n_runners: int,
    quartiles: tuple[float, float, float, float] | None,
    longest: float,
) -> Outlook:
    """Say how a jobset goes.

    ``quartiles`` are of the seconds that its last jobs took, with the 95th percentile; ``longest`` are the seconds that
    the longest of the running jobs has run, 0.0 if none runs.
    """
    percent, n_jobs = percent_of(progress.added, progress.open), progress.added
    if progress.open < 0:
        return Outlook(0, None, f"Of {name} {MISCOUNTED}.", None)
    if not n_jobs:
        return Outlook(0, None, f"{name} has no jobs yet.", None)
    if not progress.open:
        sentence = f"Done: {_ends(progress)}."
        advice = f"workerbee failures {name}" if progress.failed else None
        return Outlook(percent, None, sentence, advice)
    so_far = (
        f"{percent} % of {n_jobs:,} jobs have ended, {progress.open:,} {'is' if progress.open == 1 else 'are'} open"
    )
    if not n_bees:
        advice = f"python -m workerbee.bee {name}"
        return Outlook(percent, None, f"Nobody works on it: {so_far}, and no bee is there.", advice)
    left = _seconds_left(progress, n_runners, quartiles)
    runners = f"{n_runners:,} runner{'s' * (n_runners != 1)}"
    if left is None:
        return Outlook(percent, None, f"Under way: {so_far}, with {runners}.", None)
    if longest > left[1]:  # it isn't like the last ones, and the end waits for it
        sentence = f"Under way: {so_far}, with {runners}; one job has run for {spelled(longest)}."
        return Outlook(percent, None, sentence, None)
    sentence = f"Under way: {so_far}; {spelled(left[0])} to {spelled(left[1])} to go with {runners}."
    return Outlook(percent, left, sentence, None)


def still_open(name: str, n_open: int) -> str:
    """Say that jobs are open, and how many, as far as the counters can be believed."""
    return f"{n_open:,} jobs of {name} are still open" if n_open > 0 else f"of {name} {MISCOUNTED}"


def percent_of(n_jobs: int, n_open: int) -> int:
    """Give the percentage of jobs that have ended, rounded down; 100 only if nothing is open, and 0 without a job."""
    if not n_open:
        return 100 if n_jobs else 0
    return max(0, min(99, 100 * (n_jobs - n_open) // n_jobs))


def _seconds_left(
    progress: Progress, n_runners: int, quartiles: tuple[float, float, float, float] | None
) -> tuple[float, float] | None:
    """Estimate what the open jobs take if they are like the quicker, or the slower half of the last ones."""
    if quartiles is None or progress.completed < ENOUGH_JOBS or not n_runners:
        return None
    low, _, high, _ = quartiles
    rounds = progress.open / n_runners
    return max(low, rounds * low), max(high, rounds * high)


def _ends(progress: Progress) -> str:
    ends = {"completed": progress.completed, "failed": progress.failed, "cancelled": progress.cancelled}
    return ", ".join(f"{n:,} {kind}" for kind, n in ends.items() if n)


def spelled(seconds: float) -> str:
    """Spell a duration as a person says it."""
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"
