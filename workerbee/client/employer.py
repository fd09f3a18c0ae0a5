"""The employer keeps a local bee until its client's end: it handles the bee's events, and replaces a bee that dies."""

from __future__ import annotations

import logging
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable

from workerbee.client.local_bee import LocalBee
from workerbee.errors import BrokenWorkerbeeError, InitializerFailedError, JobsetNotFoundError
from workerbee.orders import BeeEvent, Broken, Dropped, InitializerFailed, Log, Orders
from workerbee.program import Program
from workerbee.wire.failures import decode_error

#: After so many deaths of local bees within a minute, no other is started.
BEE_DEATHS = 5
#: Functions that are remembered as known to the bee.
MOST_KNOWN = 10_000


class Employer:
    """Has one local bee after another work for ``jobset``.

    ``bee`` is the first, which has no orders yet; ``orders`` are for each. ``give_up(error, cause)`` is called when no
    bee can work on the jobset any more.
    """

    def __init__(
        self,
        jobset: str,
        bee: LocalBee,
        orders: Orders,
        *,
        log: logging.Logger,
        give_up: Callable[[BaseException, BaseException | None], None],
    ) -> None:
        self._jobset = jobset
        self._orders = orders
        self._log = log
        self._give_up = give_up
        self._program = Program.here()
        self._known: set[bytes] = set()  # the functions that were met since the last look at the program
        self._hiring = threading.Lock()
        self._is_over = False
        self._bee = bee
        bee.begin(orders, self._program)
        threading.Thread(target=self._keep, name="workerbee local bee", daemon=True).start()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process of the present bee."""
        return self._bee.process

    def meet(self, digest: bytes) -> None:
        """Tell the bee, before a new function is stored, what has changed in this process since the last one."""
        if digest in self._known:
            return
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        self._known.add(digest)
        now = Program.here()
        with self._hiring:
            if now != self._program:
                self._program = now
                self._bee.be_workers_of(now)

    def drain(self) -> None:
        """Have the bee finish what it runs; no other takes its place."""
        self._hire_no_more()
        self._bee.drain()

    def stop(self) -> None:
        """Have the bee give back what it runs; no other takes its place."""
        self._hire_no_more()
        self._bee.stop()

    def wait(self, timeout: float | None) -> None:
        """Wait for the bee's end; it is killed after so many seconds."""
        self._bee.wait(timeout)

    def disown(self) -> None:
        """In a forked child, leave the bee to the parent."""
        self._bee.disown()

    def _hire_no_more(self) -> None:
        with self._hiring:
            self._is_over = True

    def _keep(self) -> None:
        try:
            deaths: deque[float] = deque(maxlen=BEE_DEATHS)
            while True:
                self._bee.events(self._hear)
                status = self._bee.wait()
                deaths.append(time.monotonic())
                with self._hiring:
                    if self._is_over:
                        return
                    if len(deaths) == BEE_DEATHS and deaths[-1] - deaths[0] < 60:
                        self._is_over = True
                        what = f"local bees end again and again, the last with status {status}"
                        self._give_up(BrokenWorkerbeeError(what), None)
                        return
                    self._log.warning("the local bee has ended with status %d; another takes its place", status)
                    self._bee = LocalBee()
                    self._bee.begin(self._orders, self._program)
        except BaseException as error:  # noqa: BLE001 (without its bee the executor may wait for ever)
            self._give_up(error, None)

    def _hear(self, event: BeeEvent) -> None:
        match event:
            case Log(level, message):
                self._log.log(level, "%s", message)
            case InitializerFailed(error):
                cause = decode_error(error.encode(), trusted=True)
                logging.getLogger("concurrent.futures").critical("Exception in initializer:", exc_info=cause)
                self._end(InitializerFailedError(f"the initializer raised {cause!r}"), cause)
            case Broken(reason):
                self._end(BrokenWorkerbeeError(f"the local bee can't go on: {reason}"))
            case Dropped():
                self._end(JobsetNotFoundError(self._jobset, dropped=True))

    def _end(self, error: BaseException, cause: BaseException | None = None) -> None:
        self._hire_no_more()
        self._give_up(error, cause)
