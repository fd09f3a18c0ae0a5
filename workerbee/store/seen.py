"""What readers see, row by row, and which jobs they mean. It is text: nothing in it is unpickled or verified."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from workerbee.store.catalogue import Counts
from workerbee.wire.causes import Cause, cause_of_record
from workerbee.wire.job import Jobset
from workerbee.wire.printed import Printed

BADLY, OPEN = ("failed", "cancelled"), ("waiting", "retrying", "running")
STATUSES = (*OPEN, "completed", *BADLY)


class JobsetRow(NamedTuple):
    """A jobset with what has happened in it, and the bees that serve it now. Times are seconds since the epoch."""

    jobset: Jobset
    created_at: float
    counts: Counts
    n_bees: int
    n_runners: int
    active_at: float
    paused_at: float | None
    paused_by: str | None
    paused_why: str | None


class BeeRow(NamedTuple):
    """A bee as its last heartbeat left it; ``silent_for`` is in seconds, ``n_started`` counts the jobs it has begun."""

    id: str
    jobset: str | None
    serves_all: bool
    host: str
    pid: int
    python: str
    n_runners: int
    started_at: float
    silent_for: float
    alive: bool
    resting: bool
    n_started: int
    version: str
    cpus: int | None
    launch: str | None
    place: int | None
    ends_at: float | None
    refuses: dict[str, str]


class DoingRow(NamedTuple):
    """A job that a bee is at, for so many seconds at the most; ``copy`` says that another bee has it too."""

    bee: str
    jobset: str | None
    job: int
    run: int
    since: float
    copy: bool


class ServerLine(NamedTuple):
    """A server; ``oldest`` is the age of its oldest transaction in seconds, None if there is none we may see."""

    version: str
    database: str
    connections: int
    max_connections: int
    oldest: float | None
    clock: float


class EndedBy(NamedTuple):
    """The runs that had ended by some minute (epoch), counted, and the attempts that were lost."""

    at: float
    completed: int
    failed: int
    lost: int


class DepartedRow(NamedTuple):
    """A bee that has left, with its last words; None: it vanished. Times are seconds since the epoch."""

    id: str
    jobset: str | None
    serves_all: bool
    host: str
    pid: int
    python: str
    version: str
    n_runners: int
    started_at: float
    left_at: float
    last_words: str | None
    launch: str | None
    place: int | None


class LaunchRow(NamedTuple):
    """The bees that came by one launch. Times are seconds since the epoch.

    ``n_ended`` counts the runs that have ended at bees that have not left: what others did is counted for their jobsets
    alone. The time of the living bees is over between ``ends_first`` and ``ends_last`` (None: nobody knows). ``is_cut``
    says that more bees are known than were looked at.
    """

    launch: str
    n_bees: int
    n_alive: int
    n_gone: int
    n_runners: int
    n_ended: int
    started_at: float
    heard_at: float
    ends_first: float | None
    ends_last: float | None
    n_hosts: int
    is_cut: bool


@dataclass(frozen=True)
class Wanted:
    """A choice of jobs; None: any. Several ``statuses`` may be, a ``cause`` is its digest.

    Raises ValueError for what is no status.
    """

    statuses: tuple[str, ...] | None = None
    function: str | None = None
    cause: bytes | None = None
    host: str | None = None

    def __post_init__(self) -> None:
        if unknown := set(self.statuses or ()) - set(STATUSES):
            raise ValueError(f"no job has the status {', '.join(sorted(unknown))}; there are {', '.join(STATUSES)}")


ANY_JOB = Wanted()


class JobPage(NamedTuple):
    """Some jobs by id; ``after`` is where the next page begins, None at the end.

    A page may hold less than was asked for, or nothing, and not be the last: no look takes long.
    """

    rows: list[JobRow]
    after: int | None


class JobRow(NamedTuple):
    """A job and its latest run.

    ``input`` and ``output`` are the beginnings of their text, None where it is pickled; the output of a failed run is
    its error's type and message.
    """

    id: int
    function: str
    run: int
    status: str
    input_codec: str
    input: str | None
    output_codec: str | None
    output: str | None
    duration: float | None
    ended_at: float | None
    bee: str | None
    host: str | None


class TextRow(NamedTuple):
    """The text that an execution has printed: the first ``head`` bytes and the last ones, of as many as the sizes say.

    One that runs has no ``claim`` here. ``at`` is seconds since the epoch.
    """

    run: int
    claim: str | None
    bee: str
    at: float
    head: int
    stdout: bytes
    stderr: bytes
    stdout_size: int
    stderr_size: int

    @property
    def printed(self) -> Printed:
        """The same, to be shown."""
        return Printed(*self[4:])


class Minute(NamedTuple):
    """The counters' sums at some minute, and the bees that were there then."""

    at: float
    counts: Counts
    bees: int
    runners: int


class BegunRow(NamedTuple):
    """A job that a bee has begun; ``since`` is seconds from its claim, ``copy`` says that another bee has it too."""

    job: int
    run: int
    bee: str
    host: str | None
    since: float
    copy: bool


class Event(NamedTuple):
    """Something that happened to a job: the opening of a run, an attempt, or the end of a run."""

    kind: str
    run: int
    at: float
    bee: str | None
    host: str | None
    duration: float | None
    codec: str | None
    record: str | None

    @property
    def error(self) -> dict[str, Any]:
        """The failure as far as it is known: type, message, traceback, notes; empty for anything else."""
        record = loaded(self.record) if self.codec == "error" else None
        return {key: record[key] for key in record if key != "pickle"} if isinstance(record, dict) else {}

    def told(self, moment: Callable[[float], Any]) -> dict[str, Any]:
        """Tell it by name, but for its duration and its error; ``moment`` writes times."""
        return {"kind": self.kind, "run": self.run, "at": moment(self.at), "bee": self.bee, "host": self.host}


class CauseRow(NamedTuple):
    """Failures of one cause that nobody has retried: how many, when, and the newest one's job and error record.

    ``functions`` and ``hosts`` are of the newest ones. ``is_all`` says that all failures of the jobset were counted,
    else only the newest were.
    """

    digest: bytes | None
    n: int
    example: int
    first_at: float
    last_at: float
    record: str | None
    functions: list[str]
    hosts: list[str]
    is_all: bool

    @property
    def cause(self) -> Cause:
        """The cause that they have in common, as the example tells it."""
        return cause_of_record(self.record or "")

    def told(self, moment: Callable[[float], Any]) -> dict[str, Any]:
        """Tell it by name, but for its digest; ``moment`` writes times."""
        cause = self.cause
        return {
            "jobs": self.n,
            "type": cause.type,
            "message": cause.message,
            "frame": cause.frame,
            "functions": self.functions,
            "hosts": self.hosts,
            "first": moment(self.first_at),
            "last": moment(self.last_at),
            "example": self.example,
        }


class Legible(NamedTuple):
    """Counts of all jobs, and of those that have JSON as input; the same of completed runs and results."""

    jobs: int
    json_inputs: int
    completed: int
    json_results: int


class Progress(NamedTuple):
    """Counts of a jobset's jobs by state, each by its latest run."""

    waiting: int
    running: int
    completed: int
    failed: int
    cancelled: int

    @property
    def open(self) -> int:
        """Jobs that wait or run."""
        return self.waiting + self.running

    @property
    def added(self) -> int:
        """All jobs."""
        return sum(self)


class RunFacts(NamedTuple):
    """The attempt that ended a run, its host (None: not known any more), when (epoch) and after how many seconds."""

    attempt: int
    host: str | None
    finished: float
    duration: float | None


def loaded(text: str | None) -> Any:
    """Parse a JSON text; None if it is none."""
    try:
        return json.loads(text or "null")
    except (ValueError, RecursionError):
        return None
