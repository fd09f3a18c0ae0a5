"""Functions that a bee can't run: it leaves their jobs to others, and says why. Without others, the jobs fail."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable

from workerbee.bee.holdings import Held, Holdings, Served
from workerbee.bee.messages import Unusable
from workerbee.bee.presence import Presence
from workerbee.bee.recorder import Recorder
from workerbee.bee.tasks import End, Task
from workerbee.orders import BeeEvent, InitializerFailed
from workerbee.wire.job import EndKind, Job


class Refusals:
    """Is told by runners which functions they can't run. What an outage prevents is done in the next round.

    ``is_clients``: this is a client's own bee, so maybe no other bee will do its jobs.
    """

    def __init__(
        self,
        holdings: Holdings,
        recorder: Recorder,
        presence: Presence,
        *,
        is_clients: bool,
        tell: Callable[[BeeEvent], None],
        log: logging.Logger,
    ) -> None:
        self._holdings = holdings
        self._recorder = recorder
        self._presence = presence
        self._is_clients = is_clients
        self._tell = tell
        self._log = log
        self._heard: deque[Unusable] = deque()

    def hear(self, unusable: Unusable) -> None:
        """Note that a function can't be run here; `settle` decides what follows."""
        self._heard.append(unusable)

    def settle(self) -> None:
        """Leave the jobs of the noted functions to others, or fail them."""
        while self._heard:
            unusable = self._heard[0]
            with self._holdings.guard(unusable.jobset):
                self._decide(unusable)
            self._heard.popleft()

    def _decide(self, unusable: Unusable) -> None:
        number, function, reason, error = unusable
        served = self._holdings.served.get(number)
        if served is None or function in served.scope.refused or function in served.hopeless:
            return
        if error is None and self._is_last_resort(number):
            self._give_up(served, function, reason)
            return
        served.store.refuse(function, reason)
        if error is not None:
            self._tell(InitializerFailed(error.decode()))
        self._log.warning("this bee leaves some jobs of %s to others: %s", served.jobset.name, reason)
        served.refuse(function, reason)
        self._holdings.give_back_unstarted((number, function))

    def _is_last_resort(self, number: int) -> bool:
        """Tell whether this is a client's own bee, and there is no other that might run the jobs."""
        return self._is_clients and self._presence.is_alone_in(number)

    def _give_up(self, served: Served, function: int, reason: str) -> None:
        """Have all calls of a function fail that nobody can run, with the reason."""
        served.hopeless[function] = reason
        for held in self._holdings.of(served.jobset.number):
            if held.batch.function == function:
                self._fail_all(held, held.unstarted, reason)
                held.unstarted.clear()

    def _fail_all(self, held: Held, jobs: Iterable[Job], reason: str) -> None:
        for job in jobs:
            self._recorder.keep(End(Task(held, job), EndKind.REFUSED, "", b"", None, 0.0, reason))

    def fail_hopeless(self, held: Held) -> set[int]:
        """Fail the jobs of a batch whose function nobody can run. Returns their ids."""
        reason = held.served.hopeless.get(held.batch.function)
        if reason is None:
            return set()
        self._fail_all(held, held.batch.jobs, reason)
        return {job.id for job in held.batch.jobs}

    def reconsider(self) -> None:
        """Fail the jobs that this bee had left to others, if there are no others any more."""
        for served in self._holdings.each_served():
            if served.refusals and self._is_last_resort(served.jobset.number):
                for function, reason in served.readmit_all():
                    self._give_up(served, function, reason)
