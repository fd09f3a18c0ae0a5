"""A bee's stdout and stderr, for its own words and for what its jobs print."""

from __future__ import annotations

import io
import os
import select
import threading
import time
from collections import Counter
from contextlib import suppress
from queue import SimpleQueue
from typing import Any


class Printer:
    """Prints in a thread, because a bee must not wait for its reader.

    While the reader is more than ``LAG`` bytes behind, what comes is lost, and a line says how much that was.
    """

    LAG = 64_000_000
    #: At the end, seconds to wait for a reader that reads on.
    PATIENCE = 10.0

    def __init__(self) -> None:
        self._texts: SimpleQueue[tuple[int, bytes]] = SimpleQueue()
        self._n_taken = self._n_printed = 0
        self._n_lost: Counter[int] = Counter()
        self._amid: dict[int, object] = {}  # by descriptor, who has printed the beginning of a line
        self._thread = threading.Thread(target=self._print, daemon=True)
        self._thread.start()

    def put(self, fd: int, text: bytes, who: object = None) -> None:
        """Print to that descriptor soon; on a new line, if someone else than ``who`` has left one unfinished."""
        if self._n_taken - self._n_printed >= self.LAG:
            self._n_lost[fd] += len(text)
        elif text:
            self._say_what_is_lost()
            if self._amid.pop(fd, who) is not who:
                text = b"\n" + text
            if not text.endswith((b"\n", b"\r")):
                self._amid[fd] = who
            self._take(fd, text)

    def stream(self, fd: int) -> io.TextIOWrapper:
        """Make a text file that prints to that descriptor."""
        raw: Any = _Raw(self, fd)
        return io.TextIOWrapper(raw, "utf-8", "backslashreplace", write_through=True)

    def finish(self) -> None:
        """Wait a little for what isn't printed yet."""
        self._say_what_is_lost()
        self._texts.put((-1, b""))
        deadline = time.monotonic() + self.PATIENCE
        n_printed = -1
        while self._thread.is_alive() and self._n_printed > n_printed and time.monotonic() < deadline:
            n_printed = self._n_printed
            self._thread.join(1)

    def _take(self, fd: int, text: bytes) -> None:
        self._n_taken += len(text)
        self._texts.put((fd, text))

    def _say_what_is_lost(self) -> None:
        for fd, n in list(self._n_lost.items()):
            if n:
                self._n_lost[fd] = 0
                self._amid.pop(fd, None)
                self._take(fd, f"\n[workerbee: {n} bytes of output are missing here: they came too fast]\n".encode())

    def _print(self) -> None:
        for fd, text in iter(self._texts.get, (-1, b"")):
            with suppress(OSError):  # nobody reads it any more
                _write(fd, memoryview(text))
            self._n_printed += len(text)


def _write(fd: int, text: memoryview) -> None:
    while text:
        try:
            text = text[os.write(fd, text[: 1 << 16]) :]
        except BlockingIOError:  # a process that shares the descriptor has made it non-blocking
            select.select([], [fd], [])


class _Raw(io.RawIOBase):
    def __init__(self, printer: Printer, fd: int) -> None:
        self._printer = printer
        self._fd = fd

    def writable(self) -> bool:
        return True

    def write(self, text: Any) -> int:
        data = bytes(text)
        self._printer.put(self._fd, data)
        return len(data)
