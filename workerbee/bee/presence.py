"""The presence of a bee: its heartbeats and its lease, and when it may judge others by theirs.

It must not judge in two situations. After its connection was cut, the server may still execute what it sent before. And
after the server's clock was set, every lease looks lapsed, or lies far ahead; a bee notices that by its own monotonic
clock, which is never set.
"""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Callable
from math import inf
from uuid import UUID

from workerbee import resources
from workerbee.launched import launched
from workerbee.store import QUERY_SECONDS, BeeFacts, Catalogue, jitter
from workerbee.timing import BEAT_SECONDS, IDLE_BEAT_SECONDS, IDLE_LEASE_SECONDS, LEASE_SECONDS

#: For so many seconds the server may still commit what was sent over a connection that was cut; and the seconds
#: between two comparisons with the database meanwhile.
DOUBT_SECONDS, RECONCILE_SECONDS = QUERY_SECONDS + 10.0, 5.0
#: Seconds in which every living bee has sent a heartbeat; and the seconds by which the server's clock and ours may
#: differ between two heartbeats without having been set.
ALL_HEARD_SECONDS, DRIFT_SECONDS = 10.0, 0.5


class ServerClock:
    """Notices that the server's clock was set, by comparing it with this process's monotonic clock."""

    def __init__(self) -> None:
        self._ahead: tuple[float, float] | None = None  # by how much the server's clock is ahead: between these two

    def step(self, sent: float, clock: float, received: float) -> float:
        """Give the seconds by which the clock was surely set since the last call, negative: back; 0.0: it wasn't.

        The clock said ``clock`` at some moment between ``sent`` and ``received`` of the monotonic clock.
        """
        low, high = clock - received, clock - sent
        least, most = self._ahead or (low, high)
        self._ahead = low, high
        step = max(0.0, low - most) + min(0.0, high - least)
        return step if abs(step) > DRIFT_SECONDS else 0.0


class Presence:
    """One bee's heartbeats over one connection. They say whether it rests, and are frequent while work is held."""

    def __init__(
        self,
        catalogue: Catalogue,
        incarnation: UUID,
        log: logging.Logger,
        *,
        n_runners: int,
        holds: Callable[[], bool],
        rests: Callable[[], bool],
        on_given_up: Callable[[], None],
        max_pause: float,
        lifetime: float | None = None,
    ) -> None:
        """``on_given_up`` is called if others took this bee for dead; no retry waits longer than ``max_pause``."""
        self._catalogue = catalogue
        self.incarnation = incarnation
        self.host = resources.host()
        self._log = log
        self._n_runners, self._lifetime = n_runners, lifetime
        self._holds, self._rests, self._on_given_up = holds, rests, on_given_up
        self._max_pause = max_pause
        self._known: BeeFacts | None = None
        self._clock = ServerClock()
        self._last_step, self._to_set_back = -inf, 0.0
        self._generation = 0
        self._next_reconcile = self._doubt_until = 0.0
        self._lease = IDLE_LEASE_SECONDS
        self.next_beat = 0.0
        self.n_bees = 1
        #: The jobsets in which other bees held work at the last heartbeat.
        self.seen_at_work: frozenset[int] = frozenset()
        #: Whether work is held, here or elsewhere, as far as this bee knows.
        self.is_lively = True

    @property
    def name(self) -> str:
        """The name of the bee in messages."""
        return str(self.incarnation)[:8]

    @property
    def has_arrived(self) -> bool:
        return self._known is not None

    @property
    def jobset(self) -> int | None:
        """The number of the only jobset that the bee serves; None if it serves them all, or isn't there yet."""
        return self._known and self._known.jobset

    def arrive(self, jobset: int | None) -> None:
        """Register the bee, for the jobset of this number, or for all."""
        launch, place, ends_at = launched(os.environ)
        ends = [self._lifetime, None if ends_at is None else max(0.0, ends_at - time.time())]
        self._known = BeeFacts(
            self.incarnation,
            jobset,
            self.host,
            os.getpid(),
            platform.python_version(),
            self._n_runners,
            cpus=resources.cores(),
            launch=launch,
            place=place,
            lifetime=min((seconds for seconds in ends if seconds is not None), default=None),
        )
        self.beat()
        self._generation = self._catalogue.connection.generation  # no work was claimed over an earlier connection

    def leave(self, words: str) -> None:
        """Sign the bee off; its last words are kept for a while."""
        self._catalogue.leave(self.incarnation, words)

    # Heartbeats

    def beat_if_due(self) -> None:
        if time.monotonic() >= self.next_beat:
            self.beat()

    def beat_soon(self, seconds: float = 0.0) -> None:
        """Have the next heartbeat come within so many seconds."""
        self.next_beat = min(self.next_beat, time.monotonic() + seconds)

    def beat(self) -> None:
        self.seen_at_work = frozenset(self.held_elsewhere())
        self.is_lively = self._holds() or bool(self.seen_at_work)
        beat, self._lease = (BEAT_SECONDS, LEASE_SECONDS) if self.is_lively else (IDLE_BEAT_SECONDS, IDLE_LEASE_SECONDS)
        sent = time.monotonic()
        pulse = self._catalogue.beat(self._arrived(), lease=self._lease, resting=self._rests())
        received = time.monotonic()
        self.next_beat = received + beat * jitter.uniform(0.9, 1.1)
        self.n_bees = pulse.n_bees
        if step := self._clock.step(sent, pulse.clock, received):
            self._note_step(step)
        if self._to_set_back:
            self._catalogue.set_back(self._to_set_back, self._max_pause)
            self._to_set_back = 0.0
        if pulse.given_up:
            self._on_given_up()

    def took_work(self) -> None:
        """Beat soon if work was taken: the lease of an idle bee is too long for one that has work."""
        if self._lease > LEASE_SECONDS:
            self.beat_soon()

    def _note_step(self, step: float) -> None:
        self._last_step = time.monotonic()
        self._to_set_back = max(0.0, -step)
        way = "back" if step < 0 else "forward (or this machine slept)"
        self._log.warning("the server's clock was set %s by %.1f s; nothing is lost by that", way, abs(step))

    def _arrived(self) -> BeeFacts:
        assert self._known is not None  # noqa: S101 (set by arrive)
        return self._known

    # The others

    def held_elsewhere(self) -> list[int]:
        """Give the jobsets in which other bees hold work."""
        return self._catalogue.held_elsewhere(self.incarnation, self.jobset)

    def may_judge(self) -> bool:
        """Tell whether others' leases can be judged.

        This bee must beat as often as those that hold work, and for two leases the server must have answered, and its
        clock not been set.
        """
        return self._lease <= LEASE_SECONDS and self._settled(2 * LEASE_SECONDS)

    def is_alone_in(self, number: int) -> bool:
        """Tell whether no other bee serves this jobset; False while that is unknown, as the clock was just set."""
        return self._settled(ALL_HEARD_SECONDS) and self._catalogue.live_bees(number) <= 1

    def _settled(self, seconds: float) -> bool:
        return time.monotonic() > self._last_step + seconds

    # After a cut

    def must_reconcile(self, now: float) -> bool:
        """Tell whether to compare what this bee holds with the database, as its connection was cut lately."""
        if self._catalogue.connection.generation != self._generation:
            self._doubt_until, self._next_reconcile = now + DOUBT_SECONDS, now
        return self._next_reconcile <= now < self._doubt_until

    def reconciled(self, now: float) -> None:
        """Note that it was compared."""
        self._generation, self._next_reconcile = self._catalogue.connection.generation, now + RECONCILE_SECONDS
        self.beat_soon()  # before others take the end of the old connection for this bee's end
