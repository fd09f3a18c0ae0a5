"""Messages between a supervisor and its runners: frames over a socket, and a scrap of shared memory.

A message is a tuple of plain values, marshalled behind its length. The shared `Mark` says which job a
runner is in, so that a death is blamed on that job alone, and lets the supervisor take back jobs that
it has sent already but that have not begun.
"""

from __future__ import annotations

import marshal
import mmap
import os
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

#: Bytes asked of the socket at once: for a larger buffer the allocator calls the kernel each time.
CHUNK = 1 << 16

_LENGTH = struct.Struct("!Q")
#: Bytes that no message has.
MOST = 1 << 34


class GarbledError(Exception):
    """What came over a channel is no message."""


class Channel:
    """One end of a socket that carries messages. `receive` blocks; `arrived` and `send_some` do not."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        sock.settimeout(None)  # whatever socket.setdefaulttimeout says
        self._inbox = bytearray()
        self._heard_at = time.monotonic()
        self._outbox: list[memoryview] = []

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, message: tuple[Any, ...]) -> None:
        """Send the whole message, waiting as long as it takes. Raises OSError when the other end is gone."""
        data = marshal.dumps(message)
        if len(data) < 65536:
            self.socket.sendall(_LENGTH.pack(len(data)) + data)
        else:
            self.socket.sendall(_LENGTH.pack(len(data)))
            self.socket.sendall(data)

    def receive(self) -> Any:
        """The next message, or None when the other end is gone."""
        while True:
            for message in self._complete():
                return message
            try:
                chunk = self.socket.recv(CHUNK)
            except ConnectionResetError:  # it was killed before it had read all of ours
                return None
            if not chunk:
                return None
            self._inbox += chunk

    def queue(self, message: tuple[Any, ...]) -> None:
        """Send later, by `send_some`."""
        data = marshal.dumps(message)
        self._outbox.append(memoryview(_LENGTH.pack(len(data)) + data))

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
    def silent(self) -> float:
        """For how many seconds the rest of a message has been waited for; 0 between messages."""
        return time.monotonic() - self._heard_at if self._inbox else 0.0

    def arrived(self) -> list[Any] | None:
        """What can be read without waiting; None when the other end is gone and all is read.

        Where it stops making sense, the last one is a GarbledError.
        """
        self._heard_at = time.monotonic()
        try:
            for _ in range(64):  # a long message is read in turns, so that others are heard too
                chunk = self.socket.recv(CHUNK, socket.MSG_DONTWAIT)
                if not chunk:
                    return list(self._complete()) or None
                self._inbox += chunk
                if len(chunk) < CHUNK:
                    break
        except BlockingIOError:
            pass
        except OSError:
            return list(self._complete()) or None
        return list(self._complete())

    def _complete(self) -> Iterator[Any]:
        while len(self._inbox) >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._inbox)
            end = _LENGTH.size + size
            if size <= MOST and len(self._inbox) < end:
                return
            try:
                message = self._loaded(end)
            except (EOFError, ValueError, TypeError, MemoryError) as error:
                message, end = GarbledError(str(error)), len(self._inbox)
            del self._inbox[:end]
            yield message

    def _loaded(self, end: int) -> Any:
        if end > MOST:
            raise ValueError(f"a message of {end} bytes was announced")
        return marshal.loads(memoryview(self._inbox)[_LENGTH.size : end])  # noqa: S302 (looked at in `messages`)

    def close(self) -> None:
        self.socket.close()


class Mark:
    """What a runner is at: the last job that it began, since when it is in it, and what it is to skip.

    Job numbers only grow. Each side writes its word, passes a memory barrier, and then reads the
    other's: either the runner sees that a job was taken back before it begins it, or the supervisor
    sees that it has begun.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, 32)
        self._words = memoryview(self._map).cast("Q")  # [current, (since), skip after, skip up to]
        self._times = memoryview(self._map).cast("d")
        self._barrier = threading.Lock()
        self._now = time.monotonic  # bound before any job freezes or replaces it

    @classmethod
    def create(cls) -> Mark:
        fd = _shared_memory()
        os.ftruncate(fd, 32)
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

    def rest(self) -> None:
        """The runner is between jobs."""
        self._times[1] = 0.0

    def current(self) -> tuple[int, float]:
        """The number of the job that the runner is in or prepares (0: none), and since when (`time.monotonic`)."""
        since = abs(self._times[1])
        return (self._words[0] if since else 0), since

    @property
    def preparing(self) -> bool:
        """Whether it imports what the job needs, and is not in it yet."""
        return bool(self._times[1] < 0)

    def last(self) -> int:
        """The number of the last job that the runner began or prepared for (0: none)."""
        return int(self._words[0])

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


def _shared_memory() -> int:
    """A descriptor of a file without a name. A Python built for old systems, such as conda's or uv's, has no memfd."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("workerbee-mark", os.MFD_CLOEXEC)
    shared = "/dev/shm"  # noqa: S108 (never on a disk, if that can be had)
    with tempfile.TemporaryFile(dir=shared if os.access(shared, os.W_OK) else None) as file:
        return os.dup(file.fileno())
