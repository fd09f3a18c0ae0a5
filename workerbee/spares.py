"""Files in memory that were freed and are to be written again: fresh pages cost more than what is written to them."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import time
from contextlib import suppress

from workerbee.directory import REST_FACTOR, SharedDirectory

#: A file is kept if it has so many bytes.
WORTH = 100_000
#: So many files, with so many bytes, are kept at most.
MOST_FILES, MOST_BYTES = 128, 256_000_000
#: Seconds after the last one was kept in which they go: while jobs are under way, and while none is.
BUSY_SECONDS, IDLE_SECONDS = 5.0, 0.5
_NAME = re.compile(r"s([0-9]+)-[0-9a-f]{32}")
_now = time.monotonic  # kept here, as a job may replace it


class Spares:
    """The spare files of a directory: its client keeps what it frees, and client and runners write them again.

    A file's name says how large it is.
    """

    def __init__(self, directory: SharedDirectory, *, keeps: bool) -> None:
        """``keeps``: this process is the client."""
        self._directory = directory
        self._keeps = keeps
        self._sizes: dict[str, int] = {}  # of the files that are there, as far as is known, by their names
        self._kept_at = self._next_look = 0.0

    def keep(self, name: str) -> bool:
        """Keep a file, unless somebody here or elsewhere may still look at it, or there are enough. Returns whether."""
        path, token = self._directory.path, secrets.token_hex(16)
        hidden = f"h{token}"
        try:
            size = os.stat(f"{path}/{name}", follow_symlinks=False).st_size
            if size < WORTH or not self._has_place_for(size):
                return False
            os.rename(f"{path}/{name}", f"{path}/{hidden}")  # so that nobody opens it any more
            with self._directory.opened(hidden, os.O_RDWR) as fd:
                fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)  # refused if it is open or mapped anywhere else
            os.rename(f"{path}/{hidden}", f"{path}/s{size}-{token}")
        except OSError:
            self._directory.remove(hidden)
            return False
        self._sizes[f"s{size}-{token}"] = size
        self._kept_at = _now()
        return True

    def _has_place_for(self, size: int) -> bool:
        if not self._fits(size):
            self._look_again()  # runners have used some
        return self._fits(size)

    def _fits(self, size: int) -> bool:
        return len(self._sizes) < MOST_FILES and sum(self._sizes.values()) + size <= MOST_BYTES

    def become(self, name: str, size: int) -> bool:
        """Give a spare file this name, if there is one that isn't much too large. Returns whether."""
        if size <= WORTH // 2:
            return False
        if not self._keeps and not any(size <= spare < 2 * size for spare in self._sizes.values()):
            self._look_again()  # the client has freed some
        path = self._directory.path
        # A copy, as the garbage collector may come in between, and with it a call of `keep`.
        fitting = [(n < size, abs(n - size), spare) for spare, n in self._sizes.copy().items() if n < 2 * size]
        for *_, spare in sorted(fitting):
            if self._sizes.pop(spare, 0):
                with suppress(OSError):  # another process has been faster
                    os.rename(f"{path}/{spare}", f"{path}/{name}")
                    return True
        return False

    def remove(self) -> bool:
        """Remove all of them. False if there is none."""
        self._look()
        spares, self._sizes = self._sizes, {}
        for name in spares:
            self._directory.remove(name)
        return bool(spares)

    def rest(self, *, is_idle: bool) -> None:
        """Remove them when none was kept for a while, which is shorter while no job is under way: ``is_idle``."""
        if self._sizes and _now() > self._kept_at + (IDLE_SECONDS if is_idle else BUSY_SECONDS):
            self.remove()

    def _look_again(self) -> None:
        """Look, unless that was done just now: among thousands of files a look takes milliseconds."""
        began = _now()
        if began >= self._next_look:
            self._look()
            after = _now()
            self._next_look = after + REST_FACTOR * (after - began)

    def _look(self) -> None:
        with suppress(OSError):
            names = os.listdir(self._directory.path)
            self._sizes = {found[0]: int(found[1]) for found in map(_NAME.fullmatch, names) if found}
