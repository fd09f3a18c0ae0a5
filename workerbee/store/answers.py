"""The answers to a client's queries."""

from __future__ import annotations

from typing import NamedTuple

from workerbee.store import parts

Run = tuple[int, int]  # (job, run)


class SameCall(NamedTuple):
    """The job that a call is already; ``status`` None: its latest ``run`` has not ended."""

    job: int
    run: int
    status: str | None
    function: int


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
        """Tell whether nothing of it is elsewhere."""
        return parts.PARTS not in (self.codec, self.end_codec)


class Refused(NamedTuple):
    """The function ``name`` that ``bees`` live bees can't run; the ``host`` of one, and its ``reason``."""

    name: str
    bees: int
    host: str
    reason: str


class Cancelled(NamedTuple):
    """The result of a cancellation: ``n`` jobs are cancelled by it, which (None: all), and what is undecided."""

    n: int
    jobs: list[int] | None
    undecided: list[Run]
