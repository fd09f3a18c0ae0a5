"""The channel between a supervisor and a runner: frames over a socket, and a little shared memory.

A frame is a length and so many bytes; `messages` says what they mean. The shared `Position` says which job a
runner is in, so that a death is blamed on that job alone. Through it the supervisor takes back jobs that it has sent
and that have not begun, and says how much it has read of what they print.
"""

from __future__ import annotations

import mmap
import os
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple, cast

from workerbee.bee.room import Room
from workerbee.wire.job import LARGE_BYTES

#: Bytes that are read at once. For a larger buffer the allocator would call the kernel each time.
CHUNK_BYTES = 1 << 16
#: A frame whose rest hasn't come after so many seconds, and at so many bytes a second, is given up.
PATIENCE_SECONDS, DRIP_BYTES = 10.0, 1_000_000

_LENGTH = struct.Struct("!Q")


class GarbledError(Exception):
    """Bytes that are no message came over a channel."""


class Channel:
    """One end of a socket that carries frames of at most ``most`` bytes. `arrived` and `send_some` don't wait."""

    def __init__(self, sock: socket.socket, *, most: int = 1 << 34) -> None:
        self.socket = sock
        sock.settimeout(None)  # a job's program may have called socket.setdefaulttimeout
        self._most = most
        self._inbox = bytearray()
        self._begun_at = self._heard_at = time.monotonic()
        self._outbox: list[memoryview] = []
        self.room: Room | None = None  # for large frames
        self._admitted = 0  # bytes of the frame that has begun, if it is large
        #: The frame that has begun has to wait for room.
        self.is_held_up = False

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, *pieces: bytes) -> None:
        """Send a frame of these pieces, waiting as long as it takes. Raises OSError when the other end is gone."""
        for piece in _framed(pieces):
            self.socket.sendall(piece)

    def receive(self) -> bytes | None:
        """Wait for the next frame; None when the other end is gone. Raises GarbledError."""
        while True:
            for frame in self._complete():
                if isinstance(frame, GarbledError):
                    raise frame
                return frame
            try:
                chunk = self.socket.recv(self._wanted())
            except ConnectionResetError:  # the other end was killed before it had read all that we sent
                return None
            if not chunk:
                return None
            self._inbox += chunk

    def queue(self, *pieces: bytes) -> None:
        """Send a frame of these pieces later, by `send_some`."""
        self._outbox.extend(map(memoryview, _framed(pieces)))

    @property
    def has_unsent(self) -> bool:
        return bool(self._outbox)

    def send_some(self) -> None:
        """Send what fits without waiting. Raises OSError when the other end is gone."""
        while self._outbox:
            try:
                sent = self.socket.send(self._outbox[0], socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            if sent < len(self._outbox[0]):
                self._outbox[0] = self._outbox[0][sent:]
            else:
                del self._outbox[0]

    @property
    def is_halfway(self) -> bool:
        """Tell whether a part of a frame has come, and the rest hasn't."""
        return bool(self._inbox)

    @property
    def is_overdue(self) -> bool:
        """Tell whether the rest of a frame should have come by now."""
        now = time.monotonic()
        waited = max(now - self._heard_at, now - self._begun_at - len(self._inbox) / DRIP_BYTES)
        return self.is_halfway and not self.is_held_up and waited > PATIENCE_SECONDS

    def arrived(self) -> list[bytes | GarbledError] | None:
        """Give the frames that can be read without waiting; None when the other end is gone and all is read.

        If the bytes stop making sense, the last item is a GarbledError. A large frame is left with the runner as long
        as there is no room for it: `is_held_up`.
        """
        if self.is_held_up and not self.admits():
            return []
        self._look()
        frames: list[bytes | GarbledError] = []
        try:
            for _ in range(64):  # a long frame is read in several calls, so that other runners are heard meanwhile
                wanted = self._wanted()
                chunk = self.socket.recv(wanted, socket.MSG_DONTWAIT)
                if not chunk:
                    return frames or None
                self._inbox += chunk
                was_large = self._admitted > 0
                frames += self._complete()
                if (self._inbox and not self.admits()) or (was_large and not self._admitted):
                    break  # a large frame is counted before the next one is admitted
                if len(chunk) < wanted or (frames and isinstance(frames[-1], GarbledError)):
                    break
        except BlockingIOError:
            pass
        except OSError:
            return frames or None
        return frames

    def admits(self) -> bool:
        """Tell whether there is room for the frame that has begun, which is then taken."""
        size = _LENGTH.unpack_from(self._inbox)[0] if len(self._inbox) >= _LENGTH.size else 0
        if self.room is not None and not self._admitted and LARGE_BYTES < size <= self._most:
            self.is_held_up = not self.room.fits(size)
            if not self.is_held_up:
                self.room.held += size
                self._admitted = size
        return not self.is_held_up

    @property
    def is_admitted(self) -> bool:
        """Tell whether a large frame is being read."""
        return self._admitted > 0

    def keep(self, value: bytes | memoryview) -> None:
        """Count a large value that has arrived, for as long as anybody has it."""
        if self.room is not None and isinstance(value, memoryview):
            self.room.keep(value)

    def _leave_room(self) -> None:
        if self.room is not None:
            self.room.free(self._admitted)
        self._admitted = 0

    def _look(self) -> None:
        now = time.monotonic()
        if not self._inbox:
            self._begun_at = now
        elif now - self._heard_at > PATIENCE_SECONDS:  # we haven't looked for so long, so the delay may be ours
            self._begun_at += now - self._heard_at
        self._heard_at = now

    def _wanted(self) -> int:
        """Say how many bytes to read: of a long frame only the rest, so that the next one needn't be cut off."""
        if len(self._inbox) < CHUNK_BYTES:
            return CHUNK_BYTES
        size: int = _LENGTH.unpack_from(self._inbox)[0]
        return max(1, min(CHUNK_BYTES, _LENGTH.size + size - len(self._inbox)))

    def _complete(self) -> Iterator[bytes | GarbledError]:
        while len(self._inbox) >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._inbox)
            end = _LENGTH.size + size
            if size > self._most:
                self._inbox = bytearray()
                yield GarbledError(f"a message of {size} bytes was announced")
                return
            if len(self._inbox) < end:
                return
            yield self._taken(end)

    def _taken(self, end: int) -> bytes:
        """Take the frame that ends here. A large one isn't copied."""
        self._begun_at = self._heard_at
        if self._admitted:
            self._leave_room()  # from now on what is in it is counted
        if end > CHUNK_BYTES and len(self._inbox) == end:
            whole, self._inbox = self._inbox, bytearray()
            return cast("bytes", memoryview(whole)[_LENGTH.size :])
        frame = bytes(memoryview(self._inbox)[_LENGTH.size : end])
        del self._inbox[:end]
        return frame

    def close(self) -> None:
        self._leave_room()
        self.socket.close()


def _framed(pieces: tuple[bytes, ...]) -> Iterator[bytes]:
    """Put the length before the pieces, and join small pieces."""
    size = sum(map(len, pieces))
    length = _LENGTH.pack(size)
    if size < CHUNK_BYTES:
        yield b"".join((length, *pieces))
        return
    for is_large, some in groupby((length, *pieces), lambda piece: len(piece) > CHUNK_BYTES):
        if is_large:
            yield from some
        else:
            yield b"".join(some)


class Caller(NamedTuple):
    """The process that called JobSet.run, and is its bee's only runner.

    It is reached by a socket and by the file of its `Position`; its bee reads what it prints from two pipes.
    """

    socket: socket.socket
    mark: int
    stdout: int
    stderr: int

    @property
    def descriptors(self) -> tuple[int, ...]:
        return self.socket.fileno(), *self[1:]

    @classmethod
    def of(cls, sock: int, *others: int) -> Caller:
        """Make it, in the bee, from the descriptors."""
        return cls(socket.socket(fileno=sock), *others)


class Position:
    """Memory that a runner and its supervisor share: the job that was begun last, since when, and the jobs to skip.

    Job numbers only grow. Each side writes its own word, passes a memory barrier, and then reads the other's.
    So either the runner sees, before it begins a job, that the job was taken back, or the supervisor sees that
    the runner has begun it.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, 64)
        # [current, (since), skip after, skip up to, readings, bytes read, (token)]
        self._words = memoryview(self._map).cast("Q")
        #: Random bytes that no job prints. The first one occurs in no UTF-8 text.
        self.token = self._map[48:]
        self._times = memoryview(self._map).cast("d")
        self._barrier = threading.Lock()
        self._now = time.monotonic  # kept here, because a job may freeze or replace `time.monotonic`

    @classmethod
    def create(cls) -> Position:
        fd = shared_memory()
        os.ftruncate(fd, 48)
        os.pwrite(fd, b"\xff" + os.urandom(15), 48)
        return cls(fd)

    def prepare(self, number: int) -> None:
        """Note that the runner prepares job ``number``: that isn't begun, but is blamed for a death or a hang."""
        self._times[1] = -self._now()
        self._words[0] = number

    def begin(self, number: int) -> bool:
        """Note that the runner begins job ``number``; False if that job was taken back."""
        self._times[1] = self._now()
        self._words[0] = number
        with self._barrier:
            pass
        return not self._words[2] < number <= self._words[3]

    def between_jobs(self) -> None:
        """Note that the runner is between jobs."""
        self._times[1] = 0.0

    def current(self) -> tuple[int, float]:
        """Give the number of the job that the runner is in or prepares (0: none), and since when (`time.monotonic`)."""
        since = abs(self._times[1])
        return (self._words[0] if since else 0), since

    @property
    def is_preparing(self) -> bool:
        """Tell whether the runner still imports what the job needs, and hasn't begun it."""
        return bool(self._times[1] < 0)

    def last(self) -> int:
        """Give the number of the last job that the runner began or prepared (0: none)."""
        return int(self._words[0])

    def begin_reading(self) -> None:
        """Note that the supervisor is about to read what the runner has printed."""
        self._words[4] += 1
        with self._barrier:
            pass

    def end_reading(self, size: int) -> None:
        """Note that the supervisor has read ``size`` bytes."""
        self._words[5] += size
        self._words[4] += 1

    @property
    def readings(self) -> int:
        """Count how often reading has begun or ended: the number is odd during it."""
        return self._words[4]

    @property
    def n_read(self) -> int:
        """Count the bytes that the supervisor has read so far of what the runner has printed."""
        return self._words[5]

    def take_back(self, last: int) -> int:
        """Take back all jobs up to ``last`` that have not begun. Returns the number of the last job that has.

        Jobs that were taken back before stay so, even if ``last`` is smaller this time.
        """
        taken, begun = self._words[3], self._words[0]
        while True:
            if begun > taken:  # otherwise an earlier range is still to be skipped
                self._words[2] = begun
            self._words[3] = max(last, taken)
            with self._barrier:
                pass
            now = self._words[0]
            if now <= begun or now <= taken:
                return now
            begun = now

    def close(self) -> None:
        self._words.release()
        self._times.release()
        self._map.close()
        os.close(self.fd)


def shared_memory() -> int:
    """Open a file without a name. A Python built for old systems, such as conda's or uv's, knows no memfd."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("workerbee-mark", os.MFD_CLOEXEC)
    shared = "/dev/shm"  # noqa: S108 (never on a disk, if that can be had)
    with tempfile.TemporaryFile(dir=shared if os.access(shared, os.W_OK) else None) as file:
        return os.dup(file.fileno())
