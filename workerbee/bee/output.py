"""What jobs print, told apart although they share a runner with its two pipes, by Python or by whatever else.

After a job that has printed, the runner writes a divider into both pipes: what stands before it is that job's. That a
job has printed nothing, it sees without a system call of its own: nothing stands in the pipes, and the bee, which
counts in their shared memory what it reads, has read nothing.
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
#: Looks at what moves, and bytes read at once.
LOOKS, CHUNK_BYTES = 8, 1 << 16
#: Bytes that are read at the most to come to the end of what a job has printed: more than a pipe holds.
LONGEST_WAY_BYTES = 1 << 22
STREAMS = 1, 2


class Dividers:
    """The runner's side: writes to its ``outputs``, and sees how much stands unread in the pipes.

    ``settle`` flushes what a job has printed, and says whether anything stands there.
    """

    def __init__(self, mark: Position, outputs: Sequence[int], settle: Callable[[], bool]) -> None:
        self._mark = mark
        self._outputs = outputs
        self._settle = settle
        self._size = array.array("i", [0])
        self._readings = 0  # as they were when the pipes held what was expected
        self._expected: int | None = 0  # bytes that went into the pipes until now; None: that isn't known

    def begin(self) -> None:
        """Before jobs: what was printed and read since the last one is none of theirs."""
        if self._mark.readings != self._readings:
            self._divide(0)

    def divide(self, n: int) -> bool:
        """After job ``n``: whether it has printed; then that is divided from what follows."""
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
        """The bytes that have gone into the pipes so far; None if the bee is reading all the while."""
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
    """All of it, or nothing: it is less than a pipe takes at once."""
    while True:
        try:
            os.write(fd, text)
        except BlockingIOError:  # a job has made it so
            select.select([], [fd], [])
        else:
            return


class Lines:
    """Gives out what is printed to one stream in whole lines, so that those of several runners aren't mixed."""

    MOST_BYTES = 1 << 16

    def __init__(self) -> None:
        self._begun = b""

    def whole(self, text: bytes) -> bytes:
        """The lines that are whole now; all there is where one is very long, and at the stream's end (no text)."""
        begun = self._begun + text
        end = max(begun.rfind(b"\n"), begun.rfind(b"\r")) + 1
        if not text or len(begun) - end > self.MOST_BYTES:
            end = len(begun)
        self._begun = begun[end:]
        return begun[:end]

    def remaining(self) -> bytes:
        """The beginning of a line that is held back."""
        return self.whole(b"")


def prefixed(text: bytes, job: int) -> bytes:
    """Begin each line with the job that has printed it."""
    lines = (b"[job %d] %s" % (job, line) for line in text.splitlines(keepends=True))
    return b"".join(line if line.endswith((b"\n", b"\r")) else line + b"\n" for line in lines)


class _Stream:
    """One of the pipes, as the bee reads it."""

    def __init__(self, token: bytes) -> None:
        self._token = token
        self._width = len(token) + _NUMBER.size
        self._held = b""  # what may be the beginning of a divider
        self.lines = Lines()
        self.text = Text()  # since the last divider
        self.divided: dict[int, Text] = {}

    def pieces(self, data: bytes) -> Iterator[tuple[bytes, int | None]]:
        """The pieces of what was read next, each with the job behind which a divider stands, the last with None."""
        data = self._held + data
        while (at := data.find(self._token)) >= 0 and len(data) >= at + self._width:
            (n,) = _NUMBER.unpack_from(data, at + len(self._token))
            yield data[:at], n
            data = data[at + self._width :]
        end = at if at >= 0 else len(data) - self._begun(data)
        self._held = data[end:]
        yield data[:end], None

    def _begun(self, data: bytes) -> int:
        """Count the last bytes that may be the beginning of a divider."""
        return next((n for n in range(len(self._token) - 1, 0, -1) if data.endswith(self._token[:n])), 0)

    def divide(self, n: int) -> None:
        if n:
            self.divided[n] = self.text
        self.text = Text()

    def take(self, n: int) -> Text:
        """Give what job ``n`` has printed; where there is no divider behind it, all that is there."""
        if n not in self.divided:
            self.divide(n)
        return self.divided.pop(n, None) or Text()


Forward = Callable[[int, bytes, int], None]


class RunnerOutput:
    """Hears what one runner prints: ``pipes`` are the bee's ends of them, by stream (1 or 2), or none.

    ``forward(stream, text, n)`` gets whole lines as they come, with the number of the job that has printed them (0:
    none).
    """

    def __init__(self, mark: Position, pipes: Mapping[int, int], forward: Forward = lambda _, __, ___: None) -> None:
        self.pipes = pipes
        self.forward = forward
        self._mark = mark
        self._streams = {stream: _Stream(mark.token) for stream in STREAMS}

    def hear(self, stream: int) -> bool:
        """Take what one of the pipes holds, and no more, for it may never stop; whether it has ended."""
        n = self._mark.current()[0]
        data = self._read(stream)
        for _ in range(LOOKS if data else 0):
            # What stands behind the last divider was printed by the job that the runner was in all the while.
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
        """Give what an ended job has printed; if its runner has ended too, all that stands behind the last divider."""
        for stream in self.pipes:
            self._hear_out(stream, n)
        return Printed.of(*(its.take(n) for its in self._streams.values()), has_failed=has_failed)

    def _hear_out(self, stream: int, n: int) -> None:
        """Read on until the divider behind a job, or as far as there is anything."""
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
        """Nobody will ask for what was printed until now: no job is in hand."""
        for its in self._streams.values():
            its.divided.clear()

    def close(self) -> None:
        """Its runner is gone."""
        for fd in self.pipes.values():
            os.close(fd)
