"""Following a job's output, and seeing its stacks, on whatever host it runs: through the database alone."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import NamedTuple

from workerbee import resources
from workerbee.store import Catalogue, Connection, retrying
from workerbee.store.reader import JobsetReader
from workerbee.store.seen import TextRow
from workerbee.wire.job import Jobset
from workerbee.wire.printed import NOTHING, Output

#: Bees show a job for so many seconds after each request; seconds between two requests, and between two looks.
ASK_SECONDS, ASK_AGAIN_SECONDS, LOOK_SECONDS = 30.0, 10.0, 0.5
#: Seconds to wait for a job's stacks.
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
    """Ask for the stacks of a running job, which come as stdout; None if no bee has shown them in time."""
    reader, catalogue = JobsetReader(connection, jobset), Catalogue(connection)
    deadline = time.monotonic() + STACK_SECONDS
    catalogue.ask(jobset, -job, by=resources.user(), seconds=STACK_SECONDS)
    while (row := reader.tail(-job)) is None and time.monotonic() < deadline:
        time.sleep(0.1)
    return row


class SoFar(NamedTuple):
    """A job's output: the texts of ended executions, the last one first, and that of the running one until now.

    ``running`` is None if none runs, or its bee has shown nothing yet, which it does only after a request.
    """

    running: TextRow | None
    ended: list[TextRow]


def ask(connection: Connection, jobset: Jobset, job: int) -> None:
    """Ask the bee of this job to show what it prints, for `ASK_SECONDS`. This writes a row, if that is allowed."""
    Catalogue(connection).ask(jobset, job, by=resources.user(), seconds=ASK_SECONDS)


def printed(reader: JobsetReader, job: int, n: int = 20) -> SoFar:
    """Read what a job has printed in its last ``n`` executions, and in the one under way."""
    running = reader.tail(job)  # read first, so that an execution that ends meanwhile is seen as ended
    ended = reader.texts(job, n)
    is_over = running is not None and any(row.bee == running.bee and row.at >= running.at for row in ended)
    return SoFar(None if is_over else running, ended)


class Follower:
    """Gives what one job prints, piece by piece, from its first execution to its end."""

    def __init__(self, connection: Connection, jobset: Jobset, job: int) -> None:
        self._reader = JobsetReader(connection, jobset)
        self._job = job
        self._known: set[str | None] = set()  # claims of the ended executions that were given already
        self._shown: dict[str, dict[int, int]] = {}  # bytes of the running execution that were given already, by bee
        self._ask_at = 0.0

    def pieces(self) -> Iterator[Piece]:
        """Yield what the job has printed, and what it prints, until it has ended. An outage is said and waited out."""
        is_over = False
        while not is_over:
            is_over, so_far = retrying(self._look, patience=None, log=logging.getLogger("workerbee"))
            for row in reversed(so_far.ended):
                if row.claim not in self._known:
                    yield from self._end(row)
            if so_far.running is not None:
                yield from self._next(so_far.running)
            if not is_over:
                time.sleep(LOOK_SECONDS)

    def _look(self) -> tuple[bool, SoFar]:
        """Read whether the job has ended, and then what it has printed."""
        now = time.monotonic()
        if now >= self._ask_at:
            ask(self._reader.connection, self._reader.jobset, self._job)
            self._ask_at = now + ASK_AGAIN_SECONDS
        [row] = self._reader.jobs_of([self._job])
        return row.status in ENDED, printed(self._reader, self._job)

    def _end(self, row: TextRow) -> Iterator[Piece]:
        """Yield what hasn't been given of an execution that has ended."""
        yield from self._next(row)
        self._known.add(row.claim)
        self._shown.pop(row.bee, None)

    def _next(self, row: TextRow) -> Iterator[Piece]:
        """Yield what hasn't been given of an execution that runs."""
        shown = self._shown.setdefault(row.bee, {})
        for stream, size in ((1, row.stdout_size), (2, row.stderr_size)):
            if size > shown.get(stream, 0):
                yield Piece(stream, row.printed.after(stream, shown.get(stream, 0)))
                shown[stream] = size
