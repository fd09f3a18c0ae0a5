"""The damper: a bee takes fewer jobs of a function that fails here while other bees do well at it.

It tells the other bees. If a function fails on all bees, its jobs are at fault, and are run without delay. Other
functions aren't slowed down.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping

from workerbee.bee.breaker import Breaker
from workerbee.bee.holdings import Holdings, Served
from workerbee.bee.pace import FunctionKey
from workerbee.bee.tasks import End
from workerbee.wire.job import EndKind

#: So many functions are remembered: those whose jobs have ended last.
MOST_FUNCTIONS = 64
#: Seconds between two questions to the database whether others can do what fails here. A function of which no job was
#: tried for so many seconds isn't asked about.
ASK_SECONDS, QUIET_SECONDS = 1.0, 120.0


class Damper:
    """A circuit breaker for each function."""

    def __init__(self, holdings: Holdings, log: logging.Logger) -> None:
        self._holdings = holdings
        self._log = log
        self._breakers: dict[FunctionKey, Breaker] = {}
        self._failing: dict[FunctionKey, float] = {}  # functions whose last job failed, and when
        self._unsaid: set[FunctionKey] = set()
        self._able: dict[FunctionKey, tuple[bool, float]] = {}  # whether other bees do well, and how long that counts
        self._last = Breaker()
        self._last_key: FunctionKey | None = None

    @property
    def is_resting(self) -> bool:
        """Tell whether this bee has failed at every function that it tried last."""
        return self._last.is_open

    def note(self, end: End) -> bool:
        """Note that a job has ended here. Returns whether another job of a failing function may be taken by that."""
        lot, job = end.task
        key = lot.function
        breaker = self._of(key)
        if end.kind is EndKind.COMPLETED and breaker.room is None:  # as nearly all are
            breaker.note(job.id, failed=False)
            return False
        was_open = breaker.is_open
        breaker.note(job.id, failed=end.kind is not EndKind.COMPLETED)
        if breaker.is_open != was_open:
            self._unsaid.add(key)
        if breaker.room is None:
            self._failing.pop(key, None)
            return False
        self._failing[key] = time.monotonic()
        return True

    def _of(self, key: FunctionKey) -> Breaker:
        """Give the breaker of the function whose job has ended last."""
        if key != self._last_key:
            self._breakers[key] = self._last = self._breakers.pop(key) if key in self._breakers else Breaker()
            self._last_key = key
            self._forget_the_oldest()
        return self._last

    def _forget_the_oldest(self) -> None:
        while len(self._breakers) > MOST_FUNCTIONS:
            oldest = next(iter(self._breakers))
            del self._breakers[oldest]
            for kept in (self._failing, self._able):
                kept.pop(oldest, None)

    def settle(self) -> bool:
        """Tell the other bees which functions fail here, and which no longer do. Returns whether there was any news."""
        told = bool(self._unsaid)
        while self._unsaid:
            number, function = key = next(iter(self._unsaid))
            breaker, served = self._breakers.get(key), self._holdings.served.get(number)
            if breaker is not None and served is not None:
                with self._holdings.guard(number):
                    if breaker.is_open:
                        served.store.doubt(function)
                        self._warn(served, function)
                    else:
                        served.store.trust(function)
            self._unsaid.discard(key)
        return told

    def _warn(self, served: Served, function: int) -> None:
        record = served.store.get_function(function)
        self._log.warning(
            "all that this bee tries of %s fails: while others do well, it rests and tries one job a time",
            record.name if record is not None else f"the jobs of {served.jobset.name}",
        )

    def caps(self, served: Served, now: float) -> dict[int, int]:
        """Say how many more jobs to take of each function for which that is limited."""
        number = served.jobset.number
        failing = [function for jobset, function in self._failing if jobset == number]
        if not failing:
            return {}
        n_held: Counter[int] = Counter()
        for held in self._holdings.of(number):
            n_held[held.function[1]] += len(held.open)
        caps = {}
        for function in failing:
            breaker = self._breakers[number, function]
            room = breaker.room or 0
            if room or self._others_can(served, function, now):
                rests = room == 0 and (n_held[function] or breaker.rest(now))
                caps[function] = 0 if rests else max(0, max(1, room) - n_held[function])
        return caps

    def _others_can(self, served: Served, function: int, now: float) -> bool:
        """Tell whether there are other bees that might do well at a function that fails here."""
        key = (served.jobset.number, function)
        able, until = self._able.get(key, (True, 0.0))
        if now - self._failing[key] > QUIET_SECONDS:
            return True
        if now >= until:
            able = served.store.able_bees(function) > 0
            self._able[key] = able, now + ASK_SECONDS
        return able


def costs_of(costs: Mapping[int, float], caps: Mapping[int, int], runners: float) -> dict[int, float]:
    """Raise the costs of jobs so that a claim for ``runners`` runners takes no more of a function than its cap."""
    return {**costs, **{f: max(costs.get(f, 1.0), runners / n) for f, n in caps.items() if n}}
