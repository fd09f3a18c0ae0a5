"""What a runner may say to its supervisor. Its jobs can write to any descriptor, so all of it is looked at."""

from __future__ import annotations

from math import inf
from typing import NamedTuple

from workerbee.bee.channel import GarbledError

#: How jobs end in a runner; ``recalled``: it was taken back, and has not run.
KINDS = frozenset({"completed", "failed", "error", "recalled"})


class Finished(NamedTuple):
    """One job as it goes back, by its number in this runner; ``duration`` in seconds."""

    n: int
    kind: str
    codec: str
    data: bytes
    mac: bytes | None
    duration: float


#: The types of a `Finished`, with a signature and without.
_SHAPES = {(int, str, str, bytes, mac, float) for mac in (bytes, type(None))}


class Unusable(NamedTuple):
    """A function that a runner couldn't load, and why; ``error`` if its initializer raised."""

    jobset: int
    function: int
    reason: str
    error: bytes | None


class Outdated(NamedTuple):
    """The runner has imported what has changed since, and ends."""


def parse(message: object) -> list[Finished] | Unusable | Outdated:
    """What a message says. Raises GarbledError."""
    match message:
        case ("done", [*ends]):
            return [_finished(end) for end in ends]
        case ("unusable", int(jobset), int(function), str(reason), (bytes() | None) as error):
            return Unusable(jobset, function, reason, error)
        case ("outdated", *_):
            return Outdated()
    raise GarbledError("it said what no runner says")


def _finished(end: object) -> Finished:
    # Once for each job: hence one look at all the types, and no patterns.
    if type(end) is tuple and tuple(map(type, end)) in _SHAPES and end[1] in KINDS and 0.0 <= end[5] < inf:
        return Finished._make(end)
    raise GarbledError("a job ended as no job does")
