"""When a bee claims, how much, and whether it listens for hints. It is told the time (in seconds) and what came."""

from __future__ import annotations

from math import inf

from workerbee.bee import lookout
from workerbee.bee.pace import Appetite
from workerbee.store import jitter

#: The shortest and the longest pause between claims that no hint has caused.
MIN_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.02, 5.0
#: In a crowd of so many bees or more, a bee that has had enough work for ``ENOUGH_SECONDS`` stops listening. It
#: listens again when its pause between claims reaches ``LISTEN_SECONDS``.
CROWD, ENOUGH_SECONDS, LISTEN_SECONDS = 16, 0.25, 0.1


class Hunger:
    """Decides when one bee claims and listens.

    A NOTIFY wakes every session that listens to anything. Among few bees that costs little; in a crowd it would be
    most of the server's work if bees that have enough to do listened too.

    At most ``max_jobs`` are claimed in all. Where nothing is going on, claims are ``max_pause`` apart.
    """

    def __init__(self, now: float, *, max_pause: float, max_jobs: int | None = None) -> None:
        self._max_pause = max_pause
        self._max_jobs = max_jobs
        self._pause = MIN_PAUSE_SECONDS
        self._enough_since = now
        #: When to claim again, if any work is wanted.
        self.claim_at = 0.0
        #: Whether this bee is to listen for hints.
        self.listens = True

    def hurry(self, at: float = 0.0) -> None:
        """Claim by then: there may be work now."""
        self.claim_at = min(self.claim_at, at)

    def wants(self, now: float, appetite: Appetite, *, n_taken: int, n_bees: int) -> Appetite | None:
        """Say what to claim now, if the runners want ``appetite`` and the bee has taken ``n_taken`` jobs so far.

        None: don't claim, because it isn't time or nothing is wanted.
        """
        if not appetite.jobs:
            self._had_enough(now, n_bees)
            return None
        if now < self.claim_at:
            return None
        return appetite if self._max_jobs is None else appetite.at_most(max(0, self._max_jobs - n_taken))

    def fed(
        self,
        now: float,
        n: int,
        *,
        is_sated: bool,
        was_help: bool,
        n_bees: int,
        is_lively: bool,
        look_within: float = inf,
    ) -> None:
        """Note that a claim brought ``n`` jobs; ``is_sated``: as many as were wanted.

        ``was_help``: helping others brought work. ``is_lively``: some bee holds work.
        ``look_within``: in so many seconds a claim will see work that this one couldn't see.
        """
        if n:
            self._pause = MIN_PAUSE_SECONDS
        if is_sated:
            self._had_enough(now, n_bees)
        has_missed_hints = not is_sated and self._lacks(now)
        if is_sated or was_help or has_missed_hints:
            self.claim_at = 0.0
            return
        if not n:
            longest = lookout.pause(n_bees) if is_lively else self._max_pause
            self._pause = min(MAX_PAUSE_SECONDS, longest, self._pause * 2)
        self.claim_at = now + min(self._pause * jitter.uniform(0.8, 1.2), look_within)

    def _had_enough(self, now: float, n_bees: int) -> None:
        if n_bees >= CROWD and now > self._enough_since + ENOUGH_SECONDS:
            self.listens = False

    def _lacks(self, now: float) -> bool:
        """Tell whether to listen again. If so, earlier hints were missed, and a claim must look for their work."""
        self._enough_since = now
        starts = not self.listens and self._pause >= LISTEN_SECONDS
        self.listens = self.listens or starts
        return starts
