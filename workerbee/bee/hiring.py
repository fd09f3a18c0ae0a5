"""How a crew comes to its runners: started, replaced, and killed together with their bee."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Sequence

from workerbee.bee.channel import Position
from workerbee.bee.guardian import Guardian
from workerbee.bee.runner_process import Launch, RunnerProcess

#: So many failures to start a runner that does something are enough.
MOST_FAILURES = 5


class Hiring:
    """Starts ``n_wanted`` runners. ``caller`` leads to the only one of JobSet.run, which is its process.

    ``broken`` says why there are none any more, nor can there be.
    """

    def __init__(self, n_wanted: int, launch: Launch, caller: tuple[socket.socket, int] | None) -> None:
        self.n_wanted = n_wanted
        self.broken: str | None = None
        self._launch = launch
        self._caller = caller
        self._guardian = Guardian(launch.memory) if caller is None else None
        self._n_failures = 0
        self._start_at = 0.0

    def hire(self, present: Sequence[RunnerProcess]) -> RunnerProcess | None:
        """Another runner beside these; None if they are enough, or if it isn't time for the next try."""
        if len(present) >= self.n_wanted or time.monotonic() < self._start_at:
            return None
        if self._caller is not None:
            channel, mark = self._caller
            return RunnerProcess(self._launch.channel(channel), Position(mark), None, 1)
        free = set(range(1, self.n_wanted + 1)) - {runner.number for runner in present}
        try:
            runner = RunnerProcess.start(self._launch, min(free))
        except OSError as error:  # the system's or the user's processes, open files or memory are exhausted
            self._make_do(present, error)
            return None
        if runner.process is not None and self._guardian is not None:
            self._guardian.watch(runner.process.pid)
        return runner

    def seconds_to_next(self, present: Sequence[RunnerProcess]) -> float | None:
        """Say how long to wait before `hire` is asked again; None if these are enough."""
        return None if len(present) >= self.n_wanted else max(0.01, self._start_at - time.monotonic())

    def _make_do(self, present: Sequence[RunnerProcess], error: OSError) -> None:
        """No more runners can be started: go on with those that are there, or try again for a while."""
        if present:
            logging.getLogger("workerbee").warning(
                "%d runners instead of %d, as no more can be started: %s", len(present), self.n_wanted, error
            )
            self.n_wanted = len(present)
        else:
            self.has_failed(f"no runner can be started: {error}")

    def has_worked(self) -> None:
        """Some runner has done something."""
        self._n_failures = 0

    def has_failed(self, reason: str) -> None:
        """One has done nothing: start the next one later, and after a few such failures none."""
        self._n_failures += 1
        self._start_at = time.monotonic() + min(30.0, 0.1 * 2**self._n_failures)
        if self._n_failures >= MOST_FAILURES:
            self.broken = reason

    def part(self, runner: RunnerProcess) -> str:
        """A runner is dead; what is known about its end. JobSet.run's own has no successor."""
        if self._caller is not None:
            self.broken = "the caller is gone"
            self.n_wanted = 0
        if runner.process is not None and self._guardian is not None:
            self._guardian.forget(runner.process.pid)
        return runner.reap()

    def dismiss(self) -> None:
        """All runners are gone."""
        if self._guardian is not None:
            self._guardian.dismiss()
