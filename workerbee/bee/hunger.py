"""When a bee claims, how much, and whether it listens for hints. It is told the time (seconds) and what there was."""

from __future__ import annotations

from math import inf

from workerbee.bee import lookout
from workerbee.bee.pace import Appetite
from workerbee.store import jitter

#: The shortest and the longest pause between looks for work that no hint announced.
MIN_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.02, 5.0
#: Among this many bees and more, one with enough work for so long stops listening; it starts again when its pause
#: between looks reaches so much.
CROWD, ENOUGH_SECONDS, LISTEN_SECONDS = 16, 0.25, 0.1


class Hunger:
    """The appetite of one bee. A NOTIFY wakes every session that listens to anything: what costs little among few
    bees would in a crowd be most of what the server does, if those listened too that have enough to do.

    At most ``max_jobs`` are claimed in all. Where nothing is going on, looks are ``max_pause`` apart.
    """

    def __init__(self, now: float, *, max_pause: float, max_jobs: int | None = None) -> None:
        self._max_pause = max_pause
        self._max_jobs = max_jobs
        self._pause = MIN_PAUSE_SECONDS
        self._enough_since = now
        #: When to look for work again, as far as any is wanted.
        self.claim_at = 0.0
        #: Whether hints are to be heard.
        self.listens = True

    def hurry(self) -> None:
        """There may be work now."""
        self.claim_at = 0.0

    def wants(self, now: float, appetite: Appetite, *, n_taken: int, n_bees: int) -> Appetite | None:
        """Say what to claim now, for runners that want so much, by a bee that has taken ``n_taken`` jobs so far.

        None: don't look, it isn't time or nothing is wanted.
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
        """A look brought ``n`` jobs; ``is_sated``: all that was wanted.

        ``was_help``: helping others has brought or made work. ``is_lively``: work is held, here or elsewhere.
        ``look_within``: there is work that this look couldn't see, and the next one in so many seconds will.
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
        """Tell whether to listen again: then earlier hints were missed, and their work is to be looked for."""
        self._enough_since = now
        starts = not self.listens and self._pause >= LISTEN_SECONDS
        self.listens = self.listens or starts
        return starts
