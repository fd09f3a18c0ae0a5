"""What a supervisor and its runners say to each other: each message a type of its own, and on its way a frame.

A runner's jobs can write to any descriptor, so all that comes from there is looked at (`parse`), and takes no more
memory than the frame has bytes. What a supervisor tells is marshalled.
"""

from __future__ import annotations

import marshal
import struct
from collections.abc import Sequence
from math import inf
from typing import Any, NamedTuple

from workerbee.bee.channel import GarbledError
from workerbee.memory import MEMORY
from workerbee.wire import codec
from workerbee.wire.job import LARGE_BYTES, TWINNED, EndKind

#: How jobs end in a runner; ``recalled``: it was taken back, and has not run.
KINDS = (EndKind.COMPLETED, EndKind.FAILED, EndKind.ERROR, EndKind.RECALLED)
CODECS = ("", codec.JSON, codec.PICKLE, TWINNED, "error", MEMORY)
#: Bytes of a frame beside the largest result in it: what is small and ends meanwhile, error records.
BESIDE_BYTES = 64_000_000
#: Ends in one frame: more than any runner holds.
MOST_ENDS = 100_000

_DONE, _UNUSABLE, _OUTDATED = b"D", b"U", b"O"
_COUNT = struct.Struct("!I")
#: n, kind, codec, duration, bytes of data, whether it is signed, signature, whether it has printed
_END = struct.Struct("!QBBdQ?16s?")
_FUNCTION = struct.Struct("!iiI?")  # jobset, function, bytes of the reason, whether there is an error record


# What a supervisor tells


class Become(NamedTuple):
    """The program of which the runner is to be a worker, as `Program.dumps` has it."""

    program: bytes


class Learn(NamedTuple):
    """The record that calls of a function need; it is loaded when first used.

    ``is_fresh``: this runner was started after its bee had got the record.
    """

    jobset: int
    uuid: str
    number: int
    record: tuple[Any, ...]
    is_fresh: bool = True


class Forget(NamedTuple):
    """The runner needs that function no more for now."""

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


class Recorded(NamedTuple):
    """To a caller's own runner: a failure of its is recorded."""


class Quit(NamedTuple):
    """End after what was said before."""


Telling = Become | Learn | Forget | Perform | Recorded | Quit
_TELLINGS: tuple[Any, ...] = (Become, Learn, Forget, Perform, Recorded, Quit)


def order(telling: Telling) -> bytes:
    """The frame of what a supervisor tells."""
    return marshal.dumps((_TELLINGS.index(type(telling)), *telling))


def told(frame: bytes) -> Telling:
    """Parse what has arrived at a runner, from where nobody else speaks."""
    kind, *fields = marshal.loads(frame)  # noqa: S302 (see above)
    telling: Telling = _TELLINGS[kind](*fields)
    return telling


# What a runner tells


class Finished(NamedTuple):
    """One job as it goes back, by its number in this runner; ``duration`` in seconds.

    ``printed``: there is a divider behind what it has printed.
    """

    n: int
    kind: EndKind
    codec: str
    data: bytes
    mac: bytes | None
    duration: float
    printed: bool = False


class Unusable(NamedTuple):
    """A function that a runner couldn't load, and why; ``error`` if its initializer raised."""

    jobset: int
    function: int
    reason: str
    error: bytes | None


class Outdated(NamedTuple):
    """The runner has imported what has changed since, and ends."""


def report(said: Sequence[Finished] | Unusable | Outdated) -> list[bytes]:
    """Write what a runner says, in pieces."""
    if isinstance(said, Unusable):
        reason = said.reason.encode(errors="replace")
        facts = _FUNCTION.pack(said.jobset, said.function, len(reason), said.error is not None)
        return [_UNUSABLE, facts, reason, said.error or b""]
    if isinstance(said, Outdated):
        return [_OUTDATED]
    pieces, values = [_DONE, _COUNT.pack(len(said))], []
    for n, kind, name, data, mac, seconds, printed in said:
        end = n, KINDS.index(kind), CODECS.index(name), seconds, len(data), mac is not None, mac or b"", printed
        pieces.append(_END.pack(*end))
        values.append(data)
    return pieces + values


def parse(frame: bytes) -> list[Finished] | Unusable | Outdated:
    """Read what a runner's frame says. Raises GarbledError."""
    view = memoryview(frame)
    try:
        match bytes(view[:1]):
            case b"D":
                return _finished(view[1:])
            case b"U":
                return _unusable(view[1:])
            case b"O" if len(view) == 1:
                return Outdated()
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise GarbledError(str(error)) from None
    raise GarbledError("it said what no runner says")


def _finished(view: memoryview) -> list[Finished]:
    (count,) = _COUNT.unpack_from(view)
    if count > MOST_ENDS:
        raise GarbledError(f"{count} jobs were said to have ended")
    at = _COUNT.size + count * _END.size
    ends = []
    for n, kind, name, seconds, size, is_signed, mac, printed in _END.iter_unpack(view[_COUNT.size : at]):
        data = view[at : at + size]
        at += size
        # A large result stays where it is: a copy would take as much again.
        value: Any = data if size > LARGE_BYTES and kind == 0 else bytes(data)
        ends.append(Finished(n, KINDS[kind], CODECS[name], value, mac if is_signed else None, seconds, printed))
        if not 0.0 <= seconds < inf:
            break
    else:
        if at == len(view):
            return ends
    raise GarbledError("a job ended as no job does")


def _unusable(view: memoryview) -> Unusable:
    jobset, function, size, has_error = _FUNCTION.unpack_from(view)
    reason, error = view[_FUNCTION.size : _FUNCTION.size + size], view[_FUNCTION.size + size :]
    if len(reason) < size or (error and not has_error):
        raise GarbledError("a function is unusable for a reason that isn't there")
    return Unusable(jobset, function, bytes(reason).decode(), bytes(error) if has_error else None)
