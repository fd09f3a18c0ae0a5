"""Following what a job prints, and seeing where it is, wherever it runs: through the database alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

from workerbee import resources
from workerbee.store import Catalogue, Connection, JobsetReader, TextRow
from workerbee.wire.job import Jobset
from workerbee.wire.printed import NOTHING, Output

#: Seconds for which bees go on showing what was asked for, between two times of asking, and between two looks.
ASK_SECONDS, ASK_AGAIN_SECONDS, LOOK_SECONDS = 30.0, 10.0, 0.5
#: Seconds that a bee has to show where a job is.
STACK_SECONDS = 10.0
ENDED = ("completed", "failed", "cancelled")


class Piece(NamedTuple):
    """The next piece of what a job prints to stdout (1) or stderr (2)."""

    stream: int
    text: bytes


def output_of(reader: JobsetReader, job: int, run: int | None = None) -> Output:
    """Read what a job has printed in its last execution that has ended, in any run or in this one."""
    rows = [row for row in reader.texts(job) if run in (None, row.run)]
    return Output.of(rows[0].printed if rows else NOTHING)


def stack_of(connection: Connection, jobset: Jobset, job: int) -> TextRow | None:
    """Have shown where a running job is: the stacks of its threads as stdout. None if no bee has shown it in time."""
    reader, catalogue = JobsetReader(connection, jobset), Catalogue(connection)
    deadline = time.monotonic() + STACK_SECONDS
    catalogue.ask(jobset, -job, by=resources.user(), seconds=STACK_SECONDS)
    while (row := reader.tail(-job)) is None and time.monotonic() < deadline:
        time.sleep(0.1)
    return row


class Follower:
    """Gives what one job prints, piece by piece, from its first execution to its end."""

    def __init__(self, connection: Connection, jobset: Jobset, job: int) -> None:
        self._reader, self._catalogue = JobsetReader(connection, jobset), Catalogue(connection)
        self._jobset, self._job = jobset, job
        self._known: set[str | None] = set()  # executions that have ended
        self._shown: dict[str, dict[int, int]] = {}  # by bee, bytes of the execution that runs
        self._ended_at: dict[str, float] = {}  # by bee, when its last execution had
        self._ask_at = 0.0

    def pieces(self) -> Iterator[Piece]:
        """Give what has been printed, and what is, until the job has ended."""
        while True:
            self._ask()
            [row] = self._reader.jobs_of([self._job])
            yield from self._look()
            if row.status in ENDED:
                return
            time.sleep(LOOK_SECONDS)

    def _ask(self) -> None:
        now = time.monotonic()
        if now >= self._ask_at:
            self._ask_at = now + ASK_AGAIN_SECONDS
            self._catalogue.ask(self._jobset, self._job, by=resources.user(), seconds=ASK_SECONDS)

    def _look(self) -> Iterator[Piece]:
        tail = self._reader.tail(self._job)  # first: what ends meanwhile, is shown as ended
        for row in reversed(self._reader.texts(self._job)):
            if row.claim not in self._known:
                yield from self._end(row)
        if tail is not None and tail.at > self._ended_at.get(tail.bee, 0.0):
            yield from self._next(tail)

    def _end(self, row: TextRow) -> Iterator[Piece]:
        """Give the rest of an execution that has ended."""
        yield from self._next(row)
        self._known.add(row.claim)
        self._shown.pop(row.bee, None)
        self._ended_at[row.bee] = row.at

    def _next(self, row: TextRow) -> Iterator[Piece]:
        """Give what is new of an execution."""
        shown = self._shown.setdefault(row.bee, {})
        for stream, size in ((1, row.stdout_size), (2, row.stderr_size)):
            if size > shown.get(stream, 0):
                yield Piece(stream, row.printed.after(stream, shown.get(stream, 0)))
                shown[stream] = size
