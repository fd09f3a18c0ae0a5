"""The jobsets that a bee serves: which there are, whose functions' jobs it takes, and which it leaves alone."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator

from workerbee.bee.crew import Crew
from workerbee.bee.departure import Departure, Leaving
from workerbee.bee.holdings import Holdings, Served
from workerbee.bee.judge import Judge
from workerbee.bee.presence import Presence
from workerbee.errors import JobsetNotFoundError
from workerbee.orders import BeeEvent, Broken, Dropped, ExitStatus, Orders
from workerbee.store import BeeStore, Catalogue, Scope, jitter
from workerbee.wire.job import NO_FUNCTION, Jobset
from workerbee.wire.signing import Key

#: Seconds for which a jobset is left alone in which nothing works.
AVOID_SECONDS = 300.0


class Service:
    """Finds jobsets, and serves them: what is served, and what is held of it, is in its ``holdings``."""

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
        self._avoided: dict[int, float] = {}  # jobsets in which nothing works, and until when

    def say_broken(self, reason: str) -> None:
        """Say that this bee can run nothing any more."""
        # What ends a caller's own run is raised there.
        self._log.log(logging.DEBUG if self._orders.only_functionless else logging.ERROR, "ending: %s", reason)
        self._tell(Broken(reason))

    def find(self, departure: Departure, wait: Callable[[float], object]) -> Jobset:
        """The jobset this bee was started for; waits for it to be made. Raises Leaving."""
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
        """The jobsets to claim from, in a fair order."""
        if self._presence.jobset is not None:
            yield self.holdings.served[self._presence.jobset].jobset
            return
        for offers in self._catalogue.offers():
            jitter.shuffle(offers)
            yield from (jobset for jobset in offers if not self._avoids(jobset.number))

    def by_number(self, number: int) -> Jobset | None:
        """A jobset that others work on; None if it is gone, or left alone."""
        return None if self._avoids(number) else self._catalogue.find_jobset_by_number(number)

    def serve(self, jobset: Jobset) -> Served:
        """Give what this bee needs to work on a jobset, made at the first time."""
        served = self.holdings.served.get(jobset.number)
        if served is not None and served.jobset.uuid != jobset.uuid:
            self.holdings.drop(jobset.number)
            served = None
        if served is None:
            # Not before: the first client makes the key, and a bee may have been there earlier.
            self._judge.key = key = Key.load()
            if key is not None and jobset.key not in (None, key.fingerprint):
                self._log.warning(
                    "the jobset %s was signed with key %s, and this bee's is %s: it runs no function of it",
                    jobset.name,
                    jobset.key,
                    key.fingerprint,
                )
            presence = self._presence
            store = BeeStore(
                self._catalogue.connection, jobset, presence.incarnation, presence.host, presence.beat_if_due
            )
            served = Served(store, Scope(only=()))
            self._set_scope(served)
            self.holdings.make_room()
        self.holdings.served.pop(jobset.number, None)
        self.holdings.served[jobset.number] = served  # the last one, for it is the newest
        return served

    def look_for_named(self) -> None:
        """Functions of the names that this bee was started with may have been stored meanwhile."""
        if self._orders.functions:
            for served in self.holdings.each_served():
                with self.holdings.guard(served.jobset.number):
                    self._set_scope(served)

    def _set_scope(self, served: Served) -> None:
        """Choose whose jobs to take, besides the functions that were found to be unusable."""
        refused = served.scope.refused
        if self._orders.only_functionless:
            served.scope = Scope(only=(NO_FUNCTION,))
        elif self._orders.functions:
            named = (n for name in self._orders.functions for n in served.store.functions_named(name))
            served.scope = Scope((NO_FUNCTION, *named), refused)
        else:
            served.scope = Scope(refused=(NO_FUNCTION, *refused))

    # The end of a jobset

    def _dropped(self, jobset: Jobset) -> None:
        """The jobset is gone, and what this bee held of it is forgotten."""
        self._log.warning("%s was dropped while it was in use; its work ends here", jobset.name)
        self._crew.forget(jobset)
        if self._presence.jobset == jobset.number:
            self._tell(Dropped())
            raise Leaving(ExitStatus.CANT_GO_ON)

    def _avoid(self, jobset: Jobset, error: Exception) -> None:
        """Nothing works in this jobset: it lacks a right there, or what is stored makes no sense."""
        lacking = self._catalogue.lacking(error)
        reason = f"{jobset.name} is left alone: {' '.join(str(error).split()) or repr(error)}" + (
            f"; this user lacks {lacking}" if lacking else ""
        )
        self._log.error("%s", reason)
        now = time.monotonic()
        self._avoided = {number: until for number, until in self._avoided.items() if until > now}
        self._avoided[jobset.number] = now + AVOID_SECONDS
        if self._presence.jobset == jobset.number:
            self._tell(Broken(reason))
            raise Leaving(ExitStatus.CANT_GO_ON)

    def _avoids(self, number: int) -> bool:
        return time.monotonic() < self._avoided.get(number, 0.0)
