"""The messages between a supervisor and its runners: each is a type of its own, and travels as a frame.

A job can write to any descriptor of its runner, so each frame from there is checked (`parse`), and takes no more
memory than it has bytes. A supervisor's messages are trusted, and marshalled.
"""

from __future__ import annotations

import marshal
import struct
from collections.abc import Sequence
from math import inf
from typing import Any, NamedTuple

from workerbee.bee.channel import GarbledError
from workerbee.blobs import BLOB
from workerbee.memory import MEMORY
from workerbee.wire import codec
from workerbee.wire.job import LARGE_BYTES, TWINNED, EndKind

#: The ends that a runner reports; ``recalled``: the job was taken back, and has not run.
KINDS = (EndKind.COMPLETED, EndKind.FAILED, EndKind.ERROR, EndKind.RECALLED)
CODECS = ("", codec.JSON, codec.PICKLE, TWINNED, "error", MEMORY, BLOB)
#: Bytes that a frame may have beside its largest result: small results and error records of other jobs.
BESIDE_BYTES = 64_000_000
#: Ends in one frame, at most: more than any runner has in hand.
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
    """Forget a function that the runner won't need for a while."""

    jobset: int
    number: int


class Perform(NamedTuple):
    """Calls of one function, to be performed in this order; each is a `CallMessage`, or a tuple of its fields."""

    jobset: int
    function: int
    calls: list[Any]


class CallMessage(NamedTuple):
    """One job, with its number in this runner."""

    n: int
    job: int
    run: int
    attempt: int
    codec: str
    data: bytes
    mac: bytes | None


class Recorded(NamedTuple):
    """Tells the runner that is JobSet.run's caller that its job's failure is recorded."""


class Quit(NamedTuple):
    """End after what was said before."""


Telling = Become | Learn | Forget | Perform | Recorded | Quit
_TELLINGS: tuple[Any, ...] = (Become, Learn, Forget, Perform, Recorded, Quit)


def order(telling: Telling) -> bytes:
    """Write a supervisor's message as a frame."""
    return marshal.dumps((_TELLINGS.index(type(telling)), *telling))


def told(frame: bytes) -> Telling:
    """Read a supervisor's message; nobody else can write to its side of the channel."""
    kind, *fields = marshal.loads(frame)  # noqa: S302 (see above)
    telling: Telling = _TELLINGS[kind](*fields)
    return telling


# What a runner tells


class Finished(NamedTuple):
    """The end of one job, with its number in this runner; ``duration`` is in seconds.

    ``printed``: it has printed something, behind which a divider stands.
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
    """Says that the runner ends, because it has imported modules that have changed since."""


def report(said: Sequence[Finished] | Unusable | Outdated) -> list[bytes]:
    """Write what a runner says, in pieces."""
    if isinstance(said, Unusable):
        reason = said.reason.encode(errors="replace")
        head = _FUNCTION.pack(said.jobset, said.function, len(reason), said.error is not None)
        return [_UNUSABLE, head, reason, said.error or b""]
    if isinstance(said, Outdated):
        return [_OUTDATED]
    ends = [
        _END.pack(n, KINDS.index(kind), CODECS.index(name), seconds, len(data), mac is not None, mac or b"", printed)
        for n, kind, name, data, mac, seconds, printed in said
    ]
    return [_DONE, _COUNT.pack(len(said)), *ends, *[end.data for end in said]]


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
        # A large result isn't copied, which would take as much memory again.
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
