"""A bee's shelf: arrays that its calls share, as files in memory. Each is fetched once, and its runners map it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from typing import Any

from workerbee import resources
from workerbee.bee.room import MOST_HELD_BYTES
from workerbee.directory import SharedDirectory
from workerbee.errors import ValueGoneError
from workerbee.wire.values import TakenArray


class Shelf(SharedDirectory):
    """The shelf as its bee sees it, or one of its runners."""

    def __init__(self, path: str, held: int | None = None) -> None:
        super().__init__(path, held)
        self._stock: dict[TakenArray, int] = {}  # the latest is the last
        self._seen: resources.Few[tuple[Any, ...]] = resources.Few()  # arrays that were checked

    def stock(self, taken: TakenArray, fetch: Callable[[TakenArray], Iterable[bytes]]) -> None:
        """Have an array here. Raises OSError if there is no room for it in memory, and as ``fetch`` does."""
        if taken not in self._stock:
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
                with self.opened(_name(taken), flags) as fd, open(fd, "wb", closefd=False) as file:
                    file.writelines(fetch(taken))
            except BaseException:
                self.remove(_name(taken))
                raise
        self._stock[taken] = self._stock.pop(taken, taken.size)

    def clear(self, needed: set[TakenArray], most: int = MOST_HELD_BYTES) -> None:
        """Remove what isn't ``needed`` now, the oldest first, until there are at most so many bytes."""
        for taken in [taken for taken in self._stock if taken not in needed]:
            if sum(self._stock.values()) > most:
                self.remove(_name(taken))
                del self._stock[taken]

    def take(self, taken: TakenArray) -> memoryview:
        """Map an array, writable and the caller's own. Raises ValueGoneError unless it is the one that was meant."""
        data, stamp = self.read(_name(taken), taken.size)
        if (taken, stamp) not in self._seen and hashlib.sha256(data).digest() != taken.sha256:
            raise ValueGoneError("its file has changed")
        self._seen.add((taken, stamp))
        return data


def _name(taken: TakenArray) -> str:
    return taken.sha256.hex()
