"""A jobset's history: any bee that sees work going on notes now and then how far it is, and tidies up."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from workerbee.store import Catalogue, jitter

#: Seconds between a bee's notes where few bees are, and among how many it takes turns with them.
NOTE_SECONDS, FEW_BEES = 20.0, 4
#: Of so many notes one is followed by tidying up.
NOTES_TO_TIDY = 30


class Chronicle:
    """Notes the jobsets in which something goes on, and once more when it is over."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._next = 0.0
        self._last: AbstractSet[int] = frozenset()

    def note_if_due(self, now: float, numbers: AbstractSet[int], *, n_bees: int) -> None:
        """Note these jobsets, if it is time to."""
        if now >= self._next and (numbers or self._last):
            self._next = now + NOTE_SECONDS * max(1.0, n_bees / FEW_BEES) * jitter.uniform(0.5, 1.0)
            self._note(numbers)

    def close(self) -> None:
        """Note what was going on lately: this bee leaves."""
        if self._last:
            self._note(frozenset())

    def _note(self, numbers: AbstractSet[int]) -> None:
        noted = self._catalogue.note_minute(sorted(numbers | self._last))
        self._last = numbers
        for number in noted:
            if jitter.random() < 1 / NOTES_TO_TIDY:
                self._catalogue.thin_history(number)
                self._catalogue.fold_counters(number)
