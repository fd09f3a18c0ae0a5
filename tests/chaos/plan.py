"""What goes wrong and when: all of it follows from the seed."""

from __future__ import annotations

import random
from typing import NamedTuple

#: How often each fault comes in a minute.
RATES = {
    "kill_bee": 11.0,
    "drain_bee": 2.0,
    "freeze_bee": 0.8,
    "kill_client": 0.5,
    "restart": 1.1,
    "kill_postmaster": 0.2,
    "fail_over": 0.4,
    "cut_before_commit": 4.5,
    "cut_after_commit": 5.0,
    "cut_all": 1.0,
    "cut_at_byte": 4.0,
    "half_open": 0.6,
    "stall": 0.4,
    "refuse": 0.4,
    "terminate_backends": 0.4,
    "latency": 0.3,
    "freeze_runner": 0.6,
    "fill_queue": 0.4,
    "step_clock": 0.5,
    "hostile_row": 2.0,
}
#: It takes some ten seconds, and the half of a short run.
_LONG = "fail_over"
#: Seconds at the beginning and the end without faults.
CALM = (3.0, 3.0)


class Fault(NamedTuple):
    """One fault; ``dice`` in [0, 1) decides what is left to decide: which victim, how long."""

    at: float
    name: str
    dice: float


def plan(minutes: float, seed: int) -> list[Fault]:
    """The faults of one run in order; ``at`` is in seconds from its beginning."""
    rng = random.Random(seed)
    seconds = minutes * 60
    faults = []
    for name, rate in RATES.items():
        n = max(1, round(rate * minutes)) if minutes >= 1 or name != _LONG else 0
        width = (seconds - sum(CALM)) / max(1, n)
        faults += [Fault(CALM[0] + (i + rng.random()) * width, name, rng.random()) for i in range(n)]
    return sorted(faults)
