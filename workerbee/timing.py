"""Times on which rooms must agree, and Python with SQL, which gets them from here. All are seconds."""

from __future__ import annotations

#: Between heartbeats, and what each one is good for, while a bee holds work or sees others do.
BEAT_SECONDS, LEASE_SECONDS = 0.5, 2.0
#: The same for a bee in whose jobsets nothing is going on.
IDLE_BEAT_SECONDS, IDLE_LEASE_SECONDS = 8.0, 30.0
#: Between a client's signs of life, and after which nobody claims from the temporary jobset of a silent one.
TOUCH_SECONDS, SILENCE_SECONDS = 2.0, 10.0
#: In which a bee that was taken for dead may come back, and had not vanished.
RETURN_SECONDS = 60.0

#: How queries name these times.
INTERVALS = {
    "lease": LEASE_SECONDS,
    "idle_lease": IDLE_LEASE_SECONDS,
    "silence": SILENCE_SECONDS,
    "return_time": RETURN_SECONDS,
}
