"""A bee's orders, the messages between a local bee and its client, and exit statuses."""

from __future__ import annotations

import base64
import json
import logging
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple

from workerbee.program import hash_seed
from workerbee.wire import codec


class ExitStatus(IntEnum):
    """A bee's exit status."""

    OK = 0  # nothing is left to do, or it was stopped
    USAGE = 2
    NO_DATABASE = 69
    CANT_GO_ON = 70  # there is no such jobset, or it can run none of its functions
    TIME_IS_UP = 75  # its lifetime is over, or its number of jobs is done


@dataclass(frozen=True)
class Orders:
    """The orders of a bee. Times are in seconds; ``number`` names a (temporary) jobset that has no id.

    ``memory`` is the directory in which the bee's client passes large values, if it does.
    """

    dsn: str
    jobset_id: str | None = None
    number: int | None = None
    workers: int = 1
    busywait: bool = False
    max_busywait_sleep: float = 30.0
    wait: float = 600.0
    functions: tuple[str, ...] = ()
    only_functionless: bool = False
    max_n_retry_attempts: int = 10
    max_failure_sleep: float = 300.0
    max_tasks_per_child: int | None = None
    max_payload: int = codec.MAX_BYTES
    prefix_output: bool = False
    grace: float = 30.0
    lifetime: float | None = None
    max_jobs: int | None = None
    reconnect_timeout: float | None = 3600.0
    flags: tuple[str, ...] = ()
    hash_seed: str = field(default_factory=hash_seed)
    log_level: int = logging.INFO
    memory: str = ""

    @property
    def is_for_one(self) -> bool:
        """Tell whether the bee serves one jobset, and not all that there are."""
        return self.jobset_id is not None or self.number is not None


# What a client tells its bee


class Start(NamedTuple):
    """The first message: the bee's orders, and the ``program`` that its runners belong to, if any."""

    orders: Orders
    program: bytes


class BeWorkersOf(NamedTuple):
    """The program that its runners belong to from the next new function on."""

    program: bytes


class Drain(NamedTuple):
    """Claim nothing more, finish what runs, and end."""


Order = Start | BeWorkersOf | Drain


# What a bee tells its client


class Log(NamedTuple):
    """A log record, for the client to log where its user wants it."""

    level: int
    message: str


class InitializerFailed(NamedTuple):
    """The initializer of a function raised this, as an error record."""

    error: str


class Broken(NamedTuple):
    """The bee can't go on, and ends."""

    reason: str


class Dropped(NamedTuple):
    """The bee's jobset is gone, and the bee ends."""


class Empty(NamedTuple):
    """The bee ends, as nobody has added a first job in time."""


class Ended(NamedTuple):
    """The last message."""

    status: int


BeeEvent = Log | InitializerFailed | Broken | Dropped | Empty | Ended

_MESSAGES: dict[str, Any] = {
    message.__name__: message
    for message in (Start, BeWorkersOf, Drain, Log, InitializerFailed, Broken, Dropped, Empty, Ended)
}


def to_line(message: Order | BeeEvent) -> bytes:
    """Write the message as a line of JSON."""
    return json.dumps([type(message).__name__, *message], default=_plain).encode() + b"\n"


def from_line(line: bytes | str) -> Order | BeeEvent:
    """Read the message in a line. Raises ValueError if it is no message, such as half of one."""
    word, *fields = json.loads(line)
    if word == "Start":
        orders, program = fields
        lists = {name: tuple(orders[name]) for name in ("functions", "flags")}
        return Start(Orders(**(orders | lists)), base64.b64decode(program))
    if word == "BeWorkersOf":
        return BeWorkersOf(base64.b64decode(fields[0]))
    message: Order | BeeEvent = _MESSAGES[word](*fields)
    return message


def _plain(value: object) -> object:
    return asdict(value) if isinstance(value, Orders) else base64.b64encode(value).decode()  # type: ignore[arg-type]
