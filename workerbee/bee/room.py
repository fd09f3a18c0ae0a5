"""How many bytes of values a bee holds: it takes in no more than there is room for, however many its runners are."""

from __future__ import annotations

import weakref

#: Bytes of calls that a bee holds, and as many of results; one that is larger is held alone.
MOST_HELD_BYTES = 256_000_000


class Room:
    """Counts the bytes that are held."""

    def __init__(self, most: int = MOST_HELD_BYTES) -> None:
        self.most = most
        self.held = 0

    def fits(self, size: int) -> bool:
        """Tell whether so many bytes more may be held; if nothing is, any number."""
        return not self.held or self.held + size <= self.most

    def keep(self, value: memoryview) -> None:
        """Count a value for as long as anybody has it."""
        self.held += len(value)
        weakref.finalize(value, self.free, len(value)).atexit = False

    def free(self, size: int) -> None:
        """Count so many bytes less."""
        self.held -= size
