"""The output of jobs, by Python or any other program: it is told apart although all jobs of a runner share two pipes.

After a job that has printed, the runner writes a divider into both pipes: the text before it is that job's. To see
cheaply whether a job has printed, the runner compares what is unread in the pipes, and the count of what its bee has
read, which the bee keeps in their shared memory.
"""

from __future__ import annotations

import array
import fcntl
import os
import select
import struct
import termios
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

from workerbee.bee.channel import Position
from workerbee.wire.printed import Printed, Text

_NUMBER = struct.Struct("!Q")
#: Attempts to read a count while the bee changes it, and bytes that are read at once.
LOOKS, CHUNK_BYTES = 8, 1 << 16
#: The most bytes that are read in search of a job's divider: more than a pipe holds.
LONGEST_WAY_BYTES = 1 << 22
STREAMS = 1, 2


class Dividers:
    """The runner's side: writes dividers to its ``outputs``, and sees how much is unread in the pipes.

    ``settle`` flushes what a job has printed, and says whether anything is unread.
    """

    def __init__(self, mark: Position, outputs: Sequence[int], settle: Callable[[], bool]) -> None:
        self._mark = mark
        self._outputs = outputs
        self._settle = settle
        self._size = array.array("i", [0])
        self._readings = 0  # the count of readings at which ``_expected`` held
        self._expected: int | None = 0  # bytes that went into the pipes until now; None: that isn't known

    def begin(self) -> None:
        """Begin a series of jobs: what was printed before belongs to none of them."""
        if self._mark.readings != self._readings:
            self._divide(0)

    def divide(self, n: int) -> bool:
        """Write a divider after job ``n`` if it has printed. Returns whether it has."""
        return (self._settle() or self._mark.readings != self._readings) and self._divide(n)

    def _divide(self, n: int) -> bool:
        written = self._written()
        if written is not None and written == self._expected:
            return False
        divider = self._mark.token + _NUMBER.pack(n)
        for fd in self._outputs:
            with suppress(OSError):
                _write(fd, divider)
        self._expected = None if written is None else written + len(divider) * len(self._outputs)
        return True

    def _written(self) -> int | None:
        """Count the bytes that were written to the pipes so far; None if the bee doesn't stop reading."""
        for _ in range(LOOKS):
            readings, n_read = self._mark.readings, self._mark.n_read
            if readings % 2 == 0:
                with suppress(OSError):
                    unread = sum(map(self._unread, self._outputs))
                    if self._mark.readings == readings:
                        self._readings = readings
                        return n_read + unread
        return None

    def _unread(self, fd: int) -> int:
        fcntl.ioctl(fd, termios.FIONREAD, self._size)
        return self._size[0]


def _write(fd: int, text: bytes) -> None:
    """Write all of a text or nothing, as it is shorter than what a pipe takes at once."""
    while True:
        try:
            os.write(fd, text)
        except BlockingIOError:  # a job has made the pipe non-blocking
            select.select([], [fd], [])
        else:
            return


class Lines:
    """Gives out what is printed to one stream in whole lines, so that those of several runners aren't mixed.

    A line that has begun is held back up to ``most`` bytes.
    """

    MOST_BYTES = 1 << 16

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._most = most
        self._begun = b""

    def whole(self, text: bytes) -> bytes:
        """Give the lines that are complete now; a very long one in parts; all that is left at the end (no text)."""
        begun = self._begun + text
        end = max(begun.rfind(b"\n"), begun.rfind(b"\r")) + 1
        if not text or len(begun) - end > self._most:
            end = len(begun)
        self._begun = begun[end:]
        return begun[:end]

    def remaining(self) -> bytes:
        """Take the beginning of a line that was held back."""
        return self.whole(b"")


def prefixed(text: bytes, job: int) -> bytes:
    """Begin each line with the job that has printed it."""
    lines = (b"[job %d] %s" % (job, line) for line in text.splitlines(keepends=True))
    return b"".join(line if line.endswith((b"\n", b"\r")) else line + b"\n" for line in lines)


class _Stream:
    """One of the pipes, as the bee reads it."""

    def __init__(self, token: bytes, most_held: int) -> None:
        self._token = token
        self._width = len(token) + _NUMBER.size
        self._held = b""  # what may be the beginning of a divider
        self.lines = Lines(most_held)
        self.text = Text()  # since the last divider
        self.divided: dict[int, Text] = {}

    def pieces(self, data: bytes) -> Iterator[tuple[bytes, int | None]]:
        """Divide what was read: each piece with the number of the job that its divider names, the last with None."""
        data = self._held + data
        while (at := data.find(self._token)) >= 0 and len(data) >= at + self._width:
            (n,) = _NUMBER.unpack_from(data, at + len(self._token))
            yield data[:at], n
            data = data[at + self._width :]
        end = at if at >= 0 else len(data) - self._begun(data)
        self._held = data[end:]
        yield data[:end], None

    def _begun(self, data: bytes) -> int:
        """Count the bytes at the end that may be the beginning of a divider."""
        return next((n for n in range(len(self._token) - 1, 0, -1) if data.endswith(self._token[:n])), 0)

    def divide(self, n: int) -> None:
        if n:
            self.divided[n] = self.text
        self.text = Text()

    def take(self, n: int) -> Text:
        """Give what job ``n`` has printed; if its divider is missing, all text that there is."""
        if n not in self.divided:
            self.divide(n)
        return self.divided.pop(n, None) or Text()


Forward = Callable[[int, bytes, int], None]


class RunnerOutput:
    """Reads what one runner prints; ``pipes`` are the bee's ends of its pipes, by stream (1 or 2).

    ``forward(stream, text, n)`` gets complete lines, with the number of the job that has printed them (0: no job).
    Of a line that has begun at most ``most_held`` bytes are held back.
    """

    def __init__(self, mark: Position, pipes: Mapping[int, int], *, most_held: int = Lines.MOST_BYTES) -> None:
        self.pipes = pipes
        self.forward: Forward = lambda _, __, ___: None
        self._mark = mark
        self._streams = {stream: _Stream(mark.token, most_held) for stream in STREAMS}

    def hear(self, stream: int) -> bool:
        """Read what one pipe holds now, and no more: a job may print without end. Returns whether it is closed."""
        n = self._mark.current()[0]
        data = self._read(stream)
        for _ in range(LOOKS if data else 0):
            # If the runner has been in one job all the while, the text after the last divider is that job's.
            if n == (now := self._mark.current()[0]):
                break
            n = now
            data = (data or b"") + (self._read(stream) or b"")
        if data:
            self._take(self._streams[stream], stream, data, n)
        return data == b""

    def _read(self, stream: int) -> bytes | None:
        self._mark.begin_reading()
        data = None
        try:
            data = os.read(self.pipes[stream], CHUNK_BYTES)
        except BlockingIOError:
            pass
        finally:
            self._mark.end_reading(len(data or b""))
        return data

    def _take(self, its: _Stream, stream: int, data: bytes, current: int) -> None:
        for text, n in its.pieces(data):
            its.text.add(text)
            owner = current if n is None else n
            if lines := text and its.lines.whole(text):
                self.forward(stream, lines, owner)
            if n is not None:
                if begun := its.lines.remaining():
                    self.forward(stream, begun, owner)
                its.divide(n)

    def of(self, n: int, *, has_failed: bool) -> Printed:
        """Give what a job has printed that has ended; if its runner died with it, all text after the last divider."""
        for stream in self.pipes:
            self._hear_out(stream, n)
        return Printed.of(*(its.take(n) for its in self._streams.values()), has_failed=has_failed)

    def _hear_out(self, stream: int, n: int) -> None:
        """Read on until the divider of job ``n``, or until the pipe is empty."""
        its = self._streams[stream]
        until = its.text.size + LONGEST_WAY_BYTES
        while n not in its.divided and its.text.size < until:
            before = self._mark.n_read
            if self.hear(stream) or self._mark.n_read == before:
                break

    def so_far(self) -> Printed:
        """Give what the present job has printed until now."""
        return Printed.of(*(its.text for its in self._streams.values()), has_failed=True)

    def forget(self) -> None:
        """Forget what was printed until now: the runner has no job in hand, so nobody will ask for it."""
        for its in self._streams.values():
            its.divided.clear()

    def close(self) -> None:
        """Close the pipes: the runner is gone."""
        for fd in self.pipes.values():
            os.close(fd)
