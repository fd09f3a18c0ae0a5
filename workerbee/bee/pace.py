"""How long the jobs of each function take here, and so how many of them are worth holding.

Work is counted in runners: a job whose length isn't known, or is more than ``HOLD_SECONDS``, takes one for itself;
shorter ones share it, so many that they keep it busy for ``HOLD_SECONDS``.
"""

from __future__ import annotations

from typing import NamedTuple

#: Seconds of work that a bee holds for each runner, sent to a runner at once, and jobs of any length.
HOLD_SECONDS, HAND_SECONDS, MOST_IN_HAND = 0.15, 0.025, 250
MOST_HELD = 2 * MOST_IN_HAND
#: Seconds of work that aren't worth dividing among the runners: each message wakes a process and costs CPU.
CRUMB_SECONDS = 0.0005
#: Functions of which this is remembered: those whose jobs have ended last.
MOST_FUNCTIONS = 64

#: A jobset's number and a function's.
Key = tuple[int, int]


class Appetite(NamedTuple):
    """How much to claim: at most so many ``jobs``, for so many ``runners``; how many of them ``start`` at once."""

    jobs: int
    runners: float
    start: int

    def at_most(self, n: int) -> Appetite:
        return self._replace(jobs=min(n, self.jobs), start=min(n, self.start))


SATED = Appetite(0, 0.0, 0)


class Pace:
    """Seconds a job, by function: a mean in which each new job counts for a fifth."""

    def __init__(self) -> None:
        self._seconds: dict[Key, float] = {}
        self._judged: dict[Key, float] = {}

    def learn(self, function: Key, seconds: float) -> None:
        """A job of this function has taken so long."""
        before = self._seconds.pop(function, seconds)
        self._seconds[function] = before + 0.2 * (seconds - before)  # the last one, for it is the newest
        if len(self._seconds) > MOST_FUNCTIONS:
            del self._seconds[next(iter(self._seconds))]

    def judge(self) -> None:
        """Let what was learned count for what is claimed.

        Not before somebody has looked at how the jobs ended: their haste may be that of a machine on which all fails.
        """
        self._judged = self._seconds.copy()

    def seconds(self, function: Key) -> float | None:
        """What a job takes; None if that is unknown."""
        return self._seconds.get(function)

    def cost(self, function: Key) -> float:
        """What part of a runner a job takes."""
        return _cost(self._judged.get(function))

    def costs(self, jobset: int) -> dict[int, float]:
        """The same for the functions of this jobset whose jobs are short, by the number of the function."""
        return {f: _cost(s) for (number, f), s in self._judged.items() if number == jobset and s < HOLD_SECONDS}


def _cost(seconds: float | None) -> float:
    return 1.0 if seconds is None else min(1.0, max(1 / MOST_HELD, seconds / HOLD_SECONDS))


def portion(n_ready: int, n_runners: int, pace: float | None) -> int:
    """How many of the ready jobs one message brings to a runner; ``pace``: seconds a job, None while unknown."""
    if pace is None:
        return 1
    seconds = max(pace, 1e-6)
    fair = -(-n_ready // n_runners)
    return max(1, min(MOST_IN_HAND, int(HAND_SECONDS / seconds), max(fair, int(CRUMB_SECONDS / seconds))))
