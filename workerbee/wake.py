"""Waking a thread that waits, from another thread or a signal handler."""

from __future__ import annotations

import os
from contextlib import suppress


class Wake:
    """Wakes a thread that waits for a connection or a runner, from any thread or signal handler."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def fileno(self) -> int:
        return self._reader

    def set(self) -> None:
        # A full pipe wakes as well, and a closed one has nobody left to wake.
        with suppress(OSError):
            os.write(self._writer, b"w")

    def clear(self) -> None:
        with suppress(OSError):
            os.read(self._reader, 4096)

    def close(self) -> None:
        ends = self._reader, self._writer
        self._reader = self._writer = -1  # or a late `set` writes into whatever gets these numbers next
        for end in ends:
            os.close(end)
