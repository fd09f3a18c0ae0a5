"""Shows what running jobs have printed, and where they are, to those who ask: through the database alone."""

from __future__ import annotations

import time
from collections.abc import Iterable

from workerbee.bee.runner_process import RunnerProcess
from workerbee.bee.tasks import Task
from workerbee.store import BeeStore, ShowRequest
from workerbee.wire.printed import Printed

#: Seconds between two showings of one job.
SHOW_SECONDS = 2.0
NO_STACK = b"the job runs in the process that has called JobSet.run: look at it there, with py-spy for example"


class Tails:
    """Remembers when each job is due to be shown again, as long as anybody asks for it."""

    def __init__(self) -> None:
        self._due: dict[tuple[str, ShowRequest], float] = {}

    def show(self, store: BeeStore, asked: Iterable[tuple[ShowRequest, Task, RunnerProcess]]) -> None:
        """Show those of these running jobs that are asked for and due."""
        now, uuid = time.monotonic(), str(store.jobset.uuid)
        due = {}
        for what, task, runner in asked:
            key = uuid, what
            due[key] = self._due.get(key, 0.0)
            if now >= due[key]:
                due[key] = now + self._show(store, what, task, runner, is_first=key not in self._due)
        self._due = {key: at for key, at in self._due.items() if key[0] != uuid} | due

    def _show(self, store: BeeStore, what: ShowRequest, task: Task, runner: RunnerProcess, *, is_first: bool) -> float:
        """Show a job's output or its stacks. Returns in how many seconds it is due again."""
        if not what.is_stack:
            store.show(what, task.job.run, runner.output.so_far())
        elif runner.stack is None or runner.process is None:
            store.show(what, task.job.run, Printed(0, NO_STACK, b"", len(NO_STACK), 0))
        else:
            if not is_first:
                text = runner.stack.text().encode()
                store.show(what, task.job.run, Printed(0, text, b"", len(text), 0))
            runner.stack.ask(runner.process.pid)
            return 0.0 if is_first else SHOW_SECONDS
        return SHOW_SECONDS
