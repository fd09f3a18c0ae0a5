"""The jobsets that a bee serves: which there are, which functions' jobs it takes, and which jobsets it avoids."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from workerbee.bee.crew import Crew
from workerbee.bee.departure import Departure, Leaving
from workerbee.bee.holdings import Holdings, Served
from workerbee.bee.judge import Judge
from workerbee.bee.presence import Presence
from workerbee.errors import JobsetNotFoundError, brief
from workerbee.orders import BeeEvent, Broken, Dropped, ExitStatus, Orders
from workerbee.store import BeeStore, Catalogue, Scope, jitter
from workerbee.wire.job import NO_FUNCTION, Jobset
from workerbee.wire.signing import Key

#: A bee remembers so many jobsets that it has served, with their queries; and after having met so many new ones it has
#: the server forget them too.
MOST_SERVED, MOST_MET = 200, 200
#: A jobset in which every statement fails is left alone for so many seconds. If a right is missing, the bee asks so
#: often whether it has it.
AVOID_SECONDS, ASK_SECONDS = 300.0, 2.0


class Avoided(NamedTuple):
    """A jobset that is left alone ``until`` then, or until the right is there whose lack the ``error`` says."""

    until: float
    error: Exception | None
    ask_at: float


class Service:
    """Finds jobsets, and serves them. Its ``holdings`` are these, and the batches that are held of them."""

    def __init__(
        self,
        orders: Orders,
        catalogue: Catalogue,
        crew: Crew,
        presence: Presence,
        judge: Judge,
        *,
        tell: Callable[[BeeEvent], None],
        log: logging.Logger,
    ) -> None:
        self._orders = orders
        self._catalogue = catalogue
        self._crew = crew
        self._presence = presence
        self._judge = judge
        self._tell = tell
        self._log = log
        self.holdings = Holdings(crew, self._dropped, self._avoid)
        self._avoided: dict[int, Avoided] = {}
        self._n_met = 0

    def say_broken(self, reason: str) -> None:
        """Say that this bee can run nothing any more."""
        # JobSet.run raises the reason to its caller.
        self._log.log(logging.DEBUG if self._orders.only_functionless else logging.ERROR, "ending: %s", reason)
        self._tell(Broken(reason))

    def find(self, departure: Departure, wait: Callable[[float], object]) -> Jobset:
        """Find the jobset that this bee was started for, and wait for it to be made. Raises Leaving."""
        orders = self._orders
        deadline = time.monotonic() + orders.wait
        is_told = False
        while True:
            found = (
                self._catalogue.find_jobset(orders.jobset_id)
                if orders.jobset_id is not None
                else self._catalogue.find_jobset_by_number(orders.number or 0)
            )
            if found is not None:
                return found
            missing = JobsetNotFoundError(orders.jobset_id or str(orders.number), self._catalogue.jobset_ids())
            now = time.monotonic()
            if departure.has_outlived(now):
                raise Leaving(ExitStatus.TIME_IS_UP)
            if now >= deadline or departure.is_stopped:
                self._log.error("%s", missing)
                raise Leaving(ExitStatus.CANT_GO_ON)
            if not is_told:
                self._log.warning("%s; waiting %.0f s for it", missing, orders.wait)
                is_told = True
            wait(min(1.0, max(0.01, deadline - now)))

    def offers(self) -> Iterator[Jobset]:
        """Give the jobsets to claim from, in a fair order."""
        if self._presence.jobset is not None:
            yield self.holdings.served[self._presence.jobset].jobset
            return
        for offers in self._catalogue.offers():
            jitter.shuffle(offers)
            yield from (jobset for jobset in offers if not self._avoids(jobset.number))

    def by_number(self, number: int) -> Jobset | None:
        """Find a jobset in which others work; None if it is gone, or left alone."""
        return None if self._avoids(number) else self._catalogue.find_jobset_by_number(number)

    def serve(self, jobset: Jobset) -> Served:
        """Begin to serve a jobset, or go on."""
        served = self.holdings.served.get(jobset.number)
        if served is not None and served.jobset.uuid != jobset.uuid:
            self.holdings.drop(jobset.number)
            served = None
        if served is None:
            # Not earlier: the first client makes the key, and this bee may have started before it.
            self._judge.key = key = Key.load()
            if key is not None and jobset.key not in (None, key.fingerprint):
                self._log.warning(
                    "the jobset %s was signed with key %s, and this bee's is %s: it runs no function of it",
                    jobset.name,
                    brief(jobset.key),
                    key.fingerprint,
                )
            presence = self._presence
            store = BeeStore(
                self._catalogue.connection, jobset, presence.incarnation, presence.host, presence.beat_if_due
            )
            served = Served(store, Scope(only=()))
            self._set_scope(served)
            self.holdings.make_room(MOST_SERVED)
            self._n_met += 1
        self.holdings.served.pop(jobset.number, None)
        self.holdings.served[jobset.number] = served  # inserted again, so that it is the last
        return served

    def leave_behind(self) -> bool:
        """While nothing is held, leave many jobsets that were met behind, with the session that has met them.

        The server forgets their tables and queries only with the session. Returns whether that has ended.
        """
        if self._n_met < MOST_MET or len(self.holdings):
            return False
        self._n_met = 0
        self.holdings.make_room(0)
        self._catalogue.connection.drop()
        return True

    def look_for_named(self) -> None:
        """Look again for the functions that this bee was started for: they may have been stored meanwhile."""
        if self._orders.functions:
            for served in self.holdings.each_served():
                with self.holdings.guard(served.jobset.number):
                    self._set_scope(served)

    def _set_scope(self, served: Served) -> None:
        """Set the scope: the functions whose jobs are taken, without those that were refused."""
        refused = served.scope.refused
        if self._orders.only_functionless:
            served.scope = Scope(only=(NO_FUNCTION,))
        elif self._orders.functions:
            named = (n for name in self._orders.functions for n in served.store.functions_named(name))
            served.scope = Scope((NO_FUNCTION, *named), refused)
        else:
            served.scope = Scope(refused=(NO_FUNCTION, *refused))

    def is_of_today(self, since: float) -> bool:
        """Tell whether what was read then has come from the server that is there now."""
        return since > self._catalogue.connection.lineage.succeeded_at

    # The end of a jobset

    def _dropped(self, jobset: Jobset) -> None:
        """Forget a jobset that is gone, and what this bee held of it."""
        self._log.warning("%s was dropped while it was in use; its work ends here", jobset.name)
        self._crew.forget(jobset)
        if self._presence.jobset == jobset.number:
            self._tell(Dropped())
            raise Leaving(ExitStatus.CANT_GO_ON)

    def _avoid(self, jobset: Jobset, error: Exception) -> None:
        """Leave a jobset alone for a while, as a right is missing there, or its rows make no sense."""
        lacking = self._catalogue.lacking(error)
        reason = f"{jobset.name} is left alone: {' '.join(str(error).split()) or repr(error)}" + (
            f"; this user lacks {lacking}" if lacking else ""
        )
        self._log.error("%s", reason)
        now = time.monotonic()
        self._avoided = {number: avoided for number, avoided in self._avoided.items() if avoided.until > now}
        self._avoided[jobset.number] = Avoided(now + AVOID_SECONDS, error if lacking else None, now + ASK_SECONDS)
        if self._presence.jobset == jobset.number:
            self._tell(Broken(reason))
            raise Leaving(ExitStatus.CANT_GO_ON)

    def _avoids(self, number: int) -> bool:
        avoided, now = self._avoided.get(number), time.monotonic()
        if avoided is not None and avoided.error is not None and now >= avoided.ask_at:
            self._avoided[number] = avoided._replace(ask_at=now + ASK_SECONDS)
            if not self._catalogue.lacking(avoided.error):
                del self._avoided[number]
        return number in self._avoided and now < self._avoided[number].until
