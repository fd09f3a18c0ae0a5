"""A bee's work as its runners see it: jobs, what those of one batch have in common, and how each of them ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from workerbee.bee.pace import Key
from workerbee.bee.runner_process import Record
from workerbee.wire.job import Job


@dataclass(eq=False)
class Lot:
    """Jobs of one function that were claimed together. Who has claimed them may know more of it.

    ``timeout`` is seconds for each job. There is no ``record`` where a function needs none.
    """

    function: Key
    timeout: float | None
    record: Record | None


class Task(NamedTuple):
    """One job to be run."""

    lot: Lot
    job: Job


class End(NamedTuple):
    """How a task ended in a runner; kind as in `Outcome`, or ``timeout``, or ``died`` with evidence.

    ``orphaned``: JobSet.run's process died during this job.
    """

    task: Task
    kind: str
    codec: str
    data: bytes
    mac: bytes | None
    duration: float
    evidence: str = ""
