"""The sampler reads for all tabs together: what was read a moment ago isn't read again, and an outage is no error."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from workerbee.reading import Connection, Reader, is_passing, is_too_slow, require_schema, watcher

#: Seconds that the server may work on one query, and that its answer is waited for.
LIMIT, PATIENCE = 0.25, 1.5
#: Tries at reading a part that was never read before.
TRIES = 4
#: Seconds for which a part of a page counts as new.
FRESH = 0.9
#: Seconds for which the database counts as alive: with the patience and the pace of the tabs less than three.
ALIVE = 0.3
#: The pause after reading a part is so many times as long as the reading, so that a page costs the server little.
SHARE = 20
#: Seconds between two tries while the database is away.
AGAIN = 1.0
#: Parts that are remembered: what pages show now, and a little more.
MOST = 400

T = TypeVar("T")


@dataclass(frozen=True)
class Part(Generic[T]):
    """A part of a page as it was at a moment (epoch); ``is_cut`` says that the server took too long for a newer one."""

    value: T
    at: float
    due: float
    is_cut: bool = False


class NothingSeenError(Exception):
    """A part was never read: the database is away, or took too long each time."""


class Sampler:
    """Reads for all tabs over one connection, and remembers it. Safe for threads."""

    def __init__(self, dsn: str) -> None:
        self.connection: Connection = watcher(dsn, limit=LIMIT, patience=PATIENCE)
        self._reader = Reader(self.connection)
        self._lock = threading.Lock()
        self._parts: OrderedDict[Hashable, Part[Any]] = OrderedDict()
        self._is_checked = False
        self._next_try = 0.0
        self._answered = time.time()
        self.away_since: float | None = None

    def part(
        self, key: Hashable, read: Callable[[Reader], T], *, fresh: float = FRESH, pause: float = SHARE
    ) -> Part[T]:
        """Give what ``read`` gives, or gave less than ``fresh`` seconds ago; in an outage, what it gave last.

        It counts as new for at least ``pause`` times the seconds that it took.

        Raises NothingSeenError if it never gave anything, and as `Reader` does where no outage is the cause.
        """
        found = self._parts.get(key)
        if found is not None and time.monotonic() < found.due:
            return found
        if self._is_due() and self._lock.acquire(timeout=PATIENCE):
            try:
                found = self._parts.get(key)
                if (found is None or time.monotonic() >= found.due) and self._is_due():
                    return self._read(key, read, fresh, pause)
            finally:
                self._lock.release()
        return self._last(key)

    def is_alive(self) -> bool:
        """Tell whether the database answers."""
        try:
            self.part("alive", lambda reader: reader.clock(), fresh=ALIVE, pause=0.0)
        except NothingSeenError:
            return False
        return self.away_since is None

    def _is_due(self) -> bool:
        return self.away_since is None or time.monotonic() >= self._next_try

    def _last(self, key: Hashable) -> Part[Any]:
        found = self._parts.get(key)
        if found is None:
            raise NothingSeenError
        return found

    def _read(self, key: Hashable, read: Callable[[Reader], T], fresh: float, pause: float) -> Part[T]:
        began = time.monotonic()
        try:
            value = self._value(read, 1 if key in self._parts else TRIES)
        except Exception as error:
            if not is_passing(error):
                raise
            return self._missed(key, error, time.monotonic() - began)
        self.away_since, self._answered = None, time.time()
        now = time.monotonic()
        part = Part(value, time.time(), now + max(fresh, pause * (now - began)))
        self._remember(key, part)
        return part

    def _value(self, read: Callable[[Reader], T], tries: int) -> T:
        """Read a part; what took the server too long is tried again, as it may have become warm by that."""
        if not self._is_checked:
            require_schema(self.connection)
            self._is_checked = True
        try:
            return read(self._reader)
        except Exception as error:
            if tries <= 1 or not is_too_slow(error):
                raise
        return self._value(read, tries - 1)

    def _missed(self, key: Hashable, error: BaseException, took: float) -> Part[Any]:
        """An outage is noted with its beginning; what took the server too long rests a while."""
        if is_too_slow(error):
            self.away_since, self._answered = None, time.time()
            found = self._last(key)
            self._remember(key, replace(found, due=time.monotonic() + SHARE * took, is_cut=True))
            return self._parts[key]
        self._next_try = time.monotonic() + AGAIN
        if self.away_since is None:
            self.away_since = self._answered
        return self._last(key)

    def _remember(self, key: Hashable, part: Part[Any]) -> None:
        self._parts[key] = part
        self._parts.move_to_end(key)
        while len(self._parts) > MOST:
            self._parts.popitem(last=False)

    def close(self) -> None:
        """Let go of the connection."""
        with self._lock:
            self.connection.close()
