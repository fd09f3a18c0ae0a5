"""The pace: how long the jobs of each function take here, and so how many of them to hold.

Work is counted in runners. A job whose duration isn't known, or is more than ``HOLD_SECONDS``, counts as one runner;
of shorter jobs as many count as one runner as keep it busy for ``HOLD_SECONDS``. Partials and closures come by the
thousand, and each is a function of its own: if the first jobs of several functions were short, the first job of the
next one is expected to be short too.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

#: Seconds of work that a bee holds for each runner, seconds of work in one message to a runner, and jobs in it.
HOLD_SECONDS, HAND_SECONDS, MOST_IN_HAND = 0.15, 0.025, 250
MOST_HELD = 2 * MOST_IN_HAND
#: Behind a job that takes no longer than this, another one waits in the same runner's hands. It begins at once, without
#: the milliseconds in which a busy machine's bee hears of the first one's end and answers.
FOLLOWED_SECONDS = 0.05
#: Less work than so many seconds isn't divided among runners: each message wakes a process, which costs CPU.
CRUMB_SECONDS = 0.0005
#: What waits behind a job that has taken so long is an idle runner's.
MOVED_SECONDS = 0.002
#: So many functions are remembered: those whose jobs have ended last.
MOST_FUNCTIONS = 64
#: A new function's jobs are expected to take as long as the longest of the first jobs of so many new functions before
#: it, and the seconds that loading takes.
ALIKE, LOADING_SECONDS = 8, 0.001

#: A jobset's number and a function's.
FunctionKey = tuple[int, int]


class Appetite(NamedTuple):
    """A limit of what to claim: at most ``jobs`` jobs, worth ``runners`` runners; ``start`` of them begin at once."""

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
        self._firsts: dict[int, deque[float]] = {}  # durations of the first jobs of the newest functions, by jobset
        self._likely: dict[int, float] = {}  # what a new function's job is expected to take, by jobset

    def learn(self, function: FunctionKey, *seconds: float) -> None:
        """Note how many seconds each of some jobs of this function has taken, in the order of their ends."""
        if function not in self._seconds:
            firsts = self._firsts.pop(function[0], None) or deque(maxlen=ALIKE)
            firsts.append(seconds[0])
            self._firsts[function[0]] = firsts
            if len(self._firsts) > MOST_FUNCTIONS:
                del self._firsts[next(iter(self._firsts))]
        mean = self._seconds.pop(function, seconds[0])
        for each in seconds:
            mean += 0.2 * (each - mean)
        self._seconds[function] = mean  # inserted again, so that it is the last
        if len(self._seconds) > MOST_FUNCTIONS:
            del self._seconds[next(iter(self._seconds))]

    def judge(self) -> None:
        """Let what was learned count for what is claimed.

        Call it after the ends were collected: on a broken machine jobs are fast because they fail.
        """
        self._judged = self._seconds.copy()
        self._likely = {jobset: max(f) + LOADING_SECONDS for jobset, f in self._firsts.items() if len(f) == ALIKE}

    def seconds(self, function: FunctionKey) -> float | None:
        """Estimate the seconds that a job takes; None if that is unknown."""
        return self._seconds.get(function, self._likely.get(function[0]))

    def cost(self, function: FunctionKey) -> float:
        """Say how much of a runner a job of this function counts as."""
        return _cost(self._judged.get(function, self._likely.get(function[0])))

    def unknown(self, jobset: int) -> float:
        """Say how much of a runner a job of a new function counts as."""
        return _cost(self._likely.get(jobset))

    def costs(self, jobset: int) -> dict[int, float]:
        """Say the same of each function of this jobset that differs from a new one."""
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
