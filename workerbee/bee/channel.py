"""What leads from a supervisor to a runner: frames over a socket, and a scrap of shared memory.

A frame is bytes behind their length; `messages` says what is in them. The shared `Position` says which job a
runner is in, so that a death is blamed on that job alone, lets the supervisor take back jobs that
it has sent already but that have not begun, and says how much was read of what they print.
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
from typing import cast

#: Bytes asked of the socket at once: for a larger buffer the allocator calls the kernel each time.
CHUNK_BYTES = 1 << 16
#: Seconds after which the rest of a frame won't come, and bytes a second by which it comes at the least.
PATIENCE_SECONDS, DRIP_BYTES = 10.0, 1_000_000

_LENGTH = struct.Struct("!Q")


class GarbledError(Exception):
    """Bytes came over a channel that are no message."""


class Channel:
    """One end of a socket that carries frames of at most ``most`` bytes. `arrived` and `send_some` don't wait."""

    def __init__(self, sock: socket.socket, *, most: int = 1 << 34) -> None:
        self.socket = sock
        sock.settimeout(None)  # whatever socket.setdefaulttimeout says
        self._most = most
        self._inbox = bytearray()
        self._begun_at = self._heard_at = time.monotonic()
        self._outbox: list[memoryview] = []

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, *pieces: bytes) -> None:
        """Send a frame of these pieces, waiting as long as it takes. Raises OSError when the other end is gone."""
        for piece in _framed(pieces):
            self.socket.sendall(piece)

    def receive(self) -> bytes | None:
        """The next frame, or None when the other end is gone. Raises GarbledError."""
        while True:
            for frame in self._complete():
                if isinstance(frame, GarbledError):
                    raise frame
                return frame
            try:
                chunk = self.socket.recv(self._wanted())
            except ConnectionResetError:  # it was killed before it had read all of ours
                return None
            if not chunk:
                return None
            self._inbox += chunk

    def queue(self, *pieces: bytes) -> None:
        """Send a frame of these pieces later, by `send_some`."""
        self._outbox.extend(map(memoryview, _framed(pieces)))

    @property
    def pending(self) -> bool:
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
        """Tell whether the rest of a frame is waited for."""
        return bool(self._inbox)

    @property
    def is_overdue(self) -> bool:
        """Tell whether the rest of a frame has been waited for for longer than it deserves."""
        now = time.monotonic()
        waited = max(now - self._heard_at, now - self._begun_at - len(self._inbox) / DRIP_BYTES)
        return self.is_halfway and waited > PATIENCE_SECONDS

    def arrived(self) -> list[bytes | GarbledError] | None:
        """Give what can be read without waiting; None when the other end is gone and all is read.

        Where it stops making sense, the last one is a GarbledError.
        """
        self._look()
        frames: list[bytes | GarbledError] = []
        try:
            for _ in range(64):  # a long frame is read in turns, so that others are heard too
                wanted = self._wanted()
                chunk = self.socket.recv(wanted, socket.MSG_DONTWAIT)
                if not chunk:
                    return frames or None
                self._inbox += chunk
                frames += self._complete()
                if len(chunk) < wanted or (frames and isinstance(frames[-1], GarbledError)):
                    break
        except BlockingIOError:
            pass
        except OSError:
            return frames or None
        return frames

    def _look(self) -> None:
        now = time.monotonic()
        if not self._inbox:
            self._begun_at = now
        elif now - self._heard_at > PATIENCE_SECONDS:  # it was we who didn't look
            self._begun_at += now - self._heard_at
        self._heard_at = now

    def _wanted(self) -> int:
        """Say how much to ask for: of a long frame only its rest, which then needn't be cut off from the next."""
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
        """The frame up to here; a large one as it came, without a copy."""
        self._begun_at = self._heard_at
        if end > CHUNK_BYTES and len(self._inbox) == end:
            whole, self._inbox = self._inbox, bytearray()
            return cast("bytes", memoryview(whole)[_LENGTH.size :])
        frame = bytes(memoryview(self._inbox)[_LENGTH.size : end])
        del self._inbox[:end]
        return frame

    def close(self) -> None:
        self.socket.close()


def _framed(pieces: tuple[bytes, ...]) -> Iterator[bytes]:
    """The pieces behind their length, small ones together."""
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


class Position:
    """Shares what a runner is at: the last job that it began, since when it is in it, and what it is to skip.

    Job numbers only grow. Each side writes its word, passes a memory barrier, and then reads the
    other's: either the runner sees that a job was taken back before it begins it, or the supervisor
    sees that it has begun.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, 64)
        # [current, (since), skip after, skip up to, readings, bytes read, (token)]
        self._words = memoryview(self._map).cast("Q")
        #: What nobody prints; its first byte is none of any UTF-8 text.
        self.token = self._map[48:]
        self._times = memoryview(self._map).cast("d")
        self._barrier = threading.Lock()
        self._now = time.monotonic  # bound before any job freezes or replaces it

    @classmethod
    def create(cls) -> Position:
        fd = shared_memory()
        os.ftruncate(fd, 48)
        os.pwrite(fd, b"\xff" + os.urandom(15), 48)
        return cls(fd)

    def prepare(self, number: int) -> None:
        """The runner gets ready for job ``number``: it isn't in it yet, but a death or a hang now is that job's."""
        self._times[1] = -self._now()
        self._words[0] = number

    def begin(self, number: int) -> bool:
        """The runner enters job ``number``; False if it was taken back."""
        self._times[1] = self._now()
        self._words[0] = number
        with self._barrier:
            pass
        return not self._words[2] < number <= self._words[3]

    def between_jobs(self) -> None:
        """The runner is between jobs."""
        self._times[1] = 0.0

    def current(self) -> tuple[int, float]:
        """The number of the job that the runner is in or prepares (0: none), and since when (`time.monotonic`)."""
        since = abs(self._times[1])
        return (self._words[0] if since else 0), since

    @property
    def is_preparing(self) -> bool:
        """Tell whether it imports what the job needs, and is not in it yet."""
        return bool(self._times[1] < 0)

    def last(self) -> int:
        """The number of the last job that the runner began or prepared for (0: none)."""
        return int(self._words[0])

    def begin_reading(self) -> None:
        """The supervisor is about to read what the runner has printed."""
        self._words[4] += 1
        with self._barrier:
            pass

    def end_reading(self, size: int) -> None:
        """It has read so many bytes."""
        self._words[5] += size
        self._words[4] += 1

    @property
    def readings(self) -> int:
        """Count how often reading has begun or ended: the number is odd during it."""
        return self._words[4]

    @property
    def n_read(self) -> int:
        """Bytes that were read so far of what the runner has printed."""
        return self._words[5]

    def take_back(self, last: int) -> int:
        """Take back all jobs up to ``last`` that have not begun; the number of the last one that has.

        What was taken back before stays so, even if ``last`` is less by now.
        """
        taken, begun = self._words[3], self._words[0]
        while True:
            if begun > taken:  # else what was taken back before is still to be skipped
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
    """A descriptor of a file without a name. A Python built for old systems, such as conda's or uv's, has no memfd."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("workerbee-mark", os.MFD_CLOEXEC)
    shared = "/dev/shm"  # noqa: S108 (never on a disk, if that can be had)
    with tempfile.TemporaryFile(dir=shared if os.access(shared, os.W_OK) else None) as file:
        return os.dup(file.fileno())
