"""The answers to a client's queries."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import Any, NamedTuple

from workerbee.blobs import BLOB
from workerbee.store import parts
from workerbee.wire.job import Job

Run = tuple[int, int]  # (job, run)


class SameCall(NamedTuple):
    """The job that an equal call has made earlier; ``status`` None: its latest ``run`` has not ended."""

    job: int
    run: int
    status: str | None
    function: int
    codec: str | None = None


class Signs(NamedTuple):
    """By what a job is known, as far as it has them: its call's signature, its digest, the SHA-256 of its input."""

    mac: bytes | None
    digest: bytes | None
    input: bytes | None

    @classmethod
    def by_job(cls, rows: Iterable[Any]) -> dict[int, Signs]:
        """Make them from rows of (job, *signs), by job."""
        return {job: cls(*(None if sign is None else bytes(sign) for sign in signs)) for job, *signs in rows}

    @property
    def sign(self) -> bytes | None:
        """Give the sign by which a future knows its job."""
        return self.digest or self.mac or self.input

    def may_be(self, job: Job) -> bool:
        """Tell whether these are the job's; of a large one that nobody has signed, that isn't known."""
        if job.mac is not None or self.mac is not None:
            return self.mac == job.mac
        return self.input in (None, sha256(job.data).digest())


class Result(NamedTuple):
    """A job's row, and that of the end of its latest run; ``status`` None: that has not ended.

    Each has its readable text, or other bytes, or both; large ones are references (`ClientStore.end_of`, `call_of`).
    ``mac`` is in hexadecimal.
    """

    job: int
    function: int
    codec: str
    input: str | None
    payload: memoryview | None
    run: int
    status: str | None
    end_codec: str | None
    output: str | None
    end_payload: memoryview | None
    mac: str | None

    @property
    def is_whole(self) -> bool:
        """Tell whether the row holds both values, and no reference to parts or files of them."""
        return not {parts.PARTS, BLOB}.intersection((self.codec, self.end_codec))


class Refused(NamedTuple):
    """The function ``name`` that ``bees`` live bees can't run; the ``host`` of one, and its ``reason``."""

    name: str
    bees: int
    host: str
    reason: str


class Cancelled(NamedTuple):
    """The result of a cancellation: ``n`` jobs are cancelled by it, ``which`` (None: all), and what is undecided."""

    n: int
    jobs: list[int] | None
    undecided: list[Run]
