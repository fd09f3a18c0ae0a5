"""What a runner may say to its supervisor. Its jobs can write to any descriptor, so all of it is looked at."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite
from typing import Any, NamedTuple

from workerbee.bee.channel import GarbledError
from workerbee.wire.job import EndKind

#: How jobs end in a runner; recalled: it was taken back, and has not run.
KINDS = {str(kind): kind for kind in (EndKind.COMPLETED, EndKind.FAILED, EndKind.ERROR, EndKind.RECALLED)}
_WORDS = {kind: word for word, kind in KINDS.items()}


class Finished(NamedTuple):
    """One job as it goes back, by its number in this runner; ``duration`` in seconds."""

    n: int
    kind: EndKind
    codec: str
    data: bytes
    mac: bytes | None
    duration: float


#: What the parts of a `Finished` are.
_TYPES: tuple[set[type], ...] = ({int}, {str}, {str}, {bytes}, {bytes, type(None)}, {float})


class Unusable(NamedTuple):
    """A function that a runner couldn't load, and why; ``error`` if its initializer raised."""

    jobset: int
    function: int
    reason: str
    error: bytes | None


class Outdated(NamedTuple):
    """The runner has imported what has changed since, and ends."""


def done(ends: Iterable[Finished]) -> tuple[str, list[tuple[Any, ...]]]:
    """The message that jobs have ended."""
    numbers, kinds, *rest = zip(*ends, strict=True)
    return "done", list(zip(numbers, map(_WORDS.__getitem__, kinds), *rest, strict=True))


def parse(message: object) -> list[Finished] | Unusable | Outdated:
    """What a message says. Raises GarbledError."""
    match message:
        case ("done", [*ends]):
            return _finished(ends)
        case ("unusable", int(jobset), int(function), str(reason), (bytes() | None) as error):
            return Unusable(jobset, function, reason, error)
        case ("outdated", *_):
            return Outdated()
    raise GarbledError("it said what no runner says")


def _finished(ends: list[object]) -> list[Finished]:
    # Looked at by columns: of many small jobs this is a good part of a bee's work.
    if set(map(type, ends)) <= {tuple} and set(map(len, ends)) <= {len(_TYPES)}:  # type: ignore[arg-type]
        columns = list(zip(*ends, strict=True))
        if all(set(map(type, column)) <= types for column, types in zip(columns, _TYPES, strict=False)):
            numbers, kinds, *rest, durations = columns or [()] * len(_TYPES)
            if KINDS.keys() >= set(kinds) and all(map(isfinite, durations)) and min(durations, default=0.0) >= 0.0:
                typed = map(KINDS.__getitem__, kinds)
                return list(map(Finished._make, zip(numbers, typed, *rest, durations, strict=True)))
    raise GarbledError("a job ended as no job does")
