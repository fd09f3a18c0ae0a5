"""The values that travel between client, database, bee and runner. No I/O here."""

from __future__ import annotations

import operator
import re
from enum import Enum
from typing import Any, NamedTuple
from uuid import UUID

from workerbee.errors import JobsetIdError

#: Codecs whose text a person can read in the database; all others are bytes.
READABLE = frozenset({"json", "json_call", "error", "blob"})
#: The codec of bytes that have a readable twin: its text, a NUL (which JSON hasn't), and the bytes, all of it signed.
TWINNED = "twinned"

#: A value of more bytes is stored in parts, and is copied as seldom as possible.
LARGE_BYTES = 1_000_000

#: The function number of jobs that bring no function (add_job(s), or inserted by hand).
NO_FUNCTION = 0

_ID = re.compile(r"[a-z0-9_]{1,48}")


def valid_id(jobset_id: object) -> str:
    """Give the id back if it can name a jobset. Raises JobsetIdError."""
    # Longer names would be cut by PostgreSQL at 63 bytes without an error, and two could become one.
    if not isinstance(jobset_id, str) or not _ID.fullmatch(jobset_id):
        raise JobsetIdError(jobset_id)
    return jobset_id


class Jobset(NamedTuple):
    """A jobset as the catalogue has it. ``id`` is None for a temporary one, which has a ``client``."""

    number: int
    id: str | None
    uuid: UUID
    key: str | None
    speculate: bool
    client: UUID | None

    @property
    def is_temporary(self) -> bool:
        return self.id is None

    @property
    def name(self) -> str:
        """The name for messages."""
        return self.id if self.id is not None else f"temporary jobset {self.number}"


class Options(NamedTuple):
    """The options of a job. ``due`` is seconds since the epoch, ``timeout`` seconds of run time."""

    priority: int = 0
    due: float | None = None
    timeout: float | None = None
    max_attempts: int | None = None
    speculate: bool = True

    def but(
        self,
        *,
        priority: int | None = None,
        due: float | None = None,
        timeout: float | None = None,
        max_n_retry_attempts: int | None = None,
        speculate: bool | None = None,
    ) -> Options:
        """Give these options with some of them changed, as the user gives them. Raises TypeError, ValueError."""
        given: dict[str, Any] = {
            "priority": None if priority is None else _integer("priority", priority, -(2**31)),
            "due": None if due is None else float(due),
            "timeout": None if timeout is None else float(timeout),
            "max_attempts": None if (n := max_n_retry_attempts) is None else _integer("max_n_retry_attempts", n, 1),
            "speculate": None if speculate is None else bool(speculate),
        }
        if timeout is not None and not timeout > 0:
            raise ValueError("timeout must be > 0 seconds")
        return self._replace(**{name: value for name, value in given.items() if value is not None})


def _integer(name: str, value: int, least: int) -> int:
    """Give a plain integer that fits into PostgreSQL's, for one that may be an enum's, NumPy's or a truth value."""
    try:
        number = int(operator.index(value))
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {value!r}") from None
    if not least <= number < 2**31:
        raise ValueError(f"{name} must be >= {least} and < 2**31")
    return number


class NewJob(NamedTuple):
    """A job on its way into the database; ``digest`` None: it is never taken for another call."""

    id: int
    function: int
    options: Options
    codec: str
    data: bytes
    mac: bytes | None
    digest: bytes | None
    key: bytes | None = None


class Job(NamedTuple):
    """A job as claimed: what a runner needs to do it.

    ``n_attempts`` were made before; on ``n_hosts_lost`` hosts a bee vanished that ran this job and nothing else.
    """

    id: int
    run: int
    codec: str
    data: bytes
    mac: bytes | None
    n_attempts: int = 0
    n_hosts_lost: int = 0


class Batch(NamedTuple):
    """Jobs that were claimed together; the first ``started`` of ``jobs`` count as begun."""

    id: int
    claim: UUID
    function: int
    run: int
    timeout: float | None
    max_attempts: int | None
    again: bool
    started: int
    jobs: list[Job]
    copy: bool = False


class EndKind(str, Enum):
    """The ends of an execution: the one vocabulary from the runner to the tables (see ARCHITECTURE.md)."""

    COMPLETED = "completed"
    FAILED = "failed"
    ERROR = "error"
    TIMEOUT = "timeout"
    DIED = "died"
    LOST = "lost"
    ORPHANED = "orphaned"
    REFUSED = "refused"
    RECALLED = "recalled"
    STOPPED = "stopped"
    # What only the database knows of an execution:
    AWAY = "away"
    COPY = "copy"
    LATE = "late"

    __str__ = str.__str__


#: What is stored of an attempt.
ATTEMPTS = frozenset(
    {EndKind.FAILED, EndKind.ERROR, EndKind.DIED, EndKind.LOST, EndKind.AWAY, EndKind.COPY, EndKind.LATE}
)


class Outcome(NamedTuple):
    """The end of an execution as it is recorded: as completed, or as one of the `ATTEMPTS`.

    ``data`` is the encoded value, or the error record. ``duration`` is in seconds.
    """

    job: int
    run: int
    kind: EndKind
    codec: str
    data: bytes
    mac: bytes | None
    duration: float


class Stored(NamedTuple):
    """The recorded end of a run: status ``completed``, ``failed`` or ``cancelled``."""

    job: int
    run: int
    status: str
    codec: str | None
    data: bytes
    mac: bytes | None


class FunctionRow(NamedTuple):
    """A stored function record, as signed by its client."""

    number: int
    digest: bytes
    name: str
    codec: str
    body: bytes
    python: str
    mac: bytes


class StoredFunction(NamedTuple):
    """A stored function without its code; those with one ``identity`` count as the same."""

    number: int
    digest: bytes
    identity: bytes
    name: str
    codec: str
    python: str

    @classmethod
    def of(cls, number: int, digest: Any, identity: Any, name: str, codec: str, python: str) -> StoredFunction:
        """From a row, whose bytes the driver gives as memory views."""
        return cls(number, bytes(digest), bytes(identity), name, codec, python)
