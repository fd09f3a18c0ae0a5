"""How a jobset goes, in one sentence: how much is done, when the rest will be, or why nothing moves."""

from __future__ import annotations

from typing import NamedTuple

from workerbee.store import Counts

#: So many jobs must have completed before anybody speaks of a finish.
ENOUGH = 10


class Outlook(NamedTuple):
    """What a reader wants to know first.

    ``percent`` is rounded down, and 100 only if nothing is open. ``seconds_left`` is a range, None if nobody can say.
    """

    percent: int
    seconds_left: tuple[float, float] | None
    sentence: str
    advice: str | None


def outlook(
    name: str,
    counts: Counts,
    *,
    n_bees: int,
    n_runners: int,
    quartiles: tuple[float, float, float, float] | None,
) -> Outlook:
    """How a jobset goes. ``quartiles`` are of the seconds that its last jobs took, with the 95th percentile."""
    percent, n_jobs = percent_of(counts), counts.added
    if not n_jobs:
        return Outlook(0, None, f"{name} has no jobs yet.", None)
    if not counts.open:
        sentence = f"Done: {_ends(counts)}."
        advice = f"workerbee failures {name}" if counts.failed + counts.cancelled > counts.reopened else None
        return Outlook(percent, None, sentence, advice)
    so_far = f"{percent} % of {n_jobs:,} jobs have ended, {counts.open:,} are open"
    if not n_bees:
        advice = f"python -m workerbee.bee {name}"
        return Outlook(percent, None, f"Nobody works on it: {so_far}, and no bee is there.", advice)
    left = _seconds_left(counts, n_runners, quartiles)
    runners = f"{n_runners:,} runner{'s' * (n_runners != 1)}"
    if left is None:
        return Outlook(percent, None, f"Under way: {so_far}, with {runners}.", None)
    sentence = f"Under way: {so_far}; {spelled(left[0])} to {spelled(left[1])} to go with {runners}."
    return Outlook(percent, left, sentence, None)


def percent_of(counts: Counts) -> int:
    """How many of a hundred jobs have ended, rounded down; 100 only if nothing is open, and 0 without a job."""
    if not counts.open:
        return 100 if counts.added else 0
    return max(0, min(99, 100 * (counts.added - counts.open) // counts.added))


def _seconds_left(
    counts: Counts, n_runners: int, quartiles: tuple[float, float, float, float] | None
) -> tuple[float, float] | None:
    """What the open jobs take if they are like the quicker or like the slower half of the last ones."""
    if quartiles is None or counts.completed < ENOUGH or not n_runners:
        return None
    low, _, high, _ = quartiles
    rounds = counts.open / n_runners
    return max(low, rounds * low), max(high, rounds * high)


def _ends(counts: Counts) -> str:
    """What has become of the jobs; which of the bad ends were retried, counters don't say."""
    if counts.reopened:
        badly = counts.failed + counts.cancelled - counts.reopened
        ends = {"completed": counts.completed, "failed or cancelled": badly}
    else:
        ends = {"completed": counts.completed, "failed": counts.failed, "cancelled": counts.cancelled}
    return ", ".join(f"{n:,} {kind}" for kind, n in ends.items() if n)


def spelled(seconds: float) -> str:
    """A duration as a person says it."""
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"
