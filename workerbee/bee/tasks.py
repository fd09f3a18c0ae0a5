"""A bee's work as its runners see it: jobs, what the jobs of one batch have in common, and the end of each."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

from workerbee.bee.pace import FunctionKey
from workerbee.wire import values
from workerbee.wire.job import EndKind, Job
from workerbee.wire.printed import NOTHING, Printed


class Record(NamedTuple):
    """The record of a function as runners get it, with its jobset's UUID, and when this bee got it."""

    jobset: str
    function: tuple[Any, ...]
    since: float

    @property
    def shared(self) -> tuple[values.TakenArray, ...]:
        """The arrays that were taken out of it."""
        return values.taken(self.function[3])

    @property
    def size(self) -> int:
        return len(self.function[4]) + sum(taken.size for taken in self.shared)

    def is_same(self, other: Record) -> bool:
        """Tell whether it is of the same function: a number comes again after a restore."""
        return (self.jobset, self.function[:2]) == (other.jobset, other.function[:2])


class Records:
    """The records that were used last, limited by their number and by their bytes."""

    def __init__(self, most: int = 1000, size: int = 32_000_000) -> None:
        self._most = most
        self._room = size
        self._kept: OrderedDict[FunctionKey, Record] = OrderedDict()

    def get(self, key: FunctionKey) -> Record | None:
        record = self._kept.get(key)
        if record is not None:
            self._kept.move_to_end(key)
        return record

    def keep(self, key: FunctionKey, record: Record) -> list[FunctionKey]:
        """Keep a record, in the place of one with the same key. Returns the keys of those that were dropped for it."""
        if (former := self._kept.pop(key, None)) is not None:
            self._room += former.size
        self._kept[key] = record
        self._room -= record.size
        gone = []
        while len(self._kept) > self._most or (self._room < 0 and len(self._kept) > 1):
            oldest, let_go = self._kept.popitem(last=False)
            self._room += let_go.size
            gone.append(oldest)
        return gone


@dataclass(eq=False)
class Lot:
    """Jobs of one function that were claimed together. A subclass knows more of them.

    ``timeout`` is in seconds for each job. A function that needs no record has None as its ``record``.
    """

    function: FunctionKey
    timeout: float | None
    record: Record | None


class Task(NamedTuple):
    """One job to be run."""

    lot: Lot
    job: Job


class End(NamedTuple):
    """The end of a task, and what it had printed. An end without an error record has ``evidence`` of its cause."""

    task: Task
    kind: EndKind
    codec: str
    data: bytes
    mac: bytes | None
    duration: float
    evidence: str = ""
    printed: Printed = NOTHING


def lot_of(end: End) -> Lot:
    """Give the lot of a job that has ended."""
    return end.task.lot
