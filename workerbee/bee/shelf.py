"""A bee's shelf: arrays that its calls share, as files in memory. Each is fetched once, and its runners map it.

Once memory is full, the shelf goes on in a directory on a disk.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from typing import Any

from workerbee import resources
from workerbee.bee.room import MOST_HELD_BYTES
from workerbee.directory import SharedDirectory, beyond
from workerbee.errors import DatabaseUnavailableError, ValueGoneError
from workerbee.wire.values import TakenArray


class Shelf(SharedDirectory):
    """The shelf as its bee sees it, or one of its runners, which is told where it goes ``further``."""

    def __init__(self, path: str, held: int | None = None, further: str = "") -> None:
        super().__init__(path, held)
        self.further = further or beyond(path)
        self._disk = SharedDirectory(self.further) if further else None
        self._stock: dict[TakenArray, SharedDirectory] = {}  # where each array is; the latest is the last
        self._seen: resources.Few[tuple[Any, ...]] = resources.Few()  # arrays that were checked

    def stock(self, taken: TakenArray, fetch: Callable[[TakenArray], Iterable[bytes]]) -> None:
        """Have an array here. Raises OSError if there is no room for it anywhere, and as ``fetch`` does."""
        place = self._stock.pop(taken, None)
        self._stock[taken] = place or self._stored(taken, fetch)

    def _stored(self, taken: TakenArray, fetch: Callable[[TakenArray], Iterable[bytes]]) -> SharedDirectory:
        try:
            return _filled(self, taken, fetch)
        except DatabaseUnavailableError:
            raise
        except OSError:  # memory is full
            pass
        if self._disk is None:
            self._disk = SharedDirectory.make_at(self.further)
        return _filled(self._disk, taken, fetch)

    def clear(self, needed: set[TakenArray], most: int = MOST_HELD_BYTES) -> None:
        """Remove what isn't ``needed`` now, the oldest first, until there are at most so many bytes."""
        for taken in [taken for taken in self._stock if taken not in needed]:
            if sum(there.size for there in self._stock) > most:
                self._stock.pop(taken).remove(_name(taken))

    def take(self, taken: TakenArray) -> memoryview:
        """Map an array, writable and the caller's own. Raises ValueGoneError unless it is the one that was meant."""
        try:
            data, stamp = self.read(_name(taken), taken.size)
        except ValueGoneError:
            if self._disk is None:
                raise
            data, stamp = self._disk.read(_name(taken), taken.size)
        if (taken, stamp) not in self._seen and hashlib.sha256(data).digest() != taken.sha256:
            raise ValueGoneError("its file has changed")
        self._seen.add((taken, stamp))
        return data

    def close(self) -> None:
        super().close()
        if self._disk is not None:
            self._disk.close()


def _filled(
    place: SharedDirectory, taken: TakenArray, fetch: Callable[[TakenArray], Iterable[bytes]]
) -> SharedDirectory:
    """Put an array into a directory. Raises OSError if there is no room for it, and as ``fetch`` does."""
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with place.opened(_name(taken), flags) as fd, open(fd, "wb", closefd=False) as file:
            file.writelines(fetch(taken))
    except BaseException:
        place.remove(_name(taken))
        raise
    return place


def _name(taken: TakenArray) -> str:
    return taken.sha256.hex()
