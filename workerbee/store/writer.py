"""Whose counters a process writes."""

from __future__ import annotations

from uuid import UUID, uuid4

#: Statements that count in one row. While somebody holds an old snapshot, all its versions stay, and are passed over.
ROW_STATEMENTS = 2000


class Writer:
    """A row of counters that nobody else writes; after a while it is another row. All rows are summed on reading."""

    def __init__(self, first: UUID) -> None:
        self._name = str(first)
        self._left = ROW_STATEMENTS

    def name(self) -> str:
        """Name the row for one statement."""
        if not self._left:
            self._name, self._left = str(uuid4()), ROW_STATEMENTS
        self._left -= 1
        return self._name
