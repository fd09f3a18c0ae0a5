"""When a bee is to end, and with which exit status. Nothing here looks at a clock: it is told the time, in seconds."""

from __future__ import annotations

from enum import Enum, auto
from math import inf

from workerbee.orders import ExitStatus


class Phase(Enum):
    """The stages of a bee's end."""

    WORKING = auto()
    STOPPING = auto()  # the first round in which it drains
    DRAINING = auto()  # it claims nothing more, and finishes what runs
    OVER = auto()  # it gives back all that it has


class Leaving(Exception):  # noqa: N818 (it is no error)
    """Ends a bee's rounds, with the reason for its exit status."""

    def __init__(self, reason: ExitStatus) -> None:
        super().__init__(reason)
        self.reason = reason


class Departure:
    """Decides when a bee ends: after its ``lifetime``, after ``max_jobs`` jobs, or when it is stopped.

    Jobs that run then have ``grace`` seconds to finish. A second stop gives them back at once.
    """

    def __init__(self, now: float, *, grace: float, lifetime: float | None = None, max_jobs: int | None = None) -> None:
        self._grace = grace
        self._ends_at = inf if lifetime is None else now + lifetime
        self._max_jobs = max_jobs
        self._drain_by: float | None = None
        self._is_at_once = self._is_announced = self._is_time_up = False

    def stop(self, now: float, *, at_once: bool = False) -> None:
        """Have the bee end. Signal handlers and other threads may call this at any moment."""
        if at_once or self._drain_by is not None:
            self._is_at_once = True
        else:
            self._drain_by = now + self._grace

    @property
    def is_stopped(self) -> bool:
        """Tell whether nothing more is to be claimed."""
        return self._is_at_once or self._drain_by is not None

    @property
    def next_change(self) -> float:
        """The time at which the phase changes if nothing else happens."""
        return self._ends_at if self._drain_by is None else self._drain_by

    def phase(self, now: float, *, n_taken: int, n_held: int) -> Phase:
        """Find the stage of a bee that has taken ``n_taken`` jobs in all, and holds ``n_held`` batches."""
        is_full = self._max_jobs is not None and n_taken >= self._max_jobs and not n_held
        if self._drain_by is None and (is_full or self.has_outlived(now)):
            self._is_time_up = True
            self._drain_by = now + self._grace
        if self._is_at_once or (self._drain_by is not None and now > self._drain_by):
            return Phase.OVER
        if self._drain_by is None:
            return Phase.WORKING
        was_announced, self._is_announced = self._is_announced, True
        return Phase.DRAINING if was_announced else Phase.STOPPING

    def has_outlived(self, now: float, seconds: float = 0.0) -> bool:
        """Tell whether the lifetime ended more than ``seconds`` ago."""
        return now > self._ends_at + seconds

    def is_out_of_time(self, now: float, *, has_arrived: bool) -> bool:
        """Tell whether to end in the middle of an outage: the grace period is over, or the bee hadn't begun yet."""
        is_drained = self._drain_by is not None and (not has_arrived or now > self._drain_by)
        return self._is_at_once or is_drained or self.has_outlived(now, self._grace)

    def status(self, reason: ExitStatus, now: float) -> ExitStatus:
        """Give the exit status of a bee that ends for this reason. If its time is up, that explains more."""
        is_up = reason is ExitStatus.OK and self._is_time_up
        return (
            ExitStatus.TIME_IS_UP if is_up or (reason is ExitStatus.NO_DATABASE and self.has_outlived(now)) else reason
        )
