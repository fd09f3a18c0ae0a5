"""How long the jobs of each function take here, and so how many of them are worth holding.

Work is counted in runners: a job whose length isn't known, or is more than ``HOLD_SECONDS``, takes one for itself;
shorter ones share it, so many that they keep it busy for ``HOLD_SECONDS``. Partials and closures come by the thousand,
and each is a function of its own: where the first jobs of several functions were short, so may be that of the next.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

#: Seconds of work that a bee holds for each runner, sent to a runner at once, and jobs of any length.
HOLD_SECONDS, HAND_SECONDS, MOST_IN_HAND = 0.15, 0.025, 250
MOST_HELD = 2 * MOST_IN_HAND
#: Seconds of work that aren't worth dividing among the runners: each message wakes a process and costs CPU.
CRUMB_SECONDS = 0.0005
#: Functions of which this is remembered: those whose jobs have ended last.
MOST_FUNCTIONS = 64
#: Functions of a jobset after whose first jobs the next one is judged, by the longest of them, and what loading takes.
ALIKE, LOADING_SECONDS = 8, 0.001

#: A jobset's number and a function's.
FunctionKey = tuple[int, int]


class Appetite(NamedTuple):
    """A limit of what to claim: so many ``jobs``, for so many ``runners``; so many of them ``start`` at once."""

    jobs: int
    runners: float
    start: int

    def at_most(self, n: int) -> Appetite:
        return self._replace(jobs=min(n, self.jobs), start=min(n, self.start))


SATED = Appetite(0, 0.0, 0)


class Pace:
    """Seconds a job, by function: a mean in which each new job counts for a fifth."""

    def __init__(self) -> None:
        self._seconds: dict[FunctionKey, float] = {}
        self._judged: dict[FunctionKey, float] = {}
        self._firsts: dict[int, deque[float]] = {}  # of the functions that were new last, by jobset
        self._likely: dict[int, float] = {}  # what was judged of those

    def learn(self, function: FunctionKey, seconds: float) -> None:
        """A job of this function has taken so long."""
        if function not in self._seconds:
            firsts = self._firsts.pop(function[0], None) or deque(maxlen=ALIKE)
            firsts.append(seconds)
            self._firsts[function[0]] = firsts
            if len(self._firsts) > MOST_FUNCTIONS:
                del self._firsts[next(iter(self._firsts))]
        before = self._seconds.pop(function, seconds)
        self._seconds[function] = before + 0.2 * (seconds - before)  # the last one, for it is the newest
        if len(self._seconds) > MOST_FUNCTIONS:
            del self._seconds[next(iter(self._seconds))]

    def judge(self) -> None:
        """Let what was learned count for what is claimed.

        Not before somebody has looked at how the jobs ended: their haste may be that of a machine on which all fails.
        """
        self._judged = self._seconds.copy()
        self._likely = {jobset: max(f) + LOADING_SECONDS for jobset, f in self._firsts.items() if len(f) == ALIKE}

    def seconds(self, function: FunctionKey) -> float | None:
        """Estimate the seconds that a job takes; None if that is unknown."""
        return self._seconds.get(function, self._likely.get(function[0]))

    def cost(self, function: FunctionKey) -> float:
        """Say what part of a runner a job takes."""
        return _cost(self._judged.get(function, self._likely.get(function[0])))

    def unknown(self, jobset: int) -> float:
        """The same of a job whose function is new."""
        return _cost(self._likely.get(jobset))

    def costs(self, jobset: int) -> dict[int, float]:
        """The same for the functions of this jobset whose jobs aren't what those of new ones are."""
        most = self.unknown(jobset)
        return {f: cost for (number, f), s in self._judged.items() if number == jobset and (cost := _cost(s)) != most}


def _cost(seconds: float | None) -> float:
    return 1.0 if seconds is None else min(1.0, max(1 / MOST_HELD, seconds / HOLD_SECONDS))


def portion(n_ready: int, n_runners: int, pace: float | None) -> int:
    """Count the ready jobs that one message brings to a runner; ``pace``: seconds a job, None while unknown."""
    if pace is None:
        return 1
    seconds = max(pace, 1e-6)
    fair = -(-n_ready // n_runners)
    return max(1, min(MOST_IN_HAND, int(HAND_SECONDS / seconds), max(fair, int(CRUMB_SECONDS / seconds))))
