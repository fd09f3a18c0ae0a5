"""Hiring: a crew's runners are started, replaced when they die, and killed together with their bee."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from workerbee.bee.channel import Caller
from workerbee.bee.guardian import Guardian
from workerbee.bee.room import Room
from workerbee.bee.runner_process import Launch, RunnerProcess
from workerbee.bee.shelf import Shelf
from workerbee.orders import Orders

#: After so many runners in a row that couldn't be started or did nothing, no more are started.
MOST_FAILURES = 5


class Hiring:
    """Starts the ``n_wanted`` runners of the ``bee`` of that name, whose calls share what is on the ``shelf``.

    With a ``caller`` the only runner is the process that called JobSet.run. ``broken`` is the reason why no runner can
    be started; None as long as they can.
    """

    def __init__(self, orders: Orders, bee: str, caller: Caller | None) -> None:
        self.n_wanted = orders.workers if caller is None else 1
        self.shelf = Shelf.make() if caller is None else None
        self.broken: str | None = None
        self._launch = Launch.ordered(orders, bee, self.shelf)
        self._caller = caller
        self._guardian = Guardian(*self._launch.directories) if caller is None else None
        self._n_failures = 0
        self._start_at = 0.0
        #: For the results of all runners.
        self.room = Room()

    def hire(self, present: Sequence[RunnerProcess]) -> RunnerProcess | None:
        """Start another runner beside these; None if they are enough, or if it isn't time for the next try."""
        if len(present) >= self.n_wanted or time.monotonic() < self._start_at:
            return None
        if self._caller is not None:
            return RunnerProcess.calling(self._launch, self._caller)
        free = set(range(1, self.n_wanted + 1)) - {runner.number for runner in present}
        try:
            runner = RunnerProcess.start(self._launch, min(free))
            runner.channel.room = self.room
        except OSError as error:  # there are too many processes or open files, or too little memory
            self._make_do(present, error)
            return None
        if runner.process is not None and self._guardian is not None:
            self._guardian.watch(runner.process.pid)
        return runner

    def seconds_to_next(self, present: Sequence[RunnerProcess]) -> float | None:
        """Say how long to wait before `hire` is asked again; None if these are enough."""
        return None if len(present) >= self.n_wanted else max(0.01, self._start_at - time.monotonic())

    def _make_do(self, present: Sequence[RunnerProcess], error: OSError) -> None:
        """Go on with the runners that are there, as no more can be started; without any, try again for a while."""
        if present:
            logging.getLogger("workerbee").warning(
                "%d runners instead of %d, as no more can be started: %s", len(present), self.n_wanted, error
            )
            self.n_wanted = len(present)
        else:
            self.has_failed(f"no runner can be started: {error}")

    def has_worked(self) -> None:
        """Note that a runner has done a job."""
        self._n_failures = 0

    def has_failed(self, reason: str) -> None:
        """Note that a runner has ended before it did anything. The next one is started later, and after a few, none."""
        self._n_failures += 1
        self._start_at = time.monotonic() + min(30.0, 0.1 * 2**self._n_failures)
        if self._n_failures >= MOST_FAILURES:
            self.broken = reason

    def part(self, runner: RunnerProcess) -> str:
        """Reap a dead runner. Returns what is known about its end. There is no other one for JobSet.run."""
        if self._caller is not None:
            self.broken = "the caller is gone"
            self.n_wanted = 0
        if runner.process is not None and self._guardian is not None:
            self._guardian.forget(runner.process.pid)
        return runner.reap()

    def dismiss(self) -> None:
        """Let go of what runners needed, when all have ended."""
        if self._guardian is not None:
            self._guardian.dismiss()
        if self.shelf is not None:
            self.shelf.close()
