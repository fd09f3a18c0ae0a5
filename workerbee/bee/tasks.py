"""A bee's work as its runners see it: jobs, what those of one batch have in common, and how each of them ends."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

from workerbee.bee.pace import FunctionKey
from workerbee.wire.job import EndKind, Job
from workerbee.wire.printed import NOTHING, Printed


class Record(NamedTuple):
    """The record of a function as runners get it, with its jobset's UUID, and when this bee got it."""

    jobset: str
    function: tuple[Any, ...]
    since: float

    @property
    def size(self) -> int:
        return len(self.function[4])


class Records:
    """The records that were used last, as far as there is room: so many, and so many bytes."""

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
        """Keep a record, in the place of one of the same key; those that had to go for it."""
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
    """Jobs of one function that were claimed together. Who has claimed them may know more of it.

    ``timeout`` is seconds for each job. There is no ``record`` where a function needs none.
    """

    function: FunctionKey
    timeout: float | None
    record: Record | None


class Task(NamedTuple):
    """One job to be run."""

    lot: Lot
    job: Job


class End(NamedTuple):
    """The end of a task, and what it had printed. Where there is no record of an error, the ``evidence`` is known."""

    task: Task
    kind: EndKind
    codec: str
    data: bytes
    mac: bytes | None
    duration: float
    evidence: str = ""
    printed: Printed = NOTHING
