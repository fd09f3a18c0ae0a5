"""Reading a jobset: over one connection, without a thread, and nothing is written.

Jobs are chosen by function and version. A *version* of a function is all that counts as the same code: what has one
identity.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple
from uuid import uuid4

from workerbee.store import Catalogue, ClientStore, Connection, Counts, JobsetReader, Progress
from workerbee.wire import codec, records
from workerbee.wire.job import NO_FUNCTION, Jobset, Stored, StoredFunction

#: What `Reading.results` says of a job beside its input and output.
COLUMNS = ("function", "version", "attempt", "host", "started", "finished", "duration")
#: Jobs in one page.
PAGE = 500


class Choice(NamedTuple):
    """Which jobs are meant: those of the function ``name``, as it is with ``identity``, or in the version so called.

    Without an identity or a version it is the latest version; with ``every`` all of them. Without a name it is the
    function of the job that was added last, and with ``every`` all jobs.
    """

    name: str | None = None
    identity: bytes | None = None
    version: str | None = None
    every: bool = False


class Chosen(NamedTuple):
    """The functions of a choice by number (None: all), and how many versions of others were left out."""

    functions: list[StoredFunction] | None
    n_others: int
    name: str

    @property
    def numbers(self) -> list[int] | None:
        """The functions' numbers; None: all."""
        return None if self.functions is None else [row.number for row in self.functions]


class Reading:
    """What is stored of one jobset. ``decode`` makes values of the ends of runs (`ends.Ends.decode`)."""

    def __init__(
        self,
        connection: Connection,
        jobset: Jobset,
        decode: Callable[[Stored], tuple[Any, BaseException | None]],
    ) -> None:
        self._catalogue = Catalogue(connection)
        self._store = JobsetReader(connection, jobset)
        self._pages = ClientStore(connection, jobset, uuid4())
        self._jobset = jobset
        self._decode = decode

    def progress(self) -> Progress:
        """How many jobs are in which state."""
        return self._store.progress()

    def events(self) -> Counts:
        """What has happened so far, whoever did it."""
        return self._catalogue.counts(self._jobset.number)

    def glance(self) -> dict[str, int]:
        """The jobs by state, as far as there are any, and the bees that serve the jobset."""
        number = self._jobset.number
        states = {state: n for state, n in self.progress()._asdict().items() if n}
        bees = {"bees": self._catalogue.live_bees(number), "runners": self._catalogue.live_runners(number)}
        return states | bees

    def choose(self, choice: Choice) -> Chosen:
        """The functions whose jobs are meant."""
        rows = self._store.functions()
        known = [row for row in rows if row.codec != records.ADOPTED]
        if choice.name is None and choice.every and choice.version is None:
            return Chosen(None, 0, "all functions")
        if choice.name is None:
            number = self._store.newest()
            newest = next((row for row in known if row.number == number), None)
            if newest is None:
                n_others = len({row.identity for row in known})
                return Chosen([] if number is None else [_NONE], n_others, "jobs without a function")
            choice = choice._replace(name=newest.name, identity=None if choice.version else newest.identity)
        named = [row for row in known if choice.name in (row.name, row.name.partition(":")[2])]
        identities = _identities(choice, named, rows)
        chosen = [row for row in named if row.identity in identities]
        n_others = len({row.identity for row in known} - identities)
        return Chosen(chosen, n_others, choice.name or "")

    def results(
        self, chosen: Chosen, *, with_failed: bool = False, columns: Collection[str] = ()
    ) -> Iterator[dict[str, Any]]:
        """One flat dict for each chosen job that is completed, or has ended, in the order of submission."""
        after = 0
        by_number = {row.number: row for row in self._store.functions()} if columns else {}
        while page := self._pages.results(after, PAGE, chosen.numbers):
            after = page[-1].job
            ended = [p for p in page if p.end is not None and (p.end.status == "completed" or with_failed)]
            facts = self._store.run_facts([p.job for p in ended]) if set(columns) - {"function", "version"} else {}
            for p in ended:
                assert p.end is not None  # noqa: S101
                row: dict[Any, Any] = {"job_id": p.job, "status": p.end.status}
                if columns:
                    told = _told(by_number.get(p.function, _NONE), facts.get(p.job))
                    row |= {column: told.get(column) for column in columns}
                yield _flat(row, p.call, p.end, *self._decode(p.end))


_NONE = StoredFunction(NO_FUNCTION, b"", b"", "", "", "")


def _identities(choice: Choice, named: list[StoredFunction], rows: list[StoredFunction]) -> set[bytes]:
    if choice.version is not None:
        return {row.identity for row in named if choice.version in (version(row), row.identity.hex()[:8])}
    if choice.every:
        return {row.identity for row in named}
    if choice.identity is None:
        return {row.identity for row in named[-1:]}
    adoption = records.adoption(choice.identity)
    return {next((row.identity for row in rows if row.digest == adoption), choice.identity)}


def version(function: StoredFunction) -> str:
    """What a version is called: as its user calls it, else by the first digits of its identity."""
    return records.label(function.codec) or function.identity.hex()[:8]


def _told(function: StoredFunction, facts: Any) -> dict[str, Any]:
    """The columns that can be asked for."""
    told: dict[str, Any] = {"function": function.name or None, "version": version(function) or None}
    if facts is not None:
        finished = datetime.fromtimestamp(facts.finished, timezone.utc)
        started = None if facts.duration is None else finished - timedelta(seconds=facts.duration)
        told |= facts._asdict() | {"started": started, "finished": finished}
    return told


def _flat(row: dict[Any, Any], call: Stored, end: Stored, value: Any, error: BaseException | None) -> dict[str, Any]:
    """The row with the input and the output side by side."""
    if call.codec != codec.PICKLE:
        _put(row, json.loads(call.data), "input_")
    if end.status != "completed" or error is not None:
        value = {"error": error}
    elif not isinstance(value, dict):
        value = {"result": value}
    _put(row, value, "output_")
    return row


def _put(row: dict[Any, Any], items: dict[Any, Any], prefix: str) -> None:
    """Add items to a row, each under a key that it doesn't have yet."""
    for key, value in items.items():
        free = key
        while free in row:
            free = f"{prefix}{free}"
        row[free] = value
