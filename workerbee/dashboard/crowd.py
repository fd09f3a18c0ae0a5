"""What the views of bees and of launches know, as plain facts: the same for their HTML and their JSON."""

from __future__ import annotations

from workerbee.dashboard.facts import Facts, bee_facts, departed_facts, launch_facts, told
from workerbee.dashboard.sampler import NothingSeenError, Sampler
from workerbee.reading import BeeRow, DepartedRow, DoingRow, JobsetRow

#: Rows of each list.
BEES, DEPARTED, OF_JOBSET, LAUNCHES = 200, 50, 12, 100
#: Seconds for which it counts as known whether there are launches.
SELDOM = 15.0


class Crowd:
    """Looks at bees through one sampler. Raises NothingSeenError in an outage."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    def bees(self) -> Facts:
        """List who works, where, and at what; and who has left."""
        part = self._sampler.part("bees", lambda reader: reader.bees(n=BEES + 1))
        left = self._sampler.part("departed", lambda reader: reader.departed(n=DEPARTED + 1)).value
        return told(
            self._sampler,
            part,
            bees=self._listed(part.value),
            more=len(part.value) > BEES,
            departed=[departed_facts(one) for one in left[:DEPARTED]],
            more_departed=len(left) > DEPARTED,
        )

    def of(self, row: JobsetRow) -> Facts:
        """List who serves one jobset, and what they do there."""
        bees: list[BeeRow] = self._sampler.part(
            ("bees", row.jobset.number), lambda reader: reader.bees(row.jobset, OF_JOBSET + 1)
        ).value
        doing: list[DoingRow] = self._sampler.part(
            ("doing", row.jobset.number), lambda reader: reader.doing(row.jobset)
        ).value
        return {
            "bee_rows": [bee_facts(bee, doing) for bee in bees[:OF_JOBSET]],
            "more_bees": len(bees) > OF_JOBSET,
        }

    def any_launch(self) -> bool:
        """Tell whether a bee has come by a launch, as far as is known."""
        try:
            return bool(self._sampler.part("any launch", lambda reader: reader.launches(1), fresh=SELDOM).value)
        except NothingSeenError:
            return False

    def launches(self) -> Facts:
        """List by what bees were launched, and how many of each are there."""
        part = self._sampler.part("launches", lambda reader: reader.launches(LAUNCHES + 1))
        return told(
            self._sampler,
            part,
            launches=[launch_facts(row) for row in part.value[:LAUNCHES]],
            more=len(part.value) > LAUNCHES or any(row.is_cut for row in part.value),
        )

    def launch(self, name: str) -> Facts | None:
        """One launch and its bees, those that have left too; None if no bee has come by it."""
        part = self._sampler.part(("launch", name), lambda reader: reader.launches(1, launch=name))
        if not part.value:
            return None
        bees = self._sampler.part(("bees", name), lambda reader: reader.bees(n=BEES + 1, launch=name)).value
        left: list[DepartedRow] = self._sampler.part(
            ("departed", name), lambda reader: reader.departed(n=BEES + 1, launch=name)
        ).value
        return told(
            self._sampler,
            part,
            launch=launch_facts(part.value[0]),
            bees=sorted(self._listed(bees), key=_place),
            more=len(bees) > BEES,
            departed=sorted((departed_facts(one) for one in left[:BEES]), key=_place),
            more_departed=len(left) > BEES,
        )

    def _listed(self, bees: list[BeeRow]) -> list[Facts]:
        doing: list[DoingRow] = self._sampler.part("doing", lambda reader: reader.doing()).value
        return [bee_facts(bee, doing) for bee in bees[:BEES]]


def _place(facts: Facts) -> tuple[bool, int]:
    return facts["place"] is None, facts["place"] or 0
