"""What a bee is told to do, and what it says by its exit status."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from workerbee.program import hash_seed
from workerbee.wire import codec


class Status(IntEnum):
    """A bee's exit status."""

    OK = 0  # nothing is left to do, or it was stopped
    USAGE = 2
    NO_DATABASE = 69
    CANT_GO_ON = 70  # no such jobset, or it can run nothing of it
    TIME_IS_UP = 75  # its lifetime is over, or its number of jobs is done


@dataclass(frozen=True)
class Orders:
    """What a bee is to do. Times are in seconds; ``number`` names a (temporary) jobset that has no id."""

    dsn: str
    jobset_id: str | None = None
    number: int | None = None
    workers: int = 1
    busywait: bool = False
    max_busywait_sleep: float = 30.0
    wait: float = 600.0
    functions: tuple[str, ...] = ()
    only_functionless: bool = False
    max_n_retry_attempts: int = 10
    max_failure_sleep: float = 300.0
    max_tasks_per_child: int | None = None
    max_payload: int = codec.MAX_BYTES
    grace: float = 30.0
    lifetime: float | None = None
    max_jobs: int | None = None
    reconnect_timeout: float | None = 3600.0
    flags: tuple[str, ...] = ()
    hash_seed: str = field(default_factory=hash_seed)

    @property
    def is_for_one(self) -> bool:
        """Whether the bee serves one jobset, and not all that there are."""
        return self.jobset_id is not None or self.number is not None
