"""What a supervisor and its runners say to each other: each message a type of its own, and on its way plain values.

A runner's jobs can write to any descriptor, so all that comes from there is looked at (`parse`).
"""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite
from typing import Any, NamedTuple

from workerbee.bee.channel import GarbledError
from workerbee.wire.job import EndKind

#: How jobs end in a runner; recalled: it was taken back, and has not run.
KINDS = {str(kind): kind for kind in (EndKind.COMPLETED, EndKind.FAILED, EndKind.ERROR, EndKind.RECALLED)}
_WORDS = {kind: word for word, kind in KINDS.items()}


# What a supervisor tells


class Become(NamedTuple):
    """What the runner is to be a worker of, as `Program.dumps` has it."""

    program: bytes


class Learn(NamedTuple):
    """What calls of a function need, which is loaded when first used.

    ``is_fresh``: this runner was started after its bee had got the record.
    """

    jobset: int
    uuid: str
    number: int
    record: tuple[Any, ...]
    is_fresh: bool = True


class Forget(NamedTuple):
    """That function isn't needed for now."""

    jobset: int
    number: int


class Perform(NamedTuple):
    """Calls of one function, to be done in this order; each is a `CallMessage`, or what one is made of."""

    jobset: int
    function: int
    calls: list[Any]


class CallMessage(NamedTuple):
    """One job, by its number in this runner."""

    n: int
    job: int
    run: int
    attempt: int
    codec: str
    data: bytes
    mac: bytes | None


class Settled(NamedTuple):
    """To a caller's own runner: a failure of its is recorded."""


class Quit(NamedTuple):
    """End after what was said before."""


Telling = Become | Learn | Forget | Perform | Settled | Quit
_TELLINGS: dict[str, Any] = {
    "program": Become,
    "function": Learn,
    "forget": Forget,
    "jobs": Perform,
    "settled": Settled,
    "quit": Quit,
}


def told(message: tuple[Any, ...]) -> Telling:
    """The message that has arrived at a runner, from where nobody else speaks."""
    word, *fields = message
    telling: Telling = _TELLINGS[word](*fields)
    return telling


# What a runner tells


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


_TYPE_WORDS: dict[type, str] = {
    Unusable: "unusable",
    Outdated: "outdated",
    **{telling: word for word, telling in _TELLINGS.items()},
}


def plain(message: Telling | Unusable | Outdated) -> tuple[Any, ...]:
    """The message as it travels."""
    return _TYPE_WORDS[type(message)], *message


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
