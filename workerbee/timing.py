"""Times, in seconds, on which several rooms and the SQL must agree. The queries get them from here."""

from __future__ import annotations

from datetime import datetime, timezone

#: While a bee holds work, or sees that others do: the time between heartbeats, and the lease that each one gives.
BEAT_SECONDS, LEASE_SECONDS = 0.5, 2.0
#: The same while nothing is going on in a bee's jobsets.
IDLE_BEAT_SECONDS, IDLE_LEASE_SECONDS = 8.0, 30.0
#: The time between a client's signs of life, and the silence after which its temporary jobset isn't claimed from.
TOUCH_SECONDS, SILENCE_SECONDS = 2.0, 10.0
#: A bee that comes back within this time after others took it for dead counts as never lost.
RETURN_SECONDS = 60.0

#: How queries name these times.
INTERVALS = {
    "lease": LEASE_SECONDS,
    "idle_lease": IDLE_LEASE_SECONDS,
    "silence": SILENCE_SECONDS,
    "return_time": RETURN_SECONDS,
}

#: The first and the last moment that a datetime has in every zone, in seconds since the epoch.
FIRST_EPOCH, LAST_EPOCH = -62_135_510_400.0, 253_402_214_400.0


def utc(epoch: float) -> datetime:
    """Give a moment in seconds since the epoch; the nearest that there is, as a row may hold anything."""
    return datetime.fromtimestamp(max(FIRST_EPOCH, min(LAST_EPOCH, epoch)), timezone.utc)
