"""The end of the work: it is seen whether anything is left to do in the only jobset that a bee serves."""

from __future__ import annotations

import logging
from collections.abc import Callable

from workerbee.bee.holdings import Holdings, Served
from workerbee.bee.presence import Presence
from workerbee.bee.recorder import Tally
from workerbee.errors import brief
from workerbee.orders import BeeEvent, Empty, ExitStatus, Orders
from workerbee.store import Catalogue
from workerbee.wire.job import FunctionRow


class Exhaustion:
    """Decides whether the bee ends, and says why."""

    def __init__(
        self,
        orders: Orders,
        catalogue: Catalogue,
        holdings: Holdings,
        presence: Presence,
        tally: Tally,
        *,
        now: float,
        tell: Callable[[BeeEvent], None],
        log: logging.Logger,
    ) -> None:
        self._orders = orders
        self._catalogue = catalogue
        self._holdings = holdings
        self._presence = presence
        self._tally = tally
        self._wait_until = now + orders.wait
        self._is_paused = False
        self._tell = tell
        self._log = log

    def reason(self, now: float) -> ExitStatus | None:
        """Give the reason to end, now that there was nothing to claim; None: go on."""
        number = self._presence.jobset
        if self._orders.busywait or number is None or len(self._holdings):
            return None
        remaining = self._catalogue.remaining(number)
        if not remaining.any_batch:
            return self._without_batches(number, now, was_ever_added=remaining.ever_added)
        self._say_if_paused(remaining.paused)
        served = self._holdings.served[number]
        waiting = set(remaining.functions or ())
        runnable = waiting.difference(served.scope.refused)
        if self._orders.functions:
            runnable.intersection_update(served.scope.only or ())
        if self._orders.only_functionless or not waiting or remaining.any_held or runnable:
            return None
        return self._left_to_others(served, sorted(waiting))

    def _say_if_paused(self, paused: str | None) -> None:
        """Log, once for each pause, that the jobset is paused, by whom and why."""
        if paused is not None and not self._is_paused:
            self._log.warning(
                "%s is paused by %s; waiting until it is resumed", self._orders.jobset_id, brief(paused, 500)
            )
        self._is_paused = paused is not None

    def _without_batches(self, number: int, now: float, *, was_ever_added: bool) -> ExitStatus | None:
        if was_ever_added:
            return self._all_done(number)
        if now <= self._wait_until:
            return None
        self._tell(Empty())
        self._log.error(
            "%s never had a job; bees end when all jobs are done, and this one has waited long enough",
            self._orders.jobset_id,
        )
        return ExitStatus.CANT_GO_ON

    def _all_done(self, number: int) -> ExitStatus | None:
        """Tell whether nothing is open, now that no batch is there.

        If jobs without an end are in no batch, somebody must have deleted the batch.
        """
        counts = self._catalogue.counts(number)
        if counts.open > 0 and self._catalogue.remaining(number).any_batch:
            return None
        name = self._orders.jobset_id
        if counts.open > 0 and self._catalogue.counts(number) == counts:
            self._log.error(
                "%d jobs of %s have not ended, and no batch of them is left: somebody has deleted rows of the tables",
                counts.open,
                name,
            )
            return ExitStatus.CANT_GO_ON
        if counts.open > 0:
            return None
        self._log.info("all jobs of %s are done: %d failed, %d cancelled", name, counts.failed, counts.cancelled)
        return ExitStatus.OK

    def _left_to_others(self, served: Served, functions: list[int]) -> ExitStatus:
        """Log which functions' jobs remain for other bees. A bee that could run nothing for that reason has failed."""
        name = served.jobset.name
        names = ", ".join(_name_of(served.store.get_function(number)) for number in functions)
        self._log.warning("what remains in %s is not for this bee: the jobs of %s", name, names)
        reasons = [served.refusals[number] for number in functions if number in served.refusals]
        if reasons and self._tally.ran_nothing:
            self._log.error("this bee could run nothing of %s: %s", name, reasons[0])
            return ExitStatus.CANT_GO_ON
        return ExitStatus.OK


def _name_of(function: FunctionRow | None) -> str:
    return (
        "no function (JobSet.run and --function MODULE:NAME run them)"
        if function is None
        else brief(function.name, 200)
    )
