"""A jobset's history: a bee that sees work going on notes its progress now and then, and thins out old notes."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from workerbee.store import Catalogue, is_unstorable, jitter

#: Seconds between a bee's notes. Where there are more than so many bees, each notes proportionally seldomer.
NOTE_SECONDS, FEW_BEES = 20.0, 4
#: After so many notes, old ones are thinned out.
NOTES_TO_TIDY = 30


class Chronicle:
    """Notes the progress of jobsets in which work goes on, and once more when the work has ended."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._next = 0.0
        self._last: AbstractSet[int] = frozenset()

    def note_if_due(self, now: float, numbers: AbstractSet[int], *, n_bees: int) -> None:
        """Note the progress of these jobsets, if it is time to."""
        if now >= self._next and (numbers or self._last):
            self._next = now + NOTE_SECONDS * max(1.0, n_bees / FEW_BEES) * jitter.uniform(0.5, 1.0)
            self._note(numbers)

    def close(self) -> None:
        """Note the jobsets in which work went on lately, as this bee leaves."""
        if self._last:
            self._note(frozenset())

    def _note(self, numbers: AbstractSet[int]) -> None:
        noted = self._catalogue.note_minute(sorted(numbers | self._last))
        self._last = numbers
        for number in noted:
            if jitter.random() < 1 / NOTES_TO_TIDY:
                self._tidy(number)

    def _tidy(self, number: int) -> None:
        try:
            self._catalogue.thin_history(number)
            self._catalogue.fold_counters(number)
        except Exception as error:
            if not is_unstorable(error):  # else they add up to more than there is, and stay as they are
                raise
